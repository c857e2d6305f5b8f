//! What a node that starts says of itself.

use super::*;

/// Whatever was shown before the start is at most where the journal ended then, and no answer is below that (I-7). So who
/// asks a version that does not get there has no answer, and whoever sends readers to the node is to know that.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_ready_while_what_serves_is_behind_where_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Node::builder().data(directory.path()).projection(carry_v1(v1())).start();
    let node = start().await.unwrap();
    ask(&node, "ledger-1", add(&node, "ledger-1", 5).await).await;
    node.version(view("v1.1")).pause().by("test").await.unwrap();
    until(&node, "it is paused", |status| status.projections[0].versions[0].waiting_on.contains(&WaitingOn::Paused))
        .await;
    let last = add(&node, "ledger-1", 6).await;
    assert_eq!(node.not_ready(), [], "it answers as of where it was paused");
    node.shutdown().await;

    let node = start().await.unwrap();
    until(&node, "it says why nobody is answered", |_| {
        let reasons: Vec<_> = node.not_ready().into_iter().map(|found| found.reason).collect();
        let is_short = reasons.iter().any(|reason| matches!(reason, WaitingOn::Segment { lag, .. } if *lag > 0));
        is_short && reasons.contains(&WaitingOn::Paused)
    })
    .await;
    let asked = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(20)).await;
    assert!(matches!(asked, Err(Error::TimedOut { .. })), "{asked:?}");
    node.version(view("v1.1")).resume().by("test").await.unwrap();
    until(&node, "it is ready", |_| node.not_ready().is_empty()).await;
    assert_eq!(ask(&node, "ledger-1", last).await, (11, 2));
    node.shutdown().await;
}
