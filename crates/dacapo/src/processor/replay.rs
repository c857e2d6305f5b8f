//! Taking up a replay in place: the rows that will be made again go, and the tokens move back, in one transaction.
//!
//! Afterwards the run begins anew, under a new claim and with what is stored. A reset that fails is tried again later;
//! the version goes on as it was meanwhile.

use std::time::Duration;

use dacapo_model::planted::{self, Fault};
use dacapo_model::replay::ReplayRows;
use dacapo_model::{PendingReplay, Position, Segment, TokenMove, WaitingOn, limits};
use dacapo_store::{Commit, StoreError};
use tokio::time::Instant;

use super::{Assignment, Committed, Ended, Run, unavailable};
use crate::projection::FailureCause;
use crate::world::Step;

/// How long the first new try of a reset waits; each further one waits twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries of a reset.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A reset that failed.
pub(super) struct FailedReset {
    attempts: u32,
    error: String,
    due: Instant,
}

/// What an attempt to take up a replay came to.
pub(super) enum TakenUp {
    /// The tokens are back: the run begins anew.
    Begins,
    /// The rows could not be reset; the version goes on as it was.
    Later,
    Ended(Ended),
}

impl FailedReset {
    /// In how long it is tried again.
    pub(super) fn due_in(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    pub(super) fn waiting_on(&self) -> WaitingOn {
        WaitingOn::Reset { attempts: self.attempts, error: self.error.clone() }
    }
}

impl Run<'_> {
    /// The replay that is asked for and that not every segment has taken up, unless its reset failed just now.
    pub(super) fn asked_replay(&self) -> Option<PendingReplay> {
        let asked = self.assignment.orders.borrow().replay?;
        let missing = self.segments.tokens().iter().any(|token| token.take_up(&asked).is_some());
        let rests = self.failed_reset.as_ref().is_some_and(|failed| failed.due > Instant::now());
        (missing && !rests).then_some(asked)
    }

    pub(super) async fn take_up(&mut self, replay: PendingReplay) -> Result<TakenUp, StoreError> {
        let moves: Vec<TokenMove> = self.segments.tokens().iter().filter_map(|token| token.take_up(&replay)).collect();
        // What was set aside is about to be tried again, from where the replay begins. All of it counts as come past
        // from here on, so what has not spoken is kept in mind.
        let letters = letters_of(self.assignment, &moves).await?;
        let comes_again =
            |(segment, position): &(_, _)| moves.iter().any(|back| back.segment == *segment && *position > back.to);
        let settled = letters.iter().filter(|letter| comes_again(letter)).map(|(_, position)| *position).collect();
        let unspoken =
            letters.into_iter().filter(|(segment, position)| !self.has_spoken(*segment, *position)).collect();
        let commit = Commit { settled, unspoken, ..Commit::of(moves) };
        self.view.end_events();
        loop {
            if replay.rows == ReplayRows::Reset
                && let Err(cause) = self.assignment.carried.handlers.reset(&mut self.view, replay.after).await
            {
                if !planted::is(Fault::HalfReset) {
                    self.view.rollback().await.map_err(unavailable)?;
                }
                return match cause {
                    FailureCause::Handler(error) | FailureCause::NoRoom(error) => Ok(self.reset_failed(error)),
                    FailureCause::Store(error) => Err(unavailable(error)),
                };
            }
            match self.land(&commit).await? {
                Committed::Done => break,
                Committed::ApplyAgain => {}
                Committed::Wrong(error) => return Ok(self.reset_failed(error.to_string())),
                Committed::Stopped => return Ok(TakenUp::Ended(Ended::Stopped)),
                Committed::Fenced(refused) => return Ok(TakenUp::Ended(Ended::Fenced(refused))),
            }
        }
        let (view, requested, after) = (&self.assignment.id, replay.requested, replay.after);
        tracing::info!(%view, %requested, %after, "a replay in place begins");
        self.assignment.probe.completed(Step::ReplayBegun);
        Ok(TakenUp::Begins)
    }

    /// Whether an event that is set aside was applied before the replay in which it was.
    fn has_spoken(&self, segment: Segment, position: Position) -> bool {
        let token = &self.segments.tokens()[usize::from(segment.get())];
        position <= token.replays_through() && !self.unspoken.contains(&position)
    }

    fn reset_failed(&mut self, error: String) -> TakenUp {
        let attempts = self.failed_reset.as_ref().map_or(1, |failed| failed.attempts + 1);
        let wait = RETRY_MAX.min(RETRY_FIRST.saturating_mul(1 << (attempts - 1).min(16)));
        tracing::warn!(view = %self.assignment.id, attempts, error, "the rows cannot be reset, so the replay waits");
        self.failed_reset = Some(FailedReset { attempts, error, due: Instant::now() + wait });
        self.report();
        TakenUp::Later
    }
}

/// The dead letters of the segments that take up a replay.
async fn letters_of(assignment: &Assignment, moves: &[TokenMove]) -> Result<Vec<(Segment, Position)>, StoreError> {
    let (mut after, mut found) = (Position::START, Vec::new());
    loop {
        let letters = assignment.view.letters(after, limits::LETTERS_READ_MAX).await?;
        let Some(last) = letters.last() else { return Ok(found) };
        after = last.position;
        let theirs = letters.iter().filter(|letter| moves.iter().any(|back| back.segment == letter.segment));
        found.extend(theirs.map(|letter| (letter.segment, letter.position)));
    }
}
