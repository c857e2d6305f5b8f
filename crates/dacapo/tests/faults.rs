//! What a node does when the store fails, loses its answers or is not what it was.

#[path = "faults/cancel.rs"]
mod cancel;
mod common;
#[path = "faults/damage.rs"]
mod damage;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "faults/history.rs"]
mod history;
#[path = "faults/look.rs"]
mod look;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use dacapo::{
    Append, Asked, CatalogEvent, Error, ExpectedRevision, Filter, FlipKind, FlipPolicy, HandlerError, Ids, NewEvent,
    Node, OnFailure, Options, Phase, Policy, Position, Projection, ProjectionName, RebuildOptions, Recorded, Retry,
    Row, SegmentCount, Status, Store, SystemClock, SystemIds, Table, View, WaitingOn, limits,
};
use dacapo_model::CleanUpReason;
use dacapo_store::{Health, catalog_form};
use faulty::{Call, Fault, Faults};

/// A second projection, whose name comes behind that of the first.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "visits")]
struct Visit {
    #[row(key)]
    ledger: String,
}

struct Visits;

impl Projection for Visits {
    const NAME: &'static str = "visits";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Visit::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        Ok(view.put(Visit { ledger: event.stream.to_owned() })?)
    }
}

fn store(directory: &Path) -> Store {
    Store::embedded(directory, Arc::new(SystemClock)).unwrap()
}

