//! Processors: one version's run over the journal.
//!
//! A processor claims its segments, reads the feed behind the lowest token among them, applies a batch
//! and commits rows and tokens together (I-3) under the epoch it claimed (I-4). Segments at different
//! tokens are caught up lowest first, up to the next token above, so nothing is read twice for a segment
//! and one that halts never holds the others back; after a long halt it takes turns with those that follow
//! the head. This is the only place from which tokens move.
//!
//! ```text
//!              ┌──────────── lowest tokens among the segments that may run ◀───────────┐
//!              ▼                                                                       │
//!   read behind them, through the next token above ──▶ apply ──▶ commit rows and tokens┤
//!                                                        │                │            │
//!                       the handler refuses an event ◀───┘   held, fenced │            │
//!                       its segment stops before it, or       or store ───┘            │
//!                       it is set aside; the others go on ─────────────────────────────┘
//! ```
//!
//! A handler that fails before it has changed any row costs the others nothing: the batch goes on behind the event.
//! Only if it has are its rows taken back with those of the batch, which is then applied again through the event.
//!
//! It never decides about phases. What it must know of the catalog comes as [`Orders`], late as it may be; but before it
//! takes events it asks the catalog, folded as far as they go, whether its code is the one to read them ([`Fence`]).

mod busy;
mod claims;
mod index;
mod judge;
mod letters;
mod pace;
mod refusals;
mod replay;
mod seed;
mod segments;
mod throttle;
mod tries;
mod wishes;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::assign::Rows;
use dacapo_model::{
    Parted, PendingReplay, Phase, Position, Segment, SegmentCount, Timestamp, Token, TokenMove, TokenRefused,
    VersionState, ViewId, WaitingOn, WorkShare, limits,
};
use dacapo_store::{Clock, Commit, Filter, Journal, Limit, StoreError, View as StoredView};
use tokio::sync::watch::error::RecvError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::feed::Ahead;
use crate::history;
use crate::projection::{Carried, FailureCause, Work};
use crate::reactor::{Speaks, Voices};
use crate::reads::Fence;
use crate::seed::SeedFrom;
use crate::view::{NotCommitted, View, ViewError};
use crate::world::{Offload, Probe};
use pace::Pace;
use refusals::Refusals;
use segments::{Segments, Share};
use throttle::Throttle;
use tries::Tried;

use claims::ClaimLook;

pub(crate) use busy::Busy;
pub(crate) use claims::Claims;
pub(crate) use letters::{Aside, shortened};
pub(crate) use segments::Progress;

/// How long the first retry after a failure of the store waits; each further one waits twice as long.
const STORE_RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries of the store, whose failures are nobody's mistake and pass unannounced.
const STORE_RETRY_MAX: Duration = Duration::from_secs(1);
/// How often a held processor looks whether it was let go, should nobody tell it.
const HOLD_LOOK: Duration = Duration::from_millis(20);

/// What a processor works on and with.
pub(crate) struct Assignment {
    pub(crate) id: ViewId,
    pub(crate) carried: Carried,
    /// What keeps it from passing events that the version reads and this code does not.
    pub(crate) fence: Fence,
    pub(crate) beginning: Beginning,
    /// How much of the time it works while the head is far.
    pub(crate) share: watch::Receiver<WorkShare>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) offload: Offload,
    pub(crate) view: Arc<dyn StoredView>,
    /// How many segments the version has.
    pub(crate) segments: SegmentCount,
    /// By what they are claimed.
    pub(crate) claims: Claims,
    /// By which refused events are due.
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether they are tried at once all the same, since the code is not that which refused them.
    pub(crate) is_corrected: bool,
    /// What the catalog says of the version.
    pub(crate) orders: watch::Receiver<Orders>,
    /// Told whenever a wish for dead letters is recorded.
    pub(crate) wishes: watch::Receiver<()>,
    /// Told whenever a hold is lifted.
    pub(crate) lifted: Arc<Notify>,
    pub(crate) busy: Arc<Busy>,
    pub(crate) progress: Arc<watch::Sender<Progress>>,
    /// Whose effects are whose.
    pub(crate) voices: watch::Receiver<Voices>,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What a processor must know of its version's state in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    /// By which its policy is chosen.
    phase: Phase,
    /// Apply nothing.
    paused: bool,
    /// Where it was resumed last: what halts is tried at once.
    resumed_at: Option<Position>,
    /// The last replay in place that was asked for.
    replay: Option<PendingReplay>,
    /// Events that are set aside once they are refused.
    set_aside: Arc<BTreeSet<Position>>,
    /// Where the catalog last said something of what the code reads, which is looked up then.
    reads_at: Option<Position>,
}

