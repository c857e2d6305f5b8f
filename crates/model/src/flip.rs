//! The flip gate: may readers move from version `a` to version `b` now, and if not, what is missing?
//!
//! ```text
//!   FlipRequested at F ──▶ b is verified, covers F, and nearly what a shows ──▶ hold a ──▶ W = highest token of a
//!                               ▲                                                                │
//!                               └──────────────── FlipPostponed past the budget ◀────────────────┤
//!                                                                                                ▼
//!                                                                         b covers max(F, W) ──▶ Flipped ──▶ a is released
//! ```
//!
//! W is read after every token row of `a` is marked, and a marked row refuses to move. So before the flip `a` never
//! shows anything above W, and every reader of `b` after the flip sees at least as much (I-7). The progress of `a`
//! itself does not matter: readers must be able to leave a version that is slow, refuses an event, or cannot be
//! opened at all. In the last case it shows nothing, and W is known without a hold. The gate is a function of what is
//! stored. It holds no state, so any node can continue at any point, and two controllers at once reach the same
//! answer.

use std::time::Duration;

use crate::limits;
use crate::position::Position;
use crate::token::Token;
use crate::version::VersionId;
use crate::waiting::WaitingOn;

/// The version that serves while the flip is under way.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// Its view is open.
    Open {
        /// Its tokens as stored.
        tokens: &'a [Token],
        /// An upper bound of what it showed before its view was made again, as far as is known. It covers less since.
        shown_before: Position,
    },
    /// Its view is open nowhere and will not be opened while the flip is decided, so it shows nothing.
    Closed {
        /// An upper bound of everything that it showed before.
        shown: Position,
    },
}

/// The facts about a flip under way.
#[derive(Clone, Debug)]
pub struct FlipFacts<'a> {
    /// The position of the request: F.
    pub requested: Position,
    /// The mark of the present hold.
    pub hold: Position,
    /// The time for which the driver has known that the version that serves is held.
    pub held: Duration,
    /// The version that serves; `None` for the first version.
    pub from: Option<From<'a>>,
    /// The version to serve.
    pub to: VersionId,
    /// Its tokens as stored, or the reason why nobody could answer from it: its code or its view is missing.
    pub to_tokens: Result<&'a [Token], WaitingOn>,
    /// `Ok` if its verification lets it serve, else the reason: [`rebuild::verified`](crate::rebuild::verified).
    pub to_verified: Result<(), WaitingOn>,
    /// True if events were set aside in it since its verification passed, so that the verdict says too much.
    pub outdated: bool,
    /// The reasons why events are kept from it. While there are any, nothing is held for it.
    pub halts: &'a [WaitingOn],
}

/// The next action of the flip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Wait, for these reasons.
    Wait(Vec<WaitingOn>),
    /// Request another verification of the new version.
    VerifyAgain,
    /// Mark the token rows of the old version.
    Hold,
    /// Wait, for these reasons: the old version is held, within the budget of the hold.
    Held(Vec<WaitingOn>),
    /// Append `FlipPostponed`, and then lift the hold: it has used up its budget.
    Postpone,
    /// Append `Flipped`.
    Flip {
        /// The evidence: every segment of the new version covers this position (I-6).
        covers: Position,
    },
}

/// Returns the next action of the flip: the rule of the flip.
///
/// # Panics
/// If a version has no tokens. Every version has at least one segment.
pub fn gate(facts: &FlipFacts<'_>) -> Gate {
    if facts.outdated && facts.to_verified.is_ok() {
        return Gate::VerifyAgain;
    }
    match evidence(facts) {
        // A version that halts would not come closer during the hold.
        Gate::Hold if !facts.halts.is_empty() => Gate::Wait(facts.halts.to_vec()),
        Gate::Wait(mut reasons) => {
            let more = facts.halts.iter().filter(|halt| !reasons.contains(halt)).cloned().collect::<Vec<_>>();
            reasons.extend(more);
            Gate::Wait(reasons)
        }
        other => other,
    }
}

