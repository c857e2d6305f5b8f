//! Past events folded from the start by the code of a version, into rows in memory: the rows that its view should have
//! of them.
//!
//! It reads only the journal, and it is bounded. The caller gets the rows and compares them. Once nobody waits for it
//! any more, it ends at its next wait, or with the batch under way.

use std::sync::Arc;
use std::time::Duration;

use dacapo_model::assign::RowScope;
use dacapo_model::{Letter, Position, SegmentCount, Token, TokenMove, ViewId, WorkShare, limits};
#[cfg(feature = "embedded")]
use dacapo_store::memory::MemoryViews;
use dacapo_store::{Commit, EventBatch, Journal, Limit, StoreError, View as StoredView, ViewReader, Views};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::gather::{Gathered, Wanted};
use crate::code::{Aside, Busy, Failure, FailureCause, VersionCode, Work};
use crate::feed::Ahead;
use crate::versions::Versions;
use crate::view::{NotCommitted, ReadView, View, ViewError};
use crate::world::Offload;

/// The parameters of a fold.
pub(crate) struct Fold {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) offload: Offload,
    /// The version whose view it is.
    pub(crate) id: ViewId,
    /// The code that folds.
    pub(crate) carried: VersionCode,
    /// The position through which each segment of the version is folded.
    pub(crate) through: Vec<Position>,
    /// The events that were set aside. They are left out.
    pub(crate) aside: Vec<Letter>,
    pub(crate) pace: Pace,
}

/// The longest time of a fold, and the share of that time in which it works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) time_max: Duration,
    /// The name of the option that limits it, for operators.
    pub(crate) bound: &'static str,
    pub(crate) share: WorkShare,
}

/// The progress of the time of a fold.
pub(super) struct Pacing {
    pace: Pace,
    until: Instant,
    /// The time of the end of the last pause, or of the beginning.
    since: Instant,
}

impl Pacing {
    pub(super) fn new(pace: Pace) -> Self {
        let now = Instant::now();
        Self { pace, until: now + pace.time_max, since: now }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Returns the time until which it works before the next pause.
    fn work_until(&self) -> Instant {
        if self.pace.share == WorkShare::ALL { self.until } else { self.since + limits::SCRUB_ROWS_WORK_MAX }
    }

    /// Pauses, if that is due. Otherwise only yields, so that it can be cancelled.
    pub(super) async fn rest(&mut self) {
        let worked = self.since.elapsed();
        if worked < limits::SCRUB_ROWS_WORK_MAX {
            return;
        }
        match self.pace.share {
            WorkShare::ALL => tokio::task::yield_now().await,
            share => tokio::time::sleep(share.rest(worked).min(limits::SCRUB_ROWS_PAUSE_MAX)).await,
        }
        self.since = Instant::now();
    }
}

/// The events that are folded.
#[derive(Clone, Debug)]
pub(crate) enum Take {
    Everything,
    /// The events of some streams.
    Gathered(Arc<Gathered>),
}

/// The result of a fold.
pub(crate) struct Folded {
    /// The rows.
    pub(crate) reader: Box<dyn ViewReader>,
    /// The number of events from which they are made.
    pub(crate) events: u64,
}

/// The reason why there are no rows.
enum Stopped {
    /// The reason in words.
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

impl Fold {
    /// Returns the fold of everything that a state of a view covers, except the events that are set aside in it.
    ///
    /// # Errors
    /// [`StoreError`] if the view cannot be read.
    pub(super) async fn of(
        versions: &Versions,
        id: &ViewId,
        carried: &VersionCode,
        view: &mut ReadView,
        pace: Pace,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            journal: Arc::clone(&versions.journal),
            offload: versions.world.offload,
            id: id.clone(),
            carried: carried.clone(),
            through: view.reader().tokens().iter().map(|token| token.position).collect(),
            aside: letters(view.reader()).await?,
            pace,
        })
    }

    /// Returns the position of its last event.
    pub(super) fn last(&self) -> Position {
        self.through.iter().copied().max().unwrap_or_default()
    }

    /// Returns the parameters for gathering some streams for it.
    pub(super) fn wanted(&self, events_max: usize) -> Wanted {
        Wanted {
            journal: Arc::clone(&self.journal),
            offload: self.offload,
            filter: self.carried.filter.clone(),
            through: self.last(),
            events_max,
            pace: self.pace,
        }
    }
}

/// Returns the letters of events that are set aside in one state of a view.
async fn letters(view: &mut dyn ViewReader) -> Result<Vec<Letter>, StoreError> {
    let (mut letters, mut after) = (Vec::new(), Position::START);
    loop {
        let mut page = view.letters(after, limits::LETTERS_READ_MAX).await?;
        let Some(last) = page.last() else { return Ok(letters) };
        after = last.position;
        letters.append(&mut page);
    }
}

