//! Checks the pages of a view's file even if nobody reads them.
//!
//! The file is read beside SQLite, without a lock or a transaction, so the check blocks nobody. Meanwhile SQLite moves
//! pages from the WAL into the file. The check may see a page half written while it is being moved, and nobody reads a
//! page of the file that has a newer state in the WAL. So an unsound page counts only if the WAL does not have it, and
//! if it is still unsound after that was found out.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::sqlite::moved::beside;
use crate::sqlite::pages::{
    Damage, FRAME_BYTES, FRAME_HEADER_BYTES, PAGE_BYTES, WAL_HEADER_BYTES, holds_nothing, is_sound,
};

/// Number of times that a page is read before it counts as damaged.
const LOOKS: usize = 4;

/// The result of a check.
pub(crate) struct Looked {
    /// The last page that was checked, if there are more.
    pub(crate) next: Option<u64>,
    /// The first page that is damaged.
    pub(crate) damaged: Option<Damage>,
}

/// Checks the pages after `after`, at most `most` of them.
pub(crate) fn look(file: &File, path: &Path, after: u64, most: u64) -> io::Result<Looked> {
    let pages = file.metadata()?.len().div_ceil(PAGE_BYTES as u64);
    let last = after.saturating_add(most).min(pages);
    let mut bytes = [0; PAGE_BYTES];
    for page in after + 1..=last {
        if !is_right(file, page, &mut bytes)? && is_damaged(path, file, page, &mut bytes)? {
            let damage =
                Damage { file: path.display().to_string(), at: (page - 1) * PAGE_BYTES as u64, is_bare: false };
            return Ok(Looked { next: None, damaged: Some(damage) });
        }
    }
    Ok(Looked { next: (last < pages).then_some(last), damaged: None })
}

fn is_right(file: &File, page: u64, bytes: &mut [u8; PAGE_BYTES]) -> io::Result<bool> {
    match file.read_exact_at(bytes, (page - 1) * PAGE_BYTES as u64) {
        Ok(()) => Ok(is_sound(page, bytes) || holds_nothing(page)),
        // The file ends within the page.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_damaged(path: &Path, file: &File, page: u64, bytes: &mut [u8; PAGE_BYTES]) -> io::Result<bool> {
    for _ in 0..LOOKS {
        // A page that was being moved is either still in the WAL, or was written as a whole before the WAL was begun
        // again.
        if in_wal(path, page)? || is_right(file, page, bytes)? {
            return Ok(false);
        }
    }
    // The file was cut meanwhile and has no such page any more.
    Ok(file.metadata()?.len() > (page - 1) * PAGE_BYTES as u64)
}

/// Returns true if the WAL has a state of the page.
fn in_wal(path: &Path, page: u64) -> io::Result<bool> {
    let mut wal = match File::open(beside(path, "-wal")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        wal => wal?,
    };
    let mut header = [0; WAL_HEADER_BYTES as usize];
    if let Err(error) = wal.read_exact(&mut header) {
        return if error.kind() == ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
    }
    let (mut at, mut frame) = (WAL_HEADER_BYTES, [0; FRAME_HEADER_BYTES]);
    loop {
        match wal.read_exact_at(&mut frame, at) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        let [a, b, c, d, ..] = frame;
        let number = u32::from_be_bytes([a, b, c, d]);
        // Frames of an earlier round have another salt. Frames that are not committed yet may have none.
        let is_of_round = frame[8..16] == header[16..24] || frame[8..].iter().all(|byte| *byte == 0);
        if u64::from(number) == page && is_of_round {
            return Ok(true);
        }
        at += FRAME_BYTES;
    }
}
