//! Views that are damaged as a whole, deleted, or behind what their processor says.

use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::status::Token;
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{Error, Node, Position};
use dacapo_store::Commit;
use dacapo_testkit::{Call, Fault, Faults};

use super::setup::*;
use crate::common::*;
use crate::lost_view::{has_parted, is_made_again};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_view_stops_nothing_else_and_is_replaced_by_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let node =
        Node::builder().data(directory.path()).projection(carry_v1(v1())).projection(Visits).start().await.unwrap();
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
    let node = builder.projection(carry_v1(v1())).projection(Visits).start().await.unwrap();
    node.read("visits", last).await.expect("the other projection is not concerned");
    let error = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(100)).await.unwrap_err().to_string();
    assert!(error.contains("is damaged"), "I-11: {error}");
    assert!(waiting(&node, "v1.1").await.contains("is damaged"), "I-11");

    // As the message says.
    node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready(&node, "v1.2").await;
    assert_eq!(flip(&node).await.to, version("v1.2"));
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    check_serving(&node).await;
    let error = waiting(&node, "v1.1").await;
    assert!(error.contains("is damaged"), "I-8: no way back, and it says why: {error}");
    node.version(view("v1.1")).clean_up().by("test").await.unwrap();
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
    node.projection(totals()).unwrap().rebuild().code(1).by("test").await.unwrap();
    phase(&node, "v1.2", Phase::Obsolete).await;
    ready(&node, "v1.3").await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_view_of_the_serving_version_is_built_again_before_it_answers() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    let mut last = Position::START;
    for number in 1..=50 {
        last = add(&node, "ledger-1", number).await;
    }
    ask(&node, "ledger-1", last).await;
    node.shutdown().await;
    std::fs::remove_file(directory.path().join("views/totals/v1.1.db")).unwrap();

    let version_1 = v1().held();
    let node = Node::builder().data(directory.path()).projection(carry_v1(version_1.clone())).start().await.unwrap();
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
async fn a_view_that_is_not_what_its_processor_says_ends_in_an_error() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).serving(v1()).start().await;
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    faults.always(Fault::Stale, |call| matches!(call, Call::Reader(_)));
    let asked = node.ask(TotalOf("ledger-1".into())).after(last).within(Duration::from_millis(100));
    let asked = tokio::spawn(async move { asked.await });
    let error = tokio::time::timeout(WAIT_MAX, asked).await.expect("it ends").unwrap().unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    faults.heal();
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.shutdown().await;
}

// I-7
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_from_a_view_that_lost_what_it_covered_when_readers_moved_to_it() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).filled(20).serving(v1()).start().await;
    let evidence = evidence_of(&node);
    assert!(evidence > Position::START, "the flip has evidence");
    // As after the takeover of a standby that lacks the last commits of the view: the node itself was there before.
    faults.always(Fault::Stale, |call| matches!(call, Call::Reader(_)));
    let error = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    faults.heal();
    let answered = node.ask(TotalOf("ledger-1".into())).await.unwrap();
    assert!(answered.covers >= evidence, "{answered:?}");
    node.shutdown().await;
}

/// The evidence of the last flip.
fn evidence_of(node: &Node) -> Position {
    node.catalog().borrow().projections.values().next().unwrap().evidence
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_deleted_while_it_serves_never_answers_wrongly() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    ask(&node, "ledger-1", add(&node, "ledger-1", 1).await).await;
    std::fs::remove_dir_all(directory.path().join("views/totals")).unwrap();
    let mut is_told = false;
    for number in 2..=20 {
        let last = add(&node, "ledger-1", 1).await;
        if is_told {
            continue;
        }
        match node.ask(TotalOf("ledger-1".into())).after(last).await {
            Ok(answered) => assert_eq!(answered.value, (number, number)),
            Err(error) => {
                assert!(error.to_string().contains("was removed or renamed"), "{error}");
                is_told = true;
            }
        }
    }
    node.shutdown().await;
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (20, 20));
    check_serving(&node).await;
    node.shutdown().await;
}

// I-6, I-7
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_deleted_while_it_serves_is_made_again_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let version_1 = v1();
    let node = [Node::builder().data(directory.path()).projection(carry_v1(version_1.clone())).start().await.unwrap()];
    let views = directory.path().join("views/totals");
    is_made_again(&node, &version_1, async || std::fs::remove_dir_all(&views).unwrap()).await;
    let [node] = node;
    node.shutdown().await;
}

// I-7: the file of a backup is put in the place of the one that is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_whose_file_is_replaced_while_it_serves_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let version_1 = v1();
    let start =
        async || Node::builder().data(directory.path()).projection(carry_v1(version_1.clone())).start().await.unwrap();
    let (views, backup) = (directory.path().join("views/totals"), directory.path().join("backup"));
    let node = start().await;
    ask(&node, "ledger-1", add(&node, "ledger-1", 1).await).await;
    node.shutdown().await;
    std::fs::create_dir(&backup).unwrap();
    for entry in std::fs::read_dir(&views).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), backup.join(entry.file_name())).unwrap();
    }

    let node = start().await;
    let mut last = Position::START;
    for number in 2..=20 {
        last = add(&node, "ledger-1", 1).await;
        assert_eq!(ask(&node, "ledger-1", last).await, (number, number));
    }
    version_1.behaviour.gate.send_replace(false);
    std::fs::rename(&views, directory.path().join("away")).unwrap();
    std::fs::rename(&backup, &views).unwrap();
    until(&node, "it is opened again", |status| {
        let found = &status.projections[0].versions[0];
        !found.tokens.is_empty() && found.covers < last
    })
    .await;
    let asked = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(50)).await;
    assert!(matches!(asked, Err(Error::TimedOut { .. })), "I-7: {asked:?}");
    version_1.behaviour.gate.send_replace(true);
    assert_eq!(ask(&node, "ledger-1", last).await, (20, 20));
    check_serving(&node).await;
    node.shutdown().await;
    let stored = store(directory.path()).views.find(&view("v1.1")).await.unwrap().expect("it is there");
    let tokens = stored.tokens().await.unwrap();
    assert!(tokens.iter().all(|token| token.position >= last), "it was written to: {tokens:?}");
}

// I-3
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_gets_ahead_of_its_journal_while_it_serves_has_parted_for_good() {
    let directory = tempfile::tempdir().unwrap();
    for store in [Store::memory(Arc::new(SystemClock)), store(directory.path())] {
        let views = Arc::clone(&store.views);
        let node = [Node::builder().store(store).projection(carry_v1(v1())).start().await.unwrap()];
        let beyond = async || {
            let stored = views.find(&view("v1.1")).await.unwrap().expect("it is there");
            let far = |token: &Token| token.step(token.position.plus(60), 0);
            // Whoever applies may move a token in between.
            loop {
                let moves: Vec<_> = stored.tokens().await.unwrap().iter().map(far).collect();
                let mut writer = stored.writer().await.unwrap();
                if writer.commit(&Commit::of(moves)).await.is_ok() {
                    return;
                }
            }
        };
        has_parted(&node, beyond).await;
        let [node] = node;
        node.shutdown().await;
    }
}
