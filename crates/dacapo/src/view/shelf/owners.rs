//! Whose rows are, where a row is to be written by events of one segment only (I-3).
//!
//! ```text
//!             an event makes or writes it                events of that segment write it
//!  nobody's ───────────────────────────────▶ a segment's ───────────┐
//!     ▲                                        │   ▲                │
//!     └──────── an event of it deletes it ─────┘   └────────────────┘
//! ```
//!
//! An event of another segment is refused. What is nobody's is a row that is not there, and one that was written by SQL, by
//! a migration or by an earlier build.
//!
//! The store keeps whose a row is, and a row that is read brings that along. A row may be written unread: then it is taken
//! for the segment's, and the store is asked before the batch is committed. Also what is known to be another's is only told
//! then, so that the same event is refused with the same words whatever was in memory.

use dacapo_model::{Segment, limits};
use dacapo_store::ViewWriter;

use super::{By, Entry, Shelf, entry, entry_mut};
use crate::row::Row;
use crate::view::ViewError;

/// Whose a row is in this transaction, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owner {
    /// The segment that wrote it last, also if that has deleted it.
    now: Option<Segment>,
    /// Whose it was that was deleted here before another segment made it anew. The store has not been told.
    before: Option<Segment>,
}

/// A write that may not be right.
struct Claim {
    place: u32,
    by: By,
    /// Whose it is; the store is asked if it is not known.
    known: Option<Segment>,
}

/// What of a batch is still to be looked at.
#[derive(Default)]
pub(super) struct Owners {
    /// In the order of the writes.
    claims: Vec<Claim>,
    /// Whether one of them is known to be wrong.
    wrong: bool,
    /// Whether the store was told of a row that is another segment's now. It cannot be told so again from memory.
    passed_on: bool,
}

impl Owner {
    /// Of a row as the store has it.
    pub(super) fn stored(segment: Option<Segment>) -> Self {
        Self { now: segment, before: None }
    }

    /// The segment that a row is put for.
    pub(super) fn put_for(&self) -> Option<Segment> {
        self.now
    }

    /// The segment that a row is deleted for.
    pub(super) fn deleted_for(&self) -> Option<Segment> {
        self.before.or(self.now)
    }

    /// Whether the store is to delete the row before it is put.
    pub(super) fn is_passed_on(&self) -> bool {
        self.before.is_some()
    }

    /// The store was told.
    pub(super) fn told(&mut self) -> bool {
        self.before.take().is_some()
    }

    /// It was committed; a row that is not there is nobody's.
    pub(super) fn committed(&mut self, is_there: bool) {
        *self = Self::stored(self.now.filter(|_| is_there));
    }
}

impl Owners {
    /// How many writes are to be looked at; as many as there may be where one is known to be wrong.
    pub(super) fn unasked(&self) -> usize {
        if self.wrong { limits::UNIQUE_UNASKED_MAX } else { self.claims.len() }
    }

    /// Whether what was handed to the store cannot be handed to it again.
    pub(super) fn has_passed_on(&self) -> bool {
        self.passed_on
    }

    /// The store was told of a row.
    pub(super) fn told(&mut self, owner: &mut Owner) {
        self.passed_on |= owner.told();
    }

    /// The batch has ended, one way or the other.
    pub(super) fn ended(&mut self) {
        *self = Self::default();
    }

    /// The row of a place is about to be written. Nothing is known of it where nobody has read it.
    fn written<R: Row>(&mut self, place: u32, entry: &mut Entry<R>, by: By) {
        let owner = &mut entry.owner;
        match (entry.known, entry.row.is_some(), owner.now, by.segment) {
            (false, ..) => {
                self.claims.push(Claim { place, by, known: None });
                owner.now = by.segment;
            }
            (true, true, Some(first), Some(second)) if first != second => {
                self.claims.push(Claim { place, by, known: Some(first) });
                self.wrong = true;
            }
            // What follows from no event leaves a row whose it is.
            (true, true, now, by) => owner.now = by.or(now),
            (true, false, now, by) => {
                if now != by {
                    owner.before = owner.before.or(now);
                }
                owner.now = by;
            }
        }
    }
}

impl<R: Row> Shelf<R> {
    /// The row of a place is about to be written.
    pub(super) fn own(&mut self, place: u32, by: By) {
        if by.asks {
            self.owners.written(place, entry_mut(&mut self.entries, place), by);
        }
    }

    /// Asks the store whose rows are that were written unread, and returns the first event that wrote another's.
    pub(super) async fn ask_owners(&mut self, writer: &mut dyn ViewWriter) -> Result<Option<ViewError>, ViewError> {
        if self.owners.claims.is_empty() {
            return Ok(None);
        }
        let is_empty = self.complete.is_none() && self.look_if_empty(writer).await?;
        let claims = std::mem::take(&mut self.owners.claims);
        self.owners.wrong = false;
        let unread = claims.iter().filter(|claim| claim.known.is_none() && !is_empty);
        let keys = unread.map(|claim| R::key_values(&entry(&self.entries, claim.place).key));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let mut stored = vec![None; keys.len()];
        if !keys.is_empty() {
            let found = writer.segments_of(&R::TABLE, &keys).await?;
            found.into_iter().for_each(|(at, segment)| stored[at] = Some(segment));
        }
        let mut stored = stored.into_iter();
        let first = claims.into_iter().find_map(|claim| {
            let of = claim.known.or_else(|| stored.next().flatten());
            self.wrong(&claim, of?)
        });
        Ok(first)
    }

    /// What is wrong with a write of a row that is of this segment.
    fn wrong(&mut self, claim: &Claim, first: Segment) -> Option<ViewError> {
        let entry = entry_mut(&mut self.entries, claim.place);
        match claim.by.segment {
            Some(second) if first != second => {
                let (table, key, at) = (R::TABLE.name, format!("{:?}", entry.key), claim.by.at);
                Some(ViewError::Shared { table, key, first, second, at })
            }
            Some(_) => None,
            None => {
                entry.owner.now.get_or_insert(first);
                None
            }
        }
    }
}
