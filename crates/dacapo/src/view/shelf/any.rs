//! A shelf whose type of rows nobody else knows.

use std::any::Any;

use async_trait::async_trait;
use dacapo_store::ViewWriter;

use super::{ENTRY_BYTES, Entry, Owner, Shelf, entry_mut};
use crate::row::Row;
use crate::view::ViewError;
use crate::view::unique::{At, Uniques};

/// A shelf of whatever rows.
#[async_trait]
pub(in crate::view) trait AnyShelf: Send {
    /// The table's name.
    fn table(&self) -> &'static str;

    /// Looks at what an event has made of its rows, which ends; `at` is its position, if it is one.
    fn end_event(&mut self, at: At) -> Result<(), ViewError>;

    /// How many values were taken of which it is not known whether another row has them in the store, and how many rows were
    /// written of which it is not known whose they are.
    fn unasked(&self) -> usize;

    /// Asks the store about those, and returns what is wrong with the first event that took what another row or another
    /// segment has.
    async fn ask(&mut self, writer: &mut dyn ViewWriter) -> Result<Option<ViewError>, ViewError>;

    /// Hands every pending row to the store. Everything was asked about.
    async fn flush(&mut self, writer: &mut dyn ViewWriter) -> Result<(), ViewError>;

    /// What was handed to the store is committed.
    fn committed(&mut self);

    /// Whether what was handed to the store cannot be handed to it again.
    fn must_reapply(&self) -> bool;

    /// What was handed to the store was taken back, and will be handed to it again.
    fn taken_back(&mut self);

    /// What differed from the committed state is forgotten.
    fn rolled_back(&mut self);

    /// Everything is forgotten; the store knows better.
    fn forget(&mut self);

    /// About how much memory the rows take.
    fn bytes(&self) -> usize;

    /// Lets go of clean rows that were not used lately, until `bytes` are left.
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
            // Where every row is kept, what is not there needs no entry.
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
        // Twice around, since the first time may only find that everything was used.
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
