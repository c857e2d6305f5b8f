//! A version that begins as a copy, and what tests look at of it.

use std::path::Path;
use std::sync::Arc;

use dacapo::catalog::Phase;
use dacapo::options::{FlipPolicy, Seed};
use dacapo::status::VersionStatus;
use dacapo::store::Store;
use dacapo::verify::{Part, Verify};
use dacapo::world::SystemClock;
use dacapo::{Node, Options};
use dacapo_model::Applied;

use crate::common::*;
use crate::sums::{EVENTS, fill};

/// Version 2 of the totals, which may begin as a copy.
pub(super) fn copying(seed: Seed) -> TotalsV2 {
    // No copy of version 1 can know the last event of each ledger.
    let (flip, verify) = (FlipPolicy::WhenReady, Verify::default().without(Part::Fold));
    TotalsV2 { options: Options { seed, seed_new_code: true, flip, verify, ..options() }, ..v2() }
}

pub(super) fn by_sql() -> Seed {
    Seed::Sql(vec![
        "INSERT INTO totals SELECT ledger, sum, 0, 0 FROM {source}.totals".into(),
        "UPDATE totals SET events = (SELECT events FROM {source}.totals AS old WHERE old.ledger = totals.ledger)"
            .into(),
    ])
}

/// A node on which version 1 serves some events.
pub(super) async fn serving(store: Store) -> Node {
    let node = Node::builder().store(store).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node).await;
    // A copy of a version that lags would be a copy of less.
    until(&node, "it follows", |status| status.projections[0].versions[0].covers == status.head).await;
    node
}

pub(super) fn memory() -> Store {
    Store::memory(Arc::new(SystemClock))
}

pub(super) fn embedded(directory: &Path) -> Store {
    Store::embedded(directory, Arc::new(SystemClock)).unwrap()
}

pub(super) async fn found(node: &Node, text: &str) -> VersionStatus {
    let status = node.status().await.unwrap();
    let versions = status.projections.into_iter().flat_map(|projection| projection.versions);
    versions.into_iter().find(|found| found.version == version(text)).unwrap()
}

/// It serves, its rows are the fold of the journal, it has its index, and it counts from where it began.
pub(super) async fn check_copied(node: &Node, text: &str) {
    phase(node, text, Phase::Serving).await;
    check_serving(node).await;
    let mut reading = node.read("totals", node.head()).await.unwrap();
    let sql = "SELECT count(*) FROM totals INDEXED BY \"totals.last\" WHERE last >= 0";
    reading.view.query(sql, &[]).await.expect("the index is there");
    let tokens = found(node, text).await.tokens;
    let began = |counted: Applied| counted.after.get() >= EVENTS;
    assert!(tokens.iter().all(|token| began(token.applied)), "it counts what came after: {tokens:?}");
}
