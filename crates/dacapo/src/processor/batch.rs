//! One batch: events are read and taken, and their result is committed together with the tokens.

use std::collections::BTreeSet;
use std::ops::ControlFlow::{Break, Continue};

use dacapo_model::{Position, Segment, limits};
use dacapo_store::{Commit, Limit, StoreError};
use tokio::sync::watch::error::RecvError;
use tokio::time::Instant;

use super::land::Transaction;
use super::run::Run;
use super::segments::Share;
use super::sink::{Portion, Sink, Taken};
use super::{Assignment, Next};
use crate::feed::Ahead;

/// A batch under way.
pub(super) struct Batch {
    pub(super) share: Share,
    /// The time at which this try began. A batch that must be applied again gets its full time again.
    pub(super) tried: Instant,
    /// The segments that stop in it before a refused event.
    pub(super) refused: BTreeSet<Segment>,
    /// The number of events that were taken for it.
    events: usize,
}

/// The result of taking the events of a batch.
enum Applied {
    /// They are taken and not yet committed; for each segment their number.
    All(Vec<u64>),
    /// One event is at fault. The changes must be rolled back, and the batch goes no further than that event.
    TakenBack,
    /// The sink must be prepared first.
    Unprepared,
}

impl<S: Sink> Transaction<S> for Batch {
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
    /// Applies and commits one batch for the segments of `share`, as far as their handler allows.
    pub(super) async fn take(&mut self, share: Share) -> Result<Next, StoreError> {
        let (share, started) = (self.close_in(share), Instant::now());
        let mut batch = Batch { share, tried: started, refused: BTreeSet::new(), events: 0 };
        self.sink.begin_batch(self.assignment.clock.now());
        self.assignment.progress.send_modify(|progress| progress.begins(batch.share.after, started));
        match self.land(&mut batch).await? {
            Break(end) => return Ok(Break(end)),
            Continue(None) => {}
            Continue(Some(_)) => {
                self.sink.batch_landed();
                self.moves_on();
                self.pace.took(batch.events, self.throttle.worked(batch.tried));
                self.report();
                self.rest().await;
            }
        }
        Ok(Continue(()))
    }

    /// Reads and applies, with one read during each application, until the batch has the right size or has used its
    /// time, even in the middle of a read. The share then ends there. Applied events are not kept in memory: in the
    /// rare case that they must be applied again, they are read again.
    async fn apply(&mut self, batch: &mut Batch) -> Result<Applied, StoreError> {
        let Assignment { journal, offload, .. } = self.assignment;
        let (mut after, mut events) = (batch.share.after, 0);
        let mut by_segment = vec![0; batch.share.limits().len()];
        self.sink.begin_try(&self.segments);
        let mut ahead: Option<Ahead> = None;
        // Once every segment of the share halts, nothing more must be read for them.
        while !batch.share.is_empty() {
            let read = match &mut ahead {
                Some(ahead) => ahead.done().await?,
                None => journal.read(after, &self.assignment.filter, Limit::events(self.pace.events())).await?,
            };
            (after, events) = (read.through, events + read.len());
            let is_full = events >= self.pace.events() || after >= batch.share.moves_through();
            ahead = (!is_full).then(|| {
                Ahead::begin(
                    *offload,
                    journal,
                    after,
                    &self.assignment.filter,
                    Limit::events(self.pace.events() - events),
                )
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

    /// Returns true if the batch should end although there is more to read.
    fn is_over(&self, batch: &Batch) -> bool {
        let time = batch.tried.elapsed();
        time >= self.pace.target() || self.sink.is_full(time) || self.is_waited_for()
    }

    /// Returns true if there is work between two batches: a stop, orders, wishes, or segments to claim or release.
    fn is_waited_for(&self) -> bool {
        // An error means that the sender is gone.
        let told = |changed: Result<bool, RecvError>| changed.unwrap_or(false);
        self.assignment.is_stopped()
            || told(self.orders.has_changed())
            || told(self.wishes.has_changed())
            || self.claims.is_told()
            || self.throttle.is_told()
    }

    /// Takes the pause that is due. Returns true if the stop arrived meanwhile.
    async fn rest(&mut self) -> bool {
        let Some(rest) = self.throttle.due() else { return false };
        let began = Instant::now();
        let stopped = self.assignment.stopped_within(rest).await;
        self.throttle.rested(began.elapsed());
        stopped
    }

    /// Returns the commit of a batch: its moves, and the records of refused events.
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
