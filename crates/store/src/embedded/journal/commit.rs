//! The acknowledged end of the journal, kept apart from the records, so that a torn tail can be distinguished from
//! damage.
//!
//! ```text
//! journal/commit: two slots, at 0 and 4096, that say the same; the higher number counts
//!   0  8 bytes "dacapocm"    8  u32 version
//!  12  u32 1 where the journal was closed in order, else 2 (0 where an earlier build wrote the slots in turns)
//!  16  u64 number           24  16 bytes, the identity of the journal
//!  40  u64 first position of the newest chunk   48  u64 byte of it through which everything is durable
//!  56  u64 head             64  u64 digest of the history through it
//!  72  u32 CRC-32C of all before                76  u32 zero
//! ```
//!
//! A note is one write over both slots, made once a group is durable and before it is acknowledged. So it never claims
//! more than is durable, and nothing is acknowledged without a note. A note is not flushed each time, which would
//! double the flushes. A killed process leaves it even so, and a moment later it is flushed. If the power fails within
//! that moment, the digests of the groups still prove all groups except the last: each group carries that of the
//! history before it.
//!
//! A failed write has written only its beginning, so it leaves at most one slot torn. After a failed flush, the system
//! may show slots that never reached the disk, or may have lost them. After either failure nothing is noted until both
//! slots are written again:
//!
//! ```text
//!   both as they read, flushed ─▶ the slot that is not sound, or is older, flushed ─▶ the other one, flushed
//! ```
//!
//! The first step writes the bytes that are read, so it tears nothing; after it the disk has them. Each of the other
//! steps changes one slot while the other one is sound and durable. So at every point at least one slot is sound and
//! has everything that was acknowledged. The other slot is not needed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dacapo_model::{JournalId, Position};

use super::log::disk_error;
use crate::embedded::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::record::{u32_at, u64_at};

const NAME: &str = "commit";
const MAGIC: &[u8; 8] = b"dacapocm";
const VERSION: u32 = 1;
const OPEN_IN_TURNS: u32 = 0;
const CLOSED: u32 = 1;
const OPEN: u32 = 2;
const SLOT_BYTES: usize = 80;
const CHECKSUM_AT: usize = 72;
/// The slots are far enough apart that no sector holds both.
const SLOT_AT: [u64; 2] = [0, 4096];
const FILE_BYTES: usize = SLOT_AT[1] as usize + SLOT_BYTES;

/// The end of the acknowledged journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub id: JournalId,
    /// The first position of the chunk that was written to.
    pub chunk: Position,
    /// The byte of it through which everything is durable.
    pub end: u64,
    pub head: Position,
    /// The digest of the history through the head.
    pub digest: u64,
    /// True if the journal was closed in order, so that nothing follows the end.
    pub closed: bool,
}

impl Commit {
    fn encode(&self, number: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(if self.closed { CLOSED } else { OPEN }.to_le_bytes());
        out.extend(number.to_le_bytes());
        out.extend(self.id.bytes());
        for value in [self.chunk.get(), self.end, self.head.get(), self.digest] {
            out.extend(value.to_le_bytes());
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.resize(SLOT_BYTES, 0);
        out
    }
}

/// The contents of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    number: u64,
    commit: Commit,
    /// True if the other slot was not written with it, so that the other one may have had a later commit.
    in_turns: bool,
}

impl Slot {
    fn decode(slot: &[u8]) -> Option<Self> {
        let state = u32_at(slot, 12)?;
        let checked = slot.get(..8) == Some(MAGIC)
            && u32_at(slot, 8) == Some(VERSION)
            && [OPEN_IN_TURNS, CLOSED, OPEN].contains(&state)
            && u32_at(slot, CHECKSUM_AT) == Some(crc32c::crc32c(slot.get(..CHECKSUM_AT)?));
        let commit = Commit {
            id: JournalId::from_bytes(*slot.get(24..)?.first_chunk()?),
            chunk: Position::new(u64_at(slot, 40)?),
            end: u64_at(slot, 48)?,
            head: Position::new(u64_at(slot, 56)?),
            digest: u64_at(slot, 64)?,
            closed: state == CLOSED,
        };
        checked.then_some(Self { number: u64_at(slot, 16)?, commit, in_turns: state == OPEN_IN_TURNS })
    }

    /// Returns the two slots in the bytes of a file, if they are sound.
    fn both(file: &[u8]) -> [Option<Self>; 2] {
        SLOT_AT.map(|at| file.get(at as usize..).and_then(|slot| Self::decode(slot.get(..SLOT_BYTES)?)))
    }
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The file that keeps the commit.
pub(super) struct CommitFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// The number of the note that was written last. No two notes have the same number, even if one failed.
    number: AtomicU64,
    /// Shared by notes and flushes; exclusive for writing both slots again.
    slots: RwLock<()>,
    /// Never held during a wait for the disk, since a caller that asks for the health must not wait for the disk
    /// either.
    noted: Mutex<Noted>,
}

/// The results of notes.
#[derive(Default)]
struct Noted {
    last: Option<Commit>,
    /// True if a note is not flushed yet.
    dirty: bool,
    /// The reason why nothing can be noted and earlier notes may not last, until both slots are written again.
    broken: Option<StoreError>,
    /// True if nothing may be written any more, since the file may have another owner.
    ended: bool,
}

/// The contents of a commit file.
pub(super) struct Kept {
    pub file: CommitFile,
    /// `None` if neither slot is sound.
    pub commit: Option<Commit>,
    /// True if a slot is not sound that may have had a later commit than the other one.
    is_partial: bool,
}

