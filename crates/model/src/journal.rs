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

/// What does not belong to the journal beside which it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parted {
    /// It was made from another journal.
    Journal {
        /// The one that it was made from.
        made_from: JournalId,
        /// The one that is there.
        found: JournalId,
    },
    /// It was made from this journal, but from a history that is there no more.
    History {
        /// Through here both histories are known to be the same.
        same_through: Position,
        /// Through here they are not: the first position that differs is at most this.
        differs_at: Position,
    },
}

impl fmt::Display for Parted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal { made_from, found } => {
                write!(f, "it was made from the journal {made_from}, and this is the journal {found}")
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

/// Which marks at these positions, in order, may be forgotten once there is one at `newest`. Of those whose distances from
/// there have the same number of bits the first and the last stay, so that few tell where histories part about as well as
/// all would.
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
