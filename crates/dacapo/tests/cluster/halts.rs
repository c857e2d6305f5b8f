//! A handler refuses events of a segment that another node may have: letters, reasons and alarms.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dacapo::catalog::Phase;
use dacapo::operate::WhichLetters;
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::status::{MemberId, WaitingOn};
use dacapo::{ExpectedRevision, Node, Options, Position, VersionCode};
use dacapo_testkit::{Call, Fault, Faults};

use super::setup::*;
use crate::common::*;

fn refusing(policy: Policy, behaviour: &Arc<Behaviour>) -> VersionCode {
    let on_failure = OnFailure { serving: policy, initializing: policy };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let options = Options { on_failure, retry, ..eight() };
    carry_v1(TotalsV1 { options, behaviour: Arc::clone(behaviour) })
}

/// Two nodes that share the segments of version 1, whose handler refuses what is doubted for as long as it is told to.
async fn two_refusing(policy: Policy, faults: &[Faults; 2]) -> (Node, Node, Arc<Behaviour>) {
    let (store, behaviour) = (Shared::new(), Arc::new(Behaviour::default()));
    behaviour.refuse.store(true, Ordering::SeqCst);
    let one = store.node_with(&faults[0], "one").projection(refusing(policy, &behaviour)).start().await.unwrap();
    let two =
        store.another().node_with(&faults[1], "two").projection(refusing(policy, &behaviour)).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    (one, two, behaviour)
}

async fn doubt(node: &Node, ledger: &str) -> Position {
    let doubted = [LedgerEvent::Doubted { amount: 1 }];
    node.append(ledger, ExpectedRevision::Any, doubted).await.unwrap().position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_that_are_set_aside_are_retried_by_whoever_has_their_segment_whichever_node_is_asked() {
    let (one, two, behaviour) = two_refusing(Policy::DeadLetter, &Default::default()).await;
    let mut last = Position::START;
    for ledger in 0..32 {
        last = doubt(&one, &format!("ledger-{ledger}")).await;
    }
    assert_eq!(ask(&two, "ledger-1", last).await, (0, 0));
    behaviour.refuse.store(false, Ordering::SeqCst);
    assert_eq!(one.version(view("v1.1")).retry_letters(WhichLetters::All).by("test").await.unwrap().letters, Some(32));
    let applied = async {
        while rows(&one, last).await.unwrap().2.len() < 32 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, applied).await.expect("all are applied");
    assert!(one.version(view("v1.1")).letters().limit(100).await.unwrap().is_empty());
    check_serving(&two).await;
    two.shutdown().await;
    one.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_node_tells_why_a_segment_halts_whoever_has_it() {
    let (one, two, behaviour) = two_refusing(Policy::Halt, &Default::default()).await;
    let doubted = doubt(&one, "ledger-1").await;
    for node in [&one, &two] {
        let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { position, .. } if *position == doubted);
        until(node, "the refused event", |status| status.projections[0].versions[0].waiting_on.iter().any(told)).await;
    }
    behaviour.refuse.store(false, Ordering::SeqCst);
    two.version(view("v1.1")).resume().by("test").await.unwrap();
    assert_eq!(ask(&one, "ledger-1", doubted).await, (1, 1));
    two.shutdown().await;
    one.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_cannot_read_why_a_segment_halts_says_so() {
    let faults = <[Faults; 2]>::default();
    let (one, two, _) = two_refusing(Policy::Halt, &faults).await;
    // Whoever has the segment knows; the other one has to look.
    faults.iter().for_each(|of| of.always(Fault::Fails, |call| matches!(call, Call::Refusals(_))));
    let doubted = doubt(&one, "ledger-1").await;
    let handler = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { position, .. } if *position == doubted);
    let store = |reason: &WaitingOn| matches!(reason, WaitingOn::Store { .. });
    for node in [&one, &two] {
        let told = |reason: &WaitingOn| handler(reason) || store(reason);
        until(node, "a reason", |status| status.projections[0].versions[0].waiting_on.iter().any(told)).await;
    }
    two.shutdown().await;
    one.shutdown().await;
}

// I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_node_raises_the_alarm_when_nobody_takes_over() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    let observer = store.another().node("observer").start().await.unwrap();
    // A member that is alive, carries the code, and does nothing.
    let mut idle = one.status().await.unwrap().members.into_iter().find(|member| member.name == "one").unwrap();
    idle.id = MemberId::from_bytes([7; 16]);
    store.store.members.renew(&idle, WAIT_MAX).await.unwrap();
    one.shutdown().await;
    until(&observer, "the alarm", |status| {
        let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Unowned { segments: 8 | 4, .. });
        status.projections[0].versions[0].waiting_on.iter().any(told)
    })
    .await;
    store.store.members.leave(idle.id).await.unwrap();
    let another = store.another().node("another").projection(first()).start().await.unwrap();
    shared(&another, "v1.1", &[("another", 8)]).await;
    until(&observer, "the end of it", |status| {
        let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Unowned { .. });
        !status.projections[0].versions[0].waiting_on.iter().any(told)
    })
    .await;
    another.shutdown().await;
    observer.shutdown().await;
}
