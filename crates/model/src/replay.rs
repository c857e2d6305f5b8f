//! Replays in place: past events through a version again, in its own view.
//!
//! ```text
//!   ReplayRequested ──▶ every token moves back and marks where it was ──▶ … ──▶ each is where it was ──▶ ReplayEnded
//!    (names it)          in one transaction with the reset of the rows           (cut there)             (once)
//! ```
//!
//! The mark stays in the token, so a crash never begins a replay twice. The request stays in the catalog, so a view
//! that lost its last commits to a power failure begins the replay again. An event is a replay if its position is at
//! most the mark of its segment. This is decided for each event alone.

use crate::catalog::PendingReplay;
use crate::position::Position;
use crate::token::{Applied, ReplayMark, Token, TokenMove};

/// The treatment of the rows that the replayed events made before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayRows {
    /// They stay and are right all the time: readers still see what they saw before.
    #[default]
    Keep,
    /// They are removed in the transaction in which the tokens move back. Readers wait until they are complete again.
    Reset,
}

/// The support of a version for a replay in place: past events go through it again in its own view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InPlace {
    /// Not supported. A rebuild does it without readers noticing.
    #[default]
    No,
    /// Supported from any position, and the rows stay: applying an event a second time changes nothing, as where rows
    /// are written whole. Readers are answered all the time.
    KeepsRows,
    /// Supported from the start only. `Projection::reset` removes the rows first. Readers wait until they are
    /// complete again.
    Resets,
    /// Supported from any position. `Projection::reset` removes what later events made. Readers wait until it is
    /// complete again.
    ResetsFrom,
}

impl InPlace {
    /// Every value, with the name under which it is stored.
    const NAMES: [(Self, &str); 4] = [
        (Self::No, "no"),
        (Self::KeepsRows, "keeps-rows"),
        (Self::Resets, "resets"),
        (Self::ResetsFrom, "resets-from"),
    ];

    /// Returns the name under which it is stored.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.into_iter().find(|(it, _)| *it == self).map_or("no", |(_, name)| name)
    }

    /// Returns the value that is stored under this name; `None` for a name of a later release.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(it, _)| it)
    }

    /// Returns the treatment of the rows in a replay of the events after this position.
    ///
    /// # Errors
    /// The reason why there can be no such replay.
    pub fn rows(self, after: Position) -> Result<ReplayRows, &'static str> {
        match self {
            Self::No => Err("its projection does not say that past events may go through it again"),
            Self::KeepsRows => Ok(ReplayRows::Keep),
            Self::Resets if after > Position::START => Err("its rows can only be reset as a whole: from the start"),
            Self::Resets | Self::ResetsFrom => Ok(ReplayRows::Reset),
        }
    }
}

impl PendingReplay {
    /// Checks that it can still be cancelled, in a version with these tokens. Rows that were reset for it return only by
    /// completing it. A replay whose end every segment has reached is done, even before the catalog records it.
    ///
    /// # Errors
    /// The reason why it is too late.
    pub fn may_be_cancelled(&self, tokens: &[Token]) -> Result<(), &'static str> {
        let has_begun = tokens.iter().any(|token| token.replay.is_some_and(|mark| mark.request >= self.requested));
        if is_over(tokens, self.requested) {
            Err("it has ended")
        } else if self.rows == ReplayRows::Reset && has_begun {
            Err("its rows were reset, and only the replay brings them back")
        } else {
            Ok(())
        }
    }
}

impl Token {
    /// Returns the move with which this token begins `replay`; `None` once it has begun. A segment that has not
    /// reached the start of the replay only marks it.
    pub fn take_up(&self, replay: &PendingReplay) -> Option<TokenMove> {
        if replay.cancelled || self.replay.is_some_and(|mark| mark.request >= replay.requested) {
            return None;
        }
        let to = self.position.min(replay.after);
        let applied = if to == self.position { self.applied } else { Applied { after: to, events: 0 } };
        let mark = ReplayMark { request: replay.requested, through: self.shown() };
        Some(TokenMove { to, applied, replay: Some(mark), ..self.step(to, 0) })
    }

    /// Returns the move with which this token leaves `replay`, which was cancelled: to the position at which it went
    /// back. Returns `None` if it is there, or never went back. Rows that stayed right all the time are those of that
    /// position.
    pub fn leave(&self, replay: &PendingReplay) -> Option<TokenMove> {
        let mark = self.replay.filter(|mark| replay.cancelled && mark.request == replay.requested && self.replays())?;
        if replay.rows == ReplayRows::Reset {
            // Removed rows come back only by the replay itself.
            return None;
        }
        let applied = Applied { after: mark.through, events: 0 };
        Some(TokenMove { to: mark.through, applied, ..self.step(mark.through, 0) })
    }

