//! The state that readers and the sequencer share: the chunks, their indexes, open files and caches.

mod find;
mod sections;

pub(super) use sections::{rebuild, streams_of, write_index};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use dacapo_model::{JournalId, Position, Revision, StreamName};
use lru::LruCache;

use super::chunk::{self, Chunk};
use super::commit::CommitFile;
use crate::embedded::disk::{Disk, DiskFile, not_a_file};
use crate::error::StoreError;
use crate::files::no_more_files;
use crate::head::Head;
use crate::journal::Health;
use crate::limits;
use sections::Sections;

pub(super) struct Log {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    /// The identity of the journal.
    pub id: JournalId,
    pub head: Head,
    /// The file that notes commits, set by the first write since the journal was opened. Before that, nothing on the
    /// disk changes.
    settled: OnceLock<Arc<CommitFile>>,
    /// The result of the last appends, and whether a probe was requested.
    health: Mutex<Health>,
    probing: AtomicBool,
    /// The last failed read, until that place can be read.
    unread: Mutex<Option<Unread>>,
    reading: AtomicBool,
    /// The damage that was found, by chunk: the first damage in each.
    damage: Mutex<BTreeMap<Position, StoreError>>,
    chunks: RwLock<Arc<Vec<Arc<Chunk>>>>,
    files: Mutex<LruCache<Position, Arc<dyn DiskFile>>>,
    sections: Mutex<Sections>,
    /// The last revision of streams, as of the chunk that begins at the position.
    revisions: Mutex<LruCache<StreamName, (Revision, Position)>>,
    /// The starts of the records at which reads ended, so that a reader that continues needs no index.
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

/// The findings of opening the journal.
pub(super) struct Found {
    pub id: JournalId,
    /// The chunks, the newest one last.
    pub chunks: Vec<Arc<Chunk>>,
    pub head: Position,
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
            sections: Mutex::new(Sections::new(cache_bytes)),
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

    /// Reads bytes of a chunk, as many of them as exist, and records whether that succeeded.
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

    /// Reads again what could not be read, if no thread does so already. Nobody else may ever read that place again.
    pub fn read_again(&self) {
        let unread = lock(&self.unread).clone();
        let Some(Unread { first, at, len, .. }) = unread else { return };
        if !self.reading.swap(true, Ordering::AcqRel) {
            // The read records its result.
            drop(self.read_bytes(first, at, len, &mut Vec::new()));
            self.reading.store(false, Ordering::Release);
        }
    }

    /// Records the result of appends, which ends a probe.
    pub fn set_health(&self, health: Health) {
        *lock(&self.health) = health;
        self.probing.store(false, Ordering::Release);
    }

    /// Returns true if no probe is under way. Then the caller must begin one.
    pub fn begin_probe(&self) -> bool {
        !self.probing.swap(true, Ordering::AcqRel)
    }

    pub fn set_settled(&self, commits: Arc<CommitFile>) {
        // There is one writer, which does this once.
        self.settled.set(commits).ok();
    }

    /// Makes the notes of commits durable.
    pub fn flush_commits(&self) {
        if let Some(commits) = self.settled.get() {
            commits.flush();
        }
    }

    /// Returns the chunks in order, with the one that is written to at the end.
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

    /// Returns the error for a wrong record at `at`. The error is kept, since the write side asks for it.
    pub fn corrupt(&self, first: Position, at: u64, found: &str) -> StoreError {
        let path = self.log_path(first);
        let is_written_to = self.chunks().last().is_some_and(|chunk| chunk.first == first);
        let error = match is_written_to {
            // Events that are appended after it would be acknowledged, and lost with it: opening refuses events after
            // damage in the newest chunk, and no backup has both the damaged part and the later events.
            true => StoreError::corrupt(
                format!("{} at byte {at}", path.display()),
                format!(
                    "{found}; nothing after it is read and nothing more is appended: stop this process, then {}",
                    mend(&self.dir)
                ),
            ),
            // The chunk never changes again, so any copy of it repairs it without a loss of later events.
            false => corrupt_at(&path, at, found),
        };
        let mut damage = lock(&self.damage);
        if let Entry::Vacant(entry) = damage.entry(first) {
            tracing::error!(%error, "the journal is damaged");
            entry.insert(error.clone());
        }
        error
    }

    /// Returns the damage that was found in the chunk that is written to, if there is any.
    pub fn damage_written_to(&self) -> Option<StoreError> {
        let newest = self.chunks().last().map(|chunk| chunk.first)?;
        lock(&self.damage).get(&newest).cloned()
    }

    /// Returns the damage that was found in sealed chunks.
    pub fn sealed_damage(&self) -> Vec<StoreError> {
        let chunks = self.chunks();
        let newest = chunks.last().map(|chunk| chunk.first);
        lock(&self.damage).iter().filter(|(first, _)| Some(**first) != newest).map(|(_, error)| error.clone()).collect()
    }

    pub fn remember_place(&self, position: Position, at: u64) {
        lock(&self.places).put(position, at);
    }
}

/// Returns the error for a failure of the disk: the attempt, the error, and what to do.
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

/// Returns the error that bytes at `at` in a chunk are not what was written.
pub(super) fn corrupt_at(path: &Path, at: u64, found: &str) -> StoreError {
    StoreError::corrupt(
        format!("{} at byte {at}", path.display()),
        format!("{found}; nothing after it is read: restore the file from a backup or from a replicated journal"),
    )
}

/// Returns the advice for acknowledged events that are missing.
pub(super) fn mend(dir: &Path) -> String {
    let data = dir.parent().unwrap_or(dir).display();
    format!("restore it from a backup, or check what `dacapo repair --data {data}` would do")
}

/// Caches hold only derived data, so a cache that a panic left can be used.
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
