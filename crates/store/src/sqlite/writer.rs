//! The writer of a view.
//!
//! ```text
//!  reads: committed state ──first write──▶ gate ▶ BEGIN IMMEDIATE ──▶ reads and writes inside ──▶ COMMIT
//! ```
//!
//! An index is built on a thread of its own, which has the desk and the gate during that time.
//!
//! Until the first write the writer holds no lock, so that a hold or a claim does not wait for a handler. The rows that
//! it has read until then can have changed only if another writer committed. In that case its own commit is refused
//! (I-4).

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_model::Segment;
use rusqlite::InterruptHandle;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use crate::error::{CommitError, StoreError};
use crate::sqlite::Db;
use crate::sqlite::view::{Desk, Home, aside};
use crate::table::{Index, Table, Value};
use crate::views::{Attached, Commit, OfSegment, ViewCopy, ViewWriter};

pub(super) struct Writer<H: Home> {
    /// `None` while another thread builds an index with it. It does not return if the build was cancelled.
    desk: Option<H::Desk>,
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Held from the first write to the end of the transaction.
    inside: Option<OwnedMutexGuard<()>>,
    /// True if another view can be read, until the transaction ends.
    attached: bool,
    /// True if sorts use files until the transaction ends.
    sorts_in_files: bool,
}

/// Ends the statement of another thread once nobody waits for it any more.
struct InterruptOnDrop(Option<InterruptHandle>);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}

impl<H: Home> Writer<H> {
    pub(super) fn new(desk: H::Desk, gate: Arc<tokio::sync::Mutex<()>>) -> Self {
        Self { desk: Some(desk), gate, inside: None, attached: false, sorts_in_files: false }
    }

    fn desk(&mut self) -> Result<&mut H::Desk, StoreError> {
        self.desk.as_mut().ok_or_else(lost)
    }

    /// Begins the transaction with the first write.
    async fn enter(&mut self) -> Result<&mut H::Desk, StoreError> {
        if self.inside.is_some() {
            // SQLite rolls back by itself after some errors. A statement after such an error would commit by itself.
            self.desk()?.inside(|db| match db.in_transaction() {
                true => Ok(()),
                false => Err(StoreError::unavailable(
                    format!("write to {}", db.place()),
                    "an earlier error of this transaction rolled it back: roll back and begin again",
                )),
            })?;
        } else {
            let gate = Arc::clone(&self.gate).lock_owned().await;
            let desk = self.desk()?;
            aside::<H, _>(|| desk.begin())?;
            self.inside = Some(gate);
        }
        self.desk()
    }

    fn leave(&mut self) {
        if let Some(desk) = &mut self.desk {
            if std::mem::take(&mut self.attached)
                && let Err(error) = desk.inside(|db| db.detach())
            {
                tracing::warn!(%error, "the view that was copied stays open until this one is closed");
            }
            if std::mem::take(&mut self.sorts_in_files)
                && let Err(error) = desk.inside(|db| db.sort_in_files(false))
            {
                tracing::warn!(%error, "sorts continue to use files");
            }
            desk.ended();
        }
        self.inside = None;
    }

    /// Lets large sorts of the next transaction use files.
    fn sort_in_files(&mut self) -> Result<(), StoreError> {
        // In memory nothing is large, and all share one connection.
        if !H::INLINE {
            self.desk()?.read(|db| db.sort_in_files(true))?;
            self.sorts_in_files = true;
        }
        Ok(())
    }

    /// Does work in the transaction that may take very long and can be cancelled.
    async fn apart<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let desk = self.enter().await?;
        if H::INLINE || Handle::try_current().is_err() {
            return desk.inside(work);
        }
        let mut interrupt = InterruptOnDrop(Some(desk.inside(|db| Ok::<_, StoreError>(db.interrupt_handle()))?));
        let (mut desk, gate) = (self.desk.take().ok_or_else(lost)?, self.inside.take());
        // If this is cancelled, the desk and its transaction are dropped before the gate.
        let task = tokio::task::spawn_blocking(move || {
            let result = desk.inside(work);
            (desk, gate, result)
        });
        let done = task.await;
        interrupt.0 = None;
        match done {
            Ok((desk, gate, result)) => {
                (self.desk, self.inside) = (Some(desk), gate);
                result
            }
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::unavailable("write to a view", "the runtime is shutting down")),
            },
        }
    }

    fn read<T>(&mut self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let inside = self.inside.is_some();
        let desk = self.desk()?;
        if inside { desk.inside(act) } else { desk.read(act) }
    }
}

fn lost() -> StoreError {
    StoreError::unavailable("write to a view", "an index of this writer was cancelled: open another writer")
}

#[async_trait]
impl<H: Home> ViewWriter for Writer<H> {
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        self.read(|db| db.load(table, key))
    }

    async fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError> {
        self.read(|db| db.load_of(table, key))
    }

    async fn segments_of(&mut self, table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError> {
        aside::<H, _>(|| self.read(|db| db.segments_of(table, keys)))
    }

    async fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError> {
        aside::<H, _>(|| self.read(|db| db.rows_with(table, index, values)))
    }

    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let desk = self.enter().await?;
        aside::<H, _>(|| desk.inside(|db| db.put(table, rows)))
    }

    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let desk = self.enter().await?;
        aside::<H, _>(|| desk.inside(|db| db.delete(table, keys)))
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        if self.attached {
            let (sql, parameters) = (sql.to_owned(), parameters.to_vec());
            return self.apart(move |db| db.execute(&sql, &parameters)).await;
        }
        let desk = self.enter().await?;
        aside::<H, _>(|| desk.inside(|db| db.execute(sql, parameters)))
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError> {
        aside::<H, _>(|| self.read(|db| db.query(sql, parameters))).map(|(_, rows)| rows)
    }

    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError> {
        let (table, index) = (*table, *index);
        // An index of a large table is sorted in files; if a transaction is open already, in memory.
        if self.inside.is_none() {
            self.sort_in_files()?;
        }
        self.apart(move |db| db.index(&table, &index)).await
    }

    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError> {
        assert!(self.inside.is_none(), "another view is attached before a transaction begins");
        let gate = Arc::clone(&self.gate).lock_owned().await;
        self.sort_in_files()?;
        self.desk()?.inside(|db| db.attach(copy))?;
        self.attached = true;
        let desk = self.desk()?;
        let begun = aside::<H, _>(|| desk.begin());
        self.inside = Some(gate);
        if let Err(error) = begun {
            self.leave();
            return Err(error);
        }
        self.desk()?.inside(Db::attached)
    }

    async fn keep_segments(&mut self, table: &Table) -> Result<(), StoreError> {
        let table = *table;
        self.apart(move |db| db.own(&table).map(|_| ())).await
    }

    async fn take_over_segments(&mut self, table: &Table, _: &Attached) -> Result<(), StoreError> {
        let table = *table;
        self.apart(move |db| db.take_over_segments(&table)).await
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        let result = match self.enter().await {
            Ok(desk) => aside::<H, _>(|| desk.inside(|db| db.commit(commit))),
            Err(error) => Err(error.into()),
        };
        self.leave();
        result
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        if self.inside.is_none() {
            return Ok(());
        }
        let result = self.desk().and_then(|desk| desk.inside(|db| db.rollback()));
        self.leave();
        result
    }
}

impl<H: Home> Drop for Writer<H> {
    fn drop(&mut self) {
        if self.inside.is_some() {
            if let Some(desk) = &mut self.desk
                && let Err(error) = desk.inside(|db| db.rollback())
            {
                tracing::warn!(%error, "a writer was dropped and could not roll back");
            }
            self.leave();
        }
    }
}
