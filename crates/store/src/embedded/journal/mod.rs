//! The journal of the embedded store: append-only chunk files, one thread that writes.
//!
//! ```text
//! journal/
//!   chunk-00000000000000000001.log    sealed: header, records
//!   chunk-00000000000000000001.idx    its index: filters, streams, ids, offsets; derived
//!   chunk-00000000000000214113.log    newest: its index is in memory
//!   chunk-00000000000000214113.cut-TIME  a torn tail that was cut off it, kept for anyone who asks
//!   commit                            how far the journal was acknowledged, and whether it was closed in order
//!
//!   append ─▶ sequencer (sequencer.rs) ─▶ writer (writer.rs) ─▶ chunk, head
//!   read   ─▶ reader (read.rs) ─▶ log (log.rs): chunks, indexes, caches
//!   open   ─▶ open.rs: torn tails, damage, missing files; changes nothing ─▶ settle.rs: before the first write
//! ```
//!
//! This module owns every byte in that directory. `admit` decides what an append may do. [`record`](crate::record)
//! defines the form of a record.

mod chunk;
mod commit;
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "it is for tests, which panic where something is wrong")]
#[cfg(all(test, feature = "contract"))]
mod commit_tests;
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "it is for tests, which panic where something is wrong")]
#[cfg(all(test, feature = "contract"))]
mod crash_tests;
mod filter;
mod index;
mod index_file;
mod log;
mod marks;
mod open;
mod read;
mod repair;
mod sequencer;
mod settle;
mod streams;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{EventId, JournalId, Mark, Position, Revision, StreamName};
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{Disk, FileDisk, LookDisk};
use super::lock::DataDir;
use crate::blocking::blocking;
use crate::clock::{Clock, SystemClock, uuid_at};
use crate::error::{AppendError, StoreError};
use crate::journal::{Append, Appended, Filter, Health, Journal, Limit, StreamInfo};
use crate::limits;
use crate::record::EventBatch;
use log::Log;
use open::Believe;
use read::Reader;
pub use repair::{Repair, RepairAct, RepairStep, repair};
use sequencer::Request;
use writer::Writer;

/// The options of an [`EmbeddedJournal`].
#[derive(Clone)]
pub struct JournalOptions {
    /// The clock that gives the times at which events are appended.
    pub clock: Arc<dyn Clock>,
    /// The disk that keeps the files.
    pub disk: Arc<dyn Disk>,
    /// The identity of the journal if it is begun now. An existing journal keeps its own.
    pub id: JournalId,
    /// The size in bytes at which a chunk is sealed before the next write; at most 1 GiB.
    pub chunk_bytes: u64,
    /// The time between two flushes of the notes about acknowledged events. The events themselves are flushed at once.
    pub commits_flushed_every: Duration,
    /// The most bytes of indexes that stay in memory after use.
    pub index_cache_bytes: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            disk: Arc::new(FileDisk),
            id: fresh_id(),
            chunk_bytes: limits::CHUNK_BYTES,
            commits_flushed_every: limits::COMMITS_FLUSH_REST,
            index_cache_bytes: limits::INDEX_CACHE_BYTES_MAX,
        }
    }
}

/// Returns an identity that no other journal has.
#[expect(clippy::disallowed_methods, reason = "the one place where identities of journals come in")]
fn fresh_id() -> JournalId {
    JournalId::from_bytes(uuid_at(std::time::SystemTime::now()))
}

/// The journal in a data directory.
pub struct EmbeddedJournal {
    log: Arc<Log>,
    reader: Reader,
    /// Dropped to end the sequencer; `None` if the journal is opened only to look at it.
    requests: Option<mpsc::Sender<Request>>,
    /// Closes when the threads have finished.
    ended: watch::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
    /// Held until it is closed, so that no other process opens the directory meanwhile.
    dir: Mutex<Option<DataDir>>,
}

impl EmbeddedJournal {
    /// Opens the journal in `dir`, or begins one. It reads only the newest chunk, so it takes well below a second for
    /// any length of the journal.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if durable events are damaged or missing, with the place; [`StoreError::Unavailable`] if
    /// the disk fails.
    pub fn open(dir: &DataDir, options: JournalOptions) -> Result<Self, StoreError> {
        let path = dir.path().join("journal");
        check_there(dir, &*options.disk, &path)?;
        let (found, start) = open::open(&*options.disk, &path, options.id, Believe::Evidence)?;
        check_same(dir, &path, found.id)?;
        dir.begin_journal(found.id)?;
        let log = Arc::new(Log::new(options.disk, path, found, options.index_cache_bytes));
        let failed = |error: std::io::Error| StoreError::unavailable("start a thread of the journal", error);
        let (sealed, indexer) =
            sequencer::start_indexer(Arc::clone(&log), options.commits_flushed_every).map_err(failed)?;
        let chunk_bytes = options.chunk_bytes.min(limits::CHUNK_BYTES_MAX);
        let writer = Writer::new(Arc::clone(&log), options.clock, chunk_bytes, start, sealed);
        let (requests, queue) = mpsc::channel(limits::WAITING_APPENDS_MAX);
        let (ending, ended) = watch::channel(());
        let run = move || sequencer::run(writer, queue, ending);
        let sequencer = std::thread::Builder::new().name("dacapo-sequencer".into()).spawn(run).map_err(failed)?;
        Ok(Self {
            reader: Reader::new(Arc::clone(&log)),
            log,
            requests: Some(requests),
            ended,
            threads: vec![sequencer, indexer],
            dir: Mutex::new(Some(dir.clone())),
        })
    }

