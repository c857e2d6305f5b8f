//! A run under one claim, from batch to batch.

use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use dacapo_model::{Phase, Position, Timestamp, TokenMove, WaitingOn};
use dacapo_store::{Commit, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::claims::ClaimLook;
use super::land::Record;
use super::pace::Pace;
use super::prepare::Prepared;
use super::refusals::Refusals;
use super::segments::Segments;
use super::sink::Sink;
use super::throttle::Throttle;
use super::{Assignment, Ended, Next, Orders};
use crate::limits;

/// A run under one claim.
pub(crate) struct Run<'a, S> {
    pub(super) assignment: &'a Assignment,
    pub(super) sink: S,
    pub(super) segments: Segments,
    pub(super) claims: ClaimLook,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) heeded: Heeded,
    pub(super) wishes: watch::Receiver<()>,
    pub(super) pace: Pace,
    pub(super) throttle: Throttle,
    pub(super) head: watch::Receiver<Position>,
    pub(super) bounds: Bounds,
    pub(super) has_moved: bool,
    /// The last mark that this run gave to its sink: the time, and the furthest token then.
    pub(super) marked: Option<(Instant, Position)>,
    /// The time at which this step checked what is due. A later wait counts from here.
    pub(super) looked: Timestamp,
}

/// The orders that a run has taken into account.
pub(super) struct Heeded {
    /// The last resumption.
    pub(super) resumed_at: Option<Position>,
    /// The number of requests to set an event aside.
    set_aside: usize,
    phase: Phase,
}

/// The positions at which the next batches end.
#[derive(Default)]
pub(super) struct Bounds {
    /// The position up to which the store lets its segments move, as far as it was noticed.
    pub(super) cap: Option<Position>,
    /// The end of a batch that failed as a whole, because of one of its events. The next batches narrow it down.
    pub(super) suspect: Option<Position>,
}

impl<'a, S: Sink> Run<'a, S> {
    /// Claims segments, and loads the state of the sink. `resumed_at` is the last resumption that an earlier run has
    /// taken into account.
    pub(super) async fn begin(
        assignment: &'a Assignment,
        place: &S::Place,
        resumed_at: Option<Position>,
        try_now: bool,
    ) -> Result<Self, StoreError> {
        let mut wishes = assignment.inbox.wishes.clone();
        // Wishes from here on are either read below or announced.
        wishes.mark_unchanged();
        let mut sink = S::open(place).await?;
        let seen = sink.tokens().await?;
        assignment.see(&seen);
        let (tokens, claims) = assignment.claim(&mut sink, &seen).await?;
        assignment.progress.send_modify(|progress| progress.claimed(&tokens));
        // The events that get the positions which such a token covers already would be skipped (I-3).
        let furthest = tokens.iter().map(|token| token.position).max().unwrap_or_default();
        if furthest > *assignment.journal.head().borrow() {
            drop(sink.mark(&*assignment.journal, furthest).await?);
        }
        let mut refusals = Refusals::new(sink.begin(&tokens).await?, assignment.options.retry);
        if try_now {
            refusals.try_now(assignment.steady.now());
        }
        let segments = Segments::new(assignment.segments, tokens, refusals);
        let orders = assignment.inbox.orders.clone();
        let phase = orders.borrow().phase;
        let run = Self {
            assignment,
            sink,
            segments,
            claims,
            orders,
            heeded: Heeded { resumed_at, set_aside: 0, phase },
            wishes,
            pace: Pace::new(assignment.options.batch_events_max),
            throttle: Throttle::new(assignment.inbox.share.clone()),
            head: assignment.journal.head(),
            bounds: Bounds::default(),
            has_moved: false,
            marked: None,
            looked: assignment.steady.now(),
        };
        run.report();
        Ok(run)
    }

    /// Takes step after step, until the run ends. Returns `None` if a new run must begin. An error means that the claim
    /// is in doubt: begin again.
    pub(super) async fn go_on(&mut self) -> Result<Option<Ended>, StoreError> {
        loop {
            if let Break(end) = self.step().await? {
                return Ok(end);
            }
        }
    }

    /// Asks the questions of one step, in the order that the documentation of the [processor](super) shows.
    async fn step(&mut self) -> Result<Next, StoreError> {
        if self.assignment.is_stopped() {
            return Ok(Break(Some(Ended::Stopped)));
        }
        if self.has_other_claims().await? {
            return Ok(Break(None));
        }
        // This comes first, so that a wish after a pause is not carried out before the pause is noticed.
        S::listen(self).await?;
        if self.heed().paused {
            return Ok(self.stay_paused().await);
        }
        self.looked = self.assignment.steady.now();
        let prepared = match S::prepare(self).await? {
            Continue(Prepared::Anew) => return Ok(Continue(())),
            Continue(prepared) => prepared,
            Break(end) => return Ok(Break(end)),
        };
        self.look_at_cap().await?;
        let head = *self.head.borrow_and_update();
        // If other members have segments too, one member does the work at that position, once every segment is there.
        let stops_at = self.sink.stops_at().filter(|_| !self.segments.is_whole());
        let head = self.bounds.cap.into_iter().chain(stops_at).fold(head, Position::min);
        let Some(share) = self.segments.next_share(head, self.looked) else {
            return if prepared == Prepared::Done { Ok(Continue(())) } else { self.rest_at_head().await };
        };
        // A batch ends where work is due, so that an observer of a higher position may rely on that work.
        let share = match self.sink.stops_at().filter(|at| *at > share.after) {
            Some(at) => share.through(at),
            None => share,
        };
        if self.assignment.is_barred(share.moves_through()).await? {
            return Ok(self.wait().await);
        }
        self.pace.aim(head.since(share.after), self.heeded.phase != Phase::Initializing);
        self.take(share).await
    }

