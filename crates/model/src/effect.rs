//! Effects: actions outside the views that follow from events, and the rule which version may emit them.
//!
//! Several versions process each event, and some process it again. Only one version may emit an event's effects
//! (I-9): the one that was serving at the event's position. The flips recorded in the catalog decide this
//! permanently.
//!
//! ```text
//!   position   1 ··· first ··· v1 serves ······ v2 serves ······ rolled back to v1 ······
//!   voice      nobody     │  v1 (the first)   │  v2            │  v1
//! ```

use std::fmt;
use std::time::Duration;

use crate::catalog::ProjectionState;
use crate::limits;
use crate::member::MemberId;
use crate::name::{ProjectionName, StreamName};
use crate::position::Position;
use crate::segment::Segment;
use crate::time::Timestamp;
use crate::token::Epoch;
use crate::version::VersionId;

/// The permanent name of one effect, the same for every try and on every node: the idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey {
    /// The projection whose handler emitted the effect.
    pub projection: ProjectionName,
    /// The event that the effect follows from.
    pub position: Position,
    /// The number of the effect among those of that event, from 0.
    pub ordinal: u32,
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.projection, self.position, self.ordinal)
    }
}

/// An effect that a handler emitted, in the form in which the view keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEffect {
    /// The event that the effect follows from.
    pub position: Position,
    /// The number of the effect among those of that event, from 0.
    pub ordinal: u32,
    /// The segment of the event.
    pub segment: Segment,
    /// The stream of the event. Effects of one stream are made in order.
    pub stream: StreamName,
    /// The name of the kind of effect.
    pub name: String,
    /// The payload as JSON, kept byte for byte.
    pub payload: Vec<u8>,
}

/// An effect that is still to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEffect {
    /// The number of the effect in the outbox of its view.
    pub number: u64,
    /// The effect.
    pub effect: NewEffect,
    /// The number of failed tries.
    pub attempts: u32,
    /// The error of the last try.
    pub error: Option<String>,
    /// The time of the next try.
    pub due: Timestamp,
}

impl PendingEffect {
    /// Returns true if it may be tried now. A time later than the longest pause was written by a clock that has been set
    /// back since.
    pub fn is_due(&self, now: Timestamp, longest: Duration) -> bool {
        self.due <= now || self.due > now.plus(longest)
    }
}

/// The policy for an effect that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EffectFailure {
    /// The effect is retried without end, and later effects of its stream wait for it.
    #[default]
    Halt,
    /// After the given number of tries the effect is set aside, and its stream continues without it.
    SetAside {
        /// The number of tries, at least 1.
        tries: u32,
    },
}

impl EffectFailure {
    /// Returns true if an effect with this number of tries is set aside. `aside` is the number of effects that are
    /// set aside already.
    pub fn sets_aside(self, attempts: u32, aside: u64) -> bool {
        match self {
            Self::Halt => false,
            Self::SetAside { tries } => attempts >= tries.max(1) && aside < limits::EFFECT_LETTERS_MAX,
        }
    }
}

/// An effect that was not made: it fails, or it was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectLetter {
    /// The effect, the number of its tries and its error.
    pub pending: PendingEffect,
    /// The time at which it was set aside; `None` while it is retried.
    pub aside: Option<Timestamp>,
}

/// Who has the right to make the effects of a view. Each time a member takes it or gives it back, the epoch is a higher
/// one, and nothing is begun under an earlier one any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EffectsClaim {
    /// The epoch under which the right was last taken or given back.
    pub epoch: Epoch,
    /// The member that has it.
    pub owner: Option<MemberId>,
}

impl EffectsClaim {
    /// Returns the claim with which `owner` takes the right after this one, at the time `now`. Its epoch is at least that
    /// time in microseconds, so that no epoch is given twice where the store has lost or forgotten claims: after a
    /// fail-over, in a restored backup, or in a view that is built again.
    pub fn taken(self, owner: MemberId, now: Timestamp) -> Self {
        let time = Epoch::new(u64::try_from(now.micros()).unwrap_or(0));
        Self { epoch: self.epoch.next().max(time), owner: Some(owner) }
    }

    /// Returns true if `me` may take the right. `lives`: the owner is alive. Then it is waited for, but not for longer than
    /// its tries of at most `time_max` and a lease last: it cannot give the right back if it does not reach the store.
    pub fn may_be_taken(self, me: MemberId, lives: bool, waited: Duration, time_max: Duration) -> bool {
        let other = self.owner.is_some_and(|owner| owner != me);
        !(other && lives) || waited >= time_max + limits::LEASE_TIME
    }

