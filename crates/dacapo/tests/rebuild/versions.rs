//! Versions that come and go: superseded, cancelled, discarded, cleaned up.

use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::{Phase, RequestedBy};
use dacapo::operate::Cancel;
use dacapo::options::FlipPolicy;
use dacapo::status::WaitingOn;
use dacapo::{Error, Node, Options, Projection};

use super::setup::held_back;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn stand_by_ends_after_its_time_and_the_view_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let options = Options { stand_by: Duration::from_secs(3_600), ..options() };
    let builder = Node::builder().data(directory.path()).clock(Arc::clone(&clock) as Arc<dyn dacapo::world::Clock>);
    let builder = builder.projection(carry_v1(TotalsV1 { options: options.clone(), ..v1() }));
    let node = builder.start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(carry_v2(TotalsV2 { options, ..v2() })).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    let stands_by = async |left: u64| {
        until(&node, "version 1 stands by and waits for nothing but the end of that", |status| {
            let old = &status.projections[0].versions[0];
            let remaining = Duration::from_secs(left);
            old.phase == Phase::StandingBy && old.waiting_on == [WaitingOn::StandBy { remaining }]
        })
        .await;
    };
    // The node counts from when it sees that.
    stands_by(3_600).await;
    clock.advance(Duration::from_secs(3_599));
    stands_by(1).await;

    let file = directory.path().join("views/totals/v1.1.db");
    assert!(file.exists());
    clock.advance(Duration::from_secs(1));
    phase(&node, "v1.1", Phase::Obsolete).await;
    assert!(!file.exists(), "I-12");
    let refused = node.projection(totals()).unwrap().rollback().by("test").await.unwrap_err();
    assert!(matches!(refused, Error::NoTarget(_)), "{refused}");
    let refused = node.version(view("v1.1")).rollback().by("test").await.unwrap_err();
    assert!(refused.to_string().contains("cannot flip to totals v1.1: it is Obsolete"), "{refused}");
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_was_made_again_after_its_version_was_gone_goes_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let builder = || Node::builder().data(directory.path()).projection(carry_v1(v1()));
    let node = builder().start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(carry_v2(v2())).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    node.version(view("v1.1")).clean_up().by("test").await.unwrap();
    phase(&node, "v1.1", Phase::Obsolete).await;
    node.shutdown().await;
    drop(node);

    // As a process leaves it that did not know yet and was killed before it looked again.
    let store = dacapo::store::Store::embedded(directory.path(), Arc::new(dacapo::world::SystemClock)).unwrap();
    store.views.open(&view("v1.1"), TotalsV1::TABLES, options().segments).await.unwrap();
    store.journal.close().await;
    drop(store);
    let file = directory.path().join("views/totals/v1.1.db");
    assert!(file.exists());
    let node = builder().projection(carry_v2(v2())).start().await.unwrap();
    assert!(!file.exists(), "I-12");
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_version_supersedes_one_that_does_not_serve_yet() {
    let (node, version_2) = held_back().await;
    let second = node.projection(totals()).unwrap().rebuild().code(2).by("test").await.unwrap();
    assert_eq!(second.view().version, version("v2.2"));
    version_2.behaviour.gate.send_replace(true);
    phase(&node, "v2.1", Phase::Obsolete).await;
    ready(&node, "v2.2").await;
    flip(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_version_whose_code_is_gone_does_not_block_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    let position = add(&node, "ledger-1", 1).await;
    ask(&node, "ledger-1", position).await;
    node.shutdown().await;

    let options = Options { flip: FlipPolicy::WhenReady, ..options() };
    let version_2 = TotalsV2 { options, ..v2() };
    let node = Node::builder().data(directory.path()).projection(carry_v2(version_2)).start().await.unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (1, 1));
    let status = node.status().await.unwrap();
    let old = &status.projections[0].versions[0];
    assert_eq!(old.rollback_ready, Some(Err(WaitingOn::Code { version: version("v1.1") })), "I-8");
    node.shutdown().await;
}

