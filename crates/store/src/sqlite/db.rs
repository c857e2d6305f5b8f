//! One connection to one view.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, InterruptHandle, OpenFlags, ffi};

use crate::error::StoreError;
use crate::limits;
use crate::sqlite::rows::RowSql;
use crate::sqlite::{Place, vfs};
use crate::table::Table;
use crate::views::ViewCopy;

/// A connection that knows its place in error messages and the SQL of the tables it has met.
pub(crate) struct Db {
    connection: Connection,
    /// Let go of after the connection.
    place: Arc<Place>,
    rows: Vec<(Table, Arc<RowSql>)>,
    /// True if the last transaction that wrote has changed the columns of a table.
    altered: bool,
    /// True if this connection lets nothing grow.
    full: bool,
}

impl Db {
    /// Takes over a connection to the view at `place`.
    pub(crate) fn new(connection: Connection, place: Arc<Place>) -> Result<Self, StoreError> {
        let mut db = Self { connection, place, rows: Vec::new(), altered: false, full: false };
        db.tried("open the view", |connection| {
            connection.busy_timeout(limits::BUSY_TIME_MAX)?;
            connection.set_prepared_statement_cache_capacity(limits::STATEMENTS_MAX);
            connection.pragma_update(None, "temp_store", "MEMORY")
        })?;
        Ok(db)
    }

