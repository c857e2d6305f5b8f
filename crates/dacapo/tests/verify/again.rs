//! Verifications that are cut off, requested again, or overtaken by other code or another flip.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dacapo::catalog::{CatalogEvent, CatalogRefused, Phase, Stage};
use dacapo::status::WaitingOn;
use dacapo::verify::{Part, Verdict};
use dacapo::{Error, Node};

use crate::common::*;
use crate::setup::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_was_cut_off_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let second = Second::default();
    second.gate.send_replace(false);
    let start = async || {
        let builder = Node::builder().data(directory.path()).projection(carry_v1(v1()));
        builder.start().await.unwrap()
    };
    let node = start().await;
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 100).await;
    node.add_projection(carry(&second)).unwrap();
    let checking = async |times| {
        until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) >= times).await;
    };
    checking(1).await;
    let status = node.status().await.unwrap();
    let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1")).unwrap();
    assert_eq!(found.stage, Some(Stage::Verifying));
    assert!(matches!(&found.waiting_on[..], [WaitingOn::Verification { part: Some(Part::Checks), .. }]), "{found:?}");
    let error = node.version(view("v2.1")).verified().within(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let error = node.projection(totals()).unwrap().waive().requested_by(asked("why not?")).await.unwrap_err();
    assert!(matches!(error, Error::Catalog(CatalogRefused::NotVerified { .. })), "{error}");
    // It goes on applying what comes: it rests only while it meets version 1.
    let position = add(&node, "ledger-1", 1).await;
    until(&node, "version 2 follows", |status| status.projections[0].versions[1].covers >= position).await;
    node.shutdown().await;

    let node = Node::builder()
        .data(directory.path())
        .projection(carry_v1(v1()))
        .projection(carry(&second))
        .start()
        .await
        .unwrap();
    until(&node, "it checks again", |_| second.checks.load(Ordering::SeqCst) >= 2).await;
    let verdicts = |history: &[dacapo::catalog::CatalogEntry]| {
        let verified = |entry: &&dacapo::catalog::CatalogEntry| matches!(&entry.event, CatalogEvent::Verified { view, .. } if view.version == version("v2.1"));
        history.iter().filter(verified).count()
    };
    assert_eq!(verdicts(&node.history().await.unwrap()), 0);
    second.gate.send_replace(true);
    ready(&node, "v2.1").await;
    assert_eq!(verdicts(&node.history().await.unwrap()), 1);
    flip(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_asked_for_meanwhile_begins_after_that() {
    let node = serving(100).await;
    let second = Second::default();
    let (verdict, _) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Pass);
    second.gate.send_replace(false);
    node.projection(totals()).unwrap().verify_again().requested_by(asked("to be sure")).await.unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 2).await;
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    until(&node, "the flip waits for the verification", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_some_and(|(_, reasons)| matches!(&reasons[..], [WaitingOn::Verification { .. }]))
    })
    .await;
    assert!(
        node.projection(totals()).unwrap().verification().unwrap().again,
        "the verdict that is there does not count"
    );
    second.gate.send_replace(true);
    requested.done().within(WAIT_MAX).await.unwrap();
    let error = node.version(view("v2.1")).verify_again().requested_by(asked("to be sure")).await.unwrap_err();
    assert!(error.to_string().contains("cannot verify totals v2.1: it is Serving"), "{error}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_in_the_middle_lets_it_begin_against_the_version_that_serves_then() {
    let node = serving(100).await;
    let second = Second::default();
    node.add_projection(carry_v2(TotalsV2 { options: second.options.clone(), ..v2() })).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    second.gate.send_replace(false);
    node.add_projection(carry(&second)).unwrap();
    node.projection(totals()).unwrap().rebuild().code(2).by("test").await.unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 1).await;
    roll_back(&node).await;
    until(&node, "it checks again", |_| second.checks.load(Ordering::SeqCst) == 2).await;
    second.gate.send_replace(true);
    let verified = node.version(view("v2.2")).verified().within(WAIT_MAX).await.unwrap().verified.unwrap();
    assert_eq!((verified.verdict, verified.report.against), (Verdict::Pass, Some(version("v1.1"))));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_under_way_begins_again_with_code_that_is_carried_meanwhile() {
    let node = serving(40).await;
    let (wrong, mended) = (Second::default(), Second::default());
    wrong.gate.send_replace(false);
    node.add_projection(carry(&wrong)).unwrap();
    until(&node, "it checks", |_| wrong.checks.load(Ordering::SeqCst) == 1).await;
    node.add_projection(carry(&mended)).unwrap();
    assert_eq!(verified(&node, "v2.1").await.verified.unwrap().verdict, Verdict::Pass);
    assert_eq!(mended.checks.load(Ordering::SeqCst), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_asked_for_while_the_first_is_under_way_begins_after_that() {
    let node = serving(40).await;
    let second = Second::default();
    second.gate.send_replace(false);
    node.add_projection(carry(&second)).unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 1).await;
    let asked = node.projection(totals()).unwrap().verify_again().requested_by(asked("to be sure")).await.unwrap();
    until(&node, "it checks again", |_| second.checks.load(Ordering::SeqCst) == 2).await;
    second.gate.send_replace(true);
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert!(Some(verified.position) > asked.position);
    node.shutdown().await;
}
