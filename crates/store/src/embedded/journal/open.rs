//! Opening: finds out what is durable, and distinguishes a torn tail from damage. It changes no byte of an existing
//! journal. A torn tail is removed before the first write (settle.rs), or by `dacapo repair`.
//!
//! ```text
//!   chunk-…1.log + .idx   sealed: length, position and digest against the index, records on first read
//!   chunk-…7.log + .idx   sealed; an index that is missing or damaged is made again from the chunk
//!   chunk-…9.log          newest: every record is read; at the first bad one, at byte o:
//!                           `commit` says that the journal was durable after o  ─▶ damaged, refuse
//!                           `commit` says that it was closed in order            ─▶ damaged, refuse
//!                           a later record that began a group is there           ─▶ damaged, refuse
//!                           none of these                                        ─▶ never acknowledged: torn, to be
//!                                                                                   cut at the end of the last
//!                                                                                   whole append, and kept beside
//! ```
//!
//! Chunks are chained: the header of each names its journal and has the digest of the history before it. So a chunk of
//! another journal, or of a copy with another history, is recognised.
//!
//! An index file is written only after the next chunk is durable. So an index of the newest chunk, or an index without
//! its chunk, shows that a chunk is missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dacapo_model::{JournalId, Mark, Position, Timestamp};

use super::chunk::{self, Chunk, HEADER_BYTES, Header, Index, Scan};
use super::commit::{self, Commit, CommitFile, Kept};
use super::index::MemoryIndex;
use super::index_file::{self, Summary};
use super::log::{Found, corrupt_at, disk_error, mend, rebuild};
use super::settle::Unsettled;
use super::writer::Start;
use crate::embedded::disk::{Disk, DiskFile};
use crate::error::StoreError;

/// The evidence of how far the journal was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Believe {
    /// All evidence.
    Evidence,
    /// All evidence, and nothing is written, not even a repetition of existing bytes.
    Looking,
    /// Only the records, as far as they are sound: for a requested repair.
    Records,
}

/// Returns the journal in `dir`, and the place where writing continues. Begins a journal with the identity `fresh` if
/// there is none.
pub(super) fn open(
    disk: &dyn Disk,
    dir: &Path,
    fresh: JournalId,
    believe: Believe,
) -> Result<(Found, Start), StoreError> {
    if believe != Believe::Looking {
        disk.create_dir(dir).map_err(|error| disk_error("make", dir, &error))?;
    }
    let names = disk.list(dir).map_err(|error| disk_error("list", dir, &error))?;
    let firsts = |extension| names.iter().filter_map(|name| chunk::parse_name(name, extension)).collect();
    let (logs, indexes): (BTreeSet<Position>, BTreeSet<Position>) = (firsts(".log"), firsts(".idx"));
    check_none_missing(dir, &logs, &indexes)?;
    let kept = CommitFile::read(disk, dir)?;
    let Some(newest) = logs.last().copied() else {
        return match kept.and_then(|kept| kept.commit) {
            Some(commit) => Err(missing_newest(dir, &commit)),
            None if believe == Believe::Looking => {
                Err(StoreError::Invalid(format!("{} holds no journal of dacapo yet", dir.display())))
            }
            None => begin(disk, dir, fresh),
        };
    };
    let (mut chunks, mut next) = (Vec::new(), Position::new(1));
    let mut chain = Chain { id: None, digest: Mark::START.digest };
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
    let evidence = Evidence { kept, believe };
    let Newest { chunk, file, scan, id, unsettled } =
        newest_chunk(disk, dir, newest, (&chain, fresh), (&chunks, evidence))?;
    let (highest_id, digest) = match &*chunk.index() {
        Index::Memory(index) => (highest_sealed_id.max(index.ids().map(|(id, _)| id).max()), index.digest()),
        Index::File(_) => unreachable!("the newest chunk has its index in memory"),
    };
    let recorded = match (scan.recorded, chunks.last()) {
        (Some(recorded), _) => recorded,
        (None, Some(sealed)) => last_recorded(disk, dir, sealed, id)?,
        (None, None) => Timestamp::from_micros(i64::MIN),
    };
    let head = Position::new(scan.whole_next.get() - 1);
    tracing::debug!(%id, %head, digest, "the journal is open");
    chunks.push(Arc::clone(&chunk));
    Ok((Found { id, chunks, head }, Start { chunk, file, head, recorded, highest_sealed_id, highest_id, unsettled }))
}

