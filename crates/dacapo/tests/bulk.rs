//! A view that replays without its indexes and gets them at the end: killed, stopped and out of room in the middle of
//! either, it ends as the view that had them all along. // I-3, I-11

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use dacapo::catalog::{Phase, Stage};
use dacapo::operate::WhichLetters;
use dacapo::options::{OnFailure, Policy, Retry, SegmentCount};
use dacapo::rows::Value;
use dacapo::status::WaitingOn;
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{
    ExpectedRevision, HandlerError, Node, Options, Position, Projection, Recorded, Row, Table, VersionCode, View,
    ViewId,
};
use dacapo_store::embedded::SqliteViews;
use dacapo_testkit::{Call, Fault, Faults};
use tokio::sync::watch;

/// The directory of a child process, and the call at which it dies.
const CHILD: &str = "DACAPO_BULK_CHILD";
const LEDGERS: i64 = 40;
const EVENTS: i64 = 400;

#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "wide")]
struct Wide {
    #[row(key)]
    ledger: String,
    #[row(index)]
    sum: i64,
    #[row(index)]
    last: i64,
    #[row(unique)]
    mark: String,
}

#[derive(Clone, Debug, Default)]
struct WideV1 {
    options: Options,
    /// Whether the handler looks rows up in SQL, by an index.
    by_sql: bool,
    /// Whether it leaves an event at which that fails, and says nothing.
    is_careless: bool,
}

impl Projection for WideV1 {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Wide::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = event.data;
        if self.by_sql {
            // Refused by SQLite where that index is not there.
            let sql = "SELECT count(*) FROM wide INDEXED BY \"wide.last\" WHERE last = ?";
            match view.query(sql, dacapo::params![amount]).await {
                Err(_) if self.is_careless => return Ok(()),
                found => drop(found?),
            }
        }
        let ledger = event.stream;
        let none = || Wide { ledger: ledger.to_owned(), sum: 0, last: 0, mark: format!("mark of {ledger}") };
        let add = |row: &mut Wide| (row.sum, row.last) = (row.sum + amount, amount);
        Ok(view.upsert(ledger, none, add).await?)
    }
}

fn wide(index_last: bool, by_sql: bool) -> VersionCode {
    let options = Options { segments: SegmentCount::ONE, batch_events_max: 50, index_last, ..Options::default() };
    VersionCode::new(WideV1 { options, by_sql, is_careless: false })
}

async fn fill(node: &Node) {
    for number in 0..EVENTS {
        add(node, &format!("ledger-{}", number % LEDGERS), number).await;
    }
}

/// The rows, and the names of the indexes.
async fn all(node: &Node) -> (Vec<Vec<Value>>, Vec<Value>) {
    let mut reading = node.read("totals", node.head()).await.unwrap();
    let (_, rows) = reading.view.query("SELECT * FROM wide ORDER BY ledger", &[]).await.unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'wide.%' ORDER BY name";
    let (_, names) = reading.view.query(sql, &[]).await.unwrap();
    (rows, names.into_iter().flatten().collect())
}

/// What a node makes of `EVENTS` in memory that has the indexes from the start.
async fn expected() -> (Vec<Vec<Value>>, Vec<Value>) {
    let node = Node::builder().start().await.unwrap();
    fill(&node).await;
    node.add_projection(wide(false, false)).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let expected = all(&node).await;
    node.shutdown().await;
    assert_eq!(expected.1, ["wide.last", "wide.mark", "wide.sum"].map(|name| Value::Text(name.into())));
    assert_eq!(expected.0.len(), LEDGERS as usize);
    expected
}