    /// Returns the claim with which the owner of this one gives the right back.
    pub fn given_back(self) -> Self {
        Self { epoch: self.epoch.next(), owner: None }
    }
}

/// An effect that may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BegunEffect {
    /// Its number in the outbox of its view.
    pub number: u64,
    /// The epoch under which it was begun before, if the result of that try is not recorded: it may have been made.
    pub before: Option<Epoch>,
}

/// One try to make an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectTry {
    /// The effect: the same for every try, so the idempotency key.
    pub key: EffectKey,
    /// The version that makes it.
    pub version: VersionId,
    /// The epoch under which this node makes the effects of that version. A later node has a higher one, so a receiver that
    /// has seen it can refuse a try under a lower one.
    pub epoch: Epoch,
    /// The number of the try, from 1, among those whose result is recorded.
    pub number: u32,
    /// True if an earlier try was begun of which nobody has recorded the outcome: the effect may have been made.
    pub is_uncertain: bool,
}

/// The result of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectOutcome {
    /// The effect was made, or it belongs to another version.
    Done,
    /// The effect was not made, and is retried.
    Failed {
        /// The error.
        error: String,
        /// The time of the next try.
        due: Timestamp,
    },
    /// The effect was not made, and its stream continues without it.
    SetAside {
        /// The error.
        error: String,
        /// The time at which it was set aside.
        at: Timestamp,
    },
}

/// The version that may emit effects of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// This version, permanently.
    Of(VersionId),
    /// The version that will be the first to serve. None has served yet.
    First,
    /// No version: the event existed before the projection did.
    Nobody,
}

/// The policy for effects of events that existed before a projection's first version was scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PastEffects {
    /// They are not made.
    #[default]
    Silent,
    /// The first version that serves makes them.
    Made,
}

impl ProjectionState {
    /// Returns the version whose effects of the event at `position` are made. The answer is final if `self` is the
    /// fold of every catalog event before `position`, because a flip has a position of its own, after everything that
    /// it follows.
    pub fn voice(&self, position: Position, past: PastEffects) -> Voice {
        let past_event = self.first.is_none_or(|first| position < first);
        if past_event && past == PastEffects::Silent {
            return Voice::Nobody;
        }
        // Everything before the first flip belongs to the version that it went to.
        let served = self.served.iter().rev().find(|(since, _)| *since <= position).or(self.served.first());
        served.map_or(Voice::First, |(_, version)| Voice::Of(*version))
    }

    /// Returns the first position whose effects a version may emit; `None` for one that never served.
    pub fn speaks_from(&self, version: VersionId, past: PastEffects) -> Option<Position> {
        let at = self.served.iter().position(|(_, served)| *served == version)?;
        // Everything before the first flip belongs to the version that it went to.
        let first = if past == PastEffects::Silent { self.first.unwrap_or_default() } else { Position::START.next() };
        Some(if at == 0 { first } else { self.served[at].0 })
    }

    /// Returns the position of the last flip at or before `position` that another version left. That version may emit
    /// effects through there; only after it may this one. Returns `None` if `version` is the one that serves at
    /// `position`, or had not served before.
    pub fn spoke_before(&self, version: VersionId, position: Position) -> Option<Position> {
        let until = self.served.windows(2).filter(|pair| pair[0].1 == version && pair[1].1 != version);
        until.map(|pair| pair[1].0).rfind(|until| *until <= position)
    }

    /// Returns the position of the flip after which a version that served may emit no more effects; `None` for the
    /// last one that served, and for one that never did.
    pub fn spoke_until(&self, version: VersionId) -> Option<Position> {
        let last = self.served.iter().rposition(|(_, served)| *served == version)?;
        self.served.get(last + 1).map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, CatalogCommand, CatalogEvent, CleanUpReason, FlipKind, FlipPolicy};
    use crate::phase::Phase;
    use crate::reads::Reads;
    use crate::replay::ReplayRows;
    use crate::segment::SegmentCount;
    use crate::version::ViewId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn name() -> ProjectionName {
        ProjectionName::new("notices").unwrap()
    }

