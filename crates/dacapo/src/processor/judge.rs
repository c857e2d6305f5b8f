//! What becomes of an event that was not applied: its segment stops before it, or it is set aside.

use dacapo_model::planted::{self, Fault};
use dacapo_model::{AfterRefusal, LetterKind, Position, Refusal, Segment, Timestamp};
use dacapo_store::{EventRef, StoreError};

use crate::code::{Failure, FailureCause};
use crate::code::{letter, shortened};
use crate::feed;
use crate::processor::batch::Batch;
use crate::processor::run::Run;
use crate::processor::segments::Share;
use crate::processor::unavailable;
use crate::view::ViewError;

impl Run<'_> {
    /// Decides about the event of `failure`, and tells whether it is set aside, which takes it up. Otherwise its
    /// segment goes no further in the batch.
    pub(super) fn judge(
        &mut self,
        failure: Failure,
        event: &EventRef<'_>,
        batch: &mut Batch,
    ) -> Result<bool, StoreError> {
        let (segment, position) = (failure.segment, event.position);
        let (error, no_room) = match failure.cause {
            FailureCause::Handler(error) => (shortened(error), false),
            FailureCause::NoRoom(error) => (error, true),
            FailureCause::Store(error) => return Err(unavailable(error)),
        };
        let (id, options) = (&self.assignment.id, &self.assignment.carried.options);
        let now = self.assignment.clock.now();
        let policy = options.on_failure.in_phase(self.orders.borrow().phase);
        let attempts = self.segments.attempts(segment, position).saturating_add(1);
        // Somebody has decided about it, whatever the policy is.
        let decided = self.orders.borrow().set_aside.contains(&position);
        let after = match decided {
            true => AfterRefusal::SetAside(LetterKind::Refused),
            false => options.retry.after(policy, attempts),
        };
        let wait = match after {
            AfterRefusal::SetAside(kind) if !no_room && !self.aside.is_full() => {
                tracing::error!(view = %id, %segment, %position, attempts, error, ?kind, "an event is set aside");
                if !planted::is(Fault::NoLetter) {
                    self.aside.refuse(letter(segment, event, kind, error, attempts, now)?);
                }
                return Ok(true);
            }
            AfterRefusal::TryAgain(wait) if !no_room => Some(wait),
            _ => None,
        };
        tracing::warn!(view = %id, %segment, %position, attempts, error, "a handler refuses an event");
        let since = self.since(segment, position).unwrap_or(now);
        let due = now.plus(wait.unwrap_or(options.retry.longest));
        self.segments.refusals.put(Refusal { segment, position, attempts, error, since, due }, wait.is_none());
        batch.refused.insert(segment);
        batch.share.stop_before(segment, position);
        Ok(false)
    }

    /// When the event was refused first.
    fn since(&self, segment: Segment, position: Position) -> Option<Timestamp> {
        let before = self.segments.refusals.get(segment).filter(|before| before.position == position);
        before.map(|before| before.since)
    }

    /// Finds the event whose rows the store does not take: it is known only by the commit of a batch, so the batch is
    /// halved until it is one event, and so are those that come behind what was committed meanwhile.
    pub(super) async fn narrow(&mut self, error: ViewError, batch: &mut Batch) -> Result<(), StoreError> {
        let (after, through) = (batch.share.after, batch.share.moves_through());
        if let Some(position) = error.at().filter(|at| *at > after && *at <= through) {
            return self.judge_at(position, error, batch).await;
        }
        self.suspect = Some(through);
        match through.since(after) {
            0 => Err(unavailable(error)),
            1 => {
                self.suspect = None;
                self.judge_at(through, error, batch).await
            }
            _ => {
                batch.share = self.close_in(batch.share.clone());
                Ok(())
            }
        }
    }

    /// The first half of what a batch is to have that would go through the event which failed an earlier one.
    pub(super) fn close_in(&mut self, share: Share) -> Share {
        self.suspect = self.suspect.filter(|suspect| *suspect > share.after);
        match self.suspect {
            Some(suspect) => share.through(share.after.plus(suspect.since(share.after).div_ceil(2))),
            None => share,
        }
    }

    /// Decides about an event that is known by its position.
    async fn judge_at(&mut self, position: Position, error: ViewError, batch: &mut Batch) -> Result<(), StoreError> {
        let read = feed::event_at(&*self.assignment.journal, position).await?;
        let event = read.get(0);
        if !self.filter.wants(&event) {
            return Err(unavailable(error));
        }
        let segment = self.segments.count().segment_of(event.stream);
        let cause = FailureCause::Handler(error.to_string());
        self.judge(Failure { segment, index: 0, changed: true, cause }, &event, batch)?;
        batch.share = batch.share.through(position);
        Ok(())
    }

    /// Whether an event before the one at `position`, which was refused, must be decided about first: what it took, another
    /// row has. The batch goes no further than that event then, and its rows must be taken back.
    pub(super) async fn is_blamed_on_another(
        &mut self,
        position: Position,
        batch: &mut Batch,
    ) -> Result<bool, StoreError> {
        let (error, at) = match self.view.blamed().await {
            Ok(None) => return Ok(false),
            Ok(Some(error)) => match error.at().filter(|at| *at < position) {
                Some(at) => (error, at),
                None => return Ok(false),
            },
            Err(error) if error.is_passing() => return Err(unavailable(error)),
            Err(error) => {
                batch.share = batch.share.through(position);
                return self.narrow(error, batch).await.map(|()| true);
            }
        };
        self.judge_at(at, error, batch).await.map(|()| true)
    }
}
