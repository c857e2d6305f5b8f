//! Copies that do not come about at once: migrations in Rust that fail, wait or are given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::options::{Retry, Seed};
use dacapo::status::WaitingOn;
use dacapo::{Node, Options, Position, Projection};
use tokio::sync::watch;

use super::odd::Migrating;
use super::setup::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_come_about_says_why_and_is_tried_again() {
    let node = serving(memory()).await;
    let ready = Arc::new(AtomicBool::new(false));
    let migrating =
        Migrating { options: copying(Seed::Migrate).options, ready: Arc::clone(&ready), ..Migrating::default() };
    node.add_projection(migrating.answering::<TotalOf>()).unwrap();
    let waits = |status: &dacapo::status::Status, why: &str| {
        let mut waiting = status.projections[0].versions.iter().flat_map(|found| &found.waiting_on);
        waiting.any(|reason| matches!(reason, WaitingOn::Seed { error, .. } if error.contains(why)))
    };
    until(&node, "it says why", |status| waits(status, "it panicked: not yet")).await;
    assert_eq!(found(&node, "v4.1").await.covers, Position::START, "nothing of it is kept");
    ready.store(true, Ordering::SeqCst);
    check_copied(&node, "v4.1").await;
    node.shutdown().await;

    let node = serving(memory()).await;
    node.add_projection(carry_v2(copying(Seed::Sql(vec!["INSERT INTO totals SELECT * FROM {source}.gone".into()]))))
        .unwrap();
    until(&node, "it says what is wrong", |status| waits(status, "no such table: source.gone")).await;
    node.shutdown().await;
}

/// What the version waits on.
async fn waits(node: &Node, text: &str, what: &str, wanted: impl Fn(&[WaitingOn]) -> bool) {
    until(node, what, |status| {
        let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.any(|found| found.version == version(text) && wanted(&found.waiting_on))
    })
    .await;
}

/// Code that begins as a copy, and after a failure tries again only when it is told to.
fn migrating(ready: bool) -> Migrating {
    let never = Duration::from_secs(1_000_000);
    let retry = Retry { attempts: 10, first: never, longest: never };
    let options = Options { retry, ..copying(Seed::Migrate).options };
    Migrating { options, ready: Arc::new(AtomicBool::new(ready)), ..Migrating::default() }
}

fn tried(times: u32) -> impl Fn(&[WaitingOn]) -> bool {
    move |waiting_on| {
        let mut seeds = waiting_on.iter();
        seeds.any(|reason| matches!(reason, WaitingOn::Seed { attempts, .. } if *attempts == times))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_did_not_come_about_is_tried_at_once_when_the_version_is_resumed() {
    let node = serving(memory()).await;
    let migrating = migrating(false);
    let ready = Arc::clone(&migrating.ready);
    node.add_projection(migrating.answering::<TotalOf>()).unwrap();
    waits(&node, "v4.1", "it fails", tried(1)).await;
    node.version(view("v4.1")).resume().by("test").await.unwrap();
    waits(&node, "v4.1", "it is tried at once", tried(2)).await;
    node.version(view("v4.1")).pause().by("test").await.unwrap();
    ready.store(true, Ordering::SeqCst);
    assert_eq!(found(&node, "v4.1").await.covers, Position::START);
    node.version(view("v4.1")).resume().by("test").await.unwrap();
    check_copied(&node, "v4.1").await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_way_is_given_up_for_a_pause_and_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let node = serving(store).await;
        let gate = watch::Sender::new(false);
        let migrating = Migrating { gate: Some(gate.clone()), ..migrating(true) };
        node.add_projection(migrating.answering::<TotalOf>()).unwrap();
        let copies = |waiting_on: &[WaitingOn]| waiting_on == [WaitingOn::Copy { of: version("v1.1") }];
        waits(&node, "v4.1", "it copies", copies).await;
        node.version(view("v4.1")).pause().by("test").await.unwrap();
        waits(&node, "v4.1", "it is paused", |waiting_on| waiting_on == [WaitingOn::Paused]).await;
        node.version(view("v4.1")).resume().by("test").await.unwrap();
        waits(&node, "v4.1", "it copies again", copies).await;
        gate.send_replace(true);
        check_copied(&node, "v4.1").await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_uses_sql_gets_the_indexes_first() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let node = serving(store).await;
        node.add_projection(Migrating { by_sql: true, ..migrating(true) }.answering::<TotalOf>()).unwrap();
        check_copied(&node, "v4.1").await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_fails_when_what_it_is_to_copy_goes_away() {
    let node = serving(memory()).await;
    let rebuilt = node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready(&node, &rebuilt.view().version.to_string()).await;
    flip(&node).await;
    node.add_projection(migrating(false).answering::<TotalOf>()).unwrap();
    waits(&node, "v4.1", "it fails to copy what serves", tried(1)).await;
    assert_eq!(node.catalog().borrow().version(&view("v4.1")).unwrap().seed, Some(version("v1.2")));
    roll_back(&node).await;
    node.version(view("v1.2")).clean_up().by("test").await.unwrap();
    phase(&node, "v4.1", Phase::Failed).await;
    let reason = found(&node, "v4.1").await.reason.unwrap();
    assert!(reason.contains("cannot begin as a copy of v1.2: its view is gone. Rebuild the projection"), "{reason}");
    node.shutdown().await;
}
