//! A view that goes without its indexes, and gets them; and one that is filled from another.

use dacapo_store::{Attached, Index, Table, ViewCopy};

use super::{Indexes, View, ViewError};

impl View {
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

    /// Lets rows that were copied as they are be of the segments that they are of in the view that is attached, where a row
    /// is to be written by events of one only.
    pub(crate) async fn take_over_segments(&mut self, from: &Attached) -> Result<(), ViewError> {
        for table in self.tables.iter().filter(|_| self.of_one_segment) {
            self.writer.take_over_segments(table, from).await?;
        }
        Ok(())
    }

    /// Lets every table have all its columns before SQL of a handler sees it: which it sees must not depend on batches.
    pub(super) async fn keep_segments(&mut self) -> Result<(), ViewError> {
        for table in self.tables.iter().filter(|_| self.of_one_segment) {
            self.writer.keep_segments(table).await?;
        }
        Ok(())
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
