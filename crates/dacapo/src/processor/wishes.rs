//! Carries out the decisions of operators about dead letters, under the claim of their segments.
//!
//! ```text
//!   wish in the view ──▶ the next letter that may go ──┬─ Drop ──▶ settled
//!                                                      └─ Retry ─▶ the event from the journal ─▶ apply ─┬▶ settled
//!                                                                                       refused again ◀─┘ stays
//! ```
//!
//! Rows and letter change in one transaction, which moves no token: the event was passed when it was set aside.

use std::collections::BTreeSet;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use dacapo_model::{Letter, LetterKind, Position, Segment, Token, TokenMove, Wish};
use dacapo_store::{Commit, StoreError};
use tokio::time::Instant;

use crate::code::{Aside, FailureCause, Work, shortened};
use crate::feed;
use crate::processor::land::Transaction;
use crate::processor::prepare::Prepared;
use crate::processor::rows::{Rows, Stored};
use crate::processor::run::Run;
use crate::processor::sink::Sink;
use crate::processor::{Next, unavailable};
use crate::view::ViewError;

/// A letter is removed, or refused again.
struct CarryOut {
    letter: Letter,
    stays: TokenMove,
    /// The commit to make if the store refuses what the handler made of the event.
    refused: Option<Commit>,
}

impl Transaction<Rows> for CarryOut {
    async fn make(&mut self, run: &mut Run<'_, Rows>) -> Result<Next<Option<Commit>>, StoreError> {
        match (&self.refused, self.letter.wish) {
            (Some(commit), _) => Ok(Continue(Some(commit.clone()))),
            (None, Some(Wish::Retry)) => Ok(Continue(run.retry(&self.letter, self.stays).await?)),
            (None, _) => Ok(Continue(Some(run.give_up()))),
        }
    }

    async fn mistaken(&mut self, run: &mut Run<'_, Rows>, error: ViewError) -> Result<bool, StoreError> {
        if self.refused.is_some() {
            return Err(unavailable(error));
        }
        self.refused = Some(run.refused_again(&self.letter, self.stays, error.to_string()));
        Ok(true)
    }
}

