//! Copies that cannot be right.

use std::sync::atomic::Ordering;

use dacapo::catalog::Phase;
use dacapo::options::{OnFailure, Policy, Retry, Seed, SegmentCount};
use dacapo::{Error, ExpectedRevision, Node, Options, VersionCode};
use dacapo_store::WhichLetters;

use super::odd::Odd;
use super::setup::*;
use crate::common::*;
use crate::sums::fill;

/// Why a build of this code from a copy is refused.
async fn refused(node: &Node, code: u32, carried: VersionCode) -> String {
    node.add_projection(carried).unwrap();
    match node.projection(totals()).unwrap().rebuild().code(code).from_copy().by("test").await {
        Err(Error::NoCopy { why, .. }) => why,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_right_is_refused() {
    let store = memory();
    let node = serving(store.clone()).await;
    let with = |seed: Seed| Options { seed, seed_new_code: true, ..options() };
    let version_2 = |options: Options| carry_v2(TotalsV2 { options, ..v2() });
    let why = refused(&node, 2, version_2(options())).await;
    assert!(why.contains("does not say how"), "{why}");
    let why = refused(&node, 2, version_2(with(Seed::Columns))).await;
    assert!(why.contains("it has no column totals.last, which is not optional"), "{why}");
    let why = refused(&node, 3, VersionCode::new(Odd::<3>(with(Seed::Columns)))).await;
    assert!(why.contains("it never saw events of type audited"), "{why}");
    // What may not begin as a copy reads the past, though it would rather.
    phase(&node, "v3.1", Phase::Initializing).await;
    assert_eq!(node.catalog().borrow().version(&view("v3.1")).unwrap().seed, None);
    let nothing = node.projection(totals()).unwrap().rebuild().code(9).from_copy().by("test").await;
    assert!(matches!(nothing, Err(Error::NoSuchCode { code: 9, .. })), "{nothing:?}");

    let other = serving(memory()).await;
    let two = Options { segments: SegmentCount::new(2).unwrap(), ..with(by_sql()) };
    let why = refused(&other, 2, version_2(two)).await;
    assert!(why.contains("it has 3 segments and the new version 2"), "{why}");
    other.shutdown().await;

    let only = Options { categories: Some(vec!["ledger".into()]), ..options() };
    let why = {
        let node = Node::builder().projection(carry_v1(TotalsV1 { options: only, ..v1() })).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        let why = refused(&node, 2, version_2(with(by_sql()))).await;
        node.shutdown().await;
        why
    };
    assert!(why.contains("it never saw streams of every category"), "{why}");
    node.shutdown().await;

    let directory = tempfile::tempdir().unwrap();
    serving(embedded(directory.path())).await.shutdown().await;
    let node = Node::builder().data(directory.path()).start().await.unwrap();
    let why = refused(&node, 2, version_2(with(by_sql()))).await;
    assert!(why.contains("this node does not carry its code"), "{why}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_lacks_events_is_not_copied_before_somebody_gives_them_up() {
    let on_failure = OnFailure { serving: Policy::Skip, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let version_1 = TotalsV1 { options: Options { on_failure, retry, ..options() }, ..v1() };
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(carry_v1(version_1)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node).await;
    node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    until(&node, "the event is skipped", |status| status.projections[0].versions[0].letters == 1).await;
    let why = refused(&node, 2, carry_v2(copying(by_sql()))).await;
    assert!(why.contains("its rows lack an event that is set aside"), "{why}");
    // New code reads the past by itself then.
    phase(&node, "v2.1", Phase::Initializing).await;
    assert_eq!(node.catalog().borrow().version(&view("v2.1")).unwrap().seed, None);

    node.version(view("v1.1")).drop_letters(WhichLetters::All).by("test").await.unwrap();
    until(&node, "it is given up", |status| status.projections[0].versions[0].letters == 0).await;
    node.projection(totals()).unwrap().rebuild().code(2).from_copy().by("test").await.unwrap();
    phase(&node, "v2.2", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await.1, 5, "it goes without the event, as it was asked for");
    node.shutdown().await;
}
