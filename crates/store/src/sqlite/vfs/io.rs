//! Reading and writing: unsound pages are reported and never given to SQLite, and written pages are sealed.

use std::ffi::{c_int, c_void};

use rusqlite::ffi;

use super::file::{Kind, kind, methods, path, real};
use super::wal::{self, is_page_of_frame};
use super::{fails, view};
use crate::sqlite::pages::{self, Damage, HEADER_BYTES, PAGE_BYTES, Unread};

/// Reads from the real file.
///
/// # Safety
/// `file` was opened here and is open.
pub(super) unsafe fn read_real(file: *mut ffi::sqlite3_file, into: &mut [u8], at: u64) -> c_int {
    let (Ok(length), Ok(at)) = (c_int::try_from(into.len()), i64::try_from(at)) else { return ffi::SQLITE_IOERR_READ };
    // SAFETY: `into` has room for what is read.
    let code = unsafe {
        match methods(file).xRead {
            _ if fails::to_read(path(file)) => ffi::SQLITE_IOERR_CORRUPTFS,
            Some(read) => read(real(file), into.as_mut_ptr().cast(), length, at),
            None => ffi::SQLITE_IOERR_READ,
        }
    };
    // The disk may succeed at the next read. SQLite would call the view malformed.
    if code == ffi::SQLITE_IOERR_CORRUPTFS { ffi::SQLITE_IOERR_READ } else { code }
}

/// Writes to the real file.
///
/// # Safety
/// `file` was opened here and is open.
pub(super) unsafe fn write_real(file: *mut ffi::sqlite3_file, bytes: &[u8], at: u64) -> c_int {
    let (Ok(length), Ok(at)) = (c_int::try_from(bytes.len()), i64::try_from(at)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: `bytes` exists until this returns.
    unsafe {
        methods(file)
            .xWrite
            .map_or(ffi::SQLITE_IOERR_WRITE, |write| write(real(file), bytes.as_ptr().cast(), length, at))
    }
}

pub(super) unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, length: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives an open file and memory for `length` bytes.
    unsafe {
        let (Ok(length), Ok(at)) = (usize::try_from(length), u64::try_from(at)) else { return ffi::SQLITE_IOERR_READ };
        let bytes = std::slice::from_raw_parts_mut(into.cast::<u8>(), length);
        // An unsound page is read once more before it is reported, so that a single faulty read does not count as
        // damage.
        match read_sound(file, bytes, at).or_else(|| read_sound(file, bytes, at)) {
            None => {
                let is_bare = matches!(kind(file), Kind::View(_)) && at == 0 && pages::is_bare(bytes);
                pages::found(Damage { file: path(file).display().to_string(), at, is_bare });
                ffi::SQLITE_IOERR_DATA
            }
            Some(ffi::SQLITE_IOERR_READ) => {
                pages::unread(Unread { file: path(file).to_owned(), at, length });
                ffi::SQLITE_IOERR_READ
            }
            Some(code) => code,
        }
    }
}

/// Reads for SQLite. Returns `None` if what was read is not sound.
///
/// # Safety
/// `file` was opened here, is open, and no other thread uses it meanwhile.
unsafe fn read_sound(file: *mut ffi::sqlite3_file, bytes: &mut [u8], at: u64) -> Option<c_int> {
    let length = bytes.len();
    // SAFETY: as the caller's.
    unsafe {
        match kind(file) {
            // SQLite reads the header before it knows the size of pages. It reads the first page as a page later.
            Kind::View(_) if length <= HEADER_BYTES => Some(read_real(file, bytes, at)),
            Kind::View(_) => {
                let code = read_real(file, bytes, at);
                let is_page = length == PAGE_BYTES && at.is_multiple_of(PAGE_BYTES as u64);
                let is_there = code == ffi::SQLITE_OK || code == ffi::SQLITE_IOERR_SHORT_READ;
                let is_sound = || is_page && pages::is_sound(at / PAGE_BYTES as u64 + 1, bytes);
                (!is_there || is_sound()).then_some(code)
            }
            Kind::Wal(wal) if is_page_of_frame(length, at) => wal::read_page(file, wal, bytes, at),
            Kind::Wal(_) => Some(read_real(file, bytes, at)),
        }
    }
}

pub(super) unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite gives an open file and `length` bytes.
    unsafe {
        let (Ok(length), Ok(at)) = (usize::try_from(length), u64::try_from(at)) else { return ffi::SQLITE_IOERR_WRITE };
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), length);
        match kind(file) {
            Kind::View(view) => view::write(file, view, bytes, at),
            Kind::Wal(wal) => wal::write(file, wal, bytes, at),
        }
    }
}
