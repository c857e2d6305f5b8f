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

/// How many events a segment has taken up: what its token says it covers can be counted again in the journal, so
/// that an event that fell out on the way shows even where nothing lags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events behind this position were counted.
    pub after: Position,
    /// The matching events from there through the token's position, each applied or set aside.
    pub events: u64,
}

/// The last replay in place that a segment took up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayMark {
    /// The position of the request in the catalog. Each request has its own, so none is taken up twice.
    pub request: Position,
    /// Where the segment stood when it went back: what it covers again through here is a replay.
    pub through: Position,
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
    /// What was counted on the way.
    pub applied: Applied,
    /// The last replay in place. It stays when that is over, until another one takes its place.
    pub replay: Option<ReplayMark>,
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
    /// What is counted then.
    pub applied: Applied,
    /// The replay mark then. With a newer one than the token has, `to` may be before `from`.
    pub replay: Option<ReplayMark>,
}

/// Why a token was not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        asked: Box<TokenMove>,
        /// The token as it is stored.
        stored: Box<Token>,
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
    /// Whether nothing has moved it since its view was made: not even a replay in place, back to the start.
    pub fn is_new(&self) -> bool {
        self.position == Position::START && self.replay.is_none()
    }

    /// Whether every event through `position` is in the view.
    pub fn covers(&self, position: Position) -> bool {
        self.position >= position
    }

    /// Whether a replay in place is under way: the token is not yet where it was when it went back.
    pub fn replays(&self) -> bool {
        self.replay.is_some_and(|mark| self.position < mark.through)
    }

    /// The highest position whose events the rows have ever shown.
    pub fn shown(&self) -> Position {
        self.replay.map_or(self.position, |mark| self.position.max(mark.through))
    }

    /// The move of this token to `to`, with `events` more counted.
    pub fn step(&self, to: Position, events: u64) -> TokenMove {
        let applied = Applied { events: self.applied.events + events, ..self.applied };
        TokenMove { segment: self.segment, epoch: self.epoch, from: self.position, to, applied, replay: self.replay }
    }

    /// The token after `asked`. The one rule by which a token moves (I-4): the same epoch, the same
    /// start, not held, and never backwards but to begin a replay in place, which the new mark says.
    ///
    /// # Errors
    /// [`TokenRefused`], and the token stays as it is.
    pub fn moved(&self, asked: TokenMove) -> Result<Self, TokenRefused> {
        assert_eq!(self.segment, asked.segment, "a move is checked against its own segment's token");
        let goes_on = asked.replay == self.replay && asked.to >= asked.from;
        let ours = asked.epoch == self.epoch && asked.from == self.position;
        if !ours || !(goes_on || self.begins_replay(asked)) {
            return Err(TokenRefused::Fenced {
                segment: self.segment,
                asked: Box::new(asked),
                stored: Box::new(*self),
            });
        }
        if let Some(held_for) = self.held_for {
            return Err(TokenRefused::Held { segment: self.segment, held_for });
        }
        Ok(Self { position: asked.to, applied: asked.applied, replay: asked.replay, ..*self })
    }

    /// Whether `asked` begins a replay that this segment has not taken up yet, and marks all that was shown.
    fn begins_replay(&self, asked: TokenMove) -> bool {
        asked.replay.is_some_and(|mark| {
            self.replay.is_none_or(|before| mark.request > before.request) && mark.through >= self.shown()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentCount;
    use proptest::prelude::*;

    fn token(epoch: u64, position: u64, held: Option<u64>, replay: Option<(u64, u64)>) -> Token {
        Token {
            segment: SegmentCount::ONE.segment(0).unwrap(),
            epoch: Epoch::new(epoch),
            position: Position::new(position),
            held_for: held.map(Position::new),
            applied: Applied::default(),
            replay: replay.map(mark),
        }
    }

    fn mark((request, through): (u64, u64)) -> ReplayMark {
        ReplayMark { request: Position::new(request), through: Position::new(through) }
    }

    proptest! {
        // I-4
        #[test]
        fn a_token_moves_forward_under_its_own_claim_and_back_only_for_a_new_replay(
            epoch in 0..3_u64, at in 0..5_u64, held in proptest::option::of(1..3_u64),
            replay in proptest::option::of((1..3_u64, 0..6_u64)),
            asked_epoch in 0..3_u64, from in 0..5_u64, to in 0..5_u64,
            asked_replay in proptest::option::of((1..3_u64, 0..6_u64)),
        ) {
            let stored = token(epoch, at, held, replay);
            let asked = TokenMove {
                segment: stored.segment,
                epoch: Epoch::new(asked_epoch),
                from: Position::new(from),
                to: Position::new(to),
                applied: Applied { after: Position::START, events: 3 },
                replay: asked_replay.map(mark),
            };
            let on = asked_replay == replay && from <= to;
            let back = asked_replay.is_some_and(|(request, through)| {
                replay.is_none_or(|(before, shown)| request > before && through >= shown) && through >= at
            });
            let allowed = epoch == asked_epoch && at == from && (on || back) && held.is_none();
            match stored.moved(asked) {
                Ok(moved) => {
                    prop_assert!(allowed);
                    let expected = Token { applied: asked.applied, ..token(epoch, to, None, asked_replay) };
                    prop_assert_eq!(moved, expected);
                    prop_assert!(moved.shown() >= stored.shown(), "what was shown stays marked (I-7)");
                }
                Err(_) => prop_assert!(!allowed),
            }
        }
    }

    #[test]
    fn a_replay_is_under_way_until_the_token_is_where_it_was() {
        assert!(token(1, 4, None, Some((9, 5))).replays());
        assert!(!token(1, 5, None, Some((9, 5))).replays());
        assert!(!token(1, 4, None, None).replays());
    }
}
