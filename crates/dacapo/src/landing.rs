//! The possible results of a commit, for every kind of target.

use std::fmt::Display;

use dacapo_model::{Position, TokenRefused};
use dacapo_store::StoreError;

/// Why a batch was not committed.
#[derive(Debug)]
pub(crate) enum NotCommitted<E> {
    /// A flip holds the tokens. Nothing is lost: the same commit is good once the hold is lifted, unless
    /// the batch `must_reapply`, because SQL of its own went with the transaction and every change was
    /// forgotten.
    Held {
        /// The position of the flip request.
        held_for: Position,
        /// Whether the batch's events have to be applied again before the next commit.
        must_reapply: bool,
    },
    /// A segment is to stop before the end of the batch. Everything that was not committed is forgotten.
    Capped(Position),
    /// Another claim came first (I-4). Everything that was not committed is forgotten.
    Fenced(TokenRefused),
    /// What was made of the events could not be written. Everything that was not committed is forgotten.
    Failed(E),
}

impl<E> NotCommitted<E> {
    /// The result of a commit whose moves are refused, where the same commit is good after a hold.
    pub(crate) fn of(refused: TokenRefused) -> Self {
        match refused {
            TokenRefused::Held { held_for, .. } => Self::Held { held_for, must_reapply: false },
            TokenRefused::Capped { cap, .. } => Self::Capped(cap),
            TokenRefused::Fenced { .. } => Self::Fenced(refused),
        }
    }
}

/// Why a write fails: the store's failure, or a mistake in what was to be written.
pub(crate) trait Mistake: Display + Send {
    /// Returns true for a failure of the store, which may pass.
    fn is_passing(&self) -> bool;

    /// Returns the position of the event whose mistake it is, if that is known.
    fn at(&self) -> Option<Position>;
}

impl Mistake for StoreError {
    fn is_passing(&self) -> bool {
        !matches!(self, Self::Invalid(_))
    }

    fn at(&self) -> Option<Position> {
        None
    }
}