impl Orders {
    pub(crate) fn of(state: &VersionState) -> Self {
        Self {
            phase: state.phase,
            paused: state.paused,
            resumed_at: state.resumed_at,
            replay: state.last_replay,
            set_aside: Arc::clone(&state.set_aside),
            reads_at: state.reads_at,
        }
    }
}

/// Where a version begins, and where what it begins with ends.
pub(crate) struct Beginning {
    /// Events through here are the past, which is replayed.
    pub(crate) began_at: Position,
    /// What it begins as a copy of.
    pub(crate) seed: Option<SeedFrom>,
}

/// Why a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was asked to stop, and has finished its batch.
    Stopped,
    /// It was asked to stop, and its batch was given up after [`limits::STOP_TIME_MAX`]; nothing of it was committed.
    GivenUp,
    /// Another claim took its segments (I-4).
    Fenced(TokenRefused),
    /// The view does not belong to the journal any more.
    Parted,
}

/// How a run goes on after a step: with the next one; or not, and then how it ended, or that it begins anew.
type Next<T = ()> = ControlFlow<Option<Ended>, T>;

/// Runs until it is stopped or fenced. Failures of the store are waited out.
///
/// A handler that waits for something when the stop comes has [`limits::STOP_TIME_MAX`] for the rest of its batch;
/// one that computes without end cannot be stopped, so whoever stops a run must not wait for its end for ever.
pub(crate) async fn run(assignment: Assignment) -> Ended {
    let mut stop = assignment.stop.clone();
    let out_of_time = async {
        // An error means that whoever could stop this is gone, and with it maybe the runtime and its timers.
        if stop.wait_for(|stop| *stop).await.is_ok() {
            tokio::time::sleep(limits::STOP_TIME_MAX).await;
        }
    };
    tokio::select! {
        biased;
        ended = run_on(&assignment) => ended,
        () = out_of_time => Ended::GivenUp,
    }
}

async fn run_on(assignment: &Assignment) -> Ended {
    let mut attempts = 0_u32;
    let mut resumed_at = assignment.orders.borrow().resumed_at;
    let mut try_now = assignment.is_corrected;
    loop {
        let error = match Run::begin(assignment, resumed_at, try_now).await {
            Ok(mut run) => match run.go_on().await {
                // What is another's now is claimed by it; the rest is claimed again.
                Ok(Some(Ended::Fenced(refused))) => {
                    tracing::info!(view = %assignment.id, %refused, "segments are claimed by another");
                    attempts = 0;
                    if assignment.stopped_within(STORE_RETRY_FIRST).await {
                        return Ended::Stopped;
                    }
                    continue;
                }
                Ok(Some(ended)) => return ended,
                Ok(None) => {
                    attempts = 0;
                    continue;
                }
                Err(StoreError::Parted(parted)) => return assignment.parted(parted),
                Err(error) => {
                    // It may have failed between a resumption and the try that this was for.
                    try_now = try_now && !run.has_moved || run.resumed_at > resumed_at;
                    resumed_at = run.resumed_at;
                    // Only a run that got somewhere begins the count anew: a disk may be full for every commit.
                    attempts = if run.has_moved { 0 } else { attempts };
                    error
                }
            },
            Err(StoreError::Parted(parted)) => return assignment.parted(parted),
            Err(error) => error,
        };
        assignment.report_store(&error);
        attempts += 1;
        let wait = STORE_RETRY_FIRST.saturating_mul(1 << (attempts - 1).min(16));
        if assignment.stopped_within(wait.min(STORE_RETRY_MAX)).await {
            return Ended::Stopped;
        }
    }
}

