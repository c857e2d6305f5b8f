//! The rules by which two versions meet: both at exactly one position, where they can be compared.
//!
//! A cap on the tokens of a version stops it there. The cap only helps the two to meet. It keeps nobody from anything if
//! it is lifted too early.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeBounds};

use crate::catalog::ProjectionState;
use crate::phase::Phase;
use crate::position::Position;
use crate::token::Token;
use crate::version::VersionId;

/// The state of a version on its way to one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// All tokens are at one wanted position, and none replays past events.
    There,
    /// A token is past the wanted positions, and never returns to them.
    Past,
    /// It may still reach a wanted position.
    OnItsWay,
}

/// Returns the state of a version with these tokens on its way to one of the wanted positions.
pub fn meeting(tokens: &[Token], wanted: &impl RangeBounds<Position>) -> Meeting {
    let is_past = |token: &Token| matches!(wanted.end_bound(), Bound::Included(end) if token.position > *end);
    match one_position(tokens) {
        Some(position) if wanted.contains(&position) => Meeting::There,
        _ if tokens.iter().any(is_past) => Meeting::Past,
        _ => Meeting::OnItsWay,
    }
}

/// Returns the position of a state in which all tokens are at one position and none replays past events.
fn one_position(tokens: &[Token]) -> Option<Position> {
    let first = tokens.first()?.position;
    tokens.iter().all(|token| token.position == first && !token.replays()).then_some(first)
}

/// Returns true if several members move the version. While events are appended, its segments are then rarely all at one
/// position.
pub fn is_apart(tokens: &[Token]) -> bool {
    tokens.iter().map(|token| token.claimed_by).collect::<BTreeSet<_>>().len() > 1
}

/// The member that verifies a version which is being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// No member can.
    Nobody,
    /// Another member, which knows whether it needs a cap.
    Another,
    /// This member.
    Here {
        /// True if it lets the version meet the serving one just now.
        meets: bool,
    },
}

/// Returns true if the cap on these tokens of a version of `projection` is stray: no verification needs it any more. It
/// was interrupted, or its member died. `verifier` returns the member that verifies a version of the projection.
pub fn is_stray_cap(tokens: &[Token], projection: &ProjectionState, verifier: impl Fn(VersionId) -> Verifier) -> bool {
    let mut built = projection.versions.iter().filter(|(_, state)| state.phase == Phase::Initializing);
    let needs_none = |verifier| matches!(verifier, Verifier::Nobody | Verifier::Here { meets: false });
    tokens.iter().any(|token| token.cap.is_some()) && built.all(|(version, _)| needs_none(verifier(*version)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogEvent;
    use crate::member::MemberId;
    use crate::testing::{projection, scheduled, tokens, view};
    use crate::token::ReplayMark;
    use proptest::prelude::*;

    #[test]
    fn versions_meet_where_all_segments_are_at_one_position_and_none_replays() {
        let at = Position::new;
        assert_eq!(meeting(&tokens(&[7, 7]), &(at(7)..=at(7))), Meeting::There);
        assert_eq!(meeting(&tokens(&[6, 7]), &(at(7)..=at(7))), Meeting::OnItsWay);
        assert_eq!(meeting(&tokens(&[6, 8]), &(at(7)..=at(7))), Meeting::Past);
        assert_eq!(meeting(&tokens(&[9, 9]), &(at(7)..)), Meeting::There);
        assert_eq!(meeting(&tokens(&[9, 8]), &(at(7)..)), Meeting::OnItsWay, "later ones are wanted, too");
        assert_eq!(meeting(&[], &(at(0)..)), Meeting::OnItsWay);
        let mut replays = tokens(&[7, 7]);
        replays[1].replay = Some(ReplayMark { request: at(8), through: at(9) });
        assert_eq!(meeting(&replays, &(at(7)..)), Meeting::OnItsWay);
    }

    proptest! {
        #[test]
        fn who_is_past_never_meets_and_who_meets_is_at_one_wanted_position(
            positions in prop::collection::vec(0..9_u64, 1..4), from in 0..9_u64, more in 0..3_u64, steps in 0..3_u64,
        ) {
            let wanted = Position::new(from)..=Position::new(from + more);
            let found = meeting(&tokens(&positions), &wanted);
            let all_at = |position: &u64| *position == positions[0] && wanted.contains(&Position::new(*position));
            prop_assert_eq!(found == Meeting::There, positions.iter().all(all_at));
            if found == Meeting::Past {
                let later: Vec<u64> = positions.iter().map(|position| position + steps).collect();
                prop_assert_eq!(meeting(&tokens(&later), &wanted), Meeting::Past);
            }
        }
    }

    #[test]
    fn a_version_is_apart_if_two_members_have_segments_or_one_segment_is_free() {
        let claimed = |owners: [Option<u8>; 2]| {
            let of = |(token, owner): (Token, Option<u8>)| Token {
                claimed_by: owner.map(|owner| MemberId::from_bytes([owner; 16])),
                ..token
            };
            is_apart(&tokens(&[1, 1]).into_iter().zip(owners).map(of).collect::<Vec<_>>())
        };
        assert_eq!([[Some(1), Some(1)], [Some(1), Some(2)], [Some(1), None]].map(claimed), [false, true, true]);
    }

    #[test]
    fn a_cap_stays_while_a_verification_may_need_it() {
        let begun = [scheduled(view(1), None), scheduled(view(2), None), CatalogEvent::Initializing { view: view(2) }];
        let projection = projection(begun);
        let capped: Vec<_> =
            tokens(&[3]).into_iter().map(|token| Token { cap: Some(Position::new(4)), ..token }).collect();
        // Only the version that is being built is verified.
        let of = |verifier| move |version: VersionId| if version.code == 2 { verifier } else { Verifier::Another };
        let is_stray = |verifier| is_stray_cap(&capped, &projection, of(verifier));
        assert!(is_stray(Verifier::Nobody));
        assert!(!is_stray(Verifier::Another), "it knows");
        assert!(!is_stray(Verifier::Here { meets: true }));
        assert!(is_stray(Verifier::Here { meets: false }), "it was interrupted");
        assert!(!is_stray_cap(&tokens(&[3]), &projection, of(Verifier::Nobody)), "there is none");
    }
}
