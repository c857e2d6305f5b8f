//! Views beside a journal that they do not belong to.

use std::path::Path;
use std::time::Duration;

use dacapo::catalog::{CatalogEvent, Phase};
use dacapo::status::WaitingOn;
use dacapo::{Error, Node, Position};
use dacapo_model::Parted;

use crate::common::*;

async fn node(directory: &Path) -> Node {
    Node::builder().data(directory).projection(carry_v1(v1())).start().await.unwrap()
}

/// Appends so many events, and waits until they are applied.
async fn fill(node: &Node, events: i64, amount: i64) -> Position {
    let mut last = Position::START;
    for number in 0..events {
        last = add(node, &format!("ledger-{}", number % 3), amount).await;
    }
    ask(node, "ledger-0", last).await;
    last
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// The view is not shown, readiness and status say why, and a rebuild makes it right.
async fn is_told_and_rebuilt(node: &Node, wanted: impl Fn(&Parted) -> bool) {
    let told = |waiting_on: &[WaitingOn]| {
        let parted = waiting_on.iter().find_map(|reason| match reason {
            WaitingOn::Parted { parted } => Some(*parted),
            _ => None,
        });
        assert!(parted.as_ref().is_some_and(&wanted), "{waiting_on:?}");
    };
    told(&node.not_ready().into_iter().map(|found| found.reason).collect::<Vec<_>>());
    let status = node.status().await.unwrap();
    told(&status.projections[0].versions[0].waiting_on);
    let asked = node.ask(TotalOf("ledger-0".into())).within(std::time::Duration::from_millis(20)).await;
    let Err(Error::TimedOut { waiting_on, .. }) = asked else { panic!("{asked:?}") };
    told(&waiting_on);
    node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready_and_flip(node, "v1.2").await;
    phase(node, "v1.2", Phase::Serving).await;
    check_serving(node).await;
    assert!(node.not_ready().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_another_journal_is_not_served_and_can_be_rebuilt() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for (directory, events) in [(&one, 5), (&other, 40)] {
        let node = node(directory.path()).await;
        fill(&node, events, 1).await;
        node.shutdown().await;
    }
    copy(&one.path().join("views"), &other.path().join("views"));
    let node = node(other.path()).await;
    is_told_and_rebuilt(&node, |parted| matches!(parted, Parted::Journal { .. })).await;
    node.shutdown().await;
}

/// Somebody writes another view over one that is open: that of another journal, or an older one of the same version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_overwritten_while_it_serves_is_told_never_answered_and_not_taken_up_later() {
    for of_another_journal in [true, false] {
        let [data, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let file = |directory: &Path| directory.join("views/totals/v1.1.db");
        for (directory, amount) in [(&data, 1), (&other, 100)] {
            let node = node(directory.path()).await;
            fill(&node, 9, amount).await;
            node.shutdown().await;
        }
        let bytes = std::fs::read(file(if of_another_journal { other.path() } else { data.path() })).unwrap();
        let second = node(data.path()).await;
        fill(&second, 3, 1).await;
        second.shutdown().await;
        drop(second);
        let running = node(data.path()).await;
        fill(&running, 3, 1).await;
        std::fs::write(file(data.path()), &bytes).unwrap();
        let is_told = |reason: &WaitingOn| matches!(reason, WaitingOn::Damaged { error } if error.contains("another program wrote to it"));
        // Nobody appends or asks before it is told.
        until(&running, "it is told", |status| status.projections[0].versions[0].waiting_on.iter().any(is_told)).await;
        assert!(running.not_ready().iter().any(|found| is_told(&found.reason)), "{:?}", running.not_ready());
        let last = add(&running, "ledger-0", 1).await;
        let asked = running.ask(TotalOf("ledger-0".into())).after(last).within(Duration::from_millis(50)).await;
        let error = asked.expect_err("nobody is answered").to_string();
        assert!(error.contains("another program wrote to it"), "{error}");
        running.shutdown().await;
        drop(running);
        assert!(std::fs::read(file(data.path())).unwrap() == bytes, "not a byte was written to it");

        let node = node(data.path()).await;
        let is_told =
            |reason: &WaitingOn| matches!(reason, WaitingOn::Damaged { error } if error.contains("-wal belongs"));
        until(&node, "it is told", |status| status.projections[0].versions[0].waiting_on.iter().any(is_told)).await;
        assert!(node.not_ready().iter().any(|found| is_told(&found.reason)), "{:?}", node.not_ready());
        node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
        ready_and_flip(&node, "v1.2").await;
        phase(&node, "v1.2", Phase::Serving).await;
        assert_eq!(ask(&node, "ledger-0", node.head()).await, (6, 6));
        check_serving(&node).await;
        node.shutdown().await;
    }
}

/// The node follows again from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_view_that_is_put_in_place_while_no_node_runs_is_taken_up() {
    let [data, older] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let first = node(data.path()).await;
    fill(&first, 6, 1).await;
    first.shutdown().await;
    copy(&data.path().join("views"), older.path());
    let second = node(data.path()).await;
    fill(&second, 9, 1).await;
    second.shutdown().await;
    copy(older.path(), &data.path().join("views"));
    let node = node(data.path()).await;
    assert_eq!(ask(&node, "ledger-0", node.head()).await, (5, 5));
    assert!(node.not_ready().is_empty());
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_went_on_differently_is_told_from_what_newer_views_have_seen() {
    let [data, backup] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let at = |name: &str| data.path().join(name);
    let first = node(data.path()).await;
    let backed_up = fill(&first, 10, 1).await;
    first.shutdown().await;
    copy(data.path(), backup.path());

    let second = node(data.path()).await;
    fill(&second, 20, 1).await;
    second.shutdown().await;
    let newer = tempfile::tempdir().unwrap();
    copy(&at("views"), newer.path());

    copy(&backup.path().join("journal"), &at("journal"));
    copy(&backup.path().join("views"), &at("views"));
    let third = node(data.path()).await;
    fill(&third, 60, 2).await;
    third.shutdown().await;

    copy(newer.path(), &at("views"));
    let node = node(data.path()).await;
    let differs = backed_up.next();
    let wanted = |parted: &Parted| match parted {
        Parted::History { same_through, differs_at } => {
            *same_through > Position::START && *same_through < differs && *differs_at >= differs
        }
        Parted::Journal { .. } => false,
    };
    is_told_and_rebuilt(&node, wanted).await;
    node.shutdown().await;
}

/// Also once the journal has grown past where the view is: what got those positions is not in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_ahead_of_its_journal_has_parted_for_good_and_stops_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, backup) = (directory.path().join("journal"), directory.path().join("backup"));
    let start = || Node::builder().data(directory.path()).projection(carry_v1(v1())).start();
    let node = start().await.unwrap();
    ask(&node, "ledger-1", add(&node, "ledger-1", 5).await).await;
    copy(&journal, &backup);
    // Soon enough, the view has no mark of it.
    let ahead = add(&node, "ledger-1", 6).await;
    ask(&node, "ledger-1", ahead).await;
    node.shutdown().await;
    copy(&backup, &journal);

    let is_told = |reasons: &[WaitingOn]| reasons.iter().any(|reason| matches!(reason, WaitingOn::Parted { .. }));
    for _ in 0..3 {
        let node = start().await.unwrap();
        let not_ready: Vec<_> = node.not_ready().into_iter().map(|found| found.reason).collect();
        assert!(is_told(&not_ready), "{not_ready:?}");
        let status = node.status().await.unwrap();
        assert!(is_told(&status.projections[0].versions[0].waiting_on), "{status:?}");
        let last = add(&node, "ledger-2", 1).await;
        assert!(last > ahead, "it is past the view by now");
        let asked = node.ask(TotalOf("ledger-1".into())).within(Duration::from_millis(20)).await;
        assert!(matches!(asked, Err(Error::TimedOut { .. })), "{asked:?}");
        node.shutdown().await;
    }
    let node = start().await.unwrap();
    node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready_and_flip(&node, "v1.2").await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    assert_eq!(ask(&node, "ledger-2", node.head()).await, (3, 3));
    check_serving(&node).await;
    assert!(node.not_ready().is_empty());
    let parted = node.history().await.unwrap().into_iter().map(|entry| entry.event);
    assert_eq!(parted.filter(|event| matches!(event, CatalogEvent::Parted { .. })).count(), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_a_version_that_was_never_begun_stops_nothing_and_is_not_built_upon() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, backup) = (directory.path().join("journal"), directory.path().join("backup"));
    let node = Scenario::data(directory.path()).serving(v1()).start().await;
    node.shutdown().await;
    copy(&journal, &backup);
    // No event that version 1 would cover; version 2 is built from what is there.
    let node = Node::builder().data(directory.path()).projection(carry_v2(v2())).start().await.unwrap();
    ready(&node, "v2.1").await;
    node.shutdown().await;
    copy(&backup, &journal);

    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    assert_eq!(ask(&node, "ledger-1", add(&node, "ledger-1", 5).await).await, (5, 1));
    // Its number comes back.
    node.add_projection(carry_v2(v2())).unwrap();
    until(&node, "the view of another history is told", |status| {
        let versions = status.projections[0].versions.iter();
        let told = versions.flat_map(|version| &version.waiting_on);
        told.into_iter().any(|reason| matches!(reason, WaitingOn::Parted { .. }))
    })
    .await;
    phase(&node, "v2.1", Phase::Scheduled).await;
    node.projection(totals()).unwrap().rebuild().code(2).by("test").await.unwrap();
    ready_and_flip(&node, "v2.2").await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (5, 1));
    check_serving(&node).await;
    node.shutdown().await;
}