/// Folds, on a thread that blocks nobody. The inner error says in words why there are no rows.
///
/// # Errors
/// [`StoreError`] if the journal cannot be read.
pub(crate) async fn fold(what: Fold, take: Take) -> Result<Result<Folded, String>, StoreError> {
    let folded = asked(what.offload, async move {
        let mut scratch = Scratch::new(what).await?;
        match take {
            Take::Everything => scratch.read().await?,
            Take::Gathered(gathered) => scratch.take(&gathered).await?,
        }
        scratch.finish().await
    });
    match folded.await {
        Ok(folded) => Ok(Ok(folded)),
        Err(Stopped::Why(why)) => Ok(Err(why)),
        Err(Stopped::Store(error)) => Err(error),
    }
}

/// Returns the views in which the rows are folded.
#[cfg(feature = "embedded")]
fn scratch_views() -> Result<impl Views, Stopped> {
    Ok(MemoryViews::new())
}

/// Returns the reason why no rows can be folded.
#[cfg(not(feature = "embedded"))]
fn scratch_views() -> Result<Box<dyn Views>, Stopped> {
    Err(Stopped::Why("rows are folded in SQLite: build with the feature `embedded` of dacapo".to_owned()))
}

/// Rows in memory, and their progress.
struct Scratch {
    what: Fold,
    segments: SegmentCount,
    stored: Arc<dyn StoredView>,
    view: View,
    tokens: Vec<Token>,
    aside: Aside,
    busy: Busy,
    applied: Vec<u64>,
    pacing: Pacing,
}

impl Scratch {
    #[expect(clippy::expect_used, reason = "a version has segments")]
    async fn new(what: Fold) -> Result<Self, Stopped> {
        let VersionCode { tables, options, .. } = &what.carried;
        let segments = u16::try_from(what.through.len()).ok().and_then(|count| SegmentCount::new(count).ok());
        let found = || format!("there are {} of them", what.through.len());
        let segments = segments.ok_or_else(|| StoreError::corrupt("the tokens of a view", found()))?;
        let stored = scratch_views()?.open(&what.id, tables, segments).await?;
        let first = segments.segment(0).expect("a version has segments");
        let mut view = View::new(stored.writer().await?, tables)
            .with_bytes_max(options.row_cache_bytes)
            .of_one_segment(options.rows == RowScope::OfOneSegment && segments != SegmentCount::ONE)
            // Emitted effects are discarded, since nothing here belongs to the view.
            .with_effects(what.carried.effect_names(), first);
        view.index_all().await?;
        Ok(Self {
            aside: Aside::of(what.aside.iter().cloned()),
            tokens: stored.tokens().await?,
            applied: vec![0; what.through.len()],
            busy: Busy::default(),
            pacing: Pacing::new(what.pace),
            segments,
            stored,
            view,
            what,
        })
    }

    /// Folds all events, as the journal has them.
    async fn read(&mut self) -> Result<(), Stopped> {
        let (last, Fold { journal, offload, carried, through, .. }) = (self.what.last(), &self.what);
        let through = through.clone();
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
                from = self.apply(&batch, from, &through, self.pacing.work_until()).await?;
                self.look().await?;
            }
        }
        Ok(())
    }

    /// Folds the events of some streams, one by one in the order of the journal.
    async fn take(&mut self, gathered: &Gathered) -> Result<(), Stopped> {
        let through = self.what.through.clone();
        for (_, batch, at) in &gathered.places {
            let batch = &gathered.batches[*batch];
            if self.what.carried.filter.wants(&batch.get(*at)) {
                // They are applied one at a time, since the next one may be of another stream.
                self.apply(batch, *at, &through, Instant::now()).await?;
                self.look().await?;
            }
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Stopped> {
        self.pacing.rest().await;
        if self.pacing.is_over() {
            let Pace { time_max, bound, .. } = self.what.pace;
            return Err(Stopped::Why(format!("it took longer than {} s (`{bound}`)", time_max.as_secs_f64())));
        }
        Ok(())
    }

    /// Applies events of the batch from a place in it until that time, at least one, and returns the place of the next
    /// one.
    async fn apply(
        &mut self,
        batch: &EventBatch,
        from: usize,
        through: &[Position],
        until: Instant,
    ) -> Result<usize, Stopped> {
        let VersionCode { handlers, options, .. } = &self.what.carried;
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

    /// Commits; at the end with the final tokens.
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

/// Returns the result of work on a thread that blocks nobody. Once nobody waits for it any more, the work is cancelled
/// at its next wait.
pub(super) async fn asked<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    offload: Offload,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let stopped = |found| StoreError::unavailable("fold events", found);
    let (_asker, is_gone) = oneshot::channel::<()>();
    let work = offload.begin(async move {
        tokio::select! {
            biased;
            _ = is_gone => Err(stopped("nobody waits for it any more").into()),
            done = work => done,
        }
    });
    match work.await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(stopped("the runtime is shutting down").into()),
        },
    }
}
