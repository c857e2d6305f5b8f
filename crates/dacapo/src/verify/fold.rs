//! Past events folded from the start by the code of a version, into rows in memory: what its view should have of them.
//!
//! It reads the journal and nothing else, and it is bounded. Whoever asks gets the rows and compares them with what they
//! want. Once nobody waits for it any more, it ends with the batch that is under way.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dacapo_model::assign::Rows;
use dacapo_model::{
    InvalidName, Letter, Position, Revision, Segment, SegmentCount, StreamName, Token, TokenMove, ViewId, limits,
};
use dacapo_store::memory::MemoryViews;
use dacapo_store::{Commit, EventBatch, Filter, Journal, Limit, StoreError, View as StoredView, ViewReader, Views};
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::code::{Aside, Busy, Carried, Failure, FailureCause, Work};
use crate::feed::Ahead;
use crate::view::{NotCommitted, View, ViewError};
use crate::world::Offload;

/// What is to be folded.
pub(crate) struct Fold {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) offload: Offload,
    /// Whose view it is.
    pub(crate) id: ViewId,
    /// By whose code.
    pub(crate) carried: Carried,
    /// How far, for each segment of the version.
    pub(crate) through: Vec<Position>,
    /// Events that were set aside, and are left out.
    pub(crate) aside: Vec<Letter>,
    /// How long it may take.
    pub(crate) time_max: Duration,
}

/// Which events.
#[derive(Clone, Debug)]
pub(crate) enum Take {
    Everything,
    /// Those of one segment.
    Segment(Segment),
    /// Those of some streams.
    Gathered(Arc<Gathered>),
}

/// What came of it.
pub(crate) struct Folded {
    /// The rows.
    pub(crate) reader: Box<dyn ViewReader>,
    /// How many events they are of.
    pub(crate) events: u64,
}

/// Events of some streams, each stream from its first one.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    batches: Vec<EventBatch>,
    /// The events in the order of the journal: their positions, and where they are.
    places: Vec<(Position, usize, usize)>,
    bytes: usize,
    /// Of how many streams they are.
    pub(crate) streams: u64,
}

