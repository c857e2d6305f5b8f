//! What was acknowledged, kept apart from the records, so that a torn tail is told from damage.
//!
//! ```text
//! journal/commit: two slots, at 0 and 4096, written in turns; the higher number counts
//!   0  8 bytes "dacapocm"    8  u32 version     12  u32 1 where the journal was closed in order, else 0
//!  16  u64 number           24  16 bytes, the identity of the journal
//!  40  u64 first position of the newest chunk   48  u64 byte of it through which everything is durable
//!  56  u64 head             64  u64 digest of the history through it
//!  72  u32 CRC-32C of all before                76  u32 zero
//! ```
//!
//! A slot is written once a group is durable and before anybody is told, so it never tells of more than there is. It is
//! not flushed each time, which would double the flushes: a process that is killed leaves it behind all the same, and a
//! moment later it is flushed. When the power goes within that moment, the digest that each group carries of the one
//! before still tells of all groups but the last.
//!
//! While a slot cannot be written or flushed, nothing is acknowledged: what was is known apart from the records, always.
//! After a failed flush the system may show slots that the disk never got, so both are written again and flushed.
//!
//! Slots are written in turns, so one that is not sound may have told of a later group than the other. What is left then
//! proves only that a journal that was closed in order ends there, since both slots say that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dacapo_model::{JournalId, Position};

use super::log::disk_error;
use crate::embedded::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::record::{u32_at, u64_at};

const NAME: &str = "commit";
const MAGIC: &[u8; 8] = b"dacapocm";
const VERSION: u32 = 1;
const CLOSED: u32 = 1;
const SLOT_BYTES: usize = 80;
const CHECKSUM_AT: usize = 72;
/// Far enough apart that no sector holds both.
const SLOT_AT: [u64; 2] = [0, 4096];

/// How far the journal was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub id: JournalId,
    /// The first position of the chunk that was written to.
    pub chunk: Position,
    /// Through which byte of it everything was durable.
    pub end: u64,
    pub head: Position,
    /// The digest of the history through the head.
    pub digest: u64,
    /// Whether the journal was closed in order, so that nothing is behind the end.
    pub closed: bool,
}

impl Commit {
    fn encode(&self, number: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(if self.closed { CLOSED } else { 0 }.to_le_bytes());
        out.extend(number.to_le_bytes());
        out.extend(self.id.bytes());
        for value in [self.chunk.get(), self.end, self.head.get(), self.digest] {
            out.extend(value.to_le_bytes());
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.resize(SLOT_BYTES, 0);
        out
    }

    /// The commit in a slot and its number.
    fn decode(slot: &[u8]) -> Option<(u64, Self)> {
        let checked = slot.get(..8) == Some(MAGIC)
            && u32_at(slot, 8) == Some(VERSION)
            && u32_at(slot, CHECKSUM_AT) == Some(crc32c::crc32c(slot.get(..CHECKSUM_AT)?));
        let commit = Self {
            id: JournalId::from_bytes(*slot.get(24..)?.first_chunk()?),
            chunk: Position::new(u64_at(slot, 40)?),
            end: u64_at(slot, 48)?,
            head: Position::new(u64_at(slot, 56)?),
            digest: u64_at(slot, 64)?,
            closed: u32_at(slot, 12)? == CLOSED,
        };
        checked.then_some((u64_at(slot, 16)?, commit))
    }
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The file that keeps the commit. Clones are the same file.
#[derive(Clone)]
pub(super) struct CommitFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    notes: Arc<Mutex<Notes>>,
}

/// What was noted, and how that went.
#[derive(Default)]
struct Notes {
    /// Of the slot that is written next.
    number: u64,
    /// What was written last.
    last: Option<Commit>,
    /// What was noted and is not flushed.
    dirty: Option<Commit>,
    /// Why what was noted may not last: a flush failed, and none has succeeded since.
    broken: Option<String>,
}

/// What a commit file holds.
pub(super) struct Kept {
    pub file: CommitFile,
    /// `None` when neither slot is sound.
    pub commit: Option<Commit>,
    /// Whether a slot is not sound, so that a later commit than the other one may have been in it.
    pub is_partial: bool,
}

impl Kept {
    /// Whether it tells how far the journal was acknowledged.
    pub fn proves(&self) -> bool {
        self.commit.is_some_and(|commit| commit.closed || !self.is_partial)
    }
}

impl CommitFile {
    /// The file in `dir`, if there is one, and what it holds.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Kept>, StoreError> {
        let path = path(dir);
        let failed = |error: io::Error| disk_error("read", &path, &error);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let (mut newest, mut readable): (Option<(u64, Commit)>, usize) = (None, 0);
        for at in SLOT_AT {
            let mut slot = Vec::new();
            file.read_at(at, SLOT_BYTES, &mut slot).map_err(failed)?;
            let Some(found) = Commit::decode(&slot) else { continue };
            readable += 1;
            if newest.is_none_or(|(number, _)| number < found.0) {
                newest = Some(found);
            }
        }
        let number = newest.map_or(0, |(number, _)| number + 1);
        let commit = newest.map(|(_, commit)| commit);
        let is_partial = readable < SLOT_AT.len();
        Ok(Some(Kept { file: Self::of(file, path, number), commit, is_partial }))
    }

