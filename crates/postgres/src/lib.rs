//! The PostgreSQL store: one journal, and the views over it, for a cluster of nodes on one database.
//!
//! ```text
//!   connect ─▶ Database (database.rs): servers, pool
//!                 │ settings.rs: how every connection reads, writes and waits; history.rs: whether the journal is the same
//!                 │ migrate.rs: the tables, brought to the form that this program knows
//!                 ├─▶ PostgresJournal (journal/): events, group commit, head
//!                 ├─▶ PostgresViews (views.rs, views/): a schema a version, rows, tokens
//!                 └─▶ PostgresMembers (members.rs): the nodes that are alive
//! ```
//!
//! This crate owns what is in its schema. It never decides what happens next, and no rule of the journal is made here:
//! whether an append may be written is decided in `dacapo-store`.

#![warn(clippy::unwrap_used, clippy::expect_used)]

mod chance;
mod database;
mod fault;
mod history;
mod journal;
pub mod limits;
mod members;
mod migrate;
mod options;
mod quote;
mod servers;
mod settings;
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "it is for tests, which panic where something is wrong")]
#[cfg(feature = "testbed")]
pub mod testbed;
mod tries;
mod views;

pub use database::Database;
pub use journal::PostgresJournal;
pub use members::PostgresMembers;
pub use options::Options;
pub use views::PostgresViews;

use std::sync::Arc;

use dacapo_store::{Store, StoreError};

/// Opens the store in the database at `url`, `postgres://user:password@host:5432/name`. Several hosts may be named, of
/// which the one that takes writes is used. The tables are made if they are not there. Every node of a cluster opens it
/// for itself; the times of events and leases are those of the server's clock.
///
/// # Errors
/// As [`Database::connect`].
pub async fn connect(url: &str, options: Options) -> Result<Store, StoreError> {
    let database = Arc::new(Database::connect(url, options).await?);
    Ok(Store {
        journal: Arc::new(PostgresJournal::open(&database, None).await?),
        views: Arc::new(PostgresViews::new(Arc::clone(&database))),
        members: Arc::new(PostgresMembers::new(Arc::clone(&database))),
        shared: true,
        description: database.description(),
    })
}
