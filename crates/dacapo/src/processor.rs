//! Processors: one version's run over the journal.
//!
//! A processor claims its segments, reads the feed behind the lowest token among them, applies a batch
//! and commits rows and tokens together (I-3) under the epoch it claimed (I-4). Segments at different
//! tokens are caught up lowest first, up to the next token above, so nothing is read twice for a segment
//! and one that halts never holds the others back. This is the only place from which tokens move.
//!
//! ```text
//!              ┌──────────── lowest tokens among the segments that may run ◀───────────┐
//!              ▼                                                                       │
//!   read behind them, through the next token above ──▶ apply ──▶ commit rows and tokens┤
//!                                                        │                │            │
//!                       the handler refuses an event ◀───┘   held, fenced │            │
//!                       its segment stops before it,          or store ───┘            │
//!                       the batch is applied again ────────────────────────────────────┘
//! ```
//!
//! It never decides about phases, and it never reads the catalog.

mod index;
mod pace;
mod replay;
mod seed;
mod segments;
mod throttle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{PendingReplay, Position, Token, TokenRefused, VersionState, ViewId, WaitingOn, WorkShare, limits};
use dacapo_store::{Commit, Filter, Journal, Limit, StoreError, View as StoredView};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::feed::Ahead;
use crate::projection::{Carried, Failure, FailureCause, Work};
use crate::reactor::{Speaks, Voices};
use crate::seed::SeedFrom;
use crate::view::{NotCommitted, View, ViewError};
use crate::world::{Offload, Probe};
use pace::Pace;
use replay::{FailedReset, TakenUp};
use segments::{Refusal, Segments, Share};
use throttle::Throttle;

pub(crate) use segments::Progress;

/// How long the first retry of whatever failed waits; each further one waits twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries of a handler.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The longest wait between two tries of the store, whose failures are nobody's mistake and pass unannounced.
const STORE_RETRY_MAX: Duration = Duration::from_secs(1);
/// How often a held processor looks whether it was let go, should nobody tell it.
const HOLD_LOOK: Duration = Duration::from_millis(20);

/// What a processor works on and with.
pub(crate) struct Assignment {
    pub(crate) id: ViewId,
    pub(crate) carried: Carried,
    /// Events through here are the past, which is replayed.
    pub(crate) began_at: Position,
    /// What it begins as a copy of.
    pub(crate) seed: Option<SeedFrom>,
    /// How much of the time it works while the head is far.
    pub(crate) share: watch::Receiver<WorkShare>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) offload: Offload,
    pub(crate) view: Arc<dyn StoredView>,
    /// Told whenever a hold is lifted.
    pub(crate) lifted: Arc<Notify>,
    pub(crate) progress: watch::Sender<Progress>,
    /// What the catalog wants of the version.
    pub(crate) wanted: watch::Receiver<Wanted>,
    /// Whose effects are whose.
    pub(crate) voices: watch::Receiver<Voices>,
    pub(crate) probe: Arc<dyn Probe>,
    /// How far it may go, if it is not to follow the head.
    pub(crate) cap: watch::Receiver<Option<Position>>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What the catalog wants of a version that runs: the rebuild driver tells its processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The last replay in place that was asked for.
    pub(crate) replay: Option<PendingReplay>,
}

impl Wanted {
    pub(crate) fn of(state: &VersionState) -> Self {
        Self { replay: state.last_replay }
    }
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
}

/// Runs until it is stopped or fenced. Failures of the store are waited out.
///
/// A handler that waits for something when the stop comes has [`limits::STOP_TIME_MAX`] for the rest of its batch;
/// one that computes without end cannot be stopped.
pub(crate) async fn run(assignment: Assignment) -> Ended {
    let mut stop = assignment.stop.clone();
    let out_of_time = async {
        let stopped = stop.wait_for(|stop| *stop).await.is_ok();
        tokio::time::sleep(if stopped { limits::STOP_TIME_MAX } else { Duration::ZERO }).await;
    };
    tokio::select! {
        biased;
        ended = run_on(&assignment) => ended,
        () = out_of_time => Ended::GivenUp,
    }
}

