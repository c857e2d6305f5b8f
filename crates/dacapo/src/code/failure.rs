//! Why an event was not applied.

use dacapo_model::Segment;

use crate::view::ViewError;

/// An event that was not applied. Those before it were.
pub(crate) struct Failure {
    pub(crate) segment: Segment,
    /// Its place in the batch, counted from 0.
    pub(crate) index: usize,
    /// Whether the handler changed rows before it failed.
    pub(crate) changed: bool,
    pub(crate) cause: FailureCause,
}

pub(crate) enum FailureCause {
    /// The handler refused the event, panicked or did not return in time.
    Handler(String),
    /// The event must be set aside and cannot be, since too many are.
    NoRoom(String),
    /// The view could not be read or written: not the handler's fault.
    Store(ViewError),
}