/// Why there are no rows.
enum Stopped {
    /// In words.
    Why(String),
    Store(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ViewError> for Stopped {
    fn from(error: ViewError) -> Self {
        Self::Why(error.to_string())
    }
}

/// Folds, on a thread that holds up nobody. The inner error says in words why there are no rows.
///
/// # Errors
/// [`StoreError`] when the journal cannot be read.
pub(crate) async fn fold(what: Fold, take: Take) -> Result<Result<Folded, String>, StoreError> {
    let asker = Arc::new(());
    let is_asked = Arc::downgrade(&asker);
    let work = what.offload.begin(async move {
        let mut scratch = Scratch::new(what, is_asked).await?;
        match take {
            Take::Everything => scratch.read(None).await?,
            Take::Segment(segment) => scratch.read(Some(segment)).await?,
            Take::Gathered(gathered) => scratch.take(&gathered).await?,
        }
        scratch.finish().await
    });
    match ended(work.await) {
        Ok(folded) => Ok(Ok(folded)),
        Err(Stopped::Why(why)) => Ok(Err(why)),
        Err(Stopped::Store(error)) => Err(error),
    }
}

/// Rows in memory, and how far they are.
struct Scratch {
    what: Fold,
    segments: SegmentCount,
    stored: Arc<dyn StoredView>,
    view: View,
    tokens: Vec<Token>,
    aside: Aside,
    busy: Busy,
    applied: Vec<u64>,
    until: Instant,
    asker: Weak<()>,
}

impl Scratch {
    #[expect(clippy::expect_used, reason = "a version has segments")]
    async fn new(what: Fold, asker: Weak<()>) -> Result<Self, Stopped> {
        let Carried { tables, options, .. } = &what.carried;
        let segments = u16::try_from(what.through.len()).ok().and_then(|count| SegmentCount::new(count).ok());
        let found = || format!("there are {} of them", what.through.len());
        let segments = segments.ok_or_else(|| StoreError::corrupt("the tokens of a view", found()))?;
        let stored = MemoryViews::new().open(&what.id, tables, segments).await?;
        let first = segments.segment(0).expect("a version has segments");
        let mut view = View::new(stored.writer().await?, tables)
            .with_bytes_max(options.row_cache_bytes)
            .of_one_segment(options.rows == Rows::OfOneSegment && segments != SegmentCount::ONE)
            // Nothing that is emitted goes anywhere, since nothing of this is the view's.
            .with_effects(what.carried.effect_names(), first);
        view.index_all().await?;
        Ok(Self {
            aside: Aside::of(what.aside.iter().cloned()),
            tokens: stored.tokens().await?,
            applied: vec![0; what.through.len()],
            busy: Busy::default(),
            until: Instant::now() + what.time_max,
            segments,
            stored,
            view,
            what,
            asker,
        })
    }

    /// The events of one segment or of all, as the journal has them.
    async fn read(&mut self, of: Option<Segment>) -> Result<(), Stopped> {
        let Fold { journal, offload, carried, through, .. } = &self.what;
        let wanted = |segment: Segment| of.is_none_or(|of| of == segment);
        let through: Vec<Position> = self
            .segments
            .segments()
            .zip(through)
            .map(|(segment, through)| if wanted(segment) { *through } else { Position::START })
            .collect();
        let last = through.iter().copied().max().unwrap_or_default();
        let (journal, offload, filter) = (Arc::clone(journal), *offload, Arc::new(carried.filter.clone()));
        let read = |after| {
            let limit = Limit::events(limits::READ_EVENTS_MAX);
            (after < last).then(|| Ahead::begin(offload, &journal, after, &filter, limit))
        };
        let mut ahead = read(Position::START);
        while let Some(reading) = &mut ahead {
            let batch = reading.done().await?;
            ahead = read(batch.through);
            let mut from = 0;
            while from < batch.len() {
                from = self.apply(&batch, from, &through, self.until).await?;
                self.look()?;
            }
        }
        Ok(())
    }

    /// The events of some streams, one by one in the order of the journal.
    async fn take(&mut self, gathered: &Gathered) -> Result<(), Stopped> {
        let through = self.what.through.clone();
        for (_, batch, at) in &gathered.places {
            let batch = &gathered.batches[*batch];
            if self.what.carried.filter.wants(&batch.get(*at)) {
                // One at a time: the next one may be of another stream.
                self.apply(batch, *at, &through, Instant::now()).await?;
                self.look()?;
            }
        }
        Ok(())
    }

    fn look(&self) -> Result<(), Stopped> {
        if self.asker.strong_count() == 0 {
            return Err(Stopped::Why("nobody waits for it any more".to_owned()));
        }
        if Instant::now() >= self.until {
            let seconds = self.what.time_max.as_secs_f64();
            return Err(Stopped::Why(format!("it took longer than {seconds} s (`fold_time_max`)")));
        }
        Ok(())
    }

    /// Applies events of the batch from a place in it until then, at least one, and returns the place of the next.
    async fn apply(
        &mut self,
        batch: &EventBatch,
        from: usize,
        through: &[Position],
        until: Instant,
    ) -> Result<usize, Stopped> {
        let Carried { handlers, options, .. } = &self.what.carried;
        let work = Work {
            batch,
            from,
            segments: self.segments,
            through,
            past: through,
            speaks: None,
            applied: &mut self.applied,
            aside: &mut self.aside,
            busy: &self.busy,
            time_max: options.handler_time_max,
            until,
        };
        let last = match handlers.apply(work, &mut self.view).await {
            Ok(last) => last,
            Err(Failure { index, cause, .. }) => {
                let event = batch.get(index);
                let error = match cause {
                    FailureCause::Handler(error) | FailureCause::NoRoom(error) => error,
                    FailureCause::Store(error) => error.to_string(),
                };
                let (position, event_type) = (event.position, event.event_type);
                let why = format!("the code refuses event {position} ({event_type} of {}): {error}", event.stream);
                return Err(Stopped::Why(why));
            }
        };
        if self.view.is_full() || self.view.should_ask() {
            self.commit(None).await?;
        }
        Ok(last.map_or(batch.len(), |last| last + 1))
    }

    /// Commits; at the end with tokens that say how far it is.
    async fn commit(&mut self, end: Option<&[Position]>) -> Result<(), Stopped> {
        let moves = self.tokens.iter().enumerate();
        let moves = moves.map(|(at, token)| match end {
            Some(end) => token.step(end[at], self.applied[at]),
            None => token.step(token.position, 0),
        });
        let moves: Vec<TokenMove> = moves.collect();
        self.view.commit(&Commit::of(moves)).await.map_err(|error| match error {
            NotCommitted::Failed(error) => Stopped::from(error),
            NotCommitted::Held { .. } | NotCommitted::Capped(_) | NotCommitted::Fenced(_) => {
                unreachable!("nobody else has a view in memory")
            }
        })
    }

    async fn finish(mut self) -> Result<Folded, Stopped> {
        let through = std::mem::take(&mut self.what.through);
        self.commit(Some(&through)).await?;
        Ok(Folded { reader: self.stored.reader().await?, events: self.applied.iter().sum() })
    }
}

/// Gathers all events through a position of streams that have events at positions spread evenly over the journal: of as
/// many streams as there are, as there is room for, and as [`limits::FOLD_STREAMS_MAX`] says.
///
/// # Errors
/// [`StoreError`] when the journal cannot be read.
#[expect(clippy::expect_used, reason = "it is before the last position")]
pub(crate) async fn gather(
    offload: Offload,
    journal: Arc<dyn Journal>,
    filter: Filter,
    through: Position,
    events_max: usize,
    time_max: Duration,
) -> Result<Gathered, StoreError> {
    let asker = Arc::new(());
    let is_asked = Arc::downgrade(&asker);
    let work = offload.begin(async move {
        let (mut gathered, mut seen) = (Gathered::default(), BTreeSet::new());
        let (room, until) = (Room { events: events_max, bytes: limits::FOLD_BYTES_MAX }, Instant::now() + time_max);
        for number in 0..limits::FOLD_STREAMS_MAX {
            if Instant::now() >= until || is_asked.strong_count() == 0 {
                break;
            }
            let at = u128::from(through.get()) * u128::from(number) / u128::from(limits::FOLD_STREAMS_MAX);
            let at = Position::new(u64::try_from(at).expect("it is before the last position"));
            let found = journal.read(at, &filter, Limit::events(1)).await?;
            let Some(event) = found.iter().next().filter(|event| event.position <= through) else { continue };
            let damaged = |error: InvalidName| StoreError::corrupt("a stream", error.to_string());
            let stream = StreamName::new(event.stream).map_err(damaged)?;
            if seen.insert(stream.clone()) {
                gathered.add(&*journal, &stream, through, room).await?;
            }
        }
        gathered.places.sort_unstable();
        Ok(gathered)
    });
    ended(work.await)
}

/// What one may take.
#[derive(Clone, Copy)]
struct Room {
    events: usize,
    bytes: usize,
}

impl Gathered {
    /// Adds the events of a stream, unless there is no room for all of them.
    async fn add(
        &mut self,
        journal: &dyn Journal,
        stream: &StreamName,
        through: Position,
        room: Room,
    ) -> Result<(), StoreError> {
        let end = journal.stream_revision(stream).await?;
        if end.get() > room.events.saturating_sub(self.places.len()) as u64 {
            return Ok(());
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
                return Ok(());
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
        Ok(())
    }
}

/// What came of work on another thread.
fn ended<T, E: From<StoreError>>(work: Result<Result<T, E>, JoinError>) -> Result<T, E> {
    match work {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::unavailable("fold events", "the runtime is shutting down").into()),
        },
    }
}
