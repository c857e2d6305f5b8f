//! Flips under traffic, back and forth, and held up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use dacapo::catalog::{CatalogEvent, FlipKind, Phase};
use dacapo::journal::Revision;
use dacapo::options::FlipPolicy;
use dacapo::status::WaitingOn;
use dacapo::world::{Probe, Step};
use dacapo::{Error, ExpectedRevision, Node, Options, Position};
use tokio::sync::watch;

use super::setup::held_back;
use crate::common::*;

/// Appends and reads without a pause, and checks every answer against its own books.
async fn client(node: Node, number: usize, stop: Arc<AtomicBool>) -> usize {
    let (mut sum, mut events, mut requests) = (0, 0, 0);
    let mut covers = Position::START;
    let mut shown: HashMap<usize, i64> = HashMap::new();
    let own = format!("ledger-{number}");
    while !stop.load(Ordering::SeqCst) {
        let expected = ExpectedRevision::Exact(Revision::new(events as u64));
        let appended = node.append(&own, expected, [added(events + 1)]).await.unwrap();
        events += 1;
        sum += events;
        let answered = node.ask(TotalOf(own.clone())).after(appended.position).await.unwrap();
        assert_eq!(answered.value, (sum, events), "nothing is lost or applied twice, in {}", answered.version);
        assert!(answered.covers >= covers, "I-7");
        covers = answered.covers;
        // Without naming a position.
        let other = (number + requests) % 4;
        let answered = node.ask(TotalOf(format!("ledger-{other}"))).await.unwrap();
        assert!(answered.covers >= covers, "I-7: {} after {covers}", answered.covers);
        covers = answered.covers;
        let before = shown.insert(other, answered.value.1).unwrap_or_default();
        assert!(answered.value.1 >= before, "I-7");
        requests += 1;
    }
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_go_back_while_versions_flip_back_and_forth() {
    let directory = tempfile::tempdir().unwrap();
    let node = Scenario::data(directory.path()).serving(v1()).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|number| tokio::spawn(client(node.clone(), number, Arc::clone(&stop)))).collect();
    node.add_projection(carry_v2(v2())).unwrap();
    ready(&node, "v2.1").await;
    for round in 0..10 {
        let report = flip(&node).await;
        assert_eq!((report.to, report.kind), (version("v2.1"), FlipKind::Flip), "round {round}");
        assert!(report.pause.is_some(), "this node held the old version");
        let report = roll_back(&node).await;
        assert_eq!((report.to, report.kind), (version("v1.1"), FlipKind::Rollback), "round {round}");
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    check_serving(&node).await;
    flip(&node).await;
    check_serving(&node).await;
    check_history(&node).await;
    node.shutdown().await;
}

/// I-5 and I-6, from the history alone.
async fn check_history(node: &Node) {
    let mut serving = None;
    let mut requested = Position::START;
    for entry in node.history().await.unwrap() {
        match entry.event {
            CatalogEvent::FlipRequested { .. } => requested = entry.position,
            CatalogEvent::Flipped { view, from, covers, .. } => {
                assert_eq!(from, serving, "I-5");
                assert!(covers >= requested, "I-6");
                serving = Some(view.version);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_flips_by_itself_when_its_policy_says_so() {
    let options = Options { flip: FlipPolicy::WhenReady, ..options() };
    let node = Scenario::new().serving(v1()).added("ledger-1", 1).start().await;
    node.add_projection(carry_v2(TotalsV2 { options, ..v2() })).unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    phase(&node, "v1.1", Phase::StandingBy).await;
    let position = add(&node, "ledger-1", 2).await;
    // The hold of the flip may be noticed a moment longer.
    until(&node, "I-8: the old version follows and is ready for a rollback", |status| {
        let old = &status.projections[0].versions[0];
        old.covers >= position && old.rollback_ready == Some(Ok(()))
    })
    .await;
    node.shutdown().await;
}

/// Stops a flip once the new version covers its request, until it is let go.
struct StopAtCovered {
    covered: watch::Sender<bool>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Probe for StopAtCovered {
    fn completed(&self, step: Step) {
        if step == Step::FlipCovered {
            self.covered.send_replace(true);
            // An error means that nobody wants it stopped any more.
            self.go.lock().unwrap().recv().ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hold_that_runs_out_of_its_budget_is_lifted_and_tried_again() {
    let (go, stopped) = mpsc::channel();
    let probe = Arc::new(StopAtCovered { covered: watch::Sender::new(false), go: Mutex::new(stopped) });
    let version_2 = v2();
    let builder = Node::builder().projection(carry_v1(v1())).probe(Arc::clone(&probe) as Arc<dyn Probe>);
    let node = builder.start().await.unwrap();
    go.send(()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    probe.covered.send_replace(false);
    node.add_projection(carry_v2(version_2.clone())).unwrap();
    ready(&node, "v2.1").await;

    // Version 2 covers the request. Then version 1 shows one event more, at which version 2 stops.
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    probe.covered.subscribe().wait_for(|covered| *covered).await.unwrap();
    version_2.behaviour.gate.send_replace(false);
    let shown = add(&node, "ledger-1", 1).await;
    assert_eq!(ask(&node, "ledger-1", shown).await, (1, 1));
    drop(go);

    let mut catalog = node.catalog();
    let postponed = catalog.wait_for(|catalog| {
        catalog.projections[&totals()].flip.is_some_and(|flip| flip.hold > requested.position.unwrap())
    });
    tokio::time::timeout(WAIT_MAX, postponed).await.expect("the hold is given up in the journal").unwrap();
    let later = add(&node, "ledger-1", 1).await;
    assert_eq!(ask(&node, "ledger-1", later).await, (2, 2), "version 1 goes on between two holds");
    assert_eq!(node.catalog().borrow().serving(&totals()), Some(version("v1.1")));

    version_2.behaviour.gate.send_replace(true);
    phase(&node, "v2.1", Phase::Serving).await;
    check_serving(&node).await;
    check_history(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_waits_for_a_version_that_is_behind_and_says_so() {
    let (node, _version_2) = held_back().await;
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    until(&node, "I-11: the flip says which segment it waits on", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_some_and(|(_, reasons)| reasons.iter().any(|reason| matches!(reason, WaitingOn::Segment { .. })))
    })
    .await;
    let error = requested.done().within(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");

    // Giving the version up aborts its flip, although its handler still waits.
    node.version(view("v2.1")).clean_up().by("test").await.unwrap();
    let error = requested.done().within(WAIT_MAX).await.unwrap_err();
    assert!(matches!(error, Error::FlipAborted { .. }), "{error}");
    phase(&node, "v2.1", Phase::Obsolete).await;
    assert_eq!(node.catalog().borrow().serving(&totals()), Some(version("v1.1")));
    check_serving(&node).await;
    node.shutdown().await;
}
