//! The possible results of a commit, for every kind of target.

use std::fmt::Display;

use dacapo_model::{Position, TokenRefused};
use dacapo_store::StoreError;

/// The reason why a batch was not committed.
#[derive(Debug)]
pub(crate) enum NotCommitted<E> {
    /// A flip holds the tokens. Nothing is lost: the same commit is valid once the hold is lifted. If `must_reapply` is
    /// set, SQL of the batch was lost with the transaction, and every change was forgotten.
    Held {
        /// The position of the flip request.
        held_for: Position,
        /// True if the batch's events must be applied again before the next commit.
        must_reapply: bool,
    },
    /// A segment must stop before the end of the batch. Everything that was not committed is forgotten.
    Capped(Position),
    /// Another claim came first (I-4). Everything that was not committed is forgotten.
    Fenced(TokenRefused),
    /// The result of the events could not be written. Everything that was not committed is forgotten.
    Failed(E),
}

impl<E> NotCommitted<E> {
    /// Returns the result of a commit whose moves are refused, for a target in which the same commit is valid after a
    /// hold.
    pub(crate) fn of(refused: TokenRefused) -> Self {
        match refused {
            TokenRefused::Held { held_for, .. } => Self::Held { held_for, must_reapply: false },
            TokenRefused::Capped { cap, .. } => Self::Capped(cap),
            TokenRefused::Fenced { .. } => Self::Fenced(refused),
        }
    }
}

/// The reason why a write fails: a failure of the store, or a fault in what was to be written.
pub(crate) trait Mistake: Display + Send {
    /// Returns true for a failure of the store, which may pass.
    fn is_passing(&self) -> bool;

    /// Returns the position of the event that is at fault, if it is known.
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
