//! Rebuilds and flips in one process: under traffic, back and forth, held up, superseded, cleaned up.

#[path = "rebuild/batches.rs"]
mod batches;
#[path = "rebuild/clocks.rs"]
mod clocks;
mod common;
#[path = "rebuild/flips.rs"]
mod flips;
#[path = "common/marks.rs"]
mod marks;
#[path = "rebuild/setup.rs"]
mod setup;
#[path = "rebuild/versions.rs"]
mod versions;
