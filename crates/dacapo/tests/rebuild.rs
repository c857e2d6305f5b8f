//! Rebuilds and flips in one process: under traffic, back and forth, held up, superseded, cleaned up.

#[path = "rebuild/batches.rs"]
mod batches;
mod common;
#[path = "rebuild/flips.rs"]
mod flips;
#[path = "rebuild/setup.rs"]
mod setup;
#[path = "rebuild/versions.rs"]
mod versions;
