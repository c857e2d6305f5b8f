//! The journal of the memory store: every event is kept as its record, under one lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dacapo_model::{EventId, JournalId, Mark, Position, Revision, StreamName, Timestamp, category_of};
use tokio::sync::watch;

use crate::admit::{Admission, Known, Past, admit};
use crate::clock::Clock;
use crate::error::{AppendError, StoreError};
use crate::head::Head;
use crate::journal::{Append, Appended, Filter, Journal, Limit, StreamEvent, StreamInfo};
use crate::record::{self, EventBatch, EventRef, FIRST_OF_GROUP, LAST_OF_APPEND, Place};

/// The number of the next journal of this process. Its number is its identity, since no such journal outlives the
/// process.
static MADE: AtomicU64 = AtomicU64::new(1);

/// A journal in memory.
pub struct MemoryJournal {
    id: JournalId,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    head: Head,
}

#[derive(Default)]
struct State {
    /// The record of position n is at n - 1.
    records: Vec<Vec<u8>>,
    /// The digest of the history through position n is at n - 1.
    digests: Vec<u64>,
    streams: BTreeMap<StreamName, Vec<Position>>,
    ids: HashMap<EventId, Position>,
    recorded: Option<Timestamp>,
    closed: bool,
}

impl MemoryJournal {
    /// Returns an empty journal. `clock` gives the times at which events are appended.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let id = JournalId::from_bytes(u128::from(number).to_be_bytes());
        Self { id, clock, state: Mutex::default(), head: Head::new(Position::START) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // An append changes the state only after everything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&self, position: Position) -> &[u8] {
        &self.records[position.get() as usize - 1]
    }

    #[expect(clippy::expect_used, reason = "it was just encoded")]
    fn event(&self, position: Position) -> EventRef<'_> {
        record::verify(self.record(position)).expect("it was just encoded").0
    }

    fn head(&self) -> Position {
        Position::new(self.records.len() as u64)
    }

    #[expect(clippy::expect_used, reason = "an append has events")]
    fn write(&mut self, append: &Append, known: &[Option<Known>], recorded: Timestamp) -> Appended {
        let is_new = |event: usize| known.get(event).is_none_or(Option::is_none);
        let last = (0..append.events.len()).rev().find(|event| is_new(*event));
        let mut written = 0;
        for (number, StreamEvent { stream, event }) in append.events.iter().enumerate() {
            if !is_new(number) {
                continue;
            }
            let position = self.head().next();
            let positions = self.streams.entry(stream.clone()).or_default();
            positions.push(position);
            let revision = Revision::new(positions.len() as u64);
            let flags =
                if written == 0 { FIRST_OF_GROUP } else { 0 } | if last == Some(number) { LAST_OF_APPEND } else { 0 };
            let mut bytes = Vec::new();
            let place = Place { stream: stream.as_str(), position, revision, recorded, flags };
            record::encode(&mut bytes, place, event);
            let before = self.digests.last().copied().unwrap_or_default();
            self.digests.push(xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, before));
            self.records.push(bytes);
            self.ids.insert(event.id, position);
            written += 1;
        }
        let id = append.events.last().expect("an append has events").event.id;
        let last = self.event(self.ids[&id]);
        Appended { position: last.position, revision: last.revision, written }
    }
}

impl Past for State {
    fn known(&mut self, event: &StreamEvent) -> Result<Option<Known>, StoreError> {
        let Some(position) = self.ids.get(&event.event.id) else { return Ok(None) };
        let found = self.event(*position);
        let same = found.stream == event.stream.as_str()
            && found.event_type == event.event.event_type.as_str()
            && found.payload == event.event.payload;
        Ok(Some(Known { position: *position, revision: found.revision, same }))
    }

    fn revision(&mut self, stream: &StreamName) -> Result<Revision, StoreError> {
        Ok(Revision::new(self.streams.get(stream).map_or(0, |positions| positions.len() as u64)))
    }
}

/// Combines records into a batch within a limit.
struct Batch {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

impl Batch {
    #[expect(clippy::expect_used, reason = "a batch is below 4 GiB")]
    fn push(&mut self, record: &[u8]) {
        self.offsets.push(u32::try_from(self.bytes.len()).expect("a batch is below 4 GiB"));
        self.bytes.extend_from_slice(record);
    }

    fn finish(self, through: Position) -> EventBatch {
        EventBatch::new(self.bytes.into(), self.offsets, through)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    fn id(&self) -> JournalId {
        self.id
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        let state = self.state();
        let Some(at) = through.get().checked_sub(1) else { return Ok(Mark::START) };
        StoreError::check_head(through, state.head())?;
        Ok(Mark { position: through, digest: state.digests[at as usize] })
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.check()?;
        let mut state = self.state();
        if state.closed {
            return Err(StoreError::unavailable("append", "the journal is closed: open it again").into());
        }
        match admit(&append, &mut *state)? {
            Admission::Retry(appended) => Ok(appended),
            Admission::Write { known } => {
                let now = self.clock.now();
                let recorded = state.recorded.map_or(now, |last| last.max(now));
                state.recorded = Some(recorded);
                let appended = state.write(&append, &known, recorded);
                self.head.advance(state.head());
                Ok(appended)
            }
        }
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let state = self.state();
        StoreError::check_head(after, state.head())?;
        let mut batch = Batch { bytes: Vec::new(), offsets: Vec::new() };
        let (mut through, mut looked) = (after, 0);
        while through < state.head() && batch.offsets.len() < limit.events.max(1) {
            let record = state.record(through.next());
            if looked > 0 && looked + record.len() > limit.bytes {
                break;
            }
            looked += record.len();
            through = through.next();
            if filter.wants(&state.event(through)) {
                batch.push(record);
            }
        }
        Ok(batch.finish(through))
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        let state = self.state();
        let positions = state.streams.get(stream).map_or(&[][..], Vec::as_slice);
        StoreError::check_stream(stream, after, Revision::new(positions.len() as u64))?;
        let mut batch = Batch { bytes: Vec::new(), offsets: Vec::new() };
        let mut through = state.head();
        for position in positions.iter().skip(after.get() as usize).take(limit.events.max(1)) {
            let record = state.record(*position);
            if !batch.offsets.is_empty() && batch.bytes.len() + record.len() > limit.bytes {
                break;
            }
            batch.push(record);
            through = *position;
        }
        Ok(batch.finish(through))
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        self.state().revision(stream)
    }

    async fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        Ok(self.state().ids.get(&id).copied())
    }

    #[expect(clippy::expect_used, reason = "a stream has events")]
    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        let from = after.map_or(Unbounded, |after| Excluded(after.clone()));
        let wanted = |name: &StreamName| category.is_none_or(|category| category_of(name.as_str()) == category);
        let info = |(name, positions): (&StreamName, &Vec<Position>)| StreamInfo {
            name: name.clone(),
            revision: Revision::new(positions.len() as u64),
            last: *positions.last().expect("a stream has events"),
        };
        Ok(state.streams.range((from, Unbounded)).filter(|(name, _)| wanted(name)).take(most).map(info).collect())
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    async fn close(&self) {
        self.state().closed = true;
        self.head.close();
    }
}