async fn run_on(assignment: &Assignment) -> Ended {
    let mut attempts = 0;
    loop {
        let error = match Run::begin(assignment).await {
            Ok(mut run) => match run.go_on().await {
                Ok(Some(ended)) => return ended,
                Ok(None) => {
                    attempts = 0;
                    continue;
                }
                Err(error) => {
                    // Only a run that got somewhere begins the count anew: a disk may be full for every commit.
                    attempts = if run.has_moved { 0 } else { attempts };
                    error
                }
            },
            Err(error) => error,
        };
        assignment.report_store(&error);
        attempts += 1;
        if assignment.stopped_within(back_off(attempts).min(STORE_RETRY_MAX)).await {
            return Ended::Stopped;
        }
    }
}

fn back_off(attempts: u32) -> Duration {
    RETRY_MAX.min(RETRY_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)))
}

impl Assignment {
    fn report_store(&self, error: &StoreError) {
        tracing::warn!(view = %self.id, %error, "the processor cannot go on for the moment");
        let waiting = WaitingOn::Store { error: error.to_string() };
        self.progress.send_modify(|progress| progress.waiting_on = vec![waiting]);
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
}

/// A run under one claim.
struct Run<'a> {
    assignment: &'a Assignment,
    filter: Arc<Filter>,
    view: View,
    segments: Segments,
    pace: Pace,
    throttle: Throttle,
    head: watch::Receiver<Position>,
    wanted: watch::Receiver<Wanted>,
    failed_reset: Option<FailedReset>,
    /// Events that a replay comes past again and that were never applied.
    unspoken: Arc<BTreeSet<Position>>,
    cap: watch::Receiver<Option<Position>>,
    has_moved: bool,
    /// Once this is covered, the view gets the indexes that it lacks; `None` once it has them.
    index_at: Option<Position>,
}

/// A batch that was applied and not yet committed.
struct Applied {
    events: usize,
    /// How many of them each segment of the version was handed.
    by_segment: Vec<u64>,
}

/// What a commit came to.
enum Committed {
    Done,
    /// It must be applied again: the writer had sent rows that the refused commit took back.
    ApplyAgain,
    Stopped,
    Fenced(TokenRefused),
}

impl<'a> Run<'a> {
    async fn begin(assignment: &'a Assignment) -> Result<Self, StoreError> {
        let tokens = assignment.view.claim().await?;
        let options = &assignment.carried.options;
        let tables = assignment.carried.tables;
        let bare = !assignment.view.missing_indexes(tables).await?.is_empty();
        let writer = assignment.view.writer().await?;
        let first = tokens[0].segment;
        let view = View::new(writer, tables)
            .with_bytes_max(options.row_cache_bytes)
            .lacking_indexes(bare)
            .with_effects(assignment.carried.effect_names(), first);
        let run = Self {
            assignment,
            filter: Arc::new(assignment.carried.filter.clone()),
            view,
            segments: Segments::new(tokens),
            pace: Pace::new(options.batch_events_max),
            throttle: Throttle::new(assignment.share.clone()),
            head: assignment.journal.head(),
            wanted: assignment.wanted.clone(),
            failed_reset: None,
            unspoken: Arc::new(assignment.view.unspoken().await?.into_iter().collect()),
            cap: assignment.cap.clone(),
            has_moved: false,
            index_at: bare.then(|| if options.index_last { assignment.began_at } else { Position::START }),
        };
        run.report();
        Ok(run)
    }

