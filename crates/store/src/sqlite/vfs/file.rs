//! An open file, in SQLite's form, and what is known of it.

use std::ffi::{CStr, OsStr, c_int};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ffi;

use super::view::{Moving, ViewFile};
use super::wal::WalFile;
use super::{LOOK_NAME, METHODS};
use crate::sqlite::pages;
use crate::sqlite::watch::Watch;

/// An open file, in SQLite's form. The file of the real VFS follows it in memory.
#[repr(C)]
pub(super) struct File {
    base: ffi::sqlite3_file,
    state: *mut State,
}

/// The facts about an open file.
struct State {
    path: PathBuf,
    kind: Kind,
}

pub(super) enum Kind {
    View(ViewFile),
    Wal(WalFile),
}

/// Returns the file of the real VFS.
///
/// # Safety
/// `file` was opened here.
pub(super) unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` has room for both, one after the other.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// Returns the methods of the real file.
///
/// # Safety
/// `file` was opened here, and is open.
pub(super) unsafe fn methods(file: *mut ffi::sqlite3_file) -> &'static ffi::sqlite3_io_methods {
    // SAFETY: an open file has methods, which are constants of SQLite.
    unsafe { &*(*real(file)).pMethods }
}

/// Returns the path of the file.
///
/// # Safety
/// `file` was opened here and is open.
pub(super) unsafe fn path<'a>(file: *mut ffi::sqlite3_file) -> &'a Path {
    // SAFETY: it is set when the file is opened, never changed, and freed when it is closed.
    unsafe { &(*(*file.cast::<File>()).state).path }
}

/// Returns the kind of the file.
///
/// # Safety
/// `file` was opened here, is open, and no other thread uses it meanwhile; nobody else has a reference to its kind.
pub(super) unsafe fn kind<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Kind {
    // SAFETY: it is set when the file is opened and freed when it is closed.
    unsafe { &mut (*(*file.cast::<File>()).state).kind }
}

pub(super) unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives the VFS that was registered here, memory for a file of `szOsFile` bytes, and a name if the
    // file has one. A file that is neither a view nor a WAL is opened in that memory as it is, and never reaches this
    // code again.
    unsafe {
        let is_look = CStr::from_ptr((*vfs).zName) == LOOK_NAME;
        let vfs = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        let Some(open) = (*vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
        let mut kind = match flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) {
            ffi::SQLITE_OPEN_MAIN_DB => {
                let (wal, index) = (std::ptr::null_mut(), std::ptr::null());
                let (moving, kept, fails, watch, writing) = (Moving::Nothing, Vec::new(), false, None, None);
                Kind::View(ViewFile { wal, index, moving, kept, fails, watch, writing })
            }
            ffi::SQLITE_OPEN_WAL => Kind::Wal(WalFile::of(view_of(name))),
            _ => return noted(open(vfs, name, file, flags, out_flags)),
        };
        // SQLite would create a missing WAL, and change the owner of an existing one. It does not do that to a file
        // that it takes for the file of a database.
        let is_wal_to_look_at = is_look && matches!(kind, Kind::Wal(_));
        let flags = if is_wal_to_look_at { ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_MAIN_DB } else { flags };
        (*file).pMethods = std::ptr::null();
        (*real(file)).pMethods = std::ptr::null();
        let code = noted(open(vfs, name, real(file), flags, out_flags));
        if code != ffi::SQLITE_OK {
            // SQLite closes a file whose opening failed half way only if it has methods.
            if !(*real(file)).pMethods.is_null()
                && let Some(close) = methods(file).xClose
            {
                close(real(file));
            }
            return code;
        }
        let path = if name.is_null() { c"a view" } else { CStr::from_ptr(name) };
        let path = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
        if let Kind::View(view) = &mut kind
            && !is_look
            && !name.is_null()
        {
            match Watch::of(&path) {
                Ok(watch) if !has_moved(file) => view.watch = Some(watch),
                // The directory names another file by now.
                _ => {
                    methods(file).xClose.map(|close| close(real(file)));
                    return ffi::SQLITE_CANTOPEN;
                }
            }
        }
        if let Kind::Wal(wal) = &kind
            && let Some(view) = view_file(wal.view)
        {
            view.wal = file;
            if let Some(watch) = &view.watch {
                watch.wal_opened();
            }
        }
        (*file.cast::<File>()).state = Box::into_raw(Box::new(State { path, kind }));
        (*file).pMethods = &METHODS;
        ffi::SQLITE_OK
    }
}

/// Notes why the operating system has just refused to open a file, if it has. Returns the same code.
pub(super) fn noted(code: c_int) -> c_int {
    if code & 0xff == ffi::SQLITE_CANTOPEN {
        pages::unopened(&io::Error::last_os_error());
    }
    code
}

/// Returns the file of the view whose WAL is being opened under `name`; null if it was not opened here.
///
/// # Safety
/// `name` is the name under which SQLite opens a WAL.
pub(super) unsafe fn view_of(name: ffi::sqlite3_filename) -> *mut ffi::sqlite3_file {
    if name.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: SQLite gives the file that it opened before the WAL and closes after it.
    unsafe {
        let view = ffi::sqlite3_database_file_object(name);
        if !view.is_null() && std::ptr::eq((*view).pMethods, &raw const METHODS) { view } else { std::ptr::null_mut() }
    }
}

/// Returns true if the directory does not name the open file any more, as far as SQLite's VFS can tell.
///
/// # Safety
/// The real file is open.
unsafe fn has_moved(file: *mut ffi::sqlite3_file) -> bool {
    let mut has_moved: c_int = 0;
    // SAFETY: this control writes one int.
    unsafe {
        let control = methods(file).xFileControl;
        control.map(|ask| ask(real(file), ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut has_moved).cast()));
    }
    has_moved != 0
}

/// Returns the watch of the file of a view.
///
/// # Safety
/// `view` is null or an open file of SQLite, and no other thread uses it meanwhile.
pub(super) unsafe fn watch_of(view: *mut ffi::sqlite3_file) -> Option<Arc<Watch>> {
    // SAFETY: a file with these methods was opened here.
    unsafe {
        if view.is_null() || !std::ptr::eq((*view).pMethods, &raw const METHODS) {
            return None;
        }
        view_file(view).and_then(|view| view.watch.clone())
    }
}

/// Returns the state of the file of a view.
///
/// # Safety
/// `view` is null or was opened here and is open, and no other thread uses it meanwhile.
pub(super) unsafe fn view_file<'a>(view: *mut ffi::sqlite3_file) -> Option<&'a mut ViewFile> {
    if view.is_null() {
        return None;
    }
    // SAFETY: as the caller's.
    match unsafe { kind(view) } {
        Kind::View(view) => Some(view),
        Kind::Wal(_) => None,
    }
}

pub(super) unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once, and a WAL before the file of its view.
    unsafe {
        if let Kind::Wal(wal) = kind(file)
            && let Some(view) = view_file(wal.view)
        {
            view.wal = std::ptr::null_mut();
            if let Some(watch) = &view.watch {
                watch.wal_closed();
            }
        }
        drop(Box::from_raw((*file.cast::<File>()).state));
        methods(file).xClose.map_or(ffi::SQLITE_OK, |close| close(real(file)))
    }
}
