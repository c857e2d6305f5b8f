//! A chunk file: a header, then records one after the other.
//!
//! ```text
//!   0  8 bytes "dacapojn"     8  u32 version     12  u32 zero
//!  16  u64 first position    24  16 bytes, the identity of the journal
//!  40  u64 digest of the history before the first position
//!  48  u32 CRC-32C of all before    52  zero
//!  64  records, see crate::record; the first of each group carries the digest of the history before it
//! ```
//!
//! All numbers are little-endian. The header is durable before the first record is written, so a chunk with a torn
//! header has no acknowledged record.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dacapo_model::{JournalId, Position, Timestamp};

use super::index::MemoryIndex;
use super::index_file::Summary;
use crate::embedded::disk::DiskFile;
use crate::record::{self, EventRef, u32_at, u64_at};

/// Bytes before the first record.
pub(super) const HEADER_BYTES: u64 = 64;
const MAGIC: &[u8; 8] = b"dacapojn";
const VERSION: u32 = 2;
const CHECKSUM_AT: usize = 48;
const SCAN_BLOCK_BYTES: usize = 1 << 20;

/// One chunk of the journal.
#[derive(Debug)]
pub(super) struct Chunk {
    pub first: Position,
    /// The byte of the file through which the journal is durable. Whole appends end there.
    durable: AtomicU64,
    index: RwLock<Index>,
}

/// The index of a chunk.
#[derive(Debug)]
pub(super) enum Index {
    /// In memory: for the chunk that is written to, and for a sealed chunk whose index file does not exist yet.
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

    #[expect(clippy::expect_used, reason = "nobody panics while holding an index")]
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect("nobody panics while holding an index")
    }

    #[expect(clippy::expect_used, reason = "nobody panics while holding an index")]
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

/// Returns the first position of the chunk to which the file `name` with this extension belongs.
pub(super) fn parse_name(name: &str, extension: &str) -> Option<Position> {
    let digits = name.strip_prefix("chunk-")?.strip_suffix(extension)?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Position::new))?
}

/// The contents of the header of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub first: Position,
    /// The identity of the journal.
    pub id: JournalId,
    /// The digest of the history before the chunk.
    pub before: u64,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.first.get().to_le_bytes());
        out.extend(self.id.bytes());
        out.extend(self.before.to_le_bytes());
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.resize(HEADER_BYTES as usize, 0);
        out
    }

    /// Reads the header of the chunk that should begin with `first`.
    ///
    /// # Errors
    /// The fault.
    pub fn decode(bytes: &[u8], first: Position) -> Result<Self, String> {
        let no_header = || "no header of a chunk is there".to_owned();
        if bytes.get(..8) != Some(MAGIC) {
            return Err(no_header());
        }
        // First, because the rest has another form in other versions.
        match u32_at(bytes, 8) {
            Some(VERSION) => {}
            Some(1) => {
                return Err(format!("it has format 1 of builds before the first release, this one knows {VERSION}"));
            }
            version => return Err(format!("it has format {version:?}, this release of dacapo knows {VERSION}")),
        }
        if bytes.len() < HEADER_BYTES as usize {
            return Err("its header is cut off".into());
        }
        if u32_at(bytes, CHECKSUM_AT) != Some(crc32c::crc32c(&bytes[..CHECKSUM_AT])) {
            return Err("the checksum of its header does not match".into());
        }
        let (found, id) = (u64_at(bytes, 16), bytes[24..].first_chunk().copied().map(JournalId::from_bytes));
        match (found, id, u64_at(bytes, 40)) {
            (Some(found), Some(id), Some(before)) if found == first.get() => Ok(Self { first, id, before }),
            (Some(found), ..) => Err(format!("its header says that it begins with position {found}")),
            (None, ..) => Err(no_header()),
        }
    }
}

/// The sound part of a chunk.
#[derive(Debug)]
pub(super) struct Scan {
    /// The first byte that is in no sound record.
    pub end: u64,
    /// The position that follows the last sound record.
    pub next: Position,
    /// The first byte after the last whole append.
    pub whole_end: u64,
    /// The position that follows the last whole append.
    pub whole_next: Position,
    /// The first byte of the last group; of the header if there is no group. Everything before it was durable when it
    /// was written.
    pub last_group: u64,
    /// The digest of the history through the last sound record.
    pub digest: u64,
    /// The time at which the last sound record was appended.
    pub recorded: Option<Timestamp>,
    /// The fault at `end`; `None` if the scan reached the requested end.
    pub problem: Option<&'static str>,
}

/// Scans the records after the header `header`, up to the byte before `end`. Passes each record with its start and the
/// digest through it to `visit`, which returns true if the record follows from those before it.
pub(super) fn scan(
    file: &dyn DiskFile,
    header: &Header,
    end: u64,
    mut visit: impl FnMut(&EventRef<'_>, u32, u64) -> bool,
) -> io::Result<Scan> {
    let first = header.first;
    let mut scan = Scan {
        end: HEADER_BYTES,
        next: first,
        whole_end: HEADER_BYTES,
        whole_next: first,
        last_group: 0,
        digest: header.before,
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
                let digest = record::link(scan.digest, rest);
                let behind = record::history_before(&rest[..len]);
                let visit = |at| visit(&event, at, digest);
                if let Some(problem) = out_of_place(&event, behind, &scan, visit) {
                    scan.problem = Some(problem);
                    return Ok(scan);
                }
                scan.digest = digest;
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
    behind: Option<u64>,
    scan: &Scan,
    visit: impl FnOnce(u32) -> bool,
) -> Option<&'static str> {
    if event.position != scan.next {
        return Some("the record has another position than its place says");
    }
    if event.is_first_of_group() && scan.whole_end != scan.end {
        return Some("the append before this record is not whole");
    }
    if event.is_first_of_group() && behind != Some(scan.digest) {
        return Some("the record was written after another history than the one before it");
    }
    let Ok(at) = u32::try_from(scan.end) else { return Some("the chunk is larger than 4 GiB") };
    (!visit(at)).then_some("the record does not follow from those before it in its stream, or repeats an id")
}

/// Returns true if `bytes`, which begin at a multiple of the alignment, contain a record that begins a group and has
/// position `from` or a later one. Then everything before that record was durable once.
pub(super) fn has_later_group(bytes: &[u8], from: Position) -> bool {
    (0..bytes.len()).step_by(record::ALIGNMENT).any(|at| {
        let rest = &bytes[at..];
        record::record_len(rest).is_some()
            && record::verify(rest).is_ok_and(|(event, _)| event.is_first_of_group() && event.position >= from)
    })
}
