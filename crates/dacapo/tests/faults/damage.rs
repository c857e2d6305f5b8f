//! Bits that flip in the file of a view, and a disk that is full while the view serves.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::common::*;
use dacapo::catalog::{Phase, RequestedBy};
use dacapo::journal::{Append, Filter, Limit};
use dacapo::status::{NotReady, WaitingOn};
use dacapo::store::{Store, StoreError};
use dacapo::world::SystemClock;
use dacapo::{Error, ExpectedRevision, Metadata, Node, Position};
use dacapo_store::embedded::SqliteViews;
use dacapo_store::{OnKnown, StreamEvent};
use dacapo_testkit::{Call, Fault, Faults};

/// Ledgers, so many that their rows have many pages.
const LEDGERS: i64 = 2_000;

fn ledger(number: i64) -> String {
    format!("ledger-{number:04}")
}

async fn node(directory: &Path) -> Node {
    Node::builder().data(directory).projection(carry_v1(v1())).start().await.unwrap()
}

/// Adds its number to each ledger.
async fn fill(node: &Node) -> Position {
    let event = |number| {
        let event = node.new_event(&added(number), Metadata::default()).unwrap();
        StreamEvent { stream: ledger(number).as_str().try_into().unwrap(), event }
    };
    let events = (0..LEDGERS).map(event).collect();
    let append = Append { events, expected: vec![], on_known: OnKnown::Recognise };
    let last = node.append_batch(append).await.unwrap().position;
    ask(node, &ledger(0), last).await;
    last
}

/// Flips the lowest bit of the last byte of `text`, wherever that stands in the file of the view.
fn flip_in(file: &Path, text: &[u8]) {
    let bytes = std::fs::read(file).unwrap();
    let places = bytes.windows(text.len()).enumerate().filter(|(_, found)| *found == text);
    let mut flipped = 0;
    for (at, _) in places {
        flip_at(file, (at + text.len() - 1) as u64);
        flipped += 1;
    }
    assert!(flipped > 0, "it is in the file");
}

/// Flips a bit as a disk does, which changes no time.
fn flip_at(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(modified).unwrap();
}

fn is_damaged(reason: &WaitingOn) -> bool {
    matches!(reason, WaitingOn::Damaged { error } if error.contains("is not what was written there"))
}

async fn until_damaged(node: &Node) {
    until(node, "the damage is told", |status| status.projections[0].versions[0].waiting_on.iter().any(is_damaged))
        .await;
    assert!(node.not_ready().iter().any(|found| is_damaged(&found.reason)), "{:?}", node.not_ready());
}

async fn is_healed_by_a_rebuild(node: &Node) {
    node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready_and_flip(node, "v1.2").await;
    phase(node, "v1.2", Phase::Serving).await;
    check_serving(node).await;
    assert_eq!(node.not_ready(), []);
    let verified = node.version(view("v1.2")).verification().unwrap().verified.unwrap();
    let told = format!("{:?}", verified.report);
    assert!(told.contains("v1.1.db is damaged"), "that rows were not compared is told: {told}");
}

/// What pages were moved from the WAL into the file is noted beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_which_nothing_tells_that_its_pages_belong_together_is_told_and_healed_by_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let first = node(directory.path()).await;
    fill(&first).await;
    first.shutdown().await;
    drop(first);
    let note = directory.path().join("views/totals/v1.1.db-moved");
    flip_at(&note, 20);
    let node = node(directory.path()).await;
    until_damaged(&node).await;
    is_healed_by_a_rebuild(&node).await;
}

/// Nobody asks for the row before the damage is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_is_found_told_never_answered_and_healed_by_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("views/totals/v1.1.db");
    let running = node(directory.path()).await;
    let last = fill(&running).await;
    running.shutdown().await;
    drop(running);
    flip_in(&file, ledger(777).as_bytes());

    let node = node(directory.path()).await;
    until_damaged(&node).await;
    let error = node.ask(TotalOf(ledger(777))).after(last).within(WAIT_MAX).await.unwrap_err().to_string();
    assert!(error.contains("v1.1.db is damaged") && error.contains("read table totals"), "{error}");
    assert_eq!(ask(&node, &ledger(1), last).await, (1, 1), "what is not damaged is answered");
    // Nothing is folded on what is damaged, nor set aside for it.
    let last = add(&node, &ledger(777), 1).await;
    until(&node, "the processor waits", |status| {
        let found = &status.projections[0].versions[0];
        found.lag > 0 && found.letters == 0 && found.waiting_on.iter().any(is_damaged)
    })
    .await;
    is_healed_by_a_rebuild(&node).await;
    assert_eq!(ask(&node, &ledger(777), last).await, (778, 2));
    node.shutdown().await;
}

