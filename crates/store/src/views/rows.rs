//! The rows of a view: who writes them, who reads them, and how they are stored.

use async_trait::async_trait;

use super::{ViewCopy, ViewHealth, ViewReader, ViewWriter};
use crate::error::StoreError;
use crate::table::Table;

/// The rows of a view.
#[async_trait]
pub trait ViewRows: Send + Sync + 'static {
    /// The secondary indexes of these tables that are not there yet, as places in the tables and in their indexes.
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be read.
    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError>;

    /// How it is, as far as what was done with it tells. Asks nobody, so it never waits.
    fn health(&self) -> ViewHealth {
        ViewHealth::default()
    }

    /// Looks at what is stored behind the page `after`, at most `most` pages of it, though nobody asks for it. Returns
    /// where to go on; `None` at the end, or where the store looks itself.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where something is not what was written, which [`health`](Self::health) tells from then on.
    async fn look_at_pages(&self, _after: u64, _most: u64) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// What another view of the same store needs to read this one as it is at one moment.
    ///
    /// # Errors
    /// [`StoreError`] when this one cannot be read.
    async fn copy(&self) -> Result<ViewCopy, StoreError>;

    /// A writer. Within a process, at most one writes at a time where the store demands that: then its first write waits
    /// for another's end. Elsewhere writers of other segments go on beside each other, and those of one segment are told
    /// apart by the commit (I-4).
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be opened for writing.
    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError>;

    /// A reader of the rows as they are now. It sees one state of the view however long it lives.
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be read.
    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError>;
}
