//! A shelf with the type of its rows erased.

use std::any::Any;

use async_trait::async_trait;
use dacapo_store::ViewWriter;

use super::{ENTRY_BYTES, Entry, Owner, Shelf, entry_mut};
use crate::row::Row;
use crate::view::ViewError;
use crate::view::unique::{At, Uniques};

/// A shelf of rows of any type.
#[async_trait]
pub(in crate::view) trait AnyShelf: Send {
    /// Returns the table's name.
    fn table(&self) -> &'static str;

    /// Checks the rows that an event wrote, at its end. `at` is its position; `None` outside of events.
    fn end_event(&mut self, at: At) -> Result<(), ViewError>;

    /// Returns the number of values that were taken, and of rows that were written, without knowing whether another row
    /// has the value, or another segment the row, in the store.
    fn unasked(&self) -> usize;

    /// Asks the store about those. Returns the fault of the first event that took a value of another row, or wrote a
    /// row of another segment.
    async fn ask(&mut self, writer: &mut dyn ViewWriter) -> Result<Option<ViewError>, ViewError>;

    /// Sends every pending row to the store. Every question to the store was asked before.
    async fn flush(&mut self, writer: &mut dyn ViewWriter) -> Result<(), ViewError>;

    /// Records that the sent rows are committed.
    fn committed(&mut self);

    /// Returns true if the sent rows cannot be sent again.
    fn must_reapply(&self) -> bool;

    /// Records that the sent rows were rolled back and will be sent again.
    fn taken_back(&mut self);

    /// Forgets everything that differs from the committed state.
    fn rolled_back(&mut self);

    /// Forgets everything. The store knows the rows.
    fn forget(&mut self);

    /// Returns about how many bytes of memory the rows take.
    fn bytes(&self) -> usize;

    /// Removes unchanged rows that were not used lately, until `bytes` are left.
    fn evict(&mut self, bytes: usize);

    fn as_any(&mut self) -> &mut (dyn Any + Send);
}

#[async_trait]
impl<R: Row> AnyShelf for Shelf<R> {
    fn table(&self) -> &'static str {
        R::TABLE.name
    }

    fn end_event(&mut self, at: At) -> Result<(), ViewError> {
        if self.touched.is_empty() { Ok(()) } else { self.check(at) }
    }

    fn unasked(&self) -> usize {
        self.uniques.as_ref().map_or(0, Uniques::unasked) + self.owners.unasked()
    }

    async fn ask(&mut self, writer: &mut dyn ViewWriter) -> Result<Option<ViewError>, ViewError> {
        let owned = self.ask_owners(writer).await?;
        let taken = self.ask_store(writer).await?;
        Ok(owned.into_iter().chain(taken).min_by_key(ViewError::at))
    }

    async fn flush(&mut self, writer: &mut dyn ViewWriter) -> Result<(), ViewError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write(writer).await?;
        self.taken_back = false;
        self.uniques.iter_mut().for_each(Uniques::written);
        for place in std::mem::take(&mut self.pending) {
            let entry = entry_mut(&mut self.entries, place);
            entry.pending = false;
            self.owners.told(&mut entry.owner);
        }
        Ok(())
    }

    fn committed(&mut self) {
        assert!(self.pending.is_empty(), "what is committed was handed to the store");
        for place in std::mem::take(&mut self.changed) {
            let entry = self.entry(place);
            entry.changed = false;
            entry.owner.committed(entry.row.is_some());
            // If all rows are in memory, a missing row needs no entry.
            if entry.row.is_none() && self.complete == Some(true) {
                self.remove(place);
            }
        }
        self.owners.ended();
    }

    fn must_reapply(&self) -> bool {
        self.owners.has_passed_on()
    }

    fn taken_back(&mut self) {
        self.taken_back = true;
        for place in self.changed.clone() {
            self.mark(place);
        }
    }

    fn rolled_back(&mut self) {
        self.pending.clear();
        self.touched.clear();
        self.taken_back = false;
        self.owners.ended();
        if let Some(uniques) = &mut self.uniques {
            uniques.rolled_back(self.changed.iter().copied());
        }
        for place in std::mem::take(&mut self.changed) {
            self.unknown += usize::from(self.entry(place).known);
            let entry = self.entry(place);
            (entry.row, entry.known, entry.changed, entry.pending) = (None, false, false, false);
            (entry.owner, entry.touched) = (Owner::default(), false);
            self.weigh(place, size_of::<Entry<R>>() + ENTRY_BYTES);
        }
    }

    fn forget(&mut self) {
        *self = Self::new();
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    #[expect(clippy::expect_used, reason = "a place is a u32")]
    fn evict(&mut self, bytes: usize) {
        // It goes around twice, since the first round may only find that everything was used.
        for _ in 0..2 * self.entries.len() {
            if self.bytes <= bytes {
                return;
            }
            self.hand = (self.hand + 1) % self.entries.len();
            let Some(entry) = &mut self.entries[self.hand] else { continue };
            assert!(!entry.changed, "rows are let go between batches");
            if std::mem::take(&mut entry.used) {
                continue;
            }
            self.remove(u32::try_from(self.hand).expect("a place is a u32"));
            self.complete = Some(false);
        }
    }

    fn as_any(&mut self) -> &mut (dyn Any + Send) {
        self
    }
}
