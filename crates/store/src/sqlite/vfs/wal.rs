//! The WAL beside the file of a view: its frames are read and written whole.
//!
//! SQLite writes the header of a frame and then its page. The header of a new frame is kept until the page arrives, and
//! both are written at once: nobody reads a frame without its page. A header that SQLite writes for an existing frame
//! goes to the file at once, since no page follows.
//!
//! ```text
//!   SQLite                              here                                    the operating system
//!   header of frame 7            ─▶     kept
//!   page of frame 7              ─▶     sealed, its checksum taken along   ─▶   frame 7, one write
//!   page of frame 5, once more   ─▶     sealed                             ─▶   the page
//!   page of frame 7, please      ◀─     looked at                          ◀─   frame 7, one read
//! ```

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi;

use super::file::{Kind, kind, view_file};
use super::io::{read_real, write_real};
use super::view::{self, ViewFile};
use crate::sqlite::frames::{self, Before, Frame, Header, SUM_BYTES, Sums, page_of, sum_of};
use crate::sqlite::pages::{
    self, FRAME_BYTES, FRAME_HEADER_BYTES, Order, PAGE_BYTES, Round, SALT_BYTES, WAL_HEADER_BYTES,
};

/// The place in the index of a WAL of the number of the last committed frame, and of its checksum as SQLite made it
/// (<https://sqlite.org/walformat.html>, `mxFrame` and `aFrameCksum`).
const LAST_AT: usize = 16;
const LAST_SUM_AT: usize = 24;
/// The place of the salts of the WAL there (`aSalt`), and in the header of a frame.
const SALTS_AT: usize = 32;
const FRAME_SALTS: std::ops::Range<usize> = 8..8 + SALT_BYTES;

/// A WAL.
pub(super) struct WalFile {
    /// The file of the view, which is closed after the WAL.
    pub(super) view: *mut ffi::sqlite3_file,
    /// The header that was written last, if its page may follow.
    header: Option<Written>,
    /// The byte order of its checksums, once that is known.
    order: Option<Order>,
    /// The end of the last frame that was written in this transaction.
    end: u64,
    /// The checksums of the frame that was written last, as long as nobody else can have written after it.
    last: Option<Last>,
    /// The salts of the WAL, if this connection has begun it in this transaction. The index has them with the commit.
    begun: Option<[u8; SALT_BYTES]>,
    /// True if its beginning is noted.
    is_noted: bool,
    /// A buffer for one frame.
    frame: Box<Frame>,
}

/// A header that SQLite has written.
#[derive(Clone, Copy)]
struct Written {
    header: Header,
    /// Its place in the file.
    at: u64,
    /// True if it is not in the file yet.
    is_kept: bool,
}

/// The state from which the next frame continues.
#[derive(Clone, Copy)]
struct Last {
    sums: Sums,
    /// The place at which the next frame begins.
    next: u64,
}

impl WalFile {
    pub(super) fn of(view: *mut ffi::sqlite3_file) -> Self {
        let frame = Box::new([0; FRAME_BYTES as usize]);
        Self { view, header: None, order: None, end: 0, last: None, begun: None, is_noted: false, frame }
    }
}

/// Returns true if this many bytes at this place are the page of a frame.
pub(super) fn is_page_of_frame(length: usize, at: u64) -> bool {
    let before = WAL_HEADER_BYTES + FRAME_HEADER_BYTES as u64;
    length == PAGE_BYTES && at >= before && (at - before).is_multiple_of(FRAME_BYTES)
}

/// Notes that a writing transaction begins, so others may have written since the last one.
///
/// # Safety
/// `view` is open, its connection has just taken the write lock, and no other thread uses it meanwhile.
pub(super) unsafe fn begin(view: &ViewFile) {
    if view.wal.is_null() {
        return;
    }
    // SAFETY: the WAL exists until it is closed, and is then forgotten.
    let Kind::Wal(wal) = (unsafe { kind(view.wal) }) else { return };
    (wal.header, wal.end, wal.begun) = (None, 0, None);
    // SAFETY: as the caller's.
    wal.last = wal.last.filter(|last| unsafe { is_last(view, last) });
}