/// Begins a journal. A crash during this leaves a chunk without records, which is begun again.
fn begin(disk: &dyn Disk, dir: &Path, fresh: JournalId) -> Result<(Found, Start), StoreError> {
    let first = Position::new(1);
    let path = dir.join(chunk::log_name(first));
    let header = Header { first, id: fresh, before: Mark::START.digest };
    let make = || -> std::io::Result<(Arc<dyn DiskFile>, CommitFile)> {
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent)?;
        }
        let file = disk.create(&path)?;
        file.write_at(0, &header.encode())?;
        file.sync_data()?;
        Ok((file, CommitFile::create(disk, dir)?))
    };
    let (file, commit) = make().map_err(|error| disk_error("begin the journal with", &path, &error))?;
    let head = Position::START;
    let digest = header.before;
    commit.keep(&Commit { id: fresh, chunk: first, end: HEADER_BYTES, head, digest, closed: true })?;
    disk.sync_dir(dir).map_err(|error| disk_error("flush", dir, &error))?;
    let chunk = Arc::new(Chunk::new(first, HEADER_BYTES, Index::Memory(MemoryIndex::behind(header.before))));
    let unsettled = Unsettled { header: None, tail: None, commit: Some(commit) };
    let recorded = Timestamp::from_micros(i64::MIN);
    let found = Found { id: fresh, chunks: vec![Arc::clone(&chunk)], head };
    Ok((found, Start { chunk, file, head, recorded, highest_sealed_id: None, highest_id: None, unsettled }))
}

/// The chain of the history through the chunks that were checked so far.
struct Chain {
    /// The identity of all these chunks; `None` before the first one.
    id: Option<JournalId>,
    /// The digest of the history through the last of them.
    digest: u64,
}

impl Chain {
    /// Checks the header of the next chunk against the chunks before it.
    fn check(&self, path: &Path, header: &Header) -> Result<(), StoreError> {
        if let Some(id) = self.id.filter(|id| *id != header.id) {
            let found = format!("it belongs to the journal {}, those before it to {id}", header.id);
            return Err(corrupt_at(path, 0, &found));
        }
        if header.before != self.digest {
            let found = format!(
                "it was written after another history: the digest before it is {:016x}, it says {:016x}",
                self.digest, header.before
            );
            return Err(corrupt_at(path, 0, &found));
        }
        Ok(())
    }
}

/// The evidence of how far the journal was acknowledged, and whether it counts.
struct Evidence {
    kept: Option<Kept>,
    believe: Believe,
}

impl Evidence {
    /// Returns the commit against which the newest chunk is checked; `None` if there need not be one.
    fn commit(&self, dir: &Path, has_records: bool) -> Result<Option<Commit>, StoreError> {
        if self.believe == Believe::Records {
            return Ok(None);
        }
        match &self.kept {
            Some(kept) if kept.proves() => Ok(kept.commit),
            // The journal was just being begun.
            None | Some(Kept { commit: None, .. }) if !has_records => Ok(None),
            kept => Err(unproved(dir, kept.as_ref())),
        }
    }

    /// Checks what was found against what was acknowledged. `size` is that of the newest chunk.
    fn judge(&self, dir: &Path, newest: &Judged<'_>, sealed: &[Arc<Chunk>]) -> Result<(), StoreError> {
        let (path, scan) = (dir.join(chunk::log_name(newest.header.first)), newest.scan);
        let whole = scan.problem.is_none() && scan.whole_end == newest.size;
        if let Some(commit) = self.commit(dir, newest.size > HEADER_BYTES || !sealed.is_empty())? {
            check_commit(dir, &commit, newest, sealed)?;
            if commit.closed && commit.chunk == newest.header.first && !whole {
                let found = scan.problem.unwrap_or("the append that begins here is not whole");
                let found = format!("{found}, and the journal was closed in order, so nothing was being written");
                return Err(damaged_tail(dir, &path, scan.whole_end, &found));
            }
        }
        if !whole && self.believe != Believe::Records {
            check_torn(newest.file, dir, &path, scan, newest.size)?;
        }
        Ok(())
    }
}

