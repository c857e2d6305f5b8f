//! What a version that halts means for the others of its projection.

use std::time::Duration;

use dacapo::Node;
use dacapo::catalog::Phase;
use dacapo::options::Policy;
use dacapo::status::WaitingOn;

use super::told::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_third_version_takes_the_place_of_a_second_that_halts_while_it_is_built() {
    let versions = (told::<1>(Policy::Halt), told::<2>(Policy::Halt), told::<3>(Policy::Halt));
    let node = Node::builder().projection(versions.0.carried()).start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    let last = round(&node).await;
    phase(&node, "v1.1", Phase::Serving).await;
    versions.1.doubt(Act::Refuse);
    node.add_projection(versions.1.carried()).unwrap();
    halts(&node, "v2.1", doubted).await;
    node.add_projection(versions.2.carried()).unwrap();
    phase(&node, "v2.1", Phase::Obsolete).await;
    ready(&node, "v3.1").await;
    assert_eq!(ask(&node, "ledger-3", last).await, (7, 3));
    assert_eq!(flip(&node).await.to, version("v3.1"));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_back_right_after_a_flip_to_a_version_that_then_refuses_events() {
    let (version_1, version_2) = (told::<1>(Policy::Halt), told::<2>(Policy::Halt));
    let node = Scenario::new().serving(version_1.clone()).added("ledger-4", 1).ready(version_2.clone()).start().await;
    version_2.doubt(Act::Refuse);
    let doubted = doubt(&node, "ledger-3", 5).await;
    halts(&node, "v2.1", doubted).await;
    // It is not flipped to for as long as it would be waited for in vain.
    let requested = node.projection(totals()).unwrap().flip().requested_by(by_test()).await.unwrap();
    until(&node, "the flip waits for it", |status| {
        let handler = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { .. });
        status.projections[0].flip.as_ref().is_some_and(|(_, reasons)| reasons.iter().any(handler))
    })
    .await;
    let early = requested.done().within(Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(early.contains("doubtful"), "I-11: {early}");
    version_2.heal();
    node.version(view("v2.1")).resume().requested_by(by_test()).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    version_2.doubt(Act::Refuse);
    let last = doubt(&node, "ledger-4", 5).await;
    let back = roll_back(&node).await;
    assert_eq!(back.to, version("v1.1"));
    assert_eq!(ask(&node, "ledger-4", last).await, (6, 2), "the way back does not wait for it (I-8)");
    // There again, once it is put right.
    version_2.heal();
    node.version(view("v2.1")).resume().requested_by(by_test()).await.unwrap();
    assert_eq!(flip(&node).await.to, version("v2.1"));
    assert_eq!(roll_back(&node).await.to, version("v1.1"));
    assert_eq!(flip(&node).await.to, version("v2.1"));
    check_serving(&node).await;
    node.shutdown().await;
}
