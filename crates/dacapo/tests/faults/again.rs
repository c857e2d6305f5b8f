//! What fails is tried again: after a rest, after a bug, and whatever fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::catalog::{CatalogEvent, Phase};
use dacapo::journal::{Append, NewEvent};
use dacapo::options::{FlipPolicy, SegmentCount};
use dacapo::store::Store;
use dacapo::world::{Ids, SystemClock, SystemIds};
use dacapo::{ExpectedRevision, Node, Position};
use dacapo_model::CleanUpReason;
use dacapo_store::catalog_form;
use dacapo_testkit::{Call, Fault, Faults};

use super::setup::*;
use crate::common::*;

/// A store in memory whose catalog has these events.
async fn store_with(events: &[CatalogEvent]) -> Store {
    let store = Store::memory(Arc::new(SystemClock));
    for event in events {
        let (event_type, payload) = catalog_form::encode(event);
        let (metadata, tags) = Default::default();
        let event = NewEvent { id: SystemIds.next(), event_type, payload, metadata, tags };
        let append = Append::to_stream(catalog_form::stream(), ExpectedRevision::Any, vec![event]);
        store.journal.append(append).await.unwrap();
    }
    store
}

/// Of more tries in a minute a driver does not rest between them.
const TRIES_MAX: u64 = 1_000;

// The paused time goes on whenever there is nothing to do, so a driver that does not rest keeps it from going on.
#[tokio::test(start_paused = true)]
async fn a_clean_up_that_fails_rests_before_it_is_tried_again() {
    let id = view("v1.1");
    let store = store_with(&[
        CatalogEvent::Scheduled {
            view: id.clone(),
            segments: SegmentCount::ONE,
            flip: FlipPolicy::OnCommand,
            fingerprint: String::new(),
            reads: None,
            seed: None,
        },
        CatalogEvent::CleaningUp { view: id.clone(), reason: CleanUpReason::Asked },
    ])
    .await;
    let faults = Faults::default();
    // One that does not rest would never let the test go on.
    faults.next(TRIES_MAX, Fault::Fails, |call| matches!(call, Call::Drop(_)));
    let node = Node::builder().store(faults.over(&store)).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(waiting(&node, "v1.1").await.contains("a fault of the test"), "I-11");
    assert!((2..TRIES_MAX).contains(&faults.count()), "{} tries", faults.count());
    faults.heal();
    phase(&node, "v1.1", Phase::Obsolete).await;
    node.shutdown().await;
}

// As above: on a full disk, or beside a journal that was closed, whoever drives a rebuild must not keep the node busy.
#[tokio::test(start_paused = true)]
async fn a_change_of_the_catalog_that_fails_rests_before_it_is_tried_again() {
    let store = Store::memory(Arc::new(SystemClock));
    let faults = Faults::default();
    // One that does not rest would never let the test go on.
    faults.next(TRIES_MAX, Fault::Fails, |call| matches!(call, Call::Append(_)));
    let node = Node::builder().store(faults.over(&store)).projection(carry_v1(v1())).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(node.catalog().borrow().versions().next().is_none());
    assert!((2..TRIES_MAX).contains(&faults.count()), "{} tries", faults.count());
    faults.heal();
    phase(&node, "v1.1", Phase::Serving).await;
    node.shutdown().await;
}

/// A plan that panics once at the first call of a kind: a bug in dacapo.
fn bug(faults: &Faults, meets: impl Fn(&Call<'_>) -> bool + Send + 'static) {
    let mut met = false;
    faults.plan(move |call| {
        let first = !met && meets(call);
        met |= first;
        assert!(!first, "a bug at {call:?}");
        None
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_ends_by_a_bug_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    // The processor.
    bug(&faults, |call| matches!(call, Call::Commit(id) if **id == view("v1.1")));
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "the query waits for the next one");
    // The conductor.
    bug(&faults, |call| matches!(call, Call::Open(_)));
    rebuild(&node, 2).await;
    ready(&node, "v2.2").await;
    // The driver of the flip, before and after the hold.
    bug(&faults, |call| matches!(call, Call::Hold(_)));
    flip(&node).await;
    bug(&faults, |call| matches!(call, Call::Lift(_)));
    let requested = node.projection(totals()).unwrap().rollback().by("test").await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    let last = add(&node, "ledger-1", 6).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (11, 2));
    until(&node, "version 2 is let go", |status| {
        status.projections[0].versions.iter().all(|found| found.tokens.is_empty() || found.covers >= last)
    })
    .await;
    check_serving(&node).await;
    node.shutdown().await;
}

/// Everything fails now and then, while readers, writers and flips go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_faults_everywhere_nothing_is_lost_and_nobody_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let mut random = 88_172_645_463_325_252_u64;
    faults.plan(move |call| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let system = matches!(call, Call::Append(append) if append.events[0].stream.is_system());
        match (call, random % 8) {
            (Call::Append(_), _) if !system => None,
            // Damage heals only by a rebuild, and a query whose reads fail tells its caller.
            (Call::Reader(_) | Call::Query(_) | Call::ViewHealth(_), _) => None,
            // Each batch needs all of these: with faults in them as well, hardly one would land.
            (Call::Unspoken(_) | Call::MissingIndexes(_) | Call::Writer(_) | Call::Load(_) | Call::Write(_), _) => None,
            (_, 0) => Some(Fault::Fails),
            (_, 1) => Some(Fault::LosesAnswer),
            _ => None,
        }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn({
        let (node, stop) = (node.clone(), Arc::clone(&stop));
        async move {
            let (mut events, mut covers) = (0, Position::START);
            while !stop.load(Ordering::SeqCst) {
                let last = add(&node, "ledger-1", 1).await;
                events += 1;
                let answered = node.ask(TotalOf("ledger-1".into())).after(last).within(WAIT_MAX).await.unwrap();
                assert_eq!(answered.value, (events, events), "{} at {}", answered.version, answered.covers);
                assert!(answered.covers >= covers, "I-7");
                covers = answered.covers;
            }
        }
    });
    for round in 0..4 {
        let to = if round % 2 == 0 { "v2.1" } else { "v1.1" };
        // The request itself may fail as well, or its answer be lost.
        while node.catalog().borrow().serving(&totals()) != Some(version(to)) {
            let requested = match round % 2 {
                0 => node.version(view(to)).flip().by("test").await,
                _ => node.version(view(to)).rollback().by("test").await,
            };
            if requested.is_ok() {
                phase(&node, to, Phase::Serving).await;
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    client.await.unwrap();
    faults.heal();
    check_serving(&node).await;
    node.shutdown().await;
}
