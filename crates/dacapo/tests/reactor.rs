//! Reactors: effects are made at least once, in order, and by one voice. // I-9

#[path = "reactor/again.rs"]
mod again;
#[path = "reactor/cancel.rs"]
mod cancel;
mod common;
#[path = "reactor/letters.rs"]
mod letters;
#[path = "reactor/makes.rs"]
mod makes;
#[path = "reactor/office.rs"]
mod office;
#[path = "reactor/owed.rs"]
mod owed;
#[path = "reactor/stops.rs"]
mod stops;
#[path = "reactor/unacted.rs"]
mod unacted;
#[path = "reactor/voices.rs"]
mod voices;