    #[test]
    fn a_version_speaks_from_its_first_flip_on() {
        let [one, two, three] = [1, 2, 3].map(|code| VersionId { code, build: 1 });
        let at = Position::new;
        let served = vec![(at(9), one), (at(20), two), (at(30), one)];
        let state = ProjectionState { first: Some(at(5)), served, ..ProjectionState::default() };
        assert_eq!(
            state.speaks_from(one, PastEffects::Silent),
            Some(at(5)),
            "what waited for the first flip is its own"
        );
        assert_eq!(state.speaks_from(one, PastEffects::Made), Some(at(1)));
        assert_eq!(state.speaks_from(two, PastEffects::Silent), Some(at(20)));
        assert_eq!(state.speaks_from(three, PastEffects::Silent), None);
    }

    fn schedule(code: u32) -> CatalogCommand {
        let (segments, flip, fingerprint) = (SegmentCount::ONE, FlipPolicy::OnCommand, String::new());
        let reads = Reads::default();
        CatalogCommand::Schedule {
            projection: name(),
            code,
            segments,
            flip,
            fingerprint,
            reads,
            seeded: false,
            if_new: false,
        }
    }

    /// A journal of events and catalog entries, and the events that each version has processed.
    #[derive(Default)]
    struct World {
        catalog: Catalog,
        head: Position,
        /// The versions that have acted on each event.
        acted: BTreeMap<u64, Vec<VersionId>>,
        past: PastEffects,
    }

    impl World {
        fn ask(&mut self, command: &CatalogCommand) {
            // A change that the catalog declines has not happened.
            self.catalog.decide(command).unwrap_or_default().iter().for_each(|event| self.tell(event));
        }

        fn tell(&mut self, event: &CatalogEvent) {
            self.head = self.head.next();
            self.catalog.evolve(event, self.head, Timestamp::from_micros(0)).unwrap();
        }

        /// Verdicts do not matter for this rule, so flips are recorded directly and not requested.
        fn request_flip(&mut self, version: VersionId) {
            let state = &self.catalog.projections[&name()];
            let open = matches!(state.versions[&version].phase, Phase::Initializing | Phase::StandingBy);
            if open && state.flip.is_none() {
                let (view, from, kind) = (view(version), state.serving, FlipKind::Flip);
                self.tell(&CatalogEvent::FlipRequested { view, from, kind });
            }
        }

        fn confirm_flip(&mut self) {
            if let Some(flip) = self.catalog.projections.get(&name()).and_then(|state| state.flip) {
                let (view, from, kind, covers) = (view(flip.to), flip.from, flip.kind, flip.requested);
                self.tell(&CatalogEvent::Flipped { view, from, kind, covers });
            }
        }

        /// `version` processes an event, for the first time or again.
        fn come_past(&mut self, version: VersionId, position: u64) {
            let Some(state) = self.catalog.projections.get(&name()) else { return };
            if state.voice(Position::new(position), self.past) == Voice::Of(version) {
                let acted = self.acted.entry(position).or_default();
                // The outbox makes one of several tries.
                if !acted.contains(&version) {
                    acted.push(version);
                }
            }
        }

        fn versions(&self) -> Vec<VersionId> {
            self.catalog.versions().map(|(view, _)| view.version).collect()
        }
    }

    fn view(version: VersionId) -> ViewId {
        ViewId { projection: name(), version }
    }

    proptest! {
        // I-9: across schedules, flips, rollbacks, aborted flips, replays, retries of dead letters and clean-ups, in
        // whatever order versions process events.
        #[test]
        fn at_most_one_version_speaks_for_an_event_and_one_does_for_each_that_all_came_past(
            acts in prop::collection::vec((0..9_u8, 0..6_usize, 1..40_u64), 1..120), past in any::<bool>(),
        ) {
            let mut world =
                World { past: if past { PastEffects::Made } else { PastEffects::Silent }, ..World::default() };
            let mut events = vec![];
            for (act, which, number) in acts {
                let versions = world.versions();
                let version = versions.get(which % versions.len().max(1)).copied();
                match (act, version) {
                    (0 | 1, _) => {
                        world.head = world.head.next();
                        events.push(world.head.get());
                    }
                    (2, _) => world.ask(&schedule(number as u32 % 3 + 1)),
                    (3, Some(version)) => {
                        world.ask(&CatalogCommand::Begin(view(version)));
                        world.request_flip(version);
                    }
                    (4, _) => world.confirm_flip(),
                    (5, Some(version)) => {
                        // This also aborts a flip to the version.
                        world.ask(&CatalogCommand::CleanUp { view: view(version), reason: CleanUpReason::Asked });
                    }
                    (6, Some(version)) => {
                        let after = Position::new(number);
                        let rows = ReplayRows::Keep;
                        world.ask(&CatalogCommand::RequestReplay { view: view(version), after, rows });
                    }
                    (_, Some(version)) => {
                        if let Some(position) = events.get(number as usize % events.len().max(1)) {
                            world.come_past(version, *position);
                        }
                    }
                    _ => {}
                }
            }
            for acted in world.acted.values() {
                prop_assert!(acted.len() <= 1, "I-9: {acted:?}");
            }
            // Then every version that ever existed processes everything.
            let Some(state) = world.catalog.projections.get(&name()).cloned() else { return Ok(()) };
            let first = state.first.unwrap();
            for position in &events {
                state.versions.keys().for_each(|version| world.come_past(*version, *position));
            }
            for position in &events {
                let acted = world.acted.get(position).map_or(0, Vec::len);
                let is_past = Position::new(*position) < first && world.past == PastEffects::Silent;
                let expected = usize::from(!is_past && !state.served.is_empty());
                prop_assert_eq!(acted, expected, "I-9: event {} of {:?}", position, state.served);
            }
        }
    }

