//! Rows as a sink: a view's rows, tokens, letters and effects, which a store commits together.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::assign::{self, RowScope, Spread};
use dacapo_model::{
    Letter, MemberId, Position, Refusal, Segment, SegmentCount, Timestamp, Token, TokenMove, ViewId, WaitingOn, limits,
};
use dacapo_store::{Commit, Journal, NewMark, StoreError, View as StoredView};
use tokio::sync::watch;

use super::prepare::{self, Prepared, replay, seed};
use super::run::Run;
use super::segments::Segments;
use super::sink::{AsideEvent, Portion, RefusedEvent, Sink, Taken};
use super::tries::Tried;
use super::{Next, Orders, unavailable};
use crate::code::{Aside, Busy, FailureCause, SeedFrom, Speaks, VersionCode, Voices, Work, letter};
use crate::history;
use crate::landing::NotCommitted;
use crate::view::{View, ViewError};

/// A view, and the code that makes its rows.
pub(crate) struct Stored {
    pub(crate) id: ViewId,
    pub(crate) view: Arc<dyn StoredView>,
    pub(crate) segments: SegmentCount,
    pub(crate) carried: VersionCode,
    pub(crate) beginning: Beginning,
    pub(crate) busy: Arc<Busy>,
    /// The assignment of effects to versions.
    pub(crate) voices: watch::Receiver<Voices>,
}

/// The beginning of a version, and the end of the past.
pub(crate) struct Beginning {
    /// The end of the past: events through here are replayed.
    pub(crate) began_at: Position,
    /// The view from which it begins as a copy.
    pub(crate) seed: Option<SeedFrom>,
}

/// The rows of a view, as one run changes them.
pub(crate) struct Rows {
    pub(super) stored: Arc<Stored>,
    pub(super) view: View,
    pub(super) aside: Aside,
    /// True if wishes may have been recorded on other nodes.
    pub(super) wished_elsewhere: bool,
    /// The next letter with a decision.
    pub(super) wished: Option<Letter>,
    pub(super) failed_reset: Option<Tried>,
    /// The view from which this one begins as a copy, until it has begun.
    pub(super) seed: Option<SeedFrom>,
    pub(super) failed_seed: Option<Tried>,
    /// Events that were set aside when a replay began, or are set aside again, and were never applied.
    pub(super) unspoken: Arc<BTreeSet<Position>>,
    /// The position at which the view gets its missing indexes; `None` once it has them.
    pub(super) index_at: Option<Position>,
    /// True if the last try was rolled back because it needs them.
    pub(super) wants_indexes: bool,
    /// For each segment the last position that is a replay, in this try.
    past: Vec<Position>,
    /// The events for which effects are kept in this try.
    speaks: Option<Speaks>,
}

impl Stored {
    async fn lacks_indexes(&self) -> Result<bool, StoreError> {
        Ok(!self.view.missing_indexes(self.carried.tables).await?.is_empty())
    }
}

impl Rows {
    /// Returns the events for which effects are kept, if the projection makes effects.
    pub(super) fn speaks(&self, replays_through: Vec<Position>) -> Option<Speaks> {
        let Stored { carried, voices, id, .. } = &*self.stored;
        (!carried.effect_names().is_empty()).then(|| Speaks {
            version: id.version,
            past: carried.options.effects.past,
            voices: voices.borrow().clone(),
            replays_through,
            unspoken: Arc::clone(&self.unspoken),
        })
    }

    /// Reads the letters of events that are set aside, and the decisions about them.
    pub(super) async fn load_aside(&mut self, ours: impl Fn(Segment) -> bool) -> Result<(), StoreError> {
        self.aside = Aside::load(&*self.stored.view, self.stored.carried.options.order_matters, ours).await?;
        Ok(())
    }

    /// Returns the fault of an earlier event that may have caused the refusal of the event at `position`.
    async fn blamed(&mut self, position: Position) -> Result<Option<ViewError>, StoreError> {
        match self.view.blamed().await {
            Ok(blamed) => Ok(blamed.filter(|error| error.at().is_some_and(|at| at < position))),
            Err(error) if error.is_passing() => Err(unavailable(error)),
            Err(error) => Ok(Some(error)),
        }
    }
}

impl Sink for Rows {
    type Place = Arc<Stored>;
    type Error = ViewError;

    #[expect(clippy::expect_used, reason = "a version has segments")]
    async fn open(place: &Arc<Stored>) -> Result<Self, StoreError> {
        let stored = Arc::clone(place);
        let options = &stored.carried.options;
        let bare = stored.lacks_indexes().await?;
        let index_at = if options.index_last { stored.beginning.began_at } else { Position::START };
        let first = stored.segments.segment(0).expect("a version has segments");
        let view = View::new(stored.view.writer().await?, stored.carried.tables)
            .with_bytes_max(options.row_cache_bytes)
            .of_one_segment(options.rows == RowScope::OfOneSegment && stored.segments != SegmentCount::ONE)
            .lacking_indexes(bare)
            .with_effects(stored.carried.effect_names(), first);
        Ok(Self {
            view,
            aside: Aside::default(),
            wished_elsewhere: false,
            wished: None,
            failed_reset: None,
            seed: stored.beginning.seed.clone(),
            failed_seed: None,
            unspoken: Arc::default(),
            index_at: bare.then_some(index_at),
            wants_indexes: false,
            past: vec![],
            speaks: None,
            stored,
        })
    }

    async fn tokens(&mut self) -> Result<Vec<Token>, StoreError> {
        self.stored.view.tokens().await
    }

    async fn claim(&mut self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        self.stored.view.claim(by, seen).await
    }

