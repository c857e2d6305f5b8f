//! Rebuilds, verifications and flips by several nodes, of old and new code, while clients use any of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dacapo::catalog::Phase;
use dacapo::journal::Revision;
use dacapo::status::WaitingOn;
use dacapo::verify::{Outcome, Part};
use dacapo::{ExpectedRevision, Node, Position};
use dacapo_testkit::{Call, Fault, Faults};
use tokio::sync::watch;

use super::setup::*;
use crate::common::*;

/// Appends through one node and reads through any, and checks every answer against its own books.
async fn client(nodes: Vec<Node>, number: usize, stop: Arc<AtomicBool>) -> usize {
    let (mut sum, mut events, mut requests) = (0, 0, number);
    let mut covers = Position::START;
    let mut shown: HashMap<usize, i64> = HashMap::new();
    let own = format!("ledger-{number}");
    while !stop.load(Ordering::SeqCst) {
        let node = |at: usize| &nodes[at % nodes.len()];
        let expected = ExpectedRevision::Exact(Revision::new(events as u64));
        let appended = node(requests).append(&own, expected, [added(events + 1)]).await.unwrap();
        (events, sum) = (events + 1, sum + events + 1);
        let answered = node(requests + 1).ask(TotalOf(own.clone())).after(appended.position).await.unwrap();
        assert_eq!(answered.value, (sum, events), "nothing is lost or applied twice, in {}", answered.version);
        assert!(answered.covers >= covers, "I-7");
        covers = answered.covers;
        let other = (number + requests) % 4;
        let answered = node(requests).ask(TotalOf(format!("ledger-{other}"))).after(covers).await.unwrap();
        assert!(answered.covers >= covers, "I-7: {} after {covers}", answered.covers);
        covers = answered.covers;
        let before = shown.insert(other, answered.value.1).unwrap_or_default();
        assert!(answered.value.1 >= before, "I-7");
        requests += 1;
    }
    requests - number
}