impl Kept {
    /// Returns true if it shows how far the journal was acknowledged.
    pub fn proves(&self) -> bool {
        self.commit.is_some_and(|commit| commit.closed || !self.is_partial)
    }
}

impl CommitFile {
    /// Returns the file in `dir`, if it exists, and its contents.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Kept>, StoreError> {
        let path = path(dir);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| disk_error("read", &path, &error))?,
        };
        let file = Self::of(file, path);
        let slots = Slot::both(&file.bytes().map_err(|error| disk_error("read", &file.path, &error))?);
        let newest = slots.iter().flatten().max_by_key(|slot| slot.number);
        file.number.store(newest.map_or(0, |newest| newest.number), Ordering::Relaxed);
        let is_partial = slots.contains(&None) && newest.is_some_and(|newest| newest.in_turns);
        Ok(Some(Kept { commit: newest.map(|newest| newest.commit), is_partial, file }))
    }

    /// Returns an empty file in `dir`, whose name is not durable yet.
    pub fn create(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let path = path(dir);
        Ok(Self::of(disk.create(&path)?, path))
    }

    fn of(file: Arc<dyn DiskFile>, path: PathBuf) -> Self {
        Self { file, path, number: AtomicU64::new(0), slots: RwLock::default(), noted: Mutex::default() }
    }

    /// Returns the open file, and its path.
    pub fn named(&self) -> (&Path, &dyn DiskFile) {
        (&self.path, &*self.file)
    }

    /// Notes how far the journal is durable, before anything is acknowledged. The note itself becomes durable a moment
    /// later.
    ///
    /// # Errors
    /// The error of writing both slots again, if that was necessary. Nothing is noted then.
    pub fn note(&self, commit: &Commit) -> Result<(), StoreError> {
        if self.write_both(commit) { Ok(()) } else { self.keep(commit) }
    }

    /// Writes both slots again, durably.
    ///
    /// # Errors
    /// The error of the write. One of the slots is sound even so.
    pub fn keep(&self, commit: &Commit) -> Result<(), StoreError> {
        let _alone = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        self.keep_alone(commit)
    }

    /// Makes the notes since the last flush durable. After a failure it writes the slots again. A note waits for a
    /// flush only after a failed one.
    pub fn flush(&self) {
        if self.broken().is_some() {
            return self.mend();
        }
        if std::mem::take(&mut self.noted().dirty) {
            let _shared = self.slots.read().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = self.file.sync_data() {
                self.failed(&error);
            }
        }
    }

    /// Writes nothing from now on, since the file may have another owner.
    pub fn end(&self) {
        let _alone = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        self.noted().ended = true;
    }

    /// Returns the reason why nothing can be noted and earlier notes may not last, if there is such a reason.
    pub fn broken(&self) -> Option<StoreError> {
        self.noted().broken.clone()
    }

    fn mend(&self) {
        let _alone = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let last = {
            let noted = self.noted();
            noted.last.filter(|_| noted.broken.is_some() && !noted.ended)
        };
        if let Some(last) = last {
            // A failure is kept, and the write is retried.
            self.keep_alone(&last).ok();
        }
    }

    fn keep_alone(&self, commit: &Commit) -> Result<(), StoreError> {
        self.write_anew(commit).map_err(|error| self.failed(&error))?;
        let mut noted = self.noted();
        (noted.last, noted.dirty) = (Some(*commit), false);
        if noted.broken.take().is_some() {
            tracing::warn!(file = %self.path.display(), "the durable end of the journal can be noted again");
        }
        Ok(())
    }

    /// Writes both slots at once. Returns false if they must be written again.
    fn write_both(&self, commit: &Commit) -> bool {
        let _shared = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        if self.broken().is_some() {
            return false;
        }
        let (slot, mut file) = (commit.encode(self.next_number()), vec![0; FILE_BYTES]);
        for at in SLOT_AT.map(|at| at as usize) {
            file[at..at + SLOT_BYTES].copy_from_slice(&slot);
        }
        if let Err(error) = self.file.write_at(0, &file) {
            self.failed(&error);
            return false;
        }
        // The lock is still shared, so a writer that rewrites the slots includes this note.
        let mut noted = self.noted();
        (noted.last, noted.dirty) = (Some(*commit), true);
        true
    }

    fn write_anew(&self, commit: &Commit) -> io::Result<()> {
        let there = self.bytes()?;
        if !there.is_empty() {
            self.file.write_at(0, &there)?;
            self.file.sync_data()?;
        }
        let [first, second] = Slot::both(&there).map(|slot| slot.map(|slot| slot.number));
        let in_order = if first <= second { SLOT_AT } else { [SLOT_AT[1], SLOT_AT[0]] };
        let slot = commit.encode(self.next_number());
        for at in in_order {
            self.file.write_at(at, &slot)?;
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.read_at(0, FILE_BYTES, &mut bytes)?;
        Ok(bytes)
    }

    fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Prevents notes until both slots are written again.
    fn failed(&self, error: &io::Error) -> StoreError {
        let error = disk_error("note the durable end of the journal in", &self.path, error);
        if self.noted().broken.replace(error.clone()).is_none() {
            tracing::error!(%error, "the journal acknowledges nothing until that works again");
        }
        error
    }

    /// Returns the guard. Nobody panics while holding it.
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
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
        let read = Slot { number: 5, commit, in_turns: false };
        assert_eq!((slot.len(), Slot::decode(&slot)), (SLOT_BYTES, Some(read)));
        for bit in 0..(CHECKSUM_AT + 4) * 8 {
            let mut slot = slot.clone();
            slot[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Slot::decode(&slot), None, "bit {bit}");
        }
    }
}
