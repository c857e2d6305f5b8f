//! An event as a handler gets it.

use std::ops::Deref;

use dacapo_store::EventRef;

/// An event as a handler gets it: decoded, with its place in the journal and in its stream.
#[derive(Debug)]
pub struct Recorded<'a, E> {
    /// The event.
    pub data: E,
    pub(super) place: EventRef<'a>,
    pub(super) replay: bool,
}

impl<'a, E> Recorded<'a, E> {
    /// The event `data` that was read as `place`.
    pub fn new(data: E, place: EventRef<'a>) -> Self {
        Self { data, place, replay: false }
    }

    /// The same event as one of the past.
    #[must_use]
    pub fn replayed(self) -> Self {
        Self { replay: true, ..self }
    }

    /// Whether it is of the past for this version: it was in the journal when the version began to be built, or it went
    /// through the version before and does so again in a replay in place. Decided for each event alone; what makes
    /// rows should not ask, and what acts elsewhere must.
    pub fn is_replay(&self) -> bool {
        self.replay
    }
}

impl<'a, E> Deref for Recorded<'a, E> {
    type Target = EventRef<'a>;

    fn deref(&self) -> &EventRef<'a> {
        &self.place
    }
}