/// The first page tells what tables there are, so nothing can be read any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_damaged_as_a_whole_while_it_serves_is_closed_and_healed_by_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let running = node(directory.path()).await;
    fill(&running).await;
    running.shutdown().await;
    drop(running);

    let node = node(directory.path()).await;
    let last = add(&node, &ledger(3), 4).await;
    assert_eq!(ask(&node, &ledger(3), last).await, (7, 2));
    flip_at(&directory.path().join("views/totals/v1.1.db"), 70);
    // What connections have in memory is right, and is read anew once another one has written.
    let told = async {
        loop {
            add(&node, &ledger(3), 1).await;
            if node.not_ready().iter().any(|found| is_damaged(&found.reason)) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, told).await.expect("the damage is told");
    until_damaged(&node).await;
    is_healed_by_a_rebuild(&node).await;
    node.shutdown().await;
}

// I-2
/// What is appended behind it would be acknowledged, and lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_journal_is_damaged_takes_no_more_events_and_says_so_as_damage() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let last = add(&node, "ledger-1", 4).await;
    add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (9, 2));
    assert_eq!(node.not_ready(), []);
    let chunk = directory.path().join("journal/chunk-00000000000000000001.log");
    flip_at(&chunk, std::fs::metadata(&chunk).unwrap().len() - 1);
    let read = node.journal().read(Position::START, &Filter::everything(), Limit::events(99)).await.unwrap_err();
    assert!(matches!(read, StoreError::Corrupt { .. }), "{read}");
    let found = node.not_ready();
    let [NotReady { projection: None, reason: WaitingOn::Damaged { error } }] = &found[..] else {
        panic!("it is told as damage: {found:?}")
    };
    assert!(error.contains("chunk-") && error.contains("stop this process"), "{error}");
    let refused = node.append("ledger-1", ExpectedRevision::Any, [added(1)]).await.unwrap_err();
    assert!(matches!(&refused, Error::Store(StoreError::Corrupt { .. })), "{refused}");
    assert_eq!(ask(&node, "ledger-1", last).await, (9, 2), "what is not damaged is answered");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_serving_view_cannot_be_written_is_not_ready_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let views = Arc::new(SqliteViews::open(directory.path().join("views")).unwrap());
    let store = Store { views: Arc::clone(&views) as _, ..Store::memory(Arc::new(SystemClock)) };
    let node = Node::builder().store(store).projection(carry_v1(v1())).start().await.unwrap();
    fill(&node).await;
    assert_eq!(node.not_ready(), []);
    views.set_full(true);
    let says_why = || node.not_ready().iter().any(|found| found.to_string().contains("free some space"));
    let told = async {
        let mut number = LEDGERS;
        while !says_why() {
            // Sooner or later the view must grow.
            number += 1;
            add(&node, &format!("{}-{}", ledger(number), "x".repeat(150)), 1).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, told).await.expect("it says that the disk is full");
    views.set_full(false);
    let last = add(&node, &ledger(0), 1).await;
    assert_eq!(ask(&node, &ledger(0), last).await, (1, 2));
    while !node.not_ready().is_empty() {
        tokio::task::yield_now().await;
    }
    check_serving(&node).await;
    node.shutdown().await;
}

/// Whatever else happens on the node meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_closed_for_damage_is_opened_again_now_and_then_only() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).serving(v1()).start().await;
    ask(&node, "ledger-1", add(&node, "ledger-1", 5).await).await;
    let opened = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&opened);
    faults.plan(move |call| match call {
        Call::Tokens(_) | Call::ViewHealth(_) => Some(Fault::Damaged),
        Call::Open(_) => {
            seen.fetch_add(1, Ordering::SeqCst);
            None
        }
        _ => None,
    });
    let is_damaged = |found: &NotReady| matches!(found.reason, WaitingOn::Damaged { .. });
    until(&node, "it is told", |_| node.not_ready().iter().any(is_damaged)).await;
    // Each is a reason to look at everything once more.
    for number in 0..20 {
        let asked = RequestedBy { idempotency_key: Some(number.to_string()), ..RequestedBy::by("test") };
        match number % 2 {
            0 => node.version(view("v1.1")).pause().requested_by(asked).await.unwrap(),
            _ => node.version(view("v1.1")).resume().requested_by(asked).await.unwrap(),
        };
    }
    let times = opened.load(Ordering::SeqCst);
    assert!(times < 8, "it was opened {times} times");
    faults.heal();
    until(&node, "it is well", |_| node.not_ready().is_empty()).await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    node.shutdown().await;
}
