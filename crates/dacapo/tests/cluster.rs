//! Several nodes that share a store: who has which segment, and what happens when they come, go and lose their leases.

#[path = "cluster/clean_up.rs"]
mod clean_up;
#[path = "cluster/clocks.rs"]
mod clocks;
mod common;
#[path = "cluster/effects.rs"]
mod effects;
#[path = "cluster/flips.rs"]
mod flips;
#[path = "cluster/halts.rs"]
mod halts;
#[path = "common/marks.rs"]
mod marks;
#[path = "cluster/reads.rs"]
mod reads;
#[path = "cluster/setup.rs"]
mod setup;
#[path = "cluster/shares.rs"]
mod shares;
