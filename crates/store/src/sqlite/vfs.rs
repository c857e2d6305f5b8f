//! How SQLite reads and writes the files of views: through here, so that each page is sealed when it is written and
//! looked at when it is read. What a sound page is, [`pages`](super::pages) says.
//!
//! ```text
//!   SQLite ── xRead ─▶ here ── xRead ─▶ the operating system
//!                        └─ page or frame not sound: SQLITE_IOERR_DATA, and which one it is
//! ```
//!
//! SQLite has an interface for this, a VFS, and an example of one that keeps checksums (`ext/misc/cksumvfs.c`), which is
//! not part of the library. That one looks at no page of the WAL, and one damaged byte of a file's header turns it off.
//! See `docs/decisions/0019-checksums-of-pages.md`.
//!
//! This is the one place of the workspace with `unsafe`: SQLite's interface is C. Each file that is opened has one
//! value of [`State`], which belongs to its connection, and a connection is used by one thread at a time.

#![allow(unsafe_code)]

pub(crate) mod fails;

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, ffi};

use super::moved::{self, Moved, Noted};
use super::pages::{
    self, Damage, FRAME_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, Order, PAGE_BYTES, Round, Unread, WAL_HEADER_BYTES,
};

/// How often it is tried at once to give up a lock again.
const UNLOCK_TRIES: usize = 3;

/// Where the index of a WAL says through which frame pages are being moved (<https://sqlite.org/walformat.html>,
/// `nBackfillAttempted`).
const ATTEMPTED_AT: usize = 128;

/// Its name to SQLite.
const NAME: &CStr = c"dacapo";
/// The name of the one that takes no locks and changes nothing.
const LOOK_NAME: &CStr = c"dacapo-look";
/// SQLite's own without locks.
const REAL_LOOK_NAME: &CStr = c"unix-none";

/// What SQLite is told to open the file of a view through.
///
/// # Errors
/// SQLite's code, should it have no VFS of its own.
pub(super) fn name() -> Result<&'static CStr, c_int> {
    static REGISTERED: OnceLock<Result<(), c_int>> = OnceLock::new();
    // Its own is the default: this one never is.
    REGISTERED.get_or_init(|| register(NAME, std::ptr::null())).map(|()| NAME)
}

/// What SQLite is told to open the file of a view through only to look at it, while nobody writes to it.
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

/// Registers a VFS that works through the one of SQLite's own that is named `of`.
fn register(name: &'static CStr, of: *const c_char) -> Result<(), c_int> {
    // SAFETY: a VFS may be looked for at any time, which initialises SQLite where that was not done. SQLite's own are there
    // for as long as the process is, and are not changed once they are registered. Their other methods do without a state of
    // the VFS, so they work for a copy.
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

/// An open file, as SQLite has it. The file of the real VFS follows it in memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    state: *mut State,
}

/// What is known of an open file.
struct State {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    View(ViewFile),
    Wal {
        /// The file of the view, which is open for longer than the WAL.
        view: *mut ffi::sqlite3_file,
        /// The header of a frame that was written last, and where: its page follows.
        header: Option<(u64, [u8; FRAME_HEADER_BYTES])>,
        /// In which order it takes bytes, once that is known.
        order: Option<Order>,
    },
}

/// The file of a view, which in WAL mode is written to only while pages are moved from the WAL. What is moved is noted
/// first (see [`moved`](super::moved)), or else not a byte is written.
struct ViewFile {
    /// The WAL, while that is open.
    wal: *mut ffi::sqlite3_file,
    /// The first region of the WAL's index in shared memory, while that is mapped.
    index: *const u8,
    moving: Moving,
    /// Locks of the index that could not be given up, which SQLite takes for given up.
    kept: Vec<Locks>,
    /// Whether what is moved could not be noted when it was tried last.
    fails: bool,
}

/// Some locks of the index of a WAL, and how they are held.
#[derive(Clone, Copy)]
struct Locks {
    offset: c_int,
    count: c_int,
    flags: c_int,
}

