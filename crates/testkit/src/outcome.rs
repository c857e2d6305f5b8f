//! What came of the events of a case.

use std::fmt::Debug;
use std::panic::Location;
use std::sync::Arc;

use dacapo::catalog::Phase;
use dacapo::effects::Effect;
use dacapo::status::{VersionStatus, WaitingOn};
use dacapo::{Node, Position, Projection, ProjectionName, Query, Reading, Row, ViewId};
use dacapo_store::Views;
use tokio::time::Instant;

use crate::clock::ManualClock;
use crate::diff;
use crate::limits;
use crate::watched::Effects;

/// The result of the events of a [`Case`](crate::Case), to compare with what a test expects.
pub struct Outcome {
    node: Node,
    clock: Arc<ManualClock>,
    effects: Effects,
    views: Arc<dyn Views>,
    name: &'static str,
    code: u32,
    refused: Vec<(Position, String)>,
}

impl Outcome {
    pub(crate) fn new<P: Projection>(
        node: Node,
        clock: Arc<ManualClock>,
        effects: Effects,
        views: Arc<dyn Views>,
    ) -> Self {
        Self { node, clock, effects, views, name: P::NAME, code: P::VERSION, refused: Vec::new() }
    }

    /// Returns the node, for checks that the kit does not have.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the clock of the node.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Checks that the view has these rows of a table, in any order, and no others.
    ///
    /// # Panics
    /// If it has other rows. The message shows, by key, each column that differs.
    #[track_caller]
    pub fn rows<R: Row>(&self, expected: impl IntoIterator<Item = R>) -> impl Future<Output = &Self> {
        let at = Location::caller();
        async move {
            let found = self.reading().await.view.rows::<R>().load().await;
            let found = found.unwrap_or_else(|error| panic!("the rows of {} cannot be read: {error}", R::TABLE.name));
            let differs = diff::rows(expected, found);
            assert!(differs.is_empty(), "{}{differs}checked at {at}", self.because());
            self
        }
    }

    /// Checks the projection's answer to a query.
    ///
    /// # Panics
    /// If it answers something else, or nothing.
    #[track_caller]
    pub fn answer<Q: Query>(&self, query: Q, expected: Q::Answer) -> impl Future<Output = &Self>
    where
        Q::Answer: PartialEq + Debug,
    {
        let at = Location::caller();
        async move {
            let answered = self.node.ask(query).await;
            let found =
                answered.unwrap_or_else(|error| panic!("{}no answer: {error}\nchecked at {at}", self.because())).value;
            assert!(
                found == expected,
                "{}the answer differs\n  expected: {expected:?}\n     found: {found:?}\nchecked at {at}",
                self.because()
            );
            self
        }
    }

    /// Checks that these effects of type `E` were made and no others of that type, in the order of their events.
    ///
    /// # Panics
    /// If others were made. The message shows which.
    #[track_caller]
    pub fn effects<E: Effect>(&self, expected: impl IntoIterator<Item = E>) -> &Self {
        let found = self.effects.all().into_iter().filter(|made| made.name == E::NAME);
        let found = found.map(|made| (made.key.to_string(), made.effect)).collect();
        let differs = diff::effects(expected, found);
        assert!(differs.is_empty(), "{}{differs}", self.because());
        self
    }

    /// Checks that the handler refused an event, with these words in its error.
    ///
    /// # Panics
    /// If it refused none, or with other words.
    #[track_caller]
    pub fn refused(&self, words: &str) -> &Self {
        let said = self.refused.iter().any(|(_, error)| error.contains(words));
        assert!(said, "expected a refusal that says {words:?}; {}", self.told_refusals());
        self
    }

    /// Checks that the handler refused no event.
    ///
    /// # Panics
    /// If it refused one. The message says which, and why.
    #[track_caller]
    pub fn refused_nothing(&self) -> &Self {
        assert!(self.refused.is_empty(), "expected no refusal; {}", self.told_refusals());
        self
    }

    fn told_refusals(&self) -> String {
        let told =
            self.refused.iter().map(|(position, error)| format!("the handler refused event {position}: {error}\n"));
        if self.refused.is_empty() { "the handler refused no event\n".to_owned() } else { told.collect() }
    }

    /// Returns the refusals as text, empty if there are none. A refusal is most likely why something else differs.
    fn because(&self) -> String {
        if self.refused.is_empty() { String::new() } else { self.told_refusals() }
    }

    async fn reading(&self) -> Reading {
        let reading = self.node.read(self.name, Position::START).await;
        reading.unwrap_or_else(|error| panic!("{}the view cannot be read: {error}", self.because()))
    }

    /// Waits until the version serves. Returns false if its handler refuses an event before that.
    pub(crate) async fn until_serving(&mut self) -> bool {
        let found = self.until("it serves", |found, _| found.phase == Phase::Serving).await;
        found.phase == Phase::Serving
    }

    /// Waits until all events are applied and all effects made, or the handler refuses an event.
    pub(crate) async fn until_done(&mut self) {
        let found = self.until("it covers every event", |found, head| found.covers >= head).await;
        let id = self.id(&found);
        let view = self.views.find(&id).await.unwrap_or_else(|error| panic!("{error}"));
        let view = view.unwrap_or_else(|| panic!("{id} has no view"));
        let started = Instant::now();
        loop {
            let outbox = view.outbox(1).await.unwrap_or_else(|error| panic!("{error}"));
            if outbox.pending == 0 {
                break;
            }
            assert!(started.elapsed() < limits::CASE_TIME_MAX, "the effects of {id} are not made: {outbox:?}");
            tokio::time::sleep(limits::CASE_LOOK).await;
        }
        let letters = self.node.version(id).letters().limit(limits::LETTERS_MAX).await;
        let letters = letters.unwrap_or_else(|error| panic!("the dead letters cannot be read: {error}"));
        self.refused.extend(letters.into_iter().map(|found| (found.letter.position, found.letter.error)));
    }

    fn id(&self, found: &VersionStatus) -> ViewId {
        let projection = ProjectionName::new(self.name).unwrap_or_else(|error| panic!("{error}"));
        ViewId { projection, version: found.version }
    }

    /// Waits until the version is as wanted, or its handler refuses an event, which is noted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&VersionStatus, Position) -> bool) -> VersionStatus {
        let started = Instant::now();
        loop {
            let status = self.node.status().await.unwrap_or_else(|error| panic!("no status: {error}"));
            let projection = status.projections.into_iter().find(|found| found.name.as_str() == self.name);
            let mut versions = projection.into_iter().flat_map(|found| found.versions);
            if let Some(found) = versions.find(|found| found.version.code == self.code) {
                if wanted(&found, status.head) {
                    return found;
                }
                let refused: Vec<_> = found.waiting_on.iter().filter_map(refusal).collect();
                if !refused.is_empty() {
                    self.refused = refused;
                    return found;
                }
                let told: Vec<_> = found.waiting_on.iter().map(ToString::to_string).collect();
                let stuck = found.phase == Phase::Failed || started.elapsed() > limits::CASE_TIME_MAX;
                let phase = found.phase;
                assert!(!stuck, "never: {what}; {} is {phase} and waits on {}", self.name, told.join("; "));
            }
            tokio::time::sleep(limits::CASE_LOOK).await;
        }
    }
}

/// The event that a handler refuses, and what it says.
fn refusal(reason: &WaitingOn) -> Option<(Position, String)> {
    match reason {
        WaitingOn::Handler { position, error, .. } | WaitingOn::Letters { position, error, .. } => {
            Some((*position, error.clone()))
        }
        _ => None,
    }
}
