//! The ways in which a store can say no, told apart by what the caller can do about it.

use dacapo_model::{EventId, ExpectedRevision, Parted, Position, Revision, StreamName, TokenRefused};

/// The store could not do it. Not the caller's fault.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It did not work this time; it may work later.
    #[error("cannot {tried}: {found}")]
    Unavailable {
        /// What was tried, such as `write to /data/journal/…`.
        tried: String,
        /// What came back, and what to do about it.
        found: String,
    },
    /// Another process owns what was to be opened. It works once that one has ended.
    #[error("cannot {tried}: {found}")]
    Owned {
        /// What was tried.
        tried: String,
        /// Which process it is, and what to do about it.
        found: String,
    },
    /// Bytes on disk are not what was written. Nothing of them is used.
    #[error("{place} is damaged: {found}")]
    Corrupt {
        /// Which file, and where in it.
        place: String,
        /// What is wrong there, and what to do about it.
        found: String,
    },
    /// The request itself cannot be carried out, such as SQL with an error in it.
    #[error("{0}")]
    Invalid(String),
    /// A view, or what a node knows, does not belong to the journal beside which it is found.
    #[error("{0}: put the right journal back, or build the view again (`rebuild`) from this one")]
    Parted(Parted),
    /// A reader says that it has seen a position that is not in the journal. Whatever gets that position later is
    /// another event than the one it has seen, so nothing may be read after it.
    #[error(
        "position {after} is not in the journal, which ends at position {head}: the reader comes from another journal, or \
         from a history that this one has lost; let it begin again, or put the right journal back"
    )]
    BeyondHead {
        /// What the reader has seen.
        after: Position,
        /// Where the journal ends.
        head: Position,
    },
    /// The same of a revision that a stream does not have.
    #[error(
        "revision {after} is not in stream {stream}, which ends at revision {last}: the reader comes from another \
         journal, or from a history that this one has lost; let it begin again, or put the right journal back"
    )]
    BeyondStream {
        /// The stream.
        stream: StreamName,
        /// What the reader has seen.
        after: Revision,
        /// Where the stream ends.
        last: Revision,
    },
}

impl StoreError {
    /// It did not work this time: `tried` names the act, `found` what came back.
    pub fn unavailable(tried: impl Into<String>, found: impl ToString) -> Self {
        Self::Unavailable { tried: tried.into(), found: found.to_string() }
    }

    /// Whether a reader asks for what comes after a place that is not there: it works neither now nor later.
    pub fn is_beyond_end(&self) -> bool {
        matches!(self, Self::BeyondHead { .. } | Self::BeyondStream { .. })
    }

    /// Checks that a reader may go on after `after` in a journal that ends at `head`.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] unless `after` is in the journal.
    pub fn check_head(after: Position, head: Position) -> Result<(), Self> {
        if after > head { Err(Self::BeyondHead { after, head }) } else { Ok(()) }
    }

    /// Checks that a reader may go on after the revision `after` of a stream that ends at `last`.
    ///
    /// # Errors
    /// [`StoreError::BeyondStream`] unless the stream has the revision.
    pub fn check_stream(stream: &StreamName, after: Revision, last: Revision) -> Result<(), Self> {
        if after > last { Err(Self::BeyondStream { stream: stream.clone(), after, last }) } else { Ok(()) }
    }

    /// Bytes at `place` are wrong.
    pub fn corrupt(place: impl ToString, found: impl Into<String>) -> Self {
        Self::Corrupt { place: place.to_string(), found: found.into() }
    }
}

/// Why an append was declined; nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendRefused {
    /// The stream is not where the writer thought it was.
    #[error("stream {stream} is at revision {actual}, the append expects {expected}: read it again and decide anew")]
    WrongRevision {
        /// The stream.
        stream: StreamName,
        /// What the append demands.
        expected: ExpectedRevision,
        /// The stream's last revision.
        actual: Revision,
    },
    /// An event with this id exists and is another one.
    #[error("event id {id} is taken by another event at position {position}: every event needs an id of its own")]
    IdTaken {
        /// The id.
        id: EventId,
        /// Where the other event is.
        position: Position,
    },
    /// The append names an id twice. With [`OnKnown::Skip`](crate::OnKnown::Skip) that is refused only if the two events
    /// differ.
    #[error(
        "event id {id} is there twice, in events[{first}] and events[{second}] of the append: every event needs an id of \
         its own"
    )]
    IdTwice {
        /// The id.
        id: EventId,
        /// Which event has it, counted from 0.
        first: usize,
        /// Which other one.
        second: usize,
    },
    /// Some of the events are in the journal and some are not, so this is no retry of an earlier append.
    #[error(
        "event {known} is in the journal at position {position} but event {unknown} of the same append is not: \
         retry an append with all of its events, or skip those that are known"
    )]
    PartlyKnown {
        /// One that is there.
        known: EventId,
        /// Where.
        position: Position,
        /// One that is not.
        unknown: EventId,
    },
    /// A limit is exceeded.
    #[error("the append is over a limit: {what} is {actual}, at most {max} are possible")]
    Limit {
        /// Which one.
        what: &'static str,
        /// How much the append has.
        actual: usize,
        /// How much there may be.
        max: usize,
    },
    /// There is nothing to append.
    #[error("the append has no events")]
    Empty,
}

/// Why an append did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The caller can act on it.
    #[error(transparent)]
    Refused(#[from] AppendRefused),
    /// The store could not write. Whether the events are in the journal is unknown only if the error
    /// says so; a retry with the same ids is safe either way (I-2).
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a batch of a view was not committed; nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The tokens did not let it (I-4).
    #[error(transparent)]
    Refused(#[from] TokenRefused),
    /// The store could not write.
    #[error(transparent)]
    Store(#[from] StoreError),
}