/// How far pages are moved.
#[derive(Clone, Copy)]
enum Moving {
    Nothing,
    /// What is moved could not be noted.
    Refused(c_int),
    Noted(Moved),
    /// Nothing is left to be moved, and the file has its new size. It is flushed next.
    All(Moved),
}

impl ViewFile {
    /// Whether pages may be written to the file, or why not.
    fn may_write(&self) -> Result<(), c_int> {
        match self.moving {
            _ if self.wal.is_null() => Ok(()),
            Moving::Noted(_) | Moving::All(_) => Ok(()),
            Moving::Refused(code) => Err(code),
            Moving::Nothing => Err(ffi::SQLITE_IOERR_WRITE),
        }
    }

    /// Notes what is moved in the file named `view`.
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

impl State {
    fn damaged(&self, at: u64, bytes: &[u8]) -> c_int {
        let is_bare = matches!(self.kind, Kind::View(_)) && at == 0 && pages::is_bare(bytes);
        pages::found(Damage { file: self.path.display().to_string(), at, is_bare });
        ffi::SQLITE_IOERR_DATA
    }
}

/// The file of the real VFS.
///
/// # Safety
/// `file` was opened here.
unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` has room for both, one after the other.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// Its methods.
///
/// # Safety
/// `file` was opened here, and is open.
unsafe fn methods(file: *mut ffi::sqlite3_file) -> &'static ffi::sqlite3_io_methods {
    // SAFETY: an open file has methods, which are constants of SQLite.
    unsafe { &*(*real(file)).pMethods }
}

/// # Safety
/// `file` was opened here, is open, and is not used by another thread meanwhile.
unsafe fn state<'a>(file: *mut ffi::sqlite3_file) -> &'a mut State {
    // SAFETY: it is set when the file is opened and freed when it is closed.
    unsafe { &mut *(*file.cast::<File>()).state }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives the VFS that was registered here, memory for a file of `szOsFile` bytes, and a name where the file
    // has one. What is neither a view nor a WAL is opened in that memory as it is, and never comes here again.
    unsafe {
        let is_look = CStr::from_ptr((*vfs).zName) == LOOK_NAME;
        let vfs = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        let Some(open) = (*vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
        let kind = match flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) {
            ffi::SQLITE_OPEN_MAIN_DB => {
                let (wal, index) = (std::ptr::null_mut(), std::ptr::null());
                Kind::View(ViewFile { wal, index, moving: Moving::Nothing, kept: Vec::new(), fails: false })
            }
            ffi::SQLITE_OPEN_WAL => Kind::Wal { view: view_of(name), header: None, order: None },
            _ => return open(vfs, name, file, flags, out_flags),
        };
        // SQLite would make a WAL that is not there, and give one that is there to its user again. What it takes for the file
        // of a database it leaves alone.
        let is_wal_to_look_at = is_look && matches!(kind, Kind::Wal { .. });
        let flags = if is_wal_to_look_at { ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_MAIN_DB } else { flags };
        (*file).pMethods = std::ptr::null();
        (*real(file)).pMethods = std::ptr::null();
        let code = open(vfs, name, real(file), flags, out_flags);
        if code != ffi::SQLITE_OK {
            // One that failed half way is closed by SQLite only if it has methods.
            if !(*real(file)).pMethods.is_null()
                && let Some(close) = methods(file).xClose
            {
                close(real(file));
            }
            return code;
        }
        let path = if name.is_null() { c"a view" } else { CStr::from_ptr(name) };
        let path = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
        if let Kind::Wal { view, .. } = kind
            && let Some(view) = view_file(view)
        {
            view.wal = file;
        }
        (*file.cast::<File>()).state = Box::into_raw(Box::new(State { path, kind }));
        (*file).pMethods = &METHODS;
        ffi::SQLITE_OK
    }
}

/// The file of the view whose WAL is being opened under `name`; null if it was not opened here.
///
/// # Safety
/// `name` is what SQLite opens a WAL under.
unsafe fn view_of(name: ffi::sqlite3_filename) -> *mut ffi::sqlite3_file {
    if name.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: SQLite gives the file that it has opened before the WAL, and closes after it.
    unsafe {
        let view = ffi::sqlite3_database_file_object(name);
        if !view.is_null() && std::ptr::eq((*view).pMethods, &raw const METHODS) { view } else { std::ptr::null_mut() }
    }
}

/// What is known of the file of a view.
///
/// # Safety
/// `view` is null or was opened here and is open, and is not used by another thread meanwhile.
unsafe fn view_file<'a>(view: *mut ffi::sqlite3_file) -> Option<&'a mut ViewFile> {
    if view.is_null() {
        return None;
    }
    // SAFETY: as the caller's.
    match unsafe { &mut state(view).kind } {
        Kind::View(view) => Some(view),
        Kind::Wal { .. } => None,
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once, and a WAL before the file of its view.
    unsafe {
        if let Kind::Wal { view, .. } = state(file).kind
            && let Some(view) = view_file(view)
        {
            view.wal = std::ptr::null_mut();
        }
        drop(Box::from_raw((*file.cast::<File>()).state));
        methods(file).xClose.map_or(ffi::SQLITE_OK, |close| close(real(file)))
    }
}

/// Reads from the real file.
///
/// # Safety
/// `file` was opened here and is open.
unsafe fn read_real(file: *mut ffi::sqlite3_file, into: &mut [u8], at: u64) -> c_int {
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

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, length: c_int, at: i64) -> c_int {
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

/// Whether so many bytes there are the page of a frame.
fn is_page_of_frame(length: usize, at: u64) -> bool {
    let before = WAL_HEADER_BYTES + FRAME_HEADER_BYTES as u64;
    length == PAGE_BYTES && at >= before && (at - before).is_multiple_of(FRAME_BYTES)
}

/// The checksum that the frame behind `at` goes on from: that of the frame before it, or of the WAL's header.
///
/// # Safety
/// `file` was opened here and is open.
unsafe fn sum_before(file: *mut ffi::sqlite3_file, at: u64) -> Result<[u8; 8], c_int> {
    let from = if at == WAL_HEADER_BYTES { WAL_HEADER_BYTES - 8 } else { at - PAGE_BYTES as u64 - 8 };
    let mut before = [0; 8];
    // SAFETY: as the caller's.
    match unsafe { read_real(file, &mut before, from) } {
        ffi::SQLITE_OK => Ok(before),
        code => Err(code),
    }
}

/// Seals the page of the frame at `at`, and makes the frame's checksum anew if it has one: where a page is written again
/// within a transaction, SQLite makes the checksums when it commits, of what it reads back.
///
/// # Safety
/// `file` was opened here and is open.
unsafe fn sealed_frame(
    file: *mut ffi::sqlite3_file,
    order: &mut Option<Order>,
    (at, mut header): (u64, [u8; FRAME_HEADER_BYTES]),
    page: &mut [u8; PAGE_BYTES],
) -> Result<[u8; FRAME_BYTES as usize], c_int> {
    let [a, b, c, d, ..] = header;
    pages::seal(u32::from_be_bytes([a, b, c, d]).into(), page);
    if header[8..].iter().any(|byte| *byte != 0) {
        let order = match order {
            Some(order) => *order,
            None => {
                let mut magic = [0; 4];
                // SAFETY: as the caller's.
                match unsafe { read_real(file, &mut magic, 0) } {
                    ffi::SQLITE_OK => *order.insert(Order::of(magic)),
                    code => return Err(code),
                }
            }
        };
        // SAFETY: as the caller's.
        pages::sum_up(unsafe { sum_before(file, at) }?, order, &mut header, page);
    }
    let mut frame = [0; FRAME_BYTES as usize];
    frame[..FRAME_HEADER_BYTES].copy_from_slice(&header);
    frame[FRAME_HEADER_BYTES..].copy_from_slice(page);
    Ok(frame)
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, length: c_int, at: i64) -> c_int {
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

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite gives an open file.
    let found = unsafe { methods(file).xDeviceCharacteristics.map_or(0, |ask| ask(real(file))) };
    // A part of a page cannot be looked at.
    found & !ffi::SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let Some(truncate) = methods(file).xTruncate else { return ffi::SQLITE_IOERR_TRUNCATE };
        let Kind::View(view) = &mut state(file).kind else { return truncate(real(file), size) };
        if let Err(code) = view.may_write() {
            return code;
        }
        let code = truncate(real(file), size);
        if code == ffi::SQLITE_OK
            && let Moving::Noted(moved) = view.moving
        {
            view.moving = Moving::All(moved);
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let Some(sync) = methods(file).xSync else { return ffi::SQLITE_IOERR_FSYNC };
        let code = sync(real(file), flags);
        let State { path, kind } = state(file);
        let Kind::View(view) = kind else { return code };
        // Only after this does SQLite begin the WAL anew, or remove it.
        match std::mem::replace(&mut view.moving, Moving::Nothing) {
            Moving::All(moved) if code == ffi::SQLITE_OK => {
                view.note(path, &Moved { whole: true, ..moved }).err().unwrap_or(ffi::SQLITE_OK)
            }
            _ => code,
        }
    }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: SQLite gives an open file; the arguments are handed on as they are.
    unsafe {
        // The WAL is flushed, and pages are about to be moved.
        if what == ffi::SQLITE_FCNTL_CKPT_START {
            let begun = begin_to_move(file);
            if let Kind::View(view) = &mut state(file).kind {
                view.moving = begun.map_or_else(Moving::Refused, Moving::Noted);
            }
        }
        methods(file).xFileControl.map_or(ffi::SQLITE_NOTFOUND, |control| control(real(file), what, argument))
    }
}

/// Notes that pages are moved from the WAL, and through which frame.
///
/// # Safety
/// `file` was opened here, is open, and is not used by another thread meanwhile.
unsafe fn begin_to_move(file: *mut ffi::sqlite3_file) -> Result<Moved, c_int> {
    // SAFETY: as the caller's; the WAL and its index are there until they are closed and unmapped, and then forgotten here.
    unsafe {
        let State { path, kind } = state(file);
        let Kind::View(view) = kind else { return Err(ffi::SQLITE_MISUSE) };
        if view.wal.is_null() || view.index.is_null() {
            return Err(ffi::SQLITE_IOERR_SHMMAP);
        }
        // Of a view that was dropped nothing is noted, since one that was made anew may have its name.
        let mut is_gone: c_int = 0;
        let control = methods(file).xFileControl;
        control.map(|ask| ask(real(file), ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut is_gone).cast()));
        if is_gone != 0 {
            return Err(ffi::SQLITE_READONLY_DBMOVED);
        }
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
        // What an earlier attempt has moved stays moved.
        let before = match moved::read(path) {
            Ok(Noted::Moved(before)) if before.salts == salts => before.frames,
            _ => 0,
        };
        let moved = Moved { salts, frames: frames.max(before), whole: false };
        view.note(path, &moved).map(|()| moved)
    }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    into: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite gives an open file and a place for the answer.
    unsafe {
        let Some(map) = methods(file).xShmMap else { return ffi::SQLITE_IOERR_SHMMAP };
        let code = map(real(file), region, size, extend, into);
        if let Kind::View(view) = &mut state(file).kind
            && code == ffi::SQLITE_OK
            && region == 0
        {
            view.index = (*into).cast();
        }
        code
    }
}

/// Takes locks of the index, or gives them up.
///
/// # Safety
/// `file` was opened here, is open, and is not used by another thread meanwhile.
unsafe fn lock_real(file: *mut ffi::sqlite3_file, Locks { offset, count, flags }: Locks) -> c_int {
    #[cfg(test)]
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 && offset == steps::WRITE_LOCK && steps::UNLOCKS_THAT_FAIL.get() > 0 {
        steps::UNLOCKS_THAT_FAIL.set(steps::UNLOCKS_THAT_FAIL.get() - 1);
        return ffi::SQLITE_BUSY;
    }
    // SAFETY: as the caller's.
    unsafe {
        let lock = methods(file).xShmLock;
        lock.map_or(ffi::SQLITE_IOERR_SHMLOCK, |lock| lock(real(file), offset, count, flags))
    }
}

/// Gives up what could not be given up before.
///
/// # Safety
/// As [`lock_real`].
unsafe fn give_up_kept(file: *mut ffi::sqlite3_file) {
    // SAFETY: as the caller's.
    unsafe {
        if let Kind::View(view) = &mut state(file).kind {
            view.kept.retain(|locks| lock_real(file, *locks) != ffi::SQLITE_OK);
        }
    }
}

/// Where the system cannot give up a lock, SQLite goes on as if it had, and the lock would be this connection's for good:
/// nobody could write any more, also not through it.
unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let locks = Locks { offset, count, flags };
        give_up_kept(file);
        let code = lock_real(file, locks);
        if flags & ffi::SQLITE_SHM_UNLOCK == 0 {
            if code == ffi::SQLITE_OK
                && let Kind::View(view) = &mut state(file).kind
            {
                // One that is still there is SQLite's again.
                view.kept.retain(|kept| kept.offset + kept.count <= offset || offset + count <= kept.offset);
            }
            return code;
        }
        if code == ffi::SQLITE_OK {
            return code;
        }
        if (0..UNLOCK_TRIES).any(|_| lock_real(file, locks) == ffi::SQLITE_OK) {
            return ffi::SQLITE_OK;
        }
        let State { path, kind } = state(file);
        if let Kind::View(view) = kind {
            tracing::warn!(view = %path.display(), "a lock of a view cannot be given up: it is tried again with the next use");
            view.kept.push(locks);
        }
        code
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        give_up_kept(file);
        if let Kind::View(view) = &mut state(file).kind {
            view.kept.clear();
            view.index = std::ptr::null();
        }
        methods(file).xShmUnmap.map_or(ffi::SQLITE_OK, |unmap| unmap(real(file), delete))
    }
}

/// No page is mapped into memory, where it could not be looked at.
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
            // SAFETY: SQLite gives an open file; the arguments are handed on as they are.
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

/// Tells a test what is about to be done, or was done, to the file of a view.
#[cfg(test)]
fn step(view: &Path, what: &'static str) {
    steps::TOLD.with_borrow_mut(|told| told.as_mut().map(|told| told(view, what)));
}

#[cfg(not(test))]
fn step(_: &Path, _: &'static str) {}

/// What a test does while pages are moved on its thread.
#[cfg(test)]
pub(crate) mod steps {
    use std::cell::{Cell, RefCell};
    use std::path::Path;

    pub(crate) const WRITE_LOCK: i32 = 0;

    type Told = Box<dyn FnMut(&Path, &'static str)>;

    thread_local! {
        /// How many attempts to give up the lock of who writes fail, as the system may fail them.
        pub(crate) static UNLOCKS_THAT_FAIL: Cell<usize> = const { Cell::new(0) };
        pub(crate) static TOLD: RefCell<Option<Told>> = const { RefCell::new(None) };
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::StoreError;
    use crate::sqlite::{Db, Place};

    fn open(path: &Path) -> Db {
        let mut db = Db::in_file(path, &Place::new(path.display().to_string())).unwrap();
        db.tried("set it up", |connection| {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            // Pages that are written to leave memory again and again.
            connection.pragma_update(None, "cache_size", 8)
        })
        .unwrap();
        db
    }

    fn sums(connection: &Connection) -> rusqlite::Result<(i64, i64, String)> {
        let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        connection.query_row("SELECT count(*), sum(n) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?, check)))
    }

    /// Then SQLite makes the checksums of frames anew when the transaction is committed.
    #[test]
    fn pages_that_are_written_again_within_a_transaction_are_sound() {
        let dir = tempfile::tempdir().unwrap();
        let (path, wal) = (dir.path().join("a.db"), dir.path().join("a.db-wal"));
        std::fs::File::create(&path).unwrap();
        let mut db = open(&path);
        let mut expected = Vec::new();
        for round in 1..=4 {
            db.tried("write", |connection| {
                connection
                    .execute_batch("BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, n, text)")?;
                for id in 0..600_i64 {
                    let row = (id * 7919 % 600, id * round, "text ".repeat(20));
                    connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", row)?;
                }
                for _ in 0..3 {
                    connection.execute("UPDATE t SET n = n + 1, text = text || 'x' WHERE id % 3 = 0", [])?;
                }
                // What is taken back was written to the WAL as well.
                connection.execute_batch("SAVEPOINT s; UPDATE t SET n = 0; ROLLBACK TO s; COMMIT")
            })
            .unwrap();
            expected = vec![600, (0..600).map(|id| id * round).sum::<i64>() + 600];
            let seen = open(&path).tried("read", |connection| sums(connection)).unwrap();
            assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected.clone(), "ok"), "another connection, round {round}");
        }
        // As a process leaves it that is killed: read by this build, and by any other SQLite.
        let left = tempfile::tempdir().unwrap();
        std::fs::copy(&path, left.path().join("a.db")).unwrap();
        std::fs::copy(&wal, left.path().join("a.db-wal")).unwrap();
        let seen = open(&left.path().join("a.db")).tried("read", |connection| sums(connection)).unwrap();
        assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected.clone(), "ok"), "a WAL that was left behind");
        let plain = Connection::open(&path).unwrap();
        let seen = sums(&plain).unwrap();
        assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected.clone(), "ok"), "another program");
        // It moves pages into the file, which stay sound.
        plain.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        drop((plain, db));
        let file = std::fs::File::open(&path).unwrap();
        let looked = crate::sqlite::scrub::look(&file, &path, 0, u64::MAX).unwrap();
        assert_eq!((looked.next, looked.damaged), (None, None));
        let seen = open(&path).tried("read", |connection| sums(connection)).unwrap();
        assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected, "ok"), "what another program has moved");
    }

    fn write(db: &mut Db) -> Result<(), StoreError> {
        db.tried("write", |connection| {
            connection.busy_timeout(std::time::Duration::ZERO)?;
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t (n); INSERT INTO t VALUES (1)")
        })
    }

    /// The system may fail to give up a lock, and SQLite does not look at that.
    #[test]
    fn a_lock_that_could_not_be_given_up_is_nobody_s_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        std::fs::File::create(&path).unwrap();
        let (mut one, mut other) = (open(&path), open(&path));
        write(&mut one).unwrap();
        // For a moment.
        steps::UNLOCKS_THAT_FAIL.set(2);
        write(&mut one).unwrap();
        assert_eq!(steps::UNLOCKS_THAT_FAIL.get(), 0);
        write(&mut other).unwrap();
        // For longer: until the connection that has it is used again.
        let keep = |db: &mut Db| {
            steps::UNLOCKS_THAT_FAIL.set(usize::MAX);
            write(db).unwrap();
            steps::UNLOCKS_THAT_FAIL.set(0);
        };
        keep(&mut one);
        assert!(matches!(write(&mut other), Err(StoreError::Unavailable { .. })), "it has the lock");
        one.tried("read", |connection| connection.execute_batch("SELECT * FROM t")).unwrap();
        write(&mut other).unwrap();
        write(&mut one).unwrap();
        // Or closed.
        keep(&mut one);
        drop(one);
        write(&mut other).unwrap();
        write(&mut open(&path)).unwrap();
    }
}
