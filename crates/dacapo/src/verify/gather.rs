//! The events of some streams, gathered from the journal to be folded.

use std::collections::BTreeSet;
use std::sync::Arc;

use dacapo_model::{InvalidName, Position, Revision, StreamName};
use dacapo_store::{EventBatch, EventRef, Filter, Journal, Limit, StoreError};

use super::fold::{Pace, Pacing, asked};
use crate::limits;
use crate::world::Offload;

/// The events of some streams, each stream from its first event on.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(super) batches: Vec<EventBatch>,
    /// The events in the order of the journal: their positions, their batches, and their places in them.
    pub(super) places: Vec<(Position, usize, usize)>,
    bytes: usize,
    /// The number of these streams.
    pub(crate) streams: u64,
}

/// The source of the streams, and how much of them is gathered.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) offload: Offload,
    pub(crate) filter: Filter,
    /// The last position of the events.
    pub(crate) through: Position,
    pub(crate) events_max: usize,
    pub(crate) pace: Pace,
}

/// Gathers all events of streams that have events at positions spread evenly over the journal. The number of streams is
/// limited by the existing ones, by the space for events, and by [`limits::FOLD_STREAMS_MAX`].
///
/// # Errors
/// [`StoreError`] if the journal cannot be read.
#[expect(clippy::expect_used, reason = "it is before the last position")]
pub(crate) async fn gather(wanted: Wanted) -> Result<Gathered, StoreError> {
    asked(wanted.offload, async move {
        let Wanted { journal, filter, through, events_max, pace, .. } = wanted;
        let (mut gathered, mut seen) = (Gathered::default(), BTreeSet::new());
        let (room, mut pacing) = (Room { events: events_max, bytes: limits::FOLD_BYTES_MAX }, Pacing::new(pace));
        for number in 0..limits::FOLD_STREAMS_MAX {
            if pacing.is_over() {
                break;
            }
            pacing.rest().await;
            let at = u128::from(through.get()) * u128::from(number) / u128::from(limits::FOLD_STREAMS_MAX);
            let at = Position::new(u64::try_from(at).expect("it is before the last position"));
            let found = journal.read(at, &filter, Limit::events(1)).await?;
            let Some(event) = found.iter().next().filter(|event| event.position <= through) else { continue };
            let stream = stream_of(&event)?;
            if seen.insert(stream.clone()) {
                gathered.add(&*journal, &stream, through, room).await?;
            }
        }
        gathered.places.sort_unstable();
        Ok(gathered)
    })
    .await
}

/// Gathers all events of the streams that begin after `after`, one stream after the other, as many as there is space
/// for. Also returns the position after which the next ones begin; at the end of the journal that is its start.
///
/// # Errors
/// [`StoreError`] if the journal cannot be read.
pub(crate) async fn gather_from(wanted: Wanted, after: Position) -> Result<(Gathered, Position), StoreError> {
    asked(wanted.offload, async move {
        let Wanted { journal, filter, through, events_max, pace, .. } = wanted;
        // A stream may begin with an event that the version does not read.
        let filter = Filter { types: None, ..filter };
        let (mut gathered, mut at, mut read) = (Gathered::default(), after, 0);
        let (room, mut pacing) = (Room { events: events_max, bytes: limits::FOLD_BYTES_MAX }, Pacing::new(pace));
        'read: while at < through && read < events_max {
            let batch = journal.read(at, &filter, Limit::events(limits::GATHER_READ_EVENTS)).await?;
            for event in batch.iter().filter(|event| event.position <= through) {
                if pacing.is_over() || gathered.streams >= limits::FOLD_STREAMS_MAX {
                    break 'read;
                }
                pacing.rest().await;
                let begins = event.revision == Revision::START.next();
                let fits = !begins || gathered.add(&*journal, &stream_of(&event)?, through, room).await?;
                // A stream for which there would never be space is skipped.
                if !fits && gathered.streams > 0 {
                    break 'read;
                }
                (at, read) = (event.position, read + 1);
            }
            if batch.through >= through {
                at = Position::START;
                break;
            }
            at = at.max(batch.through);
        }
        gathered.places.sort_unstable();
        Ok((gathered, if at >= through { Position::START } else { at }))
    })
    .await
}

fn stream_of(event: &EventRef<'_>) -> Result<StreamName, StoreError> {
    StreamName::new(event.stream).map_err(|error: InvalidName| StoreError::corrupt("a stream", error.to_string()))
}

/// The space for a stream.
#[derive(Clone, Copy)]
struct Room {
    events: usize,
    bytes: usize,
}

impl Gathered {
    /// Adds the events of a stream if there is space for all of them. Returns true if there is.
    async fn add(
        &mut self,
        journal: &dyn Journal,
        stream: &StreamName,
        through: Position,
        room: Room,
    ) -> Result<bool, StoreError> {
        let end = journal.stream_revision(stream).await?;
        if end.get() > room.events.saturating_sub(self.places.len()) as u64 {
            return Ok(false);
        }
        let (mut after, mut bytes, mut batches, mut places) = (Revision::START, self.bytes, Vec::new(), Vec::new());
        while after < end {
            let batch = journal.read_stream(stream, after, Limit::events(limits::READ_EVENTS_MAX)).await?;
            let Some(last) = batch.iter().next_back() else { break };
            let (revision, is_past) = (last.revision, last.position > through);
            let at = self.batches.len() + batches.len();
            let within = batch.iter().enumerate().filter(|(_, event)| event.position <= through);
            places.extend(within.map(|(index, event)| (event.position, at, index)));
            bytes += batch.iter().map(|event| event.payload.len() + event.stream.len()).sum::<usize>();
            if bytes > room.bytes {
                return Ok(false);
            }
            batches.push(batch);
            if is_past {
                break;
            }
            after = revision;
        }
        self.batches.append(&mut batches);
        self.places.append(&mut places);
        (self.bytes, self.streams) = (bytes, self.streams + 1);
        Ok(true)
    }
}
