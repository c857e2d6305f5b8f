//! What a node does when the store fails, loses its answers or is not what it was.

#[path = "faults/again.rs"]
mod again;
#[path = "faults/bounds.rs"]
mod bounds;
#[path = "faults/cancel.rs"]
mod cancel;
mod common;
#[path = "faults/damage.rs"]
mod damage;
#[path = "faults/flips.rs"]
mod flips;
#[path = "faults/history.rs"]
mod history;
#[path = "faults/look.rs"]
mod look;
#[path = "common/lost_view.rs"]
mod lost_view;
#[path = "faults/setup.rs"]
mod setup;
#[path = "faults/status.rs"]
mod status;
#[path = "faults/views.rs"]
mod views;