    /// Batch after batch, until the run ends; `None` when it is to begin anew. An error means that the claim is in
    /// doubt: begin again.
    async fn go_on(&mut self) -> Result<Option<Ended>, StoreError> {
        if let Some(ended) = self.seed().await? {
            return Ok(Some(ended));
        }
        loop {
            if self.assignment.is_stopped() {
                return Ok(Some(Ended::Stopped));
            }
            self.wanted.mark_unchanged();
            if let Some(replay) = self.asked_replay() {
                match self.take_up(replay).await? {
                    TakenUp::Begins => return Ok(None),
                    TakenUp::Later => {}
                    TakenUp::Ended(ended) => return Ok(Some(ended)),
                }
            }
            if self.index_at.is_some_and(|at| self.segments.covers() >= at)
                && let Some(ended) = self.build_indexes().await?
            {
                return Ok(Some(ended));
            }
            // The head first: who has set a cap knows that what began without it ends at the head of that time.
            let head = *self.head.borrow_and_update();
            let head = self.cap.borrow_and_update().map_or(head, |cap| cap.min(head));
            let Some(share) = self.segments.next_share(head, Instant::now()) else {
                if self.wait().await {
                    return Ok(Some(Ended::Stopped));
                }
                continue;
            };
            // A batch ends where the indexes are due, so that whoever sees more covered may rely on them.
            let share = match self.index_at.filter(|at| *at > share.after) {
                Some(at) => share.through(at),
                None => share,
            };
            self.pace.aim(head.since(share.after));
            self.throttle.begin(self.pace.is_far());
            if let Some(ended) = self.take(share).await? {
                return Ok(Some(ended));
            }
        }
    }

