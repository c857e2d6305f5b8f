//! The write side: turns a group of appends into one write and one flush.
//!
//! ```text
//!   appends ─▶ stage each: admit, enter into the index, encode ─▶ write_at ─▶ sync_data ─▶ publish the head
//!                                                                  │ fails      │ fails
//!                                                    take out, cut ┘            └ take out, write the end again
//! ```
//!
//! After a failed write, its remains are cut off before the next one. After a failed flush, nothing that was written
//! since the last successful one counts as written, even if the operating system shows it. Its events are removed and
//! cut off. The end of the durable part shares a block with them, so it is written and flushed again.
//!
//! Once a group is durable and before it is acknowledged, `commit` notes how far the journal is durable. A group that
//! cannot be noted stays where it is, unseen and unacknowledged, until it can. Nothing is written after it during that
//! time.
//!
//! Before each group and after its flush the files are checked from outside: the directory must still name the chunk
//! and the `commit` that are written to, and the chunk must have its last known length. A file that somebody else
//! removed, replaced or cut takes no more events, and the error says so.
//!
//! Readers do not see staged events, because they are beyond the durable end of the chunk. [`admit`](crate::admit)
//! decides whether an append may be written. The common case, events with new ids, is recognised by entering them and
//! does not need it.

mod look;
mod mend;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use dacapo_model::{EventId, Position, Revision, StreamName, Timestamp};

use super::chunk::{self, Chunk, Header, Index};
use super::commit::{Commit, CommitFile};
use super::index::{MemoryIndex, Slot};
use super::index_file::id_hash;
use super::log::{Log, disk_error};
use super::settle::Unsettled;
use crate::admit::{Admission, Known, Past, admit};
use crate::clock::Clock;
use crate::embedded::disk::DiskFile;
use crate::error::{AppendError, StoreError};
use crate::journal::{Append, Appended, Health, StreamEvent};
use crate::record::{self, FIRST_OF_GROUP, LAST_OF_APPEND, Place};

/// The bytes that a probe writes and cuts off again.
const PROBE_BYTES: usize = 64 << 10;
/// A larger buffer is released after its group.
const BUFFER_BYTES_KEPT: usize = 16 << 20;

pub(super) struct Writer {
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    chunk_bytes: u64,
    /// The chunk that is written to, the end of its durable part, and the state that is needed to continue there.
    chunk: Arc<Chunk>,
    file: Arc<dyn DiskFile>,
    end: u64,
    state: State,
    /// The work before the first write, if any is left; after that the file that notes commits.
    settled: Settled,
    head: Position,
    recorded: Timestamp,
    /// No id in a sealed chunk is higher. This alone shows that ids that grow with time are new.
    highest_sealed_id: Option<EventId>,
    highest_id: Option<EventId>,
    /// The group that is being staged: its records, and its events in the order in which they were entered.
    group: Vec<u8>,
    staged: Vec<(Slot, EventId)>,
    /// The queue of sealed chunks that need an index file.
    sealed: SyncSender<Arc<Chunk>>,
}

/// The ability of the write side to write.
enum State {
    Good,
    /// Bytes of a failed write may be after the end. They must be removed before the next write.
    Uncut,
    /// The directory names another file than the one that is written to.
    Replaced,
    /// Somebody else changed the chunk; the error says how.
    Changed(StoreError),
    /// A flush failed, so what is on the disk is unknown until the end is written and flushed again.
    Broken(String),
    /// This many bytes of a group after the end are durable, but could not be noted, so they are not acknowledged yet.
    Unnoted(u64),
}

/// The readiness of the journal for its first write since it was opened.
enum Settled {
    Not(Box<Unsettled>),
    Yes(Arc<CommitFile>),
}

/// The place at which the write side continues.
pub(super) struct Start {
    pub chunk: Arc<Chunk>,
    pub file: Arc<dyn DiskFile>,
    pub head: Position,
    pub recorded: Timestamp,
    pub highest_sealed_id: Option<EventId>,
    pub highest_id: Option<EventId>,
    pub unsettled: Unsettled,
}

