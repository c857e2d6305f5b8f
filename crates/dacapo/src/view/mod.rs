//! Views as handlers and queries meet them.
//!
//! [`View`] is what a handler changes: rows by key, kept in memory and handed to the store as one bulk
//! statement a table when the batch is committed. [`ReadView`] is what a query reads: one state of the rows.
//!
//! The rows in memory are the handler's own copy of what is committed, plus the changes of the batch. They stay
//! from batch to batch, because nobody else writes to the view: a claim by another is noticed by the commit,
//! which is refused (I-4), and then all that was not committed is forgotten.

mod lookup;
mod read;
mod shelf;
#[cfg(test)]
mod tests;
mod unique;
#[cfg(test)]
mod unique_tests;

use std::any::{TypeId, type_name};

use dacapo_model::{Position, Segment, TokenRefused, limits};
use dacapo_store::{Attached, Commit, CommitError, EventRef, Index, StoreError, Table, Value, ViewCopy, ViewWriter};

pub use lookup::Lookup;
pub use read::{ReadView, Rows};

use crate::reactor::{Effect, Emitter};
use crate::row::{Row, RowError};
use shelf::{AnyShelf, By, Shelf, row_bytes};

/// The rows of a view, as a handler changes them.
///
/// ```
/// # use dacapo::{Row, View, ViewError};
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
    /// How many values were taken that only one row may have, without a look whether another row has them.
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

/// Why rows could not be read or changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ViewError {
    /// A value does not fit its column.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The store could not do it.
    #[error(transparent)]
    Store(std::sync::Arc<StoreError>),
    /// The projection did not declare the row's table.
    #[error("the view has no table {table} for {row}: name the row type among the projection's tables")]
    NoTable {
        /// The table that is missing.
        table: &'static str,
        /// The type of row that would be in it.
        row: &'static str,
    },
    /// Two types of rows would be kept apart though they are in one table.
    #[error("table {table} is used through {first} and through {second}: a table has rows of one type")]
    TwoTypes {
        /// The table.
        table: &'static str,
        /// The type that was used first.
        first: &'static str,
        /// The type that was used then.
        second: &'static str,
    },
    /// An effect cannot be kept.
    #[error("effect {name} cannot be emitted: {why}")]
    Effect {
        /// The name of its kind.
        name: &'static str,
        /// Why not.
        why: String,
    },
    /// The view went without its indexes so far, which SQL may need. Whatever a handler makes of this, they are built
    /// now, and then it gets the event once more.
    #[error(
        "the indexes of the view are to be built before SQL is used: the event is applied again once they are there"
    )]
    Unindexed,
    /// Events of two segments would write one row. Segments move by themselves, and on several nodes each has its own rows
    /// in memory, so one would undo what the other did.
    #[error(
        "row {key} of table {table} is written by events of segments {first} and {second}: say so in \
         `Options::rows`, or give it rows whose keys belong to one stream"
    )]
    Shared {
        /// The table.
        table: &'static str,
        /// The key of the row.
        key: String,
        /// The segment whose events wrote it before.
        first: Segment,
        /// The segment of the event that would write it now.
        second: Segment,
    },
    /// Two rows would have a value that only one may have, after this event.
    #[error("value ({value}) of the unique index {index} of table {table} would be in two rows, {} and {}", .rows[0], .rows[1])]
    Taken {
        /// The table.
        table: &'static str,
        /// The index.
        index: &'static str,
        /// The value, or those of its columns.
        value: String,
        /// The keys of the rows.
        rows: [String; 2],
        /// The position of the event after which they would; none beside events.
        at: Option<Position>,
    },
    /// What a row has in its key or in an index is more than every store can index.
    #[error(
        "{} of a row of table {table} has {bytes} bytes, and may have {}: index something shorter, such as its beginning",
        .index.map_or_else(|| "the key".to_owned(), |index| format!("the index {index}")),
        limits::INDEX_BYTES_MAX
    )]
    TooLong {
        /// The table.
        table: &'static str,
        /// The index; none for the key.
        index: Option<&'static str>,
        /// How many bytes there are.
        bytes: usize,
    },
    /// A change put another key into a row; the batch cannot be committed.
    #[error("the key of row {key} in table {table} was changed: delete that row and put another one")]
    KeyChanged {
        /// The table.
        table: &'static str,
        /// The key under which the row was looked up.
        key: String,
    },
}

