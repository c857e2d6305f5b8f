//! Assigns segments to members: one pure function that every node computes alike.
//!
//! ```text
//!   live members that carry the version and are ready ─┐
//!   who has which segment now ─────────────────────────┼─▶ assign ─▶ next: what this member claims and what it hands over
//!   whether one member must have all ──────────────────┘
//! ```
//!
//! The segments of a version are spread so that no member has two more than another. A member keeps its segments
//! while the shares stay balanced. A free segment goes to the member that has room and the highest hash of segment
//! and member ("rendezvous hashing"), so that nodes which see the same state choose alike without a leader. Nodes
//! that see different states for a moment may both claim a segment: the later claim fences the earlier one (I-4), and
//! both soon see the same state.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::PendingReplay;
use crate::member::{Member, MemberId};
use crate::position::Position;
use crate::segment::Segment;
use crate::token::Token;
use crate::version::ViewId;

/// The way in which the segments of a version go to its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// As evenly as possible.
    Even,
    /// All to one member: the next step is done to the view as a whole, in one transaction.
    Whole,
}

/// The segments whose events change a row of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowScope {
    /// One segment: the row belongs to one stream, or to streams that are in one segment for another reason.
    #[default]
    OfOneSegment,
    /// Several segments, such as a total over all streams. Members do not see each other's changes of a row before
    /// they write their own, and the later write would undo the earlier one, so one member at a time has all
    /// segments.
    AcrossSegments,
}

/// Returns how the segments of a version go to its members now: all to one where rows are `AcrossSegments`, and while
/// something is done to the view as a whole.
///
/// `seeding`: the version begins as a copy. `replay`: the last replay in place that was requested. `index_at`: the
/// position at which the view's missing indexes are built, if any are missing.
pub fn spread(
    rows: RowScope,
    tokens: &[Token],
    seeding: bool,
    replay: Option<&PendingReplay>,
    index_at: Option<Position>,
) -> Spread {
    let always = rows == RowScope::AcrossSegments;
    let begins = seeding && tokens.iter().all(Token::is_new);
    let goes_back = replay.is_some_and(|asked| tokens.iter().any(|token| token.take_up(asked).is_some()));
    let indexes = index_at.is_some_and(|at| tokens.iter().all(|token| token.covers(at)));
    if always || begins || goes_back || indexes { Spread::Whole } else { Spread::Even }
}

/// The next action of a member on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimAction {
    /// Claim it: it is assigned to this member, and no live member has it.
    Claim(Segment),
    /// Release it once the current batch is committed: it is assigned to another member.
    Release(Segment),
}

/// Returns the next actions of `me` on the segments of a version with these tokens. `live` are all members that have
/// a lease. Returns nothing if there is nothing to do, or if `me` has no lease.
pub fn next(view: &ViewId, tokens: &[Token], live: &[Member], me: MemberId, spread: Spread) -> Vec<ClaimAction> {
    let lives = |owner: MemberId| live.iter().any(|member| member.id == owner);
    if !lives(me) {
        return vec![];
    }
    let wanted = assign(view, tokens, live, spread);
    let action = |token: &Token| {
        let wanted = wanted.get(&token.segment).copied();
        match token.claimed_by {
            // No other member could continue with it.
            Some(owner) if owner == me => {
                wanted.filter(|wanted| *wanted != me).map(|_| ClaimAction::Release(token.segment))
            }
            Some(owner) if lives(owner) => None,
            _ => wanted.filter(|wanted| *wanted == me).map(|_| ClaimAction::Claim(token.segment)),
        }
    };
    tokens.iter().filter_map(action).collect()
}

/// Returns the member that each segment is assigned to. Without a capable member it returns none.
#[expect(
    clippy::expect_used,
    reason = "a capable member has room or has had it; there is room for every segment; it was just chosen"
)]
pub fn assign(view: &ViewId, tokens: &[Token], live: &[Member], spread: Spread) -> BTreeMap<Segment, MemberId> {
    let capable: BTreeSet<MemberId> =
        live.iter().filter(|member| member.is_capable(view)).map(|member| member.id).collect();
    if capable.is_empty() || tokens.is_empty() {
        return BTreeMap::new();
    }
    if spread == Spread::Whole {
        let one = whole(view, tokens, &capable);
        return tokens.iter().map(|token| (token.segment, one)).collect();
    }
    let (mut room, mut assigned) = (rooms(view, tokens, &capable), BTreeMap::new());
    // The segments with the highest hash stay, so that the choice does not depend on their order.
    let mut kept: Vec<(u64, Segment, MemberId)> = tokens
        .iter()
        .filter_map(|token| {
            let owner = token.claimed_by.filter(|owner| capable.contains(owner))?;
            Some((score(view, token.segment, owner), token.segment, owner))
        })
        .collect();
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let mut free: BTreeSet<Segment> = tokens.iter().map(|token| token.segment).collect();
    for (_, segment, owner) in kept {
        let left = room.get_mut(&owner).expect("a capable member has room or has had it");
        if *left > 0 {
            *left -= 1;
            free.remove(&segment);
            assigned.insert(segment, owner);
        }
    }
    for segment in free {
        let open = room.iter().filter(|(_, left)| **left > 0).map(|(member, _)| *member);
        let chosen = open.max_by_key(|member| (score(view, segment, *member), *member));
        let chosen = chosen.expect("there is room for every segment");
        *room.get_mut(&chosen).expect("it was just chosen") -= 1;
        assigned.insert(segment, chosen);
    }
    assigned
}

