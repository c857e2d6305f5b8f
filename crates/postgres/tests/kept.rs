//! What a handler finds in a row is what PostgreSQL keeps of it, wherever batches end and whatever is in memory.

#[path = "../../dacapo/tests/common/kept.rs"]
mod kept;
#[path = "../../dacapo/tests/common/seats.rs"]
mod seats;

use dacapo_postgres::Options;
use dacapo_postgres::testbed::Server;

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_in_the_database() {
    let server = Server::shared();
    let mut databases = vec![];
    kept::same_wherever_batches_end(8..9, true, async |number| {
        while databases.len() <= number {
            databases.push(server.database().await);
        }
        dacapo_postgres::connect(&databases[number], Options::default()).await.unwrap()
    })
    .await;
}