/// Returns the error that the acknowledged end of the journal is unknown.
fn unproved(dir: &Path, kept: Option<&Kept>) -> StoreError {
    let what = match kept {
        None => "it is missing".to_owned(),
        Some(Kept { commit: None, .. }) => "it is not readable".to_owned(),
        Some(Kept { commit: Some(commit), .. }) => format!(
            "one of its two notes is not readable, and the other one covers events through position {} only",
            commit.head
        ),
    };
    let found = format!("{what}, so the acknowledged end of the journal is not known; {}", advice(dir));
    StoreError::corrupt(commit::path(dir).display(), found)
}

/// The newest chunk, as it was found.
struct Judged<'a> {
    file: &'a dyn DiskFile,
    header: &'a Header,
    size: u64,
    scan: &'a Scan,
    index: &'a MemoryIndex,
}

/// Refuses a journal that lacks acknowledged events, or that is another journal.
fn check_commit(dir: &Path, commit: &Commit, newest: &Judged<'_>, sealed: &[Arc<Chunk>]) -> Result<(), StoreError> {
    let (first, id, scan) = (newest.header.first, newest.header.id, newest.scan);
    let path = dir.join(chunk::log_name(commit.chunk));
    if commit.id != id {
        let found =
            format!("it is of the journal {}, the chunks are of {id}: put back what belongs together", commit.id);
        return Err(StoreError::corrupt(commit::path(dir).display(), found));
    }
    if commit.chunk > first {
        return Err(missing_newest(dir, commit));
    }
    if commit.chunk < first {
        let of_commit = sealed.iter().find(|chunk| chunk.first == commit.chunk);
        let ends = of_commit.map(|chunk| chunk.durable());
        return match ends {
            // A chunk that was begun for a failed append holds nothing.
            Some(end) if end >= commit.end && (!commit.closed || newest.size <= HEADER_BYTES) => Ok(()),
            Some(end) if end < commit.end => {
                let found = format!("the file ends here, it was durable through byte {}", commit.end);
                Err(damaged_tail(dir, &path, end, &found))
            }
            Some(_) => {
                let found = "the journal was closed in order with an earlier chunk, so nobody wrote this one";
                Err(damaged_tail(dir, &dir.join(chunk::log_name(first)), 0, found))
            }
            None => {
                let found = format!("it names a chunk that begins with position {}, but there is none", commit.chunk);
                Err(StoreError::corrupt(commit::path(dir).display(), format!("{found}; {}", advice(dir))))
            }
        };
    }
    let acknowledged =
        format!("events through position {} were acknowledged, in bytes through {}", commit.head, commit.end);
    if newest.size < commit.end && scan.end >= newest.size {
        return Err(damaged_tail(dir, &path, newest.size, &format!("the file ends here, but {acknowledged}")));
    }
    if scan.whole_end < commit.end {
        let found = scan.problem.unwrap_or("the append that begins here is not whole");
        return Err(damaged_tail(dir, &path, scan.end, &format!("{found}, but {acknowledged}")));
    }
    let digest = match commit.head.get().checked_sub(first.get()) {
        Some(ordinal) => newest.index.digests().get(ordinal as usize).copied(),
        None => Some(newest.header.before),
    };
    if digest != Some(commit.digest) {
        let found = format!("the history through position {} is not the one that was acknowledged", commit.head);
        return Err(damaged_tail(dir, &path, 0, &found));
    }
    Ok(())
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
                "the chunk after {} is missing, since that one is sealed: restore it from a backup or from a \
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

fn missing_newest(dir: &Path, commit: &Commit) -> StoreError {
    StoreError::corrupt(
        dir.join(chunk::log_name(commit.chunk)).display(),
        format!(
            "it is missing, but events through position {} were acknowledged: restore it from a backup or from a \
                 replicated journal",
            commit.head
        ),
    )
}

/// Returns the error that acknowledged events at the end of the journal are missing.
fn damaged_tail(dir: &Path, path: &Path, at: u64, found: &str) -> StoreError {
    StoreError::corrupt(format!("{} at byte {at}", path.display()), format!("{found}; {}", advice(dir)))
}

fn advice(dir: &Path) -> String {
    format!("nothing was changed: {}", mend(dir))
}

/// Returns the summary of a sealed chunk's index. A wrong index is made again.
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
    unsettled: Unsettled,
}

