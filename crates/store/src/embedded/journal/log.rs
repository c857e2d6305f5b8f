//! What readers and the sequencer share: the chunks, their indexes, open files and caches.
//!
//! Lookups go through the chunks' filters first, then through index sections that are read when they are
//! needed and kept in a cache bounded in bytes. A damaged index is made again from its chunk.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use dacapo_model::{EventId, JournalId, Position, Revision, StreamName, stream_hash};
use lru::LruCache;

use super::chunk::{self, Chunk, Header, Index};
use super::commit::CommitFile;
use super::index::MemoryIndex;
use super::index_file::{self, Section, StoredStreams, Summary};
use crate::embedded::disk::{Disk, DiskFile, not_a_file};
use crate::error::StoreError;
use crate::files::no_more_files;
use crate::head::Head;
use crate::journal::Health;
use crate::limits;
use crate::record;

/// Most records are shorter, so one read gets one.
const RECORD_GUESS_BYTES: usize = 4096;

pub(super) struct Log {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    /// The identity of the journal.
    pub id: JournalId,
    pub head: Head,
    /// Where commits are noted; there once the journal has been written to since it was opened. Before that nothing on the
    /// disk is changed.
    settled: OnceLock<Arc<CommitFile>>,
    /// How appends went last, and whether somebody has been asked to try again.
    health: Mutex<Health>,
    probing: AtomicBool,
    /// The read that failed last, until something is read there.
    unread: Mutex<Option<Unread>>,
    reading: AtomicBool,
    /// What was found not to be what was written, by the chunk that has it: the first find in each.
    damage: Mutex<BTreeMap<Position, StoreError>>,
    chunks: RwLock<Arc<Vec<Arc<Chunk>>>>,
    files: Mutex<LruCache<Position, Arc<dyn DiskFile>>>,
    sections: Mutex<Sections>,
    /// The last revision of streams, as far as the chunk that begins at the position knows.
    revisions: Mutex<LruCache<StreamName, (Revision, Position)>>,
    /// Where records begin at which reads ended, so that a reader who continues needs no index.
    places: Mutex<LruCache<Position, u64>>,
}

/// A place that could not be read.
#[derive(Clone)]
struct Unread {
    first: Position,
    at: u64,
    len: usize,
    error: String,
}

/// What was found when the journal was opened.
pub(super) struct Found {
    pub id: JournalId,
    /// The newest one last.
    pub chunks: Vec<Arc<Chunk>>,
    pub head: Position,
}

/// Index sections in memory, the least recently used given up first.
struct Sections {
    cache: LruCache<(Position, Section), Arc<Vec<u8>>>,
    bytes: usize,
    bytes_max: usize,
}