/// Returns true if the frame is still the last one of the WAL, according to its index.
///
/// # Safety
/// `view` is open, and its connection has the write lock.
unsafe fn is_last(view: &ViewFile, last: &Last) -> bool {
    if view.index.is_null() {
        return false;
    }
    // SAFETY: the index exists until it is unmapped, and is then forgotten. SQLite maps more of it than this, aligned.
    let word = |at| unsafe { (*view.index.add(at).cast::<AtomicU32>()).load(Ordering::Acquire) };
    let next = WAL_HEADER_BYTES + u64::from(word(LAST_AT)) * FRAME_BYTES;
    last.next == next && last.sums.made == frames::sum_bytes((word(LAST_SUM_AT), word(LAST_SUM_AT + 4)))
}

/// Returns the salts of the WAL according to its index; `None` if no index is mapped.
///
/// # Safety
/// `view` is null or was opened here and is open, and no other thread uses it meanwhile.
unsafe fn salts_of(view: *mut ffi::sqlite3_file) -> Option<[u8; SALT_BYTES]> {
    // SAFETY: as the caller's. The index exists until it is unmapped, and is then forgotten. SQLite maps more of it than
    // this, aligned.
    unsafe {
        let index = view_file(view).map(|view| view.index).filter(|index| !index.is_null())?;
        let word = |at| (*index.add(SALTS_AT + at).cast::<AtomicU32>()).load(Ordering::Acquire).to_ne_bytes();
        let ([a, b, c, d], [e, f, g, h]) = (word(0), word(4));
        Some([a, b, c, d, e, f, g, h])
    }
}

/// Reads the page of a frame. Returns `None` if it is not sound, or not of this WAL. A frame that is written a second
/// time in its transaction has no salts until the commit.
///
/// # Safety
/// `file` is that of `wal`, was opened here, and is open. `at` is the beginning of the page.
pub(super) unsafe fn read_page(
    file: *mut ffi::sqlite3_file,
    wal: &mut WalFile,
    into: &mut [u8],
    at: u64,
) -> Option<c_int> {
    // SAFETY: as the caller's.
    match unsafe { read_real(file, &mut *wal.frame, at - FRAME_HEADER_BYTES as u64) } {
        ffi::SQLITE_OK => {
            let (header, page) = wal.frame.split_first_chunk()?;
            into.copy_from_slice(page);
            let salts = &header[FRAME_SALTS];
            // SAFETY: a WAL has the file of its view, which is closed after it.
            let of_wal = unsafe { salts_of(wal.view) };
            let is_of_wal = of_wal.is_none_or(|of_wal| *salts == of_wal)
                || *salts == [0; SALT_BYTES]
                || wal.begun.is_some_and(|begun| *salts == begun);
            (is_of_wal && pages::is_sound(page_of(header), page)).then_some(ffi::SQLITE_OK)
        }
        ffi::SQLITE_IOERR_SHORT_READ => None,
        code => Some(code),
    }
}

/// Writes bytes for SQLite, with pages sealed.
///
/// # Safety
/// `file` is that of `wal`, was opened here, and is open.
pub(super) unsafe fn write(file: *mut ffi::sqlite3_file, wal: &mut WalFile, bytes: &[u8], at: u64) -> c_int {
    let before = wal.header.take();
    // SQLite always writes the page next. If it ever does not, the loss of the header must be reported.
    if before.is_some_and(|written| written.is_kept && at != written.at + FRAME_HEADER_BYTES as u64) {
        return ffi::SQLITE_IOERR_WRITE;
    }
    // SAFETY: as the caller's.
    unsafe {
        if let Ok(header) = <Header>::try_from(bytes) {
            return write_header(file, wal, header, at);
        }
        if !is_page_of_frame(bytes.len(), at) {
            // This is the header of the WAL, with which it begins again.
            wal.last = None;
            let code = write_real(file, bytes, at);
            if code == ffi::SQLITE_OK && at == 0 {
                wal.begun = bytes.try_into().ok().and_then(Round::of).map(|round| round.salts);
                wal.is_noted = false;
            }
            return code;
        }
        let at = at - FRAME_HEADER_BYTES as u64;
        match before.filter(|written| written.at == at) {
            Some(written) => write_frame(file, wal, &written.header, bytes, at),
            None => write_page(file, bytes, at),
        }
    }
}

