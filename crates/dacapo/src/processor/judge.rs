//! The decision about an event that was not applied: its segment stops before it, or it is set aside.

use dacapo_model::{AfterRefusal, LetterKind, Position, Refusal, Segment, Timestamp};
use dacapo_store::{EventRef, StoreError};

use crate::code::shortened;
use crate::feed;
use crate::landing::Mistake;
use crate::processor::batch::Batch;
use crate::processor::run::Run;
use crate::processor::segments::Share;
use crate::processor::sink::{AsideEvent, RefusedEvent, Sink};
use crate::processor::unavailable;

impl<S: Sink> Run<'_, S> {
    /// Decides about a refused event. Returns true if it is set aside and so counts as taken. Otherwise its segment
    /// goes no further in the batch.
    pub(super) fn judge(
        &mut self,
        refused: RefusedEvent,
        event: &EventRef<'_>,
        batch: &mut Batch,
    ) -> Result<bool, StoreError> {
        let (segment, position, no_room) = (refused.segment, event.position, refused.no_room);
        let error = if no_room { refused.error } else { shortened(refused.error) };
        let (id, options) = (&self.assignment.id, &self.assignment.options);
        let now = self.assignment.clock.now();
        let policy = options.on_failure.in_phase(self.orders.borrow().phase);
        let attempts = self.segments.attempts(segment, position).saturating_add(1);
        // An operator has decided about it, which overrides the policy.
        let decided = self.orders.borrow().set_aside.contains(&position);
        let after = match decided {
            true => AfterRefusal::SetAside(LetterKind::Refused),
            false => options.retry.after(policy, attempts),
        };
        let wait = match after {
            AfterRefusal::SetAside(kind) if !no_room => {
                let aside = AsideEvent { segment, event, kind, error: &error, attempts, now };
                if self.sink.set_aside(&aside)? {
                    tracing::error!(view = %id, %segment, %position, attempts, error, ?kind, "an event is set aside");
                    return Ok(true);
                }
                None
            }
            AfterRefusal::TryAgain(wait) if !no_room => Some(wait),
            _ => None,
        };
        tracing::warn!(view = %id, %segment, %position, attempts, error, "a handler refuses an event");
        let since = self.since(segment, position).unwrap_or(now);
        let due = self.assignment.steady.now().plus(wait.unwrap_or(options.retry.longest));
        self.segments.refusals.put(Refusal { segment, position, attempts, error, since, due }, wait.is_none());
        batch.refused.insert(segment);
        batch.share.stop_before(segment, position);
        Ok(false)
    }

    /// Returns the time at which the event was first refused.
    fn since(&self, segment: Segment, position: Position) -> Option<Timestamp> {
        let before = self.segments.refusals.get(segment).filter(|before| before.position == position);
        before.map(|before| before.since)
    }

    /// Finds the event whose result the sink refuses. Only the commit of a batch shows the refusal. So the batch is
    /// halved until it has one event, and so are the batches after a part that was committed meanwhile.
    pub(super) async fn narrow(&mut self, error: S::Error, batch: &mut Batch) -> Result<(), StoreError> {
        let (after, through) = (batch.share.after, batch.share.moves_through());
        if let Some(position) = error.at().filter(|at| *at > after && *at <= through) {
            return self.judge_at(position, error, batch).await;
        }
        self.bounds.suspect = Some(through);
        match through.since(after) {
            0 => Err(unavailable(error)),
            1 => {
                self.bounds.suspect = None;
                self.judge_at(through, error, batch).await
            }
            _ => {
                batch.share = self.close_in(batch.share.clone());
                Ok(())
            }
        }
    }

    /// Returns the first half of a batch that would include the event that failed an earlier one.
    pub(super) fn close_in(&mut self, share: Share) -> Share {
        self.bounds.suspect = self.bounds.suspect.filter(|suspect| *suspect > share.after);
        match self.bounds.suspect {
            Some(suspect) => share.through(share.after.plus(suspect.since(share.after).div_ceil(2))),
            None => share,
        }
    }

    /// Decides about an event that is known by its position.
    async fn judge_at(&mut self, position: Position, error: S::Error, batch: &mut Batch) -> Result<(), StoreError> {
        let read = feed::event_at(&*self.assignment.journal, position).await?;
        let event = read.get(0);
        let segment = self.segments.count().segment_of(event.stream);
        // The refusal of a commit without this event says nothing about it.
        if !self.assignment.filter.wants(&event) || !batch.share.has(segment) {
            return Err(unavailable(error));
        }
        let refused = RefusedEvent { segment, index: 0, changed: true, error: error.to_string(), no_room: false };
        self.judge(refused, &event, batch)?;
        batch.share = batch.share.through(position);
        Ok(())
    }
}