    /// An empty file in `dir`, whose name is not durable yet.
    pub fn create(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let path = path(dir);
        Ok(Self::of(disk.create(&path)?, path, 0))
    }

    fn of(file: Arc<dyn DiskFile>, path: PathBuf, number: u64) -> Self {
        Self { file, path, notes: Arc::new(Mutex::new(Notes { number, ..Notes::default() })) }
    }

    /// The open file, and where it is.
    pub fn named(&self) -> (&Path, &dyn DiskFile) {
        (&self.path, &*self.file)
    }

    /// Notes how far the journal is durable, before that is told. Another thread flushes it a moment later.
    ///
    /// # Errors
    /// When it cannot be noted, or nothing that is noted lasts: then [`keep`](Self::keep) must succeed first.
    pub fn note(&self, commit: &Commit) -> Result<(), StoreError> {
        let mut notes = self.notes();
        let noted = match &notes.broken {
            None => self.write(&mut notes, commit),
            Some(found) => Err(io::Error::other(found.clone())),
        };
        noted.map_err(|error| self.failed(&error))?;
        notes.dirty = Some(*commit);
        Ok(())
    }

    /// The same in both slots, durably.
    pub fn keep(&self, commit: &Commit) -> Result<(), StoreError> {
        let mut notes = self.notes();
        self.keep_both(&mut notes, commit).map_err(|error| self.failed(&error))
    }

    /// Why what was noted may not last, if there is such a reason.
    pub fn broken(&self) -> Option<StoreError> {
        let found = self.notes().broken.clone()?;
        Some(self.failed(&io::Error::other(found)))
    }

    /// Makes durable what was noted since the last time, if anything. No note waits for it, unless it failed before.
    pub fn flush(&self) {
        let mut notes = self.notes();
        // Once it is closed it may be another owner's.
        let Some(commit) = notes.dirty.filter(|commit| !commit.closed) else { return };
        if notes.broken.is_some() {
            if self.keep_both(&mut notes, &commit).is_ok() {
                tracing::warn!(file = %self.path.display(), "how far the journal is durable can be flushed again");
            }
            return;
        }
        drop(notes);
        let flushed = self.file.sync_data();
        let mut notes = self.notes();
        match flushed {
            Ok(()) => drop(notes.dirty.take_if(|noted| *noted == commit)),
            Err(error) => {
                tracing::error!(
                    file = %self.path.display(), %error,
                    "how far the journal is durable cannot be flushed: it takes no more events until that is written again"
                );
                (notes.dirty, notes.broken) = (notes.last, Some(error.to_string()));
            }
        }
    }

    fn keep_both(&self, notes: &mut Notes, commit: &Commit) -> io::Result<()> {
        self.write(notes, commit)?;
        self.write(notes, commit)?;
        if let Err(error) = self.file.sync_data() {
            (notes.dirty, notes.broken) = (Some(*commit), Some(error.to_string()));
            return Err(error);
        }
        (notes.dirty, notes.broken) = (None, None);
        Ok(())
    }

    fn write(&self, notes: &mut Notes, commit: &Commit) -> io::Result<()> {
        self.file.write_at(SLOT_AT[notes.number as usize % 2], &commit.encode(notes.number))?;
        notes.number += 1;
        notes.last = Some(*commit);
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        disk_error("note how far the journal is durable in", &self.path, error)
    }

    /// Whoever panicked meanwhile has written a slot or has not.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_reads_back_and_no_changed_bit_passes() {
        let commit = Commit {
            id: JournalId::from_bytes([7; 16]),
            chunk: Position::new(11),
            end: 4096,
            head: Position::new(19),
            digest: 0x0123_4567_89ab_cdef,
            closed: true,
        };
        let slot = commit.encode(5);
        assert_eq!((slot.len(), Commit::decode(&slot)), (SLOT_BYTES, Some((5, commit))));
        for bit in 0..(CHECKSUM_AT + 4) * 8 {
            let mut slot = slot.clone();
            slot[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Commit::decode(&slot), None, "bit {bit}");
        }
    }
}
