//! Processors: one version's run over the journal.
//!
//! A processor claims its segments, reads the feed after the lowest token among them, hands a batch to its [`Sink`] and
//! commits what was made of it together with the tokens (I-3), under the epoch that it claimed (I-4). Segments at
//! different tokens are caught up lowest first, up to the next token above, so nothing is read twice for a segment and one
//! that halts does not hold the others back; after a long halt it takes turns with those that follow the head. This is the
//! only place from which tokens move.
//!
//! Each step of a run asks these questions, in this order ([`Run`]). Two of them are the sink's own to answer.
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
//! A handler that fails before it has changed anything costs the others nothing: the batch goes on after the event.
//! Only if it has is what it did taken back with the batch, which is then applied again through the event.
//!
//! It never decides about phases. What it must know of the catalog comes as [`Orders`], late as it may be; but before it
//! takes events it asks the catalog, folded as far as they go, whether its code is the one to read them ([`Fence`]).

mod batch;
mod claims;
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
    WorkShare,
};
use dacapo_store::{Clock, Filter, Journal, StoreError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::code::Options;
use crate::landing::Mistake;
use crate::limits;
use crate::reads::Fence;
use crate::world::{Offload, Probe};
use run::Run;
use sink::Sink;

pub(crate) use claims::Claims;
pub(crate) use rows::{Beginning, Rows, Stored};
pub(crate) use segments::Progress;

/// What a processor works on and with.
pub(crate) struct Assignment {
    pub(crate) id: ViewId,
    pub(crate) options: Options,
    /// The events that it reads.
    pub(crate) filter: Filter,
    /// What keeps it from passing events that the version reads and this code does not.
    pub(crate) fence: Fence,
    /// How much of the time it works while the head is far.
    pub(crate) share: watch::Receiver<WorkShare>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) offload: Offload,
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
    /// Told whenever something is wished of the sink, such as what becomes of events that are set aside.
    pub(crate) wishes: watch::Receiver<()>,
    /// Told whenever a hold is lifted.
    pub(crate) lifted: Arc<Notify>,
    pub(crate) progress: Arc<watch::Sender<Progress>>,
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
pub(crate) async fn run<S: Sink>(assignment: Assignment, place: S::Place) -> Ended {
    let mut stop = assignment.stop.clone();
    let out_of_time = async {
        // An error means that whoever could stop this is gone, and with it maybe the runtime and its timers.
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
    let mut resumed_at = assignment.orders.borrow().resumed_at;
    let mut try_now = assignment.is_corrected;
    let mut told = None;
    loop {
        let began = Instant::now();
        let error = match Run::<S>::begin(assignment, place, resumed_at, try_now).await {
            Ok(mut run) => match run.go_on().await {
                // What is another's now is claimed by it; the rest is claimed again.
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
                    // It may have failed between a resumption and the try that this was for.
                    try_now = try_now && !run.has_moved || run.resumed_at > resumed_at;
                    resumed_at = run.resumed_at;
                    // Only a run that got somewhere begins the count anew: a disk may be full for every commit. It is
                    // logged anew only after one that went well for a while.
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
            tracing::warn!(view = %assignment.id, %error, "the processor cannot go on for the moment");
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

/// A failure of what is written to that is not the handler's: the claim is in doubt, so the run begins again.
fn unavailable(error: impl Mistake) -> StoreError {
    StoreError::unavailable("write the view", error)
}
