//! Views in SQLite, as the embedded store keeps them in files and the memory store in memory.
//!
//! This module owns the schema of a view, the SQL of rows and tokens, and the one statement that moves a token. It
//! never decides where a view is kept: that is a [`Home`](view::Home), one kind for each store. In a file, pages have
//! checksums ([`pages`]), which SQLite reads and writes through a VFS of this crate.
//!
//! Rows are columns of STRICT tables that anyone can read with SQL. Times are RFC 3339 text in UTC with six digits of a
//! second, so that they sort. UUIDs are hyphenated text; booleans are 0 and 1; JSON is text.

mod begun;
mod db;
pub(crate) mod fault;
mod frames;
mod history;
mod letters;
pub(crate) mod moved;
mod outbox;
mod owned;
pub(crate) mod pages;
mod place;
mod reader;
mod rows;
mod schema;
pub(crate) mod scrub;
mod tokens;
mod value;
pub(crate) mod vfs;
pub(crate) mod view;
mod watch;
mod writer;

pub(crate) use db::{Db, escaped};
pub(crate) use place::Place;
#[cfg(test)]
pub(crate) use vfs::steps;
