//! The VFS through which SQLite reads and writes the files of views. Each page is sealed when it is written and checked
//! when it is read. [`pages`](super::pages) defines a sound page.
//!
//! ```text
//!   SQLite ── xRead ─▶ here ── xRead ─▶ the operating system
//!                        └─ page or frame not sound: SQLITE_IOERR_DATA, and which one it is
//! ```
//!
//! `file` holds what is known of an open file. `io` reads and writes. `view` is about the file of a view and the pages
//! that are moved into it, `wal` about the frames beside it, and `locks` about the right to write.
//!
//! SQLite has an interface for this, a VFS, and an example of one that keeps checksums (`ext/misc/cksumvfs.c`), which
//! is not part of the library. The example checks no page of the WAL, and one damaged byte of a file's header turns it
//! off. See `docs/decisions/0019-checksums-of-pages.md`.
//!
//! Only this module of the workspace has `unsafe` code, since SQLite's interface is C. Each open file has one value of
//! `State`, which belongs to its connection. One thread at a time uses a connection.

#![allow(unsafe_code)]

pub(crate) mod fails;

mod file;
mod io;
mod locks;
pub(crate) mod steps;
#[cfg(test)]
mod tests;
mod view;
mod wal;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

use rusqlite::{Connection, ffi};

use super::pages::{self, PAGE_BYTES};
use super::watch::Watch;
use file::{File, close, methods, open, real, watch_of};
use io::{read, write};
use locks::{shm_lock, shm_unmap};
use view::{file_control, shm_map, sync, truncate};

/// Its name in SQLite.
const NAME: &CStr = c"dacapo";
/// The name of the VFS that takes no locks and changes nothing.
const LOOK_NAME: &CStr = c"dacapo-look";
/// SQLite's own VFS without locks.
const REAL_LOOK_NAME: &CStr = c"unix-none";

/// Returns the name of the file system through which SQLite opens the file of a view.
///
/// # Errors
/// SQLite's code, if it has no VFS of its own.
pub(super) fn name() -> Result<&'static CStr, c_int> {
    static REGISTERED: OnceLock<Result<(), c_int>> = OnceLock::new();
    // SQLite's own VFS stays the default. This one never becomes it.
    REGISTERED.get_or_init(|| register(NAME, std::ptr::null())).map(|()| NAME)
}

/// Returns the name of the file system through which SQLite opens the file of a view only to look at it, while nobody
/// writes to it.
///
/// # Errors
/// As [`name`].
pub(crate) fn look_name() -> Result<&'static CStr, c_int> {
    static REGISTERED: OnceLock<Result<(), c_int>> = OnceLock::new();
    REGISTERED.get_or_init(|| register(LOOK_NAME, REAL_LOOK_NAME.as_ptr())).map(|()| LOOK_NAME)
}

/// Leaves room for digests in a file that is about to be made.
pub(super) fn reserve(connection: &mut Connection) -> rusqlite::Result<()> {
    let mut bytes = pages::RESERVED_BYTES as c_int;
    // SAFETY: the handle is open for as long as the connection is, and this control reads and writes one int.
    let code = unsafe {
        let to = (&raw mut bytes).cast::<c_void>();
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_RESERVE_BYTES, to)
    };
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// Returns the watch of the files of an open view.
pub(super) fn watch(connection: &Connection) -> Option<Arc<Watch>> {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the handle is open for as long as the connection is, and this control writes one pointer to its open
    // file. Nobody else uses the connection meanwhile, which is borrowed here and cannot be shared between threads.
    unsafe {
        let to = (&raw mut file).cast::<c_void>();
        let code = ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, to);
        if code == ffi::SQLITE_OK { watch_of(file) } else { None }
    }
}

/// Registers a VFS that works through SQLite's own VFS with the name `of`.
fn register(name: &'static CStr, of: *const c_char) -> Result<(), c_int> {
    // SAFETY: a VFS may be looked up at any time; that initialises SQLite if necessary. SQLite's own VFSs exist as long
    // as the process does, and do not change after they are registered. Their other methods use no state of the VFS, so
    // they work for a copy.
    let code = unsafe {
        let real = ffi::sqlite3_vfs_find(of);
        if real.is_null() {
            return Err(ffi::SQLITE_ERROR);
        }
        let mut vfs = *real;
        vfs.pNext = std::ptr::null_mut();
        vfs.zName = name.as_ptr();
        vfs.pAppData = real.cast();
        vfs.szOsFile += size_of::<File>() as c_int;
        vfs.xOpen = Some(open);
        ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0)
    };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite gives an open file.
    let found = unsafe { methods(file).xDeviceCharacteristics.map_or(0, |ask| ask(real(file))) };
    // A part of a page cannot be checked.
    found & !ffi::SQLITE_IOCAP_SUBPAGE_READ
}

/// Refuses to map pages into memory, where they could not be checked.
unsafe extern "C" fn fetch(_: *mut ffi::sqlite3_file, _: i64, _: c_int, into: *mut *mut c_void) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *into = std::ptr::null_mut() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn unfetch(_: *mut ffi::sqlite3_file, _: i64, _: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

/// Methods that do what the real ones do.
macro_rules! forwarded {
    ($($name:ident $method:ident ($($argument:ident: $kind:ty),*) -> $missing:expr;)*) => {
        $(unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $kind)*) -> c_int {
            // SAFETY: SQLite gives an open file; the arguments are passed on as they are.
            unsafe { methods(file).$method.map_or($missing, |method| method(real(file) $(, $argument)*)) }
        })*
    };
}

forwarded! {
    file_size xFileSize(size: *mut i64) -> ffi::SQLITE_IOERR_FSTAT;
    lock xLock(level: c_int) -> ffi::SQLITE_IOERR_LOCK;
    unlock xUnlock(level: c_int) -> ffi::SQLITE_IOERR_UNLOCK;
    check_reserved_lock xCheckReservedLock(held: *mut c_int) -> ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    sector_size xSectorSize() -> PAGE_BYTES as c_int;
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite gives an open file.
    unsafe {
        if let Some(barrier) = methods(file).xShmBarrier {
            barrier(real(file));
        }
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};
