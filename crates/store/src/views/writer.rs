//! The writer of a view: one transaction after the other.

use async_trait::async_trait;
use dacapo_model::Segment;

use super::{Attached, Commit, OfSegment, ViewCopy};
use crate::error::{CommitError, StoreError};
use crate::table::{Index, Table, Value};

/// Writes rows and tokens of one view, in one transaction after the other. The next one begins with the
/// first call after [`commit`](Self::commit) or [`rollback`](Self::rollback). Dropping it rolls back.
#[async_trait]
pub trait ViewWriter: Send {
    /// The row with this key, as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>;

    /// The same in a view with several segments, with the segment that the row was put for, by whatever writer; `None` where
    /// none was named, such as by SQL or by a build that kept none.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError>;

    /// The segments that the rows with these keys were put for in a view with several, each with the place of its key, as far
    /// as there is such a row and one was named. Bulk.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn segments_of(&mut self, table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError>;

    /// Lets the rows of a table of a view with several segments say of which they are, from the open transaction on. A table
    /// that does so has one more column for SQL, so what SQL sees must not depend on what was put before. A store whose
    /// tables always do so has nothing to do.
    ///
    /// # Errors
    /// [`StoreError`] when the table cannot be changed.
    async fn keep_segments(&mut self, table: &Table) -> Result<(), StoreError>;

    /// Whether the table has no row, as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn is_empty(&mut self, table: &Table) -> Result<bool, StoreError> {
        let name = table.name.replace('"', "\"\"");
        Ok(self.query(&format!("SELECT 1 FROM \"{name}\" LIMIT 1"), &[]).await?.is_empty())
    }

    /// The rows that have one of these `values` in the columns of a unique `index`, as this transaction sees them, each with
    /// the place of what it has among those. None of the values has a [`Null`](Value::Null). Bulk.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError>;

    /// Writes these rows whole, in place of those with the same keys. Bulk: it is called once a table and batch. Unique
    /// indexes are asked row by row: what is to move from one row to another is deleted with its row first, and so is a row
    /// that is to be another segment's. Each keeps the segment that it is put for; whoever names those of some rows of a
    /// table names them of all that have one.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written; in a store that several nodes share, [`StoreError::Invalid`] when a row is
    /// another segment's, since another node may have put it after this one has asked.
    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError>;

    /// Deletes the rows with these keys, as far as there are any.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be deleted; as [`put`](Self::put) for rows of another segment.
    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError>;

    /// Carries out one SQL statement and returns the number of rows it changed. Its parameters are `$1`, `$2` and so on.
    /// A statement that fails has changed nothing, and the transaction goes on.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the statement is wrong.
    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// The rows that a query gives, as this transaction sees them. It cannot write.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the statement is wrong or would write.
    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError>;

    /// Builds a secondary index in this transaction, if it is not there. That may take long; when the future is dropped
    /// meanwhile, the work ends soon, the transaction is rolled back, and the writer is of no more use.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when a unique index finds rows that are not; [`StoreError::Unavailable`] when there is
    /// no room for it.
    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError>;

    /// Begins a transaction in which SQL sees another view as it is now, in the schema that [`Attached::schema`] names,
    /// until the transaction ends; it cannot write there. Statements may take long meanwhile: when the future of one is dropped, it ends soon and the writer is of no
    /// more use.
    ///
    /// # Errors
    /// [`StoreError`] when the other view cannot be read.
    ///
    /// # Panics
    /// When a transaction is open.
    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError>;

    /// Lets the rows of a table be of the segments that rows with the same keys are of in the attached view, which has a
    /// table of the same name and key, and as many segments.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn take_over_segments(&mut self, table: &Table, from: &Attached) -> Result<(), StoreError>;

    /// Moves the tokens, keeps what else `commit` says, and commits, rows and tokens together (I-3), if every
    /// move is allowed by [`Token::moved`](dacapo_model::Token::moved) (I-4); the check is part of the statement that moves.
    ///
    /// # Errors
    /// [`CommitError`]; then everything is rolled back.
    ///
    /// # Panics
    /// Without a move, since nothing would fence the rows.
    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError>;

    /// Forgets everything since the last commit.
    ///
    /// # Errors
    /// [`StoreError`] when the connection is lost; nothing was written even then.
    async fn rollback(&mut self) -> Result<(), StoreError>;
}
