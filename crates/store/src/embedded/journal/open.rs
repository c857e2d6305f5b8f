//! Opening: finds out what is durable, cuts off what is torn, and refuses what is damaged.
//!
//! ```text
//!   chunk-…1.log + .idx   sealed: length and position against the index, records on first read
//!   chunk-…7.log + .idx   sealed; an index that is missing or damaged is made again from the chunk
//!   chunk-…9.log          newest: every record is read; at the first bad one, at byte o:
//!                           a later record that began a group is there  ─▶ o was durable: damaged, refuse
//!                           none is                                      ─▶ never acknowledged: cut at the
//!                                                                           end of the last whole append
//! ```
//!
//! Chunks are chained: each tells in its header which journal it belongs to and what the digest of the history before it
//! is. So a chunk of another journal, or of another copy that went its own way, is found out.
//!
//! An index file is written only after the chunk behind it is durable, so an index of the newest chunk,
//! or one without its chunk, tells of a chunk that is missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dacapo_model::{JournalId, Mark, Position, Timestamp};

use super::chunk::{self, Chunk, HEADER_BYTES, Header, Index, Scan};
use super::index::MemoryIndex;
use super::index_file::{self, Summary};
use super::log::{Found, corrupt_at, disk_error, rebuild};
use super::writer::Start;
use crate::embedded::disk::{Disk, DiskFile};
use crate::error::StoreError;

/// The journal in `dir`, and where writing goes on. Begins one with the identity `fresh` if there is none.
pub(super) fn open(disk: &dyn Disk, dir: &Path, fresh: JournalId) -> Result<(Found, Start), StoreError> {
    disk.create_dir(dir).map_err(|error| disk_error("make", dir, &error))?;
    if let Some(parent) = dir.parent() {
        disk.sync_dir(parent).map_err(|error| disk_error("flush", parent, &error))?;
    }
    let names = disk.list(dir).map_err(|error| disk_error("list", dir, &error))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = dir.join(name);
        disk.remove(&path).map_err(|error| disk_error("remove", &path, &error))?;
    }
    let firsts = |extension| names.iter().filter_map(|name| chunk::parse_name(name, extension)).collect();
    let (logs, indexes): (BTreeSet<Position>, BTreeSet<Position>) = (firsts(".log"), firsts(".idx"));
    check_none_missing(dir, &logs, &indexes)?;
    let (mut chunks, mut next) = (Vec::new(), Position::new(1));
    let mut chain = Chain { id: None, digest: Mark::START.digest };
    let newest = logs.last().copied().unwrap_or(next);
    let mut highest_sealed_id = None;
    for &first in logs.iter().filter(|first| **first != newest) {
        if first != next {
            return Err(missing(dir, next, first));
        }
        let summary = sealed(disk, dir, first, &mut chain)?;
        next = first.plus(summary.events);
        highest_sealed_id = highest_sealed_id.max(Some(summary.highest_id()));
        chunks.push(Arc::new(Chunk::new(first, summary.chunk_bytes, Index::File(Arc::new(summary)))));
    }
    if newest != next {
        return Err(missing(dir, next, newest));
    }
    let Newest { chunk, file, scan, id } = newest_chunk(disk, dir, newest, &chain, fresh)?;
    let highest_id = match &*chunk.index() {
        Index::Memory(index) => highest_sealed_id.max(index.ids().map(|(id, _)| id).max()),
        Index::File(_) => highest_sealed_id,
    };
    let recorded = match (scan.recorded, chunks.last()) {
        (Some(recorded), _) => recorded,
        (None, Some(sealed)) => last_recorded(disk, dir, sealed, id)?,
        (None, None) => Timestamp::from_micros(i64::MIN),
    };
    let head = Position::new(scan.whole_next.get() - 1);
    chunks.push(Arc::clone(&chunk));
    Ok((Found { id, chunks, head }, Start { chunk, file, head, recorded, highest_sealed_id, highest_id }))
}

/// How the history is chained through the chunks that were looked at.
struct Chain {
    /// The identity that all of them have; `None` before the first.
    id: Option<JournalId>,
    /// The digest of the history through the last of them.
    digest: u64,
}

impl Chain {
    /// Holds the header of the next chunk against those before it.
    fn check(&self, path: &Path, header: &Header) -> Result<(), StoreError> {
        if let Some(id) = self.id.filter(|id| *id != header.id) {
            let found = format!("it belongs to the journal {}, those before it to {id}", header.id);
            return Err(corrupt_at(path, 0, &found));
        }
        if header.before != self.digest {
            let found = format!(
                "it was written behind another history: the digest before it is {:016x}, it says {:016x}",
                self.digest, header.before
            );
            return Err(corrupt_at(path, 0, &found));
        }
        Ok(())
    }
}

