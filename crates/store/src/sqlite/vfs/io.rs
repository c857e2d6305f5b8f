//! Reading and writing: what is not sound is told and never given to SQLite, and what is written is sealed.

use std::ffi::{c_int, c_void};

use rusqlite::ffi;

use super::fails;
use super::file::{Kind, State, methods, real, state};
use super::steps::step;
use super::wal::{is_page_of_frame, sealed_frame};
use crate::sqlite::pages::{self, FRAME_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, PAGE_BYTES, Unread};

/// Reads from the real file.
///
/// # Safety
/// `file` was opened here and is open.
pub(super) unsafe fn read_real(file: *mut ffi::sqlite3_file, into: &mut [u8], at: u64) -> c_int {
    let (Ok(length), Ok(at)) = (c_int::try_from(into.len()), i64::try_from(at)) else { return ffi::SQLITE_IOERR_READ };
    // SAFETY: `into` has room for what is read.
    let code = unsafe {
        match methods(file).xRead {
            _ if fails::to_read(&state(file).path) => ffi::SQLITE_IOERR_CORRUPTFS,
            Some(read) => read(real(file), into.as_mut_ptr().cast(), length, at),
            None => ffi::SQLITE_IOERR_READ,
        }
    };
    // What the disk could not read this time it may read the next time. SQLite would call the view malformed.
    if code == ffi::SQLITE_IOERR_CORRUPTFS { ffi::SQLITE_IOERR_READ } else { code }
}

pub(super) unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, length: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives an open file and memory for `length` bytes.
    unsafe {
        let (Ok(length), Ok(at)) = (usize::try_from(length), u64::try_from(at)) else { return ffi::SQLITE_IOERR_READ };
        let bytes = std::slice::from_raw_parts_mut(into.cast::<u8>(), length);
        // What is not sound is read once more before anybody is told: damage is what is there, not what came once.
        let read = read_sound(file, bytes, at).or_else(|| read_sound(file, bytes, at));
        let state = state(file);
        match read {
            None => state.damaged(at, bytes),
            Some(ffi::SQLITE_IOERR_READ) => {
                pages::unread(Unread { file: state.path.clone(), at, length });
                ffi::SQLITE_IOERR_READ
            }
            Some(code) => code,
        }
    }
}

/// Reads as SQLite asks for it; nothing if what was read is not sound.
///
/// # Safety
/// `file` was opened here and is open.
unsafe fn read_sound(file: *mut ffi::sqlite3_file, bytes: &mut [u8], at: u64) -> Option<c_int> {
    let length = bytes.len();
    // SAFETY: as the caller's.
    unsafe {
        let code = read_real(file, bytes, at);
        match &state(file).kind {
            // SQLite looks into the header before it knows the size of pages; it reads the first page as such later.
            Kind::View(_) if length <= HEADER_BYTES => Some(code),
            Kind::View(_) => {
                let is_page = length == PAGE_BYTES && at.is_multiple_of(PAGE_BYTES as u64);
                let is_there = code == ffi::SQLITE_OK || code == ffi::SQLITE_IOERR_SHORT_READ;
                let is_sound = || is_page && pages::is_sound(at / PAGE_BYTES as u64 + 1, bytes);
                (!is_there || is_sound()).then_some(code)
            }
            Kind::Wal { .. } if is_page_of_frame(length, at) => match code {
                ffi::SQLITE_OK => {
                    let mut page = [0; 4];
                    let code = read_real(file, &mut page, at - FRAME_HEADER_BYTES as u64);
                    let is_sound = pages::is_sound(u32::from_be_bytes(page).into(), bytes);
                    (code != ffi::SQLITE_OK || is_sound).then_some(code)
                }
                ffi::SQLITE_IOERR_SHORT_READ => None,
                code => Some(code),
            },
            Kind::Wal { .. } => Some(code),
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
        let Some(write) = methods(file).xWrite else { return ffi::SQLITE_IOERR_WRITE };
        let (Ok(bytes), Ok(place)) = (usize::try_from(length), u64::try_from(at)) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), bytes);
        let State { path, kind } = state(file);
        match kind {
            Kind::View(view) => {
                if let Err(code) = view.may_write() {
                    return code;
                }
                // What is no page would leave one behind that is not sound, so it is not written at all.
                let Ok(mut page) = <[u8; PAGE_BYTES]>::try_from(bytes) else { return ffi::SQLITE_IOERR_WRITE };
                if !place.is_multiple_of(PAGE_BYTES as u64) {
                    return ffi::SQLITE_IOERR_WRITE;
                }
                pages::seal(place / PAGE_BYTES as u64 + 1, &mut page);
                step(path, "page");
                write(real(file), page.as_ptr().cast(), length, at)
            }
            Kind::Wal { header, order, .. } => {
                if let Ok(bytes) = <[u8; FRAME_HEADER_BYTES]>::try_from(bytes) {
                    *header = Some((place, bytes));
                    return write(real(file), from, length, at);
                }
                if !is_page_of_frame(bytes.len(), place) {
                    return write(real(file), from, length, at);
                }
                let Ok(mut page) = <[u8; PAGE_BYTES]>::try_from(bytes) else { return ffi::SQLITE_IOERR_WRITE };
                let frame_at = place - FRAME_HEADER_BYTES as u64;
                match header.take().filter(|(written, _)| *written == frame_at) {
                    Some(header) => match sealed_frame(file, order, header, &mut page) {
                        Ok(frame) => write(
                            real(file),
                            frame.as_ptr().cast(),
                            FRAME_BYTES as c_int,
                            at - FRAME_HEADER_BYTES as i64,
                        ),
                        Err(code) => code,
                    },
                    // In the place of what was written of it earlier in the transaction.
                    None => {
                        let mut number = [0; 4];
                        let code = read_real(file, &mut number, frame_at);
                        if code != ffi::SQLITE_OK {
                            return code;
                        }
                        pages::seal(u32::from_be_bytes(number).into(), &mut page);
                        write(real(file), page.as_ptr().cast(), length, at)
                    }
                }
            }
        }
    }
}
