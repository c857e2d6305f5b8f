//! Resets that fail.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dacapo::Node;
use dacapo::operate::{Cancel, ReplayFrom};
use dacapo::options::Retry;
use dacapo::status::WaitingOn;

use super::setup::*;
use crate::common::*;

/// A node whose version has applied twenty events, and whose rows cannot be reset.
async fn without_reset(sums: &Sums<1>) -> Node {
    let node = Node::builder().projection(sums.clone()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 20).await;
    sums.watched.reset_fails.store(true, Ordering::SeqCst);
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_fails_is_tried_again_and_the_version_follows_meanwhile() {
    let sums = sums::<1>();
    let node = without_reset(&sums).await;
    let requested = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    let status = until(&node, "it fails", |status| {
        let waiting_on = &status.projections[0].versions[0].waiting_on;
        waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Reset { attempts: 2.., .. }))
    })
    .await;
    assert!(status.projections[0].versions[0].waiting_on.iter().any(|reason| reason.to_string().contains("not now")));
    let last = fill(&node, 5).await;
    node.read("totals", last).await.unwrap();
    check_serving(&node).await;
    sums.watched.reset_fails.store(false, Ordering::SeqCst);
    requested.done().within(WAIT_MAX).await.unwrap();
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_failed_is_tried_at_once_when_the_version_is_resumed() {
    let mut sums = sums::<1>();
    let never = Duration::from_secs(1_000_000);
    sums.options.retry = Retry { attempts: 10, first: never, longest: never };
    let node = without_reset(&sums).await;
    let requested = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    until(&node, "it fails", |status| {
        let waiting_on = &status.projections[0].versions[0].waiting_on;
        waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Reset { attempts: 1, .. }))
    })
    .await;
    sums.watched.reset_fails.store(false, Ordering::SeqCst);
    node.version(requested.view.clone()).resume().by("test").await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_failed_is_forgotten_when_its_replay_is_cancelled() {
    let sums = sums::<1>();
    let node = without_reset(&sums).await;
    ask_replay(&node, ReplayFrom::Start).await.unwrap();
    let rests = |reason: &WaitingOn| matches!(reason, WaitingOn::Reset { .. });
    until(&node, "it fails", |status| status.projections[0].versions[0].waiting_on.iter().any(rests)).await;
    node.projection(totals()).unwrap().cancel(Cancel::Replay).by("test").await.unwrap();
    until(&node, "nobody asks for it", |status| !status.projections[0].versions[0].waiting_on.iter().any(rests)).await;
    sums.watched.reset_fails.store(false, Ordering::SeqCst);
    let last = fill(&node, 5).await;
    node.read("totals", last).await.unwrap();
    check_serving(&node).await;
    node.shutdown().await;
}
