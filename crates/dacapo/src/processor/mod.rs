//! Processors: one version's run over the journal.
//!
//! A processor claims its segments, reads the feed after the lowest token among them, passes a batch to its [`Sink`],
//! and commits the result together with the tokens (I-3), under the epoch that it claimed (I-4). Segments at different
//! tokens catch up lowest first, up to the next higher token. So nothing is read twice for a segment, and a segment
//! that halts does not block the others. After a long halt it takes turns with those near the head. Tokens move only
//! from here.
//!
//! Each step of a run asks these questions, in this order ([`Run`]). The sink answers two of them.
//!
//! ```text
//!   ┌─▶ is it stopped? ─▶ are the claims others? ─▶ what is wished for? ─▶ is it paused?
//!   │                                                                          ▼
//!   │      apply ◀── may it read so far? ◀── which segments go next? ◀── prepare the sink
//!   │        │                                                                ▲
//!   │        ▼                                                                │
//!   └──── commit: what was made and the tokens, in one step            a list of steps (`prepare`)
//! ```
//!
//! A batch in detail:
//!
//! ```text
//!              ┌──────────── lowest tokens among the segments that may run ◀───────────┐
//!              ▼                                                                       │
//!   read after them, through the next token above ───▶ apply ──▶ commit, tokens as well┤
//!                                                        │                │            │
//!                       the handler refuses an event ◀───┘   held, fenced │            │
//!                       its segment stops before it, or       or store ───┘            │
//!                       it is set aside; the others go on ─────────────────────────────┘
//! ```
//!
//! A handler that fails before it has changed anything costs the others nothing: the batch continues after the event.
//! Only if it has changed something, its changes are rolled back with the batch, which is then applied again through
//! the event.
//!
//! It never decides about phases. It gets the necessary facts of the catalog as [`Orders`], possibly late. But before
//! it takes events, it asks the catalog, folded through their positions, whether its code may read them ([`Fence`]).

mod batch;
mod claims;
mod inbox;
mod judge;
mod land;
mod pace;
mod prepare;
mod refusals;
mod rows;
mod run;
mod segments;
mod sink;
#[cfg(test)]
mod tests;
mod throttle;
mod tries;
mod wishes;

use std::collections::BTreeSet;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{
    BackOff, Parted, PendingReplay, Phase, Position, SegmentCount, TokenRefused, VersionState, ViewId, WaitingOn,
};
use dacapo_store::{Clock, Filter, Journal, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::code::Options;
use crate::landing::Mistake;
use crate::limits;
use crate::reads::Fence;
use crate::world::{Offload, Probe};
use run::Run;
use sink::Sink;

pub(crate) use claims::Claims;
pub(crate) use inbox::{Commands, Inbox};
pub(crate) use rows::{Beginning, Rows, Stored};
pub(crate) use segments::Progress;

/// The work of a processor, and the means for it.
pub(crate) struct Assignment {
    pub(crate) id: ViewId,
    pub(crate) options: Options,
    /// The events that it reads.
    pub(crate) filter: Arc<Filter>,
    /// Prevents it from passing events that the version reads and this code does not.
    pub(crate) fence: Fence,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) offload: Offload,
    /// The number of segments of the version.
    pub(crate) segments: SegmentCount,
    /// The means to claim them.
    pub(crate) claims: Claims,
    /// The clock for times that people read.
    pub(crate) clock: Arc<dyn Clock>,
    /// The clock for the due times of refused events, which is never set while the process runs.
    pub(crate) steady: Arc<dyn Clock>,
    /// True if those events are retried at once, since this is not the code that refused them.
    pub(crate) is_corrected: bool,
    pub(crate) inbox: Inbox,
    pub(crate) progress: Arc<watch::Sender<Progress>>,
    pub(crate) probe: Arc<dyn Probe>,
}

/// The facts of the catalog about a version that its processor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The phase, which decides about the policy.
    phase: Phase,
    /// True if nothing must be applied.
    paused: bool,
    /// The position of the last resumption. Segments that halt are then retried at once.
    resumed_at: Option<Position>,
    /// The last requested replay in place.
    replay: Option<PendingReplay>,
    /// The events that are set aside once they are refused.
    set_aside: Arc<BTreeSet<Position>>,
    /// The position at which the catalog last recorded a change of what the code reads, which is looked up then.
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

/// The reason why a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The stop was requested, and it has finished its batch.
    Stopped,
    /// The stop was requested, and its batch was given up after [`limits::STOP_TIME_MAX`]. Nothing of it was committed.
    GivenUp,
    /// Another claim took its segments (I-4).
    Fenced(TokenRefused),
    /// The view does not belong to the journal any more.
    Parted,
}

/// The continuation of a run after a step: the next step; or the end, with its reason or `None` for a new run.
type Next<T = ()> = ControlFlow<Option<Ended>, T>;

