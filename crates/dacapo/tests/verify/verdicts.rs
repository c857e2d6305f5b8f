//! Verdicts: which versions pass, and how readers move to one that does not.

use std::sync::atomic::Ordering;

use dacapo::catalog::{CatalogEvent, Phase, Stage};
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::status::WaitingOn;
use dacapo::verify::{FindingKind, Outcome, Part, Verdict, Verify};
use dacapo::{Error, Options};

use crate::common::*;
use crate::setup::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_right_passes_and_every_part_says_what_it_looked_at() {
    let node = serving(3_000).await;
    let (verdict, report) = report_of(&node, &Second::default()).await;
    assert_eq!((verdict, report.against), (Verdict::Pass, Some(version("v1.1"))), "{report:?}");
    let looked_at = [(Part::Counts, 3_000), (Part::Checks, 1), (Part::Rows, 40)];
    for (of, expected) in looked_at {
        let part = part(&report, of);
        assert_eq!((&part.outcome, part.looked_at), (&Outcome::Passed, expected), "{part:?}");
    }
    assert!(matches!(part(&report, Part::Answers).outcome, Outcome::NotDone { .. }));
    assert_eq!(part(&report, Part::Rows).notes, ["column totals.last is new"]);
    ready(&node, "v2.1").await;
    flip(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_is_verified_by_itself_and_says_what_it_could_not_be_compared_with() {
    let strict = Options { verify: Verify::default().require([Part::Rows, Part::Answers]), ..options() };
    let node = Scenario::new().serving(TotalsV1 { options: strict, ..v1() }).start().await;
    let verification = node.projection(totals()).unwrap().verification().unwrap();
    assert_eq!((&verification.view, verification.phase), (&view("v1.1"), Phase::Serving));
    let verified = verification.verified.unwrap();
    assert_eq!((verified.verdict, verified.report.against), (Verdict::Pass, None));
    assert_eq!(verified.report.required, [Part::Counts, Part::Checks], "there is nothing to compare with");
    let Outcome::NotDone { why } = &part(&verified.report, Part::Rows).outcome else { panic!("{verified:?}") };
    assert!(why.contains("no version serves"), "{why}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sum_is_found_and_no_command_flips_to_it_until_it_is_waived() {
    let node = serving(400).await;
    let (verdict, report) = report_of(&node, &Second::wrong_in("ledger-7")).await;
    assert_eq!(verdict, Verdict::Fail);
    let rows = part(&report, Part::Rows);
    assert_eq!((&rows.wrong[..], rows.looked_at), (&[(FindingKind::Differs, 1)][..], 40));
    let sum: i64 = (0..400).filter(|number| number % 40 == 7).sum();
    let (old, new) = (format!("sum {sum}"), format!("sum {}", 2 * sum));
    assert_eq!(rows_of(rows, "ledger-7"), (Some(&*old), Some(&*new)));

    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    until(&node, "the flip says that it waits for a verdict", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_some_and(|(_, reasons)| matches!(&reasons[..], [WaitingOn::Verdict { found, .. }] if found.contains("1 row differs")))
    })
    .await;
    let position = add(&node, "ledger-7", 1).await;
    assert_eq!(ask(&node, "ledger-7", position).await.1, 11, "the serving version is not held for it");
    // It can be taken back.
    node.projection(totals())
        .unwrap()
        .cancel(dacapo::operate::Cancel::Flip)
        .requested_by(asked("not like this"))
        .await
        .unwrap();
    assert!(matches!(requested.done().within(WAIT_MAX).await, Err(Error::FlipAborted { .. })));
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();

    let error = node.projection(totals()).unwrap().waive().by("ana").await.unwrap_err();
    assert!(matches!(error, Error::NoReason), "{error}");
    node.projection(totals()).unwrap().waive().requested_by(asked("ledger 7 counts twice from now on")).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    let history = node.history().await.unwrap();
    let waived = history.iter().find(|entry| matches!(entry.event, CatalogEvent::Waived { .. })).unwrap();
    let CatalogEvent::Waived { by, why, .. } = &waived.event else { unreachable!() };
    assert_eq!((by.as_str(), why.as_str()), ("ana", "ledger 7 counts twice from now on"));
    let flipped = history.iter().rfind(|entry| matches!(entry.event, CatalogEvent::Flipped { .. })).unwrap();
    assert!(waived.position < flipped.position, "I-6");
    // The way back needs no verdict: version 1 has served.
    roll_back(&node).await;
    flip(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_after_the_verdict_counts_as_well() {
    let node = serving(40).await;
    let on_failure = OnFailure { initializing: Policy::DeadLetter, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let refusing = TotalsV2 { options: Options { on_failure, retry, ..options() }, ..v2() };
    refusing.behaviour.refuse.store(true, Ordering::SeqCst);
    node.add_projection(carry_v2(refusing)).unwrap();
    ready(&node, "v2.1").await;
    doubt(&node, "ledger-7", 1).await;
    until(&node, "it sets the event aside", |status| status.projections[0].versions[1].letters == 1).await;
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    let status = until(&node, "the flip is done, or waits for a verdict", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_none_or(|(_, reasons)| matches!(&reasons[..], [WaitingOn::Verdict { .. }]))
    })
    .await;
    assert_eq!(status.projections[0].serving, Some(version("v1.1")), "its rows lack an event");
    node.projection(totals()).unwrap().waive().requested_by(asked("that event is none of ours")).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_falls_behind_after_its_verdict_keeps_it() {
    let node = serving(100).await;
    let gated = v2();
    node.add_projection(carry_v2(gated.clone())).unwrap();
    ready(&node, "v2.1").await;
    gated.behaviour.gate.send_replace(false);
    let many = i64::try_from(dacapo::limits::READY_LAG_MAX).unwrap() + 1;
    fill(&node, many).await;
    until(&node, "it catches up again", |status| status.projections[0].versions[1].stage == Some(Stage::CatchingUp))
        .await;
    gated.behaviour.gate.send_replace(true);
    ready(&node, "v2.1").await;
    let verified = |entry: &&dacapo::catalog::CatalogEntry| matches!(entry.event, CatalogEvent::Verified { .. });
    assert_eq!(node.history().await.unwrap().iter().filter(verified).count(), 2, "one for each version");
    flip(&node).await;
    node.shutdown().await;
}
