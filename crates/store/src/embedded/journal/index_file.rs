//! The index file of a sealed chunk. It is derived data: if anything is wrong with it, it is made again from its chunk.
//!
//! ```text
//!   header    0  8 bytes  "dacapoix"
//!             8  u32 version        12  u32 events       16  u64 first position
//!            24  u64 bytes of the chunk
//!            32  lowest id, 16 bytes                     48  highest id, 16 bytes
//!            64  u64 digest of the history before the chunk   72  u64 of the history through its end
//!            80  4 × (u32 length, u32 CRC-32C): the sections below
//!           112  u32 CRC-32C of all before              116  u32 zero
//!   filters   of streams, of ids (see filter.rs)
//!   streams   u64 count; for each, sorted by name: u32 end of its name, u32 end of its postings,
//!             u64 revision before this chunk, u64 position of its last event; then the names; then the
//!             postings: u32 for each event, where its record begins
//!   ids       for each event, sorted by id: id, 16 bytes; u32 where its record begins
//!   offsets   for each event in order: u32 where its record begins
//! ```
//!
//! All numbers are little-endian. Only the header and the filters stay in memory. The other sections are read when they
//! are needed, and each has its own checksum.

use dacapo_model::{EventId, Position, Revision};

use super::filter::Filter;
use super::index::MemoryIndex;
use crate::record::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"dacapoix";
const VERSION: u32 = 2;
pub(super) const HEADER_BYTES: usize = 120;
const SECTIONS_AT: usize = 80;
const CHECKSUM_AT: usize = 112;
const ENTRY_BYTES: usize = 24;
const ID_BYTES: usize = 20;

/// The sections that are read when they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Section {
    Streams,
    Ids,
    Offsets,
}

/// The part of an index file that stays in memory.
#[derive(Debug)]
pub(super) struct Summary {
    pub events: u64,
    pub first: Position,
    pub chunk_bytes: u64,
    /// The digest of the history before the chunk, and through its end.
    pub before: u64,
    pub digest: u64,
    lowest_id: EventId,
    highest_id: EventId,
    sections: [(u32, u32); 4],
    streams: Filter,
    ids: Filter,
}

pub(super) fn id_hash(id: EventId) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&id.bytes())
}

/// Returns the index file of the chunk that begins with `first`, has `chunk_bytes` bytes and this index.
pub(super) fn encode(index: &MemoryIndex, first: Position, chunk_bytes: u64) -> Vec<u8> {
    let mut ids: Vec<_> = index.ids().collect();
    ids.sort_unstable();
    let sections = [filters(index), streams(index, first), ids_section(&ids), offsets(index)];
    let edge = |id: Option<&(EventId, u32)>| id.map_or([0; 16], |(id, _)| id.bytes());
    let mut out = Vec::with_capacity(HEADER_BYTES + sections.iter().map(Vec::len).sum::<usize>());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(u32_of(index.offsets().len()));
    out.extend(first.get().to_le_bytes());
    out.extend(chunk_bytes.to_le_bytes());
    out.extend(edge(ids.first()));
    out.extend(edge(ids.last()));
    out.extend(index.before().to_le_bytes());
    out.extend(index.digest().to_le_bytes());
    for section in &sections {
        out.extend(u32_of(section.len()));
        out.extend(crc32c::crc32c(section).to_le_bytes());
    }
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out.extend([0; 4]);
    sections.iter().for_each(|section| out.extend_from_slice(section));
    out
}

fn filters(index: &MemoryIndex) -> Vec<u8> {
    let mut streams = Filter::for_keys(index.streams().len());
    let mut ids = Filter::for_keys(index.offsets().len());
    index.streams().iter().for_each(|stream| streams.insert(dacapo_model::stream_hash(stream.name.as_str())));
    index.ids().for_each(|(id, _)| ids.insert(id_hash(id)));
    let mut out = Vec::new();
    streams.encode(&mut out);
    ids.encode(&mut out);
    out
}

