//! The beginning of a replay in place: rows that will be made again are removed, and the tokens move back, in one
//! transaction.
//!
//! Afterwards a new run begins, under a new claim and with the stored state. A failed reset is retried later. Until
//! then the version continues as it was.

use std::ops::ControlFlow::{Break, Continue};

use dacapo_model::replay::ReplayRows;
use dacapo_model::{
    Letter, LetterKind, Letters, PendingReplay, Policy, Position, Segment, TokenMove, WaitingOn, limits,
};
use dacapo_store::{Commit, StoreError, View as StoredView};

use super::Prepared;
use crate::code::{FailureCause, letter};
use crate::feed;
use crate::processor::land::{Record, Transaction};
use crate::processor::rows::Rows;
use crate::processor::run::Run;
use crate::processor::sink::Sink;
use crate::processor::tries::Tried;
use crate::processor::{Next, unavailable};
use crate::view::ViewError;
use crate::world::Step;

pub(in crate::processor) fn reason(reset: &Tried) -> WaitingOn {
    WaitingOn::Reset { attempts: reset.attempts, error: reset.error.clone() }
}

/// Rows that will be made again are removed, and the tokens move back.
struct TakeUp {
    replay: PendingReplay,
    commit: Commit,
}

impl Transaction<Rows> for TakeUp {
    async fn make(&mut self, run: &mut Run<'_, Rows>) -> Result<Next<Option<Commit>>, StoreError> {
        let Rows { stored, view, .. } = &mut run.sink;
        view.end_events();
        let reset = match self.replay.rows {
            ReplayRows::Reset => stored.carried.handlers.reset(view, self.replay.after).await,
            _ => Ok(()),
        };
        if view.wants_indexes() {
            run.sink.wants_indexes = true;
            run.sink.rollback().await?;
            return Ok(Continue(None));
        }
        let Err(cause) = reset else { return Ok(Continue(Some(self.commit.clone()))) };
        run.sink.rollback().await?;
        match cause {
            FailureCause::Handler(error) | FailureCause::NoRoom(error) => {
                run.reset_failed(error);
                Ok(Continue(None))
            }
            FailureCause::Store(error) => Err(unavailable(error)),
        }
    }

    async fn mistaken(&mut self, run: &mut Run<'_, Rows>, error: ViewError) -> Result<bool, StoreError> {
        run.reset_failed(error.to_string());
        Ok(false)
    }
}