impl From<StoreError> for ViewError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl ViewError {
    /// Whether it is the store's failure and may pass, rather than a mistake of the handler.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Store(error) if !matches!(**error, StoreError::Invalid(_)))
    }

    /// The position of the event whose mistake it is, where that is known.
    pub(crate) fn at(&self) -> Option<Position> {
        if let Self::Taken { at, .. } = self { *at } else { None }
    }
}

/// Why a batch was not committed.
#[derive(Debug)]
pub(crate) enum NotCommitted {
    /// A flip holds the tokens. Nothing is lost: the same commit is good once the hold is lifted, unless
    /// the batch `must_reapply`, because SQL of its own went with the transaction and every change was
    /// forgotten.
    Held {
        /// The position of the flip request.
        held_for: Position,
        /// Whether the batch's events have to be applied again before the next commit.
        must_reapply: bool,
    },
    /// A segment is to stop before the end of the batch. Everything that was not committed is forgotten.
    Capped(Position),
    /// Another claim came first (I-4). Everything that was not committed is forgotten.
    Fenced(TokenRefused),
    /// Rows could not be written. Everything that was not committed is forgotten.
    Failed(ViewError),
}

impl View {
    /// A view to change through `writer`, with these tables.
    pub(crate) fn new(writer: Box<dyn ViewWriter>, tables: &'static [Table]) -> Self {
        Self {
            writer,
            tables,
            shelves: Vec::new(),
            bytes_max: limits::ROW_BYTES_MAX,
            wrote_sql: false,
            sent: false,
            of_one_segment: false,
            by: By::default(),
            unasked: 0,
            unasked_max: limits::UNIQUE_UNASKED_MAX,
            emitter: None,
            indexes: Indexes::There,
            changes: 0,
            mistake: None,
        }
    }

    /// Whether its tables lack indexes: then there is no SQL before they are built.
    pub(crate) fn lacking_indexes(self, bare: bool) -> Self {
        Self { indexes: if bare { Indexes::Missing } else { Indexes::There }, ..self }
    }

    /// Whether SQL was refused in this transaction for want of indexes. It must be taken back then, and they be built,
    /// for which a handler has neither the time nor the means: it can be neither paused nor done in parts.
    pub(crate) fn wants_indexes(&self) -> bool {
        self.indexes == Indexes::Wanted
    }

    /// Every index is there, and committed.
    pub(crate) fn indexed(&mut self) {
        self.indexes = Indexes::There;
    }

    /// Builds an index, which is there once it is committed.
    pub(crate) async fn index(&mut self, table: &Table, index: &Index) -> Result<(), ViewError> {
        self.wrote_sql = true;
        Ok(self.writer.index(table, index).await?)
    }

    /// Begins a transaction in which [`fill`](Self::fill) reads another view.
    pub(crate) async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, ViewError> {
        self.wrote_sql = true;
        Ok(self.writer.attach(copy).await?)
    }

    /// Carries out a statement that writes many rows, without the indexes.
    pub(crate) async fn fill(&mut self, sql: &str) -> Result<u64, ViewError> {
        self.wrote_sql = true;
        Ok(self.writer.execute(sql, &[]).await?)
    }

    /// Builds every index that is lacking, as a part of the transaction.
    pub(crate) async fn index_all(&mut self) -> Result<(), ViewError> {
        self.flush().await?;
        for table in self.tables {
            for index in table.indexes {
                self.index(table, index).await?;
            }
        }
        Ok(())
    }

    /// SQL may look for rows in any way.
    fn need_indexes(&mut self) -> Result<(), ViewError> {
        match self.indexes {
            Indexes::There => Ok(()),
            Indexes::Missing | Indexes::Wanted => {
                self.indexes = Indexes::Wanted;
                Err(ViewError::Unindexed)
            }
        }
    }

