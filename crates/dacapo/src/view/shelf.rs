//! The rows of one table that are kept in memory.
//!
//! ```text
//!            load                    change                     flush                 commit
//!  unknown ────────▶ known (clean) ────────▶ changed, pending ────────▶ changed ────────────▶ known (clean)
//!     ▲                                            ▲                       │
//!     │                                            └───── hold refused ────┤
//!     └──────────────────────────── rollback ──────────────────────────────┘
//! ```

use std::any::Any;
use std::hash::{BuildHasher, Hash, Hasher};

use async_trait::async_trait;
use dacapo_model::Segment;
use dacapo_store::{Value, ViewWriter};
use hashbrown::HashTable;

use crate::row::{Row, RowError};
use crate::view::{Lookup, ViewError};

/// What an entry takes in memory besides its row, key and their own memory: hash, place, flags.
const ENTRY_BYTES: usize = 32;

/// A row that is kept, or the knowledge that there is none.
pub(super) struct Entry<R: Row> {
    key: R::Key,
    pub(super) row: Option<R>,
    /// Whether `row` is what the transaction sees; otherwise the store is asked.
    pub(super) known: bool,
    /// Whether it differs from what is committed.
    changed: bool,
    /// Whether it differs from what was handed to the store.
    pending: bool,
    /// Whether it was used since the eviction last passed.
    used: bool,
    /// The segment whose events wrote it, as far as that is known.
    segment: Option<Segment>,
    bytes: u32,
}

/// Rows of one type.
pub(super) struct Shelf<R: Row> {
    hasher: foldhash::fast::RandomState,
    places: HashTable<u32>,
    entries: Vec<Option<Entry<R>>>,
    free: Vec<u32>,
    /// The places that differ from what is committed, and those that the store was not told of; in the
    /// order of the changes, so that a run writes in the same order every time.
    changed: Vec<u32>,
    pending: Vec<u32>,
    /// Whether every row of the table has an entry, so that what is not here is nowhere. `None`: not looked.
    pub(super) complete: Option<bool>,
    bytes: usize,
    /// Where the next eviction begins.
    hand: usize,
}

impl<R: Row> Shelf<R> {
    pub(super) fn new() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            places: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            pending: Vec::new(),
            complete: None,
            bytes: 0,
            hand: 0,
        }
    }

    /// The place of a key.
    pub(super) fn find(&self, key: &impl Lookup<R::Key>) -> Option<u32> {
        let mut state = self.hasher.build_hasher();
        key.hash(&mut state);
        self.places.find(state.finish(), |place| key.is(&entry(&self.entries, *place).key)).copied()
    }

    pub(super) fn entry(&mut self, place: u32) -> &mut Entry<R> {
        let entry = self.entries[place as usize].as_mut().expect("a place in use has an entry");
        entry.used = true;
        entry
    }

    /// Puts what the store has under `key` here.
    pub(super) fn keep(&mut self, key: R::Key, row: Option<R>, bytes: usize) -> u32 {
        let place = match self.find(&Exactly(&key)) {
            Some(place) => place,
            None => self.add(key),
        };
        let entry = self.entry(place);
        (entry.row, entry.known) = (row, true);
        self.weigh(place, bytes);
        place
    }

    /// A place for a key that has none.
    pub(super) fn add(&mut self, key: R::Key) -> u32 {
        let hash = self.hasher.hash_one(&key);
        let entry =
            Entry { key, row: None, known: false, changed: false, pending: false, used: true, segment: None, bytes: 0 };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = Some(entry);
                place
            }
            None => {
                self.entries.push(Some(entry));
                u32::try_from(self.entries.len() - 1).expect("four billion rows do not fit in memory")
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places.insert_unique(hash, place, |place| hasher.hash_one(&self::entry(entries, *place).key));
        place
    }

    /// Writes a row whole, whether there was one or not.
    pub(super) fn put(&mut self, row: R, by: Option<Segment>) -> Result<(), ViewError> {
        let key = row.key();
        let place = match self.find(&Exactly(&key)) {
            Some(place) => place,
            None => self.add(key),
        };
        self.set(place, Some(row), by)
    }

    /// Sets or deletes the row of a place.
    pub(super) fn set(&mut self, place: u32, row: Option<R>, by: Option<Segment>) -> Result<(), ViewError> {
        self.written(place, by)?;
        let entry = self.entry(place);
        (entry.row, entry.known) = (row, true);
        self.mark(place);
        Ok(())
    }

    /// An event of this segment is about to write the row of a place, which must not be another segment's.
    fn written(&mut self, place: u32, by: Option<Segment>) -> Result<(), ViewError> {
        let Some(second) = by else { return Ok(()) };
        let entry = self.entry(place);
        match entry.segment.replace(second) {
            Some(first) if first != second => {
                entry.segment = Some(first);
                let key = format!("{:?}", entry.key);
                Err(ViewError::Shared { table: R::TABLE.name, key, first, second })
            }
            _ => Ok(()),
        }
    }

    /// Changes the row of a place, if it has one; fails if that changes its key.
    pub(super) fn change(
        &mut self,
        place: u32,
        by: Option<Segment>,
        change: impl FnOnce(&mut R),
    ) -> Result<bool, ViewError> {
        if self.entry(place).row.is_none() {
            return Ok(false);
        }
        self.written(place, by)?;
        let entry = self.entry(place);
        // First, so that a row that is left half changed by a panic is taken back.
        if !(entry.changed && entry.pending) {
            self.mark(place);
        }
        let entry = self.entry(place);
        let Some(row) = &mut entry.row else { return Ok(false) };
        change(row);
        if row.has_key(&entry.key) {
            return Ok(true);
        }
        Err(ViewError::KeyChanged { table: R::TABLE.name, key: format!("{:?}", self.entry(place).key) })
    }

    fn mark(&mut self, place: u32) {
        let entry = self.entry(place);
        let (changed, pending) = (entry.changed, entry.pending);
        (entry.changed, entry.pending) = (true, true);
        if !changed {
            self.changed.push(place);
        }
        if !pending {
            self.pending.push(place);
        }
    }

    fn weigh(&mut self, place: u32, bytes: usize) {
        let entry = entry_mut(&mut self.entries, place);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes = self.bytes + bytes as usize - entry.bytes as usize;
        entry.bytes = bytes;
    }

    fn remove(&mut self, place: u32) {
        let entry = self.entries[place as usize].take().expect("only places in use are removed");
        let hash = self.hasher.hash_one(&entry.key);
        let found = self.places.find_entry(hash, |other| *other == place).expect("an entry is found by its key");
        found.remove();
        self.bytes -= entry.bytes as usize;
        self.free.push(place);
    }

    async fn write(&mut self, writer: &mut dyn ViewWriter) -> Result<(), ViewError> {
        let (table, mut failed) = (R::TABLE, None);
        let mut noted = |values: Result<Vec<Value>, RowError>| values.map_err(|error| failed = Some(error)).ok();
        let (entries, pending) = (&mut self.entries, &self.pending);
        // First the deletes: a new row may have what a unique index would not allow beside the old one.
        if pending.iter().any(|place| entry(entries, *place).row.is_none()) {
            let deleted = pending.iter().map(|place| entry(entries, *place)).filter(|entry| entry.row.is_none());
            let mut keys = deleted.map_while(|entry| Some((entry.segment, noted(R::key_values(&entry.key))?)));
            writer.delete(&table, &mut keys).await?;
        }
        let total = &mut self.bytes;
        let mut rows = pending.iter().filter_map(|place| {
            let entry = entry_mut(entries, *place);
            let values = entry.row.as_ref()?.to_values();
            let bytes = values.as_ref().map_or(0, |values| row_bytes::<R>(values));
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            *total = *total + bytes as usize - entry.bytes as usize;
            entry.bytes = bytes;
            Some((entry.segment, noted(values)?))
        });
        writer.put(&table, &mut rows).await?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// A key that is looked up as it is.
struct Exactly<'a, K>(&'a K);

