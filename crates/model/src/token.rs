//! Tokens: the progress of a segment, and the fence around every move of one.

use std::fmt;

use crate::member::MemberId;
use crate::numbers::grouped;
use crate::position::Position;
use crate::segment::Segment;

/// The fence of a claim: each claim of a segment has a higher epoch than the one before, and a commit
/// names the epoch it was claimed under (I-4). 0 is before the first claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Before the first claim.
    pub const UNCLAIMED: Self = Self(0);

    /// Returns the epoch with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the epoch of the next claim.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of events that a segment has processed. What a token covers can be counted again in the journal, so a
/// lost event is noticed even where there is no lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The position after which events were counted.
    pub after: Position,
    /// The matching events from there through the token's position, each applied or set aside.
    pub events: u64,
}

/// The last replay in place that a segment took up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayMark {
    /// The position of the request in the catalog. Each request has its own, so none is taken up twice.
    pub request: Position,
    /// The position of the segment when it went back. Everything that it covers again through here is a replay.
    pub through: Position,
}

/// The progress of one segment. It covers every position through `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The segment.
    pub segment: Segment,
    /// The claim under which it may move.
    pub epoch: Epoch,
    /// The last position it covers.
    pub position: Position,
    /// The member that claimed it under this epoch. The claim is good while the member has a lease. A writer without
    /// a claim is fenced even so, by the epoch.
    pub claimed_by: Option<MemberId>,
    /// The mark of the hold on it, if any. While held it does not move.
    pub held_for: Option<Position>,
    /// The position that it may not pass, if it is to stop at the same position as another version's token.
    pub cap: Option<Position>,
    /// The count of events so far.
    pub applied: Applied,
    /// The last replay in place. It stays after the end of the replay, until another one replaces it.
    pub replay: Option<ReplayMark>,
}

/// One move of a token, as a commit states it. The store carries it out only if the stored token still has this epoch
/// and this `from`, and is not held (I-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMove {
    /// The segment.
    pub segment: Segment,
    /// The claim it moves under.
    pub epoch: Epoch,
    /// The position where the batch started: the token's position before.
    pub from: Position,
    /// The last position that the batch covers: the token's position after.
    pub to: Position,
    /// The count of events after the move.
    pub applied: Applied,
    /// The replay mark after the move. With a newer mark than the token has, `to` may be before `from`.
    pub replay: Option<ReplayMark>,
}

/// The reason why a token was not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRefused {
    /// A flip holds it. The same commit is good again once the hold is lifted.
    Held {
        /// The held segment.
        segment: Segment,
        /// The mark of the hold: the position of the flip's request or of its last postponement.
        held_for: Position,
    },
    /// It is to stop at a position for a moment, to be compared with another version. A batch that ends there is
    /// good.
    Capped {
        /// The segment.
        segment: Segment,
        /// The position that it may not pass.
        cap: Position,
    },
    /// Another claim or another commit came first; this writer has lost its right to the segment.
    Fenced {
        /// The segment that was lost.
        segment: Segment,
        /// The requested move.
        asked: Box<TokenMove>,
        /// The token as it is stored.
        stored: Box<Token>,
    },
}

impl fmt::Display for TokenRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { segment, held_for } => {
                write!(f, "segment {segment} is held by the flip of position {}", grouped(held_for.get()))
            }
            Self::Capped { segment, cap } => {
                write!(f, "segment {segment} is to stop at position {} for a moment", grouped(cap.get()))
            }
            Self::Fenced { segment, asked, stored } => write!(
                f,
                "this writer has lost segment {segment}: it writes under epoch {} from position {}, stored are epoch {} \
                 and position {}",
                asked.epoch,
                grouped(asked.from.get()),
                stored.epoch,
                grouped(stored.position.get())
            ),
        }
    }
}

impl std::error::Error for TokenRefused {}

/// Returns the position that all of these tokens cover; the start if there are none.
pub fn covered(tokens: &[Token]) -> Position {
    tokens.iter().map(|token| token.position).min().unwrap_or_default()
}

impl Token {
    /// Returns true if nothing has moved it since its view was made, not even a replay in place, back to the start.
    pub fn is_new(&self) -> bool {
        self.position == Position::START && self.replay.is_none()
    }

    /// Returns true if every event through `position` is in the view.
    pub fn covers(&self, position: Position) -> bool {
        self.position >= position
    }

    /// Returns true if a replay in place is under way: the token is not yet where it was when it went back.
    pub fn replays(&self) -> bool {
        self.replay.is_some_and(|mark| self.position < mark.through)
    }

    /// Returns the highest position whose events the rows have ever shown.
    pub fn shown(&self) -> Position {
        self.replay.map_or(self.position, |mark| self.position.max(mark.through))
    }

    /// Returns true if this is a later state of the segment's token than `other`: under a later claim, after a later
    /// replay began, or at a later position.
    pub fn is_later_than(&self, other: &Self) -> bool {
        let order = |token: &Self| (token.epoch, token.replay.map(|mark| mark.request), token.position);
        order(self) > order(other)
    }

    /// Returns the move of this token to `to`, with `events` more counted.
    pub fn step(&self, to: Position, events: u64) -> TokenMove {
        let applied = Applied { events: self.applied.events + events, ..self.applied };
        TokenMove { segment: self.segment, epoch: self.epoch, from: self.position, to, applied, replay: self.replay }
    }

    /// Returns the token after the move `asked`. This is the one rule by which a token moves (I-4): the same epoch,
    /// the same start, not held, not past its cap. It moves back only to begin a replay in place, which the new mark
    /// states.
    ///
    /// # Errors
    /// [`TokenRefused`] if the rule is broken. The token stays as it is.
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
        if let Some(cap) = self.cap.filter(|cap| asked.to > *cap && asked.to > asked.from) {
            return Err(TokenRefused::Capped { segment: self.segment, cap });
        }
        let moved = Self { position: asked.to, applied: asked.applied, replay: asked.replay, ..*self };
        assert!(moved.shown() >= self.shown(), "I-7: what was shown once stays known");
        Ok(moved)
    }

    /// Returns true if `asked` begins a replay that this segment has not begun yet, and marks everything that was
    /// shown.
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
        capped(epoch, position, held, None, replay)
    }

    fn capped(epoch: u64, position: u64, held: Option<u64>, cap: Option<u64>, replay: Option<(u64, u64)>) -> Token {
        Token {
            segment: SegmentCount::ONE.segment(0).unwrap(),
            epoch: Epoch::new(epoch),
            position: Position::new(position),
            claimed_by: None,
            held_for: held.map(Position::new),
            cap: cap.map(Position::new),
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
            epoch in 0..3_u64, at in 0..5_u64, held in proptest::option::of(1..3_u64), cap in proptest::option::of(0..5_u64),
            replay in proptest::option::of((1..3_u64, 0..6_u64)),
            asked_epoch in 0..3_u64, from in 0..5_u64, to in 0..5_u64,
            asked_replay in proptest::option::of((1..3_u64, 0..6_u64)),
        ) {
            let stored = capped(epoch, at, held, cap, replay);
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
            let within = to <= from || cap.is_none_or(|cap| to <= cap);
            let allowed = epoch == asked_epoch && at == from && (on || back) && held.is_none() && within;
            match stored.moved(asked) {
                Ok(moved) => {
                    prop_assert!(allowed);
                    let expected = Token { applied: asked.applied, ..capped(epoch, to, None, cap, asked_replay) };
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
