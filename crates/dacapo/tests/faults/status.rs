//! What status and readiness say while something fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::status::{Status, WaitingOn};
use dacapo::{ExpectedRevision, Node, Options, limits};
use dacapo_store::Health;
use dacapo_testkit::{Call, Fault, Faults};

use super::setup::*;
use crate::common::*;

#[tokio::test]
async fn a_node_whose_journal_fails_is_not_ready_and_says_why() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).start().await;
    assert_eq!(node.not_ready(), []);
    faults.report_health(Health::Failing("cannot append: the disk is full".to_owned()));
    let told: Vec<_> = node.not_ready().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["the store: cannot append: the disk is full"]);
    faults.heal();
    assert_eq!(node.not_ready(), []);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_told_from_what_is_known_while_no_view_answers() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).version(carry_v1(v1())).version(Visits).start().await;
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    node.read("visits", last).await.unwrap();
    let told = async || {
        let status = tokio::time::timeout(Duration::from_secs(30), node.status()).await.expect("it is told").unwrap();
        let versions: Vec<_> = status.projections.into_iter().flat_map(|found| found.versions).collect();
        assert_eq!(versions.len(), 2);
        versions
    };
    let known = told().await;
    assert!(known.iter().all(|version| version.age.is_none() && !version.tokens.is_empty()), "{known:?}");
    faults.always(Fault::Waits, |call| matches!(call, Call::Tokens(_)));
    for _ in 0..3 {
        for (version, known) in told().await.iter().zip(&known) {
            assert!(version.age.is_some(), "{version:?}");
            assert_eq!((&version.tokens, version.letters), (&known.tokens, known.letters));
        }
    }
    // One that cannot be read is known as well, and says why.
    faults.always(Fault::Fails, |call| matches!(call, Call::Tokens(_)));
    let is_store = |reason: &WaitingOn| matches!(reason, WaitingOn::Store { .. });
    let says_why = async || {
        while !told().await.iter().all(|version| version.waiting_on.iter().any(is_store)) {}
    };
    tokio::time::timeout(Duration::from_secs(30), says_why()).await.expect("every version says why");
    for (version, known) in told().await.iter().zip(&known) {
        assert!(version.age.is_some() && version.tokens == known.tokens, "{version:?}");
    }
    faults.heal();
    let is_fresh = async || while !told().await.iter().all(|version| version.age.is_none()) {};
    tokio::time::timeout(Duration::from_secs(30), is_fresh()).await.expect("what is told is of now again");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_told_of_before_the_processor_has_its_claim() {
    let directory = tempfile::tempdir().unwrap();
    let on_failure = OnFailure { serving: Policy::DeadLetter, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let version_1 = TotalsV1 { options: Options { on_failure, retry, ..options() }, ..v1() };
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Scenario::data(directory.path()).serving(version_1.clone()).start().await;
    for _ in 0..2 {
        doubt(&node, "ledger-1", 1).await;
    }
    let letters = |status: &dacapo::status::Status| status.projections[0].versions[0].letters;
    until(&node, "they are set aside", |status| letters(status) == 2).await;
    node.shutdown().await;

    let faults = Faults::default();
    faults.always(Fault::Fails, |call| matches!(call, Call::Claim(_)));
    let builder = Node::builder().store(faults.over(&store(directory.path())));
    let node = builder.projection(carry_v1(version_1)).start().await.unwrap();
    assert_eq!(letters(&node.status().await.unwrap()), 2);
    faults.heal();
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread")]
async fn a_flip_that_a_node_cannot_drive_since_it_cannot_read_the_catalog_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let mut asked = false;
    faults.plan(move |call| {
        asked |= call.appends("flip-requested");
        // Nor does the flip go on that one begins which has just read it.
        (asked && matches!(call, Call::StreamRevision | Call::Hold(_))).then_some(Fault::Fails)
    });
    node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    until(&node, "the flip waits for the store", |status| {
        let away =
            |reason: &WaitingOn| matches!(reason, WaitingOn::Store { error } if error.contains("a fault of the test"));
        status.projections[0].flip.as_ref().is_some_and(|(_, waiting_on)| waiting_on.iter().any(away))
    })
    .await;
    faults.heal();
    phase(&node, "v2.1", Phase::Serving).await;
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_begun_since_the_catalog_cannot_be_read_says_so() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).serving(v1()).start().await;
    let mut asked = false;
    faults.plan(move |call| {
        asked |= call.appends("version-scheduled");
        (asked && matches!(call, Call::StreamRevision)).then_some(Fault::Fails)
    });
    node.add_projection(carry_v2(v2())).unwrap();
    until(&node, "what was scheduled waits for the store", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1"));
        let away =
            |reason: &WaitingOn| matches!(reason, WaitingOn::Store { error } if error.contains("a fault of the test"));
        found.is_some_and(|found| found.phase == Phase::Scheduled && found.waiting_on.iter().any(away))
    })
    .await;
    faults.heal();
    ready(&node, "v2.1").await;
    assert_eq!(waiting(&node, "v1.1").await, "", "what is over is told no more");
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread")]
async fn names_for_sql_from_outside_that_do_not_move_hold_up_nothing_else_and_the_status_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let node = two_versions(directory.path(), &faults).await;
    let published = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&published);
    faults.plan(move |call| {
        let Call::Publish(id) = call else { return None };
        seen.lock().unwrap().push(id.version);
        Some(Fault::Fails)
    });
    node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    let tells = |status: &Status| {
        let mut versions = status.projections[0].versions.iter();
        let serving = versions.find(|found| found.version == version("v2.1")).unwrap();
        serving.waiting_on.iter().any(|reason| reason.to_string().contains("Publish"))
    };
    until(&node, "the names are told not to move", tells).await;
    assert_eq!(node.not_ready(), [], "readers of the node are answered");
    let last = add(&node, "ledger-1", 5).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));
    faults.heal();
    until(&node, "the names move", |status| !tells(status)).await;
    assert!(published.lock().unwrap().iter().all(|found| *found == version("v2.1")));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_stands_by_far_behind_says_that_it_is_not_ready() {
    let version_1 = v1();
    let node = Scenario::new().serving(version_1.clone()).ready(v2()).flipped().start().await;
    // It has noticed that the hold of the flip is over.
    until(&node, "it stands by", |status| status.projections[0].versions[0].rollback_ready == Some(Ok(()))).await;
    version_1.behaviour.gate.send_replace(false);
    let many = usize::try_from(limits::HOLD_LAG_MAX).unwrap() + 1;
    node.append("ledger-1", ExpectedRevision::Any, (0..many).map(|_| added(1))).await.unwrap();
    let status = node.status().await.unwrap();
    let ready = status.projections[0].versions[0].rollback_ready.clone();
    // On a machine that is busy the handler may have been seen in its event for long.
    assert!(matches!(ready, Some(Err(WaitingOn::Segment { .. } | WaitingOn::Busy { .. }))), "I-8: {ready:?}");
    version_1.behaviour.gate.send_replace(true);
    until(&node, "it follows", |status| status.projections[0].versions[0].rollback_ready == Some(Ok(()))).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_before_the_first_version_serves_says_what_that_waits_on() {
    let version_1 = v1().refusing();
    let node = Node::builder().start().await.unwrap();
    doubt(&node, "ledger-1", 5).await;
    node.add_projection(carry_v1(version_1.clone())).unwrap();
    until(&node, "version 1 halts", |status| {
        let versions = status.projections.iter().flat_map(|found| &found.versions);
        let mut reasons = versions.flat_map(|found| &found.waiting_on);
        reasons.any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let asked = node.ask(TotalOf("ledger-1".into())).after(node.head()).within(Duration::from_millis(50));
    let error = asked.await.unwrap_err().to_string();
    assert!(error.contains("no version of totals serves") && error.contains("doubtful"), "I-11: {error}");
    version_1.behaviour.refuse.store(false, Ordering::SeqCst);
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    node.shutdown().await;
}