/// Returns the member that does the work of a version that only one should do, such as verifying it. Every node that
/// sees the same members chooses the same one. Two that do it at the same time do no harm.
pub fn driver(view: &ViewId, live: &[Member]) -> Option<MemberId> {
    let capable = live.iter().filter(|member| member.is_capable(view)).map(|member| member.id);
    capable.max_by_key(|member| (score_of_view(view, *member), *member))
}

/// The one member that has all segments: the one that already has the most.
#[expect(clippy::expect_used, reason = "there is a capable member")]
fn whole(view: &ViewId, tokens: &[Token], capable: &BTreeSet<MemberId>) -> MemberId {
    let has = |member: MemberId| tokens.iter().filter(|token| token.claimed_by == Some(member)).count();
    let one = capable.iter().copied().max_by_key(|member| (has(*member), score_of_view(view, *member), *member));
    one.expect("there is a capable member")
}

/// Returns the number of segments for which each member has room. If they cannot be split evenly, the members that
/// already have more get one more.
fn rooms(view: &ViewId, tokens: &[Token], capable: &BTreeSet<MemberId>) -> BTreeMap<MemberId, usize> {
    let (share, over) = (tokens.len() / capable.len(), tokens.len() % capable.len());
    let has = |member: MemberId| tokens.iter().filter(|token| token.claimed_by == Some(member)).count();
    let mut ranked: Vec<MemberId> = capable.iter().copied().collect();
    ranked.sort_by_cached_key(|member| std::cmp::Reverse((has(*member), score_of_view(view, *member), *member)));
    ranked.into_iter().enumerate().map(|(rank, member)| (member, share + usize::from(rank < over))).collect()
}

fn score(view: &ViewId, segment: Segment, member: MemberId) -> u64 {
    hash(view, Some(segment), member)
}

fn score_of_view(view: &ViewId, member: MemberId) -> u64 {
    hash(view, None, member)
}

