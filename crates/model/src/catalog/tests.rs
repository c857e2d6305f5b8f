//! A catalog that is driven through `decide`, as the library does it.

mod any;
mod cancel;
mod flips;
mod questions;
mod reads;
mod verdicts;
mod versions;

use std::sync::Arc;

use super::*;
use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::Reads;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::verify::{Report, Verdict};
use crate::version::ViewId;

/// A catalog and its history, driven through `decide` as the library does it.
#[derive(Default)]
struct World {
    catalog: Catalog,
    history: Vec<CatalogEvent>,
}

impl World {
    fn given(commands: impl IntoIterator<Item = CatalogCommand>) -> Self {
        let mut world = Self::default();
        for command in commands {
            world.when(&command).unwrap_or_else(|refused| panic!("{command:?}: {refused}"));
        }
        world
    }

    fn when(&mut self, command: &CatalogCommand) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let events = self.catalog.decide(command)?;
        for event in &events {
            let position = self.catalog.position.plus(3);
            self.catalog.evolve(event, position, Timestamp::from_micros(position.get() as i64)).unwrap();
            self.history.push(event.clone());
        }
        Ok(events)
    }

    fn phase(&self, version: &str) -> Phase {
        self.catalog.version(&view(version)).unwrap().phase
    }

    /// Verifies the version of the flip under way if it must be, and confirms the flip.
    fn settle(&mut self, version: &str) {
        if self.catalog.version(&view(version)).unwrap().is_unverified() {
            self.when(&verified(view(version), None, true)).unwrap();
        }
        let confirm = self.confirm(version);
        self.when(&confirm).unwrap();
    }

    fn confirm(&self, version: &str) -> CatalogCommand {
        let hold = self.catalog.projections[&name()].flip.map_or(Position::START, |flip| flip.hold);
        CatalogCommand::ConfirmFlip { view: view(version), hold, covers: hold }
    }
}

fn name() -> ProjectionName {
    ProjectionName::new("balances").unwrap()
}

fn view(version: &str) -> ViewId {
    ViewId { projection: name(), version: version.parse().unwrap() }
}

fn schedule(code: u32) -> CatalogCommand {
    CatalogCommand::Schedule {
        projection: name(),
        code,
        segments: SegmentCount::ONE,
        flip: FlipPolicy::WhenReady,
        fingerprint: format!("code {code}"),
        reads: Reads::default(),
        seeded: false,
        if_new: false,
    }
}

fn begin(version: &str) -> CatalogCommand {
    CatalogCommand::Begin(view(version))
}

fn flip(version: &str) -> CatalogCommand {
    CatalogCommand::RequestFlip(view(version))
}

fn serving_first() -> World {
    let mut world = World::given([schedule(1), begin("v1.1"), flip("v1.1")]);
    world.settle("v1.1");
    world
}

fn verified(view: ViewId, answers: Option<Position>, pass: bool) -> CatalogCommand {
    let verdict = if pass { Verdict::Pass } else { Verdict::Fail };
    let report = Arc::new(Report { at: Position::START, against: None, required: vec![], parts: vec![] });
    CatalogCommand::Verify { view, answers, verdict, report }
}
