//! The index of a chunk in memory: of the chunk that is written to, and of a sealed chunk whose index file does not
//! exist yet.
//!
//! The sequencer enters events before they are durable, and removes them if they cannot be written. So a reader names
//! the byte of the chunk through which the journal is durable, and gets nothing beyond it.

use dacapo_model::{EventId, Position, Revision, StreamName};
use hashbrown::HashMap;

use crate::record::EventRef;

/// The index of one chunk.
#[derive(Debug, Default)]
pub(super) struct MemoryIndex {
    /// The digest of the history before the chunk.
    before: u64,
    /// The digest of the history through each record, in the order of positions.
    digests: Vec<u64>,
    /// The start of each record, in the order of positions.
    offsets: Vec<u32>,
    slots: HashMap<StreamName, u32>,
    streams: Vec<StreamEntry>,
    ids: HashMap<EventId, u32>,
}

/// One stream in a chunk.
#[derive(Debug)]
pub(super) struct StreamEntry {
    pub name: StreamName,
    /// Its last revision before this chunk.
    pub before: Revision,
    /// The starts of its records, in order.
    pub postings: Vec<u32>,
}

impl StreamEntry {
    /// Returns its last revision, including events that are not durable yet.
    pub fn last(&self) -> Revision {
        self.before.plus(self.postings.len() as u64)
    }

    /// Returns how many of its events are before the byte `end`.
    pub fn durable(&self, end: u64) -> usize {
        match self.postings.last() {
            Some(last) if u64::from(*last) >= end => self.postings.partition_point(|at| u64::from(*at) < end),
            _ => self.postings.len(),
        }
    }
}

/// The place of a stream in the index of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl MemoryIndex {
    /// Returns an empty index with room for as many events and streams as the previous chunk had.
    pub fn like(previous: &Self) -> Self {
        Self {
            before: previous.digest(),
            digests: Vec::with_capacity(previous.digests.len()),
            offsets: Vec::with_capacity(previous.offsets.len()),
            slots: HashMap::with_capacity(previous.slots.len()),
            streams: Vec::with_capacity(previous.streams.len()),
            ids: HashMap::with_capacity(previous.ids.len()),
        }
    }

    /// Returns an empty index of a chunk. `before` is the digest of the history before it.
    pub fn behind(before: u64) -> Self {
        Self { before, ..Self::default() }
    }

    /// Returns the digest of the history before the chunk.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// Returns the digest of the history through the last record.
    pub fn digest(&self) -> u64 {
        self.digests.last().copied().unwrap_or(self.before)
    }

    /// Returns the digest of the history through each record, in the order of positions.
    pub fn digests(&self) -> &[u64] {
        &self.digests
    }

    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Returns the start of the last record that begins at byte `at` or before; 0, the place of the header, if there is
    /// none.
    pub fn record_at_or_before(&self, at: u64) -> u64 {
        let before = self.offsets.partition_point(|offset| u64::from(*offset) <= at);
        before.checked_sub(1).map_or(0, |last| self.offsets[last].into())
    }

    pub fn streams(&self) -> &[StreamEntry] {
        &self.streams
    }

    pub fn ids(&self) -> impl ExactSizeIterator<Item = (EventId, u32)> {
        self.ids.iter().map(|(id, at)| (*id, *at))
    }

    pub fn slot(&self, stream: &str) -> Option<Slot> {
        self.slots.get(stream).copied().map(Slot)
    }

    pub fn stream(&self, slot: Slot) -> &StreamEntry {
        &self.streams[slot.0 as usize]
    }

    pub fn id(&self, id: EventId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// Enters a new stream whose last revision is `before`.
    #[expect(clippy::expect_used, reason = "a chunk has fewer streams than bytes")]
    pub fn add_stream(&mut self, name: StreamName, before: Revision) -> Slot {
        let slot = u32::try_from(self.streams.len()).expect("a chunk has fewer streams than bytes");
        self.slots.insert(name.clone(), slot);
        self.streams.push(StreamEntry { name, before, postings: Vec::new() });
        Slot(slot)
    }

    /// Enters the next event, whose record begins at `at`, and returns its revision. Returns `None` and enters nothing
    /// if its id is there already. Its digest is entered once its record is made.
    pub fn add_event(&mut self, slot: Slot, id: EventId, at: u32) -> Option<Revision> {
        match self.ids.entry(id) {
            hashbrown::hash_map::Entry::Occupied(_) => return None,
            hashbrown::hash_map::Entry::Vacant(entry) => entry.insert(at),
        };
        self.offsets.push(at);
        let stream = &mut self.streams[slot.0 as usize];
        stream.postings.push(at);
        Some(stream.last())
    }

    /// Enters the digest of the history through the event that was entered last.
    pub fn add_digest(&mut self, digest: u64) {
        self.digests.push(digest);
        assert_eq!(self.digests.len(), self.offsets.len(), "each event has a digest");
    }

    /// Removes the event that was entered last.
    pub fn remove_last(&mut self, slot: Slot, id: EventId) {
        self.digests.truncate(self.offsets.len() - 1);
        let at = self.offsets.pop();
        let posting = self.streams[slot.0 as usize].postings.pop();
        let of_id = self.ids.remove(&id);
        assert!(at.is_some() && at == posting && at == of_id, "events are taken out in reverse order");
    }

    /// Enters an event that was read from the chunk, with the digest through it. Returns false if it contradicts the
    /// index: its revision does not follow, or its id is there already.
    pub fn add_read(&mut self, event: &EventRef<'_>, at: u32, digest: u64) -> bool {
        let slot = self.slot(event.stream).or_else(|| {
            let before = Revision::new(event.revision.get().checked_sub(1)?);
            Some(self.add_stream(StreamName::new(event.stream).ok()?, before))
        });
        let Some(slot) = slot else { return false };
        let follows = self.stream(slot).last().next() == event.revision;
        let entered = follows && self.add_event(slot, event.id, at).is_some();
        if entered {
            self.add_digest(digest);
        }
        entered
    }

    /// Returns the position of the record that begins at `at`, in the chunk that begins with `first`.
    pub fn position_of(&self, first: Position, at: u32) -> Option<Position> {
        self.offsets.binary_search(&at).ok().map(|ordinal| first.plus(ordinal as u64))
    }
}