    /// Bounds the memory of rows that stay from batch to batch; within a batch they are as many as it needs.
    pub(crate) fn with_bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// Lets handlers emit effects of these names.
    pub(crate) fn with_effects(self, names: Vec<&'static str>, segment: Segment) -> Self {
        let emitter = (!names.is_empty()).then(|| Emitter::new(names, segment));
        Self { emitter, ..self }
    }

    /// Whether it refuses that events of two segments write one row.
    pub(crate) fn of_one_segment(self, of_one_segment: bool) -> Self {
        Self { of_one_segment, ..self }
    }

    /// What is written from here on follows from this event of this segment.
    pub(crate) fn write_for(&mut self, segment: Segment, at: Position) {
        self.by = By { segment: self.of_one_segment.then_some(segment), at: Some(at) };
    }

    /// The event that was applied ends: what it has made of its rows must hold.
    pub(crate) fn end_event(&mut self) -> Result<(), ViewError> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        let mut unasked = 0;
        for at in 0..self.shelves.len() {
            let shelf = &mut self.shelves[at].2;
            let ended = shelf.end_event(self.by.at);
            unasked += shelf.unasked();
            self.noted(ended)?;
        }
        self.unasked = unasked;
        Ok(())
    }

    /// Whether so many values were taken without a look that the batch should end with that.
    pub(crate) fn should_ask(&self) -> bool {
        self.unasked >= self.unasked_max
    }

    /// An earlier event of the batch whose mistake has only shown now, as far as that can be known. Asked when an event
    /// is refused, since what it met may follow from that.
    pub(crate) async fn blamed(&mut self) -> Result<Option<ViewError>, ViewError> {
        let asked = self.ask().await?;
        let known = self.mistake.clone().filter(|mistake| mistake.at().is_some());
        Ok(asked.into_iter().chain(known).min_by_key(ViewError::at))
    }

    /// Asks the store about everything that was taken without a look.
    async fn ask(&mut self) -> Result<Option<ViewError>, ViewError> {
        let mut first: Option<ViewError> = None;
        for (.., shelf) in &mut self.shelves {
            let found = shelf.ask(&mut *self.writer).await?;
            first = first.into_iter().chain(found).min_by_key(ViewError::at);
        }
        self.unasked = 0;
        if first.is_some() {
            self.unasked_max = 1;
        }
        Ok(first)
    }

    /// What is emitted from here on follows from this event.
    pub(crate) fn begin_event(&mut self, place: &EventRef<'_>, segment: Segment, silent: bool) {
        if let Some(emitter) = &mut self.emitter {
            emitter.begin(place.position, segment, place.stream, silent);
        }
    }

    /// What is emitted from here on follows from no event, and goes nowhere.
    pub(crate) fn end_events(&mut self) {
        self.by = By::default();
        self.emitter.iter_mut().for_each(Emitter::silence);
    }

    /// Lets an effect follow from the event that is being applied. It is kept with the rows of this batch, in one
    /// transaction, and made after that at least once; see [`Acts`](crate::Acts). Where another version speaks for the
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
    /// [`ViewError::NoTable`], [`ViewError::TwoTypes`].
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
        self.flush().await?;
        Ok(self.writer.query(sql, parameters).await?)
    }

    /// Commits every change since the last commit together with the moves of tokens (I-3).
    pub(crate) async fn commit(&mut self, commit: &Commit) -> Result<(), NotCommitted> {
        assert!(!self.wants_indexes(), "what was made of SQL that was refused is taken back");
        if let Err(error) = self.flush().await {
            self.forget_changes();
            return match self.writer.rollback().await {
                Ok(()) => Err(NotCommitted::Failed(error)),
                Err(lost) => Err(NotCommitted::Failed(lost.into())),
            };
        }
        let effects = self.emitter.as_mut().map(|emitter| std::mem::take(&mut emitter.emitted)).unwrap_or_default();
        let with_effects = (!effects.is_empty()).then(|| Commit { effects, ..commit.clone() });
        let committed = self.writer.commit(with_effects.as_ref().unwrap_or(commit)).await;
        self.sent = false;
        match committed {
            Ok(()) => {
                self.shelves.iter_mut().for_each(|(.., shelf)| shelf.committed());
                self.unasked_max = self.unasked_max.saturating_mul(2).min(limits::UNIQUE_UNASKED_MAX);
                self.wrote_sql = false;
                self.evict();
                Ok(())
            }
            Err(CommitError::Refused(TokenRefused::Held { held_for, .. })) => {
                let must_reapply = self.wrote_sql;
                if must_reapply {
                    self.forget_changes();
                } else {
                    self.shelves.iter_mut().for_each(|(.., shelf)| shelf.taken_back());
                    if let (Some(emitter), Some(commit)) = (&mut self.emitter, with_effects) {
                        emitter.emitted = commit.effects;
                    }
                }
                Err(NotCommitted::Held { held_for, must_reapply })
            }
            Err(CommitError::Refused(TokenRefused::Capped { cap, .. })) => {
                self.forget_changes();
                Err(NotCommitted::Capped(cap))
            }
            Err(CommitError::Refused(refused)) => {
                self.forget_changes();
                Err(NotCommitted::Fenced(refused))
            }
            Err(CommitError::Store(error)) => {
                self.forget_changes();
                Err(NotCommitted::Failed(error.into()))
            }
        }
    }

    /// Forgets every change since the last commit.
    pub(crate) async fn rollback(&mut self) -> Result<(), ViewError> {
        self.forget_changes();
        Ok(self.writer.rollback().await?)
    }

    /// Hands every change to the store's transaction.
    async fn flush(&mut self) -> Result<(), ViewError> {
        self.sent = true;
        // In the middle of an event, what SQL is to see must hold already.
        self.end_event()?;
        if let Some(error) = self.ask().await? {
            return self.noted(Err(error));
        }
        for (.., shelf) in &mut self.shelves {
            shelf.flush(&mut *self.writer).await?;
        }
        Ok(())
    }

    fn forget_changes(&mut self) {
        (self.mistake, self.unasked) = (None, 0);
        for (.., shelf) in &mut self.shelves {
            // What was read after SQL wrote may be what it wrote.
            if self.wrote_sql { shelf.forget() } else { shelf.rolled_back() }
        }
        (self.wrote_sql, self.sent) = (false, false);
        self.emitter.iter_mut().for_each(|emitter| emitter.emitted.clear());
        if self.indexes == Indexes::Wanted {
            self.indexes = Indexes::Missing;
        }
    }

    /// A number that grows with every change that is begun.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether the store may have a transaction open for this batch.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent
    }

    /// Whether the rows in memory take so much more than they may that the batch should end, since changed rows
    /// stay until they are committed.
    pub(crate) fn is_full(&self) -> bool {
        let emitted = self.emitter.as_ref().map_or(0, Emitter::bytes);
        self.bytes() + emitted > self.bytes_max.saturating_mul(2)
    }

    fn bytes(&self) -> usize {
        self.shelves.iter().map(|(.., shelf)| shelf.bytes()).sum()
    }

    /// Between batches, lets go of rows beyond the bound, of each table in proportion.
    #[expect(clippy::expect_used, reason = "a share is less than the whole")]
    fn evict(&mut self) {
        let bytes = self.bytes();
        if bytes <= self.bytes_max {
            return;
        }
        // Somewhat more than needed, so that not every batch has to.
        let keep = self.bytes_max / 8 * 7;
        for (.., shelf) in &mut self.shelves {
            let share = shelf.bytes() as u128 * keep as u128 / bytes as u128;
            shelf.evict(usize::try_from(share).expect("a share is less than the whole"));
        }
    }

    /// The place of the row with this key, if there may be one: its entry is known.
    async fn locate<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<Option<u32>, ViewError> {
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
        self.shelf::<R>()?.keep(key, None, 0)
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
        let values = self.writer.load(&table, &R::key_values(&key)?).await?;
        let bytes = values.as_ref().map_or(size_of::<R::Key>(), |values| row_bytes::<R>(values));
        let row = values.map(R::from_values).transpose()?;
        let kept = self.shelf::<R>()?.keep(key, row, bytes);
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
        if !self.tables.iter().any(|known| known.name == table) {
            return Err(ViewError::NoTable { table, row });
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