/// The text of what a version waits on.
async fn waiting(node: &Node, text: &str) -> String {
    let status = node.status().await.unwrap();
    let totals = status.projections.iter().find(|found| found.name == totals()).unwrap();
    let found = totals.versions.iter().find(|found| found.version == version(text)).unwrap();
    found.waiting_on.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_node_whose_journal_fails_is_not_ready_and_says_why() {
    let faults = Faults::default();
    let store = faults.over(&Store::memory(Arc::new(SystemClock)));
    let node = Node::builder().store(store).start().await.unwrap();
    assert_eq!(node.not_ready(), []);
    faults.set_health(Health::Failing("cannot append: the disk is full".to_owned()));
    let told: Vec<_> = node.not_ready().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["the store: cannot append: the disk is full"]);
    faults.set_health(Health::Well);
    assert_eq!(node.not_ready(), []);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_told_from_what_is_known_while_no_view_answers() {
    let faults = Faults::default();
    let store = faults.over(&Store::memory(Arc::new(SystemClock)));
    let node = Node::builder().store(store).carry(carry_v1(v1())).carry(Visits).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.read("visits", last).await.unwrap();
    let told = async || {
        let status = tokio::time::timeout(Duration::from_secs(30), node.status()).await.expect("it is told").unwrap();
        let versions: Vec<_> = status.projections.into_iter().flat_map(|found| found.versions).collect();
        assert_eq!(versions.len(), 2);
        versions
    };
    let known = told().await;
    assert!(known.iter().all(|version| version.age.is_none() && !version.tokens.is_empty()), "{known:?}");
    faults.plan(|call| matches!(call, Call::Tokens(_)).then_some(Fault::Waits));
    for _ in 0..3 {
        for (version, known) in told().await.iter().zip(&known) {
            assert!(version.age.is_some(), "{version:?}");
            assert_eq!((&version.tokens, version.letters), (&known.tokens, known.letters));
        }
    }
    // One that cannot be read is known as well, and says why.
    faults.plan(|call| matches!(call, Call::Tokens(_)).then_some(Fault::Fails));
    let is_store = |reason: &WaitingOn| matches!(reason, WaitingOn::Store { .. });
    let says_why = async || {
        while !told().await.iter().all(|version| version.waiting_on.iter().any(is_store)) {}
    };
    tokio::time::timeout(Duration::from_secs(30), says_why()).await.expect("every version says why");
    for (version, known) in told().await.iter().zip(&known) {
        assert!(version.age.is_some() && version.tokens == known.tokens, "{version:?}");
    }
    faults.stop();
    let is_fresh = async || while !told().await.iter().all(|version| version.age.is_none()) {};
    tokio::time::timeout(Duration::from_secs(30), is_fresh()).await.expect("what is told is of now again");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_view_stops_nothing_else_and_is_replaced_by_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).carry(Visits).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.read("visits", last).await.unwrap();
    node.shutdown().await;

    let faults = Faults::default();
    faults.plan(|call| match call {
        Call::Open(id) | Call::Find(id) if **id == view("v1.1") => Some(Fault::Damaged),
        _ => None,
    });
    let builder = Node::builder().store(faults.over(&store(directory.path())));
    let node = builder.carry(carry_v1(v1())).carry(Visits).start().await.unwrap();
    node.read("visits", last).await.expect("the other projection is not concerned");
    let error = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(100)).await.unwrap_err().to_string();
    assert!(error.contains("is damaged"), "I-11: {error}");
    assert!(waiting(&node, "v1.1").await.contains("is damaged"), "I-11");

    // As the message says.
    node.rebuild(&totals(), None, Asked::by("test")).await.unwrap();
    ready(&node, "v1.2").await;
    assert_eq!(flip(&node).await.to, version("v1.2"));
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    check_serving(&node).await;
    let error = waiting(&node, "v1.1").await;
    assert!(error.contains("is damaged"), "I-8: no way back, and it says why: {error}");
    node.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
    phase(&node, "v1.1", Phase::Obsolete).await;
    assert!(!directory.path().join("views/totals/v1.1.db").exists(), "I-12");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_view_is_damaged_while_it_is_built_fails_and_is_built_again() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    faults.plan(|call| match call {
        Call::Open(id) | Call::Find(id) if **id == view("v1.2") => Some(Fault::Damaged),
        _ => None,
    });
    rebuild(&node, 1).await;
    phase(&node, "v1.2", Phase::Failed).await;
    let catalog = node.catalog().borrow().clone();
    assert!(catalog.version(&view("v1.2")).unwrap().reason.as_ref().unwrap().contains("is damaged"), "I-11");

    faults.plan(|_| None);
    node.rebuild(&totals(), Some(1), Asked::by("test")).await.unwrap();
    phase(&node, "v1.2", Phase::Obsolete).await;
    ready(&node, "v1.3").await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_told_of_before_the_processor_has_its_claim() {
    let directory = tempfile::tempdir().unwrap();
    let on_failure = OnFailure { serving: Policy::DeadLetter, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let version_1 = TotalsV1 { options: Options { on_failure, retry, ..options() }, ..v1() };
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().data(directory.path()).carry(carry_v1(version_1.clone())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    for _ in 0..2 {
        node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    }
    let letters = |status: &dacapo::Status| status.projections[0].versions[0].letters;
    until(&node, "they are set aside", |status| letters(status) == 2).await;
    node.shutdown().await;

    let faults = Faults::default();
    faults.plan(|call| matches!(call, Call::Claim(_)).then_some(Fault::Fails));
    let builder = Node::builder().store(faults.over(&store(directory.path())));
    let node = builder.carry(carry_v1(version_1)).start().await.unwrap();
    assert_eq!(letters(&node.status().await.unwrap()), 2);
    faults.stop();
    node.shutdown().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Also once the journal has grown past where the view is: what got those positions is not in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_ahead_of_its_journal_has_parted_for_good_and_stops_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, backup) = (directory.path().join("journal"), directory.path().join("backup"));
    let start = || Node::builder().data(directory.path()).carry(carry_v1(v1())).start();
    let node = start().await.unwrap();
    ask(&node, "ledger-1", add(&node, "ledger-1", 5).await).await;
    copy(&journal, &backup);
    // Soon enough, the view has no mark of it.
    let ahead = add(&node, "ledger-1", 6).await;
    ask(&node, "ledger-1", ahead).await;
    node.shutdown().await;
    std::fs::remove_dir_all(&journal).unwrap();
    copy(&backup, &journal);

    let is_told = |reasons: &[WaitingOn]| reasons.iter().any(|reason| matches!(reason, WaitingOn::Parted { .. }));
    for _ in 0..3 {
        let node = start().await.unwrap();
        let not_ready: Vec<_> = node.not_ready().into_iter().map(|found| found.reason).collect();
        assert!(is_told(&not_ready), "{not_ready:?}");
        let status = node.status().await.unwrap();
        assert!(is_told(&status.projections[0].versions[0].waiting_on), "{status:?}");
        let last = add(&node, "ledger-2", 1).await;
        assert!(last > ahead, "it is past the view by now");
        let asked = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(20)).await;
        assert!(matches!(asked, Err(Error::TimedOut { .. })), "{asked:?}");
        node.shutdown().await;
    }
    let node = start().await.unwrap();
    node.rebuild(&totals(), None, Asked::by("test")).await.unwrap();
    ready_and_flip(&node, "v1.2").await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    assert_eq!(ask(&node, "ledger-2", node.head()).await, (3, 3));
    check_serving(&node).await;
    assert!(node.not_ready().is_empty());
    let parted = node.history().await.unwrap().into_iter().map(|entry| entry.event);
    assert_eq!(parted.filter(|event| matches!(event, CatalogEvent::Parted { .. })).count(), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_a_version_that_was_never_begun_stops_nothing_and_is_not_built_upon() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, backup) = (directory.path().join("journal"), directory.path().join("backup"));
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.shutdown().await;
    copy(&journal, &backup);
    // No event that version 1 would cover; version 2 is built from what is there.
    let node = Node::builder().data(directory.path()).carry(carry_v2(v2())).start().await.unwrap();
    ready(&node, "v2.1").await;
    node.shutdown().await;
    std::fs::remove_dir_all(&journal).unwrap();
    copy(&backup, &journal);

    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    assert_eq!(ask(&node, "ledger-1", add(&node, "ledger-1", 5).await).await, (5, 1));
    // Its number comes back.
    node.carry(carry_v2(v2())).unwrap();
    until(&node, "the view of another history is told", |status| {
        let versions = status.projections[0].versions.iter();
        let told = versions.flat_map(|version| &version.waiting_on);
        told.into_iter().any(|reason| matches!(reason, WaitingOn::Parted { .. }))
    })
    .await;
    phase(&node, "v2.1", Phase::Scheduled).await;
    node.rebuild(&totals(), Some(2), Asked::by("test")).await.unwrap();
    ready_and_flip(&node, "v2.2").await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_view_of_the_serving_version_is_built_again_before_it_answers() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    let mut last = Position::START;
    for number in 1..=50 {
        last = add(&node, "ledger-1", number).await;
    }
    ask(&node, "ledger-1", last).await;
    node.shutdown().await;
    std::fs::remove_file(directory.path().join("views/totals/v1.1.db")).unwrap();

    let version_1 = v1();
    version_1.behaviour.gate.send_replace(false);
    let node = Node::builder().data(directory.path()).carry(carry_v1(version_1.clone())).start().await.unwrap();
    // Without naming a position.
    let error = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "I-7: {error}");
    version_1.behaviour.gate.send_replace(true);
    let answered = node.ask(TotalOf("ledger-1".into())).await.unwrap();
    assert_eq!(answered.value, ((1..=50).sum(), 50));
    assert!(answered.covers >= last, "I-7");
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_can_go_back_from_a_version_whose_handler_refuses_an_event() {
    let version_2 = v2();
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(version_2.clone())).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    version_2.behaviour.refuse.store(true, Ordering::SeqCst);
    node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 5 }]).await.unwrap();
    until(&node, "version 2 halts", |status| {
        let versions = &status.projections[0].versions;
        versions[1].waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let report = roll_back(&node).await;
    assert_eq!((report.to, report.kind), (version("v1.1"), FlipKind::Rollback), "I-8");
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    check_serving(&node).await;
    node.shutdown().await;
}

/// A node on a store in `directory` that fails as `faults` says, whose version 1 serves and 2 is ready.
async fn two_versions(directory: &Path, faults: &Faults) -> Node {
    let node = Node::builder().store(faults.over(&store(directory))).carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(v2())).unwrap();
    ready(&node, "v2.1").await;
    node
}

