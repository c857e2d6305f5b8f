//! Reading: the journal in order by blocks, one stream by many small reads at once.
//!
//! Every record is verified before it is returned: its checksum, and that it belongs to its place.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dacapo_model::{Position, Revision, StreamName, stream_hash};

use super::chunk::Chunk;
use super::log::Log;
use crate::embedded::disk::DiskFile;
use crate::error::StoreError;
use crate::journal::{Filter, Limit};
use crate::record::{self, EventBatch};

/// The bytes of one read of records in order.
const BLOCK_BYTES: usize = 1 << 20;
/// Most records, with their surroundings, are shorter than this.
const RECORD_GUESS_BYTES: usize = 512;
/// Reads of fewer bytes take no block from the pool.
const POOLED_BYTES_MIN: usize = BLOCK_BYTES / 2;
const POOLED_BLOCKS_MAX: usize = 8;
/// Scattered records with at most this distance are read at once.
const GAP_BYTES_MAX: u64 = 4096;
const PAGE_BYTES: u64 = 4096;

/// Unused blocks whose memory is reused for later reads.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// A block that returns to its pool when it is dropped.
struct Pooled {
    bytes: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut blocks = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() < POOLED_BLOCKS_MAX {
            blocks.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Pool {
    fn take(&self, len: usize) -> Vec<u8> {
        if !(POOLED_BYTES_MIN..=BLOCK_BYTES).contains(&len) {
            return Vec::with_capacity(len);
        }
        let block = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        block.map_or_else(
            || Vec::with_capacity(BLOCK_BYTES),
            |mut block| {
                block.clear();
                block
            },
        )
    }

    fn share(&self, bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() == BLOCK_BYTES {
            Bytes::from_owner(Pooled { bytes, pool: self.clone() })
        } else {
            bytes.into()
        }
    }
}

/// Reads events.
#[derive(Clone)]
pub(super) struct Reader {
    log: Arc<Log>,
    pool: Pool,
}

/// The starts of records of one stream, chunk by chunk.
type Places = Vec<(Arc<Chunk>, Vec<u32>)>;

/// The result of one block.
struct Block {
    bytes: Vec<u8>,
    /// The starts in `bytes` of the wanted records, and the number of bytes of these records.
    wanted: Vec<u32>,
    wanted_bytes: usize,
    /// The number of bytes that were searched, and the position that follows them.
    looked: usize,
    next: Position,
}

impl Reader {
    pub fn new(log: Arc<Log>) -> Self {
        Self { log, pool: Pool::default() }
    }

    /// Returns the events after `after`, from at most one block that has wanted events.
    pub fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let head = self.log.head();
        StoreError::check_head(after, head)?;
        let chunks = self.log.chunks();
        let (mut next, mut looked) = (after, 0);
        while next < head && (looked < limit.bytes || looked == 0) {
            let from = next.next();
            let chunk = &chunks[chunks.partition_point(|chunk| chunk.first <= from) - 1];
            let rest = Limit { events: limit.events.max(1), bytes: limit.bytes.saturating_sub(looked) };
            let Some(block) = self.block(chunk, from, head, filter, rest, looked == 0)? else { break };
            looked += block.looked;
            next = Position::new(block.next.get() - 1);
            if !block.wanted.is_empty() {
                return Ok(self.batch(block, next));
            }
        }
        Ok(EventBatch::empty(next))
    }

    /// Reads one block of `chunk` from the record of `from`. Returns `None` if the first record does not fit the limit
    /// and is not `forced`.
    fn block(
        &self,
        chunk: &Chunk,
        from: Position,
        head: Position,
        filter: &Filter,
        limit: Limit,
        forced: bool,
    ) -> Result<Option<Block>, StoreError> {
        let start = self.log.locate(chunk, from)?;
        let left = (chunk.durable() - start) as usize;
        let likely = limit.events.saturating_mul(RECORD_GUESS_BYTES).max(PAGE_BYTES as usize);
        let len = BLOCK_BYTES.min(limit.bytes.max(PAGE_BYTES as usize)).min(likely).min(left);
        let mut bytes = self.pool.take(len);
        self.fill(chunk, start, len, &mut bytes)?;
        if let Some(first) = record::record_len(&bytes)
            && first > bytes.len()
            && first <= left
        {
            bytes = Vec::with_capacity(first);
            self.fill(chunk, start, first, &mut bytes)?;
        }
        let guess = bytes.len() / record::HEADER_BYTES / 4;
        let wanted = Vec::with_capacity(limit.events.min(guess) + 1);
        let mut block = Block { bytes, wanted, wanted_bytes: 0, looked: 0, next: from };
        let cut_off = block.bytes.len() < left;
        while block.looked < block.bytes.len() && block.next <= head && block.wanted.len() < limit.events {
            let rest = &block.bytes[block.looked..];
            let at = start + block.looked as u64;
            match record::record_len(rest) {
                // If this is a record, it continues after this block.
                Some(len) if len > rest.len() && cut_off && block.looked > 0 => break,
                None if rest.len() < record::HEADER_BYTES && cut_off && block.looked > 0 => break,
                Some(len) if block.looked + len > limit.bytes && !(forced && block.looked == 0) => break,
                _ => {}
            }
            let (event, len) = record::verify(rest).map_err(|found| self.log.corrupt(chunk.first, at, found))?;
            if event.position != block.next {
                let found =
                    format!("the record says position {}, position {} must be here", event.position, block.next);
                return Err(self.log.corrupt(chunk.first, at, &found));
            }
            if filter.wants(&event) {
                block.wanted.push(block.looked as u32);
                block.wanted_bytes += len;
            }
            block.looked += len;
            block.next = block.next.next();
        }
        if block.looked == 0 {
            return Ok(None);
        }
        if start + (block.looked as u64) < chunk.durable() {
            self.log.remember_place(block.next, start + block.looked as u64);
        }
        Ok(Some(block))
    }

    fn fill(&self, chunk: &Chunk, at: u64, len: usize, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let before = out.len();
        self.log.read_bytes(chunk.first, at, len, out)?;
        if out.len() - before < len {
            let end = at + (out.len() - before) as u64;
            return Err(self.log.corrupt(chunk.first, end, "the file ends here, but events were durable after it"));
        }
        Ok(())
    }

    /// Returns the wanted events as a batch. If they are few, their bytes are copied so that the block can be reused.
    #[expect(clippy::expect_used, reason = "it was verified")]
    fn batch(&self, mut block: Block, through: Position) -> EventBatch {
        block.bytes.truncate(block.looked);
        if block.wanted_bytes >= block.bytes.len() / 4 {
            return EventBatch::new(self.pool.share(block.bytes), block.wanted, through);
        }
        let mut bytes = Vec::with_capacity(block.wanted_bytes);
        let mut offsets = Vec::with_capacity(block.wanted.len());
        for at in &block.wanted {
            let record = &block.bytes[*at as usize..];
            offsets.push(bytes.len() as u32);
            bytes.extend_from_slice(&record[..record::record_len(record).expect("it was verified")]);
        }
        drop(self.pool.share(block.bytes));
        EventBatch::new(bytes.into(), offsets, through)
    }

    /// Returns the events of one stream after `after`.
    pub fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        let head = self.log.head();
        let places = self.places(stream, after, limit)?;
        if places.is_empty() && after > Revision::START {
            StoreError::check_stream(stream, after, self.log.revision(stream)?)?;
        }
        let mut out =
            Scattered { stream, revision: after, head, limit, bytes: Vec::new(), offsets: Vec::new(), through: head };
        let ranges: Vec<_> = places.iter().flat_map(|(chunk, places)| ranges(chunk, places)).collect();
        let (mut scratch, mut announced, mut record_bytes) = (Vec::new(), false, RECORD_GUESS_BYTES);
        let mut open: Option<(Position, Arc<dyn DiskFile>)> = None;
        for (number, range) in ranges.iter().enumerate() {
            let file = match &open {
                Some((first, file)) if *first == range.chunk.first => file,
                _ => &open.insert((range.chunk.first, self.log.file(range.chunk.first)?)).1,
            };
            scratch.clear();
            let len = range.likely(record_bytes);
            let read = !announced && file.read_now(range.at, len, &mut scratch).unwrap_or(false);
            if !read {
                if !announced {
                    self.announce(&ranges[number..], limit.bytes)?;
                    announced = true;
                }
                self.fill(range.chunk, range.at, len, &mut scratch)?;
            }
            for place in range.places {
                let Some(len) = self.take(&mut out, range, *place, &mut scratch)? else { return Ok(out.finish()) };
                record_bytes = record_bytes.max(len);
            }
        }
        Ok(out.finish())
    }