    /// Returns the last position that is a replay for this segment: the one at which it went back.
    pub fn replays_through(&self) -> Position {
        self.replay.map_or(Position::START, |mark| mark.through)
    }
}

/// Returns the position that these rows cover for readers; `None` while rows are missing that readers saw before
/// (I-7). `last` is the last replay that was requested.
pub fn shown(tokens: &[Token], last: Option<&PendingReplay>) -> Option<Position> {
    let keeps =
        |mark: ReplayMark| last.is_some_and(|last| last.requested == mark.request && last.rows == ReplayRows::Keep);
    let of_token = |token: &Token| match token.replay {
        Some(mark) if token.replays() => keeps(mark).then(|| token.shown()),
        _ => Some(token.position),
    };
    tokens.iter().map(of_token).min().unwrap_or_default()
}

/// Returns true if every segment has begun the replay that was requested at `requested`, and has reached its end.
pub fn is_over(tokens: &[Token], requested: Position) -> bool {
    let over = |token: &Token| token.replay.is_some_and(|mark| mark.request >= requested) && !token.replays();
    !tokens.is_empty() && tokens.iter().all(over)
}

/// Returns true if no segment is still in the replay that was requested at `requested` and cancelled.
pub fn is_left(tokens: &[Token], requested: Position) -> bool {
    let on_its_way = |token: &Token| token.replay.is_some_and(|mark| mark.request == requested) && token.replays();
    !tokens.is_empty() && !tokens.iter().any(on_its_way)
}

