//! What tells one journal, and one history, from another.

use std::fmt;

use crate::position::Position;

/// The identity of a journal: made when the journal is made, never changed, and kept by every copy of it.
///
/// Two journals with one identity are the same journal or copies of it, such as a restored backup. Only their
/// [`Mark`]s tell whether the copies have parted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JournalId([u8; 16]);

impl JournalId {
    /// The id with these bytes, those of a UUID in the order of RFC 9562.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, in the order of RFC 9562.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&crate::EventId::from_bytes(self.0), f)
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the history of a journal is through a position: a digest that is chained over all events through there.
///
/// Two copies of a journal that have the same mark have the same events through its position. How a digest is made is a
/// matter of the store, so marks are compared only between journals of one [`JournalId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last position that the digest covers; [`Position::START`] where there is no event.
    pub position: Position,
    /// The digest; 0 at [`Position::START`].
    pub digest: u64,
}

impl Mark {
    /// Before the first event, where all histories are the same.
    pub const START: Self = Self { position: Position::START, digest: 0 };
}
