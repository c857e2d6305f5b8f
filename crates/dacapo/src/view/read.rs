//! The reading of one state of a view.

use std::marker::PhantomData;

use dacapo_model::{PendingReplay, Position, replay};
use dacapo_store::{StoreError, Value, ViewReader};

use crate::row::Row;
use crate::view::{Lookup, ViewError};

/// One state of a view. It stays the same as long as it is held. Hold it only briefly, since the store keeps the state
/// during that time.
///
/// ```
/// # use dacapo::{ReadView, Row};
/// # use dacapo::rows::ViewError;
/// # #[derive(Clone, Row)]
/// # #[row(table = "accounts")]
/// # struct Account {
/// #     #[row(key)]
/// #     id: String,
/// #     #[row(index)]
/// #     owner: String,
/// #     balance: i64,
/// # }
/// async fn owned_by_ann(view: &mut ReadView) -> Result<Vec<Account>, ViewError> {
///     view.rows::<Account>().by("owner", "ann").most(100).load().await
/// }
/// ```
pub struct ReadView {
    reader: Box<dyn ViewReader>,
    covers: Position,
}

impl ReadView {
    /// Returns the state that `reader` sees.
    pub(crate) fn new(reader: Box<dyn ViewReader>) -> Self {
        let covers = reader.covers();
        Self { reader, covers }
    }

    /// Returns the state that `reader` sees, in the form for readers. Returns `None` while a replay in place has not
    /// yet restored rows that were shown before (I-7). `last` is the last requested replay.
    pub(crate) fn shown(reader: Box<dyn ViewReader>, last: Option<&PendingReplay>) -> Option<Self> {
        let covers = replay::shown(reader.tokens(), last)?;
        Some(Self { reader, covers })
    }

    /// Returns the reader of the state.
    pub(crate) fn reader(&mut self) -> &mut dyn ViewReader {
        &mut *self.reader
    }

    /// Returns the position that this state covers: every event through it is in the rows.
    pub fn covers(&self) -> Position {
        self.covers
    }

    /// Returns the row with this key.
    ///
    /// # Errors
    /// [`ViewError`] if the store cannot read it.
    pub async fn get<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<Option<R>, ViewError> {
        let key = R::key_values(&key.into_key())?;
        let values = self.reader.get(&R::TABLE, &key).await?;
        Ok(values.map(R::from_values).transpose()?)
    }

    /// Returns a query for rows of one type; for all of them if no condition is added.
    pub fn rows<R: Row>(&mut self) -> Rows<'_, R> {
        Rows { reader: &mut *self.reader, wanted: Vec::new(), most: usize::MAX, row: PhantomData }
    }

    /// Returns the rows of an SQL query, with the names of its columns.
    ///
    /// # Errors
    /// [`ViewError`] if the statement is wrong or would write.
    pub async fn query(
        &mut self,
        sql: &str,
        parameters: &[Value],
    ) -> Result<(Vec<String>, Vec<Vec<Value>>), ViewError> {
        Ok(self.reader.query(sql, parameters).await?)
    }
}

/// A query for rows. See [`ReadView::rows`].
#[must_use = "nothing is read before `load`"]
pub struct Rows<'a, R> {
    reader: &'a mut dyn ViewReader,
    wanted: Vec<(&'static str, Value)>,
    most: usize,
    row: PhantomData<fn() -> R>,
}

impl<R: Row> Rows<'_, R> {
    /// Selects only rows with this value in the column; `None` selects rows without a value. It is fast if an index
    /// begins with the column.
    pub fn by(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.wanted.push((column, value.into()));
        self
    }

    /// Selects at most this many rows, the first ones in the order of keys.
    pub fn most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Returns the rows, in the order of their keys.
    ///
    /// # Errors
    /// [`ViewError`] if the table has no such column, or if the store cannot read them.
    pub async fn load(self) -> Result<Vec<R>, ViewError> {
        let table = R::TABLE;
        let place = |name: &str| {
            table.columns.iter().position(|column| column.name == name).ok_or_else(|| {
                let names = table.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
                StoreError::Invalid(format!("table {} has no column {name}; it has {names}", table.name))
            })
        };
        let wanted = self.wanted.into_iter().map(|(name, value)| Ok((place(name)?, value)));
        let wanted = wanted.collect::<Result<Vec<_>, StoreError>>()?;
        let rows = self.reader.select(&table, &wanted, self.most).await?;
        Ok(rows.into_iter().map(R::from_values).collect::<Result<_, _>>()?)
    }
}
