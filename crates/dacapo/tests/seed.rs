//! Versions that begin as a copy of the one that serves: filled in SQL or in Rust, refused where that cannot be right,
//! killed in the middle. // I-3, I-4, I-11

mod common;
#[path = "seed/copies.rs"]
mod copies;
#[path = "seed/kill.rs"]
mod kill;
#[path = "seed/migrate.rs"]
mod migrate;
#[path = "seed/odd.rs"]
mod odd;
#[path = "seed/refused.rs"]
mod refused;
#[path = "seed/setup.rs"]
mod setup;
#[path = "common/sums.rs"]
mod sums;