/// Builds this code once more, in the place of whatever is ready.
async fn rebuild(node: &Node, code: u32) {
    let how = RebuildOptions { code: Some(code), discard: true, ..RebuildOptions::default() };
    node.rebuild_with(&totals(), how, Asked::by("test")).await.unwrap();
}

/// Lets every append of this catalog event fail, and tells when one was tried.
fn refuse(faults: &Faults, event_type: &'static str) -> tokio::sync::watch::Receiver<bool> {
    let (tried, trying) = tokio::sync::watch::channel(false);
    faults.plan(move |call| {
        let meets = call.appends(event_type);
        tried.send_if_modified(|tried| !std::mem::replace(tried, *tried || meets) && meets);
        meets.then_some(Fault::Fails)
    });
    trying
}

async fn tried(mut trying: tokio::sync::watch::Receiver<bool>) {
    let tried = trying.wait_for(|tried| *tried);
    tokio::time::timeout(WAIT_MAX, tried).await.expect("it is tried").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flip_to_a_version_whose_code_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let trying = refuse(&faults, "flipped");
    node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    tried(trying).await;
    node.shutdown().await;

    // The flip is pending and the gate would be open, but nobody could answer from version 2.
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    until(&node, "the flip waits for the code", |status| {
        let code = WaitingOn::Code { version: version("v2.1") };
        status.projections[0].flip.as_ref().is_some_and(|(_, waiting_on)| waiting_on.contains(&code))
    })
    .await;
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "version 1 is not left held");
    node.carry(carry_v2(v2())).unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread")]
