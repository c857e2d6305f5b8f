//! Values that only one row of a table may have, checked after each event.
//!
//! The store checks its unique indexes row by row while a batch is written. But only the state after each event counts,
//! wherever batches end. So this module records which row has which value, and checks it at the end of an event. Within
//! an event, values may move from row to row. The store is asked about rows that are not in memory, for many values at
//! once, before rows are written. Then the first event that took another row's value is refused.
//!
//! ```text
//!             event ends                   before rows are written                 written
//!  unknown ───────────────▶ taken, unasked ───────────────────────▶ taken, stored ─────────▶ taken by the row that has it
//!                                 │                                      │
//!                                 └─ another row has it in the store     └─ the row that had it is deleted first
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use dacapo_model::Position;
use dacapo_store::Value;

/// A value of one unique index, as bytes. Two are equal if the indexes of the stores consider them equal.
type Key = Arc<[u8]>;

/// The event, or `None` for changes outside of events, which count as earlier than all events.
pub(super) type At = Option<Position>;

/// The rows that have the values. Rows are identified by their places on the shelf.
#[derive(Default)]
pub(super) struct Uniques {
    taken: HashMap<Key, Taken, foldhash::fast::RandomState>,
    /// By place, the values of its row in each of the unique indexes.
    has: Vec<Box<[Option<Key>]>>,
    /// The values about which the store was not asked yet.
    unasked: Vec<Unasked>,
    /// The values that moved to another row, or to none, since rows were last written.
    moved: Vec<Key>,
    /// The rows that were written without reading them from the store, each with the first event that wrote it.
    unseen: HashMap<u32, At>,
}

struct Taken {
    by: Option<u32>,
    stored: Stored,
}

/// The row that has a value in the store.
enum Stored {
    /// A row that is not in memory may have it. This event took it first, for this row.
    Unasked {
        since: At,
        first: u32,
    },
    Nobody,
    By(u32),
}

/// A value about which the store will be asked.
pub(super) struct Unasked {
    key: Key,
    /// The number of its index among the unique ones.
    pub(super) index: usize,
    pub(super) values: Vec<Value>,
}

/// A value that two rows would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// The event after which they would have it.
    pub(super) at: At,
    /// The two rows.
    pub(super) rows: [u32; 2],
}

/// The value that a row will have in an index: the number of the index, and the value in bytes and as it is; nothing if
/// a part of it is NULL, which equals nothing.
pub(super) struct Wanted {
    pub(super) place: u32,
    pub(super) index: usize,
    key: Key,
    values: Vec<Value>,
}

impl Uniques {
    /// Records the value of a row that was read from the store. It has been there since before the first event that is
    /// not written.
    pub(super) fn read(&mut self, place: u32, index: usize, values: Option<&[Value]>) -> Result<(), Clash> {
        let Some(values) = values else { return Ok(()) };
        let key: Key = encoded(index, values).into();
        if let Some(taken) = self.taken.get(&key) {
            return match (&taken.stored, taken.by) {
                (_, Some(by)) if by == place => Ok(()),
                (Stored::Unasked { since, first }, _) => Err(Clash { at: *since, rows: [*first, place] }),
                // The rows in memory are no longer those of the store, which the commit will report.
                (_, by) => Err(Clash { at: None, rows: [by.unwrap_or(place), place] }),
            };
        }
        self.taken.insert(Arc::clone(&key), Taken { by: Some(place), stored: Stored::By(place) });
        self.set(place, index, Some(key));
        Ok(())
    }

    /// Records that a row is written whose stored values are unknown.
    pub(super) fn unseen(&mut self, place: u32, at: At) {
        self.unseen.entry(place).or_insert(at);
    }

    /// Returns true if there are such rows that are not written yet.
    pub(super) fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Releases the value that a row had in an index before an event, and returns the value that it will have. Returns
    /// `None` if it is the same.
    #[expect(clippy::expect_used, reason = "what a row has is taken")]
    pub(super) fn give_up(&mut self, place: u32, index: usize, values: Option<Vec<Value>>) -> Option<Wanted> {
        let key = values.as_ref().map(|values| encoded(index, values));
        let had = self.has.get(place as usize).and_then(|has| has.get(index)?.as_ref());
        if had.map(|had| &**had) == key.as_deref() {
            return None;
        }
        if let Some(had) = had.map(Arc::clone) {
            let taken = self.taken.get_mut(&had).expect("what a row has is taken");
            taken.by = None;
            self.moved.push(had);
            self.set(place, index, None);
        }
        Some(Wanted { place, index, key: key?.into(), values: values? })
    }

    /// Gives a row its new value, after every row of the event has released its old one. `all` is true if the values of
    /// every row are known.
    pub(super) fn take(&mut self, wanted: Wanted, at: At, all: bool) -> Result<(), Clash> {
        let Wanted { place, index, key, values } = wanted;
        match self.taken.get_mut(&key) {
            Some(Taken { by: Some(by), .. }) => return Err(Clash { at, rows: [*by, place] }),
            Some(taken) => taken.by = Some(place),
            None => {
                let stored = if all { Stored::Nobody } else { Stored::Unasked { since: at, first: place } };
                if !all {
                    self.unasked.push(Unasked { key: Arc::clone(&key), index, values });
                }
                self.taken.insert(Arc::clone(&key), Taken { by: Some(place), stored });
            }
        }
        self.moved.push(Arc::clone(&key));
        self.set(place, index, Some(key));
        Ok(())
    }

