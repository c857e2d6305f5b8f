//! Looks at the pages of a view's file though nobody asks for them.
//!
//! The file is read beside SQLite, with no lock and no transaction, so this holds up nobody. SQLite moves pages from the WAL
//! into the file meanwhile. A page that is being moved may be seen half written, and one of which a newer state is in the
//! WAL is not read by anybody. So what is not sound counts only if the WAL does not have the page, and only if it is still
//! not sound after that was known.

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

/// The findings.
pub(crate) struct Looked {
    /// The last page that was looked at, if there are more.
    pub(crate) next: Option<u64>,
    /// The first page that is damaged.
    pub(crate) damaged: Option<Damage>,
}

/// Looks at the pages after `after`, at most `most` of them.
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
        // The file ends in the page.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_damaged(path: &Path, file: &File, page: u64, bytes: &mut [u8; PAGE_BYTES]) -> io::Result<bool> {
    for _ in 0..LOOKS {
        // A page that was being moved is either still in the WAL, or has been written as a whole before the WAL was begun
        // again.
        if in_wal(path, page)? || is_right(file, page, bytes)? {
            return Ok(false);
        }
    }
    // A file that was cut meanwhile has no such page.
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
        // Those of an earlier round have another salt, and what is not committed yet may have none.
        let is_of_round = frame[8..16] == header[16..24] || frame[8..].iter().all(|byte| *byte == 0);
        if u64::from(number) == page && is_of_round {
            return Ok(true);
        }
        at += FRAME_BYTES;
    }
}
