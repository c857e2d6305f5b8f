//! Tokens: how far a segment has come, and the fence around every move of one.

use std::fmt;

use crate::position::Position;
use crate::segment::Segment;

/// The fence of a claim: each claim of a segment has a higher epoch than the one before, and a commit
/// names the epoch it was claimed under (I-4). 0 is before the first claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Before the first claim.
    pub const UNCLAIMED: Self = Self(0);

    /// The epoch with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch of the next claim.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far one segment has come. It covers every position through `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose token it is.
    pub segment: Segment,
    /// Under which claim it may move.
    pub epoch: Epoch,
    /// The last position it covers.
    pub position: Position,
    /// The mark of the hold on it, if any: while held it does not move.
    pub held_for: Option<Position>,
}

/// One move of a token, as a commit states it: the store carries it out only if the stored token still
/// has this epoch and this `from`, and is not held (I-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMove {
    /// Whose token moves.
    pub segment: Segment,
    /// The claim it moves under.
    pub epoch: Epoch,
    /// Where the batch started: the token's position before.
    pub from: Position,
    /// The last position the batch covers: the token's position after.
    pub to: Position,
}

/// Why a token was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefused {
    /// A flip holds it; the same commit is good again once the hold is lifted.
    Held {
        /// The held segment.
        segment: Segment,
        /// The mark of the hold: the position of the flip's request or of its last postponement.
        held_for: Position,
    },
    /// Another claim or another commit came first; this writer has lost its right to the segment.
    Fenced {
        /// The segment that was lost.
        segment: Segment,
        /// The move that was asked for.
        asked: TokenMove,
        /// The token as it is stored.
        stored: Token,
    },
}

impl fmt::Display for TokenRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { segment, held_for } => {
                write!(f, "segment {segment} is held by the flip of position {held_for}")
            }
            Self::Fenced { segment, asked, stored } => write!(
                f,
                "segment {segment} is no longer this writer's: it holds epoch {} at position {}, stored are epoch {} \
                 and position {}",
                asked.epoch, asked.from, stored.epoch, stored.position
            ),
        }
    }
}

impl std::error::Error for TokenRefused {}

impl Token {
    /// Whether every event through `position` is in the view.
    pub fn covers(&self, position: Position) -> bool {
        self.position >= position
    }

    /// The token after `asked`. The one rule by which a token moves (I-4): the same epoch, the same
    /// start, not held, never backwards.
    ///
    /// # Errors
    /// [`TokenRefused`], and the token stays as it is.
    pub fn moved(&self, asked: TokenMove) -> Result<Self, TokenRefused> {
        assert_eq!(self.segment, asked.segment, "a move is checked against its own segment's token");
        if asked.epoch != self.epoch || asked.from != self.position || asked.to < asked.from {
            return Err(TokenRefused::Fenced { segment: self.segment, asked, stored: *self });
        }
        if let Some(held_for) = self.held_for {
            return Err(TokenRefused::Held { segment: self.segment, held_for });
        }
        Ok(Self { position: asked.to, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentCount;
    use proptest::prelude::*;

    fn token(epoch: u64, position: u64, held: Option<u64>) -> Token {
        Token {
            segment: SegmentCount::ONE.segment(0).unwrap(),
            epoch: Epoch::new(epoch),
            position: Position::new(position),
            held_for: held.map(Position::new),
        }
    }

    proptest! {
        // I-4
        #[test]
        fn a_token_moves_only_forward_under_its_own_claim(
            epoch in 0..3_u64, at in 0..5_u64, held in proptest::option::of(1..3_u64),
            asked_epoch in 0..3_u64, from in 0..5_u64, to in 0..5_u64,
        ) {
            let stored = token(epoch, at, held);
            let asked = TokenMove {
                segment: stored.segment,
                epoch: Epoch::new(asked_epoch),
                from: Position::new(from),
                to: Position::new(to),
            };
            let allowed = epoch == asked_epoch && at == from && from <= to && held.is_none();
            match stored.moved(asked) {
                Ok(moved) => {
                    prop_assert!(allowed);
                    prop_assert_eq!(moved, token(epoch, to, None));
                }
                Err(_) => prop_assert!(!allowed),
            }
        }
    }
}
