//! Values that only one row of a table may have, as they are after each event.
//!
//! The store asks its unique indexes row by row while a batch is written. What counts is the state after each event,
//! wherever batches end. So it is kept here which row has which value, and looked at when an event ends: within an event
//! values may move from row to row as they like. What the store has of rows that are not in memory is asked for many
//! values together, before rows are written; then it is the first event that took the value which is refused.
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

/// A value of one unique index, as bytes: two are equal where the stores' indexes find them to be.
type Key = Arc<[u8]>;

/// Which event, or none: what is done beside events counts as one that comes before all.
pub(super) type At = Option<Position>;

/// Who has which value. Rows are named by their places on the shelf.
#[derive(Default)]
pub(super) struct Uniques {
    taken: HashMap<Key, Taken, foldhash::fast::RandomState>,
    /// By place, what its row has in each of the unique indexes.
    has: Vec<Box<[Option<Key>]>>,
    /// What the store was not asked about yet.
    unasked: Vec<Unasked>,
    /// What went to another row, or to none, since rows were last written.
    moved: Vec<Key>,
    /// Rows that were written without a look at what the store has of them, and by which event first.
    unseen: HashMap<u32, At>,
}

struct Taken {
    by: Option<u32>,
    stored: Stored,
}

/// Which row has a value in the store.
enum Stored {
    /// Whoever has it, it is not in memory. It was taken first by this event, for this row.
    Unasked {
        since: At,
        first: u32,
    },
    Nobody,
    By(u32),
}

/// A value that the store is to be asked about.
pub(super) struct Unasked {
    key: Key,
    /// The number of its index among the unique ones.
    pub(super) index: usize,
    pub(super) values: Vec<Value>,
}

/// A value that two rows would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// The event after which they would.
    pub(super) at: At,
    /// The two rows.
    pub(super) rows: [u32; 2],
}

/// What a row is to have in an index: its number, and the value, in bytes and as it is. Nothing where a part of it is NULL,
/// which equals nothing.
pub(super) struct Wanted {
    pub(super) place: u32,
    pub(super) index: usize,
    key: Key,
    values: Vec<Value>,
}

impl Uniques {
    /// What the store has of a row that was read: it has been there since before the first event that is not written.
    pub(super) fn read(&mut self, place: u32, index: usize, values: Option<&[Value]>) -> Result<(), Clash> {
        let Some(values) = values else { return Ok(()) };
        let key: Key = encoded(index, values).into();
        if let Some(taken) = self.taken.get(&key) {
            return match (&taken.stored, taken.by) {
                (_, Some(by)) if by == place => Ok(()),
                (Stored::Unasked { since, first }, _) => Err(Clash { at: *since, rows: [*first, place] }),
                // The rows in memory are not those of the store any more, which the commit will say.
                (_, by) => Err(Clash { at: None, rows: [by.unwrap_or(place), place] }),
            };
        }
        self.taken.insert(Arc::clone(&key), Taken { by: Some(place), stored: Stored::By(place) });
        self.set(place, index, Some(key));
        Ok(())
    }

    /// A row is written of which nobody knows what the store has.
    pub(super) fn unseen(&mut self, place: u32, at: At) {
        self.unseen.entry(place).or_insert(at);
    }

    /// Whether there are such rows that are not written yet.
    pub(super) fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// What a row has in an index after an event, unless it had that before: it has given up what it had then.
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

    /// Gives a row what it is to have, once every row of the event has given up what it had. With `all` it is known of
    /// every row what it has.
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

    /// How many values the store is to be asked about.
    pub(super) fn unasked(&self) -> usize {
        self.unasked.len()
    }

    /// What the store is to be asked about, which [`answer`](Self::answer) is told the answers to.
    pub(super) fn ask(&mut self) -> Vec<Unasked> {
        std::mem::take(&mut self.unasked)
    }

    /// The store has nothing else than what it has said: the row, at its place if it has one, that has what was asked.
    #[expect(clippy::expect_used, reason = "what is asked about was taken")]
    pub(super) fn answer(&mut self, asked: &Unasked, found: Option<Found>) -> Result<(), Clash> {
        let taken = self.taken.get_mut(&asked.key).expect("what is asked about was taken");
        let Stored::Unasked { since, first } = taken.stored else { return Ok(()) };
        taken.stored = Stored::Nobody;
        let Some(found) = found else { return Ok(()) };
        let Found { place, known } = found;
        // It has given it up, if it was written before another took it; what it had was not looked at then.
        let gave_up = self.unseen.get(&place).is_some_and(|written| *written <= since);
        if place != first && !(known && gave_up) {
            return Err(Clash { at: since, rows: [first, place] });
        }
        taken.stored = Stored::By(place);
        Ok(())
    }

    /// The rows of which the store must let go before others have what they had.
    pub(super) fn in_the_way(&self) -> Vec<u32> {
        let mut rows: Vec<u32> = self.moved.iter().filter_map(|key| self.taken.get(key)?.in_the_way()).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The rows are written: the store has what they have.
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

    /// These rows are what they were, which nobody knows now.
    pub(super) fn rolled_back(&mut self, rows: impl Iterator<Item = u32>) {
        for key in self.moved.drain(..) {
            self.taken.remove(&key);
        }
        (self.unasked, self.unseen) = (Vec::new(), HashMap::new());
        rows.for_each(|place| self.forget(place));
    }

    /// A row leaves the shelf.
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
    /// The row that has it in the store, where another one has it now.
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
    /// Whether it is known what it is now.
    pub(super) known: bool,
}

/// Values of one index, all of the kinds of its columns, as bytes that are equal where the stores find the values to be.
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
