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
    /// The time at which it was appended, by the clock of the node that appended it. It never decreases along the
    /// journal.
    pub recorded: Timestamp,
    /// Its stream.
    pub stream: &'a str,
    /// Its type, as the journal has it.
    pub event_type: &'a str,
    place: EventRef<'a>,
    replay: bool,
}

impl<'a, E> Recorded<'a, E> {
    /// Returns the event `data`, which was read as `place`.
    pub fn new(data: E, place: EventRef<'a>) -> Self {
        let EventRef { position, revision, id, recorded, stream, event_type, .. } = place;
        Self { data, position, revision, id, recorded, stream, event_type, place, replay: false }
    }

    /// Returns the same event, as a replay if `replay` is true.
    pub(super) fn of_past(self, replay: bool) -> Self {
        Self { replay, ..self }
    }

    /// Returns the category of its stream.
    pub fn category(&self) -> &'a str {
        self.place.category()
    }

    /// Returns its payload, byte for byte as it was appended.
    pub fn payload(&self) -> &'a [u8] {
        self.place.payload
    }

    /// Returns its metadata and its tags.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they cannot be read.
    pub fn extra(&self) -> Result<(Metadata, Vec<String>), StoreError> {
        self.place.extra()
    }

    /// Returns the same event as a replay.
    #[must_use]
    pub fn replayed(self) -> Self {
        Self { replay: true, ..self }
    }

    /// Returns true if this version is catching up on history: the event existed before the build of the version began,
    /// or the version applied it before and is replaying it in place. The value belongs to each event alone. Code that
    /// only changes rows should ignore it. Code that acts elsewhere must check it.
    pub fn is_replay(&self) -> bool {
        self.replay
    }
}