impl Writer {
    pub fn new(
        log: Arc<Log>,
        clock: Arc<dyn Clock>,
        chunk_bytes: u64,
        start: Start,
        sealed: SyncSender<Arc<Chunk>>,
    ) -> Self {
        Self {
            log,
            clock,
            chunk_bytes,
            end: start.chunk.durable(),
            chunk: start.chunk,
            file: start.file,
            state: State::Good,
            settled: Settled::Not(Box::new(start.unsettled)),
            head: start.head,
            recorded: start.recorded,
            highest_sealed_id: start.highest_sealed_id,
            highest_id: start.highest_id,
            group: Vec::new(),
            staged: Vec::new(),
            sealed,
        }
    }

    /// Notes that the journal is closed in order, if it is, and writes nothing from now on. A journal that was opened
    /// only to look at it is left unchanged.
    pub fn close(&mut self) {
        let commit = Commit { closed: true, ..self.at() };
        let Settled::Yes(kept) = &self.settled else { return };
        if matches!(self.state, State::Good)
            && let Err(error) = kept.keep(&commit)
        {
            tracing::warn!(%error, "that the journal is closed in order cannot be noted");
        }
        kept.end();
    }

    /// Returns the end of the journal once this many bytes after the present end are durable. They include the staged
    /// events.
    fn at_behind(&self, bytes: u64) -> Commit {
        let at = self.at();
        Commit { end: at.end + bytes, head: at.head.plus(self.staged.len() as u64), ..at }
    }

    /// Returns the end of the durable journal.
    fn at(&self) -> Commit {
        let digest = match &*self.chunk.index() {
            Index::Memory(index) => index.digest(),
            Index::File(_) => unreachable!("the chunk that is written to has its index in memory"),
        };
        let (id, chunk, end, head) = (self.log.id, self.chunk.first, self.end, self.head);
        Commit { id, chunk, end, head, digest, closed: false }
    }

