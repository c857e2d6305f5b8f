//! Views whose rows somebody else changes while they serve, on whatever store.

use std::time::Duration;

use dacapo::catalog::{Phase, RequestedBy};
use dacapo::options::{FlipPolicy, Scrub};
use dacapo::status::{Status, WaitingOn};
use dacapo::verify::{Outcome, ScrubResult};
use dacapo::{Node, Options, Position};

use crate::common::*;

pub const LEDGERS: u64 = 20;

/// Options of a version at whose rows a node looks without a rest.
pub fn pace(scrub: Scrub) -> Options {
    let rest = scrub.rest.map(|_| Duration::from_millis(10));
    Options { flip: FlipPolicy::WhenReady, scrub: Scrub { rest, ..scrub }, ..options() }
}

pub async fn fill(node: &Node) -> Position {
    let mut last = Position::START;
    for number in 0..LEDGERS {
        last = add(node, &format!("ledger-{number}"), i64::try_from(number).unwrap()).await;
    }
    rows(node, last).await.unwrap();
    last
}

pub fn rows_reason(status: &Status) -> Option<&WaitingOn> {
    let versions = status.projections.iter().flat_map(|projection| &projection.versions);
    versions.flat_map(|version| &version.waiting_on).find(|reason| matches!(reason, WaitingOn::Rows { .. }))
}

/// What a look found, once it is as wanted.
pub async fn looked(node: &Node, wanted: impl Fn(&ScrubResult) -> bool) -> ScrubResult {
    let found = |status: &Status| status.projections[0].versions[0].scrubbed.clone();
    let status = until(node, "a look", |status| found(status).is_some_and(|found| wanted(&found))).await;
    found(&status).unwrap()
}

/// A row is wrong, right, wrong again, and then the version is built anew.
pub async fn is_told_and_healed(node: &Node, change: impl AsyncFn(&str)) {
    let last = fill(node).await;
    let found = looked(node, |found| found.position >= last).await;
    assert_eq!((found.report.outcome, found.report.looked_at), (Outcome::Passed, LEDGERS));
    for again in [false, true] {
        change("UPDATE totals SET sum = 77 WHERE ledger = 'ledger-3'").await;
        let status = until(node, "it is told", |status| rows_reason(status).is_some()).await;
        let told = rows_reason(&status).unwrap();
        let WaitingOn::Rows { position, .. } = *told else { panic!("{told}") };
        let expected = WaitingOn::Rows {
            position: position.max(last),
            looked_at: LEDGERS,
            wrong: 1,
            table: "totals".to_owned(),
            key: "ledger-3".to_owned(),
            made: "sum 3".to_owned(),
            found: "sum 77".to_owned(),
        };
        assert_eq!(*told, expected);
        assert_eq!((node.not_ready(), ask(node, "ledger-3", last).await.0), (vec![], 77), "it goes on as it is");
        if !again {
            change("UPDATE totals SET sum = 3 WHERE ledger = 'ledger-3'").await;
            until(node, "it is right", |status| rows_reason(status).is_none()).await;
        }
    }
    node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    phase_of_verdict(node).await;
    until(node, "what was built anew is right", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v1.2"));
        let scrubbed = found.and_then(|found| found.scrubbed.as_ref());
        rows_reason(status).is_none() && scrubbed.is_some_and(|found| found.report.outcome == Outcome::Passed)
    })
    .await;
    check_serving(node).await;
}

/// The new version differs from the old one in that row, which somebody answers for.
async fn phase_of_verdict(node: &Node) {
    until(node, "a verdict", |status| {
        status.projections[0].versions.iter().any(|found| {
            found.version == version("v1.2")
                && found.waiting_on.iter().any(|it| matches!(it, WaitingOn::Verdict { .. }))
        })
    })
    .await;
    let why = RequestedBy { reason: Some("the old rows are wrong".to_owned()), ..RequestedBy::by("test") };
    node.version(view("v1.2")).waive().requested_by(why).await.unwrap();
    phase(node, "v1.2", Phase::Serving).await;
}
