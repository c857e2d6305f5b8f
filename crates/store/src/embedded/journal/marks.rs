//! Marks of the history: the digest through any position, from memory or from the nearest record that carries one.

use std::sync::Arc;

use dacapo_model::{Mark, Position};

use super::chunk::{Chunk, Index};
use super::index_file::{Section, Summary, find_offset};
use super::log::Log;
use crate::error::StoreError;
use crate::record;

/// The number of records that the first step back to a record with a digest reads. Each further step reads more.
const STEP_BACK_RECORDS: usize = 64;

impl Log {
    /// Returns the mark at `through`, if that needs no disk.
    pub fn recent_mark(&self, through: Position) -> Result<Option<Mark>, StoreError> {
        let head = self.head();
        if through == Position::START {
            return Ok(Some(Mark::START));
        }
        StoreError::check_head(through, head)?;
        let chunk = self.chunk_of(through);
        let digest = match &*chunk.index() {
            Index::Memory(index) => index.digests()[through.since(chunk.first) as usize],
            Index::File(summary) if through.since(chunk.first) + 1 == summary.events => summary.digest,
            Index::File(_) => return Ok(None),
        };
        Ok(Some(Mark { position: through, digest }))
    }

    /// Returns the mark at `through`, which must be in the journal.
    pub fn sealed_mark(&self, through: Position) -> Result<Mark, StoreError> {
        let chunk = self.chunk_of(through);
        let summary = match &*chunk.index() {
            Index::Memory(index) => {
                let digest = index.digests()[through.since(chunk.first) as usize];
                return Ok(Mark { position: through, digest });
            }
            Index::File(summary) => Arc::clone(summary),
        };
        Ok(Mark { position: through, digest: self.digest_in(&chunk, &summary, through)? })
    }

    fn chunk_of(&self, position: Position) -> Arc<Chunk> {
        let chunks = self.chunks();
        Arc::clone(&chunks[chunks.partition_point(|chunk| chunk.first <= position) - 1])
    }

    /// Goes back to the first record of the group, and from there forward through the record of `through`.
    fn digest_in(&self, chunk: &Chunk, summary: &Summary, through: Position) -> Result<u64, StoreError> {
        let offsets = self.section(chunk, summary, Section::Offsets)?;
        let last = through.since(chunk.first) as usize;
        let at = |ordinal| find_offset(&offsets, ordinal).map_or(summary.chunk_bytes, u64::from);
        let (end, mut step) = (at(last + 1), STEP_BACK_RECORDS);
        loop {
            let first = last.saturating_sub(step);
            let (begin, mut bytes) = (at(first), Vec::new());
            self.read_bytes(chunk.first, begin, (end - begin) as usize, &mut bytes)?;
            let (mut rest, mut digest) = (&bytes[..], None);
            for ordinal in first..=last {
                let corrupt = |found: &str| self.corrupt(chunk.first, at(ordinal), found);
                let (event, len) = record::verify(rest).map_err(corrupt)?;
                if event.position != chunk.first.plus(ordinal as u64) {
                    return Err(corrupt("the record has another position than its place says"));
                }
                let before = record::history_before(rest).or(digest);
                digest = before.map(|before| record::link(before, rest));
                rest = &rest[len..];
            }
            match digest {
                Some(digest) => return Ok(digest),
                None if first == 0 => {
                    return Err(self.corrupt(chunk.first, begin, "the first record carries no digest of the history"));
                }
                None => step = step.saturating_mul(8),
            }
        }
    }
}
