//! The writer of a view.
//!
//! ```text
//!  reads: committed state ──first write──▶ gate ▶ BEGIN IMMEDIATE ──▶ reads and writes inside ──▶ COMMIT
//! ```
//!
//! Until the first write it holds no lock, so that a hold or a claim does not wait for a handler. What it
//! read before cannot have changed unless another writer committed, and then its own commit is refused (I-4).

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;

use crate::error::{CommitError, StoreError};
use crate::sqlite::view::{Desk, Home, aside};
use crate::table::{Table, Value};
use crate::views::{Commit, ViewWriter};

pub(super) struct Writer<H: Home> {
    desk: H::Desk,
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Held from the first write to the end of the transaction.
    inside: Option<OwnedMutexGuard<()>>,
}

impl<H: Home> Writer<H> {
    pub(super) fn new(desk: H::Desk, gate: Arc<tokio::sync::Mutex<()>>) -> Self {
        Self { desk, gate, inside: None }
    }

    /// Begins the transaction with the first write.
    async fn enter(&mut self) -> Result<&mut H::Desk, StoreError> {
        if self.inside.is_some() {
            // SQLite rolls back by itself on some errors; a statement after one would commit on its own.
            self.desk.inside(|db| match db.in_transaction() {
                true => Ok(()),
                false => Err(StoreError::unavailable(
                    format!("write to {}", db.place()),
                    "an earlier error of this transaction rolled it back: roll back and begin again",
                )),
            })?;
        } else {
            let gate = Arc::clone(&self.gate).lock_owned().await;
            aside::<H, _>(|| self.desk.begin())?;
            self.inside = Some(gate);
        }
        Ok(&mut self.desk)
    }

    fn leave(&mut self) {
        self.desk.ended();
        self.inside = None;
    }

    fn read<T>(&mut self, act: impl FnOnce(&mut crate::sqlite::Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.inside.is_some() { self.desk.inside(act) } else { self.desk.read(act) }
    }
}

#[async_trait]
impl<H: Home> ViewWriter for Writer<H> {
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        self.read(|db| db.load(table, key))
    }

    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = Vec<Value>> + Send),
    ) -> Result<(), StoreError> {
        let desk = self.enter().await?;
        aside::<H, _>(|| desk.inside(|db| db.put(table, rows)))
    }

    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = Vec<Value>> + Send),
    ) -> Result<(), StoreError> {
        let desk = self.enter().await?;
        aside::<H, _>(|| desk.inside(|db| db.delete(table, keys)))
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        let desk = self.enter().await?;
        aside::<H, _>(|| desk.inside(|db| db.execute(sql, parameters)))
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError> {
        aside::<H, _>(|| self.read(|db| db.query(sql, parameters))).map(|(_, rows)| rows)
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
        let result = self.desk.inside(|db| db.rollback());
        self.leave();
        result
    }
}

impl<H: Home> Drop for Writer<H> {
    fn drop(&mut self) {
        if self.inside.is_some() {
            if let Err(error) = self.desk.inside(|db| db.rollback()) {
                tracing::warn!(%error, "a writer was dropped and could not roll back");
            }
            self.leave();
        }
    }
}