/// Reads the newest chunk and makes its whole part durable. After a kill -9 the records may be only in the memory of
/// the operating system, and a process that reads them now must find them again later.
fn newest_chunk(
    disk: &dyn Disk,
    dir: &Path,
    first: Position,
    (chain, fresh): (&Chain, JournalId),
    (sealed, evidence): (&[Arc<Chunk>], Evidence),
) -> Result<Newest, StoreError> {
    let path = dir.join(chunk::log_name(first));
    let failed = |error: std::io::Error| disk_error("recover", &path, &error);
    let file = disk.open(&path).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let bytes = read_header(&*file).map_err(failed)?;
    let (header, begun) = match Header::decode(&bytes, first) {
        Ok(header) => (header, true),
        Err(found) if size > HEADER_BYTES => return Err(corrupt_at(&path, 0, &found)),
        // Records are written only after the header is durable, so there are none: the chunk was just begun.
        Err(_) => {
            let acknowledged = evidence.kept.as_ref().and_then(|kept| kept.commit).map(|commit| commit.id);
            let id = chain.id.or(acknowledged).unwrap_or(fresh);
            (Header { first, id, before: chain.digest }, false)
        }
    };
    chain.check(&path, &header)?;
    let (mut index, mut scan) =
        read_newest(&*file, &header, if begun { size } else { HEADER_BYTES }).map_err(failed)?;
    let judged = Judged { file: &*file, header: &header, size, scan: &scan, index: &index };
    evidence.judge(dir, &judged, sealed)?;
    let mut tail = None;
    if begun && (scan.problem.is_some() || scan.whole_end < size) {
        tracing::warn!(
            file = %path.display(), from = scan.whole_end, through = size, found = scan.problem.unwrap_or("half an append"),
            "the end of the newest chunk is incomplete; it was never acknowledged, and nothing of it is read"
        );
        tail = Some(size);
        (index, scan) = read_newest(&*file, &header, scan.whole_end).map_err(failed)?;
    }
    // A chunk that was closed in order is durable, and so is its name.
    let commit = evidence.kept.as_ref().and_then(|kept| kept.commit);
    let closed = commit.is_some_and(|commit| commit.closed && commit.chunk == first);
    if begun && !closed && evidence.believe == Believe::Evidence {
        write_again(&*file, scan.last_group, scan.whole_end).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        disk.sync_dir(dir).map_err(failed)?;
    }
    let chunk = Arc::new(Chunk::new(first, scan.whole_end, Index::Memory(index)));
    let unsettled = Unsettled { header: (!begun).then_some(header), tail, commit: evidence.kept.map(|kept| kept.file) };
    Ok(Newest { chunk, file, scan, id: header.id, unsettled })
}

/// Writes again what was read, so that the following flush really takes it to the disk. After a failed flush, the
/// operating system may show bytes that it considers written and never writes again. Only the last group can be
/// affected, since the next one is begun only after a successful flush. Without a group, the header is written again.
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

/// Distinguishes a torn tail, which was never acknowledged, from damage to durable events.
fn check_torn(file: &dyn DiskFile, dir: &Path, path: &Path, scan: &Scan, size: u64) -> Result<(), StoreError> {
    let mut rest = Vec::new();
    let len = size.saturating_sub(scan.end) as usize;
    file.read_at(scan.end, len, &mut rest).map_err(|error| disk_error("read", path, &error))?;
    if chunk::has_later_group(&rest, scan.next) {
        let found = scan.problem.unwrap_or("the append that ends here is not whole");
        let found = format!("{found}, and events that were written later are there");
        return Err(damaged_tail(dir, path, scan.end, &found));
    }
    Ok(())
}

/// Returns the time at which the last event of a sealed chunk was appended.
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
