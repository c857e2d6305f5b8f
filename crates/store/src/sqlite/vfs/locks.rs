//! Locks of the index of a WAL.

use std::ffi::c_int;

use rusqlite::ffi;

use super::file::{Kind, kind, methods, path, real};
#[cfg(test)]
use super::steps;
use super::wal;

/// Tries to release a lock before the next use has to retry it.
const UNLOCK_TRIES: usize = 3;

/// The write lock (<https://sqlite.org/walformat.html>, `WAL_WRITE_LOCK`).
const WRITE_LOCK: c_int = 0;

/// Some locks of the index of a WAL, and their mode.
#[derive(Clone, Copy)]
pub(super) struct Locks {
    pub(super) offset: c_int,
    pub(super) count: c_int,
    pub(super) flags: c_int,
}

/// Takes or releases locks of the index.
///
/// # Safety
/// `file` was opened here, is open, and no other thread uses it meanwhile.
unsafe fn lock_real(file: *mut ffi::sqlite3_file, Locks { offset, count, flags }: Locks) -> c_int {
    #[cfg(test)]
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 && offset == WRITE_LOCK && steps::UNLOCKS_THAT_FAIL.get() > 0 {
        steps::UNLOCKS_THAT_FAIL.set(steps::UNLOCKS_THAT_FAIL.get() - 1);
        return ffi::SQLITE_BUSY;
    }
    // SAFETY: as the caller's.
    unsafe {
        let lock = methods(file).xShmLock;
        lock.map_or(ffi::SQLITE_IOERR_SHMLOCK, |lock| lock(real(file), offset, count, flags))
    }
}

/// Releases the locks that could not be released before.
///
/// # Safety
/// As [`lock_real`].
unsafe fn give_up_kept(file: *mut ffi::sqlite3_file) {
    // SAFETY: as the caller's.
    unsafe {
        if let Kind::View(view) = kind(file) {
            view.kept.retain(|locks| lock_real(file, *locks) != ffi::SQLITE_OK);
        }
    }
}

/// Takes or releases locks for SQLite. If the system cannot release a lock, SQLite continues as if it had. The
/// connection would then keep the lock permanently, and nobody could write any more, not even through this connection.
pub(super) unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let locks = Locks { offset, count, flags };
        give_up_kept(file);
        let code = lock_real(file, locks);
        if flags & ffi::SQLITE_SHM_UNLOCK == 0 {
            if code == ffi::SQLITE_OK
                && let Kind::View(view) = kind(file)
            {
                // A kept lock that SQLite takes again is SQLite's again.
                view.kept.retain(|kept| kept.offset + kept.count <= offset || offset + count <= kept.offset);
                if offset == WRITE_LOCK {
                    wal::begin(view);
                }
            }
            return code;
        }
        if code == ffi::SQLITE_OK {
            return code;
        }
        if (0..UNLOCK_TRIES).any(|_| lock_real(file, locks) == ffi::SQLITE_OK) {
            return ffi::SQLITE_OK;
        }
        if let Kind::View(view) = kind(file) {
            tracing::warn!(view = %path(file).display(), "a lock of a view cannot be released: a retry follows with the next use");
            view.kept.push(locks);
        }
        code
    }
}

pub(super) unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        give_up_kept(file);
        if let Kind::View(view) = kind(file) {
            view.kept.clear();
            view.index = std::ptr::null();
        }
        methods(file).xShmUnmap.map_or(ffi::SQLITE_OK, |unmap| unmap(real(file), delete))
    }
}
