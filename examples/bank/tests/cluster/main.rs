//! A cluster of real processes on a real PostgreSQL server, under clients that keep books: killed, stopped, started
//! again, and cut off from the database. Afterwards everything is held against a plain fold of the journal.
//!
//! `CHAOS=long` runs the long forms, as `cargo xtask chaos` does.

mod books;
mod database;
mod flips;
mod nodes;
mod outside;
mod world;

/// Whether to run what takes too long for every change.
fn is_long() -> bool {
    std::env::var_os("CHAOS").is_some_and(|word| word == "long")
}