fn check_none_missing(dir: &Path, logs: &BTreeSet<Position>, indexes: &BTreeSet<Position>) -> Result<(), StoreError> {
    if let Some(orphan) = indexes.difference(logs).next() {
        return Err(StoreError::corrupt(
            dir.join(chunk::log_name(*orphan)).display(),
            "it is missing, its index is there: restore it from a backup or from a replicated journal",
        ));
    }
    if let Some(newest) = logs.last().filter(|newest| indexes.contains(newest)) {
        return Err(StoreError::corrupt(
            dir.display(),
            format!(
                "the chunk behind {} is missing, for that one is sealed: restore it from a backup or from a \
                 replicated journal",
                chunk::log_name(*newest)
            ),
        ));
    }
    Ok(())
}

fn missing(dir: &Path, from: Position, next: Position) -> StoreError {
    if from > next {
        return corrupt_at(&dir.join(chunk::log_name(next)), 0, "the chunk before it has some of its positions too");
    }
    let (path, through) = (dir.join(chunk::log_name(from)), next.get() - 1);
    StoreError::corrupt(
        path.display(),
        format!(
            "it is missing, with positions {from} through {through}: restore it from a backup or from a replicated \
             journal"
        ),
    )
}

/// The summary of a sealed chunk's index, which is made again if it is not right.
fn sealed(disk: &dyn Disk, dir: &Path, first: Position, chain: &mut Chain) -> Result<Summary, StoreError> {
    let path = dir.join(chunk::log_name(first));
    let failed = |error: std::io::Error| disk_error("open", &path, &error);
    let file = disk.open(&path).map_err(failed)?;
    let (size, header) = (file.size().map_err(failed)?, read_header(&*file).map_err(failed)?);
    let header = Header::decode(&header, first).map_err(|found| corrupt_at(&path, 0, &found))?;
    chain.check(&path, &header)?;
    let summary = summary_of(disk, dir, &header, size)?;
    *chain = Chain { id: Some(header.id), digest: summary.digest };
    Ok(summary)
}

fn read_header(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let mut header = Vec::new();
    file.read_at(0, HEADER_BYTES as usize, &mut header)?;
    Ok(header)
}

fn summary_of(disk: &dyn Disk, dir: &Path, header: &Header, size: u64) -> Result<Summary, StoreError> {
    let (first, path) = (header.first, dir.join(chunk::log_name(header.first)));
    let found = match load_summary(disk, dir, header) {
        Ok(summary) if size < summary.chunk_bytes => {
            let found = format!("the file ends here, its index says at byte {}", summary.chunk_bytes);
            return Err(corrupt_at(&path, size, &found));
        }
        Ok(summary) if size == summary.chunk_bytes => return Ok(summary),
        Ok(summary) => format!("it is for a chunk of {} bytes, the chunk has {size}", summary.chunk_bytes),
        Err(found) => found,
    };
    let index = dir.join(chunk::index_name(first));
    tracing::warn!(file = %index.display(), found, "an index is not usable: it is made again from its chunk");
    rebuild(disk, dir, first, size).map(|(summary, _)| summary)
}

fn load_summary(disk: &dyn Disk, dir: &Path, header: &Header) -> Result<Summary, String> {
    let first = header.first;
    let file = disk.open(&dir.join(chunk::index_name(first))).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.read_at(0, index_file::HEADER_BYTES, &mut bytes).map_err(|error| error.to_string())?;
    let filters = Summary::bytes(&bytes)? - bytes.len();
    file.read_at(bytes.len() as u64, filters, &mut bytes).map_err(|error| error.to_string())?;
    let summary = Summary::decode(&bytes)?;
    let size = file.size().map_err(|error| error.to_string())?;
    if summary.before != header.before {
        return Err("it is for a chunk of another history".into());
    }
    match (summary.first == first, size == summary.file_bytes()) {
        (true, true) => Ok(summary),
        (true, false) => Err(format!("it has {size} bytes and should have {}", summary.file_bytes())),
        (false, _) => Err(format!("it is for the chunk that begins with {}", summary.first)),
    }
}

/// The chunk that is written to.
struct Newest {
    chunk: Arc<Chunk>,
    file: Arc<dyn DiskFile>,
    scan: Scan,
    id: JournalId,
}