#[expect(
    clippy::expect_used,
    reason = "streams without postings were left out; every posting is an offset of a record"
)]
fn streams(index: &MemoryIndex, first: Position) -> Vec<u8> {
    // A stream without postings was entered for an append that was not written.
    let mut streams: Vec<_> = index.streams().iter().filter(|stream| !stream.postings.is_empty()).collect();
    streams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut out = Vec::new();
    out.extend((streams.len() as u64).to_le_bytes());
    let (mut names, mut postings) = (0, 0);
    for stream in &streams {
        names += stream.name.as_str().len();
        postings += stream.postings.len();
        let last = *stream.postings.last().expect("streams without postings were left out");
        let last = index.position_of(first, last).expect("every posting is an offset of a record");
        out.extend(u32_of(names));
        out.extend(u32_of(postings));
        out.extend(stream.before.get().to_le_bytes());
        out.extend(last.get().to_le_bytes());
    }
    streams.iter().for_each(|stream| out.extend_from_slice(stream.name.as_str().as_bytes()));
    out.extend(streams.iter().flat_map(|stream| &stream.postings).flat_map(|at| at.to_le_bytes()));
    out
}

fn ids_section(ids: &[(EventId, u32)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ids.len() * ID_BYTES);
    for (id, at) in ids {
        out.extend(id.bytes());
        out.extend(at.to_le_bytes());
    }
    out
}

fn offsets(index: &MemoryIndex) -> Vec<u8> {
    index.offsets().iter().flat_map(|at| at.to_le_bytes()).collect()
}

#[expect(clippy::expect_used, reason = "a chunk and its index are below 4 GiB")]
fn u32_of(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("a chunk and its index are below 4 GiB").to_le_bytes()
}

impl Summary {
    /// Returns the number of bytes at the beginning of a file that form its summary, if its header is sound.
    pub fn bytes(header: &[u8]) -> Result<usize, &'static str> {
        let header = header.get(..HEADER_BYTES).ok_or("its header is cut off")?;
        if &header[..8] != MAGIC {
            return Err("it is no index");
        }
        if u32_at(header, CHECKSUM_AT) != Some(crc32c::crc32c(&header[..CHECKSUM_AT])) {
            return Err("the checksum of its header does not match");
        }
        if u32_at(header, 8) != Some(VERSION) {
            return Err("it has another version");
        }
        Ok(HEADER_BYTES + u32_at(header, SECTIONS_AT).ok_or("its header is cut off")? as usize)
    }

    /// Decodes the summary from the first bytes of a file.
    #[expect(clippy::expect_used, reason = "in the header")]
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let cut_off = "it is cut off";
        let end = Self::bytes(bytes)?;
        let mut filters = bytes.get(HEADER_BYTES..end).ok_or(cut_off)?;
        let section = |index: usize| {
            let at = SECTIONS_AT + index * 8;
            Some((u32_at(bytes, at)?, u32_at(bytes, at + 4)?))
        };
        let sections = [section(0), section(1), section(2), section(3)].map(|section| section.expect("in the header"));
        if crc32c::crc32c(filters) != sections[0].1 {
            return Err("the checksum of its filters does not match");
        }
        let id = |at: usize| EventId::from_bytes(*bytes[at..].first_chunk().expect("in the header"));
        Ok(Self {
            events: u32_at(bytes, 12).ok_or(cut_off)?.into(),
            first: Position::new(u64_at(bytes, 16).ok_or(cut_off)?),
            chunk_bytes: u64_at(bytes, 24).ok_or(cut_off)?,
            before: u64_at(bytes, 64).ok_or(cut_off)?,
            digest: u64_at(bytes, 72).ok_or(cut_off)?,
            lowest_id: id(32),
            highest_id: id(48),
            sections,
            streams: Filter::decode(&mut filters).ok_or(cut_off)?,
            ids: Filter::decode(&mut filters).ok_or(cut_off)?,
        })
    }

    /// Returns the place of a section in the file, and its checksum.
    pub fn section(&self, section: Section) -> (u64, usize, u32) {
        let index = 1 + section as usize;
        let before: u64 = self.sections[..index].iter().map(|(len, _)| u64::from(*len)).sum();
        let (len, crc) = self.sections[index];
        (HEADER_BYTES as u64 + before, len as usize, crc)
    }

    /// Returns the number of bytes that the whole file has.
    pub fn file_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.sections.iter().map(|(len, _)| u64::from(*len)).sum::<u64>()
    }

    pub fn highest_id(&self) -> EventId {
        self.highest_id
    }

    pub fn may_have_stream(&self, hash: u64) -> bool {
        self.streams.may_have(hash)
    }

    /// Returns false if the id is not in the chunk. The bounds are checked first: they exclude most ids that grow with
    /// time, such as UUIDs of version 7.
    pub fn may_have_id(&self, id: EventId, hash: u64) -> bool {
        (self.lowest_id..=self.highest_id).contains(&id) && self.ids.may_have(hash)
    }
}