impl<K: Hash + Eq> Lookup<K> for Exactly<'_, K> {
    fn is(&self, key: &K) -> bool {
        self.0 == key
    }

    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }

    fn into_key(self) -> K {
        unreachable!("a borrowed key is only compared")
    }
}

fn entry<R: Row>(entries: &[Option<Entry<R>>], place: u32) -> &Entry<R> {
    entries[place as usize].as_ref().expect("a place in use has an entry")
}

fn entry_mut<R: Row>(entries: &mut [Option<Entry<R>>], place: u32) -> &mut Entry<R> {
    entries[place as usize].as_mut().expect("a place in use has an entry")
}

/// About what an entry with these values takes in memory: the texts of a key are there twice.
pub(super) fn row_bytes<R: Row>(values: &[Value]) -> usize {
    let heap = |value: &Value| match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    let keys: usize = R::TABLE.key.iter().filter_map(|place| values.get(*place)).map(heap).sum();
    size_of::<Entry<R>>() + ENTRY_BYTES + values.iter().map(heap).sum::<usize>() + keys
}

/// A shelf of whatever rows.
#[async_trait]
pub(super) trait AnyShelf: Send {
    /// The table's name.
    fn table(&self) -> &'static str;

    /// Hands every pending row to the store.
    async fn flush(&mut self, writer: &mut dyn ViewWriter) -> Result<(), ViewError>;

    /// What was handed to the store is committed.
    fn committed(&mut self);

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

    async fn flush(&mut self, writer: &mut dyn ViewWriter) -> Result<(), ViewError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write(writer).await?;
        for place in std::mem::take(&mut self.pending) {
            self.entry(place).pending = false;
        }
        Ok(())
    }

    fn committed(&mut self) {
        assert!(self.pending.is_empty(), "what is committed was handed to the store");
        for place in std::mem::take(&mut self.changed) {
            let entry = self.entry(place);
            entry.changed = false;
            // Where every row is kept, what is not there needs no entry.
            if entry.row.is_none() && self.complete == Some(true) {
                self.remove(place);
            }
        }
    }

    fn taken_back(&mut self) {
        for place in self.changed.clone() {
            self.mark(place);
        }
    }

    fn rolled_back(&mut self) {
        self.pending.clear();
        for place in std::mem::take(&mut self.changed) {
            let entry = self.entry(place);
            (entry.row, entry.known, entry.changed, entry.pending) = (None, false, false, false);
            entry.segment = None;
            self.weigh(place, size_of::<Entry<R>>() + ENTRY_BYTES);
        }
    }

    fn forget(&mut self) {
        *self = Self::new();
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

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
