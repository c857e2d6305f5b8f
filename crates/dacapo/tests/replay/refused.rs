//! Replays that are refused.

use dacapo::catalog::RequestedBy;
use dacapo::operate::ReplayFrom;
use dacapo::options::InPlace;
use dacapo::{Error, Node, Position};

use super::setup::*;
use crate::common::*;

fn entries_name() -> dacapo::ProjectionName {
    dacapo::ProjectionName::new("entries").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_does_not_let_it_is_told_what_to_do_instead() {
    let node = Node::builder().projection(carry_v1(v1())).start().await.unwrap();
    serving(&node).await;
    let refused = ask_replay(&node, ReplayFrom::Start).await.unwrap_err();
    assert!(matches!(refused, Error::NotInPlace { .. }) && refused.to_string().contains("`rebuild`"), "{refused}");
    node.shutdown().await;

    let node = Node::builder().projection(sums::<1>()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 9).await;
    let refused = ask_replay(&node, ReplayFrom::Position(Position::new(5))).await.unwrap_err().to_string();
    assert!(refused.contains("only be reset as a whole"), "{refused}");
    let other = dacapo::ProjectionName::new("others").unwrap();
    let unknown = node.projection(&other).unwrap().replay(ReplayFrom::Start).by("test").await.unwrap_err();
    assert!(matches!(unknown, Error::NoSuchProjection { .. }), "{unknown}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_replay_is_refused_with_how_far_the_first_one_is() {
    let entries = entries(InPlace::KeepsRows);
    let node = Node::builder().projection(entries.clone()).start().await.unwrap();
    serving(&node).await;
    let last = fill(&node, 30).await;
    node.read("entries", last).await.unwrap();
    entries.watched.shut();
    let asked = RequestedBy { idempotency_key: Some("k-1".into()), ..RequestedBy::by("ann") };
    let name = entries_name();
    let first = node.projection(&name).unwrap().replay(ReplayFrom::Start).requested_by(asked.clone()).await.unwrap();
    let again = node.projection(&name).unwrap().replay(ReplayFrom::Start).requested_by(asked.clone()).await.unwrap();
    assert_eq!(first, again, "the same key answers the same");
    let error = ask_replay(&node, ReplayFrom::Position(Position::new(3))).await.unwrap_err();
    let Error::ReplayUnderWay { requested, after, progress, .. } = &error else { panic!("{error}") };
    let (at, through) = progress.unwrap();
    assert_eq!((Some(*requested), *after, at), (first.position, Position::START, Position::START));
    assert!((last..=*requested).contains(&through), "where it was when it saw the request");
    assert!(error.to_string().contains(&format!("is at position 0 of {through}")), "{error}");
    entries.watched.open();
    let report = first.done().within(WAIT_MAX).await.unwrap();
    assert_eq!(
        node.projection(&name).unwrap().replay(ReplayFrom::Start).requested_by(asked).await.unwrap(),
        first,
        "also once it has ended"
    );
    assert_eq!(first.done().within(WAIT_MAX).await.unwrap(), report);
    replay(&node, ReplayFrom::Start).await;
    assert_eq!(ends(&node).await, ["asked", "ended", "asked", "ended"]);
    node.shutdown().await;
}