    /// Returns a view in memory.
    pub(crate) fn in_memory(place: &Arc<Place>) -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory().map_err(|error| place.fault("open the view", &error))?;
        Self::new(connection, Arc::clone(place))
    }

    /// Returns a view in a file, which is there and may be empty. Its pages have checksums.
    pub(crate) fn in_file(path: &Path, place: &Arc<Place>) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let failed = |error: rusqlite::Error| place.fault("open the view", &error);
        let vfs = vfs::name().map_err(|code| failed(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)))?;
        let mut connection = Connection::open_with_flags_and_vfs(path, flags, vfs).map_err(failed)?;
        vfs::reserve(&mut connection).map_err(failed)?;
        Self::new(connection, Arc::clone(place))
    }

    /// Where the view is, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place.name
    }

    /// What an error means that was met while doing what `tried` says; the place remembers it.
    pub(super) fn fault(&self, tried: &str, error: &rusqlite::Error) -> StoreError {
        self.place.fault(tried, error)
    }

    /// The view is not what was written.
    pub(super) fn found_damaged(&self, damage: &StoreError) {
        self.place.damaged(damage);
    }

    /// A transaction was committed.
    pub(super) fn committed(&self) {
        self.place.written();
    }

    /// What `tried` says went well.
    pub(super) fn well(&self, tried: impl FnOnce() -> String) {
        self.place.well(tried);
    }

    /// Returns true if a transaction is open.
    pub(crate) fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Does something; if it fails, tells what and where.
    pub(crate) fn tried<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let done = act(&mut self.connection).map_err(|error| self.place.fault(what, &error))?;
        self.place.well(|| what.to_owned());
        Ok(done)
    }

    /// The connection as it is, for what [`tried`](Self::tried) cannot say.
    pub(super) fn raw(&self) -> &Connection {
        &self.connection
    }

    /// Begins a transaction that writes, and has the write lock once this returns.
    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        self.settle();
        let full = self.place.full.load(Ordering::Acquire);
        if std::mem::replace(&mut self.full, full) != full {
            // The least is what there is.
            let pages = if full { 1 } else { i64::from(u32::MAX - 1) };
            self.tried("limit the view", |connection| connection.pragma_update(None, "max_page_count", pages))?;
        }
        self.tried("begin a transaction", |connection| connection.execute_batch("BEGIN IMMEDIATE"))
    }

    /// Does something that fails where it would wait for another process.
    pub(crate) fn at_once<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let patience =
            |db: &mut Self, time| db.tried("set how long to wait", |connection| connection.busy_timeout(time));
        patience(self, Duration::ZERO)?;
        let done = act(self);
        patience(self, limits::BUSY_TIME_MAX)?;
        done
    }

    /// Ends the open transaction, if there is one, as if it had never been.
    pub(crate) fn rollback(&mut self) -> Result<(), StoreError> {
        // SQLite itself rolls back on some errors, such as a full disk.
        if !self.in_transaction() {
            return Ok(());
        }
        self.tried("roll back", |connection| connection.execute_batch("ROLLBACK"))
    }

    /// Returns the SQL for a table's rows, made once a connection.
    pub(super) fn sql(&mut self, table: &Table) -> Arc<RowSql> {
        self.settle();
        match self.rows.iter().find(|(known, _)| is(known, table)) {
            Some((_, sql)) => Arc::clone(sql),
            None => self.make_sql(table, false),
        }
    }

    /// Makes the SQL for a table's rows, which are known to say whose they are, or not.
    pub(super) fn make_sql(&mut self, table: &Table, owned: bool) -> Arc<RowSql> {
        // Asked only where it matters. Where it cannot be told, or changes later, rows are written all the same.
        let maybe_bare = !table.indexes.is_empty() && table.indexes.iter().all(|index| !index.unique);
        let mut missing = || self.missing_indexes(std::slice::from_ref(table)).map_or(0, |missing| missing.len());
        let bare = maybe_bare && missing() == table.indexes.len();
        let sql = Arc::new(RowSql::of(table, bare, owned));
        self.rows.retain(|(known, _)| !is(known, table));
        self.rows.push((*table, Arc::clone(&sql)));
        sql
    }

    /// Checks whether a change of columns has landed is known once its transaction has ended.
    fn settle(&mut self) {
        if self.altered && !self.in_transaction() {
            self.altered = false;
            self.forget_sql();
        }
    }

    /// The open transaction has changed the columns of a table.
    pub(super) fn altered(&mut self) {
        self.altered = true;
    }

    /// Makes the SQL for rows again when it is next asked for.
    pub(super) fn forget_sql(&mut self) {
        self.rows.clear();
    }

    /// Lets sorts use files, as large ones need it, or memory, which is quicker for the small ones of writing rows.
    /// Not within a transaction.
    pub(crate) fn sort_in_files(&mut self, files: bool) -> Result<(), StoreError> {
        let place = if files { "FILE" } else { "MEMORY" };
        self.tried("choose where to sort", |connection| connection.pragma_update(None, "temp_store", place))
    }

    /// What ends the statement under way from another thread.
    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// Makes another view readable as `source`. Not within a transaction.
    pub(crate) fn attach(&mut self, copy: &ViewCopy) -> Result<(), StoreError> {
        match copy {
            ViewCopy::Schema(schema) => Err(StoreError::Invalid(format!(
                "{} cannot read a view of a PostgreSQL database, in its schema {schema}: a copy is made within one store",
                self.place()
            ))),
            ViewCopy::File(path) => {
                // Read-only, so that a transaction here does not take the other view's write lock.
                let uri = format!("file:{}?mode=ro", escaped(path));
                self.tried("open the view to copy", |connection| {
                    connection.execute("ATTACH ?1 AS source", [uri]).map(drop)
                })
            }
            ViewCopy::Bytes(bytes) => self.tried("open the view to copy", |connection| {
                connection.execute("ATTACH ':memory:' AS source", [])?;
                // A copy of its own, which SQLite would not begin a transaction beside if it were read-only.
                let read = connection.deserialize_read_exact("source", bytes.as_slice(), bytes.len(), false);
                if read.is_err() {
                    connection.execute_batch("DETACH source")?;
                }
                read
            }),
        }
    }

    /// Lets go of what [`attach`](Self::attach) made readable. Not within a transaction.
    pub(crate) fn detach(&mut self) -> Result<(), StoreError> {
        self.connection.flush_prepared_statement_cache();
        self.tried("close the view that was copied", |connection| connection.execute_batch("DETACH source"))
    }
}

/// Returns true if it is the same table. Tables are constants: the address tells them apart, and equal ones at two
/// addresses do no harm.
fn is(known: &Table, table: &Table) -> bool {
    std::ptr::eq(known.columns, table.columns) && known.name == table.name && known.key == table.key
}

/// Returns a path as it stands in a URI.
pub(crate) fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

impl Drop for Db {
    fn drop(&mut self) {
        // The last connection to close removes the files beside its own, by name. Once a view was dropped,
        // those names may be the ones of a view that was made again.
        if self.place.gone.load(Ordering::Acquire)
            && let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(place = self.place(), %error, "cannot close a dropped view without touching its files");
        }
    }
}
