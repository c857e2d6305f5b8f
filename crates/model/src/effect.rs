//! Effects: what follows from events outside of views, and whose voice speaks for an event.
//!
//! Each version of a projection comes past every event, most of them more than one version does, and some come past it
//! again. So whether an effect is made follows from the event's position alone (I-9): the version that served there
//! speaks for it, which the flips in the catalog say for good.
//!
//! ```text
//!   position   1 ··· first ··· v1 serves ······ v2 serves ······ rolled back to v1 ······
//!   voice      nobody     │  v1 (the first)   │  v2            │  v1
//! ```

use std::fmt;

use crate::catalog::ProjectionState;
use crate::limits;
use crate::member::MemberId;
use crate::name::{ProjectionName, StreamName};
use crate::position::Position;
use crate::segment::Segment;
use crate::time::Timestamp;
use crate::token::Epoch;
use crate::version::VersionId;

/// The name of one effect for good, which is the same for every try and on whichever node: the idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey {
    /// The projection whose handler emitted it.
    pub projection: ProjectionName,
    /// The event that it follows from.
    pub position: Position,
    /// Which of the effects of that event, from 0.
    pub ordinal: u32,
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.projection, self.position, self.ordinal)
    }
}

/// An effect that a handler emitted, as the view keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEffect {
    /// The event that it follows from.
    pub position: Position,
    /// Which of the effects of that event, from 0.
    pub ordinal: u32,
    /// The segment of the event.
    pub segment: Segment,
    /// The stream of the event: effects of one stream are made in order.
    pub stream: StreamName,
    /// The name of its kind.
    pub name: String,
    /// JSON, kept byte for byte.
    pub payload: Vec<u8>,
}

/// An effect that is still to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEffect {
    /// Its place in the outbox of its view.
    pub number: u64,
    /// What it is.
    pub effect: NewEffect,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// What was said last.
    pub error: Option<String>,
    /// When it is tried next.
    pub due: Timestamp,
}

/// What becomes of an effect that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EffectFailure {
    /// It is tried again for ever, and later effects of its stream wait for it.
    #[default]
    Halt,
    /// After so many tries it is set aside, and its stream goes on without it.
    SetAside {
        /// How often it is tried, at least once.
        tries: u32,
    },
}

impl EffectFailure {
    /// Whether an effect that was tried so often is set aside, where so many are already.
    pub fn sets_aside(self, attempts: u32, aside: u64) -> bool {
        match self {
            Self::Halt => false,
            Self::SetAside { tries } => attempts >= tries.max(1) && aside < limits::EFFECT_LETTERS_MAX,
        }
    }
}

/// An effect that does not come about: it fails, or was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectLetter {
    /// The effect, its tries and its error.
    pub pending: PendingEffect,
    /// When it was set aside; `None` while it is tried again.
    pub aside: Option<Timestamp>,
}

/// Who has the right to make the effects of a view. Each time it is taken or given back its epoch is the next one, and
/// nothing is begun under an earlier one any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EffectsClaim {
    /// Under which the right was taken, or given back, last.
    pub epoch: Epoch,
    /// The member that has it.
    pub owner: Option<MemberId>,
}

/// An effect that may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BegunEffect {
    /// Its place in the outbox of its view.
    pub number: u64,
    /// The epoch under which it was begun before, if what that came to is not recorded: it may have been made.
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
    /// Which try it is, from 1, of those whose outcome is recorded.
    pub number: u32,
    /// Whether an earlier try was begun of which nobody has recorded the outcome: the effect may have been made.
    pub is_uncertain: bool,
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was made, or it is another version's to make.
    Done,
    /// It was not, and is tried again.
    Failed {
        /// What was said.
        error: String,
        /// When.
        due: Timestamp,
    },
    /// It was not, and its stream goes on without it.
    SetAside {
        /// What was said.
        error: String,
        /// When.
        at: Timestamp,
    },
}

/// Who speaks for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// This version, for good.
    Of(VersionId),
    /// The version that will be the first to serve; none has served yet.
    First,
    /// Nobody: the event was there before the projection was.
    Nobody,
}

/// Whether effects of events that were there before a projection's first version was scheduled are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PastEffects {
    /// They are not.
    #[default]
    Silent,
    /// They are, by the first version that serves.
    Made,
}

impl ProjectionState {
    /// Whose effects of the event at `position` are made. It holds for good if this is the fold of every catalog event
    /// before `position`, because a flip has a position of its own behind everything that it is after.
    pub fn voice(&self, position: Position, past: PastEffects) -> Voice {
        let past_event = self.first.is_none_or(|first| position < first);
        if past_event && past == PastEffects::Silent {
            return Voice::Nobody;
        }
        // What came before the first flip is of the version that it went to.
        let served = self.served.iter().rev().find(|(since, _)| *since <= position).or(self.served.first());
        served.map_or(Voice::First, |(_, version)| Voice::Of(*version))
    }

    /// From which event on a version speaks; `None` for one that never served.
    pub fn speaks_from(&self, version: VersionId, past: PastEffects) -> Option<Position> {
        let at = self.served.iter().position(|(_, served)| *served == version)?;
        // What came before the first flip is of the version that it went to.
        let first = if past == PastEffects::Silent { self.first.unwrap_or_default() } else { Position::START.next() };
        Some(if at == 0 { first } else { self.served[at].0 })
    }

    /// The last flip at or before `position` with which a version left that had served until then: through there it
    /// speaks, and only then does another one. `None` when it speaks at `position` itself, or spoke for nothing before.
    pub fn spoke_before(&self, version: VersionId, position: Position) -> Option<Position> {
        let until = self.served.windows(2).filter(|pair| pair[0].1 == version && pair[1].1 != version);
        until.map(|pair| pair[1].0).rfind(|until| *until <= position)
    }

    /// The position of the flip behind which a version that served speaks for nothing more; `None` for the last one that
    /// served, and for one that never did.
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

    /// A journal of events and catalog entries, and what each version has come past.
    #[derive(Default)]
    struct World {
        catalog: Catalog,
        head: Position,
        /// Who has acted on each event.
        acted: BTreeMap<u64, Vec<VersionId>>,
        past: PastEffects,
    }

    impl World {
        fn ask(&mut self, command: &CatalogCommand) {
            // What the catalog declines has not happened.
            self.catalog.decide(command).unwrap_or_default().iter().for_each(|event| self.tell(event));
        }

        fn tell(&mut self, event: &CatalogEvent) {
            self.head = self.head.next();
            self.catalog.evolve(event, self.head, Timestamp::from_micros(0)).unwrap();
        }

        /// Verdicts are nothing to this rule, so flips are told and not asked for.
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

        /// `version` comes past an event, for the first time or again.
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
        // whatever order versions come past events.
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
                        // Also aborts a flip to it.
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
            // Then every version that there ever was comes past everything.
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
    fn a_key_is_shown_as_one_word() {
        let key = EffectKey { projection: name(), position: Position::new(1204), ordinal: 0 };
        assert_eq!(key.to_string(), "notices-1204-0");
    }
}
