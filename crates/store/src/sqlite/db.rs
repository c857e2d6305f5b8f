//! One connection to one view.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::error::StoreError;
use crate::sqlite::fault;
use crate::sqlite::rows::RowSql;
use crate::table::Table;

/// How long a statement waits for another process; within a process nobody waits here.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many statements are kept prepared.
const STATEMENTS_MAX: usize = 128;

/// Where a view is kept.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name in messages.
    pub(crate) name: String,
    /// Whether the view was dropped.
    pub(crate) gone: AtomicBool,
}

impl Place {
    pub(crate) fn new(name: String) -> Arc<Self> {
        Arc::new(Self { name, gone: AtomicBool::new(false) })
    }
}

/// A connection that knows its place in error messages and the SQL of the tables it has met.
pub(crate) struct Db {
    connection: Connection,
    place: Arc<Place>,
    rows: Vec<(Table, Arc<RowSql>)>,
}

impl Db {
    /// Takes over a connection to the view at `place`.
    pub(crate) fn new(connection: Connection, place: Arc<Place>) -> Result<Self, StoreError> {
        let mut db = Self { connection, place, rows: Vec::new() };
        db.tried("open the view", |connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            connection.pragma_update(None, "temp_store", "MEMORY")
        })?;
        Ok(db)
    }

    /// Where the view is, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place.name
    }

    /// Whether a transaction is open.
    pub(crate) fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Does something; if it fails, tells what and where.
    pub(crate) fn tried<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        act(&mut self.connection).map_err(|error| fault(&self.place.name, what, &error))
    }

    /// The connection as it is, for what [`tried`](Self::tried) cannot say.
    pub(super) fn raw(&self) -> &Connection {
        &self.connection
    }

    /// Begins a transaction that writes, and has the write lock once this returns.
    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        self.tried("begin a transaction", |connection| connection.execute_batch("BEGIN IMMEDIATE"))
    }

    /// Ends the open transaction, if there is one, as if it had never been.
    pub(crate) fn rollback(&mut self) -> Result<(), StoreError> {
        // SQLite itself rolls back on some errors, such as a full disk.
        if !self.in_transaction() {
            return Ok(());
        }
        self.tried("roll back", |connection| connection.execute_batch("ROLLBACK"))
    }

    /// The SQL for a table's rows, made once a connection.
    pub(super) fn sql(&mut self, table: &Table) -> Arc<RowSql> {
        // Tables are constants: the address tells them apart, and equal ones at two addresses do no harm.
        let known = |known: &Table| {
            std::ptr::eq(known.columns, table.columns) && known.name == table.name && known.key == table.key
        };
        if let Some((_, sql)) = self.rows.iter().find(|(table, _)| known(table)) {
            return Arc::clone(sql);
        }
        let sql = Arc::new(RowSql::of(table));
        self.rows.push((*table, Arc::clone(&sql)));
        sql
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // The last connection to close removes the files beside its own, by name. Once a view was dropped,
        // those names may be the ones of a view that was made anew.
        if self.place.gone.load(Ordering::Acquire)
            && let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(place = self.place(), %error, "cannot close a dropped view without touching its files");
        }
    }
}