async fn a_flip_that_a_node_cannot_drive_since_it_cannot_read_the_catalog_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let mut asked = false;
    faults.plan(move |call| {
        asked |= call.appends("flip-requested");
        // Nor does the flip go on that one begins which has just read it.
        (asked && matches!(call, Call::StreamRevision | Call::Hold(_))).then_some(Fault::Fails)
    });
    node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    until(&node, "the flip waits for the store", |status| {
        let away =
            |reason: &WaitingOn| matches!(reason, WaitingOn::Store { error } if error.contains("a fault of the test"));
        status.projections[0].flip.as_ref().is_some_and(|(_, waiting_on)| waiting_on.iter().any(away))
    })
    .await;
    faults.stop();
    phase(&node, "v2.1", Phase::Serving).await;
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_begun_since_the_catalog_cannot_be_read_says_so() {
    let faults = Faults::default();
    let store = faults.over(&Store::memory(Arc::new(SystemClock)));
    let node = Node::builder().store(store).carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let mut asked = false;
    faults.plan(move |call| {
        asked |= call.appends("version-scheduled");
        (asked && matches!(call, Call::StreamRevision)).then_some(Fault::Fails)
    });
    node.carry(carry_v2(v2())).unwrap();
    until(&node, "what was scheduled waits for the store", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1"));
        let away =
            |reason: &WaitingOn| matches!(reason, WaitingOn::Store { error } if error.contains("a fault of the test"));
        found.is_some_and(|found| found.phase == Phase::Scheduled && found.waiting_on.iter().any(away))
    })
    .await;
    faults.stop();
    ready(&node, "v2.1").await;
    assert_eq!(waiting(&node, "v1.1").await, "", "what is over is told no more");
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread")]
async fn names_for_sql_from_outside_that_do_not_move_hold_up_nothing_else_and_the_status_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let published = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&published);
    faults.plan(move |call| {
        let Call::Publish(id) = call else { return None };
        seen.lock().unwrap().push(id.version);
        Some(Fault::Fails)
    });
    node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    let tells = |status: &Status| {
        let mut versions = status.projections[0].versions.iter();
        let serving = versions.find(|found| found.version == version("v2.1")).unwrap();
        serving.waiting_on.iter().any(|reason| reason.to_string().contains("Publish"))
    };
    until(&node, "the names are told not to move", tells).await;
    assert_eq!(node.not_ready(), [], "readers of the node are answered");
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    faults.stop();
    until(&node, "the names move", |status| !tells(status)).await;
    assert!(published.lock().unwrap().iter().all(|found| *found == version("v2.1")));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_from_a_version_whose_view_and_code_are_gone_happens() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    ask(&node, "ledger-1", last).await;
    node.shutdown().await;
    std::fs::remove_dir_all(directory.path().join("views/totals")).unwrap();
    let node = Node::builder().data(directory.path()).carry(carry_v2(v2())).start().await.unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_leaves_no_doubt_about_the_flip() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    for round in 0..3 {
        // The answer to every append of the catalog is lost.
        faults.plan(|call| match call {
            Call::Append(append) if append.events[0].stream.is_system() => Some(Fault::LosesAnswer),
            _ => None,
        });
        assert_eq!(flip(&node).await.to, version("v2.1"), "round {round}");
        assert_eq!(roll_back(&node).await.to, version("v1.1"), "round {round}");
        faults.stop();
        let last = add(&node, "ledger-1", 1).await;
        assert_eq!(ask(&node, "ledger-1", last).await, (round + 1, round + 1));
        until(&node, "version 2 is let go", |status| {
            let found = &status.projections[0].versions[1];
            found.covers >= last && found.rollback_ready == Some(Ok(()))
        })
        .await;
    }
    let history = node.history().await.unwrap();
    let flips = history.iter().filter(|entry| matches!(entry.event, CatalogEvent::Flipped { .. })).count();
    assert_eq!(flips, 1 + 2 * 3, "each once");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_cannot_be_lifted_is_lifted_later() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    faults.plan(move |call| {
        (matches!(call, Call::Lift(_)) && count.fetch_add(1, Ordering::SeqCst) < 3).then_some(Fault::Fails)
    });
    flip(&node).await;
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "the new version is not concerned");
    until(&node, "the old one follows", |status| status.projections[0].versions[0].covers >= last).await;
    assert!(failed.load(Ordering::SeqCst) >= 4);
    node.shutdown().await;
}