    /// Announces all reads to the disk, so that they run at once and not one after the other. It announces no more than
    /// the limit allows.
    fn announce(&self, ranges: &[Range<'_>], bytes_max: usize) -> Result<(), StoreError> {
        let mut bytes = 0;
        for range in ranges {
            bytes += range.len;
            if bytes > bytes_max.saturating_mul(2) {
                break;
            }
            self.log.file(range.chunk.first)?.will_need(range.at, range.len);
        }
        Ok(())
    }

    /// Returns the starts of the records of the stream after `after`, chunk by chunk, as many as the limit allows.
    fn places(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<Places, StoreError> {
        let hash = stream_hash(stream.as_str());
        let mut found = Vec::new();
        for chunk in self.log.chunks().iter().rev() {
            if let Some((before, places)) = self.log.postings(chunk, stream, hash, after)? {
                if !places.is_empty() {
                    found.push((Arc::clone(chunk), places));
                }
                if before <= after {
                    break;
                }
            }
        }
        found.reverse();
        let mut room = limit.events.max(1);
        for (_, places) in &mut found {
            places.truncate(room);
            room -= places.len();
        }
        found.retain(|(_, places)| !places.is_empty());
        Ok(found)
    }

    /// Verifies the record at `place`, adds it to the batch and returns its length. Returns `None` if the batch is full
    /// or the head is reached.
    #[expect(clippy::expect_used, reason = "a batch is below 4 GiB")]
    fn take(
        &self,
        out: &mut Scattered<'_>,
        range: &Range<'_>,
        place: u32,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<usize>, StoreError> {
        let within = (u64::from(place) - range.at) as usize;
        let len = record::record_len(&scratch[within..]).unwrap_or(record::HEADER_BYTES);
        let missing = (within + len).saturating_sub(scratch.len());
        let behind = range.at + scratch.len() as u64;
        if missing as u64 <= range.chunk.durable().saturating_sub(behind) {
            self.fill(range.chunk, behind, missing, scratch)?;
        }
        let corrupt = |found: &str| self.log.corrupt(range.chunk.first, place.into(), found);
        let (event, len) = record::verify(&scratch[within..]).map_err(corrupt)?;
        if event.stream != out.stream.as_str() || event.revision != out.revision.next() {
            return Err(corrupt(&format!(
                "the record is {} revision {}, {} revision {} must be here",
                event.stream,
                event.revision,
                out.stream,
                out.revision.next()
            )));
        }
        let full = !out.offsets.is_empty() && out.bytes.len() + len > out.limit.bytes;
        if full || event.position > out.head {
            return Ok(None);
        }
        (out.revision, out.through) = (event.revision, event.position);
        out.offsets.push(u32::try_from(out.bytes.len()).expect("a batch is below 4 GiB"));
        out.bytes.extend_from_slice(&scratch[within..within + len]);
        Ok(Some(len))
    }
}

/// A batch of scattered events that is being built.
struct Scattered<'a> {
    stream: &'a StreamName,
    /// The revision of the last event in it.
    revision: Revision,
    head: Position,
    limit: Limit,
    bytes: Vec<u8>,
    offsets: Vec<u32>,
    through: Position,
}

impl Scattered<'_> {
    fn finish(self) -> EventBatch {
        EventBatch::new(self.bytes.into(), self.offsets, self.through)
    }
}

/// Bytes of a chunk that are read at once, and the records in them.
struct Range<'a> {
    chunk: &'a Chunk,
    at: u64,
    /// The length through the end of the last record's page, since a disk reads whole pages.
    len: usize,
    places: &'a [u32],
}

impl Range<'_> {
    /// Returns the number of bytes that probably contains the last record whole, if no record is longer than this.
    fn likely(&self, record_bytes: usize) -> usize {
        let last = self.places.last().map_or(0, |last| (u64::from(*last) - self.at) as usize);
        self.len.min(last + record_bytes)
    }
}

/// Combines neighbours into ranges. The length of a record is known only once it is read. So each record is assumed to
/// end with its page, and to have at least the usual length.
fn ranges<'a>(chunk: &'a Chunk, places: &'a [u32]) -> impl Iterator<Item = Range<'a>> {
    let near = |a: &u32, b: &u32| u64::from(b - a) <= GAP_BYTES_MAX;
    places.chunk_by(near).map(|places| {
        let (at, last) = (u64::from(places[0]), u64::from(places[places.len() - 1]));
        let end = (last + RECORD_GUESS_BYTES as u64).next_multiple_of(PAGE_BYTES).min(chunk.durable());
        Range { chunk, at, len: (end - at) as usize, places }
    })
}
