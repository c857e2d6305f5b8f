//! The file of a view: pages are sealed when they are written, and are written only after the move is noted.

use std::ffi::{c_int, c_void};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi;

use super::file::{Kind, kind, methods, noted, path, real};
use super::io::{read_real, write_real};
use super::locks::Locks;
use super::steps::step;
use crate::sqlite::moved::{self, Moved, Noted};
use crate::sqlite::pages::{self, HEADER_BYTES, PAGE_BYTES, Round, SALT_BYTES, WAL_HEADER_BYTES};
use crate::sqlite::watch::{Watch, Writing};

/// The place in the index of a WAL of the last frame whose page is being moved (<https://sqlite.org/walformat.html>,
/// `nBackfillAttempted`).
const ATTEMPTED_AT: usize = 128;

/// The file of a view. In WAL mode it is written to only while pages are moved from the WAL. Each move is noted first
/// (see [`moved`]). Without the note, not a byte is written.
pub(super) struct ViewFile {
    /// The WAL, while it is open.
    pub(super) wal: *mut ffi::sqlite3_file,
    /// The first region of the WAL's index in shared memory, while it is mapped.
    pub(super) index: *const u8,
    pub(super) moving: Moving,
    /// Locks of the index that could not be released, though SQLite assumes that they are.
    pub(super) kept: Vec<Locks>,
    /// True if the last attempt to note a move failed.
    pub(super) fails: bool,
    /// The watch of its files; `None` if the view is only looked at.
    pub(super) watch: Option<Arc<Watch>>,
    /// The write that is under way while pages are moved.
    pub(super) writing: Option<Writing>,
}

/// How far pages are moved.
#[derive(Clone, Copy)]
pub(super) enum Moving {
    Nothing,
    /// The move could not be noted.
    Refused(c_int),
    Noted(Moved),
    /// Nothing is left to move, and the file has its new size. It is flushed next.
    All(Moved),
}

impl ViewFile {
    /// Checks that pages may be written to the file. Returns the reason if they may not.
    fn may_write(&self) -> Result<(), c_int> {
        match self.moving {
            _ if self.wal.is_null() => Ok(()),
            Moving::Noted(_) | Moving::All(_) => Ok(()),
            Moving::Refused(code) => Err(code),
            Moving::Nothing => Err(ffi::SQLITE_IOERR_WRITE),
        }
    }

    /// Notes that this process writes to the file, until the answer is dropped.
    fn write(&self) -> Option<Writing> {
        self.watch.as_ref().map(Watch::write)
    }

    /// Checks that the files are still those that this process has opened and written to. Nothing is noted beside other
    /// files. They may be those of a new view, if this one was dropped.
    fn is_unchanged(&self) -> Result<(), c_int> {
        match self.watch.as_ref().map(|watch| watch.changed()) {
            None | Some(Ok(None)) => Ok(()),
            Some(Ok(Some(_))) => Err(ffi::SQLITE_READONLY_DBMOVED),
            Some(Err(_)) => Err(ffi::SQLITE_IOERR_FSTAT),
        }
    }

    /// Notes a move into the file named `view`.
    fn note(&mut self, view: &Path, moved: &Moved) -> Result<(), c_int> {
        step(view, "note");
        let noted = moved::note(view, moved);
        step(view, "noted");
        let was_failing = std::mem::replace(&mut self.fails, noted.is_err());
        noted.map_err(|error| {
            if !was_failing {
                tracing::warn!(view = %view.display(), %error, "pages stay in the WAL of a view, which grows, since what is \
                    moved into the file cannot be noted beside it");
            }
            match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
                _ => ffi::SQLITE_IOERR_WRITE,
            }
        })
    }
}

/// Writes a page, sealed.
///
/// # Safety
/// `file` is that of `view`, was opened here, and is open.
pub(super) unsafe fn write(file: *mut ffi::sqlite3_file, view: &ViewFile, bytes: &[u8], at: u64) -> c_int {
    if let Err(code) = view.may_write() {
        return code;
    }
    // Bytes that are not a page would make an unsound page, so they are not written at all.
    let Ok(page) = <&[u8; PAGE_BYTES]>::try_from(bytes) else { return ffi::SQLITE_IOERR_WRITE };
    if !at.is_multiple_of(PAGE_BYTES as u64) {
        return ffi::SQLITE_IOERR_WRITE;
    }
    let number = at / PAGE_BYTES as u64 + 1;
    let _writing = view.write();
    // SAFETY: as the caller's.
    unsafe {
        step(path(file), "page");
        let mut page = *page;
        // A page from the WAL was sealed there.
        if !pages::is_sound(number, &page) {
            pages::seal(number, &mut page);
        }
        // Until all pages are moved, the file stays the one that the note names.
        if number == 1
            && let Moving::Noted(moved) = view.moving
        {
            pages::stamp(&mut page, moved.stamp);
        }
        write_real(file, &page, at)
    }
}

/// Returns the stamp in the header of the file.
///
/// # Safety
/// `file` was opened here and is open.
unsafe fn stamp_of(file: *mut ffi::sqlite3_file) -> Result<u32, c_int> {
    let mut header = [0; HEADER_BYTES];
    // SAFETY: as the caller's.
    match unsafe { read_real(file, &mut header, 0) } {
        ffi::SQLITE_OK => Ok(pages::stamp_of(&header)),
        code => Err(code),
    }
}