    /// Waits for the head, for what is due for another try, for another wish, or for the stop, which it tells.
    async fn wait(&mut self) -> bool {
        self.throttle.begin(false);
        self.report();
        let mut stop = self.assignment.stop.clone();
        let reset_due = self.failed_reset.as_ref().map(|failed| failed.due);
        let due = self.segments.next_due().into_iter().chain(reset_due).min();
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => true,
            // A journal that closes takes its sender with it.
            changed = self.head.changed() => changed.is_err(),
            // Who has the other side has that of the stop as well.
            Ok(()) = self.wanted.changed() => false,
            // An error means that nobody can set a cap any more; then nothing comes of it.
            Ok(()) = self.cap.changed() => false,
            () = due => false,
        }
    }

    /// Applies and commits one batch for the segments of `share`; where a handler refuses an event, once
    /// more without it.
    async fn take(&mut self, mut share: Share) -> Result<Option<Ended>, StoreError> {
        let started = Instant::now();
        self.assignment.progress.send_modify(|progress| progress.batch = Some((share.after, started)));
        loop {
            let failure = match self.apply(&mut share, started).await? {
                Ok(Applied { events, by_segment }) => match self.commit(&share, &by_segment).await? {
                    Committed::Done => {
                        self.has_moved = true;
                        self.pace.took(events, self.throttle.worked(started));
                        self.report();
                        self.rest().await;
                        return Ok(None);
                    }
                    Committed::ApplyAgain => continue,
                    Committed::Stopped => return Ok(Some(Ended::Stopped)),
                    Committed::Fenced(refused) => return Ok(Some(Ended::Fenced(refused))),
                },
                Err(failure) => failure,
            };
            self.view.rollback().await.map_err(unavailable)?;
            self.refused(failure, &mut share)?;
            if share.is_empty() {
                self.report();
                return Ok(None);
            }
        }
    }

    /// Reads and applies, one read while the one before is applied, until the batch is as large as it should be or has
    /// taken its time; the share then goes no further than that. What was applied is not kept: it is read
    /// again in the rare case that it must be applied again.
    async fn apply(&mut self, share: &mut Share, started: Instant) -> Result<Result<Applied, Failure>, StoreError> {
        let Assignment { journal, carried, offload, .. } = self.assignment;
        let (mut after, mut events) = (share.after, 0);
        let mut by_segment = vec![0; share.limits().len()];
        let began_at = self.assignment.began_at;
        let past: Vec<Position> =
            self.segments.tokens().iter().map(|token| token.replays_through().max(began_at)).collect();
        let speaks = self.speaks();
        let mut ahead: Option<Ahead> = None;
        loop {
            let batch = match &mut ahead {
                Some(ahead) => ahead.done().await?,
                None => journal.read(after, &self.filter, Limit::events(self.pace.events())).await?,
            };
            (after, events) = (batch.through, events + batch.len());
            let is_full = events >= self.pace.events() || after >= share.moves_through();
            ahead = (!is_full).then(|| {
                Ahead::begin(*offload, journal, after, &self.filter, Limit::events(self.pace.events() - events))
            });
            let (segments, through) = (self.segments.count(), share.limits());
            let speaks = speaks.as_ref();
            let work = Work { batch: &batch, segments, through, past: &past, speaks, applied: &mut by_segment };
            if let Err(failure) = carried.handlers.apply(work, &mut self.view).await {
                return Ok(Err(failure));
            }
            let worked = self.throttle.worked(started);
            if is_full || self.view.is_full() || worked >= self.pace.target() || self.rest().await {
                *share = share.through(after);
                return Ok(Ok(Applied { events, by_segment }));
            }
        }
    }

    /// For which events effects are kept, if the projection reacts.
    fn speaks(&self) -> Option<Speaks> {
        let Assignment { carried, voices, id, .. } = self.assignment;
        (!carried.effect_names().is_empty()).then(|| Speaks {
            version: id.version,
            past: carried.options.effects.past,
            voices: voices.borrow().clone(),
            replays_through: self.segments.tokens().iter().map(Token::replays_through).collect(),
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

    /// A segment stops before the event that its handler refuses, and is tried again later.
    fn refused(&mut self, failure: Failure, share: &mut Share) -> Result<(), StoreError> {
        let Failure { segment, position, cause } = failure;
        let error = match cause {
            FailureCause::Handler(error) => error,
            FailureCause::Store(error) => return Err(unavailable(error)),
        };
        let refusal = self.segments.refuse(segment, position, error, Instant::now(), back_off);
        let Refusal { attempts, error, .. } = refusal;
        tracing::warn!(view = %self.assignment.id, %segment, %position, attempts, error, "a handler refuses an event");
        share.stop_before(segment, position);
        Ok(())
    }

    async fn commit(&mut self, share: &Share, applied: &[u64]) -> Result<Committed, StoreError> {
        self.land(Commit::of(self.segments.moves(share, applied))).await
    }

    /// Commits, waiting for the end of a hold if there is one.
    async fn land(&mut self, commit: Commit) -> Result<Committed, StoreError> {
        loop {
            // Asked for before trying, so that a hold lifted in between is not missed.
            let lifted = Arc::clone(&self.assignment.lifted);
            let mut lifted = std::pin::pin!(lifted.notified());
            lifted.as_mut().enable();
            let (held_for, must_reapply) = match self.view.commit(&commit).await {
                Ok(()) => {
                    self.segments.committed(&commit.moves);
                    return Ok(Committed::Done);
                }
                Err(NotCommitted::Held { held_for, must_reapply }) => (held_for, must_reapply),
                Err(NotCommitted::Fenced(refused)) => return Ok(Committed::Fenced(refused)),
                Err(NotCommitted::Failed(error)) => return Err(unavailable(error)),
            };
            self.assignment.progress.send_modify(|progress| progress.waiting_on = vec![WaitingOn::Hold { held_for }]);
            let mut stop = self.assignment.stop.clone();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(Committed::Stopped),
                () = lifted => {}
                () = tokio::time::sleep(HOLD_LOOK) => {}
            }
            if must_reapply {
                return Ok(Committed::ApplyAgain);
            }
        }
    }

    fn report(&self) {
        let mut progress = self.segments.progress();
        progress.waiting_on.extend(self.failed_reset.as_ref().map(FailedReset::waiting_on));
        progress.waiting_on.extend(self.throttle.share().map(|share| WaitingOn::Share { share }));
        self.assignment.progress.send_replace(progress);
    }
}

/// A failure of the view that is not the handler's: the claim is in doubt, so the run begins again.
fn unavailable(error: ViewError) -> StoreError {
    StoreError::unavailable("write the view", error)
}
