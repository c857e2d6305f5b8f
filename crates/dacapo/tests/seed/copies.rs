//! Copies, and what a verification says of them.

use std::sync::atomic::Ordering;

use dacapo::catalog::{Phase, RequestedBy};
use dacapo::operate::ReplayFrom;
use dacapo::options::{FlipPolicy, InPlace, Seed};
use dacapo::verify::{FindingKind, Outcome, Part, Verdict, Verify};
use dacapo::{Node, Options};

use super::setup::*;
use crate::common::*;
use crate::sums::{EVENTS, fill, fold_of, right};

#[tokio::test(flavor = "multi_thread")]
async fn a_version_begins_as_a_copy_and_reads_only_what_came_after() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(&directory.path().join("%41 ?mode=rw#"))] {
        let node = serving(store).await;
        let version_2 = copying(by_sql());
        node.add_projection(carry_v2(version_2.clone())).unwrap();
        check_copied(&node, "v2.1").await;
        assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 0, "nothing came after");
        add(&node, "ledger-0", 5).await;
        check_copied(&node, "v2.1").await;
        assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 1);
        // The way back is open as after any flip (I-8).
        roll_back(&node).await;
        check_serving(&node).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_says_that_what_was_copied_is_not_counted() {
    let node = serving(memory()).await;
    node.add_projection(carry_v2(copying(by_sql()))).unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    let verified = node.version(view("v2.1")).verification().unwrap().verified.unwrap();
    let counts = verified.report.parts.iter().find(|found| found.part == Part::Counts).unwrap();
    let after = found(&node, "v2.1").await.tokens[0].applied.after;
    assert_eq!(counts.notes, [format!("events through {after} are not counted, since it began as a copy")]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_copied_column_by_column() {
    let node = Node::builder().start().await.unwrap();
    fill(&node).await;
    let verify = Verify::default().without(Part::Fold);
    let copying = Options { seed: Seed::Columns, flip: FlipPolicy::WhenReady, verify, ..options() };
    let version_1 = TotalsV1 { options: copying, ..v1() };
    node.add_projection(carry_v1(version_1.clone())).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let applied = version_1.behaviour.applied.load(Ordering::SeqCst);
    assert_eq!(applied, EVENTS, "the first version has nothing to copy");
    let requested = node.projection(totals()).unwrap().rebuild().from_copy().by("test").await.unwrap();
    assert_eq!(requested.view().version, version("v1.2"));
    phase(&node, "v1.2", Phase::Serving).await;
    check_serving(&node).await;
    assert_eq!(version_1.behaviour.applied.load(Ordering::SeqCst), applied, "nothing was read again");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_new_column_stays_empty_is_found_wrong() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let (node, verified, part) = fold_of(store, Seed::Columns, false, 1_000).await;
        assert_eq!((verified.verdict, &part.outcome), (Verdict::Fail, &Outcome::Failed), "{verified:?}");
        assert_eq!((&part.wrong[..], part.looked_at), (&[(FindingKind::Differs, 7)][..], 7));
        let found = &part.findings[0];
        assert_eq!((&*found.place, found.key.as_deref()), ("totals", Some("ledger-0")));
        assert_eq!((found.old.as_deref(), found.new.as_deref()), (Some("first 1"), Some("first none")));
        // Readers move to it once somebody answers for it.
        let refused = node.version(view("v2.1")).flip().by("test").await;
        let flipped = refused.is_ok() && node.catalog().borrow().serving(&totals()) == Some(version("v2.1"));
        assert!(!flipped, "I-6");
        node.version(view("v2.1"))
            .waive()
            .requested_by(RequestedBy { reason: Some("known".into()), ..RequestedBy::by("test") })
            .await
            .unwrap();
        phase(&node, "v2.1", Phase::Serving).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_copy_is_compared_with_a_fold_of_the_past_and_passes() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let (node, verified, part) = fold_of(store, right(), true, 1_000).await;
        assert_eq!((verified.verdict, &part.outcome), (Verdict::Pass, &Outcome::Passed), "{verified:?}");
        assert_eq!(part.looked_at, 8, "seven ledgers, and all of them");
        assert_eq!(part.notes, ["compared with 30 events from the start"]);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_events_than_are_folded_some_streams_are() {
    for (events_max, sample) in [(20, "18 events of 4 streams"), (9, "9 events of 2 streams")] {
        let note = format!("a sample of {sample} was folded");
        for (seed, verdict) in [(Seed::Columns, Verdict::Fail), (right(), Verdict::Pass)] {
            let (node, verified, part) = fold_of(memory(), seed, false, events_max).await;
            assert_eq!(verified.verdict, verdict, "{verified:?}");
            assert!((1..7).contains(&part.looked_at), "{part:?}");
            assert!(part.notes.iter().any(|told| told.contains(&note)), "{part:?}");
            node.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_streams_beyond_the_sample_change_is_not_found_wrong() {
    let (node, verified, part) = fold_of(memory(), right(), true, 9).await;
    assert_eq!((verified.verdict, part.looked_at), (Verdict::Pass, 2), "{verified:?}");
    let told = "; 1 row that other streams may have changed were not compared";
    assert!(part.notes.iter().any(|note| note.ends_with(told)), "{part:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_began_as_a_copy_reads_the_past_when_it_is_replayed() {
    let node = serving(memory()).await;
    let mut version_2 = copying(by_sql());
    version_2.options.in_place = InPlace::Resets;
    node.add_projection(carry_v2(version_2.clone())).unwrap();
    check_copied(&node, "v2.1").await;
    assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 0);
    let requested = node.projection(totals()).unwrap().replay(ReplayFrom::Start).by("test").await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), EVENTS);
    check_serving(&node).await;
    node.shutdown().await;
}