impl Assignment {
    fn report_store(&self, error: &StoreError) {
        tracing::warn!(view = %self.id, %error, "the processor cannot go on for the moment");
        let waiting = match self.view.health().damaged {
            Some(error) => WaitingOn::Damaged { error },
            None => WaitingOn::Store { error: error.to_string() },
        };
        self.progress.send_modify(|progress| progress.waiting_on = vec![waiting]);
    }

    /// Whether its code may not move a token through there. What is wrong with it is told with the status.
    async fn is_barred(&self, through: Position) -> Result<bool, StoreError> {
        Ok(self.fence.unlike(through).await?.is_some())
    }

    /// Nothing that comes from this journal may be applied to the view.
    fn parted(&self, parted: Parted) -> Ended {
        tracing::error!(view = %self.id, %parted, "the view does not belong to the journal, and is closed");
        self.progress.send_modify(|progress| progress.waiting_on = vec![WaitingOn::Parted { parted }]);
        Ended::Parted
    }

    /// Waits, and tells whether the stop came meanwhile.
    async fn stopped_within(&self, wait: Duration) -> bool {
        let mut stop = self.stop.clone();
        let stopped = stop.wait_for(|stop| *stop);
        // An error means that whoever could stop this is gone, which is a stop.
        tokio::time::timeout(wait, stopped).await.is_ok()
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Does work that may take very long, unless the stop or a pause comes meanwhile: then it is given up, and with it
    /// the writer that it used.
    async fn unless_called_off<T>(&self, work: impl Future<Output = T>) -> Next<T> {
        let (mut stop, mut orders) = (self.stop.clone(), self.orders.clone());
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Break(Some(Ended::Stopped)),
            // An error means that whoever could stop this is gone, which is a stop.
            paused = orders.wait_for(|orders| orders.paused) => Break(paused.is_err().then_some(Ended::Stopped)),
            done = work => Continue(done),
        }
    }
}

/// A run under one claim.
struct Run<'a> {
    assignment: &'a Assignment,
    filter: Arc<Filter>,
    view: View,
    segments: Segments,
    claims: ClaimLook,
    aside: Aside,
    orders: watch::Receiver<Orders>,
    /// The last resumption that was heeded.
    resumed_at: Option<Position>,
    /// How many wishes to set an event aside were heeded.
    set_aside: usize,
    /// The phase that was heeded last.
    phase: Phase,
    wishes: watch::Receiver<()>,
    /// Whether other nodes may have been told what is wished for.
    wished_elsewhere: bool,
    pace: Pace,
    throttle: Throttle,
    head: watch::Receiver<Position>,
    failed_reset: Option<Tried>,
    /// What the view begins as a copy of, until it does.
    seed: Option<&'a SeedFrom>,
    failed_seed: Option<Tried>,
    /// Events that were set aside when a replay began or are so again, and were never applied.
    unspoken: Arc<BTreeSet<Position>>,
    /// How far the store lets its segments move, as far as it was noticed.
    cap: Option<Position>,
    has_moved: bool,
    /// Through here a batch failed as a whole, by the mistake of one of its events: the next ones close in on that.
    suspect: Option<Position>,
    /// The last mark that this run gave to the view: when, and how far its tokens were then.
    marked: Option<(Instant, Position)>,
    /// When this step looked at what is due. Whoever waits afterwards counts from here.
    looked: Timestamp,
    /// Once this is covered, the view gets the indexes that it lacks; `None` once it has them.
    index_at: Option<Position>,
}

/// A batch under way.
struct Batch {
    share: Share,
    started: Instant,
    /// When it was begun that is under way: a batch may have to be applied again, and has its time anew then.
    tried: Instant,
    /// Segments that stop in it before an event that was refused.
    refused: BTreeSet<Segment>,
}

/// What was applied of a batch and not yet committed.
struct Applied {
    events: usize,
    /// How many events each segment of the version has taken up.
    by_segment: Vec<u64>,
}

