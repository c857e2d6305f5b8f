//! The errors of a store, classified by what the caller can do about them.

use dacapo_model::{EventId, ExpectedRevision, Parted, Position, Revision, StreamName, TokenRefused};

/// A failure of the store, which is not the caller's fault.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The call did not succeed this time, but may succeed later.
    #[error("cannot {tried}: {found}")]
    Unavailable {
        /// The attempt, such as `write to /data/journal/…`.
        tried: String,
        /// The error, and what to do about it.
        found: String,
    },
    /// Another process owns what was to be opened. A retry succeeds once that process has ended.
    #[error("cannot {tried}: {found}")]
    Owned {
        /// The attempt.
        tried: String,
        /// The other process, and what to do about it.
        found: String,
    },
    /// Bytes on disk are not the bytes that were written. None of them are used.
    #[error("{place} is damaged: {found}")]
    Corrupt {
        /// The file, and the place in it.
        place: String,
        /// The fault, and what to do about it.
        found: String,
    },
    /// The request itself can never succeed, such as SQL with an error in it.
    #[error("{0}")]
    Invalid(String),
    /// A view does not belong to the journal beside which it is found.
    #[error("{0}: put the right journal back, or build the view again (`rebuild`) from this one")]
    Parted(Parted),
    /// The journal was replaced under the node: it is not the one, or does not have the history, that the node has read.
    /// Every call fails until the node is restarted.
    #[error("{}: decide which journal is right, put it back if it is the other one, and restart every node", .0.of_journal())]
    JournalParted(Parted),
    /// A reader has seen a position that is not in the journal. The event that gets that position later will be
    /// another one than the reader has seen, so nothing may be read after it.
    #[error(
        "position {after} is not in the journal, which ends at position {head}: the reader comes from another journal, or \
         from a history that this one has lost; let it begin again, or put the right journal back"
    )]
    BeyondHead {
        /// The position that the reader has seen.
        after: Position,
        /// The end of the journal.
        head: Position,
    },
    /// The same for a revision that a stream does not have.
    #[error(
        "revision {after} is not in stream {stream}, which ends at revision {last}: the reader comes from another \
         journal, or from a history that this one has lost; let it begin again, or put the right journal back"
    )]
    BeyondStream {
        /// The stream.
        stream: StreamName,
        /// The revision that the reader has seen.
        after: Revision,
        /// The last revision of the stream.
        last: Revision,
    },
}

impl StoreError {
    /// Returns a temporary failure. `tried` names the attempt, `found` the error.
    pub fn unavailable(tried: impl Into<String>, found: impl ToString) -> Self {
        Self::Unavailable { tried: tried.into(), found: found.to_string() }
    }

    /// Returns true if a reader asks for events after a place that does not exist. A retry cannot succeed.
    pub fn is_beyond_end(&self) -> bool {
        matches!(self, Self::BeyondHead { .. } | Self::BeyondStream { .. })
    }

    /// Checks that a reader may continue after `after` in a journal that ends at `head`.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] if `after` is not in the journal.
    pub fn check_head(after: Position, head: Position) -> Result<(), Self> {
        if after > head { Err(Self::BeyondHead { after, head }) } else { Ok(()) }
    }

    /// Checks that a reader may continue after the revision `after` of a stream that ends at `last`.
    ///
    /// # Errors
    /// [`StoreError::BeyondStream`] if the stream does not have the revision.
    pub fn check_stream(stream: &StreamName, after: Revision, last: Revision) -> Result<(), Self> {
        if after > last { Err(Self::BeyondStream { stream: stream.clone(), after, last }) } else { Ok(()) }
    }

    /// Returns an error about wrong bytes at `place`.
    pub fn corrupt(place: impl ToString, found: impl Into<String>) -> Self {
        Self::Corrupt { place: place.to_string(), found: found.into() }
    }
}

/// The reason why an append was declined. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendRefused {
    /// The stream does not have the revision that the writer expects.
    #[error(
        "stream {stream} is at revision {actual}, the append expects {expected}: the stream has changed, so reload it and retry"
    )]
    WrongRevision {
        /// The stream.
        stream: StreamName,
        /// The revision that the append expects.
        expected: ExpectedRevision,
        /// The stream's last revision.
        actual: Revision,
    },
    /// Another event with this id exists.
    #[error("event id {id} is taken by another event at position {position}: every event needs an id of its own")]
    IdTaken {
        /// The id.
        id: EventId,
        /// The position of the other event.
        position: Position,
    },
    /// The append has an id twice. With [`OnKnown::Skip`](crate::OnKnown::Skip) this is refused only if the two
    /// events differ.
    #[error(
        "event id {id} occurs twice, in events[{first}] and events[{second}] of the append: every event needs an id of \
         its own"
    )]
    IdTwice {
        /// The id.
        id: EventId,
        /// The index of the first event with it, from 0.
        first: usize,
        /// The index of the second event with it.
        second: usize,
    },
    /// Some of the events are in the journal and some are not, so this is not a retry of an earlier append.
    #[error(
        "event {known} is in the journal at position {position} but event {unknown} of the same append is not: \
         retry an append with all of its events, or skip those that are known"
    )]
    PartlyKnown {
        /// An event that is in the journal.
        known: EventId,
        /// Its position.
        position: Position,
        /// An event that is not in the journal.
        unknown: EventId,
    },
    /// A limit is exceeded.
    #[error("the append is over a limit: {what} is {actual}, at most {max} are possible")]
    Limit {
        /// The limit.
        what: &'static str,
        /// The value of the append.
        actual: usize,
        /// The largest allowed value.
        max: usize,
    },
    /// There is nothing to append.
    #[error("the append has no events")]
    Empty,
}

/// The reason why an append did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The caller can act on it.
    #[error(transparent)]
    Refused(#[from] AppendRefused),
    /// The store could not write. Whether the events are in the journal is unknown only if the error says so. A retry
    /// with the same ids is safe in both cases (I-2).
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason why a batch of a view was not committed; nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The tokens did not allow it (I-4).
    #[error(transparent)]
    Refused(#[from] TokenRefused),
    /// The store could not write.
    #[error(transparent)]
    Store(#[from] StoreError),
}
