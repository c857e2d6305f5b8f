//! An event as a handler gets it.

use dacapo_model::{EventId, Metadata, Position, Revision, Timestamp};
use dacapo_store::{EventRef, StoreError};

/// An event as a handler gets it: decoded, with its place in the journal and in its stream.
#[derive(Debug)]
#[non_exhaustive]
pub struct Recorded<'a, E> {
    /// The event.
    pub data: E,
    /// Its place in the journal.
    pub position: Position,
    /// Its place in its stream.
    pub revision: Revision,
    /// Its identity.
    pub id: EventId,
    /// When it was appended, by the clock of the node that did it. Never decreases along the journal.
    pub recorded: Timestamp,
    /// Its stream.
    pub stream: &'a str,
    /// Its type, as it is in the journal.
    pub event_type: &'a str,
    place: EventRef<'a>,
    replay: bool,
}

impl<'a, E> Recorded<'a, E> {
    /// The event `data` that was read as `place`.
    pub fn new(data: E, place: EventRef<'a>) -> Self {
        let EventRef { position, revision, id, recorded, stream, event_type, .. } = place;
        Self { data, position, revision, id, recorded, stream, event_type, place, replay: false }
    }

    /// The same event, of the past if `replay` says so.
    pub(super) fn of_past(self, replay: bool) -> Self {
        Self { replay, ..self }
    }

    /// The category of its stream.
    pub fn category(&self) -> &'a str {
        self.place.category()
    }

    /// Its payload, byte for byte as it was appended.
    pub fn payload(&self) -> &'a [u8] {
        self.place.payload
    }

    /// Its metadata and its tags.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when they cannot be read.
    pub fn extra(&self) -> Result<(Metadata, Vec<String>), StoreError> {
        self.place.extra()
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
