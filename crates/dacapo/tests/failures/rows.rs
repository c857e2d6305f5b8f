//! Rows that a store does not take, cannot be written down or are not the segment's to write.

use dacapo::catalog::Phase;
use dacapo::operate::{LetterKind, WhichLetters};
use dacapo::options::{OnFailure, Policy, Retry, RowScope, SegmentCount};
use dacapo::rows::Value;
use dacapo::status::WaitingOn;
use dacapo::{
    ExpectedRevision, HandlerError, Node, Options, Position, Projection, Recorded, Row, Table, VersionCode, View,
};

use super::told::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_store_does_not_take_is_its_events_failure() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Violate);
    let (node, doubted) = with_a_doubtful_past(Node::builder(), &version_1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    let all = letters(&node, "v1.1").await;
    assert_eq!(all[0], (doubted.get(), LetterKind::Refused, 2));
    let listed = node.version(view("v1.1")).letters().limit(1).await.unwrap();
    assert!(listed[0].letter.error.contains("the index mark of a row of table marks"), "{}", listed[0].letter.error);
    let last = round(&node).await;
    assert_eq!(ask(&node, "ledger-4", last).await, (3, 3));
    // A retry meets the same, and says so.
    node.version(view("v1.1")).retry_letters(WhichLetters::One(doubted)).requested_by(by_test()).await.unwrap();
    until_attempts(&node, 3).await;
    version_1.heal();
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_only_the_commit_refuses_costs_a_few_tries_of_its_batch() {
    let events = |ledger: u64| (0..100).map(move |_| LedgerEvent::Added { amount: ledger as i64 });
    for policy in [Policy::Skip, Policy::DeadLetter] {
        let version_1 = Told::<1>::new(Options { order_matters: false, ..with(policy) });
        version_1.doubt(Act::Brittle);
        let node = Node::builder().start().await.unwrap();
        for ledger in 0..7 {
            node.append(&*format!("ledger-{ledger}"), ExpectedRevision::Any, events(ledger)).await.unwrap();
        }
        doubt(&node, "ledger-3", 5).await;
        let mut last = Position::START;
        for ledger in 0..13 {
            let events = events(ledger);
            last = node.append(&*format!("ledger-{ledger}"), ExpectedRevision::Any, events).await.unwrap().position;
        }
        node.add_projection(version_1.carried()).unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        assert_eq!(ask(&node, "ledger-1", last).await, (200, 200));
        assert_eq!(letters(&node, "v1.1").await.len(), 1);
        let handed: u64 = version_1.all_handed().values().sum();
        assert!(handed <= 4 * 2_001, "{handed} events were handed to the handler for 2,001, {policy:?}");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_panics_when_it_is_written_is_its_events_failure() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Brittle);
    let (node, doubted) = with_a_doubtful_past(Node::builder(), &version_1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    let listed = node.version(view("v1.1")).letters().limit(1).await.unwrap();
    let letter = &listed[0].letter;
    assert_eq!((letter.position, letter.kind, letter.attempts), (doubted, LetterKind::Refused, 2));
    assert!(letter.error.contains("brittle.note") && letter.error.contains("no words for it"), "{}", letter.error);
    version_1.heal();
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    node.shutdown().await;
}

/// One row for all ledgers.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "everything")]
struct Everything {
    #[row(key)]
    what: String,
    events: i64,
}

#[derive(Clone, Debug, Default)]
struct Counting {
    segments: u16,
    rows: RowScope,
}

impl Projection for Counting {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Everything::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { segments: SegmentCount::new(self.segments).unwrap(), rows: self.rows, ..options() }
    }

    async fn apply(&self, _: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let none = || Everything { what: "all".to_owned(), events: 0 };
        Ok(view.upsert("all", none, |row: &mut Everything| row.events += 1).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_events_of_two_segments_would_write_is_refused_by_name() {
    let of = |segments, rows| Counting { segments, rows }.code();
    for code in [of(1, RowScope::OfOneSegment), of(3, RowScope::AcrossSegments)] {
        let node = Node::builder().projection(code).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        for ledger in 0..8 {
            add(&node, &format!("ledger-{ledger}"), 1).await;
        }
        let reading = node.read("totals", node.head()).await.unwrap();
        assert_eq!(reading.view.covers(), node.head(), "nothing is wrong with it");
        node.shutdown().await;
    }

    let node = Node::builder().projection(of(3, RowScope::OfOneSegment)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    for ledger in 0..8 {
        add(&node, &format!("ledger-{ledger}"), 1).await;
    }
    let status = until(&node, "it halts", |status| {
        let waiting_on = &status.projections[0].versions[0].waiting_on;
        waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let told = status.projections[0].versions[0].waiting_on[0].to_string();
    assert!(told.contains("row \"all\" of table everything is written by events of segments"), "{told}");
    node.shutdown().await;
}

/// Writes a row, deletes it, and inserts one by SQL that names no columns.
#[derive(Clone)]
struct Bare(Options);

impl Projection for Bare {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.0.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = event.data;
        match amount {
            0 => view.put(Total { ledger: "x".into(), sum: 1, events: 1 })?,
            1 => drop(view.delete::<Total>("x").await?),
            _ => drop(view.execute("INSERT INTO totals VALUES ($1, 2, 2)", &[Value::from(event.stream)]).await?),
        }
        Ok(())
    }
}

// K2: how many columns SQL sees must not depend on what a batch has put so far.
#[tokio::test(flavor = "multi_thread")]
async fn what_sql_sees_of_a_table_is_the_same_wherever_batches_end() {
    let retry = Retry { attempts: 1, ..Retry::default() };
    let on_failure = OnFailure { serving: Policy::Skip, initializing: Policy::Skip };
    let three = SegmentCount::new(3).unwrap();
    for batch_events_max in [1, 1_000] {
        let options = Options { segments: three, retry, on_failure, batch_events_max, ..Options::default() };
        let node = Node::builder().projection(VersionCode::new(Bare(options))).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        let mut last = Position::START;
        for amount in [0, 1, 2] {
            last = add(&node, "ledger-1", amount).await;
        }
        node.read("totals", last).await.unwrap();
        node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
        until(&node, "it is built", |status| {
            status.projections[0].versions.iter().any(|found| found.version == version("v1.2") && found.covers >= last)
        })
        .await;
        for built in ["v1.1", "v1.2"] {
            let refused = letters(&node, built).await;
            let positions: Vec<u64> = refused.iter().map(|(position, ..)| *position).collect();
            assert_eq!(positions, [last.get()], "{built} in batches of {batch_events_max}");
        }
        node.shutdown().await;
    }
}
