//! The reasons why an event was not applied.

use dacapo_model::Segment;

use crate::view::ViewError;

/// An event that was not applied. The events before it were applied.
pub(crate) struct Failure {
    pub(crate) segment: Segment,
    /// Its place in the batch, counted from 0.
    pub(crate) index: usize,
    /// True if the handler changed rows before it failed.
    pub(crate) changed: bool,
    pub(crate) cause: FailureCause,
}

pub(crate) enum FailureCause {
    /// The handler refused the event, panicked or did not return in time.
    Handler(String),
    /// The event must be set aside, but too many are set aside already.
    NoRoom(String),
    /// The view could not be read or written, which is not the handler's fault.
    Store(ViewError),
}
