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
//! Slots are written in turns, so one that is not sound may have told of a later group than the other. What is left then
//! proves only that a journal that was closed in order ends there, since both slots say that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// The file that keeps the commit.
pub(super) struct CommitFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Of the slot that is written next.
    number: u64,
    dirty: Arc<AtomicBool>,
}

/// What is needed to flush the file later, from another thread.
#[derive(Clone)]
pub(super) struct Flush {
    file: Arc<dyn DiskFile>,
    dirty: Arc<AtomicBool>,
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
        Ok(Some(Kept { file: Self { file, path, number, dirty: Arc::default() }, commit, is_partial }))
    }

    /// An empty file in `dir`, whose name is not durable yet.
    pub fn create(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let path = path(dir);
        Ok(Self { file: disk.create(&path)?, path, number: 0, dirty: Arc::default() })
    }

    /// The open file, and where it is.
    pub fn named(&self) -> (&Path, &dyn DiskFile) {
        (&self.path, &*self.file)
    }

    pub fn flush(&self) -> Flush {
        Flush { file: Arc::clone(&self.file), dirty: Arc::clone(&self.dirty) }
    }

    /// Notes how far the journal is durable. What cannot be noted is no reason to refuse the events, which are durable.
    pub fn note(&mut self, commit: &Commit) {
        match self.write(commit) {
            Ok(()) => self.dirty.store(true, Ordering::Release),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "how far the journal is durable cannot be noted");
            }
        }
    }

    /// The same in both slots, durably.
    pub fn keep(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let keep = |file: &mut Self| {
            file.write(commit)?;
            file.write(commit)?;
            file.file.sync_data()
        };
        keep(self).map_err(|error| disk_error("write", &self.path, &error))?;
        self.dirty.store(false, Ordering::Release);
        Ok(())
    }

    fn write(&mut self, commit: &Commit) -> io::Result<()> {
        self.file.write_at(SLOT_AT[self.number as usize % 2], &commit.encode(self.number))?;
        self.number += 1;
        Ok(())
    }
}

impl Flush {
    /// Makes durable what was noted since the last time, if anything.
    pub fn run(&self) {
        if self.dirty.swap(false, Ordering::AcqRel)
            && let Err(error) = self.file.sync_data()
        {
            tracing::warn!(%error, "how far the journal is durable cannot be flushed");
        }
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