impl Run<'_, Rows> {
    /// Returns the requested replay, if a segment has not begun it yet.
    pub(in crate::processor) fn asked_replay(&self) -> Option<PendingReplay> {
        let asked = self.assignment.inbox.orders.borrow().replay?;
        self.segments.tokens().iter().any(|token| token.take_up(&asked).is_some()).then_some(asked)
    }

    /// Begins the requested replay, if it is due.
    pub(super) async fn take_up_if_due(&mut self) -> Result<Next<Prepared>, StoreError> {
        if self.sink.failed_reset.as_ref().is_some_and(|tried| tried.rests(self.looked)) {
            return Ok(Continue(Prepared::Ready));
        }
        match self.asked_replay() {
            Some(replay) => self.take_up(replay).await,
            None => Ok(Continue(Prepared::Ready)),
        }
    }

    /// Moves the tokens back, after which a new run begins. If the rows cannot be reset, the version continues as it
    /// was.
    async fn take_up(&mut self, replay: PendingReplay) -> Result<Next<Prepared>, StoreError> {
        let moves: Vec<TokenMove> = self.segments.tokens().iter().filter_map(|token| token.take_up(&replay)).collect();
        // Events that were set aside will be tried again, from the beginning of the replay. All of them count as
        // applied before from here on, so the events whose effects were never kept are recorded.
        let letters = letters_of(&*self.sink.stored.view, &moves).await?;
        let comes_again =
            |(segment, position): &(_, _)| moves.iter().any(|back| back.segment == *segment && *position > back.to);
        let settled = letters.iter().filter(|letter| comes_again(letter)).map(|(_, position)| *position).collect();
        let unspoken =
            letters.into_iter().filter(|(segment, position)| !self.has_spoken(*segment, *position)).collect();
        let commit = Commit { settled, unspoken, ..Commit::of(moves) };
        match self.land(&mut TakeUp { replay, commit }).await? {
            Break(end) => return Ok(Break(end)),
            Continue(None) if self.sink.wants_indexes => return Ok(Continue(Prepared::Anew)),
            // The version continues as it was.
            Continue(None) => return Ok(Continue(Prepared::Ready)),
            Continue(Some(_)) => {}
        }
        let (view, requested, after) = (&self.assignment.id, replay.requested, replay.after);
        tracing::info!(%view, %requested, %after, "a replay in place begins");
        self.assignment.probe.completed(Step::ReplayBegun);
        Ok(Break(None))
    }

    /// Leaves a cancelled replay: the tokens return to their places before it. Events that were set aside when it
    /// began, and that it has not reached, are set aside again in the same transaction. Then a new run begins.
    pub(super) async fn leave_replay(&mut self) -> Result<Next<Prepared>, StoreError> {
        let asked = self.orders.borrow().replay;
        let moves: Vec<TokenMove> = match asked {
            Some(asked) if asked.cancelled => self.segments.tokens().iter().filter_map(|it| it.leave(&asked)).collect(),
            _ => vec![],
        };
        if moves.is_empty() {
            return Ok(Continue(Prepared::Ready));
        }
        let letters = self.set_aside_again(&moves).await?;
        let commit = Commit { letters, ..Commit::of(moves) };
        self.sink.view.end_events();
        match self.land(&mut Record(commit)).await? {
            Break(end) => return Ok(Break(end)),
            Continue(None) => return self.wait_anew().await,
            Continue(Some(_)) => {}
        }
        tracing::info!(view = %self.assignment.id, "a replay in place was cancelled and is left");
        Ok(Break(None))
    }

    /// Returns letters for the events between the two places of these moves that were never applied.
    async fn set_aside_again(&mut self, moves: &[TokenMove]) -> Result<Vec<Letter>, StoreError> {
        let options = &self.assignment.options;
        let policy = options.on_failure.in_phase(self.orders.borrow().phase);
        let now = self.assignment.clock.now();
        let mut again = Letters::default();
        for position in self.sink.unspoken.iter().copied() {
            let event = feed::event_at(&*self.assignment.journal, position).await?;
            let event = event.get(0);
            let segment = self.segments.count().segment_of(event.stream);
            let passes = |it: &&TokenMove| it.segment == segment && position > it.from && position <= it.to;
            if !moves.iter().any(|it| passes(&it)) {
                continue;
            }
            let first = self.sink.aside.kept().first_of(event.stream).or_else(|| again.first_of(event.stream));
            let kind = match (policy, first.filter(|_| options.order_matters)) {
                (Policy::Skip, _) => LetterKind::Skipped,
                (_, Some(first)) => LetterKind::Blocked { first: first.position },
                (_, None) => LetterKind::Refused,
            };
            let error = "the replay that was to try it again was cancelled".to_owned();
            again.put(letter(segment, &event, kind, error, 0, now)?);
        }
        Ok(again.iter().cloned().collect())
    }

    /// Returns true if an event that is set aside was applied before the replay in which it was set aside.
    fn has_spoken(&self, segment: Segment, position: Position) -> bool {
        position <= self.segments.replays_through(segment) && !self.sink.unspoken.contains(&position)
    }

    fn reset_failed(&mut self, error: String) {
        let (retry, now) = (self.assignment.options.retry, self.assignment.steady.now());
        let tried = Tried::again(self.sink.failed_reset.as_ref(), error, retry, now);
        let Tried { attempts, error, .. } = &tried;
        tracing::warn!(view = %self.assignment.id, attempts, error, "the rows cannot be reset, so the replay waits");
        self.sink.failed_reset = Some(tried);
        self.report();
    }
}

/// Returns the dead letters of the segments that begin a replay.
async fn letters_of(view: &dyn StoredView, moves: &[TokenMove]) -> Result<Vec<(Segment, Position)>, StoreError> {
    let (mut after, mut found) = (Position::START, Vec::new());
    loop {
        let letters = view.letters(after, limits::LETTERS_READ_MAX).await?;
        let Some(last) = letters.last() else { return Ok(found) };
        after = last.position;
        let theirs = letters.iter().filter(|letter| moves.iter().any(|back| back.segment == letter.segment));
        found.extend(theirs.map(|letter| (letter.segment, letter.position)));
    }
}
