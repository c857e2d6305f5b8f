//! The flip gate: may readers move from version `a` to version `b` now, and if not, what is missing?
//!
//! ```text
//!   FlipRequested at F ──▶ b covers F, so does a ──▶ hold a ──▶ W = highest token of a
//!                               ▲                                     │
//!                               └── FlipPostponed past the budget ◀───┤
//!                                                                     ▼
//!                                              b covers max(F, W) ──▶ Flipped ──▶ a is released, standing by
//! ```
//!
//! W is read after every token row of `a` is marked, and a marked row refuses to move, so nothing above
//! W was or will be shown by `a` before the flip: whoever reads `b` after it sees at least as much (I-7).
//! The gate is a function of what is stored. It holds no state, so any node can take over at any point,
//! and two controllers at once reach the same answer.

use crate::limits;
use crate::position::Position;
use crate::token::Token;
use crate::version::VersionId;
use crate::waiting::WaitingOn;

/// The version that serves while the flip is under way.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    /// Which version it is.
    pub version: VersionId,
    /// Its tokens as stored.
    pub tokens: &'a [Token],
    /// Whether a live node carries its code. One that nobody carries stands still and is not waited for.
    pub followed: bool,
}

/// What is known about a flip under way.
#[derive(Clone, Copy, Debug)]
pub struct FlipFacts<'a> {
    /// The position of the request: F.
    pub requested: Position,
    /// The mark of the present hold.
    pub hold: Position,
    /// The version that serves; none when the first version comes.
    pub from: Option<From<'a>>,
    /// The version to serve.
    pub to: VersionId,
    /// Its tokens as stored.
    pub to_tokens: &'a [Token],
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing yet; the reasons.
    Wait(Vec<WaitingOn>),
    /// Mark the token rows of the old version.
    Hold,
    /// The old version is held; only this is missing, within the budget of the hold.
    Held(Vec<WaitingOn>),
    /// Append `Flipped`.
    Flip {
        /// What every segment of the new version covers: the evidence (I-6).
        covers: Position,
    },
}

/// The rule of the flip.
///
/// # Panics
/// When a version has no tokens: every version has at least one segment.
pub fn gate(facts: &FlipFacts<'_>) -> Gate {
    let covers = facts.to_tokens.iter().map(|token| token.position).min().expect("a version has segments");
    let mut missing = behind(facts.to, facts.to_tokens, facts.requested);
    let Some(from) = facts.from else {
        return if missing.is_empty() { Gate::Flip { covers } } else { Gate::Wait(missing) };
    };
    if from.followed {
        missing.extend(behind(from.version, from.tokens, facts.requested));
    }
    let shown = from.tokens.iter().map(|token| token.position).max().expect("a version has segments");
    // A hold that could not end within its budget would only disturb.
    let near = Position::new(shown.get().saturating_sub(limits::HOLD_LAG_MAX));
    if missing.is_empty() {
        missing = behind(facts.to, facts.to_tokens, near);
    }
    if !missing.is_empty() {
        return Gate::Wait(missing);
    }
    if from.tokens.iter().any(|token| token.held_for != Some(facts.hold)) {
        return Gate::Hold;
    }
    // Every row was marked before `shown` was read, so it is W.
    let missing = behind(facts.to, facts.to_tokens, shown);
    if missing.is_empty() { Gate::Flip { covers } } else { Gate::Held(missing) }
}

