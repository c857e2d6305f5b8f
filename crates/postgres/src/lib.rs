//! The PostgreSQL store: one journal, and the views over it, for a cluster of nodes on one database.
//!
//! ```text
//!   connect ─▶ Database (database.rs): servers, pool, limits of every connection
//!                 │ migrate.rs: the tables, brought to the form that this program knows
//!                 ├─▶ PostgresJournal (journal/): events, group commit, head
//!                 └─▶ PostgresViews (views.rs, views/): a schema a version, rows, tokens
//! ```
//!
//! This crate owns what is in its schema. It never decides what happens next, and no rule of the journal is made here:
//! whether an append may be written is decided in `dacapo-store`.

mod back_off;
mod database;
mod fault;
mod journal;
pub mod limits;
mod migrate;
mod options;
mod servers;
#[cfg(feature = "testbed")]
pub mod testbed;
mod tries;
mod views;

pub use database::Database;
pub use journal::PostgresJournal;
pub use options::Options;
pub use views::PostgresViews;
