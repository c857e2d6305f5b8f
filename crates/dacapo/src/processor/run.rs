//! A run under one claim, from batch to batch.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::assign::RowScope;
use dacapo_model::{Phase, Position, SegmentCount, Timestamp, TokenMove, WaitingOn, limits};
use dacapo_store::{Commit, Filter, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch::Committed;
use super::claims::ClaimLook;
use super::pace::Pace;
use super::prepare::{replay, seed};
use super::refusals::Refusals;
use super::segments::Segments;
use super::throttle::Throttle;
use super::tries::Tried;
use super::{Assignment, Ended, HOLD_LOOK, Next, Orders, unavailable};
use crate::code::{Aside, SeedFrom};
use crate::history;
use crate::view::View;

/// A run under one claim.
pub(super) struct Run<'a> {
    pub(super) assignment: &'a Assignment,
    pub(super) filter: Arc<Filter>,
    pub(super) view: View,
    pub(super) segments: Segments,
    pub(super) claims: ClaimLook,
    pub(super) aside: Aside,
    pub(super) orders: watch::Receiver<Orders>,
    /// The last resumption that was heeded.
    pub(super) resumed_at: Option<Position>,
    /// How many wishes to set an event aside were heeded.
    pub(super) set_aside: usize,
    /// The phase that was heeded last.
    pub(super) phase: Phase,
    pub(super) wishes: watch::Receiver<()>,
    /// Whether other nodes may have been told what is wished for.
    pub(super) wished_elsewhere: bool,
    pub(super) pace: Pace,
    pub(super) throttle: Throttle,
    pub(super) head: watch::Receiver<Position>,
    pub(super) failed_reset: Option<Tried>,
    /// What the view begins as a copy of, until it does.
    pub(super) seed: Option<&'a SeedFrom>,
    pub(super) failed_seed: Option<Tried>,
    /// Events that were set aside when a replay began or are so again, and were never applied.
    pub(super) unspoken: Arc<BTreeSet<Position>>,
    /// How far the store lets its segments move, as far as it was noticed.
    pub(super) cap: Option<Position>,
    pub(super) has_moved: bool,
    /// Through here a batch failed as a whole, by the mistake of one of its events: the next ones close in on that.
    pub(super) suspect: Option<Position>,
    /// The last mark that this run gave to the view: when, and how far its tokens were then.
    pub(super) marked: Option<(Instant, Position)>,
    /// When this step looked at what is due. Whoever waits afterwards counts from here.
    pub(super) looked: Timestamp,
    /// Once this is covered, the view gets the indexes that it lacks; `None` once it has them.
    pub(super) index_at: Option<Position>,
}

impl<'a> Run<'a> {
    /// Claims, and takes up what the view keeps. `resumed_at` is the last resumption that an earlier run has heeded.
    #[expect(clippy::expect_used, reason = "a version has segments")]
    pub(super) async fn begin(
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
            .of_one_segment(options.rows == RowScope::OfOneSegment && assignment.segments != SegmentCount::ONE)
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
    pub(super) async fn go_on(&mut self) -> Result<Option<Ended>, StoreError> {
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
            let head = *self.head.borrow_and_update();
            if self.assignment.is_barred(head).await? {
                return Ok(self.wait().await);
            }
            return self.begin_as_copy(from).await;
        }
        if let Break(end) = self.leave_replay().await? {
            return Ok(Break(end));
        }
        let is_whole = self.segments.is_whole();
        if !is_whole && self.assignment.carried.options.rows == RowScope::AcrossSegments {
            // Whoever still has one of the others might change the same rows.
            return Ok(self.wait().await);
        }
        if is_whole
            && !self.failed_reset.as_ref().is_some_and(|tried| tried.rests(self.looked))
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
    pub(super) async fn with_mark<'c>(&mut self, commit: &'c Commit) -> Result<Cow<'c, Commit>, StoreError> {
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
            let now = self.assignment.clock.now();
            self.failed_reset.iter_mut().chain(&mut self.failed_seed).for_each(|tried| tried.try_now(now));
        }
        if self.asked_replay().is_none() {
            // Nobody asks for it any more: there is nothing to try again, and nothing to tell.
            self.failed_reset = None;
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
    pub(super) async fn wait(&mut self) -> Next {
        self.throttle.begin(false);
        self.report();
        let mut stop = self.assignment.stop.clone();
        // Seen is what was looked at, not what ended the waiting.
        let mut wishes = self.wishes.clone();
        let tried = self.failed_reset.iter().chain(&self.failed_seed).filter_map(|tried| tried.next_due(self.looked));
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

    /// Looks whether the store still lets its segments move only so far.
    async fn look_at_cap(&mut self) -> Result<(), StoreError> {
        if self.cap.is_some() {
            let tokens = self.assignment.view.tokens().await?;
            self.cap = tokens.iter().filter_map(|token| token.cap).min();
        }
        Ok(())
    }

    pub(super) fn report(&self) {
        let mut waiting_on = self.segments.refusals.reasons();
        waiting_on.extend(self.failed_reset.as_ref().map(replay::reason));
        waiting_on.extend(self.failed_seed.as_ref().zip(self.seed).map(|(tried, from)| seed::reason(tried, from)));
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
