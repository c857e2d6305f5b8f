//! Views whose indexes are built later, and views that are filled from another one.

use dacapo_store::{Attached, Index, Table, ViewCopy};

use super::{Indexes, View, ViewError};

impl View {
    /// Sets whether its tables lack indexes. Then no SQL runs before they are built.
    pub(crate) fn lacking_indexes(self, bare: bool) -> Self {
        Self { indexes: if bare { Indexes::Missing } else { Indexes::There }, ..self }
    }

    /// Returns true if SQL was refused in this transaction because indexes are missing. The transaction must then be
    /// rolled back, and the indexes be built. A handler has neither the time nor the means for that, since it can be
    /// neither paused nor divided.
    pub(crate) fn wants_indexes(&self) -> bool {
        self.indexes == Indexes::Wanted
    }

    /// Records that every index exists and is committed.
    pub(crate) fn indexed(&mut self) {
        self.indexes = Indexes::There;
    }

    /// Builds an index, which exists once it is committed.
    pub(crate) async fn index(&mut self, table: &Table, index: &Index) -> Result<(), ViewError> {
        self.wrote_sql = true;
        Ok(self.writer.index(table, index).await?)
    }

    /// Begins a transaction in which [`fill`](Self::fill) reads another view.
    pub(crate) async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, ViewError> {
        self.wrote_sql = true;
        Ok(self.writer.attach(copy).await?)
    }

    /// Executes a statement that writes many rows, without the indexes.
    pub(crate) async fn fill(&mut self, sql: &str) -> Result<u64, ViewError> {
        self.wrote_sql = true;
        Ok(self.writer.execute(sql, &[]).await?)
    }

    /// Gives copied rows the segments that they have in the attached view, if only events of one segment may write a
    /// row.
    pub(crate) async fn take_over_segments(&mut self, from: &Attached) -> Result<(), ViewError> {
        for table in self.tables.iter().filter(|_| self.of_one_segment) {
            self.writer.take_over_segments(table, from).await?;
        }
        Ok(())
    }

    /// Adds the segment columns to all tables before a handler's SQL sees them, so that the visible columns do not
    /// depend on batches.
    pub(super) async fn keep_segments(&mut self) -> Result<(), ViewError> {
        for table in self.tables.iter().filter(|_| self.of_one_segment) {
            self.writer.keep_segments(table).await?;
        }
        Ok(())
    }

    /// Builds every missing index, as a part of the transaction.
    pub(crate) async fn index_all(&mut self) -> Result<(), ViewError> {
        self.flush().await?;
        for table in self.tables {
            for index in table.indexes {
                self.index(table, index).await?;
            }
        }
        Ok(())
    }

    /// Requires the indexes, since SQL may look for rows in any way.
    pub(super) fn need_indexes(&mut self) -> Result<(), ViewError> {
        match self.indexes {
            Indexes::There => Ok(()),
            Indexes::Missing | Indexes::Wanted => {
                self.indexes = Indexes::Wanted;
                Err(ViewError::Unindexed)
            }
        }
    }
}