/// What a commit came to.
enum Committed {
    Done,
    /// It must be applied again: the writer had sent rows that the refused commit took back.
    ApplyAgain,
    /// The store takes no such rows, however often it is tried: a mistake of the handler. Everything is taken back.
    Wrong(ViewError),
    /// It goes too far: it must be applied again through here at most.
    Capped(Position),
    Ended(Ended),
}

impl<'a> Run<'a> {
    /// Claims, and takes up what the view keeps. `resumed_at` is the last resumption that an earlier run has heeded.
    #[expect(clippy::expect_used, reason = "a version has segments")]
    async fn begin(
        assignment: &'a Assignment,
        resumed_at: Option<Position>,
        try_now: bool,
    ) -> Result<Self, StoreError> {
        let options = &assignment.carried.options;
        let mut wishes = assignment.wishes.clone();
        // What is wished for from here on is either read below or told.
        wishes.mark_unchanged();
        let tables = assignment.carried.tables;
        let seen = assignment.view.tokens().await?;
        assignment.see(&seen);
        let bare = !assignment.view.missing_indexes(tables).await?.is_empty();
        let index_at = if options.index_last { assignment.beginning.began_at } else { Position::START };
        let index_at = bare.then_some(index_at);
        let (tokens, claims) = assignment.claim(&seen, index_at).await?;
        let mut refusals = Refusals::new(assignment.view.refusals().await?, options.retry);
        if try_now {
            refusals.try_now(assignment.clock.now());
        }
        let segments = Segments::new(assignment.segments, tokens, refusals);
        let aside = Aside::load(&*assignment.view, options.order_matters, |it| segments.has(it)).await?;
        let writer = assignment.view.writer().await?;
        let first = assignment.segments.segment(0).expect("a version has segments");
        let view = View::new(writer, tables)
            .with_bytes_max(options.row_cache_bytes)
            .of_one_segment(options.rows == Rows::OfOneSegment && assignment.segments != SegmentCount::ONE)
            .lacking_indexes(bare)
            .with_effects(assignment.carried.effect_names(), first);
        let orders = assignment.orders.clone();
        let phase = orders.borrow().phase;
        let run = Self {
            assignment,
            filter: Arc::new(assignment.carried.filter.clone()),
            view,
            segments,
            claims,
            aside,
            orders,
            resumed_at,
            set_aside: 0,
            phase,
            wishes,
            wished_elsewhere: false,
            pace: Pace::new(options.batch_events_max),
            throttle: Throttle::new(assignment.share.clone()),
            head: assignment.journal.head(),
            failed_reset: None,
            seed: assignment.beginning.seed.as_ref(),
            failed_seed: None,
            unspoken: Arc::new(assignment.view.unspoken().await?.into_iter().collect()),
            cap: None,
            has_moved: false,
            suspect: None,
            marked: None,
            looked: assignment.clock.now(),
            index_at,
        };
        run.report();
        Ok(run)
    }

    /// Step after step, until the run ends; `None` when it is to begin anew. An error means that the claim is in
    /// doubt: begin again.
    async fn go_on(&mut self) -> Result<Option<Ended>, StoreError> {
        loop {
            if let Break(end) = self.step().await? {
                return Ok(end);
            }
        }
    }