    /// Waits, since there is nothing to apply. After a while, gives the sink a mark of its history.
    async fn rest_at_head(&mut self) -> Result<Next, StoreError> {
        if self.mark_due_in().is_none_or(|due| !due.is_zero()) {
            return Ok(self.wait().await);
        }
        match self.land(&mut Record(Commit::of(self.segments.still()))).await? {
            Break(end) => return Ok(Break(end)),
            Continue(Some(_)) => self.report(),
            Continue(None) => {}
        }
        Ok(Continue(()))
    }

    /// Returns the furthest position of the sink in the segments of this run, with these moves.
    fn furthest(&self, moves: &[TokenMove]) -> Position {
        let moved = moves.iter().map(|asked| asked.to);
        moved.chain(self.segments.tokens().iter().map(|token| token.position)).max().unwrap_or_default()
    }

    /// Returns the time until a mark is due, if tokens have moved since the last one.
    fn mark_due_in(&self) -> Option<Duration> {
        let furthest = self.furthest(&[]);
        match self.marked {
            Some((_, through)) if through >= furthest => None,
            Some((at, _)) => Some(limits::MARK_TIME_MAX.saturating_sub(at.elapsed())),
            // A run that begins where the last one ended has a mark. The first commit shows it.
            None => None,
        }
    }

    /// Returns the commit, with a mark of the history if one is due: with the first commit of a run, and then from time
    /// to time.
    pub(super) async fn with_mark(&mut self, commit: Commit) -> Result<Commit, StoreError> {
        let through = self.furthest(&commit.moves);
        if self.marked.is_some_and(|(at, _)| at.elapsed() < limits::MARK_TIME_MAX) || through == Position::START {
            return Ok(commit);
        }
        let history = self.sink.mark(&*self.assignment.journal, through).await?;
        self.marked = Some((Instant::now(), through));
        Ok(Commit { history, ..commit })
    }

    /// Reads the orders of the catalog for the version.
    fn heed(&mut self) -> Orders {
        let orders = self.orders.borrow_and_update().clone();
        // In another phase, another policy decides about segments that halt.
        let phase = std::mem::replace(&mut self.heeded.phase, orders.phase);
        let try_now = orders.resumed_at > self.heeded.resumed_at || orders.phase != phase;
        if try_now {
            self.heeded.resumed_at = orders.resumed_at;
            self.segments.refusals.try_now(self.assignment.steady.now());
        }
        S::heed(self, try_now);
        if orders.set_aside.len() > self.heeded.set_aside {
            self.heeded.set_aside = orders.set_aside.len();
            self.segments.refusals.try_these(&orders.set_aside, self.assignment.steady.now());
        }
        orders
    }

    /// Records that a commit has succeeded which brings the version on.
    pub(super) fn moves_on(&mut self) {
        self.has_moved = true;
        self.assignment.report_recovery();
    }

    /// Waits for other orders or for the stop while the version is paused.
    async fn stay_paused(&mut self) -> Next {
        self.throttle.begin(false);
        self.assignment.report_recovery();
        self.report();
        let mut stop = self.assignment.inbox.stop.clone();
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

    /// Waits for the head, for the next try, for orders or wishes, or for the stop.
    pub(super) async fn wait(&mut self) -> Next {
        self.throttle.begin(false);
        // There is nothing to commit. A cap only postpones it.
        if self.bounds.cap.is_none() {
            self.assignment.report_recovery();
        }
        self.report();
        let mut stop = self.assignment.inbox.stop.clone();
        // A change counts as seen if the step has looked at it, not if it ended the wait.
        let mut wishes = self.wishes.clone();
        let claims_due = self.claims.due_in(self.assignment.claims.0.me());
        let cap_due = self.bounds.cap.map(|_| limits::HOLD_LOOK);
        // The times count from the look: what has become due since then was not noticed, and nothing else would wake
        // for it.
        let due = self.sink.next_due(self.looked).into_iter().chain(self.segments.next_due(self.looked));
        // A mark that is due already is given at the head. Any other wait includes waiting for that.
        let mark_due = self.mark_due_in().filter(|due| !due.is_zero());
        let due = due.chain(claims_due).chain(cap_due).chain(mark_due).min();
        let stopped = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => true,
            changed = self.orders.changed() => changed.is_err(),
            changed = wishes.changed() => changed.is_err(),
            // A journal that closes drops its sender.
            changed = self.head.changed() => changed.is_err(),
            () = self.claims.changed() => false,
            () = after(due) => false,
        };
        unless(stopped)
    }

    /// Checks whether the store still limits how far its segments move.
    async fn look_at_cap(&mut self) -> Result<(), StoreError> {
        if self.bounds.cap.is_some() {
            let tokens = self.sink.tokens().await?;
            self.bounds.cap = tokens.iter().filter_map(|token| token.cap).min();
        }
        Ok(())
    }

    pub(super) fn report(&self) {
        let mut waiting_on = self.segments.refusals.reasons();
        waiting_on.extend(self.sink.reasons());
        waiting_on.extend(self.throttle.share().map(|share| WaitingOn::Share { share }));
        let aside = self.sink.aside() as u64;
        self.assignment.progress.send_modify(|progress| progress.rests(self.segments.tokens(), aside, waiting_on));
    }
}

fn unless(stopped: bool) -> Next {
    if stopped { Break(Some(Ended::Stopped)) } else { Continue(()) }
}

/// Ends after this time; never if there is none.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
