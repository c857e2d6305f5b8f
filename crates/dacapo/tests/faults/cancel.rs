//! What is cancelled comes before what it cancels, or is told that it is too late, also while the store fails.

use dacapo::catalog::{CatalogRefused, Phase};
use dacapo::operate::{Cancel, ReplayFrom};
use dacapo::options::InPlace;
use dacapo::status::WaitingOn;
use dacapo::{Error, HandlerError, Node, Options, Projection, ProjectionName, Recorded, Row, Table, View};
use dacapo_testkit::Faults;

use super::setup::*;
use crate::common::*;

/// One row an event, put whole: applying it again makes the same row.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "entries")]
struct Entry {
    #[row(key)]
    position: i64,
    ledger: String,
}

struct Entries;

impl Projection for Entries {
    const NAME: &'static str = "entries";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Entry::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { in_place: InPlace::KeepsRows, ..Options::default() }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let position = i64::try_from(event.position.get())?;
        Ok(view.put(Entry { position, ledger: event.stream.to_owned() })?)
    }
}

fn is_too_late(answer: Result<dacapo::operate::Cancelled, Error>) -> bool {
    matches!(answer, Err(Error::Catalog(CatalogRefused::TooLate { .. })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_has_ended_is_done_and_not_cancelled_although_its_end_is_not_told_yet() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).version(Entries).start().await;
    let entries: ProjectionName = "entries".parse().unwrap();
    let last = add(&node, "ledger-1", 1).await;
    until(&node, "it serves", |status| status.projections[0].serving.is_some()).await;
    // The last batch lands, and whoever is to tell cannot.
    refuse(&faults, "replay-ended");
    let replay = node.projection(&entries).unwrap().replay(ReplayFrom::Start).by("ana").await.unwrap();
    met(&faults).await;
    for what in [None, Some(Cancel::Replay)] {
        assert!(is_too_late(node.projection(&entries).unwrap().cancel(what).by("ben").await));
    }
    faults.heal();
    let report = replay.done().within(WAIT_MAX).await.unwrap();
    assert!(report.ended > last, "it is done");
    assert!(matches!(node.projection(&entries).unwrap().cancel(None).by("ben").await, Err(Error::NoTarget(_))));
    node.shutdown().await;
}

// I-12
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_being_built_is_built_on_when_its_clean_up_is_cancelled_in_time() {
    let faults = Faults::default();
    let node = Scenario::faulty(&faults).serving(v1()).added("ledger-1", 1).ready(v2()).start().await;
    refuse(&faults, "version-dropping");
    node.projection(totals()).unwrap().cancel(Cancel::Rebuild).by("ana").await.unwrap();
    met(&faults).await;
    let cancelled = node.projection(totals()).unwrap().cancel(None).by("ben").await.unwrap();
    assert_eq!((cancelled.what, &cancelled.requested.view), (Cancel::CleanUp, &view("v2.1")));
    faults.heal();
    add(&node, "ledger-1", 2).await;
    ready_and_flip(&node, "v2.1").await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_flip_is_cancelled_before_the_version_is_ready_and_comes_on_command() {
    let node = Node::builder().start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    let first = v1();
    let gate = first.behaviour.gate.clone();
    gate.send_replace(false);
    node.add_projection(carry_v1(first)).unwrap();
    phase(&node, "v1.1", Phase::Initializing).await;
    let cancelled = node.projection(totals()).unwrap().cancel(Cancel::Flip).by("ben").await.unwrap();
    assert_eq!((cancelled.what, &cancelled.requested.view), (Cancel::Flip, &view("v1.1")));
    gate.send_replace(true);
    let status = until(&node, "it waits for a command", |status| {
        status.projections[0].versions[0].waiting_on.contains(&WaitingOn::FlipCommand)
    })
    .await;
    assert_eq!(status.projections[0].serving, None);
    flip(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}
