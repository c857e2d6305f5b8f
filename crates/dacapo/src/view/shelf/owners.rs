//! The segments that own rows, if only events of one segment may write a row (I-3).
//!
//! ```text
//!             an event makes or writes it                events of that segment write it
//!  nobody's ───────────────────────────────▶ a segment's ───────────┐
//!     ▲                                        │   ▲                │
//!     └──────── an event of it deletes it ─────┘   └────────────────┘
//! ```
//!
//! An event of another segment is refused. Rows that do not exist have no segment, nor have rows that were written by
//! SQL, by a migration or by an earlier build.
//!
//! The store keeps the segment of a row, and reading a row returns it. A row may be written without being read. Then it
//! is taken for the segment's own, and the store is asked before the batch is committed. A known fault is also reported
//! only then, so that the same event is refused with the same message whatever was in memory.

use dacapo_model::{Segment, limits};
use dacapo_store::ViewWriter;

use super::{By, Entry, Shelf, entry, entry_mut};
use crate::row::Row;
use crate::view::ViewError;

/// The segment of a row in this transaction, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owner {
    /// The segment that wrote it last, even if that segment has deleted it.
    now: Option<Segment>,
    /// The segment of a row that was deleted here before another segment made it again, until the store gets both
    /// changes.
    before: Option<Segment>,
}

/// A write that may be wrong.
struct Claim {
    place: u32,
    by: By,
    /// The segment of the row; `None` if the store must be asked.
    known: Option<Segment>,
}

/// The writes of a batch that must be checked.
#[derive(Default)]
pub(super) struct Owners {
    /// The writes, in their order.
    claims: Vec<Claim>,
    /// True if one of them is known to be wrong.
    wrong: bool,
    /// True if the store was sent a row that moved to another segment. It cannot be sent again from memory.
    passed_on: bool,
}

impl Owner {
    /// Returns the owner of a row as the store has it.
    pub(super) fn stored(segment: Option<Segment>) -> Self {
        Self { now: segment, before: None }
    }

    /// Returns the segment for which a row is put.
    pub(super) fn put_for(&self) -> Option<Segment> {
        self.now
    }

    /// Returns the segment for which a row is deleted.
    pub(super) fn deleted_for(&self) -> Option<Segment> {
        self.before.or(self.now)
    }

    /// Returns true if the store must delete the row before it is put.
    pub(super) fn is_passed_on(&self) -> bool {
        self.before.is_some()
    }

    /// Records that the row was sent to the store. Returns true if it had moved to another segment.
    pub(super) fn told(&mut self) -> bool {
        self.before.take().is_some()
    }

    /// Records that the row was committed. A row that does not exist has no segment.
    pub(super) fn committed(&mut self, is_there: bool) {
        *self = Self::stored(self.now.filter(|_| is_there));
    }
}

impl Owners {
    /// Returns the number of writes to check; the maximum if one is known to be wrong.
    pub(super) fn unasked(&self) -> usize {
        if self.wrong { limits::UNIQUE_UNASKED_MAX } else { self.claims.len() }
    }

    /// Returns true if the sent rows cannot be sent again.
    pub(super) fn has_passed_on(&self) -> bool {
        self.passed_on
    }

    /// Records that a row was sent to the store.
    pub(super) fn told(&mut self, owner: &mut Owner) {
        self.passed_on |= owner.told();
    }

    /// Records that the batch has ended, by a commit or a rollback.
    pub(super) fn ended(&mut self) {
        *self = Self::default();
    }

    /// Records that the row of a place is about to be written. Nothing is known of a row that was not read.
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
            // A write outside of events does not change the segment of a row.
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
    /// Records that the row of a place is about to be written.
    pub(super) fn own(&mut self, place: u32, by: By) {
        if by.asks {
            self.owners.written(place, entry_mut(&mut self.entries, place), by);
        }
    }

    /// Asks the store for the segments of rows that were written without being read. Returns the fault of the first
    /// event that wrote a row of another segment.
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

    /// Returns the fault of a write of a row that belongs to this segment.
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
