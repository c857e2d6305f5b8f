//! The rows of a view: their writers, their readers, and their storage.

use async_trait::async_trait;

use super::{ViewCopy, ViewHealth, ViewReader, ViewWriter};
use crate::error::StoreError;
use crate::table::Table;

/// The rows of a view.
#[async_trait]
pub trait ViewRows: Send + Sync + 'static {
    /// Returns the secondary indexes of these tables that do not exist yet, as places in the tables and in their
    /// indexes.
    ///
    /// # Errors
    /// [`StoreError`] if the view cannot be read.
    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError>;

    /// Returns its health, as far as its use has shown it. It makes no call, so it never waits.
    fn health(&self) -> ViewHealth {
        ViewHealth::default()
    }

    /// Checks stored pages after the page `after`, at most `most` of them, though nobody reads them now. Returns
    /// where to continue; `None` at the end, or if the store checks them itself.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if something is not what was written, which [`health`](Self::health) reports from then
    /// on.
    async fn look_at_pages(&self, _after: u64, _most: u64) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Returns what another view of the same store needs to read this one as it is at one moment.
    ///
    /// # Errors
    /// [`StoreError`] if this one cannot be read.
    async fn copy(&self) -> Result<ViewCopy, StoreError>;

    /// Returns a writer. Within a process, at most one writes at a time if the store demands that: then its first
    /// write waits for the end of another's transaction. In other stores, writers of different segments work at the
    /// same time, and the commit separates those of one segment (I-4).
    ///
    /// # Errors
    /// [`StoreError`] if the view cannot be opened for writing.
    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError>;

    /// Returns a reader of the rows as they are now. It sees one state of the view, however long it lives.
    ///
    /// # Errors
    /// [`StoreError`] if the view cannot be read.
    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError>;
}