    /// Opens the journal in `dir` only to look at it: no byte changes, and nothing can be appended.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreError::Invalid`] if no journal was begun there.
    pub fn look(dir: &DataDir) -> Result<Self, StoreError> {
        let (disk, path) = (Arc::new(LookDisk), dir.path().join("journal"));
        check_there(dir, &*disk, &path)?;
        if !path.exists() {
            return Err(StoreError::Invalid(format!("{} holds no journal of dacapo yet", dir.path().display())));
        }
        let options = JournalOptions::default();
        let (found, _) = open::open(&*disk, &path, options.id, Believe::Looking)?;
        check_same(dir, &path, found.id)?;
        let log = Arc::new(Log::new(disk, path, found, options.index_cache_bytes));
        let (_, ended) = watch::channel(());
        let dir = Mutex::new(Some(dir.clone()));
        Ok(Self { reader: Reader::new(Arc::clone(&log)), log, requests: None, ended, threads: vec![], dir })
    }

    /// Returns the queue of the write side, if there is one.
    fn requests(&self) -> Result<&mpsc::Sender<Request>, StoreError> {
        let looks = || StoreError::Invalid("the journal was opened only to look at it: nothing can be appended".into());
        self.requests.as_ref().ok_or_else(looks)
    }
}

/// Checks that the journal that was begun in the directory exists. A missing journal is not begun again, since its
/// positions would be given twice.
fn check_there(dir: &DataDir, disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let Some(id) = dir.journal() else { return Ok(()) };
    let is_there = match disk.list(path) {
        Ok(names) => names.iter().any(|name| chunk::parse_name(name, ".log").is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(log::disk_error("list", path, &error)),
    };
    let found = || {
        format!(
            "no chunk is there, and the journal {id} was begun in this directory: see whether its disk is mounted, or \
             restore it from a backup"
        )
    };
    if is_there { Ok(()) } else { Err(StoreError::corrupt(path.display(), found())) }
}

/// Checks that the journal in the directory is the one that was begun there.
fn check_same(dir: &DataDir, path: &Path, found: JournalId) -> Result<(), StoreError> {
    let Some(id) = dir.journal().filter(|id| *id != found) else { return Ok(()) };
    let found = format!(
        "the journal {id} was begun in this directory, and what is there is another one or has no events: restore the \
         directory from a backup"
    );
    Err(StoreError::corrupt(path.display(), found))
}

fn closed() -> StoreError {
    StoreError::unavailable("append", "the journal is closed: open it again")
}

#[async_trait]
impl Journal for EmbeddedJournal {
    fn id(&self) -> JournalId {
        self.log.id
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        match self.log.recent_mark(through)? {
            Some(mark) => Ok(mark),
            None => {
                let log = Arc::clone(&self.log);
                blocking(move || log.sealed_mark(through)).await
            }
        }
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let bytes = append.check()?;
        let (answer, answered) = oneshot::channel();
        self.requests()?.send(Request::Append { append, bytes, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    fn health(&self) -> Health {
        if let Some(damage) = self.log.damage_written_to() {
            return Health::from(&damage);
        }
        let health = self.log.health();
        if let Ok(requests) = self.requests()
            && health != Health::Well
            && self.log.begin_probe()
        {
            // Nobody appends to a node that reports that it is not ready, so each question about the health starts a
            // probe. If the queue is full, the requests in it show the health.
            requests.try_send(Request::Probe).ok();
        }
        if health != Health::Well {
            return health;
        }
        let reads = self.log.read_health();
        if reads != Health::Well
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // The same for a place that could not be read.
            let log = Arc::clone(&self.log);
            drop(runtime.spawn_blocking(move || log.read_again()));
        }
        reads
    }

    fn warnings(&self) -> Vec<String> {
        self.log
            .sealed_damage()
            .iter()
            .map(|error| format!("{error}; events that are appended after it are safe"))
            .collect()
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        // A reader that follows reads what was just written, which is in the system's memory. A change of threads would
        // take longer than the read.
        if self.log.head().since(after) <= limits::NEAR_EVENTS_MAX {
            return self.reader.read(after, filter, limit);
        }
        let (reader, filter) = (self.reader.clone(), filter.clone());
        blocking(move || reader.read(after, &filter, limit)).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        let (reader, stream) = (self.reader.clone(), stream.clone());
        blocking(move || reader.read_stream(&stream, after, limit)).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        let (log, stream) = (Arc::clone(&self.log), stream.clone());
        blocking(move || log.revision(&stream)).await
    }

    async fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        let log = Arc::clone(&self.log);
        blocking(move || log.position_of(id)).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        let (log, category, after) = (Arc::clone(&self.log), category.map(str::to_owned), after.cloned());
        blocking(move || log.streams(category.as_deref(), after.as_ref(), most)).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.log.head.subscribe()
    }

    async fn close(&self) {
        if let Ok(requests) = self.requests() {
            // Sending fails if the journal is closed already. Then only its end remains to be waited for.
            drop(requests.send(Request::Close).await);
        }
        // Nothing is ever sent: this returns when the sequencer drops its side.
        drop(self.ended.clone().changed().await);
        self.log.head.close();
        // Nothing writes any more, so the directory is free for the next owner, though readers may remain.
        drop(self.dir.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for EmbeddedJournal {
    fn drop(&mut self) {
        drop(self.requests.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal ended with a panic");
            }
        }
    }
}
