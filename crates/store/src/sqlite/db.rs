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

/// A connection that knows its place for error messages, and the SQL of the tables that it has used.
pub(crate) struct Db {
    connection: Connection,
    /// Dropped after the connection.
    place: Arc<Place>,
    rows: Vec<(Table, Arc<RowSql>)>,
    /// True if the last transaction that wrote has changed the columns of a table.
    altered: bool,
    /// True if this connection lets no file grow.
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

    /// Returns a view in a file that exists and may be empty. Its pages have checksums.
    pub(crate) fn in_file(path: &Path, place: &Arc<Place>) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let failed = |error: rusqlite::Error| place.fault("open the view", &error);
        let vfs = vfs::name().map_err(|code| failed(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)))?;
        let mut connection = Connection::open_with_flags_and_vfs(path, flags, vfs).map_err(failed)?;
        vfs::reserve(&mut connection).map_err(failed)?;
        if let Some(watch) = vfs::watch(&connection) {
            place.watch(watch)?;
        }
        Self::new(connection, Arc::clone(place))
    }

    /// Returns the place of the view, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place.name
    }

    /// Returns the meaning of an error that occurred during `tried`. The place remembers it.
    pub(super) fn fault(&self, tried: &str, error: &rusqlite::Error) -> StoreError {
        self.place.fault(tried, error)
    }

    /// Records that the view is not what was written.
    pub(super) fn found_damaged(&self, damage: &StoreError) {
        self.place.damaged(damage);
    }

    /// Checks that no other program has changed the files of the view.
    pub(super) fn check_files(&self) -> Result<(), StoreError> {
        self.place.check_files()
    }

    /// Records that a transaction was committed.
    pub(super) fn committed(&self) {
        self.place.written();
    }

    /// Records that `tried` has succeeded.
    pub(super) fn well(&self, tried: impl FnOnce() -> String) {
        self.place.well(tried);
    }

    /// Returns true if a transaction is open.
    pub(crate) fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Does something. An error names the action and the place.
    pub(crate) fn tried<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let done = act(&mut self.connection).map_err(|error| self.place.fault(what, &error))?;
        self.place.well(|| what.to_owned());
        Ok(done)
    }

    /// Returns the plain connection, for uses that [`tried`](Self::tried) does not cover.
    pub(super) fn raw(&self) -> &Connection {
        &self.connection
    }

    /// Begins a transaction that writes. Once this returns, it has the write lock.
    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        self.place.check_files()?;
        self.settle();
        let full = self.place.full.load(Ordering::Acquire);
        if std::mem::replace(&mut self.full, full) != full {
            // SQLite raises a limit of 1 to the present size.
            let pages = if full { 1 } else { i64::from(u32::MAX - 1) };
            self.tried("limit the view", |connection| connection.pragma_update(None, "max_page_count", pages))?;
        }
        self.tried("begin a transaction", |connection| connection.execute_batch("BEGIN IMMEDIATE"))
    }

    /// Does something that fails instead of waiting for another process.
    pub(crate) fn at_once<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let patience =
            |db: &mut Self, time| db.tried("set how long to wait", |connection| connection.busy_timeout(time));
        patience(self, Duration::ZERO)?;
        let done = act(self);
        patience(self, limits::BUSY_TIME_MAX)?;
        done
    }

    /// Undoes the open transaction, if there is one.
    pub(crate) fn rollback(&mut self) -> Result<(), StoreError> {
        // SQLite itself rolls back on some errors, such as a full disk.
        if !self.in_transaction() {
            return Ok(());
        }
        self.tried("roll back", |connection| connection.execute_batch("ROLLBACK"))
    }

    /// Returns the SQL for a table's rows. It is made once for each connection.
    pub(super) fn sql(&mut self, table: &Table) -> Arc<RowSql> {
        self.settle();
        match self.rows.iter().find(|(known, _)| is(known, table)) {
            Some((_, sql)) => Arc::clone(sql),
            None => self.make_sql(table, false),
        }
    }

    /// Makes the SQL for a table's rows. `owned` is true if they are known to name their segments.
    pub(super) fn make_sql(&mut self, table: &Table, owned: bool) -> Arc<RowSql> {
        // The missing indexes are read only if they matter. If they cannot be read, or change later, rows are written
        // correctly even so.
        let maybe_bare = !table.indexes.is_empty() && table.indexes.iter().all(|index| !index.unique);
        let mut missing = || self.missing_indexes(std::slice::from_ref(table)).map_or(0, |missing| missing.len());
        let bare = maybe_bare && missing() == table.indexes.len();
        let sql = Arc::new(RowSql::of(table, bare, owned));
        self.rows.retain(|(known, _)| !is(known, table));
        self.rows.push((*table, Arc::clone(&sql)));
        sql
    }

    /// Makes the SQL again after a transaction that changed columns has ended: only then it is known whether the change
    /// landed.
    fn settle(&mut self) {
        if self.altered && !self.in_transaction() {
            self.altered = false;
            self.forget_sql();
        }
    }

    /// Notes that the open transaction has changed the columns of a table.
    pub(super) fn altered(&mut self) {
        self.altered = true;
    }

    /// Forgets the SQL for rows, so that the next use makes it again.
    pub(super) fn forget_sql(&mut self) {
        self.rows.clear();
    }

    /// Lets sorts use files, which large sorts need, or memory, which is faster for the small sorts of writing rows. It
    /// must not be called within a transaction.
    pub(crate) fn sort_in_files(&mut self, files: bool) -> Result<(), StoreError> {
        let place = if files { "FILE" } else { "MEMORY" };
        self.tried("choose where to sort", |connection| connection.pragma_update(None, "temp_store", place))
    }

    /// Returns a handle with which another thread can end the statement under way.
    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// Makes another view readable as `source`. It must not be called within a transaction.
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
                // The copy is writable: SQLite would not begin a writing transaction beside a read-only one.
                let read = connection.deserialize_read_exact("source", bytes.as_slice(), bytes.len(), false);
                if read.is_err() {
                    connection.execute_batch("DETACH source")?;
                }
                read
            }),
        }
    }

    /// Closes the view that [`attach`](Self::attach) made readable. It must not be called within a transaction.
    pub(crate) fn detach(&mut self) -> Result<(), StoreError> {
        self.connection.flush_prepared_statement_cache();
        self.tried("close the view that was copied", |connection| connection.execute_batch("DETACH source"))
    }
}

/// Returns true if it is the same table. Tables are constants, so their addresses identify them. Two equal tables at
/// different addresses do no harm.
fn is(known: &Table, table: &Table) -> bool {
    std::ptr::eq(known.columns, table.columns) && known.name == table.name && known.key == table.key
}

/// Returns a path in the form that a URI needs.
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
        // The last connection that is closed removes the files beside its own by name. After a drop, files with those
        // names may belong to a new view of the same name. After a change by another program, the pages of the WAL do
        // not belong to the file, and the WAL is left as it is.
        if (self.place.gone.load(Ordering::Acquire) || self.place.check_files().is_err())
            && let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(place = self.place(), %error, "cannot close a view without touching its files");
        }
    }
}
