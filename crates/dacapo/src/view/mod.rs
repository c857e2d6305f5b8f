//! Views as handlers and queries meet them.
//!
//! [`View`] is what a handler changes: rows by key, kept in memory and handed to the store as one bulk
//! statement a table when the batch is committed. [`ReadView`] is what a query reads: one state of the rows.
//!
//! The rows in memory are the handler's own copy of what is committed, plus the changes of the batch. They stay
//! from batch to batch, because nobody else writes to the view: a claim by another is noticed by the commit,
//! which is refused (I-4), and then all that was not committed is forgotten.
//!
//! At the end of each event the rows that it wrote are made what a store gives back of them, so that it makes no difference
//! whether the next event finds them in memory or in the store. A key is in that form from the beginning.

mod batch;
mod emitter;
mod error;
mod indexes;
mod lookup;
#[cfg(test)]
mod owner_tests;
mod read;
mod shelf;
#[cfg(test)]
mod tests;
mod unique;
#[cfg(test)]
mod unique_tests;

use std::any::{TypeId, type_name};

use dacapo_store::{Table, Value, ViewWriter};

pub use error::ViewError;
pub use lookup::Lookup;
pub use read::{ReadView, Rows};

pub(crate) use error::NotCommitted;

use crate::effect::Effect;
use crate::row::Row;
use emitter::Emitter;
use lookup::Kept;
use shelf::{AnyShelf, By, Shelf, row_bytes};

/// The rows of a view, as a handler changes them.
///
/// ```
/// # use dacapo::{Row, View};
/// # use dacapo::rows::ViewError;
/// #[derive(Clone, Row)]
/// #[row(table = "accounts")]
/// struct Account {
///     #[row(key)]
///     id: String,
///     balance: i64,
/// }
///
/// async fn deposited(view: &mut View, account: &str, amount: i64) -> Result<(), ViewError> {
///     view.update::<Account>(account, |row| row.balance += amount).await?;
///     Ok(())
/// }
/// ```
pub struct View {
    writer: Box<dyn ViewWriter>,
    tables: &'static [Table],
    shelves: Vec<(TypeId, &'static str, Box<dyn AnyShelf>)>,
    bytes_max: usize,
    /// Whether SQL of this batch wrote rows, which nobody but the store's transaction knows.
    wrote_sql: bool,
    /// Whether anything of this batch was sent to the store before its end.
    sent: bool,
    /// Whether a row is to be written by events of one segment only.
    of_one_segment: bool,
    /// The event that is being applied, and its segment where that is so.
    by: By,
    /// How many values were taken that only one row may have, without a look whether another row has them, and how many rows
    /// were written without a look whose they are.
    unasked: usize,
    /// From how many on the batch ends: fewer after an event was found only so that takes what another row has, which
    /// costs what came after it in its batch.
    unasked_max: usize,
    /// What is emitted in this batch, if the projection reacts.
    emitter: Option<Emitter>,
    /// How many changes were begun: whether a handler that failed had changed anything.
    changes: u64,
    indexes: Indexes,
    /// A mistake after which the rows in memory are not what they should be; the batch cannot be committed.
    mistake: Option<ViewError>,
}

const OF_ITS_ROWS: &str = "a shelf is found by the type of its rows";

/// Whether the tables have the indexes that they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Indexes {
    There,
    Missing,
    /// They are missing, and SQL of this transaction cannot do without.
    Wanted,
}

impl View {
    /// Lets an effect follow from the event that is being applied. It is kept with the rows of this batch, in one
    /// transaction, and made after that at least once; see [`Acts`](crate::effects::Acts). Where another version speaks for the
    /// event, or this one has come past it before, it goes nowhere: emit whatever the event means, without asking.
    ///
    /// # Errors
    /// [`ViewError::Effect`] when nothing acts on such effects, or it cannot be kept.
    pub fn emit<E: Effect>(&mut self, effect: &E) -> Result<(), ViewError> {
        self.changes += 1;
        let emitted = match &mut self.emitter {
            Some(emitter) => emitter.emit(effect),
            None => Err("nothing acts on effects of this projection: carry it with `acts`".to_owned()),
        };
        emitted.map_err(|why| ViewError::Effect { name: E::NAME, why })
    }

    /// The row with this key.
    ///
    /// # Errors
    /// [`ViewError`] when the store cannot read it.
    pub async fn get<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<Option<&R>, ViewError> {
        let Some(place) = self.locate::<R>(key).await? else { return Ok(None) };
        Ok(self.shelf::<R>()?.entry(place).row.as_ref())
    }

