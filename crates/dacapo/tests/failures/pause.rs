//! Versions that somebody has paused.

use std::time::Duration;

use dacapo::Node;
use dacapo::operate::WhichLetters;
use dacapo::options::Policy;
use dacapo::status::WaitingOn;

use super::told::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_version_applies_nothing_and_says_so_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let version_1 = told::<1>(Policy::DeadLetter);
    let node = serving(Node::builder().data(directory.path()), &version_1).await;
    version_1.doubt(Act::Refuse);
    let doubted = doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    version_1.heal();
    node.version(view("v1.1")).pause().by("ann").because("the fees look odd").await.unwrap();
    until_version(&node, "v1.1", "it says so", |found| found.waiting_on.contains(&WaitingOn::Paused)).await;
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    node.shutdown().await;

    let node = Node::builder().data(directory.path()).projection(version_1.carried()).start().await.unwrap();
    let last = round(&node).await;
    let asked = node.ask(TotalOf("ledger-4".into())).after(last).within(Duration::from_millis(100));
    let error = asked.await.unwrap_err().to_string();
    assert!(error.contains("the version is paused"), "I-11: {error}");
    assert_eq!((version_1.handed(last), version_1.handed(doubted)), (0, 2), "nothing is applied, nor retried");
    let again = node.version(view("v1.1")).pause().requested_by(by_test()).await.unwrap();
    assert_eq!(again.position, None, "it is paused already");
    node.version(view("v1.1")).resume().requested_by(by_test()).await.unwrap();
    assert_eq!(ask(&node, "ledger-4", last).await, (1, 1));
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    let history = node.history().await.unwrap();
    let paused = history.iter().find(|entry| entry.asked.actor == "ann").unwrap();
    assert_eq!(paused.asked.reason.as_deref(), Some("the fees look odd"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_to_a_paused_version_waits_until_it_is_resumed() {
    let (version_1, version_2) = (told::<1>(Policy::Halt), told::<2>(Policy::Halt));
    let node = Scenario::new().serving(version_1.clone()).added("ledger-4", 1).ready(version_2.clone()).start().await;
    node.version(view("v2.1")).pause().requested_by(by_test()).await.unwrap();
    let requested = node.projection(totals()).unwrap().flip().requested_by(by_test()).await.unwrap();
    let status = until(&node, "the flip says why", |status| {
        status.projections[0].flip.as_ref().is_some_and(|(_, reasons)| reasons.contains(&WaitingOn::Paused))
    })
    .await;
    assert_eq!(status.projections[0].serving, Some(version("v1.1")));
    node.version(view("v2.1")).resume().requested_by(by_test()).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    check_serving(&node).await;
    // The version that stands by is not one to roll back to at once while it is paused.
    node.version(view("v1.1")).pause().requested_by(by_test()).await.unwrap();
    until_version(&node, "v1.1", "it says so", |found| found.rollback_ready == Some(Err(WaitingOn::Paused))).await;
    node.shutdown().await;
}