/// Returns the progress of `replay`: the position that the slowest segment covers again, and the end of the last
/// segment. A segment that has not begun it counts as if it had. Returns `None` without tokens.
pub fn progress(tokens: &[Token], replay: &PendingReplay) -> Option<(Position, Position)> {
    let of_token = |token: &Token| match token.take_up(replay) {
        Some(back) => (back.to, token.shown()),
        None => (token.position, token.replays_through()),
    };
    let through = tokens.iter().map(|token| of_token(token).1).max()?;
    let at = tokens.iter().map(|token| of_token(token).0).min()?;
    Some((at.min(through), through))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentCount;
    use crate::token::Epoch;
    use proptest::prelude::*;

    fn token(position: u64, replay: Option<(u64, u64)>) -> Token {
        let mark = |(request, through)| ReplayMark { request: Position::new(request), through: Position::new(through) };
        Token {
            segment: SegmentCount::ONE.segment(0).unwrap(),
            epoch: Epoch::new(1),
            position: Position::new(position),
            applied: Applied { after: Position::START, events: position },
            replay: replay.map(mark),
            claimed_by: None,
            held_for: None,
            cap: None,
        }
    }

    fn asked(requested: u64, after: u64, rows: ReplayRows) -> PendingReplay {
        PendingReplay { requested: Position::new(requested), after: Position::new(after), rows, cancelled: false }
    }

    #[test]
    fn a_token_goes_back_once_for_each_request() {
        let before = token(10, None);
        let back = before.moved(before.take_up(&asked(20, 4, ReplayRows::Keep)).unwrap()).unwrap();
        assert_eq!((back.position.get(), back.replays_through().get(), back.replays()), (4, 10, true));
        assert_eq!(back.applied, Applied { after: Position::new(4), events: 0 }, "it counts from there");
        assert_eq!(back.take_up(&asked(20, 4, ReplayRows::Keep)), None);
        let on = back.moved(back.step(Position::new(6), 2)).unwrap();
        let again = on.moved(on.take_up(&asked(30, 0, ReplayRows::Keep)).unwrap()).unwrap();
        assert_eq!((again.position.get(), again.replays_through().get()), (0, 10), "what was shown stays marked");
    }

    #[test]
    fn a_replay_that_was_cancelled_is_left_where_it_began_and_not_taken_up() {
        let cancelled = |rows| PendingReplay { cancelled: true, ..asked(20, 4, rows) };
        let before = token(10, None);
        assert_eq!(before.take_up(&cancelled(ReplayRows::Keep)), None);
        assert_eq!(before.leave(&cancelled(ReplayRows::Keep)), None);
        assert!(is_left(&[before], Position::new(20)), "it never began");
        let back = before.moved(before.take_up(&asked(20, 4, ReplayRows::Keep)).unwrap()).unwrap();
        assert_eq!(back.leave(&asked(20, 4, ReplayRows::Keep)), None, "it was not cancelled");
        assert!(!is_left(&[before, back], Position::new(20)));
        let left = back.moved(back.leave(&cancelled(ReplayRows::Keep)).unwrap()).unwrap();
        assert_eq!((left.position, left.replays(), left.shown()), (before.position, false, before.shown()));
        assert!(is_left(&[before, left], Position::new(20)));
        let last = Some(cancelled(ReplayRows::Keep));
        assert_eq!(shown(&[back], last.as_ref()), Some(before.position), "what was shown is shown on (I-7)");
        assert_eq!(back.leave(&cancelled(ReplayRows::Reset)), None, "rows that are gone come back only on the way");
    }

    #[test]
    fn a_replay_is_cancelled_before_it_has_ended_and_before_rows_are_gone() {
        let may = |token, rows| asked(20, 4, rows).may_be_cancelled(&[token]);
        let (not_begun, under_way, over) = (token(10, None), token(6, Some((20, 10))), token(10, Some((20, 10))));
        for rows in [ReplayRows::Keep, ReplayRows::Reset] {
            assert_eq!(may(not_begun, rows), Ok(()));
            assert_eq!(may(over, rows), Err("it has ended"));
        }
        assert_eq!(may(under_way, ReplayRows::Keep), Ok(()), "its rows are right all the time");
        assert!(may(under_way, ReplayRows::Reset).unwrap_err().starts_with("its rows were reset"));
        assert_eq!(may(token(6, Some((12, 10))), ReplayRows::Reset), Ok(()), "those are of an earlier replay");
    }

    #[test]
    fn a_segment_that_is_not_so_far_only_takes_note() {
        let before = token(3, None);
        let after = before.moved(before.take_up(&asked(20, 7, ReplayRows::Reset)).unwrap()).unwrap();
        assert_eq!((after.position, after.applied, after.replays()), (before.position, before.applied, false));
        assert!(is_over(&[after], Position::new(20)) && !is_over(&[after], Position::new(21)));
    }

    #[test]
    fn readers_wait_for_rows_that_were_reset_and_for_none_that_were_kept() {
        let tokens = [token(12, Some((20, 9))), token(4, Some((20, 10)))];
        assert_eq!(shown(&tokens, Some(&asked(20, 0, ReplayRows::Keep))), Some(Position::new(10)));
        assert_eq!(shown(&tokens, Some(&asked(20, 0, ReplayRows::Reset))), None);
        assert_eq!(shown(&tokens, Some(&asked(30, 0, ReplayRows::Keep))), None, "of an earlier one nothing is known");
        assert_eq!(shown(&tokens[..1], None), Some(Position::new(12)));
        let far = |requested| progress(&tokens, &asked(requested, 2, ReplayRows::Keep));
        assert_eq!(far(20), Some((Position::new(4), Position::new(10))));
        assert_eq!(far(21), Some((Position::new(2), Position::new(12))), "as it will be once it is taken up");
    }

    proptest! {
        // I-7: whatever replays begin and however far they get, the position that readers see never goes back.
        #[test]
        fn what_is_shown_never_goes_back(
            acts in prop::collection::vec((0..3_u8, 0..2_usize, 1..6_u64, any::<bool>()), 1..60),
        ) {
            let mut tokens = [token(0, None), token(0, None)];
            let (mut requested, mut last, mut head, mut seen) = (100, None, 0_u64, Position::START);
            for (act, which, by, reset) in acts {
                let now = tokens[which];
                let moved = match act {
                    0 => {
                        let to = Position::new((now.position.get() + by).min(head));
                        // A batch is cut at the end of the replay.
                        let to = if now.replays() { to.min(now.replays_through()) } else { to };
                        Some(now.step(to, 0))
                    }
                    1 if last.is_none_or(|last: PendingReplay| is_over(&tokens, last.requested)) => {
                        requested += 1;
                        let rows = if reset { ReplayRows::Reset } else { ReplayRows::Keep };
                        last = Some(asked(requested, by, rows));
                        None
                    }
                    1 => last.and_then(|last| now.take_up(&last)),
                    _ => {
                        head += by;
                        None
                    }
                };
                if let Some(moved) = moved {
                    tokens[which] = now.moved(moved).unwrap();
                }
                if let Some(shown) = shown(&tokens, last.as_ref()) {
                    prop_assert!(shown >= seen, "{shown} after {seen}");
                    seen = shown;
                }
            }
        }
    }
}