fn clients(nodes: &[Node], stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<usize>> {
    (0..4).map(|number| tokio::spawn(client(nodes.to_vec(), number, Arc::clone(stop)))).collect()
}

async fn stopped(clients: Vec<tokio::task::JoinHandle<usize>>, stop: &AtomicBool) {
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rebuild_is_shared_and_readers_of_any_node_never_go_back() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
    let two = store.another().node("two").projection(first()).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(&[one.clone(), two.clone()], &stop);
    one.add_projection(second()).unwrap();
    two.add_projection(second()).unwrap();
    shared(&two, "v2.1", &[("one", 4), ("two", 4)]).await;
    ready(&two, "v2.1").await;
    for round in 0..5 {
        let (a, b) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        assert_eq!(flip(a).await.to, version("v2.1"), "round {round}");
        assert_eq!(roll_back(b).await.to, version("v1.1"), "round {round}");
    }
    flip(&one).await;
    stopped(clients, &stop).await;
    check_serving(&one).await;
    check_serving(&two).await;
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_of_old_and_new_code_live_side_by_side() {
    let store = Shared::new();
    let old = store.node("old").projection(first()).start().await.unwrap();
    phase(&old, "v1.1", Phase::Serving).await;
    let stop = Arc::new(AtomicBool::new(false));
    let new = store.another().node("new").projection(first()).projection(second()).start().await.unwrap();
    let clients = clients(&[old.clone(), new.clone()], &stop);
    ready(&new, "v2.1").await;
    shared(&old, "v2.1", &[("new", 8)]).await;
    shared(&old, "v1.1", &[("new", 4), ("old", 4)]).await;
    stopped(clients, &stop).await;
    // Any node takes the request; whoever carries the version carries it out.
    let requested = old.version(view("v2.1")).flip().by("test").await.unwrap();
    assert_eq!(requested.done().within(WAIT_MAX).await.unwrap().to, version("v2.1"));
    let position = add(&old, "ledger-1", 7).await;
    check_serving(&new).await;
    assert!(ask(&new, "ledger-1", position).await.1 > 0);
    let refused = old.ask(TotalOf("ledger-1".into())).await.unwrap_err();
    assert!(refused.to_string().contains("v2.1"), "{refused}");
    // The old code keeps its version warm, together with the new node.
    let rolled_back = old.projection(totals()).unwrap().rollback().by("test").await.unwrap();
    rolled_back.done().within(WAIT_MAX).await.unwrap();
    check_serving(&old).await;
    new.shutdown().await;
    old.shutdown().await;
}

/// Only a cap brings versions together whose segments two members move, also if it was one when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_meet_when_another_node_takes_segments_while_they_are_brought_together() {
    let store = Shared::new();
    let (of_one, of_two) = (Faults::default(), Faults::default());
    let one = store.node_with(&of_one, "one").projection(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    of_one.always(Fault::Waits, |call| matches!(call, Call::Reader(id) if **id == view("v1.1")));
    one.add_projection(second()).unwrap();
    met(&of_one).await;
    let two = store.another().node_with(&of_two, "two").projection(first()).start().await.unwrap();
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    // From here on the other one gets on only once it is told where to wait.
    of_two.always(Fault::Fails, |call| matches!(call, Call::Commit(_)));
    for ledger in 0..40 {
        add(&one, &format!("ledger-{ledger}"), 1).await;
    }
    until(&one, "one node is ahead of the other", |status| {
        let tokens = &status.projections[0].versions[0].tokens;
        tokens.iter().any(|token| token.position == status.head)
            && tokens.iter().any(|token| token.position < status.head)
    })
    .await;
    let capped = of_two.clone();
    of_one.plan(move |call| {
        if matches!(call, Call::Cap(id, Some(_)) if **id == view("v1.1")) {
            capped.heal();
        }
        None
    });
    ready(&one, "v2.1").await;
    let report = one.version(view("v2.1")).verification().unwrap().verified.unwrap().report;
    let rows = report.parts.iter().find(|found| found.part == Part::Rows).unwrap();
    assert_eq!((&rows.outcome, rows.looked_at), (&Outcome::Passed, 40), "{report:?}");
    two.shutdown().await;
    one.shutdown().await;
}

/// Two nodes may verify one version for a moment, when members come or go, and each lifts what the other has capped.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_that_went_past_where_it_was_to_be_compared_is_compared_further_on() {
    let (store, faults) = (Shared::new(), Faults::default());
    let node = store.node_with(&faults, "one").projection(first()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 1).await;
    // First it is capped near the head, then where the serving version is.
    let mut caps = 0;
    faults.always(Fault::Waits, move |call| {
        let meets = matches!(call, Call::Cap(id, Some(_)) if **id == view("v2.1"));
        caps += u32::from(meets);
        meets && caps > 1
    });
    node.add_projection(second()).unwrap();
    met(&faults).await;
    store.store.views.find(&view("v2.1")).await.unwrap().unwrap().cap(None).await.unwrap();
    let last = add(&node, "ledger-2", 1).await;
    until(&node, "it goes on", |status| status.projections[0].versions[1].covers >= last).await;
    faults.heal();
    ready(&node, "v2.1").await;
    let report = node.version(view("v2.1")).verification().unwrap().verified.unwrap().report;
    let rows = report.parts.iter().find(|found| found.part == Part::Rows).unwrap();
    assert_eq!((&rows.outcome, rows.looked_at), (&Outcome::Passed, 2), "{report:?}");
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_cannot_drive_a_flip_says_that_it_waits_for_one_that_can() {
    let store = Shared::new();
    let old = store.node("old").projection(first()).start().await.unwrap();
    phase(&old, "v1.1", Phase::Serving).await;
    add(&old, "ledger-1", 1).await;
    let behaviour = Arc::new(Behaviour { gate: watch::Sender::new(false), ..Behaviour::default() });
    let code = carry_v2(TotalsV2 { options: eight(), behaviour: Arc::clone(&behaviour) });
    let new = store.another().node("new").projection(first()).projection(code).start().await.unwrap();
    phase(&old, "v2.1", Phase::Initializing).await;
    let requested = old.version(view("v2.1")).flip().by("test").await.unwrap();
    let status = old.status().await.unwrap();
    let (_, waiting_on) = status.projections[0].flip.clone().unwrap();
    assert_eq!(waiting_on, [WaitingOn::Code { version: version("v2.1") }]);
    behaviour.gate.send_replace(true);
    requested.done().within(WAIT_MAX).await.unwrap();
    new.shutdown().await;
    old.shutdown().await;
}