/// A store in memory whose catalog has these events.
async fn store_with(events: &[CatalogEvent]) -> Store {
    let store = Store::memory(Arc::new(SystemClock));
    for event in events {
        let (event_type, payload) = catalog_form::encode(event);
        let (metadata, tags) = Default::default();
        let event = NewEvent { id: SystemIds.next(), event_type, payload, metadata, tags };
        let append = Append::to_stream(catalog_form::stream(), ExpectedRevision::Any, vec![event]);
        store.journal.append(append).await.unwrap();
    }
    store
}

/// Of more tries in a minute a driver does not rest between them.
const TRIES_MAX: u64 = 1_000;

// The paused time goes on whenever there is nothing to do, so a driver that does not rest keeps it from going on.
#[tokio::test(start_paused = true)]
async fn a_clean_up_that_fails_rests_before_it_is_tried_again() {
    let id = view("v1.1");
    let store = store_with(&[
        CatalogEvent::Scheduled {
            view: id.clone(),
            segments: SegmentCount::ONE,
            flip: FlipPolicy::OnCommand,
            fingerprint: String::new(),
            reads: None,
            seed: None,
        },
        CatalogEvent::CleaningUp { view: id.clone(), reason: CleanUpReason::Asked },
    ])
    .await;
    let faults = Faults::default();
    let tries = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&tries);
    faults.plan(move |call| {
        let drops = matches!(call, Call::Drop(_));
        // One that does not rest would never let the test go on.
        (drops && count.fetch_add(1, Ordering::SeqCst) < TRIES_MAX).then_some(Fault::Fails)
    });
    let node = Node::builder().store(faults.over(&store)).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(waiting(&node, "v1.1").await.contains("a fault of the test"), "I-11");
    assert!((2..TRIES_MAX).contains(&tries.load(Ordering::SeqCst)), "{tries:?}");
    faults.stop();
    phase(&node, "v1.1", Phase::Obsolete).await;
    node.shutdown().await;
}