    /// Does the work that is left before the first write since the journal was opened.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        let (at, now) = (self.at(), self.clock.now());
        if let Settled::Not(unsettled) = &mut self.settled {
            let kept = Arc::new(unsettled.settle(&self.log, &*self.file, &at, now)?);
            self.log.set_settled(Arc::clone(&kept));
            self.settled = Settled::Yes(kept);
        }
        Ok(())
    }

    /// Appends each of `appends`, in order, as one group. A successful answer means that the events are durable.
    pub fn commit(&mut self, appends: &[Append]) -> Vec<Result<Appended, AppendError>> {
        let answers = self.try_commit(appends);
        let failed = answers.iter().find_map(|answer| match answer {
            Err(AppendError::Store(error)) => Some(Health::from(error)),
            _ => None,
        });
        self.log.set_health(failed.unwrap_or_default());
        answers
    }

    /// Checks whether appends work again, if they failed, with a write that is cut off again.
    pub fn probe(&mut self) {
        let works = self.prepare().and_then(|()| {
            let path = self.log.log_path(self.chunk.first);
            let written = self.file.write_at(self.end, &[0; PROBE_BYTES]);
            self.state = State::Uncut;
            let cut = self.cut();
            written.map_err(|error| -> Failed { Box::new(move || disk_error("append to", &path, &error)) })?;
            cut
        });
        self.log.set_health(works.map_or_else(|failed| Health::from(&failed()), |()| Health::Well));
    }

    fn try_commit(&mut self, appends: &[Append]) -> Vec<Result<Appended, AppendError>> {
        if let Err(refuse) = self.prepare() {
            return appends.iter().map(|_| Err(refuse().into())).collect();
        }
        self.recorded = self.recorded.max(self.clock.now());
        let answers: Vec<_> = appends.iter().map(|append| self.stage(append)).collect();
        let written = if self.group.is_empty() { Ok(()) } else { self.write() };
        self.group.clear();
        self.group.shrink_to(BUFFER_BYTES_KEPT);
        match written {
            Ok(()) => answers,
            // This includes appends that were refused: the reason may be events that are removed again.
            Err(failed) => appends.iter().map(|_| Err(failed().into())).collect(),
        }
    }

    /// Checks that the chunk can be written to, or begins the next one.
    fn prepare(&mut self) -> Result<(), Failed> {
        self.check_damage()?;
        match &self.state {
            State::Good => {}
            State::Uncut => self.cut()?,
            State::Broken(_) => self.write_end_again()?,
            State::Unnoted(bytes) => self.note_again(*bytes)?,
            State::Replaced => {
                self.check_named()?;
                self.state = State::Broken("a file was replaced for a while".to_owned());
                self.write_end_again()?;
                tracing::warn!(journal = %self.log.dir.display(), "the files of the journal are where they belong again");
            }
            State::Changed(found) => return Err(refused(found.clone())),
        }
        self.settle().map_err(refused)?;
        self.check_files()?;
        self.check_noted()?;
        if self.end >= self.chunk_bytes {
            self.roll()?;
        }
        Ok(())
    }

    /// Seals the chunk and begins the next one. The header of the new one is durable before it is used.
    fn roll(&mut self) -> Result<(), Failed> {
        let first = self.head.next();
        let path = self.log.log_path(first);
        let index = match &*self.chunk.index() {
            Index::Memory(index) => MemoryIndex::like(index),
            Index::File(_) => unreachable!("the chunk that is written to has its index in memory"),
        };
        let header = Header { first, id: self.log.id, before: index.before() };
        let create = || -> std::io::Result<Arc<dyn DiskFile>> {
            let file = self.log.disk.create(&path)?;
            file.write_at(0, &header.encode())?;
            file.sync_data()?;
            self.log.disk.sync_dir(&self.log.dir)?;
            Ok(file)
        };
        let file = match create() {
            Ok(file) => file,
            Err(error) => return Err(Box::new(move || disk_error("begin the chunk", &path, &error))),
        };
        let next = Arc::new(Chunk::new(first, chunk::HEADER_BYTES, Index::Memory(index)));
        self.log.push(Arc::clone(&next));
        let sealed = std::mem::replace(&mut self.chunk, next);
        (self.file, self.end) = (file, chunk::HEADER_BYTES);
        self.highest_sealed_id = self.highest_id;
        // This waits until the previous index is written, which bounds the number of indexes in memory. Without the
        // indexer, the index stays in memory, which only costs memory.
        if self.sealed.send(sealed).is_err() {
            tracing::warn!("the thread that writes indexes has ended");
        }
        Ok(())
    }

    /// Admits an append, enters its events and encodes them.
    #[expect(clippy::expect_used, reason = "what is known was found before anything was entered")]
    fn stage(&mut self, append: &Append) -> Result<Appended, AppendError> {
        if crate::admit::expected(append, self).is_ok()
            && let Some(appended) = self.enter(append, &[])?
        {
            return Ok(appended);
        }
        match admit(append, self)? {
            Admission::Retry(appended) => Ok(appended),
            Admission::Write { known } => {
                Ok(self.enter(append, &known)?.expect("what is known was found before anything was entered"))
            }
        }
    }

    /// Enters and encodes the events that have no entry in `known`. Returns `None` and removes all events of this
    /// append again if an id turns out to exist.
    fn enter(&mut self, append: &Append, known: &[Option<Known>]) -> Result<Option<Appended>, StoreError> {
        let (group, staged) = (self.group.len(), self.staged.len());
        let chunk = Arc::clone(&self.chunk);
        let mut index = chunk.index_mut();
        let Index::Memory(index) = &mut *index else {
            unreachable!("the chunk that is written to has its index in memory")
        };
        let entered = self.enter_into(index, append, known);
        if !matches!(entered, Ok(Some(_))) {
            self.take_out(index, staged);
            self.group.truncate(group);
        }
        entered
    }

    #[expect(clippy::expect_used, reason = "a chunk and one group are below 4 GiB; the last event is written or known")]
    fn enter_into(
        &mut self,
        index: &mut MemoryIndex,
        append: &Append,
        known: &[Option<Known>],
    ) -> Result<Option<Appended>, StoreError> {
        let is_new = |event: usize| known.get(event).is_none_or(Option::is_none);
        let last = (0..append.events.len()).rev().find(|event| is_new(*event));
        let last_id = append.events.last().map(|last| last.event.id);
        let mut slot_of: Option<(&StreamName, Slot)> = None;
        let (mut place_of_last, mut written) = (None, 0);
        for (number, StreamEvent { stream, event }) in append.events.iter().enumerate() {
            if !is_new(number) {
                continue;
            }
            if self.sealed_place(event.id)?.is_some() {
                return Ok(None);
            }
            let slot = match slot_of {
                Some((same, slot)) if same == stream => slot,
                _ => match index.slot(stream.as_str()) {
                    Some(slot) => slot,
                    None => index.add_stream(stream.clone(), self.log.older_revision(stream, self.chunk.first)?),
                },
            };
            slot_of = Some((stream, slot));
            let at = self.end + self.group.len() as u64;
            let at = u32::try_from(at).expect("a chunk and one group are below 4 GiB");
            let Some(revision) = index.add_event(slot, event.id, at) else { return Ok(None) };
            self.staged.push((slot, event.id));
            self.highest_id = self.highest_id.max(Some(event.id));
            let mut flags = if self.group.is_empty() { FIRST_OF_GROUP } else { 0 };
            if last == Some(number) {
                flags |= LAST_OF_APPEND;
            }
            let position = self.head.plus(self.staged.len() as u64);
            let place = Place { stream: stream.as_str(), position, revision, recorded: self.recorded, flags };
            let (begin, before) = (self.group.len(), index.digest());
            if begin == 0 {
                record::encode_chained(&mut self.group, place, event, before);
            } else {
                record::encode(&mut self.group, place, event);
            }
            index.add_digest(record::link(before, &self.group[begin..]));
            written += 1;
            if last_id == Some(event.id) {
                place_of_last = Some((position, revision));
            }
        }
        let of_known = || known.last().copied().flatten().map(|last| (last.position, last.revision));
        let (position, revision) = place_of_last.or_else(of_known).expect("the last event is written or known");
        Ok(Some(Appended { position, revision, written }))
    }

    /// Removes the events that were entered after the first `staged` ones.
    fn take_out(&mut self, index: &mut MemoryIndex, staged: usize) {
        for (slot, id) in self.staged.drain(staged..).rev() {
            index.remove_last(slot, id);
        }
    }

    /// Writes the group, makes it durable, and then makes it visible.
    fn write(&mut self) -> Result<(), Failed> {
        let path = self.log.log_path(self.chunk.first);
        let tried = format!("append {} bytes at byte {} to", self.group.len(), self.end);
        if let Err(error) = self.file.write_at(self.end, &self.group) {
            self.take_out_all();
            self.state = State::Uncut;
            // If this fails, it is retried before the next write. The first error is the one to report.
            let cut = self.cut();
            tracing::warn!(file = %path.display(), %error, cut = cut.is_ok(), "events cannot be written");
            return Err(Box::new(move || disk_error(&tried, &path, &error)));
        }
        if let Err(error) = self.file.sync_data() {
            self.take_out_all();
            tracing::error!(file = %path.display(), %error, "a flush failed: its events are taken back");
            self.state = State::Broken(error.to_string());
            // This prevents that opening the journal again reads from memory what the disk never got. If it fails, it
            // is retried before the next write. The first error is the one to report.
            let again = self.write_end_again();
            tracing::warn!(file = %path.display(), again = again.is_ok(), "the end of the journal was written again");
            return Err(Box::new(move || {
                StoreError::unavailable(
                    format!("{tried} {}", path.display()),
                    format!(
                        "the flush failed ({error}), so whether these events last is unknown: look after the disk \
                         and retry with the same ids; no restart is needed"
                    ),
                )
            }));
        }
        if let Err(replaced) = self.check_named() {
            self.take_out_all();
            self.state = State::Uncut;
            let cut = self.cut().is_ok();
            self.replaced(&replaced);
            if cut {
                return Err(replaced);
            }
            let unknown = "that was found after they were written, and they cannot be cut off, so whether these events last \
                           is unknown: retry with the same ids";
            return Err(Box::new(move || StoreError::unavailable(tried.clone(), format!("{}; {unknown}", replaced()))));
        }
        let bytes = self.group.len() as u64;
        if let Settled::Yes(kept) = &self.settled
            && let Err(error) = kept.note(&self.at_behind(bytes))
        {
            self.state = State::Unnoted(bytes);
            let unknown = "so whether these events last is unknown: retry with the same ids";
            return Err(refused(StoreError::unavailable(
                format!("{tried} {}", path.display()),
                format!("{error}; {unknown}"),
            )));
        }
        self.show(bytes);
        Ok(())
    }

    /// Makes this many bytes after the end visible, which are durable and noted.
    fn show(&mut self, bytes: u64) {
        self.end += bytes;
        self.head = self.head.plus(self.staged.len() as u64);
        self.staged.clear();
        if let Index::Memory(index) = &*self.chunk.index() {
            let end = self.chunk.first.plus(index.offsets().len() as u64);
            assert_eq!(self.head.next(), end, "I-1: each position has its event in the index");
        }
        // The order matters: a reader that sees the head finds everything through it.
        self.chunk.set_durable(self.end);
        self.log.head.advance(self.head);
    }

    fn take_out_all(&mut self) {
        let chunk = Arc::clone(&self.chunk);
        if let Index::Memory(index) = &mut *chunk.index_mut() {
            self.take_out(index, 0);
        }
    }

    /// Returns the place in a sealed chunk of the event with this id.
    fn sealed_place(&self, id: EventId) -> Result<Option<(Arc<Chunk>, u32)>, StoreError> {
        if self.highest_sealed_id.is_none_or(|highest| id > highest) {
            return Ok(None);
        }
        let (chunks, hash) = (self.log.chunks(), id_hash(id));
        for chunk in chunks[..chunks.len() - 1].iter().rev() {
            if let Some(at) = self.log.find_id(chunk, id, hash)? {
                return Ok(Some((Arc::clone(chunk), at)));
            }
        }
        Ok(None)
    }
}