fn embedded(directory: &Path) -> Store {
    Store::embedded(directory, Arc::new(SystemClock)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_gets_its_indexes_last_is_as_one_that_had_them_all_along() {
    let expected = expected().await;
    for by_sql in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::builder().data(directory.path()).start().await.unwrap();
        fill(&node).await;
        node.add_projection(wide(true, by_sql)).unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        assert_eq!(all(&node).await, expected, "by SQL: {by_sql}");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_what_a_handler_made_of_being_refused_sql() {
    let node = Node::builder().start().await.unwrap();
    fill(&node).await;
    node.add_projection(WideV1 { by_sql: true, is_careless: true, ..WideV1::default() }).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(all(&node).await, expected().await);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_does_not_serve_before_its_indexes_are_there_and_says_what_it_waits_on() {
    let faults = Faults::default();
    faults.always(Fault::Fails, |call| matches!(call, Call::Index(_)));
    let node = Node::builder().store(faults.over(&Store::memory(Arc::new(SystemClock)))).start().await.unwrap();
    fill(&node).await;
    node.add_projection(wide(true, false)).unwrap();
    let found = until(&node, "it waits for room", |status| {
        let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.any(|found| found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Store { .. })))
    })
    .await;
    let found = &found.projections[0].versions[0];
    assert_eq!((found.phase, found.stage), (Phase::Initializing, Some(Stage::Indexing)));
    faults.heal();
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(all(&node).await, expected().await);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_while_indexes_are_built_is_waited_out() {
    let directory = tempfile::tempdir().unwrap();
    let (views, faults) = (Arc::new(SqliteViews::open(directory.path().join("other")).unwrap()), Faults::default());
    let store = Store { views: Arc::clone(&views) as _, ..embedded(&directory.path().join("data")) };
    let fills_up = Arc::clone(&views);
    faults.plan(move |call| {
        if matches!(call, Call::Index(_)) {
            fills_up.set_full(true);
        }
        None
    });
    let node = Node::builder().store(faults.over(&store)).start().await.unwrap();
    fill(&node).await;
    node.add_projection(wide(true, false)).unwrap();
    let status = until(&node, "it says that the disk is full", |status| {
        let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.any(|found| found.waiting_on.iter().any(|reason| reason.to_string().contains("free some space")))
    })
    .await;
    assert_eq!(status.projections[0].versions[0].stage, Some(Stage::Indexing));
    faults.heal();
    views.set_full(false);
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(all(&node).await, expected().await);
    node.shutdown().await;
}

/// What version 1 waits on.
fn waiting_on(status: &dacapo::status::Status) -> &[WaitingOn] {
    status.projections.first().map_or(&[], |projection| &projection.versions[0].waiting_on)
}

fn is_index(reason: &WaitingOn) -> bool {
    matches!(reason, WaitingOn::Index { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_a_handler_asks_for_are_not_built_in_the_time_of_its_event() {
    let faults = Faults::default();
    let node = Node::builder().store(faults.over(&Store::memory(Arc::new(SystemClock)))).start().await.unwrap();
    fill(&node).await;
    // The first index takes as long as the test lets it.
    faults.always(Fault::Waits, |call| matches!(call, Call::Index(_)));
    let asks_at_once = WideV1 {
        options: Options { handler_time_max: Duration::from_millis(100), ..Options::default() },
        by_sql: true,
        is_careless: false,
    };
    node.add_projection(asks_at_once).unwrap();
    let status = until(&node, "it builds an index, or gives up", |status| {
        waiting_on(status).iter().any(|reason| is_index(reason) || matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    assert!(waiting_on(&status).iter().all(is_index), "{:?}", waiting_on(&status));
    // The handler is not in its event meanwhile, so its time cannot run out, and a pause is heeded.
    node.version(view("v1.1")).pause().by("test").await.unwrap();
    until(&node, "it is paused", |status| waiting_on(status) == [WaitingOn::Paused]).await;
    faults.heal();
    node.version(view("v1.1")).resume().by("test").await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(all(&node).await, expected().await);
    node.shutdown().await;
}

/// Uses SQL for events that are doubted alone, once it does not refuse them, and waits at one event.
#[derive(Clone)]
struct Doubting {
    refuses: Arc<AtomicBool>,
    gate: watch::Sender<bool>,
}

/// The event that it waits at.
const WAITS: i64 = 100;

impl Projection for Doubting {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Wide::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options {
            batch_events_max: 1,
            retry: Retry { attempts: 1, ..Retry::default() },
            on_failure: OnFailure { initializing: Policy::DeadLetter, ..OnFailure::default() },
            ..Options::default()
        }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let by_sql = match event.data {
            LedgerEvent::Doubted { .. } if self.refuses.load(Ordering::SeqCst) => return Err("doubtful".into()),
            LedgerEvent::Doubted { .. } => true,
            LedgerEvent::Added { amount: WAITS } => {
                self.gate.subscribe().wait_for(|open| *open).await.map(|_| false)?
            }
            LedgerEvent::Added { .. } => false,
        };
        WideV1 { by_sql, ..WideV1::default() }.apply(event, view).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_set_aside_gets_the_indexes_that_it_asks_for() {
    let node = Node::builder().start().await.unwrap();
    node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 5 }]).await.unwrap();
    let waits = add(&node, "ledger-2", WAITS).await;
    add(&node, "ledger-3", 1).await;
    let version_1 = Doubting { refuses: Arc::new(AtomicBool::new(true)), gate: watch::Sender::new(false) };
    node.add_projection(version_1.clone()).unwrap();
    phase(&node, "v1.1", Phase::Initializing).await;
    until(&node, "one is set aside and it waits at the next", |status| {
        status.projections[0].versions[0].letters == 1 && version_1.gate.receiver_count() > 0
    })
    .await;
    // In the middle of the past, where there are no indexes yet.
    node.version(view("v1.1")).pause().by("test").await.unwrap();
    version_1.gate.send_replace(true);
    let status = until(&node, "it rests", |status| status.projections[0].versions[0].covers >= waits).await;
    assert_eq!(status.projections[0].versions[0].stage, Some(Stage::Replaying));
    version_1.refuses.store(false, Ordering::SeqCst);
    node.version(view("v1.1")).retry_letters(WhichLetters::All).by("test").await.unwrap();
    node.version(view("v1.1")).resume().by("test").await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let (rows, indexes) = all(&node).await;
    assert_eq!((rows.len(), indexes.len()), (3, 3));
    assert_eq!(node.status().await.unwrap().projections[0].versions[0].letters, 0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_being_built_is_given_up_for_a_pause_and_built_again() {
    let faults = Faults::default();
    faults.always(Fault::Waits, |call| matches!(call, Call::Index(_)));
    let node = Node::builder().store(faults.over(&Store::memory(Arc::new(SystemClock)))).start().await.unwrap();
    fill(&node).await;
    node.add_projection(wide(true, false)).unwrap();
    until(&node, "it builds an index", |status| waiting_on(status).iter().any(is_index)).await;
    node.version(view("v1.1")).pause().by("test").await.unwrap();
    let status = until(&node, "it is paused", |status| waiting_on(status) == [WaitingOn::Paused]).await;
    assert_eq!(status.projections[0].versions[0].stage, Some(Stage::Indexing));
    node.version(view("v1.1")).resume().by("test").await.unwrap();
    until(&node, "it builds the index again", |status| waiting_on(status).iter().any(is_index)).await;
    faults.heal();
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(all(&node).await, expected().await);
    node.shutdown().await;
}

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (die_at, directory) = told.split_once(':').unwrap();
    let (die_at, faults) = (die_at.to_owned(), Faults::default());
    let (commits, indexes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // As kill -9 would: nothing is flushed, rolled back or finished.
    faults.plan(move |call| {
        let (commits, indexes) = match call {
            Call::Commit(_) => (commits.fetch_add(1, Ordering::SeqCst) + 1, indexes.load(Ordering::SeqCst)),
            Call::Index(_) => (0, indexes.fetch_add(1, Ordering::SeqCst) + 1),
            _ => return None,
        };
        let dies = match die_at.as_str() {
            "third batch" => commits == 3,
            "first index" => (commits, indexes) == (0, 1),
            "first index is built" => commits > 0 && indexes == 1,
            "second index" => (commits, indexes) == (0, 2),
            "second index is built" => commits > 0 && indexes == 2,
            _ => panic!("die at {die_at}?"),
        };
        if dies {
            std::process::abort();
        }
        None
    });
    let store = faults.over(&embedded(Path::new(directory)));
    let _node = Node::builder().store(store).projection(wide(true, false)).start().await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_be_killed_while_it_replays_in_bulk_and_while_it_builds_indexes() {
    let expected = expected().await;
    for (die_at, missing) in [
        ("third batch", 2),
        ("first index", 2),
        ("first index is built", 2),
        ("second index", 1),
        ("second index is built", 1),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::builder().data(directory.path()).start().await.unwrap();
        fill(&node).await;
        let filled = node.head();
        node.shutdown().await;
        let died = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact"])
            .env(CHILD, format!("{die_at}:{}", directory.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!died.success(), "{die_at}: it was to die");

        check_left(directory.path(), die_at, missing, filled).await;
        let node = Node::builder().data(directory.path()).projection(wide(true, false)).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        assert_eq!(all(&node).await, expected, "{die_at}");
        node.shutdown().await;
    }
}

/// What the dead process left is whole: as many indexes as it had committed, and rows at their tokens.
async fn check_left(directory: &Path, die_at: &str, missing: usize, filled: Position) {
    let store = embedded(directory);
    let id: ViewId = view("v1.1");
    let left = store.views.find(&id).await.unwrap().unwrap();
    assert_eq!(left.missing_indexes(WideV1::TABLES).await.unwrap().len(), missing, "{die_at}");
    let tokens = left.tokens().await.unwrap();
    let covers = tokens.iter().map(|token| token.position).min().unwrap();
    assert_eq!(covers >= filled, die_at != "third batch", "{die_at}: it covers {covers}");
    store.journal.close().await;
}
