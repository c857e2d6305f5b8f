//! The reader of a view: one state of it.

use async_trait::async_trait;
use dacapo_model::{Letter, Position, Token};

use crate::error::StoreError;
use crate::table::{Table, Value};

/// What a query gives, of which only the first rows are taken into memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FirstRows {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// The first rows.
    pub rows: Vec<Vec<Value>>,
    /// How many rows it gives in all.
    pub all: u64,
}

/// Reads one state of a view.
#[async_trait]
pub trait ViewReader: Send {
    /// Every token in that state.
    fn tokens(&self) -> &[Token];

    /// The position that the whole state covers: the lowest token.
    fn covers(&self) -> Position {
        self.tokens().iter().map(|token| token.position).min().unwrap_or_default()
    }

    /// The row with this key, its columns in the order of `table`, which may have fewer of them than the
    /// stored table.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn get(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>;

    /// The rows in which each of `columns` (places in `table.columns`) has the given value, ordered by
    /// primary key, at most `most` of them. Without columns, all rows.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn select(
        &mut self,
        table: &Table,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError>;

    /// The next rows behind the key `after`, or the first ones, in the order of [`key_order`](crate::key_order): at
    /// most `most`, and no more than make up [`limits::PAGE_BYTES_MAX`](dacapo_model::limits::PAGE_BYTES_MAX), but at
    /// least one if there is one. What was read before costs nothing again.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError>;

    /// The rows that a query gives, with the names of its columns. It cannot write.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the statement is wrong or would write.
    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<(Vec<String>, Vec<Vec<Value>>), StoreError>;

    /// The same for a query without parameters, of which only the first `most` rows are wanted and the others counted. The
    /// statement stands as it is, so it may end in a semicolon or a comment.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    async fn first_rows(&mut self, sql: &str, most: usize) -> Result<FirstRows, StoreError>;

    /// The dead letters in that state of events behind `after`, in order, at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError>;
}
