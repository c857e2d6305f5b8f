//! Handlers that refuse events, panic, wait for ever or compute for ever, and what an operator does about it.

#[path = "failures/busy.rs"]
mod busy;
mod common;
#[path = "failures/halts.rs"]
mod halts;
#[path = "failures/letters.rs"]
mod letters;
#[path = "failures/pause.rs"]
mod pause;
#[path = "failures/rows.rs"]
mod rows;
#[path = "failures/store.rs"]
mod store;
#[path = "failures/told.rs"]
mod told;
#[path = "failures/versions.rs"]
mod versions;
