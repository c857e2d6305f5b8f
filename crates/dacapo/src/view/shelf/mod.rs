//! The rows of one table that are kept in memory.
//!
//! ```text
//!            load                    change                     flush                 commit
//!  unknown ────────▶ known (clean) ────────▶ changed, pending ────────▶ changed ────────────▶ known (clean)
//!     ▲                                            ▲                       │
//!     │                                            └───── hold refused ────┤
//!     └──────────────────────────── rollback ──────────────────────────────┘
//! ```

mod any;
mod owners;

use std::hash::{BuildHasher, Hash, Hasher};

use dacapo_model::{Segment, limits};
use dacapo_store::{ColumnKind, Index, Table, Value, ViewWriter};
use hashbrown::HashTable;

use crate::row::{Row, RowError};
use crate::view::unique::{At, Clash, Found, Unasked, Uniques};
use crate::view::{Lookup, ViewError};

pub(in crate::view) use any::AnyShelf;
use owners::{Owner, Owners};

/// The memory of an entry besides its row, its key and their own memory: hash, place, flags.
const ENTRY_BYTES: usize = 32;

/// The memory of a unique value besides its own.
const UNIQUE_BYTES: usize = 112;

/// A row in memory, or the knowledge that it does not exist.
pub(in crate::view) struct Entry<R: Row> {
    key: R::Key,
    pub(in crate::view) row: Option<R>,
    /// True if `row` is the one that the transaction sees. Otherwise the store must be asked.
    pub(in crate::view) known: bool,
    /// True if it differs from the committed row.
    changed: bool,
    /// True if it differs from the row that was sent to the store.
    pending: bool,
    /// True if it was used since the eviction last passed.
    used: bool,
    /// True if the event that is being applied has written it.
    touched: bool,
    owner: Owner,
    bytes: u32,
}

/// Rows of one type.
pub(in crate::view) struct Shelf<R: Row> {
    hasher: foldhash::fast::RandomState,
    places: HashTable<u32>,
    entries: Vec<Option<Entry<R>>>,
    free: Vec<u32>,
    /// The places that differ from the committed rows, and those that were not sent to the store, in the order of the
    /// changes, so that each run writes in the same order.
    changed: Vec<u32>,
    pending: Vec<u32>,
    /// The places that the event that is being applied has written.
    touched: Vec<u32>,
    /// True if a row without an entry does not exist in the table. `None` if it was not checked.
    pub(in crate::view) complete: Option<bool>,
    /// The number of entries that are not known.
    unknown: usize,
    /// The rows that have the unique values, if the table has unique indexes.
    uniques: Option<Uniques>,
    owners: Owners,
    /// True if the store has rolled back the sent rows, so that it is unknown which of its rows must be deleted first.
    taken_back: bool,
    bytes: usize,
    /// The place at which the next eviction begins.
    hand: usize,
}