    /// Writes a row whole, in place of one with the same key.
    ///
    /// # Errors
    /// [`ViewError::NoTable`], [`ViewError::OtherTable`], [`ViewError::TwoTypes`]; [`ViewError::Row`] when a store cannot
    /// keep its key.
    pub fn put<R: Row>(&mut self, row: R) -> Result<(), ViewError> {
        self.changes += 1;
        let by = self.by;
        let put = self.shelf::<R>()?.put(row, by);
        self.noted(put)
    }

    /// Changes the row with this key; `false` when there is none.
    ///
    /// # Errors
    /// [`ViewError`] when the store cannot read it, or when the change touches the key.
    pub async fn update<R: Row>(
        &mut self,
        key: impl Lookup<R::Key>,
        change: impl FnOnce(&mut R),
    ) -> Result<bool, ViewError> {
        let Some(place) = self.locate::<R>(key).await? else { return Ok(false) };
        self.changes += 1;
        let by = self.by;
        let changed = self.shelf::<R>()?.change(place, by, change);
        self.noted(changed)
    }

    /// Changes the row with this key, which begins as `default` when there is none.
    ///
    /// # Errors
    /// [`ViewError`] when the store cannot read it, or when `default` or the change give it another key.
    pub async fn upsert<R: Row>(
        &mut self,
        key: impl Lookup<R::Key>,
        default: impl FnOnce() -> R,
        change: impl FnOnce(&mut R),
    ) -> Result<(), ViewError> {
        let place = self.locate_or_add::<R>(key).await?;
        self.changes += 1;
        let by = self.by;
        let shelf = self.shelf::<R>()?;
        let made = if shelf.entry(place).row.is_none() { shelf.set(place, Some(default()), by) } else { Ok(()) };
        let changed = made.and_then(|()| shelf.change(place, by, change));
        self.noted(changed).map(drop)
    }

    /// Deletes the row with this key; `false` when there is none.
    ///
    /// # Errors
    /// [`ViewError`] when the store cannot look for it.
    pub async fn delete<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<bool, ViewError> {
        let Some(place) = self.locate::<R>(key).await? else { return Ok(false) };
        self.changes += 1;
        let by = self.by;
        let shelf = self.shelf::<R>()?;
        let there = shelf.entry(place).row.is_some();
        let deleted = if there { shelf.set(place, None, by) } else { Ok(()) };
        self.noted(deleted).map(|()| there)
    }

    /// Carries out one SQL statement that writes, for what rows cannot say, and returns how many rows it
    /// changed. Its parameters are `$1`, `$2` and so on. It sees every change of the batch so far. The rows in memory are forgotten, since it may have
    /// changed any of them, so this costs more than it seems: not for every event.
    ///
    /// # Errors
    /// [`ViewError`] when the statement is wrong; [`ViewError::Unindexed`] while the view goes without its indexes.
    pub async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, ViewError> {
        self.need_indexes()?;
        self.write(sql, parameters).await
    }