/// Writes the stamp of a file into which all pages were moved.
///
/// # Safety
/// As [`write()`].
unsafe fn write_stamp(file: *mut ffi::sqlite3_file, view: &ViewFile, stamp: u32) -> c_int {
    let _writing = view.write();
    let mut header = [0; HEADER_BYTES];
    // SAFETY: as the caller's.
    unsafe {
        match read_real(file, &mut header, 0) {
            ffi::SQLITE_OK => {
                pages::stamp(&mut header, stamp);
                write_real(file, &header, 0)
            }
            code => code,
        }
    }
}

/// Notes beside the file that a WAL with these salts begins, before its first frame. If that cannot be noted, nothing
/// is noted there, which is right as well: all pages of an earlier WAL are in the file.
///
/// # Safety
/// `file` is that of a view, was opened here, is open, and is not used by another thread meanwhile.
pub(super) unsafe fn note_begun(file: *mut ffi::sqlite3_file, salts: [u8; SALT_BYTES]) -> c_int {
    // SAFETY: as the caller's.
    unsafe {
        let Kind::View(view) = kind(file) else { return ffi::SQLITE_MISUSE };
        if let Err(code) = view.is_unchanged() {
            return code;
        }
        let stamp = match stamp_of(file) {
            Ok(stamp) => stamp,
            Err(code) => return code,
        };
        match view.note(path(file), &Moved { salts, frames: 0, whole: true, stamp }) {
            Ok(()) => ffi::SQLITE_OK,
            Err(code) => moved::forget(path(file)).map_or(code, |()| ffi::SQLITE_OK),
        }
    }
}

pub(super) unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let Some(truncate) = methods(file).xTruncate else { return ffi::SQLITE_IOERR_TRUNCATE };
        let Kind::View(view) = kind(file) else { return truncate(real(file), size) };
        if let Err(code) = view.may_write() {
            return code;
        }
        let _writing = view.write();
        let code = truncate(real(file), size);
        if code == ffi::SQLITE_OK
            && let Moving::Noted(moved) = view.moving
        {
            view.moving = Moving::All(moved);
        }
        code
    }
}

pub(super) unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let Some(sync) = methods(file).xSync else { return ffi::SQLITE_IOERR_FSYNC };
        let Kind::View(view) = kind(file) else { return sync(real(file), flags) };
        let Moving::All(moved) = std::mem::replace(&mut view.moving, Moving::Nothing) else {
            return sync(real(file), flags);
        };
        let moved = moved.all();
        let stamped = write_stamp(file, view, moved.stamp);
        if stamped != ffi::SQLITE_OK {
            return stamped;
        }
        match sync(real(file), flags) {
            // Only after this may SQLite begin the WAL again, or remove it.
            ffi::SQLITE_OK => view.note(path(file), &moved).err().unwrap_or(ffi::SQLITE_OK),
            code => code,
        }
    }
}

pub(super) unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    what: c_int,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: SQLite gives an open file; the arguments are passed on as they are.
    unsafe {
        // The WAL is flushed, and pages are about to be moved.
        if what == ffi::SQLITE_FCNTL_CKPT_START {
            let begun = begin_to_move(file);
            if let Kind::View(view) = kind(file) {
                view.moving = begun.map_or_else(Moving::Refused, Moving::Noted);
                view.writing = if begun.is_ok() { view.write() } else { None };
            }
        }
        if what == ffi::SQLITE_FCNTL_CKPT_DONE
            && let Kind::View(view) = kind(file)
        {
            view.writing = None;
        }
        methods(file).xFileControl.map_or(ffi::SQLITE_NOTFOUND, |control| control(real(file), what, argument))
    }
}

/// Notes that pages are being moved from the WAL, and through which frame.
///
/// # Safety
/// `file` was opened here, is open, and is not used by another thread meanwhile.
unsafe fn begin_to_move(file: *mut ffi::sqlite3_file) -> Result<Moved, c_int> {
    // SAFETY: as the caller's; the WAL and its index exist until they are closed and unmapped, and are then forgotten
    // here.
    unsafe {
        let Kind::View(view) = kind(file) else { return Err(ffi::SQLITE_MISUSE) };
        if view.wal.is_null() || view.index.is_null() {
            return Err(ffi::SQLITE_IOERR_SHMMAP);
        }
        view.is_unchanged()?;
        let mut header = [0; WAL_HEADER_BYTES as usize];
        let code = read_real(view.wal, &mut header, 0);
        if code != ffi::SQLITE_OK {
            return Err(code);
        }
        let Some(Round { salts, .. }) = Round::of(&header) else { return Err(ffi::SQLITE_CORRUPT) };
        let frames = (*view.index.add(ATTEMPTED_AT).cast::<AtomicU32>()).load(Ordering::Acquire);
        if frames == 0 {
            return Err(ffi::SQLITE_PROTOCOL);
        }
        // Pages that an earlier attempt has moved stay moved.
        let before = match moved::read(path(file)) {
            Ok(Noted::Moved(before)) if before.salts == salts => before.frames,
            _ => 0,
        };
        let moved = Moved { salts, frames: frames.max(before), whole: false, stamp: stamp_of(file)? };
        view.note(path(file), &moved).map(|()| moved)
    }
}

pub(super) unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    into: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite gives an open file and a place for the answer.
    unsafe {
        let Some(map) = methods(file).xShmMap else { return ffi::SQLITE_IOERR_SHMMAP };
        let code = noted(map(real(file), region, size, extend, into));
        if let Kind::View(view) = kind(file)
            && code == ffi::SQLITE_OK
            && region == 0
        {
            view.index = (*into).cast();
        }
        code
    }
}
