//! Identities of journals and of their histories.

use std::fmt;

use crate::position::Position;

/// The identity of a journal: assigned when the journal is made, never changed, and kept by every copy of it.
///
/// Two journals with one identity are the same journal or copies of it, such as a restored backup. Only their
/// [`Mark`]s show whether the histories of the copies differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JournalId([u8; 16]);

impl JournalId {
    /// Returns the id with these bytes, those of a UUID in the order of RFC 9562.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, in the order of RFC 9562.
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

/// The history of a journal through a position: a digest that is chained over all events through there.
///
/// Two copies of a journal that have the same mark have the same events through its position. Each store makes
/// digests in its own way, so marks are compared only between journals of one [`JournalId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last position that the digest covers; [`Position::START`] if there is no event.
    pub position: Position,
    /// The digest; 0 at [`Position::START`].
    pub digest: u64,
}

impl Mark {
    /// The mark before the first event, where all histories are the same.
    pub const START: Self = Self { position: Position::START, digest: 0 };
}

/// The reason why something does not belong to the journal beside which it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parted {
    /// It was made from another journal.
    Journal {
        /// The journal that it was made from.
        made_from: JournalId,
        /// The journal that was found.
        found: JournalId,
    },
    /// It was made from this journal, but from a history that no longer exists.
    History {
        /// The position through which both histories are known to be the same.
        same_through: Position,
        /// An upper bound of the first position that differs.
        differs_at: Position,
    },
}

impl fmt::Display for Parted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal { made_from, found } => {
                write!(f, "it was made from the journal {made_from}, but this is the journal {found}")
            }
            Self::History { same_through, differs_at } if same_through.get() + 1 == differs_at.get() => {
                write!(
                    f,
                    "the journal has another history than the one it was made from: they differ from position {differs_at} on"
                )
            }
            Self::History { same_through, differs_at } => write!(
                f,
                "the journal has another history than the one it was made from: they are the same through position \
                 {same_through}, and differ at position {differs_at} at the latest"
            ),
        }
    }
}

impl Parted {
    /// Returns it in words about a journal that was replaced under a running node, which has read the one before.
    pub fn of_journal(&self) -> String {
        match self {
            Self::Journal { made_from, found } => {
                format!("this node has read the journal {made_from}, but now it finds the journal {found}")
            }
            Self::History { same_through, differs_at } if same_through.get() + 1 == differs_at.get() => format!(
                "the journal has another history now than the one that this node has read: they differ from position \
                 {differs_at} on"
            ),
            Self::History { same_through, differs_at } => format!(
                "the journal has another history now than the one that this node has read: they are the same through \
                 position {same_through}, and differ at position {differs_at} at the latest"
            ),
        }
    }
}

/// Returns the marks at these positions, in order, that may be forgotten once there is one at `newest`. Of the marks
/// whose distances from there have the same number of bits, the first and the last stay. So a few marks show where
/// histories part nearly as well as all would.
pub fn forgotten(kept: &[Position], newest: Position) -> Vec<Position> {
    let bits = |position: &Position| u64::BITS - newest.since(*position).leading_zeros();
    let alike = kept.chunk_by(|one, other| bits(one) == bits(other));
    alike.flat_map(|alike| alike.get(1..alike.len() - 1).unwrap_or_default()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_marks_are_kept_and_none_is_far_from_where_it_would_be_wanted() {
        let mut kept: Vec<Position> = Vec::new();
        for newest in (1..20_000).map(|number| Position::new(number * 3)) {
            let forgotten = forgotten(&kept, newest);
            kept.retain(|position| !forgotten.contains(position));
            kept.push(newest);
            assert!(kept.len() <= 2 * 17, "{}", kept.len());
            for pair in kept.windows(2) {
                let (gap, back) = (pair[1].since(pair[0]), newest.since(pair[1]) + 3);
                assert!(gap <= 4 * back, "a gap of {gap} at {back} before the newest");
            }
        }
        assert_eq!(kept[0], Position::new(3), "the first one stays");
        let last: Vec<u64> = kept.iter().rev().take(3).map(|position| position.get()).collect();
        assert_eq!(last, [59_997, 59_994, 59_991]);
    }
}