    async fn step(&mut self) -> Result<Next, StoreError> {
        if self.assignment.is_stopped() {
            return Ok(Break(Some(Ended::Stopped)));
        }
        if self.has_other_claims().await? {
            return Ok(Break(None));
        }
        // First, so that what is wished for after a pause is not done before the pause is seen.
        let wished = self.next_wish().await?;
        if self.heed().paused {
            return Ok(self.stay_paused().await);
        }
        self.looked = self.assignment.clock.now();
        if let Some(from) = self.seed {
            let head = *self.head.borrow();
            if self.assignment.is_barred(head).await? {
                return Ok(self.wait().await);
            }
            return self.begin_as_copy(from).await;
        }
        if let Break(end) = self.leave_replay().await? {
            return Ok(Break(end));
        }
        let is_whole = self.segments.is_whole();
        if !is_whole && self.assignment.carried.options.rows == Rows::AcrossSegments {
            // Whoever still has one of the others might change the same rows.
            return Ok(self.wait().await);
        }
        if is_whole
            && let Some(replay) = self.asked_replay()
            && let Break(end) = self.take_up(replay).await?
        {
            return Ok(Break(end));
        }
        if is_whole
            && self.index_at.is_some_and(|at| self.segments.covers() >= at)
            && let Break(end) = self.build_indexes().await?
        {
            return Ok(Break(end));
        }
        // One wish and one batch in turns, so that neither holds the other back.
        let has_wish = wished.is_some();
        if let Some(letter) = wished
            && let Break(end) = self.carry_out(letter).await?
        {
            return Ok(Break(end));
        }
        self.look_at_cap().await?;
        let head = *self.head.borrow_and_update();
        // Where others have segments too, one of all builds the indexes, once every segment is there.
        let index_at = self.index_at.filter(|_| !is_whole);
        let head = self.cap.into_iter().chain(index_at).fold(head, Position::min);
        let Some(share) = self.segments.next_share(head, self.looked) else {
            return if has_wish { Ok(Continue(())) } else { self.rest_at_head().await };
        };
        // A batch ends where the indexes are due, so that whoever sees more covered may rely on them.
        let share = match self.index_at.filter(|at| *at > share.after) {
            Some(at) => share.through(at),
            None => share,
        };
        if self.assignment.is_barred(share.moves_through()).await? {
            return Ok(self.wait().await);
        }
        self.pace.aim(head.since(share.after), self.phase != Phase::Initializing);
        self.take(share).await
    }

    /// There is nothing to apply. Once a while has passed, the view is told what history it is of.
    async fn rest_at_head(&mut self) -> Result<Next, StoreError> {
        if self.mark_due_in().is_none_or(|due| !due.is_zero()) {
            return Ok(self.wait().await);
        }
        match self.land(&Commit::of(self.segments.still())).await? {
            Committed::Done => self.report(),
            Committed::ApplyAgain | Committed::Capped(_) => {}
            Committed::Wrong(error) => return Err(unavailable(error)),
            Committed::Ended(ended) => return Ok(Break(Some(ended))),
        }
        Ok(Continue(()))
    }

    /// How far the view has come in the segments of this run, with these moves.
    fn furthest(&self, moves: &[TokenMove]) -> Position {
        let moved = moves.iter().map(|asked| asked.to);
        moved.chain(self.segments.tokens().iter().map(|token| token.position)).max().unwrap_or_default()
    }

    /// In how long a mark is due, if tokens have moved since the last one.
    fn mark_due_in(&self) -> Option<Duration> {
        let furthest = self.furthest(&[]);
        match self.marked {
            Some((_, through)) if through >= furthest => None,
            Some((at, _)) => Some(limits::MARK_TIME_MAX.saturating_sub(at.elapsed())),
            // One that begins where it was left has a mark; the first commit tells.
            None => None,
        }
    }

