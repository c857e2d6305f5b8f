//! Requests and waits at their bounds: too long, for ever, and past the end.

use std::time::Duration;

use dacapo::catalog::{Phase, RequestedBy};
use dacapo::journal::Filter;
use dacapo::{Error, Node, Position, limits};

use super::setup::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_never_returns_holds_up_neither_a_clean_up_nor_the_shutdown() {
    let version_2 = v2();
    let node = Node::builder().projection(carry_v1(v1())).projection(Visits).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    phase(&node, "v1.1", Phase::Serving).await;
    version_2.behaviour.gate.send_replace(false);
    node.add_projection(carry_v2(version_2.clone())).unwrap();
    let in_handler = || version_2.behaviour.gate.receiver_count() > 0;
    until(&node, "the handler waits", |_| in_handler()).await;
    node.version(view("v2.1")).clean_up().by("test").await.unwrap();
    phase(&node, "v2.1", Phase::Obsolete).await;
    assert!(!in_handler(), "it was given up");
    assert_eq!(ask(&node, "ledger-1", last).await, (5, 1));

    node.projection(totals()).unwrap().rebuild().code(2).by("test").await.unwrap();
    until(&node, "the handler waits again", |_| in_handler()).await;
    tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_too_long_a_reason_is_refused() {
    let node = Scenario::new().serving(v1()).start().await;
    let asked = RequestedBy::by("test").because("x".repeat(limits::METADATA_BYTES_MAX));
    let error = node.projection(totals()).unwrap().rebuild().requested_by(asked).await.unwrap_err();
    assert!(matches!(error, Error::AskedTooLong(_)), "{error}");
    assert!(error.to_string().contains("the reason of the request"), "{error}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_its_journal() {
    for directory in [None, Some(tempfile::tempdir().unwrap())] {
        let builder = Node::builder();
        let builder = match &directory {
            Some(directory) => builder.data(directory.path()),
            None => builder,
        };
        let node = builder.start().await.unwrap();
        let mut subscription = node.subscribe(Position::START, Filter::default()).await.unwrap();
        add(&node, "ledger-1", 1).await;
        assert_eq!(subscription.next().await.unwrap().unwrap().len(), 1);
        let waiting = tokio::spawn(async move { subscription.next().await });
        node.shutdown().await;
        let ended = tokio::time::timeout(WAIT_MAX, waiting).await.expect("it ends").unwrap().unwrap();
        assert!(ended.is_none());
        let mut late = node.subscribe(Position::START, Filter::default()).await.unwrap();
        assert_eq!(late.next().await.unwrap().unwrap().len(), 1, "what is there can still be read");
        assert!(late.next().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_may_wait_for_as_long_as_can_be_said() {
    let node = Node::builder().projection(carry_v1(v1())).start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    let asked = node.ask(TotalOf("ledger-1".into())).after(last).within(Duration::MAX);
    assert_eq!(asked.await.unwrap().value, (5, 1));
    node.shutdown().await;
}
