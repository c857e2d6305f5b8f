//! What a commit can come to, for whatever is committed to.

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
    /// What it means that tokens refuse their moves, where whatever was made of the batch can be committed after a hold.
    pub(crate) fn of(refused: TokenRefused) -> Self {
        match refused {
            TokenRefused::Held { held_for, .. } => Self::Held { held_for, must_reapply: false },
            TokenRefused::Capped { cap, .. } => Self::Capped(cap),
            TokenRefused::Fenced { .. } => Self::Fenced(refused),
        }
    }
}

/// What goes wrong where something is written, told apart by whose fault it is.
pub(crate) trait Mistake: Display + Send {
    /// Whether it is a failure of the store and may pass, rather than a mistake of what was to be written.
    fn is_passing(&self) -> bool;

    /// The position of the event whose mistake it is, where that is known.
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
