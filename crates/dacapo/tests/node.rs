//! What a node does: append, follow, answer, start again, stop.

mod common;
#[path = "node/keys.rs"]
mod keys;
#[path = "node/reads.rs"]
mod reads;
#[path = "node/start.rs"]
mod start;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use dacapo::catalog::{AskedText, CatalogRefused, Phase, RequestedBy};
use dacapo::journal::{AppendRefused, Filter, Revision};
use dacapo::operate::{Cancel, ReplayFrom, WhichLetters};
use dacapo::status::WaitingOn;
use dacapo::store::Store;
use dacapo::world::Clock;
use dacapo::{
    Error, ErrorKind, ExpectedRevision, Metadata, Node, Position, Projection, Query, Recorded, Row, StartError, Table,
    VersionCode, VersionId, View, limits,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_is_in_the_answer_that_covers_it() {
    let node = Node::builder().projection(carry_v1(v1())).start().await.unwrap();
    for number in 1..=50 {
        let position = add(&node, "ledger-1", number).await;
        let answered = node.ask(TotalOf("ledger-1".into())).after(position).await.unwrap();
        assert_eq!(answered.value, ((1..=number).sum(), number));
        assert!(answered.covers >= position, "I-7");
        assert_eq!(answered.version, version("v1.1"));
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_the_journal_is_told() {
    let (ahead, behind) = (Arc::new(ManualClock::default()), Arc::new(ManualClock::default()));
    let hour = Duration::from_secs(3_600);
    ahead.advance(hour);
    let store = Store::memory(Arc::clone(&ahead) as Arc<dyn Clock>);
    let node = Node::builder().store(store.clone()).clock(Arc::clone(&ahead) as Arc<dyn Clock>).start().await.unwrap();
    let position = add(&node, "ledger-1", 1).await;
    assert_eq!(node.clock_behind(), None);
    let _first = node;

    let node = Node::builder().store(store).clock(Arc::clone(&behind) as Arc<dyn Clock>).start().await.unwrap();
    let told = node.clock_behind().expect("it has looked at the start");
    assert_eq!((told.by, told.position), (hour, position));
    let text = told.to_string();
    assert!(text.contains("(1970-01-01T01:00:00Z, position 1) has a time 60 min after that of this node"), "{text}");
    assert!(text.contains("Set the clocks of all nodes by one source of time"), "{text}");
    assert!(node.not_ready().is_empty(), "it keeps the node from nothing");
    behind.advance(hour - limits::CLOCK_BEHIND_MAX);
    assert_eq!(node.clock_behind(), None, "so much, clocks may differ");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_version_says_so_and_nothing_of_a_pace() {
    let node = Scenario::new().serving(v1()).start().await;
    node.version(view("v1.1")).pause().by("test").await.unwrap();
    add(&node, "ledger-1", 1).await;
    let status = until(&node, "it waits for somebody", |status| {
        let found = &status.projections[0].versions[0];
        found.lag > 0 && found.waiting_on.contains(&WaitingOn::Paused)
    })
    .await;
    let found = &status.projections[0].versions[0];
    assert_eq!(found.time_left, Some(Err(dacapo::status::NoTimeLeft::Paused)));
    assert_eq!((found.rate, &found.stall, found.needs_somebody), (None, &None, Some(true)));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_often_a_version_tries_decides_when_somebody_is_needed() {
    for (attempts, needed) in [(1, true), (u32::MAX, false)] {
        let first = Duration::from_secs(1_000);
        let retry = dacapo::options::Retry { attempts, first, longest: first };
        let version_1 = TotalsV1 { options: dacapo::Options { retry, ..options() }, ..v1() };
        version_1.behaviour.refuse.store(true, Ordering::SeqCst);
        let node = Scenario::new().serving(version_1).start().await;
        doubt(&node, "ledger-1", 1).await;
        let refused = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { .. });
        let status = until(&node, "it was tried once", |status| {
            status.projections[0].versions[0].waiting_on.iter().any(refused)
        })
        .await;
        assert_eq!(status.projections[0].versions[0].needs_somebody, Some(needed));
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_exist_is_not_found() {
    let node = Scenario::new().serving(v1()).start().await;
    let (none, by) = (version("v9.9"), || RequestedBy::by("test"));
    let missing = [
        node.projection(totals()).unwrap().version(none).verification().err(),
        node.projection(totals()).unwrap().version(none).verify_again().requested_by(by()).await.err(),
        node.projection(totals()).unwrap().version(none).rollback().requested_by(by()).await.err(),
        node.projection(totals()).unwrap().version(none).flip().requested_by(by()).await.err(),
        node.projection(totals()).unwrap().version(none).cancel(None).requested_by(by()).await.err(),
        node.version(view("v9.9")).pause().requested_by(by()).await.err(),
    ];
    for error in missing {
        let Some(Error::Catalog(CatalogRefused::NoSuchVersion { known, .. })) = error else { panic!("{error:?}") };
        assert_eq!(known, [version("v1.1")]);
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_can_be_started_by_a_spawned_task() {
    // It must not hold the head of the journal while it waits, which its future would not be `Send` with.
    let node = tokio::spawn(Node::builder().projection(carry_v1(v1())).start()).await.unwrap().unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_moved_on_refuses_the_append() {
    let node = Node::builder().start().await.unwrap();
    node.append("ledger-1", ExpectedRevision::NoStream, [added(1)]).await.unwrap();
    let error = node.append("ledger-1", ExpectedRevision::NoStream, [added(2)]).await.unwrap_err();
    let Error::Append(AppendRefused::WrongRevision { actual, .. }) = error else { panic!("{error}") };
    assert_eq!(actual, Revision::new(1));
    let error = node.append("$catalog", ExpectedRevision::Any, [added(1)]).await.unwrap_err();
    assert!(matches!(error, Error::SystemStream(_)), "{error}");
    node.shutdown().await;
    let error = node.append("ledger-1", ExpectedRevision::Any, [added(1)]).await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_gives_what_is_there_and_then_what_comes() {
    let node = Node::builder().start().await.unwrap();
    for number in 1..=10 {
        add(&node, "ledger-1", number).await;
    }
    let mut subscription = node.subscribe(Position::START, Filter::default()).await.unwrap();
    let mut seen = Vec::new();
    let writer = tokio::spawn({
        let node = node.clone();
        async move {
            for number in 11..=200 {
                add(&node, "ledger-1", number).await;
            }
        }
    });
    while seen.len() < 200 {
        let batch = tokio::time::timeout(WAIT_MAX, subscription.next()).await.expect("it wakes").unwrap().unwrap();
        assert!(batch.through <= node.head(), "never past the head");
        seen.extend(batch.iter().map(|event| event.position.get()));
    }
    writer.await.unwrap();
    assert_eq!(seen, (1..=200).collect::<Vec<_>>(), "I-1: each once, in order");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let version_1 = v1();
    let node = Node::builder().data(directory.path()).projection(carry_v1(version_1.clone())).start().await.unwrap();
    let mut last = Position::START;
    for number in 1..=100 {
        last = add(&node, &format!("ledger-{}", number % 7), number).await;
    }
    ask(&node, "ledger-1", last).await;
    node.shutdown().await;
    assert_eq!(version_1.behaviour.applied.load(Ordering::SeqCst), 100);

    let version_1 = v1();
    let node = Node::builder().data(directory.path()).projection(carry_v1(version_1.clone())).start().await.unwrap();
    check_serving(&node).await;
    assert_eq!(version_1.behaviour.applied.load(Ordering::SeqCst), 0, "nothing is applied twice");
    let last = add(&node, "ledger-1", 1).await;
    ask(&node, "ledger-1", last).await;
    assert_eq!(version_1.behaviour.applied.load(Ordering::SeqCst), 1);
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused_by_naming_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).start().await.unwrap();
    let error = Node::builder().data(directory.path()).start().await.err().unwrap().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    node.shutdown().await;
    let again = Node::builder().data(directory.path()).start().await.unwrap();
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halting_segment_says_why_and_does_not_hold_the_others_back() {
    let version_1 = v1().refusing();
    let node = Node::builder().projection(carry_v1(version_1.clone())).start().await.unwrap();
    for ledger in 0..20 {
        add(&node, &format!("ledger-{ledger}"), 1).await;
    }
    phase(&node, "v1.1", Phase::Serving).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    let mut last = doubted;
    for ledger in 0..20 {
        last = add(&node, &format!("ledger-{ledger}"), 1).await;
    }
    let status = until(&node, "one segment halts and the others follow", |status| {
        let found = &status.projections[0].versions[0];
        let following = found.tokens.iter().filter(|token| token.position == status.head).count();
        following == found.tokens.len() - 1 && !found.waiting_on.is_empty()
    })
    .await;
    let found = &status.projections[0].versions[0];
    let [WaitingOn::Handler { position, error, segment, .. }] = &found.waiting_on[..] else {
        panic!("{:?}", found.waiting_on)
    };
    assert_eq!((*position, error.as_str()), (doubted, "doubtful"), "I-11");
    assert_eq!(found.tokens[usize::from(segment.get())].position.get(), doubted.get() - 1);

    let error = node.ask(TotalOf("ledger-3".into())).after(last).within(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("doubtful"), "the reader is told why: {error}");

    version_1.behaviour.refuse.store(false, Ordering::SeqCst);
    assert_eq!(ask(&node, "ledger-3", last).await, (7, 3), "it goes on without a restart");
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_handler_is_a_refusal_like_any_other() {
    let version_1 = v1();
    version_1.behaviour.panic.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(carry_v1(version_1.clone())).start().await.unwrap();
    node.append("ledger-1", ExpectedRevision::Any, [added(1), LedgerEvent::Doubted { amount: 5 }]).await.unwrap();
    let halts = |reason: &WaitingOn| match reason {
        WaitingOn::Handler { error, .. } => error.contains("panicked: what is this?"),
        _ => false,
    };
    until(&node, "the segment halts", |status| {
        let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.any(|found| found.waiting_on.iter().any(halts))
    })
    .await;
    version_1.behaviour.panic.store(false, Ordering::SeqCst);
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (6, 2));
    node.shutdown().await;
}

/// The rows of version 1 with one more column.
#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
struct Changed {
    #[row(key)]
    ledger: String,
    sum: i64,
    events: i64,
    more: i64,
}

struct ChangedV1;

impl Projection for ChangedV1 {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Changed::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), dacapo::HandlerError> {
        view.put(Changed { ledger: event.stream.to_owned(), sum: 0, events: 0, more: 0 })?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rows_under_an_unchanged_version_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let node = Scenario::data(directory.path()).serving(v1()).start().await;
    let error = node.add_projection(ChangedV1).unwrap_err();
    assert!(matches!(error, Error::Catalog(CatalogRefused::Fingerprint { .. })), "{error}");
    node.shutdown().await;
    let error = Node::builder().data(directory.path()).projection(ChangedV1).start().await.err().unwrap();
    assert!(matches!(error, StartError::Code(_)) && error.to_string().contains("raise the version"), "{error}");
}

/// The rows of version 1 with an index.
#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
struct Indexed {
    #[row(key)]
    ledger: String,
    #[row(index)]
    sum: i64,
    events: i64,
}

struct IndexedV1;

impl Projection for IndexedV1 {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Indexed::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), dacapo::HandlerError> {
        view.put(Indexed { ledger: event.stream.to_owned(), sum: 0, events: 0 })?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_index_under_an_unchanged_version_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let node = Scenario::data(directory.path()).serving(v1()).start().await;
    node.shutdown().await;
    let error = Node::builder().data(directory.path()).projection(IndexedV1).start().await.err().unwrap();
    assert!(matches!(error, StartError::Code(_)) && error.to_string().contains("raise the version"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_be_answered_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(v1()).start().await.unwrap();
    let position = add(&node, "ledger-1", 1).await;
    let error = node.ask(TotalOf("ledger-1".into())).await.unwrap_err().to_string();
    assert!(error.contains("totals v1.1 does not answer") && error.contains("TotalOf"), "{error}");
    let beyond = position.plus(1_000);
    let error = node.read("totals", Position::START).await.map(|reading| reading.version);
    assert_eq!(error.unwrap(), version("v1.1"));
    node.shutdown().await;

    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    let patience = Duration::from_millis(20);
    let error = node.ask(TotalOf("ledger-1".into())).after(beyond).within(patience).await.unwrap_err().to_string();
    assert!(error.contains("is not in the journal"), "{error}");
    node.shutdown().await;

    // A program that lacks the code of the serving version.
    let node = Node::builder().data(directory.path()).start().await.unwrap();
    let error = node.ask(TotalOf("ledger-1".into())).await.unwrap_err();
    assert!(matches!(error, Error::NotCarried { version: Some(_), .. }), "{error}");

    struct Other;
    impl Query for Other {
        const PROJECTION: &'static str = "others";
        type Answer = ();
    }
    let error = node.ask(Other).await.unwrap_err().to_string();
    assert_eq!(error, "there is no projection others: the projection is totals");
    node.shutdown().await;

    // The same while the catalog has the projection and the program carries versions of it.
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    let error = node.ask(Other).await.unwrap_err().to_string();
    assert_eq!(error, "there is no projection others: the projection is totals");
    node.shutdown().await;
}

fn serving_version(node: &Node) -> VersionId {
    node.catalog().borrow().serving(&totals()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_ids_travel_with_the_event() {
    let node = Node::builder().start().await.unwrap();
    let metadata = Metadata { actor: Some("ann".into()), ..Metadata::default() };
    let event = node.new_event(&added(5), metadata.clone()).unwrap();
    let stream = dacapo::journal::StreamName::new("ledger-1").unwrap();
    let append = dacapo::journal::Append::to_stream(stream, ExpectedRevision::NoStream, vec![event.clone()]);
    let first = node.append_batch(append.clone()).await.unwrap();
    let again = node.append_batch(append).await.unwrap();
    assert_eq!((again.position, again.written), (first.position, 0), "I-2: recognised");
    let batch = node.subscribe(Position::START, Filter::default()).await.unwrap().next().await.unwrap().unwrap();
    let read = batch.get(0);
    assert_eq!((read.id, read.extra().unwrap().0, read.payload), (event.id, metadata, &br#"{"amount":5}"#[..]));
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_runs_on_one_thread_too() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    let position = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", position).await, (5, 1));
    node.shutdown().await;
    drop(Arc::new(node));
    let _: VersionCode = v1().into();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_stands_still_says_for_how_long_and_why() {
    let version_1 = v1();
    let node = Scenario::new().serving(version_1.clone()).start().await;
    // It has followed its own flip, so the batch that stands still is that of the event alone.
    until(&node, "it follows", |status| status.projections[0].versions[0].covers == status.head).await;
    version_1.behaviour.gate.send_replace(false);
    let first = add(&node, "ledger-1", 5).await;
    // How long it has been still and in its handler is counted from the first looks at either.
    let in_event = |reason: &WaitingOn| matches!(reason, WaitingOn::Busy { position, .. } if *position == first);
    let status = until(&node, "the stall is told", |status| {
        let found = &status.projections[0].versions[0];
        let stalled = found.stall.as_ref().is_some_and(|stall| stall.on.iter().any(in_event));
        stalled && found.lag_time >= limits::STALL_TIME_MAX
    })
    .await;
    let found = &status.projections[0].versions[0];
    let stall = found.stall.clone().unwrap();
    assert!(stall.still >= limits::STALL_TIME_MAX && stall.on.iter().all(in_event), "{stall}");
    assert_eq!(found.time_left, Some(Err(dacapo::status::NoTimeLeft::Unknown)), "it may go on any time");

    version_1.behaviour.gate.send_replace(true);
    let caught_up = |status: &dacapo::status::Status| status.projections[0].versions[0].lag == 0;
    let status = until(&node, "it goes on", caught_up).await;
    let found = &status.projections[0].versions[0];
    assert_eq!((found.stall.clone(), found.lag_time), (None, Duration::ZERO));
    node.shutdown().await;
}