// As above: on a full disk, or beside a journal that was closed, whoever drives a rebuild must not keep the node busy.
#[tokio::test(start_paused = true)]
async fn a_change_of_the_catalog_that_fails_rests_before_it_is_tried_again() {
    let store = Store::memory(Arc::new(SystemClock));
    let faults = Faults::default();
    let tries = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&tries);
    faults.plan(move |call| {
        let appends = matches!(call, Call::Append(_));
        // One that does not rest would never let the test go on.
        (appends && count.fetch_add(1, Ordering::SeqCst) < TRIES_MAX).then_some(Fault::Fails)
    });
    let node = Node::builder().store(faults.over(&store)).carry(carry_v1(v1())).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(node.catalog().borrow().versions().next().is_none());
    assert!((2..TRIES_MAX).contains(&tries.load(Ordering::SeqCst)), "{tries:?}");
    faults.stop();
    phase(&node, "v1.1", Phase::Serving).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_not_what_its_processor_says_ends_in_an_error() {
    let faults = Faults::default();
    let clock = Arc::new(SystemClock);
    let node = Node::builder().store(faults.over(&Store::memory(clock))).carry(carry_v1(v1())).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    faults.plan(|call| matches!(call, Call::Reader(_)).then_some(Fault::Stale));
    let asked = node.ask(TotalOf("ledger-1".into())).after(last).within(Duration::from_millis(100));
    let asked = tokio::spawn(async move { asked.await });
    let error = tokio::time::timeout(WAIT_MAX, asked).await.expect("it ends").unwrap().unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    faults.stop();
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_never_returns_holds_up_neither_a_clean_up_nor_the_shutdown() {
    let version_2 = v2();
    let node = Node::builder().carry(carry_v1(v1())).carry(Visits).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    phase(&node, "v1.1", Phase::Serving).await;
    version_2.behaviour.gate.send_replace(false);
    node.carry(carry_v2(version_2.clone())).unwrap();
    let in_handler = || version_2.behaviour.gate.receiver_count() > 0;
    until(&node, "the handler waits", |_| in_handler()).await;
    node.clean_up(&view("v2.1"), Asked::by("test")).await.unwrap();
    phase(&node, "v2.1", Phase::Obsolete).await;
    assert!(!in_handler(), "it was given up");
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));

    node.rebuild(&totals(), Some(2), Asked::by("test")).await.unwrap();
    until(&node, "the handler waits again", |_| in_handler()).await;
    tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_too_long_a_reason_is_refused() {
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let asked = Asked::by("test").because("x".repeat(limits::METADATA_BYTES_MAX));
    let error = node.rebuild(&totals(), None, asked).await.unwrap_err();
    assert!(matches!(error, Error::Append(_)), "{error}");
    assert!(error.to_string().contains("metadata"), "{error}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_stands_by_far_behind_says_that_it_is_not_ready() {
    let version_1 = v1();
    let node = Node::builder().carry(carry_v1(version_1.clone())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(v2())).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    // It has noticed that the hold of the flip is over.
    until(&node, "it stands by", |status| status.projections[0].versions[0].rollback_ready == Some(Ok(()))).await;
    version_1.behaviour.gate.send_replace(false);
    let many = usize::try_from(limits::HOLD_LAG_MAX).unwrap() + 1;
    node.append("ledger-1", ExpectedRevision::Any, (0..many).map(|_| added(1))).await.unwrap();
    let status = node.status().await.unwrap();
    let ready = status.projections[0].versions[0].rollback_ready.clone();
    // On a machine that is busy the handler may have been seen in its event for long.
    assert!(matches!(ready, Some(Err(WaitingOn::Segment { .. } | WaitingOn::Busy { .. }))), "I-8: {ready:?}");
    version_1.behaviour.gate.send_replace(true);
    until(&node, "it follows", |status| status.projections[0].versions[0].rollback_ready == Some(Ok(()))).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_its_journal() {
    for directory in [None, Some(tempfile::tempdir().unwrap())] {
        let builder = Node::builder();
        let builder = match &directory {
            Some(directory) => builder.data(directory.path()),
            None => builder,
        };
        let node = builder.start().await.unwrap();
        let mut subscription = node.subscribe(Position::START, Filter::default()).await.unwrap();
        add(&node, "ledger-1", 1).await;
        assert_eq!(subscription.next().await.unwrap().unwrap().len(), 1);
        let waiting = tokio::spawn(async move { subscription.next().await });
        node.shutdown().await;
        let ended = tokio::time::timeout(WAIT_MAX, waiting).await.expect("it ends").unwrap().unwrap();
        assert!(ended.is_none());
        let mut late = node.subscribe(Position::START, Filter::default()).await.unwrap();
        assert_eq!(late.next().await.unwrap().unwrap().len(), 1, "what is there can still be read");
        assert!(late.next().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_may_wait_for_as_long_as_can_be_said() {
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    let asked = node.ask(TotalOf("ledger-1".into())).after(last).within(Duration::MAX);
    assert_eq!(asked.await.unwrap().value, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_left_is_taken_up_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let trying = refuse(&faults, "flipped");
    let requested = node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    tried(trying).await;
    let last = add(&node, "ledger-1", 5).await;
    tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("a processor that is held stops too");

    let builder = Node::builder().data(directory.path()).carry(carry_v1(v1())).carry(carry_v2(v2()));
    let node = builder.start().await.unwrap();
    assert_eq!(node.flipped(&requested, WAIT_MAX).await.unwrap().to, version("v2.1"));
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    until(&node, "version 1 is let go", |status| status.projections[0].versions[0].covers >= last).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_left_does_not_last_until_a_lost_view_is_built_again() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let trying = refuse(&faults, "flipped");
    add(&node, "ledger-1", 5).await;
    node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    tried(trying).await;
    node.shutdown().await;
    std::fs::remove_file(directory.path().join("views/totals/v2.1.db")).unwrap();

    let version_2 = v2();
    version_2.behaviour.gate.send_replace(false);
    let builder = Node::builder().data(directory.path()).carry(carry_v1(v1())).carry(carry_v2(version_2.clone()));
    let node = builder.start().await.unwrap();
    let last = add(&node, "ledger-1", 6).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (11, 2), "version 1 goes on");
    version_2.behaviour.gate.send_replace(true);
    phase(&node, "v2.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (11, 2));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_supersedes_a_flip_lets_the_old_version_go() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let trying = refuse(&faults, "flipped");
    let requested = node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    tried(trying).await;
    let refused = node.rollback(&totals(), Some(version("v1.1")), Asked::by("test")).await.unwrap_err();
    assert!(matches!(refused, Error::NoTarget(_)), "{refused}");
    rebuild(&node, 2).await;
    let error = node.flipped(&requested, WAIT_MAX).await.unwrap_err();
    assert!(matches!(error, Error::FlipAborted { .. }), "{error}");
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "version 1 goes on");
    phase(&node, "v2.1", Phase::Obsolete).await;
    faults.stop();
    ready(&node, "v2.2").await;
    assert_eq!(flip(&node).await.to, version("v2.2"));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_deleted_while_it_serves_never_answers_wrongly() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    ask(&node, "ledger-1", add(&node, "ledger-1", 1).await).await;
    std::fs::remove_dir_all(directory.path().join("views/totals")).unwrap();
    for number in 2..=20 {
        let last = add(&node, "ledger-1", 1).await;
        match node.ask(TotalOf("ledger-1".into())).after(last).await {
            Ok(answered) => assert_eq!(answered.value, (number, number)),
            Err(error) => assert!(error.to_string().contains("is the file there"), "{error}"),
        }
    }
    node.shutdown().await;
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (20, 20));
    check_serving(&node).await;
    node.shutdown().await;
}

/// A plan that panics once at the first call of a kind: a bug in dacapo.
fn bug(faults: &Faults, meets: impl Fn(&Call<'_>) -> bool + Send + 'static) {
    let mut met = false;
    faults.plan(move |call| {
        let first = !met && meets(call);
        met |= first;
        assert!(!first, "a bug at {call:?}");
        None
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_ends_by_a_bug_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    // The processor.
    bug(&faults, |call| matches!(call, Call::Commit(id) if **id == view("v1.1")));
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "the query waits for the next one");
    // The conductor.
    bug(&faults, |call| matches!(call, Call::Open(_)));
    rebuild(&node, 2).await;
    ready(&node, "v2.2").await;
    // The driver of the flip, before and after the hold.
    bug(&faults, |call| matches!(call, Call::Hold(_)));
    flip(&node).await;
    bug(&faults, |call| matches!(call, Call::Lift(_)));
    let requested = node.rollback(&totals(), None, Asked::by("test")).await.unwrap();
    node.flipped(&requested, WAIT_MAX).await.unwrap();
    let last = add(&node, "ledger-1", 6).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (11, 2));
    until(&node, "version 2 is let go", |status| {
        status.projections[0].versions.iter().all(|found| found.tokens.is_empty() || found.covers >= last)
    })
    .await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_before_the_first_version_serves_says_what_that_waits_on() {
    let version_1 = v1();
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().start().await.unwrap();
    node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 5 }]).await.unwrap();
    node.carry(carry_v1(version_1.clone())).unwrap();
    until(&node, "version 1 halts", |status| {
        let versions = status.projections.iter().flat_map(|found| &found.versions);
        let mut reasons = versions.flat_map(|found| &found.waiting_on);
        reasons.any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let asked = node.ask(TotalOf("ledger-1".into())).after(node.head()).within(Duration::from_millis(50));
    let error = asked.await.unwrap_err().to_string();
    assert!(error.contains("no version of totals serves") && error.contains("doubtful"), "I-11: {error}");
    version_1.behaviour.refuse.store(false, Ordering::SeqCst);
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projections_flip_at_once() {
    let node = Node::builder().carry(carry_v1(v1())).carry(Visits).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(v2())).unwrap();
    ready(&node, "v2.1").await;
    let visits = ProjectionName::new("visits").unwrap();
    let other = node.rebuild(&visits, None, Asked::by("test")).await.unwrap();
    let scheduled = || node.catalog().borrow().version(&other.view).unwrap().phase == Phase::Scheduled;
    until(&node, "the other one is being built", |_| !scheduled()).await;
    for number in 1..=5 {
        add(&node, "ledger-1", number).await;
    }
    let one = node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    // Whether it has flipped by itself or not.
    let two = node.flip(&visits, Some(other.view.version), Asked::by("test")).await.unwrap();
    let (one, two) = tokio::join!(node.flipped(&one, WAIT_MAX), node.flipped(&two, WAIT_MAX));
    assert_eq!((one.unwrap().to, two.unwrap().to), (version("v2.1"), version("v1.2")));
    let last = add(&node, "ledger-1", 1).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (16, 6));
    assert_eq!(node.read("visits", last).await.unwrap().version, version("v1.2"));
    node.shutdown().await;
}

/// Everything fails now and then, while readers, writers and flips go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_faults_everywhere_nothing_is_lost_and_nobody_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let mut random = 88_172_645_463_325_252_u64;
    faults.plan(move |call| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let system = matches!(call, Call::Append(append) if append.events[0].stream.is_system());
        match (call, random % 8) {
            (Call::Append(_), _) if !system => None,
            // Damage heals only by a rebuild.
            (Call::Reader(_) | Call::ViewHealth(_), _) => None,
            (_, 0) => Some(Fault::Fails),
            (_, 1) => Some(Fault::LosesAnswer),
            _ => None,
        }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn({
        let (node, stop) = (node.clone(), Arc::clone(&stop));
        async move {
            let (mut events, mut covers) = (0, Position::START);
            while !stop.load(Ordering::SeqCst) {
                let last = add(&node, "ledger-1", 1).await;
                events += 1;
                let answered = node.ask(TotalOf("ledger-1".into())).after(last).within(WAIT_MAX).await.unwrap();
                assert_eq!(answered.value, (events, events), "{} at {}", answered.version, answered.covers);
                assert!(answered.covers >= covers, "I-7");
                covers = answered.covers;
            }
        }
    });
    for round in 0..4 {
        let to = if round % 2 == 0 { "v2.1" } else { "v1.1" };
        // The request itself may fail as well, or its answer be lost.
        while node.catalog().borrow().serving(&totals()) != Some(version(to)) {
            let requested = match round % 2 {
                0 => node.flip(&totals(), Some(version(to)), Asked::by("test")).await,
                _ => node.rollback(&totals(), Some(version(to)), Asked::by("test")).await,
            };
            if requested.is_ok() {
                phase(&node, to, Phase::Serving).await;
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    client.await.unwrap();
    faults.stop();
    check_serving(&node).await;
    node.shutdown().await;
}