fn refusal(error: Error) -> dacapo::catalog::CatalogRefused {
    match error {
        Error::Catalog(refused) => refused,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_and_a_rebuild_are_cancelled_until_the_version_serves() {
    let node = Scenario::new().serving(v1()).added("ledger-1", 1).start().await;
    let mut second = v2();
    second.options.flip = FlipPolicy::WhenReady;
    let gate = second.behaviour.gate.clone();
    gate.send_replace(false);
    node.add_projection(carry_v2(second)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    // It is asked for, and cannot happen yet.
    let requested = node.projection(totals()).unwrap().flip().by("ana").await.unwrap();
    let unclear = node.projection(totals()).unwrap().cancel(None).by("ben").await.unwrap_err().to_string();
    assert!(unclear.contains("the flip to v2.1, or the rebuild of v2.1"), "{unclear}");
    let waits = tokio::spawn({
        let requested = requested.clone();
        async move { requested.done().within(WAIT_MAX).await }
    });
    let asked = RequestedBy { idempotency_key: Some("k".into()), ..RequestedBy::by("ben").because("not today") };
    let cancelled = node.projection(totals()).unwrap().cancel(Cancel::Flip).requested_by(asked.clone()).await.unwrap();
    assert_eq!(cancelled.requested.view, view("v2.1"));
    let told = waits.await.unwrap().unwrap_err();
    assert!(matches!(&told, Error::FlipAborted { reason, .. } if reason == "ben cancelled it: not today"), "{told}");
    gate.send_replace(true);
    ready(&node, "v2.1").await;
    check_serving(&node).await;
    assert_eq!(node.catalog().borrow().serving(&totals()), Some(version("v1.1")), "nor by itself");

    flip(&node).await;
    let late = node.projection(totals()).unwrap().cancel(Cancel::Flip).by("ben").await.unwrap_err();
    assert_eq!(refusal(late).to_string(), "it is too late to cancel the flip to totals v2.1: it serves");
    let late = node.version(view("v2.1")).cancel(Cancel::Rebuild).by("ben").await;
    assert!(matches!(refusal(late.unwrap_err()), dacapo::catalog::CatalogRefused::TooLate { .. }));
    assert_eq!(
        node.projection(totals()).unwrap().cancel(Cancel::Flip).requested_by(asked).await.unwrap(),
        cancelled,
        "under its key"
    );

    gate.send_replace(false);
    let rebuilt = node.projection(totals()).unwrap().rebuild().by("ana").await.unwrap();
    let cancelled = node.projection(totals()).unwrap().cancel(None).by("ben").await.unwrap();
    assert_eq!((cancelled.what, &cancelled.requested.view), (Cancel::Rebuild, rebuilt.view()));
    gate.send_replace(true);
    phase(&node, "v2.2", Phase::Obsolete).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_says_what_it_discards_and_needs_to_be_told_so_for_what_is_ready() {
    let node = Node::builder().projection(carry_v1(v1())).projection(carry_v2(v2())).start().await.unwrap();
    ready_and_flip(&node, "v2.1").await;
    let totals = node.projection(totals()).unwrap();
    let first = totals.rebuild().by("ana").await.unwrap();
    assert_eq!(first.discards, []);
    ready(&node, "v2.2").await;
    let refused = totals.rebuild().by("ana").await.unwrap_err();
    assert!(matches!(&refused, Error::WouldDiscard { view: of } if *of == view("v2.2")), "{refused}");
    let copy = totals.rebuild().from_copy().by("ana").await;
    assert!(matches!(copy, Err(Error::WouldDiscard { .. })), "however it is asked for: {copy:?}");
    assert_eq!(totals.rebuild().discard().by("ana").await.unwrap().discards, [version("v2.2")]);
    let missing = totals.rebuild().code(7).discard().by("ana").await.unwrap_err().to_string();
    assert_eq!(missing, "no node carries version 7 of the code of totals: carried are 1, 2");
    node.shutdown().await;
}
