//! Views that somebody drops, or moves beyond the journal, while nodes run, on whatever store.

use std::time::Duration;

use dacapo::catalog::{RequestedBy, Stage};
use dacapo::status::{Status, VersionStatus, WaitingOn};
use dacapo::{Error, Node, Position};

use crate::common::*;

fn of<'a>(status: &'a Status, text: &str) -> Option<&'a VersionStatus> {
    let versions = status.projections.iter().flat_map(|projection| &projection.versions);
    versions.into_iter().find(|found| found.version == version(text))
}

async fn fill(node: &Node, events: i64) -> Position {
    let mut last = Position::START;
    for number in 0..events {
        last = add(node, &format!("ledger-{}", number % 7), number).await;
    }
    last
}

/// The view of version 1, which serves on all nodes, is dropped. It is made again, and a rebuild is not held up for ever.
pub async fn is_made_again(nodes: &[Node], version_1: &TotalsV1, drop: impl AsyncFnOnce()) {
    let last = fill(&nodes[0], 30).await;
    for node in nodes {
        ask(node, "ledger-1", last).await;
    }
    version_1.behaviour.gate.send_replace(false);
    drop().await;
    for node in nodes {
        until(node, "it is made again", |status| {
            of(status, "v1.1").is_some_and(|found| !found.tokens.is_empty() && found.covers == Position::START)
        })
        .await;
        // Without naming a position.
        let asked = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(50)).await;
        assert!(matches!(asked, Err(Error::TimedOut { .. })), "I-7: {asked:?}");
        node.add_projection(carry_v2(v2())).unwrap();
    }
    if let [node] = nodes {
        assert_ne!(node.not_ready(), [], "nobody is answered");
    }
    // The verification waits for the version that serves.
    until(&nodes[0], "it is verified", |status| {
        of(status, "v2.1").is_some_and(|found| found.stage == Some(Stage::Verifying))
    })
    .await;
    let by = RequestedBy { reason: Some("why not?".to_owned()), ..RequestedBy::by("test") };
    let refused = nodes[0].version(view("v2.1")).waive().requested_by(by).await.unwrap_err().to_string();
    assert!(refused.contains("it waits on") && !refused.contains("caught up"), "{refused}");
    version_1.behaviour.gate.send_replace(true);
    ask(&nodes[0], "ledger-1", last).await;
    ready_and_flip(&nodes[0], "v2.1").await;
    assert!(nodes[0].catalog().borrow().projections[&totals()].evidence >= last, "I-6");
    for node in nodes {
        check_serving(node).await;
        until(node, "it is ready", |_| node.not_ready().is_empty()).await;
    }
}

/// The tokens of version 1, which serves on all nodes, are moved beyond the end of the journal. It has parted, and stays
/// so once the journal has grown.
pub async fn has_parted(nodes: &[Node], beyond: impl AsyncFnOnce()) {
    let last = fill(&nodes[0], 30).await;
    for node in nodes {
        ask(node, "ledger-1", last).await;
    }
    beyond().await;
    let parted = |reason: &WaitingOn| matches!(reason, WaitingOn::Parted { .. });
    let is_told = async || {
        for node in nodes {
            until(node, "it is told", |status| {
                of(status, "v1.1").is_some_and(|found| found.waiting_on.iter().any(parted))
            })
            .await;
            let not_ready = node.not_ready();
            assert!(not_ready.iter().any(|found| parted(&found.reason)), "{not_ready:?}");
            let asked = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(50)).await;
            assert!(matches!(asked, Err(Error::TimedOut { .. })), "{asked:?}");
        }
    };
    is_told().await;
    fill(&nodes[0], 80).await;
    is_told().await;
    nodes[0].projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready_and_flip(&nodes[0], "v1.2").await;
    for node in nodes {
        check_serving(node).await;
        until(node, "it is ready", |_| node.not_ready().is_empty()).await;
    }
}