impl Run<'_, Rows> {
    /// Reads the next letter with a decision that can be carried out.
    pub(super) async fn next_wish(&mut self) -> Result<Option<Letter>, StoreError> {
        // An error means that no more wishes can arrive here.
        let wished = self.wishes.has_changed().unwrap_or(false);
        if std::mem::take(&mut self.sink.wished_elsewhere) || wished {
            self.wishes.mark_unchanged();
            self.sink.load_aside(|segment| self.segments.has(segment)).await?;
        }
        let aside = &self.sink.aside;
        Ok(aside.kept().next_wished(aside.order_matters()).cloned())
    }

    /// Carries out the decision about one letter, if there is one.
    pub(super) async fn carry_out_wish(&mut self) -> Result<Next<Prepared>, StoreError> {
        let Some(letter) = self.sink.wished.take() else { return Ok(Continue(Prepared::Ready)) };
        let mut transaction = CarryOut { stays: self.segments.stay(letter.segment), letter, refused: None };
        match self.land(&mut transaction).await? {
            Break(end) => Ok(Break(end)),
            // It needs indexes.
            Continue(None) => Ok(Continue(Prepared::Anew)),
            Continue(Some(commit)) => {
                self.settled(&transaction.letter, commit);
                Ok(Continue(Prepared::Done))
            }
        }
    }

    /// Returns the commit that drops all letters to be dropped. They need no handler.
    fn give_up(&self) -> Commit {
        let dropped = self.sink.aside.kept().iter().filter(|letter| letter.wish == Some(Wish::Drop));
        let segments: BTreeSet<Segment> = dropped.clone().map(|letter| letter.segment).collect();
        let moves: Vec<TokenMove> = segments.into_iter().map(|segment| self.segments.stay(segment)).collect();
        Commit { moves, settled: dropped.map(|letter| letter.position).collect(), ..Commit::default() }
    }

    /// Passes the event of a letter to the handler. Returns the commit for the result; `None` if the handler needs
    /// indexes.
    async fn retry(&mut self, letter: &Letter, stays: TokenMove) -> Result<Option<Commit>, StoreError> {
        let stored = Arc::clone(&self.sink.stored);
        let Stored { carried, busy, .. } = &*stored;
        let event = match feed::event_at(&*self.assignment.journal, letter.position).await {
            Ok(event) => event,
            Err(error @ StoreError::Unavailable { .. }) => return Err(error),
            // An event that cannot be read now can never be read. Everything else must not wait for it.
            Err(error) => return Ok(Some(self.refused_again(letter, stays, error.to_string()))),
        };
        let segments = self.segments.count();
        let mut through = vec![Position::START; usize::from(segments.get())];
        through[usize::from(letter.segment.get())] = letter.position;
        // As when it was passed: it may have been applied before the replay in which it was set aside, and may have
        // emitted its effects then.
        let came_past = self.segments.each(Token::replays_through);
        let began_at = stored.beginning.began_at;
        let past: Vec<Position> = came_past.iter().map(|through| (*through).max(began_at)).collect();
        let speaks = self.sink.speaks(came_past);
        let work = Work {
            batch: &event,
            from: 0,
            segments,
            through: &through,
            past: &past,
            speaks: speaks.as_ref(),
            applied: &mut vec![0; through.len()],
            // Nothing blocks an event that an operator retries.
            aside: &mut Aside::default(),
            busy,
            time_max: carried.options.handler_time_max,
            until: Instant::now(),
        };
        let done = carried.handlers.apply(work, &mut self.sink.view).await;
        if self.sink.view.wants_indexes() {
            self.sink.wants_indexes = true;
            self.sink.rollback().await?;
            return Ok(None);
        }
        let Err(failure) = done else { return Ok(Some(settle(letter, stays))) };
        self.sink.rollback().await?;
        match failure.cause {
            FailureCause::Store(error) => Err(unavailable(error)),
            FailureCause::Handler(error) | FailureCause::NoRoom(error) => {
                Ok(Some(self.refused_again(letter, stays, error)))
            }
        }
    }

    /// Returns the commit that keeps the letter, with the new error of the handler.
    fn refused_again(&self, letter: &Letter, stays: TokenMove, error: String) -> Commit {
        let kind = match letter.kind {
            // The handler has tried it now.
            LetterKind::Blocked { .. } => LetterKind::Refused,
            kind => kind,
        };
        let (attempts, recorded) = (letter.attempts.saturating_add(1), self.assignment.clock.now());
        let tried = Letter { kind, error: shortened(error), attempts, recorded, ..letter.clone() };
        let letters = self.sink.aside.kept().refused_again(tried, self.sink.aside.order_matters());
        Commit { moves: vec![stays], letters, ..Commit::default() }
    }

    fn settled(&mut self, letter: &Letter, commit: Commit) {
        let Letter { position, stream, attempts, .. } = letter;
        let events = commit.settled.len();
        let (id, was_full) = (&self.assignment.id, self.sink.aside.is_full());
        match (letter.wish, commit.letters.first()) {
            (_, Some(again)) => {
                tracing::warn!(view = %id, %position, %stream, error = again.error, "an event is refused again");
            }
            (Some(Wish::Retry), None) => {
                tracing::info!(view = %id, %position, %stream, attempts, "an event that was set aside is applied");
            }
            _ => tracing::warn!(view = %id, %position, %stream, events, "events that were set aside are given up"),
        }
        let kept = self.sink.aside.kept_mut();
        commit.letters.into_iter().for_each(|letter| kept.put(letter));
        commit.settled.into_iter().for_each(|position| drop(kept.settle(position)));
        if was_full && !self.sink.aside.is_full() {
            self.segments.refusals.made_room(self.assignment.steady.now());
        }
        self.report();
    }
}

fn settle(letter: &Letter, stays: TokenMove) -> Commit {
    Commit { moves: vec![stays], settled: vec![letter.position], ..Commit::default() }
}