fn behind(version: VersionId, tokens: &[Token], needed: Position) -> Vec<WaitingOn> {
    let short = tokens.iter().filter(|token| !token.covers(needed));
    short
        .map(|token| WaitingOn::Segment { version, segment: token.segment, behind: needed.since(token.position) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentCount;
    use crate::token::Epoch;
    use proptest::prelude::*;

    const A: VersionId = VersionId { code: 1, build: 1 };
    const B: VersionId = VersionId { code: 2, build: 1 };

    fn tokens(positions: &[u64], held_for: Option<u64>) -> Vec<Token> {
        let count = SegmentCount::new(positions.len() as u16).unwrap();
        let token = |(segment, position): (_, &u64)| Token {
            segment,
            epoch: Epoch::new(1),
            position: Position::new(*position),
            held_for: held_for.map(Position::new),
        };
        count.segments().zip(positions).map(token).collect()
    }

    fn facts<'a>(from: &'a [Token], to: &'a [Token], followed: bool) -> FlipFacts<'a> {
        let from = Some(From { version: A, tokens: from, followed });
        FlipFacts { requested: Position::new(10), hold: Position::new(15), from, to: B, to_tokens: to }
    }

    #[test]
    fn the_gate_says_what_is_missing() {
        let (from, to) = (tokens(&[10, 12], None), tokens(&[9, 10], None));
        let segment = SegmentCount::ONE.segment(0).unwrap();
        let expected = WaitingOn::Segment { version: B, segment, behind: 1 };
        assert_eq!(gate(&facts(&from, &to, true)), Gate::Wait(vec![expected]));
    }

    #[test]
    fn a_hold_comes_before_the_flip_and_an_old_hold_does_not_count() {
        let (from, to) = (tokens(&[10, 12], None), tokens(&[13, 13], None));
        assert_eq!(gate(&facts(&from, &to, true)), Gate::Hold);
        let from = tokens(&[10, 12], Some(10));
        assert_eq!(gate(&facts(&from, &to, true)), Gate::Hold);
    }

    #[test]
    fn everything_the_old_version_showed_must_be_covered() {
        let from = tokens(&[10, 12], Some(15));
        let segment = SegmentCount::ONE.segment(0).unwrap();
        let short = WaitingOn::Segment { version: B, segment, behind: 1 };
        assert_eq!(gate(&facts(&from, &tokens(&[11, 13], None), true)), Gate::Held(vec![short]));
        let covers = Position::new(12);
        assert_eq!(gate(&facts(&from, &tokens(&[12, 13], None), true)), Gate::Flip { covers });
    }

    #[test]
    fn an_old_version_that_nobody_carries_does_not_block() {
        let (from, to) = (tokens(&[3, 4], None), tokens(&[10, 10], None));
        assert!(matches!(gate(&facts(&from, &to, true)), Gate::Wait(_)));
        assert_eq!(gate(&facts(&from, &to, false)), Gate::Hold);
    }

    #[test]
    fn a_version_that_is_far_behind_does_not_hold_the_old_one() {
        let far = 10 + limits::HOLD_LAG_MAX;
        let (from, to) = (tokens(&[10, far + 1], None), tokens(&[10, far], None));
        assert!(matches!(gate(&facts(&from, &to, true)), Gate::Wait(_)));
        let from = tokens(&[10, far], None);
        assert_eq!(gate(&facts(&from, &to, true)), Gate::Hold);
    }

    #[test]
    fn the_first_version_only_has_to_cover_the_request() {
        let to = tokens(&[10], None);
        let (requested, hold) = (Position::new(10), Position::new(10));
        let facts = FlipFacts { requested, hold, from: None, to: B, to_tokens: &to };
        assert_eq!(gate(&facts), Gate::Flip { covers: Position::new(10) });
    }

    proptest! {
        // I-6, I-7
        #[test]
        fn an_open_gate_is_evidence(
            from in prop::collection::vec(0..20_u64, 1..5), to in prop::collection::vec(0..20_u64, 1..5),
            held in prop::option::of(14..17_u64), followed in any::<bool>(),
        ) {
            let (from, to) = (tokens(&from, held), tokens(&to, None));
            if let Gate::Flip { covers } = gate(&facts(&from, &to, followed)) {
                prop_assert!(covers >= Position::new(10));
                prop_assert!(to.iter().all(|token| token.covers(covers)));
                prop_assert!(from.iter().all(|token| covers >= token.position), "a reader would go back");
                prop_assert!(from.iter().all(|token| token.held_for == Some(Position::new(15))));
            }
        }
    }
}
