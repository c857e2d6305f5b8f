//! A chunk file: a header, then records one behind the other.
//!
//! ```text
//!   0  8 bytes "dacapojn"     8  u32 version     12  u32 zero
//!  16  u64 first position    24  u32 CRC-32C of all before    28  u32 zero
//!  32  records, see crate::record
//! ```
//!
//! All numbers are little-endian. The header is durable before the first record is written, so a chunk
//! with a torn header has no record that anybody was told of.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dacapo_model::{Position, Timestamp};

use super::index::MemoryIndex;
use super::index_file::Summary;
use crate::embedded::disk::DiskFile;
use crate::record::{self, EventRef, u32_at, u64_at};

/// Bytes before the first record.
pub(super) const HEADER_BYTES: u64 = 32;
const MAGIC: &[u8; 8] = b"dacapojn";
const VERSION: u32 = 1;
const SCAN_BLOCK_BYTES: usize = 1 << 20;

/// One chunk of the journal.
#[derive(Debug)]
pub(super) struct Chunk {
    pub first: Position,
    /// The journal is durable through this byte of the file, and whole appends end there.
    durable: AtomicU64,
    index: RwLock<Index>,
}

/// The index of a chunk.
#[derive(Debug)]
pub(super) enum Index {
    /// Of the chunk that is written to, and of one whose index file is not there yet.
    Memory(MemoryIndex),
    /// In a file.
    File(Arc<Summary>),
}

impl Chunk {
    pub fn new(first: Position, durable: u64, index: Index) -> Self {
        Self { first, durable: AtomicU64::new(durable), index: RwLock::new(index) }
    }

    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub fn set_durable(&self, end: u64) {
        self.durable.store(end, Ordering::Release);
    }

    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect("nobody panics while holding an index")
    }

    pub fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().expect("nobody panics while holding an index")
    }
}

pub(super) fn log_name(first: Position) -> String {
    format!("chunk-{:020}.log", first.get())
}

pub(super) fn index_name(first: Position) -> String {
    format!("chunk-{:020}.idx", first.get())
}

/// The first position of the chunk that the file `name` with this extension belongs to.
pub(super) fn parse_name(name: &str, extension: &str) -> Option<Position> {
    let digits = name.strip_prefix("chunk-")?.strip_suffix(extension)?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Position::new))?
}

pub(super) fn header(first: Position) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES as usize);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 4]);
    out.extend(first.get().to_le_bytes());
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out.extend([0; 4]);
    out
}

/// Checks the header of the chunk that should begin with `first`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_header(bytes: &[u8], first: Position) -> Result<(), String> {
    if bytes.len() < HEADER_BYTES as usize || &bytes[..8] != MAGIC {
        return Err("no header of a chunk is there".into());
    }
    if u32_at(bytes, 24) != Some(crc32c::crc32c(&bytes[..24])) {
        return Err("the checksum of its header does not match".into());
    }
    match (u32_at(bytes, 8), u64_at(bytes, 16)) {
        (Some(VERSION), Some(found)) if found == first.get() => Ok(()),
        (Some(VERSION), found) => Err(format!("its header says that it begins with position {found:?}")),
        (version, _) => Err(format!("it has format {version:?}, this release of dacapo knows {VERSION}")),
    }
}

/// How far the records of a chunk are good.
#[derive(Debug)]
pub(super) struct Scan {
    /// The first byte that is in no good record.
    pub end: u64,
    /// The position that follows the last good record.
    pub next: Position,
    /// The first byte behind the last whole append.
    pub whole_end: u64,
    /// The position that follows the last whole append.
    pub whole_next: Position,
    /// The first byte of the last group, or of the header where there is none: everything before it was durable
    /// when it was written.
    pub last_group: u64,
    /// When the last good record was appended.
    pub recorded: Option<Timestamp>,
    /// What is wrong at `end`, unless that is where the scan was to end.
    pub problem: Option<&'static str>,
}

/// Goes through the records from the header through the byte before `end`, and shows each to `visit`,
/// which says whether it goes with those before.
pub(super) fn scan(
    file: &dyn DiskFile,
    first: Position,
    end: u64,
    mut visit: impl FnMut(&EventRef<'_>, u32) -> bool,
) -> io::Result<Scan> {
    let mut scan = Scan {
        end: HEADER_BYTES,
        next: first,
        whole_end: HEADER_BYTES,
        whole_next: first,
        last_group: 0,
        recorded: None,
        problem: None,
    };
    let (mut block, mut block_at) = (Vec::new(), HEADER_BYTES);
    while scan.end < end {
        let rest = &block[(scan.end - block_at) as usize..];
        let block_end = block_at + block.len() as u64;
        let need = record::record_len(rest).unwrap_or(record::HEADER_BYTES);
        if rest.len() < need && block_end < end {
            let len = (need.max(SCAN_BLOCK_BYTES) as u64).min(end - scan.end) as usize;
            let had = rest.len();
            block.clear();
            block_at = scan.end;
            file.read_at(block_at, len, &mut block)?;
            if block.len() > had {
                continue;
            }
        }
        let rest = &block[(scan.end - block_at) as usize..];
        match record::verify(rest) {
            Ok((event, len)) => {
                if let Some(problem) = out_of_place(&event, &scan, &mut visit) {
                    scan.problem = Some(problem);
                    return Ok(scan);
                }
                if event.is_first_of_group() {
                    scan.last_group = scan.end;
                }
                scan.end += len as u64;
                scan.next = scan.next.next();
                scan.recorded = Some(event.recorded);
                if event.is_last_of_append() {
                    (scan.whole_end, scan.whole_next) = (scan.end, scan.next);
                }
            }
            Err(problem) => {
                scan.problem = Some(problem);
                return Ok(scan);
            }
        }
    }
    Ok(scan)
}

fn out_of_place(
    event: &EventRef<'_>,
    scan: &Scan,
    visit: &mut impl FnMut(&EventRef<'_>, u32) -> bool,
) -> Option<&'static str> {
    if event.position != scan.next {
        return Some("the record has another position than its place says");
    }
    if event.is_first_of_group() && scan.whole_end != scan.end {
        return Some("the append before this record is not whole");
    }
    let Ok(at) = u32::try_from(scan.end) else { return Some("the chunk is larger than 4 GiB") };
    (!visit(event, at)).then_some("the record does not follow from those before it in its stream, or repeats an id")
}

/// Whether a record that begins a group with position `from` or later is in `bytes`, which begin at a
/// multiple of the alignment: then everything before it was durable once.
pub(super) fn has_later_group(bytes: &[u8], from: Position) -> bool {
    (0..bytes.len()).step_by(record::ALIGNMENT).any(|at| {
        let rest = &bytes[at..];
        record::record_len(rest).is_some()
            && record::verify(rest).is_ok_and(|(event, _)| event.is_first_of_group() && event.position >= from)
    })
}
