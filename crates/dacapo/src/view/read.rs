//! Reading one state of a view.

use std::marker::PhantomData;

use dacapo_model::{PendingReplay, Position, replay};
use dacapo_store::{StoreError, Value, ViewReader};

use crate::row::Row;
use crate::view::{Lookup, ViewError};

/// One state of a view, however long it is kept; keep it short, since the store keeps that state meanwhile.
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
    /// The state that `reader` sees.
    pub(crate) fn new(reader: Box<dyn ViewReader>) -> Self {
        let covers = reader.covers();
        Self { reader, covers }
    }

    /// The state that `reader` sees, as readers may be shown it; `None` while a replay in place, of which `last` is the
    /// last that was asked for, has yet to make rows again that were shown before (I-7).
    pub(crate) fn shown(reader: Box<dyn ViewReader>, last: Option<&PendingReplay>) -> Option<Self> {
        let covers = replay::shown(reader.tokens(), last)?;
        Some(Self { reader, covers })
    }

    /// What it is read through.
    pub(crate) fn reader(&mut self) -> &mut dyn ViewReader {
        &mut *self.reader
    }

    /// The position that this state covers: every event through it is in the rows.
    pub fn covers(&self) -> Position {
        self.covers
    }

    /// The row with this key.
    ///
    /// # Errors
    /// [`ViewError`] when the store cannot read it.
    pub async fn get<R: Row>(&mut self, key: impl Lookup<R::Key>) -> Result<Option<R>, ViewError> {
        let key = R::key_values(&key.into_key())?;
        let values = self.reader.get(&R::TABLE, &key).await?;
        Ok(values.map(R::from_values).transpose()?)
    }

    /// Rows of one type, all of them until it is said which.
    pub fn rows<R: Row>(&mut self) -> Rows<'_, R> {
        Rows { reader: &mut *self.reader, wanted: Vec::new(), most: usize::MAX, row: PhantomData }
    }

    /// The rows that a SQL query gives, with the names of its columns.
    ///
    /// # Errors
    /// [`ViewError`] when the statement is wrong or would write.
    pub async fn query(
        &mut self,
        sql: &str,
        parameters: &[Value],
    ) -> Result<(Vec<String>, Vec<Vec<Value>>), ViewError> {
        Ok(self.reader.query(sql, parameters).await?)
    }
}

/// Which rows are wanted. See [`ReadView::rows`].
#[must_use = "nothing is read before `load`"]
pub struct Rows<'a, R> {
    reader: &'a mut dyn ViewReader,
    wanted: Vec<(&'static str, Value)>,
    most: usize,
    row: PhantomData<fn() -> R>,
}

impl<R: Row> Rows<'_, R> {
    /// Only those with this value in the column; `None` means without one. Fast where an index begins with it.
    pub fn by(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.wanted.push((column, value.into()));
        self
    }

    /// At most so many, the first ones in the order of keys.
    pub fn most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The rows, in the order of their keys.
    ///
    /// # Errors
    /// [`ViewError`] when the table has no such column, or the store cannot read them.
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
