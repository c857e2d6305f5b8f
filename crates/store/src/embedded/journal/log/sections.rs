//! The sections of index files, in a cache that is bounded in bytes. A damaged index is made again from its chunk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dacapo_model::Position;
use lru::LruCache;

use super::{Log, corrupt_at, disk_error, lock};
use crate::embedded::disk::Disk;
use crate::embedded::journal::chunk::{self, Chunk, Header};
use crate::embedded::journal::index::MemoryIndex;
use crate::embedded::journal::index_file::{self, Section, StoredStreams, Summary};
use crate::error::StoreError;

/// Index sections in memory. The least recently used one is removed first.
pub(super) struct Sections {
    cache: LruCache<(Position, Section), Arc<Vec<u8>>>,
    bytes: usize,
    bytes_max: usize,
}

impl Sections {
    /// An empty cache of at most `bytes_max`, or of one section if that alone is larger.
    pub fn new(bytes_max: usize) -> Self {
        Self { cache: LruCache::unbounded(), bytes: 0, bytes_max }
    }
}

impl Log {
    /// Returns a section of the index file of `chunk`, verified.
    #[expect(clippy::expect_used, reason = "it has more than one")]
    pub fn section(&self, chunk: &Chunk, summary: &Summary, section: Section) -> Result<Arc<Vec<u8>>, StoreError> {
        let key = (chunk.first, section);
        if let Some(hit) = lock(&self.sections).cache.get(&key) {
            return Ok(Arc::clone(hit));
        }
        let (from, len, _) = summary.section(section);
        let bytes = match self.load_section(chunk.first, summary, section) {
            Ok(bytes) => bytes,
            Err(found) => {
                let path = self.dir.join(chunk::index_name(chunk.first));
                tracing::warn!(file = %path.display(), found, "an index is damaged: it is made again from its chunk");
                let (_, file) = rebuild(&*self.disk, &self.dir, chunk.first, chunk.durable())?;
                if self.settled.get().is_some()
                    && let Err(error) = write_index(&*self.disk, &self.dir, chunk.first, &file)
                {
                    tracing::warn!(%error, "an index cannot be written: it will be made again when it is needed");
                }
                let bytes = file.get(from as usize..from as usize + len);
                bytes.ok_or_else(|| self.corrupt(chunk.first, 0, "it is another chunk than its index says"))?.to_vec()
            }
        };
        let bytes = Arc::new(bytes);
        let mut sections = lock(&self.sections);
        sections.bytes += bytes.len();
        if let Some(twice) = sections.cache.put(key, Arc::clone(&bytes)) {
            sections.bytes -= twice.len();
        }
        while sections.bytes > sections.bytes_max && sections.cache.len() > 1 {
            let (_, least) = sections.cache.pop_lru().expect("it has more than one");
            sections.bytes -= least.len();
        }
        Ok(bytes)
    }

    fn load_section(&self, first: Position, summary: &Summary, section: Section) -> Result<Vec<u8>, String> {
        let (from, len, crc) = summary.section(section);
        let path = self.dir.join(chunk::index_name(first));
        let file = self.disk.open(&path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.will_need(from, len);
        file.read_at(from, len, &mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() != len || crc32c::crc32c(&bytes) != crc {
            return Err("the checksum of a section does not match".into());
        }
        if section == Section::Streams && StoredStreams::new(&bytes).is_none() {
            return Err("its table of streams contradicts itself".into());
        }
        Ok(bytes)
    }
}

/// Returns the table in a section of streams that [`Log::section`] returned.
#[expect(clippy::expect_used, reason = "it was checked when it was read")]
pub fn streams_of(section: &[u8]) -> StoredStreams<'_> {
    StoredStreams::new(section).expect("it was checked when it was read")
}

/// Makes the index of a sealed chunk again from its records.
#[expect(clippy::expect_used, reason = "it was just encoded")]
pub fn rebuild(disk: &dyn Disk, dir: &Path, first: Position, end: u64) -> Result<(Summary, Vec<u8>), StoreError> {
    let path = dir.join(chunk::log_name(first));
    let failed = |error: io::Error| disk_error("read", &path, &error);
    let file = disk.open(&path).map_err(failed)?;
    let mut header = Vec::new();
    file.read_at(0, chunk::HEADER_BYTES as usize, &mut header).map_err(failed)?;
    let header = Header::decode(&header, first).map_err(|found| corrupt_at(&path, 0, &found))?;
    let mut index = MemoryIndex::behind(header.before);
    let scan =
        chunk::scan(&*file, &header, end, |event, at, digest| index.add_read(event, at, digest)).map_err(failed)?;
    if let Some(problem) = scan.problem {
        return Err(corrupt_at(&path, scan.end, problem));
    }
    if scan.whole_end != end {
        return Err(corrupt_at(&path, scan.whole_end, "the append that begins here is not whole"));
    }
    let bytes = index_file::encode(&index, first, end);
    let summary = Summary::decode(&bytes).expect("it was just encoded");
    Ok((summary, bytes))
}

/// Writes an index file in one step: the whole file exists, or nothing of it.
pub fn write_index(disk: &dyn Disk, dir: &Path, first: Position, bytes: &[u8]) -> Result<(), StoreError> {
    let path = dir.join(chunk::index_name(first));
    let new = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let file = disk.create(&new)?;
        file.write_at(0, bytes)?;
        file.sync_data()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)
    };
    write().map_err(|error| disk_error("write", &path, &error))
}
