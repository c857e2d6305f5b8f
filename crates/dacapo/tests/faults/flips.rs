//! Flips, ways back and holds while the store fails, or the node ends in the middle.

use std::sync::atomic::Ordering;

use dacapo::catalog::{CatalogEvent, CatalogRefused, FlipKind, Phase};
use dacapo::operate::NoTarget;
use dacapo::status::WaitingOn;
use dacapo::{Error, Node, ProjectionName};
use dacapo_testkit::{Call, Fault, Faults};

use super::setup::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn readers_can_go_back_from_a_version_whose_handler_refuses_an_event() {
    let version_2 = v2();
    let node = Scenario::new().serving(v1()).ready(version_2.clone()).flipped().start().await;
    version_2.behaviour.refuse.store(true, Ordering::SeqCst);
    doubt(&node, "ledger-1", 5).await;
    until(&node, "version 2 halts", |status| {
        let versions = &status.projections[0].versions;
        versions[1].waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let report = roll_back(&node).await;
    assert_eq!((report.to, report.kind), (version("v1.1"), FlipKind::Rollback), "I-8");
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    check_serving(&node).await;
    node.shutdown().await;
}

/// Readers go back only if somebody says that they shall.
#[tokio::test(flavor = "multi_thread")]
async fn a_flip_to_an_earlier_version_is_refused_before_anything_happens() {
    let node = Scenario::new().serving(v1()).ready(v2()).flipped().start().await;
    let before = node.history().await.unwrap().len();
    let refused = node.version(view("v1.1")).flip().by("test").await.unwrap_err();
    let (to, serving) = (version("v1.1"), version("v2.1"));
    assert!(matches!(&refused, Error::NoTarget(NoTarget::NotLater { to: t, serving: s }) if (*t, *s) == (to, serving)));
    assert!(refused.to_string().contains("ask for a rollback"), "{refused}");
    let unknown = node.version(view("v1.7")).flip().by("test").await.unwrap_err();
    assert!(matches!(unknown, Error::Catalog(CatalogRefused::NoSuchVersion { .. })), "{unknown}");
    assert_eq!(node.history().await.unwrap().len(), before);
    assert_eq!(roll_back(&node).await.to, to);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flip_to_a_version_whose_code_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    refuse(&faults, "flipped");
    node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    met(&faults).await;
    node.shutdown().await;

    // The flip is pending and the gate would be open, but nobody could answer from version 2.
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    until(&node, "the flip waits for the code", |status| {
        let code = WaitingOn::Code { version: version("v2.1") };
        status.projections[0].flip.as_ref().is_some_and(|(_, waiting_on)| waiting_on.contains(&code))
    })
    .await;
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "version 1 is not left held");
    node.add_projection(carry_v2(v2())).unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_from_a_version_whose_view_and_code_are_gone_happens() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    ask(&node, "ledger-1", last).await;
    node.shutdown().await;
    std::fs::remove_dir_all(directory.path().join("views/totals")).unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v2(v2())).start().await.unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_leaves_no_doubt_about_the_flip() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    for round in 0..3 {
        // The answer to every append of the catalog is lost.
        faults.plan(|call| match call {
            Call::Append(append) if append.events[0].stream.is_system() => Some(Fault::LosesAnswer),
            _ => None,
        });
        assert_eq!(flip(&node).await.to, version("v2.1"), "round {round}");
        assert_eq!(roll_back(&node).await.to, version("v1.1"), "round {round}");
        faults.heal();
        let last = add(&node, "ledger-1", 1).await;
        assert_eq!(ask(&node, "ledger-1", last).await, (round + 1, round + 1));
        until(&node, "version 2 is let go", |status| {
            let found = &status.projections[0].versions[1];
            found.covers >= last && found.rollback_ready == Some(Ok(()))
        })
        .await;
    }
    let history = node.history().await.unwrap();
    let flips = history.iter().filter(|entry| matches!(entry.event, CatalogEvent::Flipped { .. })).count();
    assert_eq!(flips, 1 + 2 * 3, "each once");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_cannot_be_lifted_is_lifted_later() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    faults.next(3, Fault::Fails, |call| matches!(call, Call::Lift(_)));
    flip(&node).await;
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "the new version is not concerned");
    until(&node, "the old one follows", |status| status.projections[0].versions[0].covers >= last).await;
    assert_eq!(faults.count(), 3, "each try failed before");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_left_is_taken_up_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    refuse(&faults, "flipped");
    node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    met(&faults).await;
    let last = add(&node, "ledger-1", 5).await;
    tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("a processor that is held stops too");

    let builder = Node::builder().data(directory.path()).projection(carry_v1(v1())).projection(carry_v2(v2()));
    let node = builder.start().await.unwrap();
    until(&node, "the flip happens", |status| status.projections[0].serving == Some(version("v2.1"))).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    until(&node, "version 1 is let go", |status| status.projections[0].versions[0].covers >= last).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_left_does_not_last_until_a_lost_view_is_built_again() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    refuse(&faults, "flipped");
    add(&node, "ledger-1", 5).await;
    node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    met(&faults).await;
    node.shutdown().await;
    std::fs::remove_file(directory.path().join("views/totals/v2.1.db")).unwrap();

    let version_2 = v2().held();
    let builder =
        Node::builder().data(directory.path()).projection(carry_v1(v1())).projection(carry_v2(version_2.clone()));
    let node = builder.start().await.unwrap();
    let last = add(&node, "ledger-1", 6).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (11, 2), "version 1 goes on");
    version_2.behaviour.gate.send_replace(true);
    phase(&node, "v2.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (11, 2));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_supersedes_a_flip_lets_the_old_version_go() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    refuse(&faults, "flipped");
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    met(&faults).await;
    let refused = node.version(view("v1.1")).rollback().by("test").await.unwrap_err();
    assert!(matches!(refused, Error::NoTarget(_)), "{refused}");
    rebuild(&node, 2).await;
    let error = requested.done().within(WAIT_MAX).await.unwrap_err();
    assert!(matches!(error, Error::FlipAborted { .. }), "{error}");
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1), "version 1 goes on");
    phase(&node, "v2.1", Phase::Obsolete).await;
    faults.heal();
    ready(&node, "v2.2").await;
    assert_eq!(flip(&node).await.to, version("v2.2"));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projections_flip_at_once() {
    let node = Scenario::new().version(Visits).serving(v1()).ready(v2()).start().await;
    let visits = ProjectionName::new("visits").unwrap();
    let other = node.projection(&visits).unwrap().rebuild().by("test").await.unwrap();
    let scheduled = || node.catalog().borrow().version(other.view()).unwrap().phase == Phase::Scheduled;
    until(&node, "the other one is being built", |_| !scheduled()).await;
    for number in 1..=5 {
        add(&node, "ledger-1", number).await;
    }
    let one = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    // Whether it has flipped by itself or not.
    let two = node.projection(&visits).unwrap().version(other.view().version).flip().by("test").await.unwrap();
    let (one, two) = tokio::join!(one.done().within(WAIT_MAX), two.done().within(WAIT_MAX));
    assert_eq!((one.unwrap().to, two.unwrap().to), (version("v2.1"), version("v1.2")));
    let last = add(&node, "ledger-1", 1).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (16, 6));
    assert_eq!(node.read("visits", last).await.unwrap().version, version("v1.2"));
    node.shutdown().await;
}
