//! Two versions meet at one position to be compared, or say why they do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::options::{Retry, SegmentCount};
use dacapo::status::WaitingOn;
use dacapo::verify::{Outcome, Part, Verdict, Verify};
use dacapo::{Error, Node, Options, Position};

use crate::common::*;
use crate::setup::*;

/// Appends to its ledgers and reads what it appended until it is told to stop; tells the longest that it waited.
async fn client(node: Node, number: usize, stop: Arc<AtomicBool>) -> u64 {
    let mut asked = 0;
    while !stop.load(Ordering::SeqCst) {
        let ledger = format!("ledger-{number}");
        let before = ask(&node, &ledger, node.head()).await;
        let position = add(&node, &ledger, 1).await;
        let after = ask(&node, &ledger, position).await;
        assert_eq!(after.1, before.1 + 1, "its own event is in the answer");
        asked += 1;
    }
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_are_compared_at_one_position_while_writers_and_readers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Scenario::data(directory.path()).serving(v1()).filled(2_000).start().await;
    ask(&node, "ledger-0", node.head()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|number| tokio::spawn(client(node.clone(), number, Arc::clone(&stop)))).collect();
    let second = Second::default().verify(Verify::default().require([Part::Rows]));
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Pass, "{report:?}");
    let mut at = report.at;
    for round in 0..10 {
        // It is compared further on each time.
        let position = add(&node, "ledger-9", 1).await;
        node.projection(totals()).unwrap().verify_again().requested_by(asked("once more")).await.unwrap();
        let verified = verified(&node, "v2.1").await.verified.unwrap();
        assert_eq!(verified.verdict, Verdict::Pass, "round {round}: {:?}", verified.report);
        assert!(verified.report.at >= position && verified.report.at > at, "round {round}");
        at = verified.report.at;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    flip(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_version_that_halts_is_not_compared_with_and_that_is_told() {
    let node = Scenario::new().serving(v1().refusing()).filled(40).start().await;
    doubt(&node, "ledger-7", 1).await;
    until(&node, "it halts", |status| {
        let reasons = &status.projections[0].versions[0].waiting_on;
        reasons.iter().any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let patience = Verify { meet_time_max: Duration::from_millis(200), ..Verify::default() };
    let (verdict, report) = report_of(&node, &Second::default().verify(patience)).await;
    assert_eq!(verdict, Verdict::Pass, "rows are not required");
    let Outcome::NotDone { why } = &part(&report, Part::Rows).outcome else { panic!("{report:?}") };
    assert!(why.contains("v1.1 did not reach one position") && why.contains("doubtful"), "{why}");
    ready(&node, "v2.1").await;
    // Readers can leave the version that halts.
    flip(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_paused_is_verified_once_it_is_resumed_and_not_with_less() {
    let directory = tempfile::tempdir().unwrap();
    let second = Second::default().verify(Verify { meet_time_max: Duration::from_millis(200), ..Verify::default() });
    let start = || Node::builder().data(directory.path()).projection(carry_v1(v1())).projection(carry(&second)).start();
    let node = Scenario::data(directory.path()).serving(v1()).filled(40).ready(second.clone()).start().await;
    node.version(view("v2.1")).pause().requested_by(asked("let us see")).await.unwrap();
    node.shutdown().await;

    let node = start().await.unwrap();
    fill(&node, 40).await;
    node.projection(totals()).unwrap().verify_again().requested_by(asked("once more")).await.unwrap();
    // Time enough to find that it does not get on.
    let never = node.ask(TotalOf("ledger-7".into())).after(Position::new(1_000_000));
    never.within(Duration::from_millis(500)).await.unwrap_err();
    assert!(node.projection(totals()).unwrap().verification().unwrap().again, "there is no verdict on less");
    let resumed = node.version(view("v2.1")).resume().requested_by(asked("go on")).await.unwrap();
    let found = verified(&node, "v2.1").await.verified.unwrap();
    assert!(Some(found.position) > resumed.position, "{found:?}");

    // One that serves says why it cannot be compared with.
    node.version(view("v1.1")).pause().requested_by(asked("let us see")).await.unwrap();
    node.shutdown().await;
    let node = start().await.unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("once more")).await.unwrap();
    let found = verified(&node, "v2.1").await.verified.unwrap();
    let Outcome::NotDone { why } = &part(&found.report, Part::Rows).outcome else { panic!("{found:?}") };
    assert!(why.contains("the version is paused"), "{why}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_is_required_is_not_gone_without() {
    let directory = tempfile::tempdir().unwrap();
    let node = Scenario::data(directory.path()).serving(v1()).filled(40).start().await;
    node.shutdown().await;
    // The next release does not carry version 1 any more.
    let strict = Second::default().verify(Verify::default().require([Part::Rows]));
    let node = Node::builder().data(directory.path()).projection(carry(&strict)).start().await.unwrap();
    let found = verified(&node, "v2.1").await;
    let Some(WaitingOn::Verdict { found: why, .. }) = found.waiting_on else { panic!("{found:?}") };
    assert_eq!(why, "rows: not done, this node does not carry the code of the serving version v1.1");
    // Somebody finds it and puts it back.
    node.add_projection(carry_v1(v1())).unwrap();
    until(&node, "version 1 runs", |status| status.projections[0].versions[0].covers == status.head).await;
    node.projection(totals()).unwrap().verify_again().requested_by(asked("version 1 is back")).await.unwrap();
    assert_eq!(verified(&node, "v2.1").await.verified.unwrap().verdict, Verdict::Pass);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_versions_did_not_meet_is_cut_however_many_segments_halt() {
    let version_1 = TotalsV1 { options: Options { segments: SegmentCount::new(64).unwrap(), ..options() }, ..v1() };
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Scenario::new().serving(version_1).start().await;
    for ledger in 0..40 {
        let ledger = format!("ledger-{ledger}");
        doubt(&node, &ledger, 1).await;
    }
    until(&node, "many segments halt", |status| status.projections[0].versions[0].waiting_on.len() >= 20).await;
    let patience = Verify { meet_time_max: Duration::from_millis(200), ..Verify::default() };
    let (_, report) = report_of(&node, &Second::default().verify(patience)).await;
    let Outcome::NotDone { why } = &part(&report, Part::Rows).outcome else { panic!("{report:?}") };
    assert!(why.contains("v1.1 did not reach one position"), "{why}");
    assert!(why.len() <= dacapo::limits::FINDING_BYTES_MAX, "{} bytes", why.len());
    node.shutdown().await;
}

/// A node whose version 2 is to be compared with version 1, which halts and so does not meet it.
async fn meeting() -> Node {
    let node = Scenario::new().serving(v1().refusing()).start().await;
    doubt(&node, "ledger-7", 1).await;
    let patience = Verify { meet_time_max: WAIT_MAX, ..Verify::default() };
    node.add_projection(carry(&Second::default().verify(patience))).unwrap();
    until(&node, "it is to meet version 1", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1"));
        found.is_some_and(|found| matches!(found.waiting_on[..], [WaitingOn::Verification { part: Some(_), .. }]))
    })
    .await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_rests_to_meet_another_is_not_said_to_have_no_processor() {
    let node = meeting().await;
    // What is appended before it rests it still takes up, and has nothing to stand still on.
    let stall = loop {
        add(&node, "ledger-7", 1).await;
        let status = until(&node, "it took that up, or stands still", |status| {
            let found = &status.projections[0].versions[1];
            found.lag == 0 || found.stall.is_some()
        })
        .await;
        if let Some(stall) = &status.projections[0].versions[1].stall {
            break stall.clone();
        }
    };
    assert!(matches!(stall.on[..], [WaitingOn::Verification { .. }]), "{stall}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_version_whose_code_is_replaced_meanwhile_is_compared_with_all_the_same() {
    let node = meeting().await;
    // The processor of version 1 gives way to that of corrected code.
    node.add_projection(carry_v1(v1())).unwrap();
    let found = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(part(&found.report, Part::Rows).outcome, Outcome::Passed, "{found:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_be_verified_by_itself_says_what_it_waits_on() {
    let directory = tempfile::tempdir().unwrap();
    let second = Second::default();
    let retry = Retry { attempts: 2, first: Duration::from_millis(1), ..Retry::default() };
    let second = Second { options: Options { retry, ..second.options }, ..second };
    second.refuse.store(true, Ordering::SeqCst);
    let node = Scenario::data(directory.path()).serving(v1()).start().await;
    doubt(&node, "ledger-7", 1).await;
    node.add_projection(carry(&second)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let halts = async |node: &Node, reason: fn(&WaitingOn) -> bool| {
        until(node, "it halts", |_| {
            let found = node.projection(totals()).unwrap().verification().unwrap();
            found.halts && found.waiting_on.as_ref().is_some_and(reason)
        })
        .await;
    };
    halts(&node, |reason| matches!(reason, WaitingOn::Handler { attempts: 2.., .. })).await;
    let error = node.version(view("v2.1")).verified().within(Duration::ZERO).await.unwrap_err();
    let Error::TimedOut { waiting_on, .. } = error else { panic!("{error}") };
    assert!(matches!(waiting_on[..], [WaitingOn::Handler { .. }]), "{waiting_on:?}");
    node.version(view("v2.1")).pause().requested_by(asked("let us see")).await.unwrap();
    halts(&node, |reason| matches!(reason, WaitingOn::Paused)).await;
    node.shutdown().await;

    // A release that does not carry it.
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    halts(&node, |reason| matches!(reason, WaitingOn::Code { .. })).await;
    second.refuse.store(false, Ordering::SeqCst);
    node.add_projection(carry(&second)).unwrap();
    node.version(view("v2.1")).resume().requested_by(asked("it is mended")).await.unwrap();
    let found = verified(&node, "v2.1").await;
    assert_eq!((found.verified.unwrap().verdict, found.halts), (Verdict::Pass, false));
    node.shutdown().await;
}
