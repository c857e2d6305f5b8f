//! Where an event's record is: by its position, its id or its stream.
//!
//! Lookups go through the chunks' filters first, then through index sections that are read when they are needed.

use std::sync::Arc;

use dacapo_model::{EventId, Position, Revision, StreamName, stream_hash};

use super::sections::streams_of;
use super::{Log, lock};
use crate::embedded::journal::chunk::{self, Chunk, Index};
use crate::embedded::journal::index_file::{self, Section};
use crate::error::StoreError;
use crate::record;

/// Most records are shorter than this, so one read is enough for one.
const RECORD_GUESS_BYTES: usize = 4096;

impl Log {
    /// Returns the start of the record of `position` in `chunk`.
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

    /// Returns the revision of `stream` in the newest chunk that has it, among the chunks that begin before `before`.
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

    /// Returns the events of `stream` in `chunk` after the revision `after`: the revision before the first of them, and
    /// the starts of their records. Returns `None` if the chunk does not have the stream.
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

    /// Returns the start of the record with this id in `chunk`. `hash` is the hash of the id.
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
            // An event that is being written is in the index before it is durable.
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
}