/// Makes the error for each append of a group that failed.
type Failed = Box<dyn Fn() -> StoreError>;

fn refused(error: StoreError) -> Failed {
    Box::new(move || error.clone())
}

impl Past for Writer {
    #[expect(clippy::expect_used, reason = "it was verified when it was read")]
    fn known(&mut self, event: &StreamEvent) -> Result<Option<Known>, StoreError> {
        let in_chunk = match &*self.chunk.index() {
            Index::Memory(index) => index.id(event.event.id),
            Index::File(_) => unreachable!("the chunk that is written to has its index in memory"),
        };
        let bytes = match in_chunk {
            // It is staged in this group and not on the disk yet.
            Some(at) if u64::from(at) >= self.end => self.group[(u64::from(at) - self.end) as usize..].to_vec(),
            Some(at) => self.log.record(&self.chunk, at)?,
            None => match self.sealed_place(event.event.id)? {
                Some((chunk, at)) => self.log.record(&chunk, at)?,
                None => return Ok(None),
            },
        };
        let (found, _) = record::verify(&bytes).expect("it was verified when it was read");
        let same = found.stream == event.stream.as_str()
            && found.event_type == event.event.event_type.as_str()
            && found.payload == event.event.payload;
        Ok(Some(Known { position: found.position, revision: found.revision, same }))
    }

    fn revision(&mut self, stream: &StreamName) -> Result<Revision, StoreError> {
        if let Index::Memory(index) = &*self.chunk.index()
            && let Some(slot) = index.slot(stream.as_str())
        {
            return Ok(index.stream(slot).last());
        }
        self.log.older_revision(stream, self.chunk.first)
    }
}
