//! Handlers that compute without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dacapo::Node;
use dacapo::catalog::Phase;
use dacapo::options::Policy;
use dacapo::status::WaitingOn;

use super::told::*;
use crate::common::*;

#[test]
fn a_handler_that_never_returns_is_seen_and_holds_up_no_flip_no_clean_up_no_shutdown_and_no_process() {
    let released = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let spin = Arc::clone(&released);
    runtime.block_on(async move {
        let (version_1, version_2, version_3) =
            (told::<1>(Policy::Halt), told::<2>(Policy::Halt), told::<3>(Policy::Halt));
        version_1.doubt(Act::Spin(Arc::clone(&spin)));
        let node = Node::builder().projection(version_1.carried()).start().await.unwrap();
        let first = round(&node).await;
        phase(&node, "v1.1", Phase::Serving).await;
        ask(&node, "ledger-1", first).await;
        node.add_projection(version_2.carried()).unwrap();
        let doubted = doubt(&node, "ledger-3", 5).await;
        let found = until_version(&node, "v1.1", "it is seen", |found| {
            found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Busy { .. }))
        })
        .await;
        let text = found.waiting_on.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains(&format!("busy with event {doubted} for")), "I-11: {text}");
        // Other versions go on, and readers can leave.
        ready(&node, "v2.1").await;
        assert_eq!(flip(&node).await.to, version("v2.1"));
        check_serving(&node).await;
        let found = until_version(&node, "v1.1", "it says so", |found| found.rollback_ready.is_some()).await;
        assert!(matches!(found.rollback_ready, Some(Err(WaitingOn::Busy { .. }))), "{:?}", found.rollback_ready);
        // It can be cleaned up.
        node.version(view("v1.1")).clean_up().requested_by(by_test()).await.unwrap();
        phase(&node, "v1.1", Phase::Obsolete).await;
        // A version that is built can be in such a handler when the node stops.
        version_3.doubt(Act::Spin(spin));
        node.add_projection(version_3.carried()).unwrap();
        until_version(&node, "v3.1", "it spins", |_| version_3.handed(doubted) > 0).await;
        tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("it stops");
    });
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(()).unwrap();
    });
    end.recv_timeout(WAIT_MAX).expect("the runtime ends while the handler computes");
    released.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_handler_that_was_left_behind_lands_later() {
    let released = Arc::new(AtomicBool::new(false));
    let directory = tempfile::tempdir().unwrap();
    let wrong = told::<1>(Policy::Halt);
    wrong.doubt(Act::Spin(Arc::clone(&released)));
    let node = Node::builder().data(directory.path()).projection(wrong.carried()).start().await.unwrap();
    let doubted = doubt(&node, "ledger-3", 5).await;
    until_version(&node, "v1.1", "it spins", |_| wrong.handed(doubted) > 0).await;
    let before = node.status().await.unwrap();
    let epoch = version_in(&before, "v1.1").unwrap().tokens[0].epoch;
    // Corrected code takes over, under a claim of its own.
    let right = told::<1>(Policy::Halt);
    node.add_projection(right.carried()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    released.store(true, Ordering::SeqCst);
    assert_eq!(ask(&node, "ledger-3", doubted).await, (5, 1));
    let last = add(&node, "ledger-3", 1).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (6, 2), "I-4");
    let after = node.status().await.unwrap();
    assert!(version_in(&after, "v1.1").unwrap().tokens[0].epoch > epoch);
    check_serving(&node).await;
    node.shutdown().await;
}