    async fn begin(&mut self, claimed: &[Token]) -> Result<Vec<Refusal>, StoreError> {
        let refusals = self.stored.view.refusals().await?;
        self.load_aside(|segment| claimed.iter().any(|token| token.segment == segment)).await?;
        self.unspoken = Arc::new(self.stored.view.unspoken().await?.into_iter().collect());
        Ok(refusals)
    }

    async fn take(&mut self, portion: Portion<'_>) -> Result<Taken<ViewError>, StoreError> {
        let Portion { batch, from, segments, through, applied, until } = portion;
        let work = Work {
            batch,
            from,
            segments,
            through,
            past: &self.past,
            speaks: self.speaks.as_ref(),
            applied,
            aside: &mut self.aside,
            busy: &self.stored.busy,
            time_max: self.stored.carried.options.handler_time_max,
            until,
        };
        let done = self.stored.carried.handlers.apply(work, &mut self.view).await;
        // This holds even if the handler ignored the refusal.
        if self.view.wants_indexes() {
            self.wants_indexes = true;
            return Ok(Taken::Unprepared);
        }
        let failure = match done {
            Ok(None) => return Ok(Taken::All),
            Ok(Some(last)) => return Ok(Taken::Through(last)),
            Err(failure) => failure,
        };
        let (error, no_room) = match failure.cause {
            FailureCause::Handler(error) => (error, false),
            FailureCause::NoRoom(error) => (error, true),
            FailureCause::Store(error) => return Err(unavailable(error)),
        };
        // The refusal may be caused by the fault of an earlier event.
        let position = batch.get(failure.index).position;
        if let Some(error) = self.blamed(position).await? {
            return Ok(Taken::Mistaken(position, error));
        }
        let (segment, index, changed) = (failure.segment, failure.index, failure.changed);
        Ok(Taken::Refused(RefusedEvent { segment, index, changed, error, no_room }))
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), NotCommitted<ViewError>> {
        self.view.commit(commit).await
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        self.view.rollback().await.map_err(unavailable)
    }

    fn damaged(place: &Arc<Stored>) -> Option<String> {
        place.view.health().damaged
    }

    async fn look(&mut self) -> Result<bool, StoreError> {
        // Wishes that were recorded on other nodes are also seen only by looking.
        self.wished_elsewhere = self.aside.count() > 0;
        // Another member has built them.
        Ok(self.index_at.is_some() && !self.stored.lacks_indexes().await?)
    }

    fn spread(&self, seen: &[Token], orders: &Orders) -> Spread {
        let Stored { carried, beginning, .. } = &*self.stored;
        assign::spread(carried.options.rows, seen, beginning.seed.is_some(), orders.replay.as_ref(), self.index_at)
    }

    async fn listen(run: &mut Run<'_, Self>) -> Result<(), StoreError> {
        run.sink.wished = run.next_wish().await?;
        Ok(())
    }

    fn heed(run: &mut Run<'_, Self>, try_now: bool) {
        if try_now {
            let now = run.assignment.steady.now();
            run.sink.failed_reset.iter_mut().chain(&mut run.sink.failed_seed).for_each(|tried| tried.try_now(now));
        }
        if run.asked_replay().is_none() {
            // The replay is not requested any more: there is nothing to retry or to report.
            run.sink.failed_reset = None;
        }
    }

    fn prepare(run: &mut Run<'_, Self>) -> impl Future<Output = Result<Next<Prepared>, StoreError>> + Send {
        prepare::prepare(run)
    }

    fn stops_at(&self) -> Option<Position> {
        self.index_at
    }

    fn begin_batch(&mut self, now: Timestamp) {
        self.aside.begin(now);
    }

    fn begin_try(&mut self, segments: &Segments) {
        self.aside.begin_again();
        let began_at = self.stored.beginning.began_at;
        self.past = segments.each(|token| token.replays_through().max(began_at));
        self.speaks = self.speaks(segments.each(Token::replays_through));
    }

    /// A batch that began a transaction with a statement of its own is not kept open longer than any other may take,
    /// since it blocks others, and a store may end an idle transaction.
    fn is_full(&self, time: Duration) -> bool {
        self.view.is_full() || self.view.has_sent() && time >= limits::BATCH_TIME_TARGET_FAR
    }

    fn set_aside(&mut self, aside: &AsideEvent<'_, '_>) -> Result<bool, StoreError> {
        if self.aside.is_full() {
            return Ok(false);
        }
        let AsideEvent { segment, event, kind, attempts, now, .. } = *aside;
        self.aside.refuse(letter(segment, event, kind, aside.error.to_owned(), attempts, now)?);
        Ok(true)
    }

    fn complete(&self, commit: &mut Commit) {
        commit.letters = self.aside.of_batch();
        for Letter { segment, position, .. } in &commit.letters {
            let passes = |it: &TokenMove| it.segment == *segment && it.from < *position && *position <= it.to;
            assert!(commit.moves.iter().any(passes), "I-3: a commit passes the event {position} that it sets aside");
        }
    }

    fn batch_landed(&mut self) {
        self.aside.committed();
    }

    async fn mark(&mut self, journal: &dyn Journal, through: Position) -> Result<Option<NewMark>, StoreError> {
        history::next_mark(journal, &*self.stored.view, through).await
    }

    fn aside(&self) -> usize {
        self.aside.count()
    }

    fn reasons(&self) -> Vec<WaitingOn> {
        let reset = self.failed_reset.as_ref().map(replay::reason);
        let copy = self.failed_seed.as_ref().zip(self.seed.as_ref()).map(|(tried, from)| seed::reason(tried, from));
        reset.into_iter().chain(copy).collect()
    }

    fn next_due(&self, now: Timestamp) -> Option<Duration> {
        let tried = self.failed_reset.iter().chain(&self.failed_seed);
        tried.filter_map(|tried| tried.next_due(now)).min()
    }
}