    /// The commit, with a mark of the history if one is due: with the first one of a run, and then now and then.
    async fn with_mark<'c>(&mut self, commit: &'c Commit) -> Result<Cow<'c, Commit>, StoreError> {
        let through = self.furthest(&commit.moves);
        if self.marked.is_some_and(|(at, _)| at.elapsed() < limits::MARK_TIME_MAX) || through == Position::START {
            return Ok(Cow::Borrowed(commit));
        }
        let Assignment { journal, view, .. } = self.assignment;
        let history = history::next_mark(&**journal, &**view, through).await?;
        self.marked = Some((Instant::now(), through));
        Ok(Cow::Owned(Commit { history, ..commit.clone() }))
    }

    /// Looks what the catalog says of the version.
    fn heed(&mut self) -> Orders {
        let orders = self.orders.borrow_and_update().clone();
        // In another phase another policy says what becomes of what halts.
        let phase = std::mem::replace(&mut self.phase, orders.phase);
        if orders.resumed_at > self.resumed_at || orders.phase != phase {
            self.resumed_at = orders.resumed_at;
            self.segments.refusals.try_now(self.assignment.clock.now());
            self.failed_reset.iter_mut().chain(&mut self.failed_seed).for_each(Tried::try_now);
        }
        if orders.set_aside.len() > self.set_aside {
            self.set_aside = orders.set_aside.len();
            self.segments.refusals.try_these(&orders.set_aside, self.assignment.clock.now());
        }
        orders
    }

    /// Waits while the version is paused, for other orders or for the stop.
    async fn stay_paused(&mut self) -> Next {
        self.throttle.begin(false);
        self.report();
        let mut stop = self.assignment.stop.clone();
        let due = self.claims.due_in(self.assignment.claims.0.me());
        let stopped = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => true,
            changed = self.orders.changed() => changed.is_err(),
            () = self.claims.changed() => false,
            () = after(due) => false,
        };
        unless(stopped)
    }

    /// Waits for the head, for whatever is due for another try, for orders or wishes, or for the stop.
    async fn wait(&mut self) -> Next {
        self.throttle.begin(false);
        self.report();
        let mut stop = self.assignment.stop.clone();
        // Seen is what was looked at, not what ended the waiting.
        let mut wishes = self.wishes.clone();
        let tried = self.failed_reset.iter().chain(&self.failed_seed).map(Tried::due_in);
        let claims_due = self.claims.due_in(self.assignment.claims.0.me());
        let cap_due = self.cap.map(|_| HOLD_LOOK);
        // As of the look: what has come due since then was not seen to be, and nothing else would wake for it.
        let due = tried.chain(self.segments.next_due(self.looked));
        // A mark that is due already is given at the head; whoever waits for something else waits for that.
        let mark_due = self.mark_due_in().filter(|due| !due.is_zero());
        let due = due.chain(claims_due).chain(cap_due).chain(mark_due).min();
        let stopped = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => true,
            changed = self.orders.changed() => changed.is_err(),
            changed = wishes.changed() => changed.is_err(),
            // A journal that closes takes its sender with it.
            changed = self.head.changed() => changed.is_err(),
            () = self.claims.changed() => false,
            () = after(due) => false,
        };
        unless(stopped)
    }

    /// Applies and commits one batch for the segments of `share`, as far as their handler lets it.
    async fn take(&mut self, share: Share) -> Result<Next, StoreError> {
        let (share, started) = (self.close_in(share), Instant::now());
        let mut batch = Batch { share, started, tried: started, refused: BTreeSet::new() };
        self.aside.begin(self.assignment.clock.now());
        let began = Some((batch.share.after, batch.started));
        self.assignment.progress.send_modify(|progress| progress.batch = began);
        loop {
            batch.tried = Instant::now();
            self.throttle.begin(self.pace.is_far());
            let Some(Applied { events, by_segment }) = self.apply(&mut batch).await? else {
                if self.view.wants_indexes() {
                    return self.index_first().await;
                }
                self.view.rollback().await.map_err(unavailable)?;
                self.aside.begin_again();
                continue;
            };
            match self.land(&self.commit_of(&batch, &by_segment)).await? {
                Committed::Done => {
                    self.aside.committed();
                    self.has_moved = true;
                    self.pace.took(events, self.throttle.worked(batch.tried));
                    self.report();
                    self.rest().await;
                    return Ok(Continue(()));
                }
                Committed::ApplyAgain => self.aside.begin_again(),
                Committed::Capped(cap) => {
                    self.aside.begin_again();
                    if cap <= batch.share.after {
                        self.report();
                        return Ok(Continue(()));
                    }
                    batch.share = batch.share.through(cap);
                }
                Committed::Wrong(error) => {
                    self.aside.begin_again();
                    self.narrow(error, &mut batch).await?;
                }
                Committed::Ended(ended) => return Ok(Break(Some(ended))),
            }
        }
    }

    /// Reads and applies, one read while the one before is applied, until the batch is as large as it should be or has
    /// taken its time, be that in the middle of a read; the share then goes no further than that. What was applied is
    /// not kept: it is read again in the rare case that it must be applied again. `None`: the rows must be taken back,
    /// since a handler failed after it had changed some, and the batch goes no further than that event; or since it
    /// wants indexes.
    async fn apply(&mut self, batch: &mut Batch) -> Result<Option<Applied>, StoreError> {
        let Assignment { journal, carried, offload, busy, .. } = self.assignment;
        let (mut after, mut events) = (batch.share.after, 0);
        let mut by_segment = vec![0; batch.share.limits().len()];
        let began_at = self.assignment.beginning.began_at;
        let past = self.segments.each(|token| token.replays_through().max(began_at));
        let speaks = self.speaks(self.segments.each(Token::replays_through));
        let mut ahead: Option<Ahead> = None;
        // Once every segment of the share halts, there is nothing more to read for them.
        while !batch.share.is_empty() {
            let read = match &mut ahead {
                Some(ahead) => ahead.done().await?,
                None => journal.read(after, &self.filter, Limit::events(self.pace.events())).await?,
            };
            (after, events) = (read.through, events + read.len());
            let is_full = events >= self.pace.events() || after >= batch.share.moves_through();
            ahead = (!is_full).then(|| {
                Ahead::begin(*offload, journal, after, &self.filter, Limit::events(self.pace.events() - events))
            });
            let left = self.pace.target().saturating_sub(batch.tried.elapsed());
            let until = Instant::now() + left.min(limits::BATCH_TIME_TARGET_FAR);
            let mut from = 0;
            let last = loop {
                let work = Work {
                    batch: &read,
                    from,
                    segments: self.segments.count(),
                    through: batch.share.limits(),
                    past: &past,
                    speaks: speaks.as_ref(),
                    applied: &mut by_segment,
                    aside: &mut self.aside,
                    busy,
                    time_max: carried.options.handler_time_max,
                    until,
                };
                let done = carried.handlers.apply(work, &mut self.view).await;
                // Whatever it made of being refused them.
                if self.view.wants_indexes() {
                    return Ok(None);
                }
                let failure = match done {
                    Ok(last) => break last,
                    Err(failure) => failure,
                };
                // What refused it may follow from the mistake of an earlier event.
                if !matches!(failure.cause, FailureCause::Store(_))
                    && self.is_blamed_on_another(read.get(failure.index).position, batch).await?
                {
                    return Ok(None);
                }
                let (event, changed) = (read.get(failure.index), failure.changed);
                from = failure.index + 1;
                let (segment, is_aside) = (failure.segment, self.judge(failure, &event, batch)?);
                if changed {
                    batch.share = batch.share.through(event.position);
                    return Ok(None);
                }
                by_segment[usize::from(segment.get())] += u64::from(is_aside);
            };
            if let Some(last) = last {
                after = read.get(last).position;
                events -= read.len() - (last + 1);
            }
            if is_full || last.is_some() || self.is_over(batch) || self.rest().await {
                batch.share = batch.share.through(after);
                break;
            }
        }
        Ok(Some(Applied { events, by_segment }))
    }

    /// Whether a batch should end though there is more to read. One that began a transaction with a statement of its own
    /// is not kept open for longer than any other may take, since it blocks others, and a store may end what is idle.
    fn is_over(&self, batch: &Batch) -> bool {
        let time = batch.tried.elapsed();
        let is_open = self.view.has_sent() && time >= limits::BATCH_TIME_TARGET_FAR;
        time >= self.pace.target() || is_open || self.view.is_full() || self.is_waited_for()
    }

    /// Whether there is something to do between two batches: a stop, orders, wishes, or segments that are to be had or
    /// let go of.
    fn is_waited_for(&self) -> bool {
        // An error means that nobody can tell anything any more.
        let told = |changed: Result<bool, RecvError>| changed.unwrap_or(false);
        self.assignment.is_stopped()
            || told(self.orders.has_changed())
            || told(self.wishes.has_changed())
            || self.claims.is_told()
            || self.throttle.is_told()
    }

    /// For which events effects are kept, if the projection reacts.
    fn speaks(&self, replays_through: Vec<Position>) -> Option<Speaks> {
        let Assignment { carried, voices, id, .. } = self.assignment;
        (!carried.effect_names().is_empty()).then(|| Speaks {
            version: id.version,
            past: carried.options.effects.past,
            voices: voices.borrow().clone(),
            replays_through,
            unspoken: Arc::clone(&self.unspoken),
        })
    }

    /// Takes the rest that is due, and tells whether the stop came meanwhile.
    async fn rest(&mut self) -> bool {
        let Some(rest) = self.throttle.due() else { return false };
        let began = Instant::now();
        let stopped = self.assignment.stopped_within(rest).await;
        self.throttle.rested(began.elapsed());
        stopped
    }

    /// The commit of a batch: its moves, and what is kept of the events that were refused.
    fn commit_of(&self, batch: &Batch, by_segment: &[u64]) -> Commit {
        let mut moves = self.segments.moves(&batch.share, by_segment);
        let stays = batch.refused.iter().filter(|segment| !batch.share.has(**segment));
        moves.extend(stays.map(|segment| self.segments.stay(*segment)));
        let refused = batch.refused.iter().filter_map(|segment| self.segments.refusals.get(*segment)).cloned();
        Commit { moves, refused: refused.collect(), letters: self.aside.of_batch(), ..Commit::default() }
    }

    /// Commits, waiting for the end of a hold if there is one.
    async fn land(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        let marked = self.marked;
        let commit = &*self.with_mark(commit).await?;
        let landed = self.land_as_it_is(commit).await;
        if !matches!(landed, Ok(Committed::Done)) {
            self.marked = marked;
        }
        landed
    }

    async fn land_as_it_is(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        loop {
            // Asked for before trying, so that a hold lifted in between is not missed.
            let lifted = Arc::clone(&self.assignment.lifted);
            let mut lifted = std::pin::pin!(lifted.notified());
            lifted.as_mut().enable();
            let (held_for, must_reapply) = match self.view.commit(commit).await {
                Ok(()) => {
                    self.segments.committed(&commit.moves);
                    return Ok(Committed::Done);
                }
                Err(NotCommitted::Held { held_for, must_reapply }) => (held_for, must_reapply),
                Err(NotCommitted::Capped(cap)) => {
                    self.cap = Some(cap);
                    return Ok(Committed::Capped(cap));
                }
                Err(NotCommitted::Fenced(refused)) => return Ok(Committed::Ended(Ended::Fenced(refused))),
                Err(NotCommitted::Failed(error)) if error.is_passing() => return Err(unavailable(error)),
                Err(NotCommitted::Failed(error)) => return Ok(Committed::Wrong(error)),
            };
            self.assignment.progress.send_modify(|progress| progress.waiting_on = vec![WaitingOn::Hold { held_for }]);
            let mut stop = self.assignment.stop.clone();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(Committed::Ended(Ended::Stopped)),
                () = lifted => {}
                () = tokio::time::sleep(HOLD_LOOK) => {}
            }
            if must_reapply {
                return Ok(Committed::ApplyAgain);
            }
        }
    }

    /// Looks whether the store still lets its segments move only so far.
    async fn look_at_cap(&mut self) -> Result<(), StoreError> {
        if self.cap.is_some() {
            let tokens = self.assignment.view.tokens().await?;
            self.cap = tokens.iter().filter_map(|token| token.cap).min();
        }
        Ok(())
    }

    fn report(&self) {
        let mut waiting_on = self.segments.refusals.waiting_on();
        waiting_on.extend(self.failed_reset.as_ref().map(replay::waiting_on));
        waiting_on.extend(self.failed_seed.as_ref().zip(self.seed).map(|(tried, from)| seed::waiting_on(tried, from)));
        waiting_on.extend(self.throttle.share().map(|share| WaitingOn::Share { share }));
        let letters = self.aside.count() as u64;
        self.assignment.progress.send_modify(|progress| {
            progress.see(self.segments.tokens());
            (progress.letters, progress.batch, progress.waiting_on) = (Some(letters), None, waiting_on);
        });
    }
}

fn unless(stopped: bool) -> Next {
    if stopped { Break(Some(Ended::Stopped)) } else { Continue(()) }
}

/// Ends after this time, if there is one.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// A failure of the view that is not the handler's: the claim is in doubt, so the run begins again.
fn unavailable(error: ViewError) -> StoreError {
    StoreError::unavailable("write the view", error)
}
