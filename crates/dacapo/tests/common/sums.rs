//! A version that begins as a copy and is compared with a fold of the past, on whatever store.

use dacapo::catalog::Phase;
use dacapo::options::Seed;
use dacapo::store::Store;
use dacapo::verify::{Comparison, Part, PartReport, TableComparison, Verified, Verify};
use dacapo::{HandlerError, Node, Options, Projection, Recorded, Row, Table, VersionCode, View};
use dacapo_model::assign::RowScope;

use crate::common::*;

pub const EVENTS: u64 = 30;

pub async fn fill(node: &Node) {
    for number in 0..EVENTS {
        add(node, &format!("ledger-{}", number % 7), 1).await;
    }
}

/// A sum of each ledger, and of all of them, which events of every ledger change.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "totals")]
struct Sum {
    #[row(key)]
    ledger: String,
    sum: i64,
    /// The amount that was added first: version 1 does not keep it.
    first: Option<i64>,
}

#[derive(Clone, Default)]
struct Sums<const CODE: u32> {
    options: Options,
    /// Whether there is a sum of all.
    all: bool,
}

impl<const CODE: u32> Projection for Sums<CODE> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = &[Sum::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        let rows = if self.all { RowScope::AcrossSegments } else { RowScope::OfOneSegment };
        Options { rows, ..self.options.clone() }
    }

    fn comparison(&self, old: u32) -> Comparison {
        let known = if old < CODE { &["first"][..] } else { &[] };
        Comparison::new().table(TableComparison::of("totals").except(known.iter().copied()))
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = event.data;
        for ledger in [event.stream, "all"].into_iter().take(1 + usize::from(self.all)) {
            let none = || Sum { ledger: ledger.to_owned(), sum: 0, first: (CODE > 1).then_some(amount) };
            view.upsert(ledger, none, |row| row.sum += amount).await?;
        }
        Ok(())
    }
}

/// What is found of a version 2 that begins as a copy of version 1 in this way.
pub async fn fold_of(store: Store, seed: Seed, all: bool, fold_events_max: usize) -> (Node, Verified, PartReport) {
    let version_1 = Sums::<1> { options: options(), all };
    let node = Node::builder().store(store).projection(VersionCode::new(version_1)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node).await;
    until(&node, "it follows", |status| status.projections[0].versions[0].covers == status.head).await;
    let verify = Verify { fold_events_max, ..Verify::default() };
    let version_2 = Sums::<2> { options: Options { seed, seed_new_code: true, verify, ..options() }, all };
    node.add_projection(VersionCode::new(version_2)).unwrap();
    let mut catalog = node.catalog();
    let verified = catalog.wait_for(|catalog| {
        let found = catalog.version(&view("v2.1"));
        found.is_some_and(|state| state.seed.is_some() && state.verified.is_some())
    });
    tokio::time::timeout(WAIT_MAX, verified).await.unwrap().unwrap();
    let verified = node.version(view("v2.1")).verification().unwrap().verified.unwrap();
    let part = verified.report.parts.iter().find(|found| found.part == Part::Fold).unwrap().clone();
    (node, verified, part)
}

/// Every amount is 1.
pub fn right() -> Seed {
    Seed::Sql(vec!["INSERT INTO totals SELECT ledger, sum, 1 FROM {source}.totals".into()])
}