/// XXH3, 64 bits, over text and bytes of fixed length. Nodes of different releases must agree: it is a form.
fn hash(view: &ViewId, segment: Option<Segment>, member: MemberId) -> u64 {
    let segment = segment.map_or(u16::MAX, Segment::get);
    let mut bytes = view.to_string().into_bytes();
    bytes.extend_from_slice(&segment.to_be_bytes());
    bytes.extend_from_slice(&member.bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// Returns the segments that no live member has (I-10), in order.
pub fn unowned(tokens: &[Token], live: &[Member]) -> Vec<Segment> {
    let lives = |owner: MemberId| live.iter().any(|member| member.id == owner);
    tokens.iter().filter(|token| !token.claimed_by.is_some_and(lives)).map(|token| token.segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{CodeId, MemberCode};
    use crate::name::ProjectionName;
    use crate::segment::SegmentCount;
    use crate::token::{Applied, Epoch};
    use crate::version::VersionId;
    use proptest::prelude::*;

    fn view() -> ViewId {
        let projection = ProjectionName::new("balances").unwrap();
        ViewId { projection, version: VersionId { code: 2, build: 1 } }
    }

    fn id(number: u8) -> MemberId {
        let mut bytes = [0; 16];
        bytes[15] = number;
        MemberId::from_bytes(bytes)
    }

    fn carried(code: u32) -> MemberCode {
        MemberCode { id: CodeId { projection: view().projection, code }, in_place: None }
    }

    fn member(number: u8) -> Member {
        let carries = vec![carried(2)];
        Member { id: id(number), name: format!("node {number}"), address: None, carries, ready: true }
    }

    fn tokens_of(count: SegmentCount, owners: &[Option<MemberId>]) -> Vec<Token> {
        let token = |segment: Segment| Token {
            segment,
            epoch: Epoch::new(1),
            position: Position::START,
            claimed_by: owners.get(usize::from(segment.get())).copied().flatten(),
            held_for: None,
            cap: None,
            applied: Applied::default(),
            replay: None,
        };
        count.segments().map(token).collect()
    }

    fn sizes(assigned: &BTreeMap<Segment, MemberId>, live: &[Member]) -> Vec<usize> {
        live.iter().map(|member| assigned.values().filter(|owner| **owner == member.id).count()).collect()
    }

    fn owned(tokens: &[Token], assigned: &BTreeMap<Segment, MemberId>) -> Vec<Token> {
        tokens.iter().map(|token| Token { claimed_by: assigned.get(&token.segment).copied(), ..*token }).collect()
    }

    prop_compose! {
        /// Returns some segments, their present members, and some members, of which not all are live.
        fn cluster()(count in 1..40_u16, members in proptest::collection::btree_set(0..8_u8, 1..6))(
            owners in proptest::collection::vec(proptest::option::of(0..8_u8), usize::from(count)),
            count in Just(count), members in Just(members),
        ) -> (Vec<Token>, Vec<Member>) {
            let owners: Vec<_> = owners.into_iter().map(|owner| owner.map(id)).collect();
            (tokens_of(SegmentCount::new(count).unwrap(), &owners), members.into_iter().map(member).collect())
        }
    }

    proptest! {
        #[test]
        fn every_segment_has_a_member_and_none_has_two_more_than_another((tokens, live) in cluster()) {
            let assigned = assign(&view(), &tokens, &live, Spread::Even);
            prop_assert_eq!(assigned.len(), tokens.len());
            let sizes = sizes(&assigned, &live);
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
        }

        #[test]
        fn what_is_as_it_should_be_stays((tokens, live) in cluster(), whole in any::<bool>()) {
            let spread = if whole { Spread::Whole } else { Spread::Even };
            let assigned = assign(&view(), &tokens, &live, spread);
            let tokens = owned(&tokens, &assigned);
            prop_assert_eq!(assign(&view(), &tokens, &live, spread), assigned);
            for member in &live {
                prop_assert_eq!(next(&view(), &tokens, &live, member.id, spread), vec![]);
            }
            prop_assert_eq!(unowned(&tokens, &live), vec![]);
        }

        #[test]
        fn the_order_in_which_members_are_listed_changes_nothing((tokens, mut live) in cluster()) {
            let assigned = assign(&view(), &tokens, &live, Spread::Even);
            live.reverse();
            prop_assert_eq!(assign(&view(), &tokens, &live, Spread::Even), assigned);
        }

        // I-10, I-4: in whatever order members look and act, each segment reaches the member it is assigned to, one
        // at a time.
        #[test]
        fn members_that_act_in_any_order_come_to_rest(
            (mut tokens, live) in cluster(), order in proptest::collection::vec(any::<prop::sample::Index>(), 60),
            whole in any::<bool>(),
        ) {
            let spread = if whole { Spread::Whole } else { Spread::Even };
            let turns = order.iter().map(|turn| turn.get(&live).id).collect::<Vec<_>>();
            let all = live.iter().map(|member| member.id).cycle().take(live.len() * 3);
            for me in turns.into_iter().chain(all) {
                for action in next(&view(), &tokens, &live, me, spread) {
                    let (ClaimAction::Claim(segment) | ClaimAction::Release(segment)) = action;
                    let token = &mut tokens[usize::from(segment.get())];
                    let before = token.claimed_by.filter(|owner| live.iter().any(|member| member.id == *owner));
                    match action {
                        ClaimAction::Claim(_) => {
                            prop_assert_eq!(before, None, "nothing is taken from a live member");
                            token.claimed_by = Some(me);
                        }
                        ClaimAction::Release(_) => {
                            prop_assert_eq!(before, Some(me));
                            token.claimed_by = None;
                        }
                    }
                }
            }
            prop_assert_eq!(owned(&tokens, &assign(&view(), &tokens, &live, spread)), tokens.clone());
            prop_assert_eq!(unowned(&tokens, &live), vec![]);
        }

        #[test]
        fn when_a_member_goes_only_its_segments_move((tokens, live) in cluster()) {
            let before = assign(&view(), &tokens, &live, Spread::Even);
            let (gone, left) = live.split_first().unwrap();
            let after = assign(&view(), &owned(&tokens, &before), left, Spread::Even);
            for (segment, owner) in before {
                prop_assert!(left.is_empty() || owner == gone.id || after[&segment] == owner);
            }
        }

        #[test]
        fn when_a_member_comes_only_what_it_gets_moves((tokens, live) in cluster()) {
            let before = assign(&view(), &tokens, &live, Spread::Even);
            let more: Vec<Member> = live.iter().cloned().chain([member(9)]).collect();
            let after = assign(&view(), &owned(&tokens, &before), &more, Spread::Even);
            for (segment, owner) in before {
                prop_assert!(after[&segment] == owner || after[&segment] == id(9));
            }
        }
    }

    #[test]
    fn what_is_done_to_a_view_as_a_whole_is_done_by_one() {
        let at = |positions: [u64; 2]| {
            let mut tokens = tokens_of(SegmentCount::new(2).unwrap(), &[]);
            tokens.iter_mut().zip(positions).for_each(|(token, at)| token.position = Position::new(at));
            tokens
        };
        assert_eq!(spread(RowScope::OfOneSegment, &at([0, 0]), false, None, None), Spread::Even);
        assert_eq!(spread(RowScope::AcrossSegments, &at([3, 4]), false, None, None), Spread::Whole);
        assert_eq!(spread(RowScope::OfOneSegment, &at([0, 0]), true, None, None), Spread::Whole);
        assert_eq!(spread(RowScope::OfOneSegment, &at([0, 4]), true, None, None), Spread::Even, "it has begun");
        let index_at = Some(Position::new(5));
        assert_eq!(
            spread(RowScope::OfOneSegment, &at([5, 4]), false, None, index_at),
            Spread::Even,
            "not every segment is there"
        );
        assert_eq!(spread(RowScope::OfOneSegment, &at([5, 7]), false, None, index_at), Spread::Whole);
        let asked = PendingReplay { requested: Position::new(9), ..PendingReplay::default() };
        let mut tokens = at([5, 7]);
        assert_eq!(spread(RowScope::OfOneSegment, &tokens, false, Some(&asked), None), Spread::Whole);
        for token in &mut tokens {
            *token = token.moved(token.take_up(&asked).unwrap()).unwrap();
        }
        assert_eq!(spread(RowScope::OfOneSegment, &tokens, false, Some(&asked), None), Spread::Even);
    }

    #[test]
    fn only_who_carries_the_code_and_is_ready_is_given_work() {
        let tokens = tokens_of(SegmentCount::new(6).unwrap(), &[]);
        let other = Member { carries: vec![carried(1)], ..member(1) };
        let starting = Member { ready: false, ..member(2) };
        let live = [other, starting, member(3)];
        let assigned = assign(&view(), &tokens, &live, Spread::Even);
        assert_eq!(sizes(&assigned, &live), [0, 0, 6]);
        assert_eq!(driver(&view(), &live), Some(id(3)));
        assert_eq!(driver(&view(), &live[..2]), None);
        assert!(assign(&view(), &tokens, &live[..2], Spread::Even).is_empty());
    }

    #[test]
    fn one_without_a_lease_does_nothing_and_one_that_nobody_could_follow_goes_on() {
        let tokens = tokens_of(SegmentCount::new(2).unwrap(), &[Some(id(1)), None]);
        assert_eq!(next(&view(), &tokens, &[member(2)], id(1), Spread::Even), []);
        let leaving = Member { ready: false, ..member(1) };
        assert_eq!(next(&view(), &tokens, std::slice::from_ref(&leaving), id(1), Spread::Even), []);
        let both = [leaving, member(2)];
        let release = ClaimAction::Release(tokens[0].segment);
        assert_eq!(next(&view(), &tokens, &both, id(1), Spread::Even), [release]);
        let claim = ClaimAction::Claim(tokens[1].segment);
        assert_eq!(next(&view(), &tokens, &both, id(2), Spread::Even), [claim], "the other one is not free yet");
    }

    #[test]
    fn the_hash_is_fixed_for_good() {
        let segment = SegmentCount::new(8).unwrap().segment(5).unwrap();
        assert_eq!(
            (score(&view(), segment, id(1)), score_of_view(&view(), id(1))),
            (15_851_703_933_870_833_332, 16_965_972_512_718_824_962)
        );
    }

    #[test]
    fn many_segments_spread_over_a_few_members_in_no_time_worth_naming() {
        let tokens = tokens_of(SegmentCount::new(1_000).unwrap(), &[]);
        let live: Vec<Member> = (0..5).map(member).collect();
        let assigned = assign(&view(), &tokens, &live, Spread::Even);
        assert_eq!(sizes(&assigned, &live), [200; 5]);
        let left = assign(&view(), &owned(&tokens, &assigned), &live[1..], Spread::Even);
        assert_eq!(sizes(&left, &live), [0, 250, 250, 250, 250]);
    }
}
