//! A sink in memory: the tokens, and the events that were taken.

use std::sync::Arc;

use dacapo_model::{MemberId, Parted, Position, Refusal, Token, TokenRefused};
use dacapo_store::{Commit, Journal, NewMark, StoreError};

use super::{Lasting, Shelf};
use crate::landing::NotCommitted;
use crate::processor::sink::{Portion, RefusedEvent, Sink, Taken};

impl Lasting {
    /// The one step in which events and tokens change.
    pub(super) fn commit(&mut self, commit: &Commit, batch: &[Position]) -> Result<(), TokenRefused> {
        let mut tokens = self.tokens.clone();
        for asked in &commit.moves {
            let at = usize::from(asked.segment.get());
            tokens[at] = tokens[at].moved(*asked)?;
        }
        self.refusals.extend(commit.refused.iter().cloned());
        self.refusals.retain(|kept| !tokens[usize::from(kept.segment.get())].covers(kept.position));
        self.committed.extend(batch);
        self.tokens = tokens;
        Ok(())
    }
}

/// The sink of one run.
pub(super) struct Memory {
    shelf: Arc<Shelf>,
    batch: Vec<Position>,
}

impl Sink for Memory {
    type Place = Arc<Shelf>;
    type Error = StoreError;

    async fn open(place: &Arc<Shelf>) -> Result<Self, StoreError> {
        Ok(Self { shelf: Arc::clone(place), batch: vec![] })
    }

    async fn tokens(&mut self) -> Result<Vec<Token>, StoreError> {
        Ok(self.shelf.lasting().tokens.clone())
    }

    async fn claim(&mut self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        let is_seen = |token: &&mut Token| seen.iter().any(|it| (it.segment, it.epoch) == (token.segment, token.epoch));
        let claim = |token: &mut Token| {
            (token.claimed_by, token.epoch) = (by, token.epoch.next());
            *token
        };
        Ok(self.shelf.lasting().tokens.iter_mut().filter(is_seen).map(claim).collect())
    }

    async fn begin(&mut self, _claimed: &[Token]) -> Result<Vec<Refusal>, StoreError> {
        Ok(self.shelf.lasting().refusals.clone())
    }

    async fn take(&mut self, portion: Portion<'_>) -> Result<Taken<StoreError>, StoreError> {
        let mut lasting = self.shelf.lasting();
        for index in portion.from..portion.batch.len() {
            let event = portion.batch.get(index);
            let segment = portion.segments.segment_of(event.stream);
            let at = usize::from(segment.get());
            if event.position > portion.through[at] {
                continue;
            }
            if lasting.refuses == Some(event.position) {
                let error = "no".to_owned();
                return Ok(Taken::Refused(RefusedEvent { segment, index, changed: false, error, no_room: false }));
            }
            self.batch.push(event.position);
            (lasting.taken, portion.applied[at]) = (lasting.taken + 1, portion.applied[at] + 1);
        }
        Ok(Taken::All)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), NotCommitted<StoreError>> {
        let mut lasting = self.shelf.lasting();
        let landed = match self.shelf.meet(&mut lasting, commit, &self.batch) {
            Some(error) => Err(NotCommitted::Failed(error)),
            None => lasting.commit(commit, &self.batch).map_err(NotCommitted::of),
        };
        if !matches!(landed, Err(NotCommitted::Held { .. })) {
            self.batch.clear();
        }
        landed
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        self.batch.clear();
        Ok(())
    }

    async fn mark(&mut self, journal: &dyn Journal, through: Position) -> Result<Option<NewMark>, StoreError> {
        match journal.mark(through).await {
            Err(StoreError::BeyondHead { head, .. }) => {
                Err(StoreError::Parted(Parted::History { same_through: head, differs_at: head.next() }))
            }
            mark => mark.map(|_| None),
        }
    }
}