/// Returns the next action that the tokens and the verdict allow.
#[expect(clippy::expect_used, reason = "a version has segments")]
fn evidence(facts: &FlipFacts<'_>) -> Gate {
    let (from, shown_before) = match facts.from {
        Some(From::Open { tokens, shown_before }) => (tokens, shown_before),
        Some(From::Closed { shown }) => (&[][..], shown),
        None => (&[][..], Position::START),
    };
    let held = |token: &Token| token.held_for == Some(facts.hold);
    // A hold is given up after its budget, whatever is missing then. A flip without a hold only waits.
    let missing = |reasons| match from.iter().any(held) {
        true if facts.held >= limits::HOLD_TIME_MAX => Gate::Postpone,
        true => Gate::Held(reasons),
        false => Gate::Wait(reasons),
    };
    let to = match &facts.to_tokens {
        Ok(tokens) => *tokens,
        Err(reason) => return missing(vec![reason.clone()]),
    };
    let shown = from.iter().map(Token::shown).fold(shown_before, Position::max);
    if !from.iter().all(held) {
        // A hold that could not end within its budget would only disturb readers.
        let near = Position::new(shown.get().saturating_sub(limits::HOLD_LAG_MAX));
        let reasons = lacks(facts, to, facts.requested.max(near));
        return if reasons.is_empty() { Gate::Hold } else { missing(reasons) };
    }
    // Every row was marked before `shown` was read, so it is W.
    let reasons = lacks(facts, to, facts.requested.max(shown));
    let covers = to.iter().map(|token| token.position).min().expect("a version has segments");
    if reasons.is_empty() { Gate::Flip { covers } } else { missing(reasons) }
}

/// Returns the mark to lift, if tokens of a version are held by a flip that is over: a driver that stopped before it
/// could lift the hold left it. `present` is the mark of the flip under way away from that version
/// ([`hold_on`](crate::ProjectionState::hold_on)). `known_through` is the position through which the catalog was read after the tokens:
/// a later mark may belong to a flip that is not known yet.
pub fn stray_hold(tokens: &[Token], present: Option<Position>, known_through: Position) -> Option<Position> {
    let marks = tokens.iter().filter_map(|token| token.held_for);
    marks.filter(|mark| Some(*mark) != present && *mark <= known_through).max()
}