    async fn write(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, ViewError> {
        self.changes += 1;
        self.keep_segments().await?;
        self.flush().await?;
        self.wrote_sql = true;
        self.shelves.iter_mut().for_each(|(.., shelf)| shelf.forget());
        Ok(self.writer.execute(sql, parameters).await?)
    }

    /// Deletes every row of every table of the projection.
    ///
    /// # Errors
    /// [`ViewError`] when the store cannot do it.
    pub async fn clear(&mut self) -> Result<(), ViewError> {
        for table in self.tables {
            self.write(&format!("DELETE FROM \"{}\"", table.name.replace('"', "\"\"")), &[]).await?;
        }
        Ok(())
    }

    /// The rows that a SQL query gives. It sees every change of the batch so far, which are handed to the
    /// store for that.
    ///
    /// # Errors
    /// [`ViewError`] when the statement is wrong or would write; [`ViewError::Unindexed`] while the view goes without its
    /// indexes.
    pub async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, ViewError> {
        self.need_indexes()?;
        // It changes nothing, but should it be cut off, nobody knows what the transaction was handed.
        self.changes += 1;
        self.keep_segments().await?;
        self.flush().await?;
        Ok(self.writer.query(sql, parameters).await?)
    }

    /// The place of the row with this key, if there may be one: its entry is known.
    async fn locate<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<Option<u32>, ViewError> {
        match R::KEY_EXACT {
            true => self.locate_kept::<R>(key).await,
            false => self.locate_kept::<R>(Kept(R::kept_key(key.into_key())?)).await,
        }
    }

    async fn locate_kept<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<Option<u32>, ViewError> {
        let shelf = self.shelf::<R>()?;
        let found = shelf.find(&key);
        match found {
            Some(place) if shelf.entry(place).known => Ok(Some(place)),
            None if shelf.complete == Some(true) => Ok(None),
            _ => self.fetch::<R>(key.into_key()).await,
        }
    }

    /// The place of the row with this key, made if it has none: its entry is known.
    async fn locate_or_add<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<u32, ViewError> {
        match R::KEY_EXACT {
            true => self.locate_kept_or_add::<R>(key).await,
            false => self.locate_kept_or_add::<R>(Kept(R::kept_key(key.into_key())?)).await,
        }
    }

    async fn locate_kept_or_add<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<u32, ViewError> {
        let shelf = self.shelf::<R>()?;
        let found = shelf.find(&key);
        if let Some(place) = found
            && shelf.entry(place).known
        {
            return Ok(place);
        }
        let key = key.into_key();
        let maybe_stored = shelf.complete != Some(true) || found.is_some();
        if maybe_stored && let Some(place) = self.fetch::<R>(key.clone()).await? {
            return Ok(place);
        }
        self.shelf::<R>()?.keep(key, None, None, 0)
    }

    /// Asks the store for a row that is not known here.
    #[expect(clippy::expect_used, reason = "a shelf is of the type of row that it was made for")]
    async fn fetch<R: Row>(&mut self, key: R::Key) -> Result<Option<u32>, ViewError> {
        let table = R::TABLE;
        if self.shelf::<R>()?.complete.is_none() {
            let at = self.shelf_at::<R>()?;
            let shelf = self.shelves[at].2.as_any().downcast_mut::<Shelf<R>>();
            if shelf.expect(OF_ITS_ROWS).look_if_empty(&mut *self.writer).await? {
                return Ok(None);
            }
        }
        let stored = R::key_values(&key)?;
        let (of, values) = match self.of_one_segment {
            true => self.writer.load_of(&table, &stored).await?.map_or((None, None), |(of, row)| (of, Some(row))),
            false => (None, self.writer.load(&table, &stored).await?),
        };
        let bytes = values.as_ref().map_or(size_of::<R::Key>(), |values| row_bytes::<R>(values));
        let row = values.map(R::from_values).transpose()?;
        let kept = self.shelf::<R>()?.keep(key, row, of, bytes);
        self.noted(kept).map(Some)
    }

    /// The shelf of a type of row, made when it is first asked for.
    #[expect(clippy::expect_used, reason = "a shelf is of the type of row that it was made for")]
    fn shelf<R: Row>(&mut self) -> Result<&mut Shelf<R>, ViewError> {
        let at = self.shelf_at::<R>()?;
        Ok(self.shelves[at].2.as_any().downcast_mut().expect(OF_ITS_ROWS))
    }

    fn shelf_at<R: Row>(&mut self) -> Result<usize, ViewError> {
        let id = TypeId::of::<R>();
        match self.shelves.iter().position(|(known, ..)| *known == id) {
            Some(at) => Ok(at),
            None => self.add_shelf::<R>(),
        }
    }

    fn add_shelf<R: Row>(&mut self) -> Result<usize, ViewError> {
        let (table, row) = (R::TABLE.name, type_name::<R>());
        // Always, not only when it is the second type of the table: which one was the first is forgotten by a restart.
        match self.tables.iter().find(|known| known.name == table) {
            None => return Err(ViewError::NoTable { table, row }),
            Some(known) if *known != R::TABLE => return Err(ViewError::OtherTable { table, row }),
            Some(_) => {}
        }
        if let Some((_, first, _)) = self.shelves.iter().find(|(.., shelf)| shelf.table() == table) {
            return Err(ViewError::TwoTypes { table, first, second: row });
        }
        self.shelves.push((TypeId::of::<R>(), row, Box::new(Shelf::<R>::new())));
        Ok(self.shelves.len() - 1)
    }

    /// Keeps in mind that a change went wrong, so that a handler that goes on all the same commits nothing.
    fn noted<T>(&mut self, result: Result<T, ViewError>) -> Result<T, ViewError> {
        if let Err(error) = &result {
            self.mistake.get_or_insert_with(|| error.clone());
        }
        result
    }
}
