//! Views, as handlers and queries see them.
//!
//! A handler changes a [`View`]: rows by key, which stay in memory and go to the store as one bulk statement for each
//! table when the batch is committed. A query reads a [`ReadView`]: one state of the rows.
//!
//! The rows in memory are the handler's own copy of the committed rows, plus the changes of the batch. They stay from
//! batch to batch, because nobody else writes to the view. If another member has claimed it, the commit is refused
//! (I-4), and then all changes that were not committed are forgotten.
//!
//! At the end of each event the rows that it wrote are converted to the form that a store returns. So the next event
//! finds the same rows in memory and in the store. A key is in that form from the beginning.

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
    /// True if SQL of this batch wrote rows, which only the store's transaction knows.
    wrote_sql: bool,
    /// True if any change of this batch was sent to the store before the batch's end.
    sent: bool,
    /// True if only events of one segment may write a row.
    of_one_segment: bool,
    /// The event that is being applied, and its segment if `of_one_segment` is set.
    by: By,
    /// The number of unique values that were taken, and of rows that were written, without a check in the store whether
    /// another row or another segment has them.
    unasked: usize,
    /// The number at which the batch ends. It is lower after such a check found an event that takes another row's
    /// value, since the events after it in its batch are then applied again.
    unasked_max: usize,
    /// The effects of this batch, if the projection makes effects.
    emitter: Option<Emitter>,
    /// The number of changes that were begun. It shows whether a failed handler has changed anything.
    changes: u64,
    indexes: Indexes,
    /// A fault after which the rows in memory are wrong, so that the batch cannot be committed.
    mistake: Option<ViewError>,
}

const OF_ITS_ROWS: &str = "a shelf is found by the type of its rows";

/// The state of the indexes that the tables declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Indexes {
    There,
    Missing,
    /// They are missing, and SQL of this transaction needs them.
    Wanted,
}

impl View {
    /// Emits an effect of the event that is being applied. The effect is stored with the rows of this batch, in one
    /// transaction, and made after that at least once; see [`Acts`](crate::effects::Acts). If another version is
    /// responsible for this event, or this version has already processed it, the effect is discarded. So emit
    /// unconditionally.
    ///
    /// # Errors
    /// [`ViewError::Effect`] if the projection does not make such effects, or if the effect cannot be stored.
    pub fn emit<E: Effect>(&mut self, effect: &E) -> Result<(), ViewError> {
        self.changes += 1;
        let emitted = match &mut self.emitter {
            Some(emitter) => emitter.emit(effect),
            None => Err("this projection makes no effects: add them with `acting`".to_owned()),
        };
        emitted.map_err(|why| ViewError::Effect { name: E::NAME, why })
    }

    /// Returns the row with this key.
    ///
    /// # Errors
    /// [`ViewError`] if the store cannot read it.
    pub async fn get<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<Option<&R>, ViewError> {
        let Some(place) = self.locate::<R>(key).await? else { return Ok(None) };
        Ok(self.shelf::<R>()?.entry(place).row.as_ref())
    }

    /// Writes a whole row. It replaces a row with the same key.
    ///
    /// # Errors
    /// [`ViewError::NoTable`], [`ViewError::OtherTable`], [`ViewError::TwoTypes`]; [`ViewError::Row`] if a store cannot
    /// keep its key.
    pub fn put<R: Row>(&mut self, row: R) -> Result<(), ViewError> {
        self.changes += 1;
        let by = self.by;
        let put = self.shelf::<R>()?.put(row, by);
        self.noted(put)
    }

    /// Changes the row with this key. Returns false if there is none.
    ///
    /// # Errors
    /// [`ViewError`] if the store cannot read it, or if the change affects the key.
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

    /// Changes the row with this key, which begins as `default` if there is none.
    ///
    /// # Errors
    /// [`ViewError`] if the store cannot read it, or if `default` or the change give it another key.
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

    /// Deletes the row with this key. Returns false if there is none.
    ///
    /// # Errors
    /// [`ViewError`] if the store cannot look for it.
    pub async fn delete<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<bool, ViewError> {
        let Some(place) = self.locate::<R>(key).await? else { return Ok(false) };
        self.changes += 1;
        let by = self.by;
        let shelf = self.shelf::<R>()?;
        let there = shelf.entry(place).row.is_some();
        let deleted = if there { shelf.set(place, None, by) } else { Ok(()) };
        self.noted(deleted).map(|()| there)
    }

    /// Executes one SQL statement that writes, for changes that rows cannot express, and returns the number of rows
    /// that it changed. Its parameters are `$1`, `$2` and so on. It sees every change of the batch so far. It may
    /// change any row, so the rows in memory are forgotten. This is expensive: do not call it for every event.
    ///
    /// # Errors
    /// [`ViewError`] if the statement is wrong; [`ViewError::Unindexed`] while the view has no indexes yet.
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
    /// [`ViewError`] if the store cannot do it.
    pub async fn clear(&mut self) -> Result<(), ViewError> {
        for table in self.tables {
            self.write(&format!("DELETE FROM \"{}\"", table.name.replace('"', "\"\"")), &[]).await?;
        }
        Ok(())
    }

    /// Returns the rows of an SQL query. It sees every change of the batch so far, which are sent to the store first.
    ///
    /// # Errors
    /// [`ViewError`] if the statement is wrong or would write; [`ViewError::Unindexed`] while the view has no indexes
    /// yet.
    pub async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, ViewError> {
        self.need_indexes()?;
        // The query changes nothing. But if it is interrupted, it is unknown which changes the transaction has
        // received.
        self.changes += 1;
        self.keep_segments().await?;
        self.flush().await?;
        Ok(self.writer.query(sql, parameters).await?)
    }

    /// Returns the place of the row with this key, if it may exist. Its entry is known.
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

    /// Returns the place of the row with this key, and adds one if it has none. Its entry is known.
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

    /// Asks the store for a row that is not known in memory.
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

    /// Returns the shelf of a type of row. The first use makes it.
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
        // This is checked always, not only for the second type of the table: a restart forgets which type was the
        // first.
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

    /// Remembers that a change failed, so that a handler that continues despite that commits nothing.
    fn noted<T>(&mut self, result: Result<T, ViewError>) -> Result<T, ViewError> {
        if let Err(error) = &result {
            self.mistake.get_or_insert_with(|| error.clone());
        }
        result
    }
}