    /// Returns the number of values about which the store will be asked.
    pub(super) fn unasked(&self) -> usize {
        self.unasked.len()
    }

    /// Returns the values to ask the store about. The answers go to [`answer`](Self::answer).
    pub(super) fn ask(&mut self) -> Vec<Unasked> {
        std::mem::take(&mut self.unasked)
    }

    /// Records the answer of the store: the row that has the value there, with its place if it has one.
    #[expect(clippy::expect_used, reason = "what is asked about was taken")]
    pub(super) fn answer(&mut self, asked: &Unasked, found: Option<Found>) -> Result<(), Clash> {
        let taken = self.taken.get_mut(&asked.key).expect("what is asked about was taken");
        let Stored::Unasked { since, first } = taken.stored else { return Ok(()) };
        taken.stored = Stored::Nobody;
        let Some(found) = found else { return Ok(()) };
        let Found { place, known } = found;
        // The row has released the value if it was written before another row took it. Its stored value was not known
        // then.
        let gave_up = self.unseen.get(&place).is_some_and(|written| *written <= since);
        if place != first && !(known && gave_up) {
            return Err(Clash { at: since, rows: [first, place] });
        }
        taken.stored = Stored::By(place);
        Ok(())
    }

    /// Returns the rows that must be deleted in the store before other rows get their old values.
    pub(super) fn in_the_way(&self) -> Vec<u32> {
        let mut rows: Vec<u32> = self.moved.iter().filter_map(|key| self.taken.get(key)?.in_the_way()).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Records that the rows are written, so the store has their values.
    pub(super) fn written(&mut self) {
        for key in self.moved.drain(..) {
            match self.taken.get_mut(&key) {
                Some(Taken { by: None, .. }) => drop(self.taken.remove(&key)),
                Some(taken) => taken.stored = taken.by.map_or(Stored::Nobody, Stored::By),
                None => {}
            }
        }
        self.unseen.clear();
    }

    /// Records that these rows are rolled back. Their values are unknown now.
    pub(super) fn rolled_back(&mut self, rows: impl Iterator<Item = u32>) {
        for key in self.moved.drain(..) {
            self.taken.remove(&key);
        }
        (self.unasked, self.unseen) = (Vec::new(), HashMap::new());
        rows.for_each(|place| self.forget(place));
    }

    /// Records that a row leaves the shelf.
    pub(super) fn forget(&mut self, place: u32) {
        let Some(has) = self.has.get_mut(place as usize) else { return };
        for key in std::mem::take(has).into_iter().flatten() {
            self.taken.remove(&key);
        }
    }

    fn set(&mut self, place: u32, index: usize, key: Option<Key>) {
        let at = place as usize;
        if self.has.len() <= at {
            self.has.resize_with(at + 1, Box::default);
        }
        let has = &mut self.has[at];
        if has.len() <= index {
            let mut more = std::mem::take(has).into_vec();
            more.resize(index + 1, None);
            *has = more.into_boxed_slice();
        }
        has[index] = key;
    }
}

impl Taken {
    /// Returns the row that has the value in the store, if another row has it now.
    fn in_the_way(&self) -> Option<u32> {
        match (&self.stored, self.by) {
            (Stored::By(stored), Some(by)) if *stored != by => Some(*stored),
            _ => None,
        }
    }
}

/// A row of the store that is on the shelf.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) place: u32,
    /// True if its present values are known.
    pub(super) known: bool,
}

/// Returns the values of one index, each of the kind of its column, as bytes that are equal if the stores consider the
/// values equal.
#[expect(clippy::expect_used, reason = "a table has few indexes")]
fn encoded(index: usize, values: &[Value]) -> Vec<u8> {
    let index = u16::try_from(index).expect("a table has few indexes");
    let mut bytes = index.to_le_bytes().to_vec();
    for value in values {
        match value {
            Value::Null => unreachable!("what has no value is not taken"),
            Value::Text(text) | Value::Json(text) => sized(&mut bytes, text.as_bytes()),
            Value::Bytes(own) => sized(&mut bytes, own),
            Value::Integer(number) => bytes.extend(number.to_le_bytes()),
            // The two zeros are equal.
            Value::Float(number) => bytes.extend((number + 0.0).to_bits().to_le_bytes()),
            Value::Boolean(truth) => bytes.push(u8::from(*truth)),
            Value::Time(time) => bytes.extend(time.micros().to_le_bytes()),
            Value::Uuid(id) => bytes.extend(id),
        }
    }
    bytes
}

fn sized(bytes: &mut Vec<u8>, own: &[u8]) {
    bytes.extend((own.len() as u64).to_le_bytes());
    bytes.extend(own);
}
