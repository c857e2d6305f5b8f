//! Frames of the WAL beside the file of a view, as they are written.

use std::ffi::c_int;

use rusqlite::ffi;

use super::io::read_real;
use crate::sqlite::pages::{self, FRAME_BYTES, FRAME_HEADER_BYTES, Order, PAGE_BYTES, WAL_HEADER_BYTES};

/// Whether so many bytes there are the page of a frame.
pub(super) fn is_page_of_frame(length: usize, at: u64) -> bool {
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
pub(super) unsafe fn sealed_frame(
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