/// Keeps the header of a new frame, or writes that of an existing one. For an existing frame SQLite has written the
/// page again within the transaction. At the commit it makes the checksum again from what it reads back, so that
/// checksum is right.
///
/// # Safety
/// As [`write()`].
unsafe fn write_header(file: *mut ffi::sqlite3_file, wal: &mut WalFile, header: Header, at: u64) -> c_int {
    let is_kept = at >= wal.end;
    wal.header = Some(Written { header, at, is_kept });
    if is_kept {
        return ffi::SQLITE_OK;
    }
    wal.last = None;
    // SAFETY: as the caller's.
    unsafe { write_real(file, &header, at) }
}

/// Writes the frame at `at`, whole.
///
/// # Safety
/// As [`write()`].
unsafe fn write_frame(file: *mut ffi::sqlite3_file, wal: &mut WalFile, header: &Header, page: &[u8], at: u64) -> c_int {
    let last = wal.last.take().filter(|last| last.next == at);
    if let Some(salts) = wal.begun.filter(|_| !wal.is_noted) {
        // SAFETY: as the caller's; the file of the view is open as long as its WAL.
        let noted = if wal.view.is_null() { ffi::SQLITE_OK } else { unsafe { view::note_begun(wal.view, salts) } };
        if noted != ffi::SQLITE_OK {
            return noted;
        }
        wal.is_noted = true;
    }
    let mut before = None;
    if sum_of(header).is_some() {
        // SAFETY: as the caller's.
        match unsafe { before_frame(file, wal, last, at) } {
            Ok(found) => before = Some(found),
            Err(code) => return code,
        }
    }
    wal.frame[..FRAME_HEADER_BYTES].copy_from_slice(header);
    wal.frame[FRAME_HEADER_BYTES..].copy_from_slice(page);
    let sums = frames::seal(&mut wal.frame, before);
    // SAFETY: as the caller's.
    let code = unsafe { write_real(file, &*wal.frame, at) };
    if code == ffi::SQLITE_OK {
        let next = at + FRAME_BYTES;
        wal.end = wal.end.max(next);
        wal.last = sums.map(|sums| Last { sums, next });
    }
    code
}

/// Returns the state from which the checksum of the frame at `at` continues. If this connection did not write the last
/// frame, the state is read: it is the end of the header of the frame before, or of the WAL's header.
///
/// # Safety
/// As [`write()`].
unsafe fn before_frame(
    file: *mut ffi::sqlite3_file,
    wal: &mut WalFile,
    last: Option<Last>,
    at: u64,
) -> Result<Before, c_int> {
    // SAFETY: as the caller's.
    let read = |into: &mut [u8], at| match unsafe { read_real(file, into, at) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    };
    let order = match wal.order {
        Some(order) => order,
        None => {
            let mut magic = [0; 4];
            read(&mut magic, 0)?;
            *wal.order.insert(Order::of(magic))
        }
    };
    if let Some(Last { sums, .. }) = last {
        return Ok(Before { order, written: sums.written, made: Some(sums.made) });
    }
    let end_of_header = if at == WAL_HEADER_BYTES { at } else { at - PAGE_BYTES as u64 };
    let mut written = [0; SUM_BYTES];
    read(&mut written, end_of_header - SUM_BYTES as u64)?;
    Ok(Before { order, written, made: None })
}

/// Replaces a page that was written earlier in the transaction.
///
/// # Safety
/// As [`write()`]; `at` is the beginning of its frame.
unsafe fn write_page(file: *mut ffi::sqlite3_file, page: &[u8], at: u64) -> c_int {
    let Ok(mut page) = <[u8; PAGE_BYTES]>::try_from(page) else { return ffi::SQLITE_IOERR_WRITE };
    let mut header = [0; FRAME_HEADER_BYTES];
    // SAFETY: as the caller's.
    unsafe {
        let code = read_real(file, &mut header, at);
        if code != ffi::SQLITE_OK {
            return code;
        }
        pages::seal(page_of(&header), &mut page);
        write_real(file, &page, at + FRAME_HEADER_BYTES as u64)
    }
}