/// Returns the conditions that the new version does not meet: segments that do not cover `needed`, and a verdict.
fn lacks(facts: &FlipFacts<'_>, tokens: &[Token], needed: Position) -> Vec<WaitingOn> {
    let version = facts.to;
    let short = tokens.iter().filter(|token| !token.covers(needed));
    let missing =
        |token: &Token| WaitingOn::Segment { version, segment: token.segment, lag: needed.since(token.position) };
    short.map(missing).chain(facts.to_verified.clone().err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentCount;
    use crate::testing;
    use proptest::prelude::*;

    const B: VersionId = VersionId { code: 2, build: 1 };

    fn tokens(positions: &[u64], held_for: Option<u64>) -> Vec<Token> {
        let held_for = held_for.map(Position::new);
        testing::tokens(positions).into_iter().map(|token| Token { held_for, ..token }).collect()
    }

    fn facts<'a>(from: &'a [Token], to: &'a [Token]) -> FlipFacts<'a> {
        let (requested, hold) = (Position::new(10), Position::new(15));
        FlipFacts {
            requested,
            hold,
            held: Duration::ZERO,
            from: Some(From::Open { tokens: from, shown_before: Position::START }),
            to: B,
            to_tokens: Ok(to),
            to_verified: Ok(()),
            outdated: false,
            halts: &[],
        }
    }

    #[test]
    fn the_gate_says_what_is_missing() {
        let (from, to) = (tokens(&[10, 12], None), tokens(&[9, 10], None));
        let segment = SegmentCount::ONE.segment(0).unwrap();
        let expected = WaitingOn::Segment { version: B, segment, lag: 1 };
        assert_eq!(gate(&facts(&from, &to)), Gate::Wait(vec![expected]));
    }

    #[test]
    fn a_hold_comes_before_the_flip_and_an_old_hold_does_not_count() {
        let (from, to) = (tokens(&[10, 12], None), tokens(&[13, 13], None));
        assert_eq!(gate(&facts(&from, &to)), Gate::Hold);
        let from = tokens(&[10, 12], Some(10));
        assert_eq!(gate(&facts(&from, &to)), Gate::Hold);
    }

    #[test]
    fn everything_the_old_version_showed_must_be_covered() {
        let from = tokens(&[10, 12], Some(15));
        let segment = SegmentCount::ONE.segment(0).unwrap();
        let short = WaitingOn::Segment { version: B, segment, lag: 1 };
        assert_eq!(gate(&facts(&from, &tokens(&[11, 13], None))), Gate::Held(vec![short]));
        let covers = Position::new(12);
        assert_eq!(gate(&facts(&from, &tokens(&[12, 13], None))), Gate::Flip { covers });
    }

    #[test]
    fn a_hold_that_is_found_does_not_last_until_the_new_version_is_built_again() {
        let segment = SegmentCount::ONE.segment(0).unwrap();
        let short = WaitingOn::Segment { version: B, segment, lag: 12 };
        assert_eq!(gate(&facts(&tokens(&[12], Some(15)), &tokens(&[0], None))), Gate::Held(vec![short]));
    }

    #[test]
    fn a_hold_is_given_up_once_its_budget_is_used_up_and_something_is_missing() {
        let (from, short, full) = (tokens(&[12], Some(15)), tokens(&[11], None), tokens(&[12], None));
        let after = |held, to| gate(&FlipFacts { held, ..facts(&from, to) });
        assert!(matches!(after(limits::HOLD_TIME_MAX - Duration::from_nanos(1), &short), Gate::Held(_)));
        assert_eq!(after(limits::HOLD_TIME_MAX, &short), Gate::Postpone);
        let covers = Position::new(12);
        assert_eq!(after(limits::HOLD_TIME_MAX, &full), Gate::Flip { covers }, "nothing is missing");
        let free = tokens(&[12], None);
        let unheld = FlipFacts { held: limits::HOLD_TIME_MAX, ..facts(&free, &short) };
        assert_ne!(gate(&unheld), Gate::Postpone, "there is no hold");
    }

    // I-6, I-7
    #[test]
    fn what_was_shown_before_a_view_was_made_again_must_be_covered() {
        let (from, to) = (tokens(&[0, 0], Some(15)), tokens(&[12, 12], None));
        let made_again = |shown| Some(From::Open { tokens: &from, shown_before: Position::new(shown) });
        let flips = Gate::Flip { covers: Position::new(12) };
        assert_eq!(gate(&FlipFacts { from: made_again(12), ..facts(&from, &to) }), flips);
        assert!(matches!(gate(&FlipFacts { from: made_again(13), ..facts(&from, &to) }), Gate::Held(_)));
    }

    #[test]
    fn readers_can_leave_a_version_that_does_not_get_on() {
        let (from, to) = (tokens(&[3, 4], None), tokens(&[10, 10], None));
        assert_eq!(gate(&facts(&from, &to)), Gate::Hold);
        let from = tokens(&[3, 4], Some(15));
        assert_eq!(gate(&facts(&from, &to)), Gate::Flip { covers: Position::new(10) });
    }

    #[test]
    fn readers_can_leave_a_version_that_cannot_be_opened() {
        let closed = |shown| Some(From::Closed { shown: Position::new(shown) });
        let to = tokens(&[12], None);
        assert!(matches!(gate(&FlipFacts { from: closed(13), ..facts(&[], &to) }), Gate::Wait(_)));
        let flips = Gate::Flip { covers: Position::new(12) };
        assert_eq!(gate(&FlipFacts { from: closed(12), ..facts(&[], &to) }), flips);
    }

    #[test]
    fn nobody_flips_to_a_version_whose_code_is_gone() {
        let (from, to) = (tokens(&[12], Some(15)), tokens(&[12], None));
        let code = WaitingOn::Code { version: B };
        let gone = FlipFacts { to_tokens: Err(code.clone()), ..facts(&from, &to) };
        assert_eq!(gate(&gone), Gate::Held(vec![code.clone()]), "a hold that is there ends with its budget");
        assert_eq!(gate(&FlipFacts { from: None, ..gone }), Gate::Wait(vec![code]));
    }

    #[test]
    fn nobody_flips_to_a_version_that_is_not_verified() {
        let (from, to) = (tokens(&[12], None), tokens(&[12], None));
        let missing = WaitingOn::Verification { version: B, part: None, looked_at: 0 };
        let unverified = |from| FlipFacts { to_verified: Err(missing.clone()), ..facts(from, &to) };
        assert_eq!(gate(&unverified(&from)), Gate::Wait(vec![missing.clone()]), "the old one is not held for it");
        assert_eq!(gate(&FlipFacts { from: None, ..unverified(&from) }), Gate::Wait(vec![missing.clone()]));
        let held = tokens(&[12], Some(15));
        assert_eq!(gate(&unverified(&held)), Gate::Held(vec![missing.clone()]), "asked for again while it was held");
    }

    #[test]
    fn nothing_is_held_for_a_version_that_halts() {
        let (from, to) = (tokens(&[12], None), tokens(&[12], None));
        let halts = [WaitingOn::Paused];
        assert_eq!(gate(&FlipFacts { halts: &halts, ..facts(&from, &to) }), Gate::Wait(vec![WaitingOn::Paused]));
        let short = tokens(&[9], None);
        let Gate::Wait(reasons) = gate(&FlipFacts { halts: &halts, ..facts(&from, &short) }) else { panic!() };
        assert!(matches!(reasons[..], [WaitingOn::Segment { lag: 1, .. }, WaitingOn::Paused]), "{reasons:?}");
        let held = tokens(&[12], Some(15));
        let covers = Position::new(12);
        assert_eq!(gate(&FlipFacts { halts: &halts, ..facts(&held, &to) }), Gate::Flip { covers }, "it covers all");
    }

    #[test]
    fn a_verdict_that_says_too_much_is_renewed_before_anything_else() {
        let to = tokens(&[12], None);
        for held in [None, Some(15)] {
            let from = tokens(&[12], held);
            assert_eq!(gate(&FlipFacts { outdated: true, ..facts(&from, &to) }), Gate::VerifyAgain);
        }
        let missing = WaitingOn::Verification { version: B, part: None, looked_at: 0 };
        let from = tokens(&[12], None);
        let unverified = FlipFacts { outdated: true, to_verified: Err(missing.clone()), ..facts(&from, &to) };
        assert_eq!(gate(&unverified), Gate::Wait(vec![missing]), "it is verified again already");
    }

    #[test]
    fn a_hold_is_stray_once_its_flip_is_over() {
        let at = |position| Some(Position::new(position));
        let held = tokens(&[10, 12], Some(15));
        let known = Position::new(20);
        assert_eq!(stray_hold(&held, None, known), at(15));
        assert_eq!(stray_hold(&held, at(18), known), at(15), "a later flip has a mark of its own");
        assert_eq!(stray_hold(&held, at(15), known), None, "its flip is under way");
        assert_eq!(stray_hold(&held, None, Position::new(14)), None, "its flip may not be known yet");
        assert_eq!(stray_hold(&tokens(&[10], None), None, known), None);
    }

    #[test]
    fn a_version_that_is_far_behind_does_not_hold_the_old_one() {
        let far = 10 + limits::HOLD_LAG_MAX;
        let (from, to) = (tokens(&[10, far + 1], None), tokens(&[10, far], None));
        assert!(matches!(gate(&facts(&from, &to)), Gate::Wait(_)));
        let from = tokens(&[10, far], None);
        assert_eq!(gate(&facts(&from, &to)), Gate::Hold);
    }

    #[test]
    fn the_first_version_only_has_to_cover_the_request() {
        let to = tokens(&[10], None);
        assert_eq!(gate(&FlipFacts { from: None, ..facts(&[], &to) }), Gate::Flip { covers: Position::new(10) });
    }

    proptest! {
        // I-6, I-7
        #[test]
        fn an_open_gate_is_evidence(
            from in prop::collection::vec(0..20_u64, 1..5), to in prop::collection::vec(0..20_u64, 1..5),
            held in prop::option::of(14..17_u64),
        ) {
            let (from, to) = (tokens(&from, held), tokens(&to, None));
            if let Gate::Flip { covers } = gate(&facts(&from, &to)) {
                prop_assert!(covers >= Position::new(10));
                prop_assert!(to.iter().all(|token| token.covers(covers)));
                prop_assert!(from.iter().all(|token| covers >= token.position), "a reader would go back");
                prop_assert!(from.iter().all(|token| token.held_for == Some(Position::new(15))));
            }
        }
    }
}