impl Log {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, found: Found, cache_bytes: usize) -> Self {
        Self {
            disk,
            dir,
            id: found.id,
            head: Head::new(found.head),
            settled: OnceLock::new(),
            health: Mutex::default(),
            probing: AtomicBool::new(false),
            unread: Mutex::default(),
            reading: AtomicBool::new(false),
            damage: Mutex::default(),
            chunks: RwLock::new(Arc::new(found.chunks)),
            files: Mutex::new(LruCache::new(limits::OPEN_FILES_MAX)),
            sections: Mutex::new(Sections { cache: LruCache::unbounded(), bytes: 0, bytes_max: cache_bytes }),
            revisions: Mutex::new(LruCache::new(limits::KNOWN_STREAMS_MAX)),
            places: Mutex::new(LruCache::new(limits::KNOWN_PLACES_MAX)),
        }
    }

    pub fn head(&self) -> Position {
        self.head.get()
    }

    pub fn health(&self) -> Health {
        let health = lock(&self.health).clone();
        let unnoted = || self.settled.get()?.broken().as_ref().map(Health::from);
        if health == Health::Well { unnoted().unwrap_or(health) } else { health }
    }

    /// Returns the results of the last reads.
    pub fn read_health(&self) -> Health {
        lock(&self.unread).as_ref().map_or(Health::Well, |unread| Health::Failing(unread.error.clone()))
    }

    /// Reads bytes of a chunk, as many of them as there are, and takes note of whether that goes.
    pub fn read_bytes(&self, first: Position, at: u64, len: usize, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let read = self.file(first).and_then(|file| {
            file.read_at(at, len, out).map_err(|error| disk_error("read", &self.log_path(first), &error))
        });
        let mut unread = lock(&self.unread);
        match &read {
            Err(error) => *unread = Some(Unread { first, at, len, error: error.to_string() }),
            Ok(()) => {
                let is_read =
                    |unread: &mut Unread| unread.first == first && unread.at >= at && unread.at < at + len as u64;
                drop(unread.take_if(is_read));
            }
        }
        read
    }

    /// Reads once more what could not be read, unless somebody does already: nobody else may come there again.
    pub fn read_again(&self) {
        let unread = lock(&self.unread).clone();
        let Some(Unread { first, at, len, .. }) = unread else { return };
        if !self.reading.swap(true, Ordering::AcqRel) {
            // How it went is noted.
            drop(self.read_bytes(first, at, len, &mut Vec::new()));
            self.reading.store(false, Ordering::Release);
        }
    }

    /// Tells how appends went, which ends a probe.
    pub fn set_health(&self, health: Health) {
        *lock(&self.health) = health;
        self.probing.store(false, Ordering::Release);
    }

    /// Returns true if nobody is probing yet; then the caller is to.
    pub fn begin_probe(&self) -> bool {
        !self.probing.swap(true, Ordering::AcqRel)
    }

    pub fn set_settled(&self, commits: Arc<CommitFile>) {
        // There is one writer, which does this once.
        self.settled.set(commits).ok();
    }

    /// Makes durable what was noted of commits.
    pub fn flush_commits(&self) {
        if let Some(commits) = self.settled.get() {
            commits.flush();
        }
    }

    /// Returns the chunks in order, the one that is written to last.
    pub fn chunks(&self) -> Arc<Vec<Arc<Chunk>>> {
        Arc::clone(&self.chunks.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn push(&self, chunk: Arc<Chunk>) {
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        *chunks = Arc::new(chunks.iter().cloned().chain([chunk]).collect());
    }

    pub fn log_path(&self, first: Position) -> PathBuf {
        self.dir.join(chunk::log_name(first))
    }

    pub fn file(&self, first: Position) -> Result<Arc<dyn DiskFile>, StoreError> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(&first) {
            return Ok(Arc::clone(file));
        }
        let path = self.log_path(first);
        let file = self.disk.open(&path).map_err(|error| disk_error("open", &path, &error))?;
        files.put(first, Arc::clone(&file));
        Ok(file)
    }

    /// Returns the error for a record at `at` that is not what it must be. It is kept: the write side asks for it.
    pub fn corrupt(&self, first: Position, at: u64, found: &str) -> StoreError {
        let path = self.log_path(first);
        let is_written_to = self.chunks().last().is_some_and(|chunk| chunk.first == first);
        let error = match is_written_to {
            // What is appended after it is acknowledged, and lost with it: opening refuses what is after damage in the
            // newest chunk, and no backup has both what was there and what came after.
            true => StoreError::corrupt(
                format!("{} at byte {at}", path.display()),
                format!(
                    "{found}; nothing after it is read and nothing more is appended: stop this process, then {}",
                    mend(&self.dir)
                ),
            ),
            // It never changes again, so any copy of it heals it and costs nothing that came after.
            false => corrupt_at(&path, at, found),
        };
        let mut damage = lock(&self.damage);
        if let Entry::Vacant(entry) = damage.entry(first) {
            tracing::error!(%error, "the journal is damaged");
            entry.insert(error.clone());
        }
        error
    }

    /// What was found damaged in the chunk that is written to, if anything was.
    pub fn damage_written_to(&self) -> Option<StoreError> {
        let newest = self.chunks().last().map(|chunk| chunk.first)?;
        lock(&self.damage).get(&newest).cloned()
    }

    /// What was found damaged where nothing is written any more.
    pub fn sealed_damage(&self) -> Vec<StoreError> {
        let chunks = self.chunks();
        let newest = chunks.last().map(|chunk| chunk.first);
        lock(&self.damage).iter().filter(|(first, _)| Some(**first) != newest).map(|(_, error)| error.clone()).collect()
    }

    pub fn remember_place(&self, position: Position, at: u64) {
        lock(&self.places).put(position, at);
    }

    /// Where the record of `position` begins in `chunk`.
    #[expect(clippy::expect_used, reason = "a durable position of the chunk has a record")]
    pub fn locate(&self, chunk: &Chunk, position: Position) -> Result<u64, StoreError> {
        if position == chunk.first {
            return Ok(chunk::HEADER_BYTES);
        }
        if let Some(at) = lock(&self.places).get(&position) {
            return Ok(*at);
        }
        let ordinal = position.since(chunk.first) as usize;
        let summary = match &*chunk.index() {
            Index::Memory(index) => {
                let at = index.offsets().get(ordinal).expect("a durable position of the chunk has a record");
                return Ok((*at).into());
            }
            Index::File(summary) => Arc::clone(summary),
        };
        let section = self.section(chunk, &summary, Section::Offsets)?;
        let at = index_file::find_offset(&section, ordinal);
        let fewer = || self.corrupt(chunk.first, 0, "its index has fewer places than the chunk has events");
        Ok(at.ok_or_else(fewer)?.into())
    }

    /// Returns the revision of `stream` in the newest chunk that has it, of those that begin before `before`.
    pub fn older_revision(&self, stream: &StreamName, before: Position) -> Result<Revision, StoreError> {
        let chunks = self.chunks();
        let older = &chunks[..chunks.partition_point(|chunk| chunk.first < before)];
        let Some(newest) = older.last() else { return Ok(Revision::START) };
        let cached = lock(&self.revisions).get(stream).copied();
        let hash = stream_hash(stream.as_str());
        let mut revision = Revision::START;
        for chunk in older.iter().rev() {
            if let Some((known, through)) = cached
                && chunk.first <= through
            {
                revision = known;
                break;
            }
            if let Some(found) = self.revision_in(chunk, stream, hash)? {
                revision = found;
                break;
            }
        }
        lock(&self.revisions).put(stream.clone(), (revision, newest.first));
        Ok(revision)
    }

    /// Returns the last durable revision of `stream`.
    #[expect(clippy::expect_used, reason = "a journal has a chunk")]
    pub fn revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        let chunks = self.chunks();
        let newest = chunks.last().expect("a journal has a chunk");
        match self.revision_in(newest, stream, stream_hash(stream.as_str()))? {
            Some(revision) => Ok(revision),
            None => self.older_revision(stream, newest.first),
        }
    }

    fn revision_in(&self, chunk: &Chunk, stream: &StreamName, hash: u64) -> Result<Option<Revision>, StoreError> {
        let summary = match &*chunk.index() {
            Index::Memory(index) => {
                let entry = index.slot(stream.as_str()).map(|slot| index.stream(slot));
                return Ok(entry.map(|entry| entry.before.plus(entry.durable(chunk.durable()) as u64)));
            }
            Index::File(summary) if !summary.may_have_stream(hash) => return Ok(None),
            Index::File(summary) => Arc::clone(summary),
        };
        let section = self.section(chunk, &summary, Section::Streams)?;
        Ok(streams_of(&section).find(stream.as_str()).map(|stream| stream.revision()))
    }

    /// Returns the events of `stream` in `chunk` after the revision `after`: the revision before the first of them,
    /// and where their records begin. `None` when the chunk does not have the stream.
    pub fn postings(
        &self,
        chunk: &Chunk,
        stream: &StreamName,
        hash: u64,
        after: Revision,
    ) -> Result<Option<(Revision, Vec<u32>)>, StoreError> {
        let summary = match &*chunk.index() {
            Index::Memory(index) => {
                return Ok(index.slot(stream.as_str()).map(|slot| {
                    let entry = index.stream(slot);
                    let postings = &entry.postings[..entry.durable(chunk.durable())];
                    let skip = (after.since(entry.before) as usize).min(postings.len());
                    (entry.before, postings[skip..].to_vec())
                }));
            }
            Index::File(summary) if !summary.may_have_stream(hash) => return Ok(None),
            Index::File(summary) => Arc::clone(summary),
        };
        let section = self.section(chunk, &summary, Section::Streams)?;
        Ok(streams_of(&section).find(stream.as_str()).map(|stream| {
            let skip = (after.since(stream.before) as usize).min(stream.postings().len());
            (stream.before, stream.postings().skip(skip).collect())
        }))
    }

    /// Where the record with this id, whose hash is `hash`, begins in `chunk`.
    pub fn find_id(&self, chunk: &Chunk, id: EventId, hash: u64) -> Result<Option<u32>, StoreError> {
        let summary = match &*chunk.index() {
            Index::Memory(index) => return Ok(index.id(id)),
            Index::File(summary) if !summary.may_have_id(id, hash) => return Ok(None),
            Index::File(summary) => Arc::clone(summary),
        };
        let section = self.section(chunk, &summary, Section::Ids)?;
        Ok(index_file::find_id(&section, id))
    }

    /// Returns the position of the durable event with this id.
    #[expect(clippy::expect_used, reason = "it was verified when it was read")]
    pub fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        let (head, hash) = (self.head(), index_file::id_hash(id));
        for chunk in self.chunks().iter().rev() {
            let Some(at) = self.find_id(chunk, id, hash)? else { continue };
            // What is being written is in the index before it is durable.
            if u64::from(at) >= chunk.durable() {
                return Ok(None);
            }
            let bytes = self.record(chunk, at)?;
            let (event, _) = record::verify(&bytes).expect("it was verified when it was read");
            return Ok(Some(event.position).filter(|position| *position <= head));
        }
        Ok(None)
    }

    /// Returns the bytes of the record that begins at `at`, verified.
    pub fn record(&self, chunk: &Chunk, at: u32) -> Result<Vec<u8>, StoreError> {
        let at = u64::from(at);
        let end = chunk.durable();
        let mut bytes = Vec::new();
        let read = |from: u64, len: usize, bytes: &mut Vec<u8>| {
            let len = (len as u64).min(end.saturating_sub(from)) as usize;
            self.read_bytes(chunk.first, from, len, bytes)
        };
        read(at, RECORD_GUESS_BYTES, &mut bytes)?;
        let len = record::record_len(&bytes).ok_or_else(|| self.corrupt(chunk.first, at, "no record begins here"))?;
        if let Some(missing) = len.checked_sub(bytes.len()) {
            read(at + bytes.len() as u64, missing, &mut bytes)?;
        }
        record::verify(&bytes).map_err(|found| self.corrupt(chunk.first, at, found))?;
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Returns a section of the index file of `chunk`, verified.
    #[expect(clippy::expect_used, reason = "it has more than one")]
    pub fn section(&self, chunk: &Chunk, summary: &Summary, section: Section) -> Result<Arc<Vec<u8>>, StoreError> {
        let key = (chunk.first, section);
        if let Some(hit) = lock(&self.sections).cache.get(&key) {
            return Ok(Arc::clone(hit));
        }
        let (from, len, _) = summary.section(section);
        let bytes = match self.load_section(chunk.first, summary, section) {
            Ok(bytes) => bytes,
            Err(found) => {
                let path = self.dir.join(chunk::index_name(chunk.first));
                tracing::warn!(file = %path.display(), found, "an index is damaged: it is made again from its chunk");
                let (_, file) = rebuild(&*self.disk, &self.dir, chunk.first, chunk.durable())?;
                if self.settled.get().is_some()
                    && let Err(error) = write_index(&*self.disk, &self.dir, chunk.first, &file)
                {
                    tracing::warn!(%error, "an index cannot be written: it will be made again when it is needed");
                }
                let bytes = file.get(from as usize..from as usize + len);
                bytes.ok_or_else(|| self.corrupt(chunk.first, 0, "it is another chunk than its index says"))?.to_vec()
            }
        };
        let bytes = Arc::new(bytes);
        let mut sections = lock(&self.sections);
        sections.bytes += bytes.len();
        if let Some(twice) = sections.cache.put(key, Arc::clone(&bytes)) {
            sections.bytes -= twice.len();
        }
        while sections.bytes > sections.bytes_max && sections.cache.len() > 1 {
            let (_, least) = sections.cache.pop_lru().expect("it has more than one");
            sections.bytes -= least.len();
        }
        Ok(bytes)
    }

    fn load_section(&self, first: Position, summary: &Summary, section: Section) -> Result<Vec<u8>, String> {
        let (from, len, crc) = summary.section(section);
        let path = self.dir.join(chunk::index_name(first));
        let file = self.disk.open(&path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.will_need(from, len);
        file.read_at(from, len, &mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() != len || crc32c::crc32c(&bytes) != crc {
            return Err("the checksum of a section does not match".into());
        }
        if section == Section::Streams && StoredStreams::new(&bytes).is_none() {
            return Err("its table of streams contradicts itself".into());
        }
        Ok(bytes)
    }
}

/// Returns the table in a section of streams that [`Log::section`] returned.
#[expect(clippy::expect_used, reason = "it was checked when it was read")]
pub(super) fn streams_of(section: &[u8]) -> StoredStreams<'_> {
    StoredStreams::new(section).expect("it was checked when it was read")
}

/// Makes the index of a sealed chunk again from its records.
#[expect(clippy::expect_used, reason = "it was just encoded")]
pub(super) fn rebuild(
    disk: &dyn Disk,
    dir: &Path,
    first: Position,
    end: u64,
) -> Result<(Summary, Vec<u8>), StoreError> {
    let path = dir.join(chunk::log_name(first));
    let failed = |error: io::Error| disk_error("read", &path, &error);
    let file = disk.open(&path).map_err(failed)?;
    let mut header = Vec::new();
    file.read_at(0, chunk::HEADER_BYTES as usize, &mut header).map_err(failed)?;
    let header = Header::decode(&header, first).map_err(|found| corrupt_at(&path, 0, &found))?;
    let mut index = MemoryIndex::behind(header.before);
    let scan =
        chunk::scan(&*file, &header, end, |event, at, digest| index.add_read(event, at, digest)).map_err(failed)?;
    if let Some(problem) = scan.problem {
        return Err(corrupt_at(&path, scan.end, problem));
    }
    if scan.whole_end != end {
        return Err(corrupt_at(&path, scan.whole_end, "the append that begins here is not whole"));
    }
    let bytes = index_file::encode(&index, first, end);
    let summary = Summary::decode(&bytes).expect("it was just encoded");
    Ok((summary, bytes))
}

/// Writes an index file in one step: there is the whole of it or nothing.
pub(super) fn write_index(disk: &dyn Disk, dir: &Path, first: Position, bytes: &[u8]) -> Result<(), StoreError> {
    let path = dir.join(chunk::index_name(first));
    let new = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let file = disk.create(&new)?;
        file.write_at(0, bytes)?;
        file.sync_data()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)
    };
    write().map_err(|error| disk_error("write", &path, &error))
}