/// Reads the newest chunk, cuts off its torn tail and makes the rest durable: after a kill -9 it may be
/// in the memory of the operating system only, and whoever reads it now must find it again later.
fn newest_chunk(
    disk: &dyn Disk,
    dir: &Path,
    first: Position,
    chain: &Chain,
    fresh: JournalId,
) -> Result<Newest, StoreError> {
    let path = dir.join(chunk::log_name(first));
    let failed = |error: std::io::Error| disk_error("recover", &path, &error);
    let exists = disk.list(dir).map_err(failed)?.contains(&chunk::log_name(first));
    let file = if exists { disk.open(&path) } else { disk.create(&path) }.map_err(failed)?;
    let mut size = file.size().map_err(failed)?;
    let bytes = read_header(&*file).map_err(failed)?;
    let header = match Header::decode(&bytes, first) {
        Ok(header) => header,
        Err(found) if size > HEADER_BYTES => return Err(corrupt_at(&path, 0, &found)),
        Err(_) => {
            // Records are written only behind a durable header, so none was: the chunk was just begun.
            let header = Header { first, id: chain.id.unwrap_or(fresh), before: chain.digest };
            file.write_at(0, &header.encode()).map_err(failed)?;
            size = HEADER_BYTES;
            header
        }
    };
    chain.check(&path, &header)?;
    let (mut index, mut scan) = read_newest(&*file, &header, size).map_err(failed)?;
    if scan.problem.is_some() || scan.whole_end < size {
        check_torn(&*file, &path, &scan, size)?;
        tracing::warn!(
            file = %path.display(), from = scan.whole_end, through = size, found = scan.problem.unwrap_or("half an append"),
            "what was being written when the process ended is cut off; nobody was told that it lasts"
        );
        file.set_len(scan.whole_end).map_err(failed)?;
        (index, scan) = read_newest(&*file, &header, scan.whole_end).map_err(failed)?;
    }
    write_again(&*file, scan.last_group, scan.whole_end).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    let chunk = Arc::new(Chunk::new(first, scan.whole_end, Index::Memory(index)));
    Ok(Newest { chunk, file, scan, id: header.id })
}

/// Writes what was read once more, so that the flush that follows really takes it to the disk: after a flush that
/// failed, the operating system may show bytes that it holds for written and never writes again. Only the last group
/// can be such, for the next one is not begun before a flush has succeeded; without a group it is the header.
fn write_again(file: &dyn DiskFile, from: u64, end: u64) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    file.read_at(from, (end - from) as usize, &mut bytes)?;
    file.write_at(from, &bytes)
}

fn read_newest(file: &dyn DiskFile, header: &Header, end: u64) -> std::io::Result<(MemoryIndex, Scan)> {
    let mut index = MemoryIndex::behind(header.before);
    let scan = chunk::scan(file, header, end, |event, at, digest| index.add_read(event, at, digest))?;
    Ok((index, scan))
}

/// Tells a torn tail, which nobody was told of, from damage to what was durable.
fn check_torn(file: &dyn DiskFile, path: &Path, scan: &Scan, size: u64) -> Result<(), StoreError> {
    let mut rest = Vec::new();
    let len = (size - scan.end) as usize;
    file.read_at(scan.end, len, &mut rest).map_err(|error| disk_error("read", path, &error))?;
    if chunk::has_later_group(&rest, scan.next) {
        let found = scan.problem.unwrap_or("the append that ends here is not whole");
        return Err(corrupt_at(path, scan.end, &format!("{found}, and events that were written later are there")));
    }
    Ok(())
}

/// When the last event of a sealed chunk was appended.
fn last_recorded(disk: &dyn Disk, dir: &Path, chunk: &Chunk, id: JournalId) -> Result<Timestamp, StoreError> {
    let path = dir.join(chunk::log_name(chunk.first));
    let failed = |error: std::io::Error| disk_error("read", &path, &error);
    let file = disk.open(&path).map_err(failed)?;
    let before = match &*chunk.index() {
        Index::Memory(index) => index.before(),
        Index::File(summary) => summary.before,
    };
    let header = Header { first: chunk.first, id, before };
    let scan = chunk::scan(&*file, &header, chunk.durable(), |_, _, _| true).map_err(failed)?;
    match (scan.problem, scan.recorded) {
        (None, Some(recorded)) => Ok(recorded),
        (found, _) => Err(corrupt_at(&path, scan.end, found.unwrap_or("the chunk has no events"))),
    }
}
