//! A view in a file, opened only to look at it: no byte of it changes, nor of the files that SQLite keeps beside it.
//!
//! A plain connection, even a read-only one, makes the files `-wal` and `-shm`, or writes to them. So a file without a
//! WAL is opened as immutable. A file with a WAL is read through an index of the WAL in memory, without locks. Both are
//! correct because the caller has the directory, so that no other process of dacapo writes to it. Pages are checked
//! when they are read, as always.

use std::path::Path;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::error::StoreError;
use crate::sqlite::moved::beside;
use crate::sqlite::{Db, Place, escaped, vfs};

/// Opens the view in the file `path`.
pub(super) fn connect(path: &Path, place: &Arc<Place>, cache_kib: i64) -> Result<Db, StoreError> {
    let has_log = std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let failed = |error: rusqlite::Error| place.fault("open the view", &error);
    let vfs = vfs::look_name().map_err(|code| failed(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)))?;
    let how = if has_log { "" } else { "&immutable=1" };
    let uri = format!("file:{}?mode=ro{how}", escaped(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags_and_vfs(uri, flags, vfs).map_err(failed)?;
    let mut db = Db::new(connection, Arc::clone(place))?;
    db.tried("open the view", |connection| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if has_log {
            // This comes before the first access, so that the index of the WAL is kept in memory.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        }
        connection.pragma_update(None, "cache_size", cache_kib)
    })?;
    Ok(db)
}
