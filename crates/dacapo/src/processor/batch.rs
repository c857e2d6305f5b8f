//! One batch: events are read and taken, and what was made of them is committed together with the tokens.

use std::collections::BTreeSet;
use std::ops::ControlFlow::{Break, Continue};

use dacapo_model::{Position, Segment, limits};
use dacapo_store::{Commit, Limit, StoreError};
use tokio::sync::watch::error::RecvError;
use tokio::time::Instant;

use super::land::Deed;
use super::run::Run;
use super::segments::Share;
use super::sink::{Portion, Sink, Taken};
use super::{Assignment, Next};
use crate::feed::Ahead;

/// A batch under way.
pub(super) struct Batch {
    pub(super) share: Share,
    /// When it was begun that is under way: a batch may have to be applied again, and has its time anew then.
    pub(super) tried: Instant,
    /// Segments that stop in it before an event that was refused.
    pub(super) refused: BTreeSet<Segment>,
    /// How many events were taken for it.
    events: usize,
}

/// The result of taking the events of a batch.
enum Applied {
    /// They are taken and not yet committed. For each segment, how many.
    All(Vec<u64>),
    /// One event is mistaken. The changes must be taken back, and the batch goes no further than that event.
    TakenBack,
    /// The sink needs to be prepared first.
    Unprepared,
}

impl<S: Sink> Deed<S> for Batch {
    async fn make(&mut self, run: &mut Run<'_, S>) -> Result<Next<Option<Commit>>, StoreError> {
        loop {
            self.tried = Instant::now();
            run.throttle.begin(run.pace.is_far());
            match run.apply(self).await? {
                Applied::All(by_segment) => return Ok(Continue(Some(run.commit_of(self, &by_segment)))),
                Applied::TakenBack => run.sink.rollback().await?,
                Applied::Unprepared => {
                    run.sink.rollback().await?;
                    return Ok(Continue(None));
                }
            }
        }
    }

    fn capped(&mut self, run: &mut Run<'_, S>, cap: Position) -> bool {
        if cap <= self.share.after {
            run.report();
            return false;
        }
        self.share = self.share.through(cap);
        true
    }

    async fn mistaken(&mut self, run: &mut Run<'_, S>, error: S::Error) -> Result<bool, StoreError> {
        run.sink.begin_try(&run.segments);
        run.narrow(error, self).await.map(|()| true)
    }
}

impl<S: Sink> Run<'_, S> {
    /// Applies and commits one batch for the segments of `share`, as far as their handler lets it.
    pub(super) async fn take(&mut self, share: Share) -> Result<Next, StoreError> {
        let (share, started) = (self.close_in(share), Instant::now());
        let mut batch = Batch { share, tried: started, refused: BTreeSet::new(), events: 0 };
        self.sink.begin_batch(self.assignment.clock.now());
        let began = Some((batch.share.after, started));
        self.assignment.progress.send_modify(|progress| progress.batch = began);
        match self.land(&mut batch).await? {
            Break(end) => return Ok(Break(end)),
            Continue(None) => {}
            Continue(Some(_)) => {
                self.sink.batch_landed();
                self.has_moved = true;
                self.pace.took(batch.events, self.throttle.worked(batch.tried));
                self.report();
                self.rest().await;
            }
        }
        Ok(Continue(()))
    }

    /// Reads and applies, one read while the one before is applied, until the batch is as large as it should be or has
    /// taken its time, be that in the middle of a read; the share then goes no further than that. What was applied is
    /// not kept: it is read again in the rare case that it must be applied again.
    async fn apply(&mut self, batch: &mut Batch) -> Result<Applied, StoreError> {
        let Assignment { journal, offload, .. } = self.assignment;
        let (mut after, mut events) = (batch.share.after, 0);
        let mut by_segment = vec![0; batch.share.limits().len()];
        self.sink.begin_try(&self.segments);
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
                let portion = Portion {
                    batch: &read,
                    from,
                    segments: self.segments.count(),
                    through: batch.share.limits(),
                    applied: &mut by_segment,
                    until,
                };
                let refused = match self.sink.take(portion).await? {
                    Taken::All => break None,
                    Taken::Through(last) => break Some(last),
                    Taken::Unprepared => return Ok(Applied::Unprepared),
                    Taken::Mistaken(before, error) => {
                        batch.share = batch.share.through(before);
                        self.narrow(error, batch).await?;
                        return Ok(Applied::TakenBack);
                    }
                    Taken::Refused(refused) => refused,
                };
                let event = read.get(refused.index);
                from = refused.index + 1;
                let (segment, changed) = (refused.segment, refused.changed);
                let is_aside = self.judge(refused, &event, batch)?;
                if changed {
                    batch.share = batch.share.through(event.position);
                    return Ok(Applied::TakenBack);
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
        batch.events = events;
        Ok(Applied::All(by_segment))
    }

    /// Whether a batch should end though there is more to read.
    fn is_over(&self, batch: &Batch) -> bool {
        let time = batch.tried.elapsed();
        time >= self.pace.target() || self.sink.is_full(time) || self.is_waited_for()
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
        let mut commit = Commit { moves, refused: refused.collect(), ..Commit::default() };
        self.sink.complete(&mut commit);
        commit
    }
}
