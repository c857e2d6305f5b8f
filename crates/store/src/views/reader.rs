//! The reader of a view: one state of it.

use async_trait::async_trait;
use dacapo_model::{Letter, Position, Token};

use crate::error::StoreError;
use crate::table::{Table, Value};

/// The result of a query, of which only the first rows are read into memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FirstRows {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// The first rows.
    pub rows: Vec<Vec<Value>>,
    /// The number of all rows.
    pub all: u64,
}

/// Reads one state of a view.
#[async_trait]
pub trait ViewReader: Send {
    /// Returns every token in that state.
    fn tokens(&self) -> &[Token];

    /// Returns the position that the whole state covers: the lowest token.
    fn covers(&self) -> Position {
        self.tokens().iter().map(|token| token.position).min().unwrap_or_default()
    }

    /// Returns the row with this key, its columns in the order of `table`, which may have fewer of them than the
    /// stored table.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn get(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>;

    /// Returns the rows in which each of `columns` (places in `table.columns`) has the given value, ordered by
    /// primary key, at most `most` of them. Without columns, it returns all rows.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn select(
        &mut self,
        table: &Table,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError>;

    /// Returns the next rows after the key `after`, or the first ones, in the order of
    /// [`key_order`](crate::key_order): at most `most`, and no more than
    /// [`limits::PAGE_BYTES_MAX`](dacapo_model::limits::PAGE_BYTES_MAX) bytes, but at least one if there is one. The
    /// rows before them cost nothing again.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError>;

    /// Returns the rows of a query, with the names of its columns. The query cannot write.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the statement is wrong or would write.
    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<(Vec<String>, Vec<Vec<Value>>), StoreError>;

    /// Does the same for a query without parameters, but returns only the first `most` rows and counts the others.
    /// The statement is used as it is, so it may end in a semicolon or a comment.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    async fn first_rows(&mut self, sql: &str, most: usize) -> Result<FirstRows, StoreError>;

    /// Returns the dead letters of events after `after` in that state, in order, at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError>;
}
