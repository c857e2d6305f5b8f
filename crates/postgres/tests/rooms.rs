//! Rows that events of one segment write only, in a database.

use dacapo_postgres::Options;
use dacapo_postgres::testbed::Server;

#[path = "../../dacapo/tests/common/rooms.rs"]
mod rooms;

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end() {
    let server = Server::shared();
    rooms::same_wherever_batches_end(6..8, 90, async || {
        let url = server.database().await;
        async move || dacapo_postgres::connect(&url, Options::default()).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_refuses_what_its_source_refuses() {
    let server = Server::shared();
    let store = dacapo_postgres::connect(&server.database().await, Options::default()).await.unwrap();
    rooms::a_copy_refuses_what_its_source_refuses(store).await;
}
