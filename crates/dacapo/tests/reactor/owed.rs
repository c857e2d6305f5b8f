//! Effects that are owed outlive the process, and a version goes only when it has made its own.

use std::sync::Arc;

use dacapo::catalog::Phase;
use dacapo::status::WaitingOn;
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{Node, NodeBuilder, Position};
use dacapo_testkit::{Call, Fault, Faults};

use super::office::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_made_and_not_recorded_is_made_again_under_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    let node = over(directory.path(), &faults, &office).await;
    phase(&node, "v1.1", Phase::Serving).await;
    faults.always(Fault::Fails, |call| matches!(call, Call::SettleEffects(_)));
    let position = add(&node, "ledger-1", 5).await;
    office.made_at_least(1).await;
    node.shutdown().await;
    drop(node);
    assert_eq!(office.made().len(), 1, "while the process lives it knows that it was made");

    faults.heal();
    let node = over(directory.path(), &faults, &office).await;
    office.made_at_least(2).await;
    let made = office.made();
    assert_eq!(made[0], made[1], "the same effect under the same key");
    assert_eq!(made[0].1.position, position);
    let next = add(&node, "ledger-1", 6).await;
    office.made_at_least(3).await;
    assert_eq!(office.made()[2].1.position, next);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_and_their_back_off_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    office.fail.lock().unwrap().insert("ledger-1".into());
    let node = over(directory.path(), &faults, &office).await;
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 5).await;
    let attempts = |status: &dacapo::status::Status| {
        let told = status.projections[0].versions[0].waiting_on.iter().find_map(|reason| match reason {
            WaitingOn::Effect { attempts, .. } => Some(*attempts),
            _ => None,
        });
        told.unwrap_or(0)
    };
    let before = attempts(&until(&node, "some tries", |status| attempts(status) >= 3).await);
    node.shutdown().await;
    drop(node);
    let node = over(directory.path(), &faults, &office).await;
    let after = attempts(&until(&node, "it is told", |status| attempts(status) > 0).await);
    assert!(after >= before, "{after} after {before}");
    office.fail.lock().unwrap().clear();
    office.made_at_least(1).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_waits_for_the_effects_that_are_owed_and_says_so() {
    let office: Arc<Office> = Arc::default();
    let node = start(&office).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let owed = add(&node, "ledger-1", 5).await;
    node.add_projection(carry(notices::<2>(&office))).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    let later = add(&node, "ledger-1", 6).await;
    node.version(view("v1.1")).clean_up().by("test").await.unwrap();
    until(&node, "it waits", |status| {
        let found = &status.projections[0].versions[0];
        // The later effect may wait behind it, since the old version came past that event, too.
        let owes = found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Effects { pending: 1.. }));
        let says_why = found.waiting_on.iter().any(|reason| reason.to_string().contains("no stamps"));
        found.phase == Phase::CleaningUp && owes && says_why
    })
    .await;
    office.fail.lock().unwrap().clear();
    phase(&node, "v1.1", Phase::Obsolete).await;
    office.made_at_least(2).await;
    let made: Vec<_> = office.made().into_iter().map(|(code, key, _)| (code, key.position)).collect();
    assert_eq!(made, [(1, owed), (2, later)], "in the order of the stream, each by its voice");
    node.shutdown().await;
}

/// A node on which version 2 serves and version 1 owes an effect of an event that it speaks for, which fails.
async fn owing(builder: NodeBuilder, office: &Arc<Office>) -> (Node, Position) {
    let node = builder.projection(carry(notices::<1>(office))).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let owed = add(&node, "ledger-1", 5).await;
    node.add_projection(carry(notices::<2>(office))).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    (node, owed)
}

/// The effect is made, by version 1, before its view goes.
async fn check_paid(node: &Node, office: &Office, owed: Position) {
    office.fail.lock().unwrap().clear();
    phase(node, "v1.1", Phase::Obsolete).await;
    let made: Vec<_> = office.made().into_iter().map(|(code, key, _)| (code, key.position)).collect();
    assert_eq!(made, [(1, owed)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_cleaned_up_while_it_is_opened_again_makes_what_it_owes() {
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    let store = faults.over(&Store::memory(Arc::new(SystemClock)));
    let (node, owed) = owing(Node::builder().store(store), &office).await;
    faults.always(Fault::Waits, |call| matches!(call, Call::Open(id) if **id == view("v1.1")));
    // Other code of the same version: it is opened again, by the catalog as it was before the clean-up.
    node.add_projection(carry(notices::<1>(&office))).unwrap();
    met(&faults).await;
    node.version(view("v1.1")).clean_up().by("test").await.unwrap();
    faults.heal();
    check_paid(&node, &office, owed).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_waits_for_the_code_and_is_made_once_that_is_carried() {
    let (directory, office) = (tempfile::tempdir().unwrap(), Arc::default());
    let (node, owed) = owing(Node::builder().data(directory.path()), &office).await;
    node.version(view("v1.1")).clean_up().by("test").await.unwrap();
    node.shutdown().await;
    drop(node);
    let node = Node::builder().data(directory.path()).projection(carry(notices::<2>(&office))).start().await.unwrap();
    until(&node, "it waits for the code", |status| {
        let found = &status.projections[0].versions[0];
        let owes = found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Effects { pending: 1 }));
        owes && found.waiting_on.contains(&WaitingOn::Code { version: version("v1.1") })
    })
    .await;
    node.add_projection(carry(notices::<1>(&office))).unwrap();
    check_paid(&node, &office, owed).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_effects_under_way_only_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    office.hang.lock().unwrap().insert("ledger-1".into());
    let node = over(directory.path(), &faults, &office).await;
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 5).await;
    let tried = async {
        while office.tried().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, tried).await.unwrap();
    // The effect hangs for good.
    tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("it does not wait for that");
    drop(node);
    office.hang.lock().unwrap().clear();
    let node = over(directory.path(), &faults, &office).await;
    office.made_at_least(1).await;
    assert_eq!(office.made()[0].1, office.tried()[0].1);
    node.shutdown().await;
}