impl<R: Row> Shelf<R> {
    pub(in crate::view) fn new() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            places: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            pending: Vec::new(),
            touched: Vec::new(),
            complete: None,
            unknown: 0,
            uniques: unique::<R>().next().map(|_| Uniques::default()),
            owners: Owners::default(),
            taken_back: false,
            bytes: 0,
            hand: 0,
        }
    }

    /// Returns the place of a key.
    pub(in crate::view) fn find(&self, key: &impl Lookup<R::Key>) -> Option<u32> {
        let mut state = self.hasher.build_hasher();
        key.hash(&mut state);
        self.places.find(state.finish(), |place| key.is(&entry(&self.entries, *place).key)).copied()
    }

    #[expect(clippy::expect_used, reason = "a place in use has an entry")]
    pub(in crate::view) fn entry(&mut self, place: u32) -> &mut Entry<R> {
        let entry = self.entries[place as usize].as_mut().expect("a place in use has an entry");
        entry.used = true;
        entry
    }

    /// Stores a row that was read under `key`, with its segment. Fails if it shows that an earlier event took a unique
    /// value of this row.
    pub(in crate::view) fn keep(
        &mut self,
        key: R::Key,
        row: Option<R>,
        of: Option<Segment>,
        bytes: usize,
    ) -> Result<u32, ViewError> {
        let place = match self.find(&Exactly(&key)) {
            Some(place) => place,
            None => self.add(key),
        };
        if let (Some(uniques), Some(row)) = (&mut self.uniques, &row) {
            for (number, index) in unique::<R>().enumerate() {
                let values = values_in(row, index)?;
                if let Err(clash) = uniques.read(place, number, values.as_deref()) {
                    return Err(self.taken(clash, index, &values.unwrap_or_default()));
                }
            }
        }
        self.know(place);
        let entry = self.entry(place);
        (entry.row, entry.owner) = (row, Owner::stored(of));
        self.weigh(place, bytes);
        Ok(place)
    }

    /// Marks the entry of a place as the one that the transaction sees.
    fn know(&mut self, place: u32) {
        let known = std::mem::replace(&mut self.entry(place).known, true);
        self.unknown -= usize::from(!known);
    }

    /// Adds a place for a key that has none.
    #[expect(clippy::expect_used, reason = "four billion rows do not fit in memory")]
    pub(in crate::view) fn add(&mut self, key: R::Key) -> u32 {
        let hash = self.hasher.hash_one(&key);
        let entry = Entry {
            key,
            row: None,
            known: false,
            changed: false,
            pending: false,
            used: true,
            touched: false,
            owner: Owner::default(),
            bytes: 0,
        };
        self.unknown += 1;
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

    /// Writes a whole row, whether one existed or not.
    pub(in crate::view) fn put(&mut self, mut row: R, by: By) -> Result<(), ViewError> {
        keep_key(&mut row)?;
        let key = row.key();
        let place = match self.find(&Exactly(&key)) {
            Some(place) => place,
            None => {
                let place = self.add(key);
                if self.complete == Some(true) {
                    self.know(place);
                }
                place
            }
        };
        self.set(place, Some(row), by)
    }

    /// Sets or deletes the row of a place.
    pub(in crate::view) fn set(&mut self, place: u32, mut row: Option<R>, by: By) -> Result<(), ViewError> {
        self.own(place, by);
        row.as_mut().map_or(Ok(()), keep_key)?;
        if !self.entry(place).known {
            self.know(place);
            if let Some(uniques) = &mut self.uniques {
                uniques.unseen(place, by.at);
            }
        }
        self.entry(place).row = row;
        self.touch(place);
        self.mark(place);
        Ok(())
    }

    /// Changes the row of a place, if it has one. Fails if its key changes.
    pub(in crate::view) fn change(
        &mut self,
        place: u32,
        by: By,
        change: impl FnOnce(&mut R),
    ) -> Result<bool, ViewError> {
        if self.entry(place).row.is_none() {
            return Ok(false);
        }
        self.own(place, by);
        self.touch(place);
        let entry = self.entry(place);
        // This comes first, so that a row that a panic leaves half changed is rolled back.
        if !(entry.changed && entry.pending) {
            self.mark(place);
        }
        let entry = self.entry(place);
        let Some(row) = &mut entry.row else { return Ok(false) };
        change(row);
        keep_key(row)?;
        if row.has_key(&entry.key) {
            return Ok(true);
        }
        Err(ViewError::KeyChanged { table: R::TABLE.name, key: format!("{:?}", self.entry(place).key) })
    }

    fn touch(&mut self, place: u32) {
        let entry = entry_mut(&mut self.entries, place);
        if !std::mem::replace(&mut entry.touched, true) {
            self.touched.push(place);
        }
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

    #[expect(clippy::expect_used, reason = "only places in use are removed; an entry is found by its key")]
    fn remove(&mut self, place: u32) {
        let entry = self.entries[place as usize].take().expect("only places in use are removed");
        let hash = self.hasher.hash_one(&entry.key);
        let found = self.places.find_entry(hash, |other| *other == place).expect("an entry is found by its key");
        found.remove();
        self.bytes -= entry.bytes as usize;
        self.unknown -= usize::from(!entry.known);
        if let Some(uniques) = &mut self.uniques {
            uniques.forget(place);
        }
        self.free.push(place);
    }

    /// Checks the rows that an event wrote.
    #[expect(clippy::expect_used, reason = "an index is known by its number")]
    fn check(&mut self, at: At) -> Result<(), ViewError> {
        let touched = std::mem::take(&mut self.touched);
        for place in &touched {
            let entry = entry_mut(&mut self.entries, *place);
            entry.touched = false;
            if let Some(row) = &mut entry.row {
                row.check_values()?;
                check_sizes(row)?;
                if !R::EXACT {
                    row.keep()?;
                }
                if !R::EXACT && !row.has_key(&entry.key) {
                    return Err(ViewError::KeyChanged { table: R::TABLE.name, key: format!("{:?}", entry.key) });
                }
            }
        }
        let Some(uniques) = &mut self.uniques else { return Ok(()) };
        let mut wanted = Vec::new();
        for place in touched {
            let row = entry(&self.entries, place).row.as_ref();
            for (number, index) in unique::<R>().enumerate() {
                let values = row.map(|row| values_in(row, index)).transpose()?.flatten();
                wanted.extend(uniques.give_up(place, number, values));
            }
        }
        let all = self.complete == Some(true) && self.unknown == 0 && !uniques.has_unseen();
        for wanted in wanted {
            let (place, number) = (wanted.place, wanted.index);
            if let Err(clash) = uniques.take(wanted, at, all) {
                let index = unique::<R>().nth(number).expect("an index is known by its number");
                let row = entry(&self.entries, place).row.as_ref();
                let values = row.map(|row| values_in(row, index)).transpose()?.flatten();
                return Err(self.taken(clash, index, &values.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Returns the error that two rows would have one value.
    fn taken(&self, clash: Clash, index: &'static Index, values: &[Value]) -> ViewError {
        let mut rows = clash.rows.map(|place| format!("{:?}", entry(&self.entries, place).key));
        rows.sort();
        let value = values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        ViewError::Taken { table: R::TABLE.name, index: index.name, value, rows, at: clash.at }
    }

    /// Asks the store whether rows that are not in memory have the values that were taken. Returns the first event that
    /// took a value of another row.
    #[expect(clippy::expect_used, reason = "it was there before")]
    async fn ask_store(&mut self, writer: &mut dyn ViewWriter) -> Result<Option<ViewError>, ViewError> {
        let Some(uniques) = &mut self.uniques else { return Ok(None) };
        let asked = uniques.ask();
        if asked.is_empty() {
            return Ok(None);
        }
        let is_empty = self.complete.is_none() && self.look_if_empty(writer).await?;
        let mut first: Option<(At, ViewError)> = None;
        for (number, index) in unique::<R>().enumerate() {
            let asked: Vec<&Unasked> = asked.iter().filter(|asked| asked.index == number).collect();
            let values: Vec<Vec<Value>> = asked.iter().map(|asked| asked.values.clone()).collect();
            let rows = if is_empty || values.is_empty() {
                vec![]
            } else {
                writer.rows_with(&R::TABLE, index, &values).await?
            };
            let mut found = vec![None; asked.len()];
            for (at, row) in rows {
                found[at] = Some(R::from_values(row)?.key());
            }
            for (asked, key) in asked.into_iter().zip(found) {
                let found = key.map(|key| self.found(key));
                let uniques = self.uniques.as_mut().expect("it was there before");
                if let Err(clash) = uniques.answer(asked, found)
                    && first.as_ref().is_none_or(|(at, _)| clash.at < *at)
                {
                    first = Some((clash.at, self.taken(clash, index, &asked.values)));
                }
            }
        }
        Ok(first.map(|(_, error)| error))
    }

    /// Returns the place of a row of the store, and adds one if it has none.
    fn found(&mut self, key: R::Key) -> Found {
        let place = match self.find(&Exactly(&key)) {
            Some(place) => place,
            None => self.add(key),
        };
        Found { place, known: self.entry(place).known }
    }

    /// Checks whether the store has no row, so that a row that is not in memory does not exist. It must be called
    /// before any row is written.
    pub(in crate::view) async fn look_if_empty(&mut self, writer: &mut dyn ViewWriter) -> Result<bool, ViewError> {
        let is_empty = writer.is_empty(&R::TABLE).await?;
        self.complete = Some(is_empty);
        Ok(is_empty)
    }

    async fn write(&mut self, writer: &mut dyn ViewWriter) -> Result<(), ViewError> {
        let (table, mut failed) = (R::TABLE, None);
        let mut noted = |values: Result<Vec<Value>, RowError>| values.map_err(|error| failed = Some(error)).ok();
        let (entries, pending) = (&mut self.entries, &self.pending);
        // Deletes come first: a new row may have a value that a unique index would refuse beside the old row. A row
        // whose value moves to another row is written again, and so is a row that another segment had.
        let in_the_way = match &self.uniques {
            Some(_) if self.taken_back => pending.clone(),
            Some(uniques) => uniques.in_the_way(),
            None => vec![],
        };
        let passed_on = |place: &&u32| entry(entries, **place).owner.is_passed_on();
        let goes = |place: &u32| entry(entries, *place).row.is_none();
        let anew = in_the_way.iter().chain(pending.iter().filter(passed_on)).filter(|place| !goes(place));
        let mut deleted = pending.iter().filter(|place| goes(place)).chain(anew);
        if let Some(first) = deleted.next() {
            let deleted = std::iter::once(first).chain(deleted).map(|place| entry(entries, *place));
            let mut keys =
                deleted.map_while(|entry| Some((entry.owner.deleted_for(), noted(R::key_values(&entry.key))?)));
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
            Some((entry.owner.put_for(), noted(values)?))
        });
        writer.put(&table, &mut rows).await?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Converts the key to its stored form, in which it is known even within an event.
fn keep_key<R: Row>(row: &mut R) -> Result<(), ViewError> {
    if R::KEY_EXACT { Ok(()) } else { Ok(row.keep()?) }
}

/// The event and the segment for which a row is written.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::view) struct By {
    /// True if only events of one segment may write a row.
    pub(in crate::view) asks: bool,
    /// The segment of the event, if `asks` is set.
    pub(in crate::view) segment: Option<Segment>,
    /// The event.
    pub(in crate::view) at: At,
}

/// Returns the unique indexes of a table. Their order gives their numbers.
fn unique<R: Row>() -> impl Iterator<Item = &'static Index> {
    R::TABLE.indexes.iter().filter(|index| index.unique)
}

/// Returns the value of a row in a unique index; `None` if a part of it is NULL, which equals nothing.
fn values_in<R: Row>(row: &R, index: &Index) -> Result<Option<Vec<Value>>, RowError> {
    let values = index.columns.iter().map(|place| row.column_value(*place)).collect::<Result<Vec<_>, _>>()?;
    Ok(values.iter().all(|value| *value != Value::Null).then_some(values))
}

/// Refuses values that some store cannot index.
fn check_sizes<R: Row>(row: &R) -> Result<(), ViewError> {
    let table = R::TABLE;
    let bytes_in = |columns: &[usize]| columns.iter().map(|place| row.column_bytes(*place)).sum::<usize>();
    let too_long = |index: Option<&'static str>, bytes| ViewError::TooLong { table: table.name, index, bytes };
    if is_sized(&table, table.key) && bytes_in(table.key) > limits::INDEX_BYTES_MAX {
        return Err(too_long(None, bytes_in(table.key)));
    }
    for index in table.indexes.iter().filter(|index| is_sized(&table, index.columns)) {
        if bytes_in(index.columns) > limits::INDEX_BYTES_MAX {
            return Err(too_long(Some(index.name), bytes_in(index.columns)));
        }
    }
    Ok(())
}

/// Returns true if values in these columns can have any size.
fn is_sized(table: &Table, columns: &[usize]) -> bool {
    let any =
        |place: &usize| matches!(table.columns[*place].kind, ColumnKind::Text | ColumnKind::Bytes | ColumnKind::Json);
    columns.iter().any(any)
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

#[expect(clippy::expect_used, reason = "a place in use has an entry")]
fn entry<R: Row>(entries: &[Option<Entry<R>>], place: u32) -> &Entry<R> {
    entries[place as usize].as_ref().expect("a place in use has an entry")
}

#[expect(clippy::expect_used, reason = "a place in use has an entry")]
fn entry_mut<R: Row>(entries: &mut [Option<Entry<R>>], place: u32) -> &mut Entry<R> {
    entries[place as usize].as_mut().expect("a place in use has an entry")
}

/// Returns about how many bytes an entry with these values takes in memory. The texts of a key are there twice.
pub(in crate::view) fn row_bytes<R: Row>(values: &[Value]) -> usize {
    let heap = |value: &Value| match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    let of = |columns: &[usize]| columns.iter().filter_map(|place| values.get(*place)).map(heap).sum::<usize>();
    let uniques: usize = unique::<R>().map(|index| UNIQUE_BYTES + of(index.columns)).sum();
    size_of::<Entry<R>>() + ENTRY_BYTES + values.iter().map(heap).sum::<usize>() + of(R::TABLE.key) + uniques
}
