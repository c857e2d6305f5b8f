//! The views: the contract, and what only a database that several nodes share can show.

#[path = "views/fences.rs"]
mod fences;
#[path = "views/lost.rs"]
mod lost;
#[path = "../../dacapo/tests/common/seats.rs"]
mod seats;
#[path = "views/setup.rs"]
mod setup;
#[path = "views/shared.rs"]
mod shared;
#[path = "views/sql.rs"]
mod sql;

use dacapo_postgres::Options;
use dacapo_postgres::testbed::Server;

mod contract {
    dacapo_store::views_contract!(crate::setup::World::new().await.views_alone().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end() {
    let server = Server::shared();
    seats::same_wherever_batches_end(6..8, async || {
        dacapo_postgres::connect(&server.database().await, Options::default()).await.unwrap()
    })
    .await;
}
