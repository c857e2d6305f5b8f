//! The writer of a view: one transaction after the other.

use async_trait::async_trait;
use dacapo_model::Segment;

use super::{Attached, Commit, OfSegment, ViewCopy};
use crate::error::{CommitError, StoreError};
use crate::table::{Index, Table, Value};

/// Writes rows and tokens of one view, in one transaction after the other. The next one begins with the first call
/// after [`commit`](Self::commit) or [`rollback`](Self::rollback). Dropping the writer rolls back.
#[async_trait]
pub trait ViewWriter: Send {
    /// Returns the row with this key, as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>;

    /// Does the same in a view with several segments, and returns the segment for which any writer put the row;
    /// `None` if none was named, such as by SQL or by a build that kept none.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError>;

    /// Returns the segments for which the rows with these keys were put, in a view with several segments, each with
    /// the place of its key. Keys without a row or without a segment are left out. Bulk.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn segments_of(&mut self, table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError>;

    /// Makes the rows of a table of a view with several segments name their segments, from the open transaction on.
    /// Such a table has one more column for SQL, so what SQL sees must not depend on what was put before. A store
    /// whose tables always do so has nothing to do.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be changed.
    async fn keep_segments(&mut self, table: &Table) -> Result<(), StoreError>;

    /// Returns true if the table has no row, as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn is_empty(&mut self, table: &Table) -> Result<bool, StoreError> {
        let name = table.name.replace('"', "\"\"");
        Ok(self.query(&format!("SELECT 1 FROM \"{name}\" LIMIT 1"), &[]).await?.is_empty())
    }

    /// Returns the rows that have one of these `values` in the columns of a unique `index`, as this transaction sees
    /// them, each with the place of its value. None of the values has a [`Null`](Value::Null). Bulk.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError>;

    /// Writes these rows whole, replacing those with the same keys. Bulk: it is called once for each table and batch.
    /// Unique indexes are checked row by row: a value that is to move from one row to another is deleted with its row
    /// first, and so is a row that is to belong to another segment. Each row keeps the segment that it is put for. A
    /// caller that names the segments of some rows of a table names them for all rows that have one.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written; in a store that several nodes share, [`StoreError::Invalid`] if a
    /// row belongs to another segment, since another node may have put it after this one has checked.
    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError>;

    /// Deletes the rows with these keys, as far as they exist.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be deleted; as [`put`](Self::put) for rows of another segment.
    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError>;

    /// Executes one SQL statement and returns the number of rows it changed. Its parameters are `$1`, `$2` and so on.
    /// A statement that fails has changed nothing, and the transaction continues.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the statement is wrong.
    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// Returns the rows of a query, as this transaction sees them. The query cannot write.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the statement is wrong or would write.
    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError>;

    /// Builds a secondary index in this transaction, if it does not exist. That may take long. If the future is
    /// dropped meanwhile, the work ends soon, the transaction is rolled back, and the writer cannot be used again.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if a unique index finds rows that are not unique; [`StoreError::Unavailable`] if there
    /// is no room for it.
    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError>;

    /// Begins a transaction in which SQL sees another view as it is now, in the schema that [`Attached::schema`]
    /// names, until the transaction ends. SQL cannot write there. Statements may take long meanwhile: if the future
    /// of one is dropped, it ends soon and the writer cannot be used again.
    ///
    /// # Errors
    /// [`StoreError`] if the other view cannot be read.
    ///
    /// # Panics
    /// If a transaction is open.
    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError>;

    /// Assigns the rows of a table to the segments of the rows with the same keys in the attached view, which has a
    /// table of the same name and key, and the same number of segments.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    async fn take_over_segments(&mut self, table: &Table, from: &Attached) -> Result<(), StoreError>;

    /// Moves the tokens, stores the other parts of `commit`, and commits rows and tokens together (I-3), if
    /// [`Token::moved`](dacapo_model::Token::moved) allows every move (I-4). The check is part of the statement that
    /// moves.
    ///
    /// # Errors
    /// [`CommitError`]. Everything is rolled back then.
    ///
    /// # Panics
    /// Without a move, since nothing would fence the rows.
    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError>;

    /// Forgets everything since the last commit.
    ///
    /// # Errors
    /// [`StoreError`] if the connection is lost. Nothing was written even then.
    async fn rollback(&mut self) -> Result<(), StoreError>;
}
