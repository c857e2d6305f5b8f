//! Replays in place: past events through the live version again. // I-3, I-7

mod common;
#[path = "replay/kill.rs"]
mod kill;
#[path = "replay/refused.rs"]
mod refused;
#[path = "replay/reset.rs"]
mod reset;
#[path = "replay/rows.rs"]
mod rows;
#[path = "replay/setup.rs"]
mod setup;
