//! The database goes away and comes back.

use std::sync::Arc;
use std::time::Duration;

use dacapo_postgres::testbed::{Durability, Server, Stop};
use tokio::time::Instant;

use crate::books::{Clients, check};
use crate::is_long;
use crate::world::{Process, World, until};

/// For how long it is away in the long form.
const LONG: Duration = Duration::from_secs(60);

// I-2, I-3
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_database_that_is_away_under_load_loses_nothing_and_nobody_is_started_again() {
    let world = World::on(Arc::new(Server::start(Durability::Full))).await;
    let mut nodes = world.start_all(&["one", "two", "three"], &["--versions", "1", "--segments", "8"]).await;
    nodes[0].shared("v1.1", &["one", "two", "three"]).await;
    let clients = Clients::start(&world, 6);
    for how in [Stop::Immediate, Stop::Fast] {
        clients.get_on(30).await;
        tokio::task::block_in_place(|| world.server.stop(how));
        clients.are_refused(3).await;
        for node in &nodes {
            // Longer than a lease; and it says so without asking what is away.
            until(&format!("{} is not ready, and says why", node.name), async || {
                let (status, text) = node.readyz().await;
                (status == 503 && text.contains("a lease, which cannot be renewed")).then_some(())
            })
            .await;
        }
        if is_long() {
            tokio::time::sleep(LONG).await;
        }
        let since = Instant::now();
        tokio::task::block_in_place(|| world.server.go_on());
        are_back(&nodes, &clients, &format!("started again after {how:?}"), since).await;
    }
    clients.get_on(30).await;
    let books = clients.stop().await;
    assert!(nodes.iter_mut().all(|node| !node.has_ended()), "nobody was started again");
    check(&world, books).await;
}

// I-1, I-2, I-3
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_primary_that_is_killed_under_load_is_followed_to_the_stand_by_that_is_promoted() {
    let (primary, standby) = tokio::task::block_in_place(Server::pair);
    let world = World::on_pair(Arc::new(primary), &standby).await;
    let mut nodes = world.start_all(&["one", "two", "three"], &["--versions", "1", "--segments", "8"]).await;
    nodes[0].shared("v1.1", &["one", "two", "three"]).await;
    let clients = Clients::start(&world, 6);
    clients.get_on(30).await;
    tokio::task::block_in_place(|| world.server.stop(Stop::Kill));
    clients.are_refused(3).await;
    if is_long() {
        tokio::time::sleep(LONG).await;
    }
    let promoted = Instant::now();
    standby.promote().await;
    are_back(&nodes, &clients, "a stand-by promoted", promoted).await;
    clients.get_on(30).await;
    let books = clients.stop().await;
    assert!(nodes.iter_mut().all(|node| !node.has_ended()), "nobody was started again");
    check(&world, books).await;
}

/// Waits until clients are answered and every node is ready and has its share, and tells how long that took.
async fn are_back(nodes: &[Process], clients: &Clients, what: &str, since: Instant) {
    clients.get_on(1).await;
    tell(&format!("{what}: answered after {:?}", since.elapsed()));
    for node in nodes {
        until(&format!("{} is ready", node.name), async || (node.readyz().await.0 == 200).then_some(())).await;
    }
    tell(&format!("{what}: all nodes ready after {:?}", since.elapsed()));
    nodes[0].shared("v1.1", &["one", "two", "three"]).await;
}

#[expect(clippy::print_stderr, reason = "whoever runs the test wants to know how long it took")]
fn tell(text: &str) {
    eprintln!("{text}");
}