/// Runs until it is stopped or fenced. After a failure of the store it waits and retries.
///
/// A handler that waits for something when the stop arrives has [`limits::STOP_TIME_MAX`] for the rest of its batch. A
/// handler that computes without end cannot be stopped, so the caller that stops a run must not wait for its end for
/// ever.
pub(crate) async fn run<S: Sink>(assignment: Assignment, place: S::Place) -> Ended {
    let mut stop = assignment.inbox.stop.clone();
    let out_of_time = async {
        // An error means that the sender of the stop is gone, and possibly the runtime and its timers.
        if stop.wait_for(|stop| *stop).await.is_ok() {
            tokio::time::sleep(limits::STOP_TIME_MAX).await;
        }
    };
    tokio::select! {
        biased;
        ended = run_on::<S>(&assignment, &place) => ended,
        () = out_of_time => Ended::GivenUp,
    }
}

async fn run_on<S: Sink>(assignment: &Assignment, place: &S::Place) -> Ended {
    let mut back_off = BackOff::new(limits::STORE_RETRY_PAUSE_FIRST, limits::STORE_RETRY_PAUSE_MAX);
    let mut resumed_at = assignment.inbox.orders.borrow().resumed_at;
    let mut try_now = assignment.is_corrected;
    let mut told = None;
    loop {
        let began = Instant::now();
        let error = match Run::<S>::begin(assignment, place, resumed_at, try_now).await {
            Ok(mut run) => match run.go_on().await {
                // Another member claims its segments now. The rest is claimed again.
                Ok(Some(Ended::Fenced(refused))) => {
                    tracing::info!(view = %assignment.id, %refused, "segments are claimed by another");
                    back_off.reset();
                    if assignment.stopped_within(limits::STORE_RETRY_PAUSE_FIRST).await {
                        return Ended::Stopped;
                    }
                    continue;
                }
                Ok(Some(ended)) => return ended,
                Ok(None) => {
                    back_off.reset();
                    continue;
                }
                Err(StoreError::Parted(parted)) => return assignment.parted(parted),
                Err(error) => {
                    // The failure may lie between a resumption and the try that should follow it.
                    try_now = try_now && !run.has_moved || run.heeded.resumed_at > resumed_at;
                    resumed_at = run.heeded.resumed_at;
                    // Only a run that made progress resets the count, since a full disk fails every commit. A failure
                    // is logged again only after a run that went well for a while.
                    if run.has_moved {
                        back_off.reset();
                    }
                    told = told.filter(|_| !run.has_moved || began.elapsed() < limits::STORE_RETRY_PAUSE_MAX);
                    error
                }
            },
            Err(StoreError::Parted(parted)) => return assignment.parted(parted),
            Err(error) => error,
        };
        let found = error.to_string();
        if told.as_ref() != Some(&found) {
            tracing::warn!(view = %assignment.id, %error, "the processor cannot continue now, and retries");
            told = Some(found);
        }
        assignment.report_store(S::damaged(place), &error);
        if assignment.stopped_within(back_off.pause()).await {
            return Ended::Stopped;
        }
    }
}

impl Assignment {
    fn report_store(&self, damaged: Option<String>, error: &StoreError) {
        let waiting = match damaged {
            Some(error) => WaitingOn::Damaged { error },
            None => WaitingOn::Store { error: error.to_string() },
        };
        self.progress.send_modify(|progress| progress.fails(waiting));
    }

    /// Records that nothing waits for the store any more.
    fn report_recovery(&self) {
        self.progress.send_if_modified(Progress::recovers);
    }

    /// Returns true if its code may not move a token past that position. The status shows the reason.
    async fn is_barred(&self, through: Position) -> Result<bool, StoreError> {
        Ok(self.fence.unlike(through).await?.is_some())
    }

    /// Ends the run, since nothing of this journal may be applied to the view.
    fn parted(&self, parted: Parted) -> Ended {
        tracing::error!(view = %self.id, %parted, "the view does not belong to the journal, and is closed");
        self.progress.send_modify(|progress| progress.waiting_on = vec![WaitingOn::Parted { parted }]);
        Ended::Parted
    }

    /// Waits. Returns true if the stop arrived meanwhile.
    async fn stopped_within(&self, wait: Duration) -> bool {
        let mut stop = self.inbox.stop.clone();
        let stopped = stop.wait_for(|stop| *stop);
        // An error means that the sender of the stop is gone, which counts as a stop.
        tokio::time::timeout(wait, stopped).await.is_ok()
    }

    fn is_stopped(&self) -> bool {
        *self.inbox.stop.borrow() || self.inbox.stop.has_changed().is_err()
    }

    /// Does work that may take very long. If the stop or a pause arrives meanwhile, the work is given up, and with it
    /// the writer that it used.
    async fn unless_called_off<T>(&self, work: impl Future<Output = T>) -> Next<T> {
        let (mut stop, mut orders) = (self.inbox.stop.clone(), self.inbox.orders.clone());
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Break(Some(Ended::Stopped)),
            // An error means that the sender of the stop is gone, which counts as a stop.
            paused = orders.wait_for(|orders| orders.paused) => Break(paused.is_err().then_some(Ended::Stopped)),
            done = work => Continue(done),
        }
    }
}

/// Returns the error for a failure of the sink that is not the handler's. The claim is in doubt, so the run begins
/// again.
fn unavailable(error: impl Mistake) -> StoreError {
    StoreError::unavailable("write the view", error)
}