/// The disk refused: what was tried, what it said, what to do about it.
pub(super) fn disk_error(tried: &str, path: &Path, error: &io::Error) -> StoreError {
    if let Some(other) = not_a_file(path, error) {
        return other;
    }
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on that disk, then retry: no restart is needed"
        }
        io::ErrorKind::NotFound => "the file was there when the journal was opened: restore it, then open it again",
        io::ErrorKind::PermissionDenied => "give this process the right to it, then retry",
        _ => "check the disk, then retry",
    };
    let advice = no_more_files(error).unwrap_or_else(|| advice.to_owned());
    StoreError::unavailable(format!("{tried} {}", path.display()), format!("{error}; {advice}"))
}

/// Bytes at `at` in a chunk are not what was written.
pub(super) fn corrupt_at(path: &Path, at: u64, found: &str) -> StoreError {
    StoreError::corrupt(
        format!("{} at byte {at}", path.display()),
        format!("{found}; nothing after it is read: restore the file from a backup or from a replicated journal"),
    )
}

/// What to do about what was acknowledged and is not there any more.
pub(super) fn mend(dir: &Path) -> String {
    let data = dir.parent().unwrap_or(dir).display();
    format!("restore it from a backup, or check what `dacapo repair --data {data}` would do")
}

/// Caches hold derived things only, so one that a panic left is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_no_more_files_can_be_opened_is_no_matter_of_the_disk() {
        let of = |error: io::Error| disk_error("open", Path::new("/data/journal/chunk"), &error).to_string();
        let files = of(rustix::io::Errno::MFILE.into());
        assert!(files.contains("ulimit -n") && !files.contains("check the disk"), "{files}");
        assert!(of(rustix::io::Errno::IO.into()).contains("check the disk"));
    }
}