/// One stream in a section of streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredStream<'a> {
    pub name: &'a str,
    pub before: Revision,
    /// The position of its last event in this chunk.
    pub last: Position,
    postings: &'a [[u8; 4]],
}

impl StoredStream<'_> {
    pub fn revision(&self) -> Revision {
        self.before.plus(self.postings.len() as u64)
    }

    pub fn postings(&self) -> impl ExactSizeIterator<Item = u32> {
        self.postings.iter().map(|at| u32::from_le_bytes(*at))
    }
}

/// A section of streams whose checksum was verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredStreams<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
    names: &'a [u8],
    postings: &'a [[u8; 4]],
}

impl<'a> StoredStreams<'a> {
    /// Returns the section; `None` if it contradicts itself.
    pub fn new(section: &'a [u8]) -> Option<Self> {
        let count = usize::try_from(u64_at(section, 0)?).ok()?;
        let (entries, rest) = section[8..].split_at_checked(count.checked_mul(ENTRY_BYTES)?)?;
        let entries = entries.as_chunks().0;
        let names_len = entries.last().map_or(Some(0), |entry: &[u8; ENTRY_BYTES]| u32_at(entry, 0))?;
        let (names, postings) = rest.split_at_checked(names_len as usize)?;
        Some(Self { entries, names, postings: postings.as_chunks().0 })
    }

    pub fn get(&self, index: usize) -> Option<StoredStream<'a>> {
        let entry = self.entries.get(index)?;
        let postings_from = index.checked_sub(1).map_or(Some(0), |previous| u32_at(&self.entries[previous], 4))?;
        Some(StoredStream {
            name: std::str::from_utf8(self.name(index)?).ok()?,
            before: Revision::new(u64_at(entry, 8)?),
            last: Position::new(u64_at(entry, 16)?),
            postings: self.postings.get(postings_from as usize..u32_at(entry, 4)? as usize)?,
        })
    }

    /// Returns the name of a stream as bytes, which sort as the names do.
    fn name(&self, index: usize) -> Option<&'a [u8]> {
        let from = index.checked_sub(1).map_or(Some(0), |previous| u32_at(self.entries.get(previous)?, 0))?;
        self.names.get(from as usize..u32_at(self.entries.get(index)?, 0)? as usize)
    }

    /// Returns the index of the first stream whose name is not below `name`.
    pub fn lower_bound(&self, name: &str) -> usize {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle) {
                Some(found) if found < name.as_bytes() => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    pub fn find(&self, name: &str) -> Option<StoredStream<'a>> {
        self.get(self.lower_bound(name)).filter(|stream| stream.name == name)
    }

    pub fn from(self, index: usize) -> impl Iterator<Item = StoredStream<'a>> {
        (index..self.entries.len()).map_while(move |index| self.get(index))
    }
}

/// Returns the start of the record of the event with this id, from a verified section of ids.
pub(super) fn find_id(section: &[u8], id: EventId) -> Option<u32> {
    let entries = section.as_chunks::<ID_BYTES>().0;
    let at = entries.partition_point(|entry| entry[..16] < id.bytes()[..]);
    entries.get(at).filter(|entry| entry[..16] == id.bytes()).and_then(|entry| u32_at(entry, 16))
}

/// Returns the start of the record of the event number `ordinal` of the chunk, from a verified section of offsets.
pub(super) fn find_offset(section: &[u8], ordinal: usize) -> Option<u32> {
    u32_at(section, ordinal * 4)
}
