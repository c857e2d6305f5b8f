//! Scripts through the real binary.

mod common;
#[path = "scripts/directory.rs"]
mod directory;
#[path = "scripts/follow.rs"]
mod follow;
#[path = "scripts/foreign.rs"]
mod foreign;
#[path = "scripts/golden.rs"]
mod golden;
#[path = "scripts/serve.rs"]
mod serve;
#[path = "scripts/setup.rs"]
mod setup;
#[path = "scripts/usage.rs"]
mod usage;