    #[test]
    fn who_served_at_an_event_speaks_for_it() {
        let (one, two) = (VersionId { code: 1, build: 1 }, VersionId { code: 2, build: 1 });
        let served = [(20, one), (30, two), (40, one)].map(|(since, version)| (Position::new(since), version));
        let first = Some(Position::new(10));
        let before = ProjectionState { first, ..ProjectionState::default() };
        let state = ProjectionState { served: served.to_vec(), ..before.clone() };
        let voice = |state: &ProjectionState, position, past| state.voice(Position::new(position), past);
        for (position, expected) in [
            (9, Voice::Nobody),
            (11, Voice::Of(one)),
            (29, Voice::Of(one)),
            (30, Voice::Of(two)),
            (39, Voice::Of(two)),
            (99, Voice::Of(one)),
        ] {
            assert_eq!(voice(&state, position, PastEffects::Silent), expected, "{position}");
        }
        assert_eq!(voice(&state, 9, PastEffects::Made), Voice::Of(one));
        let gone = ProjectionState { served: served[..2].to_vec(), ..before.clone() };
        assert_eq!((gone.spoke_until(one), gone.spoke_until(two)), (Some(Position::new(30)), None));
        assert_eq!((state.spoke_until(one), state.spoke_until(two)), (None, Some(Position::new(40))));
        let left = |version, position| state.spoke_before(version, Position::new(position)).map(Position::get);
        assert_eq!([left(one, 29), left(one, 30), left(one, 99)], [None, Some(30), Some(30)]);
        assert_eq!([left(two, 39), left(two, 40), left(two, 99)], [None, Some(40), Some(40)]);
        assert_eq!(voice(&before, 11, PastEffects::Silent), Voice::First);
        assert_eq!(voice(&ProjectionState::default(), 11, PastEffects::Silent), Voice::Nobody);
    }

    #[test]
    fn an_effect_is_set_aside_only_by_its_policy_and_while_there_is_room() {
        let policy = EffectFailure::SetAside { tries: 3 };
        assert_eq!([1, 2, 3, 4].map(|attempts| policy.sets_aside(attempts, 0)), [false, false, true, true]);
        assert!(!policy.sets_aside(9, limits::EFFECT_LETTERS_MAX), "then the stream halts");
        assert!(!EffectFailure::Halt.sets_aside(u32::MAX, 0));
        assert!(EffectFailure::SetAside { tries: 0 }.sets_aside(1, 0), "it is tried at least once");
    }

    #[test]
    fn a_member_takes_the_right_of_a_live_one_only_after_its_tries_have_ended() {
        let [me, other] = [1, 2].map(|id| MemberId::from_bytes([id; 16]));
        let (time_max, now) = (Duration::from_secs(5), Timestamp::from_micros(0));
        let over = time_max + limits::LEASE_TIME;
        let taken = |owner| EffectsClaim::default().taken(owner, now);
        let may = |claim: EffectsClaim, lives, waited| claim.may_be_taken(me, lives, waited, time_max);
        assert!(may(EffectsClaim::default(), false, Duration::ZERO) && may(taken(me), true, Duration::ZERO));
        assert!(may(taken(other), false, Duration::ZERO), "it has ended its tries with its lease");
        assert!(!may(taken(other), true, over - Duration::from_nanos(1)) && may(taken(other), true, over));
    }

    #[test]
    fn a_key_is_shown_as_one_word() {
        let key = EffectKey { projection: name(), position: Position::new(1204), ordinal: 0 };
        assert_eq!(key.to_string(), "notices-1204-0");
    }
}
