//! The views: the contract, and what only a database that several nodes share can show.

use std::sync::Arc;

use dacapo_postgres::testbed::Server;
use dacapo_postgres::{Database, Options, PostgresViews};

mod contract {
    dacapo_store::views_contract!(super::views().await);
}

/// The views of a new database, and what keeps it.
async fn views() -> (PostgresViews, Arc<Server>) {
    let server = Server::shared();
    let url = server.database().await;
    (node(&url).await, server)
}

/// The views as a node has them.
async fn node(url: &str) -> PostgresViews {
    let database = Database::connect(url, Options::default()).await.expect("the database can be used");
    PostgresViews::new(Arc::new(database))
}
