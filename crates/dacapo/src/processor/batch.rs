//! One batch: events are read and applied, and rows and tokens committed together.

use std::collections::BTreeSet;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use dacapo_model::{Position, Segment, Token, WaitingOn, limits};
use dacapo_store::{Commit, Limit, StoreError};
use tokio::sync::watch::error::RecvError;
use tokio::time::Instant;

use super::run::Run;
use super::segments::Share;
use super::{Assignment, Ended, HOLD_LOOK, Next, unavailable};
use crate::code::{FailureCause, Speaks, Work};
use crate::feed::Ahead;
use crate::view::{NotCommitted, ViewError};

/// A batch under way.
pub(super) struct Batch {
    pub(super) share: Share,
    pub(super) started: Instant,
    /// When it was begun that is under way: a batch may have to be applied again, and has its time anew then.
    pub(super) tried: Instant,
    /// Segments that stop in it before an event that was refused.
    pub(super) refused: BTreeSet<Segment>,
}

/// What was applied of a batch and not yet committed.
pub(super) struct Applied {
    pub(super) events: usize,
    /// How many events each segment of the version has taken up.
    pub(super) by_segment: Vec<u64>,
}

/// What a commit came to.
pub(super) enum Committed {
    Done,
    /// It must be applied again: the writer had sent rows that the refused commit took back.
    ApplyAgain,
    /// The store takes no such rows, however often it is tried: a mistake of the handler. Everything is taken back.
    Wrong(ViewError),
    /// It goes too far: it must be applied again through here at most.
    Capped(Position),
    Ended(Ended),
}

impl Run<'_> {
    /// Applies and commits one batch for the segments of `share`, as far as their handler lets it.
    pub(super) async fn take(&mut self, share: Share) -> Result<Next, StoreError> {
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
    pub(super) async fn apply(&mut self, batch: &mut Batch) -> Result<Option<Applied>, StoreError> {
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
    pub(super) fn is_over(&self, batch: &Batch) -> bool {
        let time = batch.tried.elapsed();
        let is_open = self.view.has_sent() && time >= limits::BATCH_TIME_TARGET_FAR;
        time >= self.pace.target() || is_open || self.view.is_full() || self.is_waited_for()
    }

    /// Whether there is something to do between two batches: a stop, orders, wishes, or segments that are to be had or
    /// let go of.
    pub(super) fn is_waited_for(&self) -> bool {
        // An error means that nobody can tell anything any more.
        let told = |changed: Result<bool, RecvError>| changed.unwrap_or(false);
        self.assignment.is_stopped()
            || told(self.orders.has_changed())
            || told(self.wishes.has_changed())
            || self.claims.is_told()
            || self.throttle.is_told()
    }

    /// For which events effects are kept, if the projection reacts.
    pub(super) fn speaks(&self, replays_through: Vec<Position>) -> Option<Speaks> {
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
    pub(super) async fn rest(&mut self) -> bool {
        let Some(rest) = self.throttle.due() else { return false };
        let began = Instant::now();
        let stopped = self.assignment.stopped_within(rest).await;
        self.throttle.rested(began.elapsed());
        stopped
    }

    /// The commit of a batch: its moves, and what is kept of the events that were refused.
    pub(super) fn commit_of(&self, batch: &Batch, by_segment: &[u64]) -> Commit {
        let mut moves = self.segments.moves(&batch.share, by_segment);
        let stays = batch.refused.iter().filter(|segment| !batch.share.has(**segment));
        moves.extend(stays.map(|segment| self.segments.stay(*segment)));
        let refused = batch.refused.iter().filter_map(|segment| self.segments.refusals.get(*segment)).cloned();
        Commit { moves, refused: refused.collect(), letters: self.aside.of_batch(), ..Commit::default() }
    }

    /// Commits, waiting for the end of a hold if there is one.
    pub(super) async fn land(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        let marked = self.marked;
        let commit = &*self.with_mark(commit).await?;
        let landed = self.land_as_it_is(commit).await;
        if !matches!(landed, Ok(Committed::Done)) {
            self.marked = marked;
        }
        landed
    }

    pub(super) async fn land_as_it_is(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        loop {
            // RequestedBy for before trying, so that a hold lifted in between is not missed.
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
}
