//! The rules for a version that others wait for, because only its effects may be made for events that it has not reached
//! yet (I-9).
//!
//! Nobody waits for a version that does not get there: it halts, is paused, makes no progress, or no live node has its
//! code.

use std::time::Duration;

use crate::catalog::ProjectionState;
use crate::letter::Refusal;
use crate::limits;
use crate::phase::Phase;
use crate::position::Position;
use crate::segment::Segment;
use crate::token::Token;
use crate::version::VersionId;

impl ProjectionState {
    /// Returns the position that a version on stand-by must reach before it is cleaned up: that of the flip away from it.
    /// No other version makes the effects of events through there. Returns `None` if nobody waits for it.
    ///
    /// `reacts`: code of the projection makes effects. `has_code`: a live node has the code of the version.
    pub fn must_reach(&self, version: VersionId, reacts: bool, has_code: bool) -> Option<Position> {
        let state = self.versions.get(&version)?;
        let goes_on = state.phase == Phase::StandingBy && !state.paused && has_code;
        self.spoke_until(version).filter(|_| goes_on && reacts)
    }

    /// Returns the position through which another version may emit effects before those of an event at `position`, if
    /// it still applies events.
    pub fn comes_until(&self, version: VersionId, position: Position) -> Option<Position> {
        let applies = self.versions.get(&version).is_some_and(|state| state.phase.applies());
        self.spoke_before(version, position).filter(|_| applies)
    }
}

/// Returns true if a version must still reach `until`: a segment lags and does not halt. `refusals` are the events before
/// which segments halt.
pub fn still_reaches(until: Position, tokens: &[Token], refusals: &[Refusal]) -> bool {
    tokens.iter().any(|token| !token.covers(until) && !halts(token.segment, refusals))
}

/// Returns true if a segment of a version with these tokens has reached `until`, even if it has gone back since.
pub fn has_reached(until: Position, segment: Segment, tokens: &[Token]) -> bool {
    tokens.iter().any(|token| token.segment == segment && token.shown() >= until)
}

/// Returns true if a segment that has not reached a position makes progress. `still` is the time for which its version
/// has not moved.
pub fn makes_progress(segment: Segment, refusals: &[Refusal], still: Duration) -> bool {
    !halts(segment, refusals) && still < limits::STALL_TIME_MAX
}

fn halts(segment: Segment, refusals: &[Refusal]) -> bool {
    refusals.iter().any(|refusal| refusal.segment == segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{CatalogEvent, CleanUpReason, FlipKind};
    use crate::segment::SegmentCount;
    use crate::testing::{self, scheduled, tokens, view};
    use crate::time::Timestamp;
    use crate::token::ReplayMark;

    const ONE: VersionId = VersionId { code: 1, build: 1 };
    const TWO: VersionId = VersionId { code: 2, build: 1 };

    fn segment(number: u16) -> Segment {
        SegmentCount::new(2).unwrap().segment(number).unwrap()
    }

    fn refusal(number: u16) -> Refusal {
        Refusal {
            segment: segment(number),
            position: Position::new(10),
            attempts: 1,
            error: "no".into(),
            since: Timestamp::from_micros(0),
            due: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn a_version_reaches_its_last_events_unless_each_segment_that_lags_halts() {
        let until = Position::new(12);
        let lags = tokens(&[11, 9]);
        assert!(still_reaches(until, &lags, &[]));
        assert!(still_reaches(until, &lags, &[refusal(1)]), "segment 0 goes on");
        assert!(!still_reaches(until, &lags, &[refusal(0), refusal(1)]));
        assert!(!still_reaches(until, &tokens(&[12, 13]), &[]), "it is there");
    }

    #[test]
    fn one_segment_is_waited_for_as_long_as_it_makes_progress() {
        let until = Position::new(12);
        let [there, mut back] = tokens(&[12, 9])[..] else { panic!() };
        assert!(has_reached(until, segment(0), &[there, back]) && !has_reached(until, segment(1), &[there, back]));
        back.replay = Some(ReplayMark { request: Position::new(20), through: until });
        assert!(has_reached(until, segment(1), &[there, back]), "its effects were made before the replay");
        let moves = |refusals: &[Refusal], still| makes_progress(segment(1), refusals, still);
        let just = limits::STALL_TIME_MAX - Duration::from_nanos(1);
        assert!(moves(&[], just) && moves(&[refusal(0)], just));
        assert!(!moves(&[refusal(1)], just) && !moves(&[], limits::STALL_TIME_MAX));
    }

    /// v1.1 served from position 4 and v2.1 from position 8.
    fn projection(more: impl IntoIterator<Item = CatalogEvent>) -> ProjectionState {
        let builds = |code, from| {
            let (kind, covers) = (FlipKind::Flip, Position::START);
            [
                scheduled(view(code), None),
                CatalogEvent::Initializing { view: view(code) },
                CatalogEvent::FlipRequested { view: view(code), from, kind },
                CatalogEvent::Flipped { view: view(code), from, kind, covers },
            ]
        };
        testing::projection(builds(1, None).into_iter().chain(builds(2, Some(ONE))).chain(more))
    }

    // I-9
    #[test]
    fn a_version_on_stand_by_must_reach_the_flip_away_from_it_if_it_can() {
        let state = projection([]);
        assert_eq!(state.must_reach(ONE, true, true), Some(Position::new(8)));
        assert_eq!(state.must_reach(ONE, false, true), None, "no code makes effects");
        assert_eq!(state.must_reach(ONE, true, false), None, "nobody has its code");
        assert_eq!(state.must_reach(TWO, true, true), None, "it serves");
        assert_eq!(projection([CatalogEvent::Paused { view: view(1) }]).must_reach(ONE, true, true), None);
    }

    // I-9
    #[test]
    fn effects_after_a_flip_come_after_those_of_the_version_that_was_left() {
        let state = projection([]);
        let until = |version, position| state.comes_until(version, Position::new(position)).map(Position::get);
        assert_eq!([until(ONE, 7), until(ONE, 8), until(TWO, 8)], [None, Some(8), None]);
        let gone = projection([CatalogEvent::CleaningUp { view: view(1), reason: CleanUpReason::Asked }]);
        assert_eq!(gone.comes_until(ONE, Position::new(8)), None, "it applies nothing any more");
    }
}
