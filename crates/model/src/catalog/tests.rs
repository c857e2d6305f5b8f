use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::Reads;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::verify::{Report, Verdict};
use crate::version::ViewId;

mod reads;

/// A catalog and its history, driven through `decide` as the library does it.
#[derive(Default)]
struct World {
    catalog: Catalog,
    history: Vec<CatalogEvent>,
}

impl World {
    fn given(commands: impl IntoIterator<Item = CatalogCommand>) -> Self {
        let mut world = Self::default();
        for command in commands {
            world.when(&command).unwrap_or_else(|refused| panic!("{command:?}: {refused}"));
        }
        world
    }

    fn when(&mut self, command: &CatalogCommand) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let events = self.catalog.decide(command)?;
        for event in &events {
            let position = self.catalog.position.plus(3);
            self.catalog.evolve(event, position, Timestamp::from_micros(position.get() as i64)).unwrap();
            self.history.push(event.clone());
        }
        Ok(events)
    }

    fn phase(&self, version: &str) -> Phase {
        self.catalog.version(&view(version)).unwrap().phase
    }

    /// Verifies the version of the flip under way if it must be, and confirms the flip.
    fn settle(&mut self, version: &str) {
        if self.catalog.version(&view(version)).unwrap().is_unverified() {
            self.when(&verified(view(version), None, true)).unwrap();
        }
        let confirm = self.confirm(version);
        self.when(&confirm).unwrap();
    }

    fn confirm(&self, version: &str) -> CatalogCommand {
        let hold = self.catalog.projections[&name()].flip.map_or(Position::START, |flip| flip.hold);
        CatalogCommand::ConfirmFlip { view: view(version), hold, covers: hold }
    }
}

fn name() -> ProjectionName {
    ProjectionName::new("balances").unwrap()
}

fn view(version: &str) -> ViewId {
    ViewId { projection: name(), version: version.parse().unwrap() }
}

fn schedule(code: u32) -> CatalogCommand {
    CatalogCommand::Schedule {
        projection: name(),
        code,
        segments: SegmentCount::ONE,
        flip: FlipPolicy::WhenReady,
        fingerprint: format!("code {code}"),
        reads: Reads::default(),
        seeded: false,
        if_new: false,
    }
}

#[test]
fn of_nodes_that_find_new_code_at_the_same_time_one_has_it_built() {
    let mut found = schedule(2);
    let CatalogCommand::Schedule { if_new, .. } = &mut found else { unreachable!() };
    *if_new = true;
    let mut catalog = Catalog::default();
    let events = catalog.decide(&found).unwrap();
    assert_eq!(events.len(), 1);
    catalog.evolve(&events[0], Position::new(1), Timestamp::from_micros(0)).unwrap();
    assert_eq!(catalog.decide(&found), Ok(vec![]), "the other one finds it scheduled");
    assert_eq!(catalog.decide(&schedule(2)).unwrap().len(), 1 + 1, "who asks for another build gets it");
}

fn begin(version: &str) -> CatalogCommand {
    CatalogCommand::Begin(view(version))
}

fn flip(version: &str) -> CatalogCommand {
    CatalogCommand::RequestFlip(view(version))
}

fn serving_first() -> World {
    let mut world = World::given([schedule(1), begin("v1.1"), flip("v1.1")]);
    world.settle("v1.1");
    world
}

#[test]
fn a_version_goes_the_whole_way() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    world.settle("v2.1");
    assert_eq!((world.phase("v1.1"), world.phase("v2.1")), (Phase::StandingBy, Phase::Serving));
    assert_eq!(world.catalog.projections[&name()].rollback_target(), Some(view("v1.1").version));

    let back = world.when(&flip("v1.1")).unwrap();
    assert!(matches!(back[..], [CatalogEvent::FlipRequested { kind: FlipKind::Rollback, .. }]));
    world.settle("v1.1");
    assert_eq!(world.catalog.serving(&name()), Some(view("v1.1").version));
    assert_eq!(world.catalog.projections[&name()].flip_target(), Some(view("v2.1").version));

    let reason = CleanUpReason::Asked;
    world.when(&CatalogCommand::CleanUp { view: view("v2.1"), reason }).unwrap();
    world.when(&CatalogCommand::BeginDrop(view("v2.1"))).unwrap();
    world.when(&CatalogCommand::FinishCleanUp(view("v2.1"))).unwrap();
    assert_eq!(world.phase("v2.1"), Phase::Obsolete);
    world.when(&schedule(2)).unwrap();
    assert_eq!(world.phase("v2.2"), Phase::Scheduled, "I-12: v2.1 never comes back");
}

#[test]
fn a_flip_is_confirmed_only_on_its_own_evidence() {
    let mut world = World::given([schedule(1), begin("v1.1"), flip("v1.1")]);
    let requested = world.catalog.projections[&name()].flip.unwrap().requested;
    let confirm = |hold, covers| CatalogCommand::ConfirmFlip { view: view("v1.1"), hold, covers };
    let early = Position::new(requested.get() - 1);
    let refused = world.when(&confirm(requested, early)).unwrap_err();
    assert_eq!(refused, CatalogRefused::NotCovered { requested, covers: early }, "I-6");
    let refused = world.when(&confirm(early, requested)).unwrap_err();
    assert_eq!(refused, CatalogRefused::NoFlipUnderWay { projection: name() }, "a late confirmation");
    let unverified = Err(CatalogRefused::NoVerdict { view: view("v1.1") });
    assert_eq!(world.when(&confirm(requested, requested)), unverified, "I-6");
    world.when(&verified(view("v1.1"), None, false)).unwrap();
    assert_eq!(world.when(&confirm(requested, requested)), unverified, "I-6");
    world.when(&verified(view("v1.1"), None, true)).unwrap();
    world.when(&CatalogCommand::RequestVerification(view("v1.1"))).unwrap();
    assert_eq!(world.when(&confirm(requested, requested)), unverified, "asked for again, it does not count");
    let again = Some(world.catalog.position);
    world.when(&verified(view("v1.1"), again, true)).unwrap();
    world.when(&confirm(requested, requested)).unwrap();
    assert!(world.when(&confirm(requested, requested)).is_err(), "a second controller");
}

#[test]
fn a_later_version_supersedes_one_that_is_not_serving() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1"), schedule(3)] {
        world.when(&command).unwrap();
    }
    assert_eq!(world.phase("v1.1"), Phase::Serving);
    assert_eq!(world.phase("v2.1"), Phase::CleaningUp);
    assert_eq!(world.catalog.projections[&name()].flip, None, "the flip to v2.1 is aborted");
    assert!(world.history.iter().any(|event| matches!(event, CatalogEvent::FlipAborted { .. })));
}

#[test]
fn asking_twice_changes_nothing_and_asking_otherwise_is_refused() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    assert_eq!(world.when(&flip("v2.1")), Ok(vec![]));
    assert_eq!(world.when(&begin("v2.1")), Ok(vec![]));
    assert_eq!(world.when(&flip("v1.1")), Err(CatalogRefused::FlipUnderWay { view: view("v2.1") }));
    let refused = world.when(&CatalogCommand::CleanUp { view: view("v1.1"), reason: CleanUpReason::Asked });
    assert_eq!(refused.unwrap_err().to_string(), "cannot clean up balances v1.1: it is Serving");
    let refused = world.when(&flip("v9.1")).unwrap_err();
    assert_eq!(refused.to_string(), "there is no balances v9.1: the versions are v1.1, v2.1");
}

#[test]
fn a_rollback_asked_for_in_the_last_moment_of_the_stand_by_is_not_taken_back() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    world.settle("v2.1");
    world.when(&flip("v1.1")).unwrap();
    // Planned before the request was there.
    let over = CatalogCommand::CleanUp { view: view("v1.1"), reason: CleanUpReason::StandByOver };
    assert_eq!(world.when(&over), Err(CatalogRefused::FlipUnderWay { view: view("v1.1") }));
    let asked = CatalogCommand::CleanUp { view: view("v1.1"), reason: CleanUpReason::Asked };
    world.when(&asked).unwrap();
    assert_eq!(world.catalog.projections[&name()].flip, None, "whoever asks for it aborts the rollback");
}

#[test]
fn changed_code_under_an_unchanged_version_is_refused() {
    let mut world = serving_first();
    let mut changed = schedule(1);
    let CatalogCommand::Schedule { fingerprint, .. } = &mut changed else { unreachable!() };
    *fingerprint = "other".into();
    let refused = world.when(&changed).unwrap_err();
    assert!(refused.to_string().contains("raise the version number"), "{refused}");
}

#[test]
fn evidence_taken_under_a_hold_that_was_given_up_does_not_count() {
    let mut world = World::given([schedule(1), begin("v1.1"), flip("v1.1")]);
    let hold = world.catalog.projections[&name()].flip.unwrap().hold;
    let postpone = CatalogCommand::PostponeFlip { view: view("v1.1"), hold };
    world.when(&postpone).unwrap();
    let late = CatalogCommand::ConfirmFlip { view: view("v1.1"), hold, covers: hold.plus(50) };
    assert_eq!(world.when(&late), Err(CatalogRefused::NoFlipUnderWay { projection: name() }), "I-7");
    assert!(world.when(&postpone).is_err(), "a second controller");
    world.settle("v1.1");
    assert_eq!(world.phase("v1.1"), Phase::Serving);
}

#[test]
fn a_version_that_failed_aborts_its_flip_and_makes_room_for_the_next_build() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    world.when(&CatalogCommand::Fail { view: view("v2.1"), reason: "its view is damaged".into() }).unwrap();
    assert_eq!(world.phase("v2.1"), Phase::Failed);
    assert_eq!(world.catalog.projections[&name()].flip, None);
    assert!(world.when(&flip("v2.1")).is_err());
    world.when(&schedule(2)).unwrap();
    assert_eq!((world.phase("v2.1"), world.phase("v2.2")), (Phase::CleaningUp, Phase::Scheduled));
}

fn verified(view: ViewId, answers: Option<Position>, pass: bool) -> CatalogCommand {
    let verdict = if pass { Verdict::Pass } else { Verdict::Fail };
    let report = Arc::new(Report { at: Position::START, against: None, required: vec![], parts: vec![] });
    CatalogCommand::Verify { view, answers, verdict, report }
}

fn any_command() -> impl Strategy<Value = CatalogCommand> {
    let version = (1..4_u32, 1..4_u32).prop_map(|(code, build)| view(&format!("v{code}.{build}")));
    prop_oneof![
        (1..4_u32).prop_map(schedule),
        version.clone().prop_map(CatalogCommand::Begin),
        version.clone().prop_map(CatalogCommand::RequestFlip),
        (version.clone(), 0..200_u64, 0..200_u64).prop_map(|(view, hold, covers)| {
            CatalogCommand::ConfirmFlip { view, hold: Position::new(hold), covers: Position::new(covers) }
        }),
        (version.clone(), 0..200_u64)
            .prop_map(|(view, hold)| CatalogCommand::PostponeFlip { view, hold: Position::new(hold) }),
        version.clone().prop_map(|view| CatalogCommand::CleanUp { view, reason: CleanUpReason::Asked }),
        version.clone().prop_map(CatalogCommand::BeginDrop),
        version.clone().prop_map(CatalogCommand::FinishCleanUp),
        version.clone().prop_map(CatalogCommand::CancelFlip),
        version.clone().prop_map(CatalogCommand::CancelRebuild),
        version.clone().prop_map(CatalogCommand::CancelCleanUp),
        version.clone().prop_map(CatalogCommand::CancelReplay),
        (version.clone(), 0..9_u64)
            .prop_map(|(view, event)| CatalogCommand::SetAside { view, event: Position::new(event) }),
        version.clone().prop_map(|view| CatalogCommand::DecideLetters {
            view,
            of: LettersOf::Effects,
            which: WhichLetters::All,
            wish: Wish::Drop,
        }),
        version.clone().prop_map(|view| CatalogCommand::Fail { view, reason: "broken".into() }),
        version.clone().prop_map(CatalogCommand::Pause),
        version.clone().prop_map(CatalogCommand::Resume),
        (version.clone(), any::<bool>()).prop_map(|(view, pass)| verified(view, None, pass)),
        version.clone().prop_map(CatalogCommand::RequestVerification),
        version.clone().prop_map(|view| CatalogCommand::Waive { view, by: "ana".into(), why: "known".into() }),
        (version.clone(), 0..200_u64).prop_map(|(view, after)| CatalogCommand::RequestReplay {
            view,
            after: Position::new(after),
            rows: ReplayRows::Keep,
        }),
        (version, 0..200_u64)
            .prop_map(|(view, request)| CatalogCommand::EndReplay { view, request: Position::new(request) }),
    ]
}

proptest! {
    /// Whatever is asked in whatever order: `evolve` accepts what `decide` decided, at most one version
    /// serves (I-5), a flip is confirmed only on evidence (I-6), and what is gone stays gone (I-12).
    #[test]
    fn no_sequence_of_commands_breaks_the_catalog(
        commands in prop::collection::vec((any_command(), any::<bool>()), 1..60),
    ) {
        let mut world = World::default();
        for (command, truthful) in commands {
            let gone: Vec<_> = world.catalog.projections.values().flat_map(|state| &state.versions)
                .filter(|(_, state)| state.phase == Phase::Obsolete).map(|(id, _)| *id).collect();
            let dropping: Vec<_> = world.catalog.projections.values().flat_map(|state| &state.versions)
                .filter(|(_, state)| state.dropping).map(|(id, _)| *id).collect();
            let pending = world.catalog.projections.get(&name()).and_then(|state| state.flip);
            // Half of the confirmations answer the flip that is under way.
            let command = match (command, pending) {
                (CatalogCommand::ConfirmFlip { .. }, Some(flip)) if truthful => world.confirm(&flip.to.to_string()),
                (CatalogCommand::PostponeFlip { .. }, Some(flip)) if truthful => {
                    CatalogCommand::PostponeFlip { view: view(&flip.to.to_string()), hold: flip.hold }
                }
                (command, _) => command,
            };
            // So do half of the verifications.
            let command = match command {
                CatalogCommand::Verify { view, verdict, report, .. } if truthful => {
                    let answers = world.catalog.version(&view).and_then(|state| state.verify_again);
                    CatalogCommand::Verify { view, answers, verdict, report }
                }
                command => command,
            };
            let before = world.catalog.clone();
            let decided = world.when(&command);
            if let (CatalogCommand::CancelFlip(view), Ok(events)) = (&command, &decided) {
                let state = &world.catalog.projections[&view.projection];
                prop_assert!(state.flip.is_none_or(|flip| flip.to != view.version));
                prop_assert!(state.serving != Some(view.version));
                prop_assert!(!state.flips_by_itself(&state.versions[&view.version]), "nor does it come by itself");
                prop_assert_eq!(events.len(), 1, "what is not under way is not cancelled");
            }
            for event in decided.iter().flatten() {
                if let CatalogEvent::Flipped { view, covers, .. } = event {
                    prop_assert!(before.version(view).is_some_and(VersionState::may_serve), "I-6");
                    let pending = pending.expect("a flip follows a request");
                    prop_assert_eq!(view.version, pending.to);
                    prop_assert!(*covers >= pending.requested, "I-6");
                }
            }
            for state in world.catalog.projections.values() {
                let serving: Vec<_> = state.versions.iter()
                    .filter(|(_, version)| version.phase == Phase::Serving).map(|(id, _)| *id).collect();
                prop_assert_eq!(serving, Vec::from_iter(state.serving), "I-5");
                for version in &dropping {
                    let phase = state.versions[version].phase;
                    prop_assert!(matches!(phase, Phase::CleaningUp | Phase::Obsolete), "I-12: too late to cancel");
                }
                for version in &gone {
                    prop_assert_eq!(state.versions[version].phase, Phase::Obsolete, "I-12");
                }
                let built = state.versions.values().filter(|version| version.is_built()).count();
                prop_assert!(built <= 1, "a newer one takes the place of what is not built yet");
                if let Some(flip) = state.flip {
                    prop_assert_eq!(flip.from, state.serving);
                    prop_assert!(state.versions[&flip.to].phase.may_become(Phase::Serving));
                }
            }
        }
        let mut again = Catalog::default();
        for (at, event) in world.history.iter().enumerate() {
            let position = Position::new((at as u64 + 1) * 3);
            again.evolve(event, position, Timestamp::from_micros(position.get() as i64)).unwrap();
        }
        prop_assert_eq!(again, world.catalog, "the fold depends on the events alone");
    }
}

#[test]
fn a_version_is_paused_once_and_resumed_at_any_time() {
    let mut world = serving_first();
    let pause = CatalogCommand::Pause(view("v1.1"));
    assert_eq!(world.when(&pause).unwrap().len(), 1);
    assert_eq!(world.when(&pause).unwrap(), []);
    assert!(world.catalog.version(&view("v1.1")).unwrap().paused);
    let resume = CatalogCommand::Resume(view("v1.1"));
    world.when(&resume).unwrap();
    let resumed_at = world.catalog.version(&view("v1.1")).unwrap().resumed_at;
    assert!(!world.catalog.version(&view("v1.1")).unwrap().paused);
    assert_eq!(resumed_at, Some(world.catalog.position));
    assert_eq!(world.when(&resume).unwrap().len(), 1, "what halts is tried at once");
    world.when(&schedule(2)).unwrap();
    let scheduled = CatalogCommand::Pause(view("v2.1"));
    assert!(matches!(world.when(&scheduled), Err(CatalogRefused::WrongPhase { .. })));
}

#[test]
fn a_verdict_is_waived_by_somebody_until_the_next_one() {
    let mut world = World::given([schedule(1), begin("v1.1")]);
    let waive = CatalogCommand::Waive { view: view("v1.1"), by: "ana".into(), why: "known".into() };
    assert!(matches!(world.when(&waive), Err(CatalogRefused::NotVerified { .. })));
    let lets_serve = |world: &World| {
        let state = world.catalog.version(&view("v1.1")).unwrap();
        state.verified.as_ref().is_some_and(Verified::lets_serve)
    };
    for (command, expected) in [
        (verified(view("v1.1"), None, false), false),
        (waive.clone(), true),
        (waive.clone(), true),
        (verified(view("v1.1"), None, false), false),
    ] {
        world.when(&command).unwrap();
        assert_eq!(lets_serve(&world), expected, "{command:?}");
    }
    world.when(&verified(view("v1.1"), None, true)).unwrap();
    assert!(lets_serve(&world));
    assert!(matches!(world.when(&waive), Err(CatalogRefused::NothingToWaive { .. })));
}

#[test]
fn one_replay_at_a_time_and_no_flip_to_where_it_runs() {
    let mut world = serving_first();
    let request = |version, after| CatalogCommand::RequestReplay {
        view: view(version),
        after: Position::new(after),
        rows: ReplayRows::Keep,
    };
    world.when(&request("v1.1", 2)).unwrap();
    let requested = world.catalog.position;
    let running = CatalogRefused::ReplayUnderWay { view: view("v1.1"), after: Position::new(2), requested };
    assert_eq!(world.when(&request("v1.1", 1)), Err(running.clone()));
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    world.settle("v2.1");
    assert_eq!(world.when(&flip("v1.1")), Err(running));
    let end = |request| CatalogCommand::EndReplay { view: view("v1.1"), request };
    let late = world.when(&end(Position::new(1)));
    assert!(matches!(late, Err(CatalogRefused::NoReplayUnderWay { .. })));
    world.when(&end(requested)).unwrap();
    assert!(matches!(world.when(&end(requested)), Err(CatalogRefused::NoReplayUnderWay { .. })), "it ends once");
    world.when(&flip("v1.1")).unwrap();
    let refused = world.when(&request("v2.1", 0));
    assert!(matches!(refused, Err(CatalogRefused::FlipUnderWay { .. })), "a flip finds what it counts on");
}

#[test]
fn every_flip_is_remembered_with_its_position() {
    let mut world = serving_first();
    let first = world.catalog.position;
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    world.settle("v2.1");
    let state = &world.catalog.projections[&name()];
    let served = [(first, view("v1.1").version), (world.catalog.position, view("v2.1").version)];
    assert_eq!((state.first, &state.served[..]), (Some(Position::new(3)), &served[..]));
}

#[test]
fn a_copy_is_made_of_what_serves() {
    let seeded = |code| {
        let mut command = schedule(code);
        let CatalogCommand::Schedule { seeded, .. } = &mut command else { unreachable!() };
        *seeded = true;
        command
    };
    let mut world = World::given([]);
    assert!(matches!(world.when(&seeded(1)), Err(CatalogRefused::NothingToCopy { .. })));
    let mut world = serving_first();
    world.when(&seeded(2)).unwrap();
    assert_eq!(world.catalog.version(&view("v2.1")).unwrap().seed, Some(view("v1.1").version));
}

/// A journal that was written before versions were verified: it folds, and the way back and forth stays open.
#[test]
fn flips_of_earlier_releases_need_no_verdict_afterwards() {
    let scheduled = |text: &str| CatalogEvent::Scheduled {
        view: view(text),
        segments: SegmentCount::ONE,
        flip: FlipPolicy::WhenReady,
        fingerprint: String::new(),
        reads: None,
        seed: None,
    };
    let flipped = |text: &str, from: Option<&str>| {
        let (from, kind) = (from.map(|from| view(from).version), FlipKind::Flip);
        let covers = Position::new(1);
        [
            scheduled(text),
            CatalogEvent::Initializing { view: view(text) },
            CatalogEvent::FlipRequested { view: view(text), from, kind },
            CatalogEvent::Flipped { view: view(text), from, kind, covers },
        ]
    };
    let mut world = World::default();
    for event in flipped("v1.1", None).into_iter().chain(flipped("v2.1", Some("v1.1"))) {
        let position = world.catalog.position.next();
        world.catalog.evolve(&event, position, Timestamp::from_micros(0)).unwrap();
    }
    for version in ["v1.1", "v2.1"] {
        world.when(&CatalogCommand::RequestFlip(view(version))).unwrap();
        world.settle(version);
        assert_eq!(world.phase(version), Phase::Serving);
    }
}

#[test]
fn a_verification_that_was_begun_before_another_was_asked_for_answers_nothing() {
    let mut world = World::given([schedule(1), begin("v1.1")]);
    let again = CatalogCommand::RequestVerification(view("v1.1"));
    world.when(&again).unwrap();
    let asked = Some(world.catalog.position);
    let outdated = Err(CatalogRefused::VerificationOutdated { view: view("v1.1") });
    assert_eq!(world.when(&verified(view("v1.1"), None, false)), outdated, "the first one may be under way");
    world.when(&verified(view("v1.1"), asked, false)).unwrap();
    assert!(!world.catalog.version(&view("v1.1")).unwrap().is_unverified());
    world.when(&again).unwrap();
    let first = world.catalog.position;
    world.when(&again).unwrap();
    let asked = world.catalog.position;
    assert_eq!(world.when(&verified(view("v1.1"), Some(first), true)), outdated, "nor does the one that answers that");
    assert!(world.catalog.version(&view("v1.1")).unwrap().is_unverified());
    assert_eq!(world.when(&verified(view("v1.1"), None, true)), outdated);
    let waive = CatalogCommand::Waive { view: view("v1.1"), by: "ana".into(), why: "known".into() };
    assert!(matches!(world.when(&waive), Err(CatalogRefused::NotVerified { .. })), "there is no verdict to waive yet");
    world.when(&verified(view("v1.1"), Some(asked), true)).unwrap();
    world.when(&flip("v1.1")).unwrap();
    world.settle("v1.1");
    assert!(matches!(world.when(&again), Err(CatalogRefused::WrongPhase { .. })));
}

#[test]
fn a_flip_is_cancelled_until_it_is_confirmed() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    world.when(&verified(view("v2.1"), None, true)).unwrap();
    let confirm = world.confirm("v2.1");
    let cancel = CatalogCommand::CancelFlip(view("v2.1"));
    assert_eq!(world.when(&cancel), Ok(vec![CatalogEvent::FlipCancelled { view: view("v2.1") }]));
    assert!(matches!(world.when(&confirm), Err(CatalogRefused::NoFlipUnderWay { .. })), "a late controller, I-7");
    assert!(matches!(world.when(&cancel), Err(CatalogRefused::NoFlipUnderWay { .. })));
    let state = world.catalog.version(&view("v2.1")).unwrap();
    assert_eq!(
        (state.phase, state.flip),
        (Phase::Initializing, FlipPolicy::OnCommand),
        "it does not come again by itself"
    );
    world.when(&flip("v2.1")).unwrap();
    world.settle("v2.1");
    let late = world.when(&cancel).unwrap_err().to_string();
    assert_eq!(late, "the flip to balances v2.1 cannot be cancelled, it is too late: it serves");
}

#[test]
fn the_first_flip_is_cancelled_before_and_after_it_is_asked_for() {
    let cancel = CatalogCommand::CancelFlip(view("v1.1"));
    for before in [&[][..], &[flip("v1.1")]] {
        let mut world = World::given([schedule(1), begin("v1.1")]);
        for command in before {
            world.when(command).unwrap();
        }
        assert_eq!(world.when(&cancel), Ok(vec![CatalogEvent::FlipCancelled { view: view("v1.1") }]));
        let state = &world.catalog.projections[&name()];
        assert_eq!(state.flip, None);
        assert!(!state.flips_by_itself(&state.versions[&view("v1.1").version]), "it does not come again by itself");
        assert!(matches!(world.when(&cancel), Err(CatalogRefused::NoFlipUnderWay { .. })));
        world.when(&flip("v1.1")).unwrap();
        world.settle("v1.1");
        assert_eq!(world.phase("v1.1"), Phase::Serving, "on command it flips");
    }
    let mut world = serving_first();
    world.when(&schedule(2)).unwrap();
    let state = |world: &World| world.catalog.projections[&name()].clone();
    assert_eq!(state(&world).flips_next(), Some(view("v2.1").version));
    world.when(&CatalogCommand::CancelFlip(view("v2.1"))).unwrap();
    assert_eq!(state(&world).flips_next(), None, "nor does any that has not begun yet");
}

#[test]
fn a_version_that_was_being_built_is_built_on_when_its_clean_up_is_cancelled() {
    let cancel = CatalogCommand::CancelCleanUp(view("v2.1"));
    let fail = CatalogCommand::Fail { view: view("v2.1"), reason: "broken".into() };
    for (built, phase) in [
        (vec![], Phase::Scheduled),
        (vec![begin("v2.1")], Phase::Initializing),
        (vec![begin("v2.1"), fail], Phase::Failed),
    ] {
        let mut world = serving_first();
        for command in [schedule(2)].into_iter().chain(built) {
            world.when(&command).unwrap();
        }
        let before = world.catalog.version(&view("v2.1")).unwrap().clone();
        world.when(&CatalogCommand::CancelRebuild(view("v2.1"))).unwrap();
        assert_eq!(world.catalog.projections[&name()].cancellable(), [(Cancel::CleanUp, view("v2.1").version)]);
        world.when(&cancel).unwrap();
        let state = world.catalog.version(&view("v2.1")).unwrap();
        assert_eq!((state.phase, &state.reason), (phase, &before.reason));
        assert_eq!(world.catalog.projections[&name()].flips_next(), None, "it flips on command");
        world.when(&CatalogCommand::CancelRebuild(view("v2.1"))).unwrap();
        world.when(&CatalogCommand::BeginDrop(view("v2.1"))).unwrap();
        assert!(matches!(world.when(&cancel), Err(CatalogRefused::TooLate { .. })), "I-12");
    }
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), schedule(2)] {
        world.when(&command).unwrap();
    }
    assert!(matches!(world.when(&cancel), Err(CatalogRefused::NotRestored { .. })), "v2.2 took its place");
    assert_eq!(world.catalog.projections[&name()].cancellable(), [(Cancel::Rebuild, view("v2.2").version)]);
    world.when(&CatalogCommand::CancelRebuild(view("v2.2"))).unwrap();
    world.when(&cancel).unwrap();
    assert_eq!((world.phase("v2.1"), world.phase("v2.2")), (Phase::Initializing, Phase::CleaningUp));
}

#[test]
fn a_rebuild_is_cancelled_until_it_serves_and_takes_its_flip_with_it() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    let cancel = CatalogCommand::CancelRebuild(view("v2.1"));
    let events = world.when(&cancel).unwrap();
    assert!(matches!(events[..], [CatalogEvent::FlipAborted { .. }, CatalogEvent::CleaningUp { .. }]), "{events:?}");
    assert_eq!(world.when(&cancel), Ok(vec![]));
    assert_eq!((world.phase("v2.1"), world.catalog.projections[&name()].flip), (Phase::CleaningUp, None));
    assert!(matches!(world.when(&CatalogCommand::CancelRebuild(view("v1.1"))), Err(CatalogRefused::TooLate { .. })));
}

// I-12
#[test]
fn a_clean_up_is_cancelled_until_the_view_is_dropped() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
    }
    world.settle("v2.1");
    let clean_up = CatalogCommand::CleanUp { view: view("v1.1"), reason: CleanUpReason::Asked };
    let cancel = CatalogCommand::CancelCleanUp(view("v1.1"));
    world.when(&clean_up).unwrap();
    assert!(world.when(&CatalogCommand::FinishCleanUp(view("v1.1"))).is_err(), "nobody has said that it is dropped");
    world.when(&cancel).unwrap();
    assert_eq!(world.phase("v1.1"), Phase::StandingBy);
    let drop = CatalogCommand::BeginDrop(view("v1.1"));
    assert!(world.when(&drop).is_err(), "whoever was about to drop it hears of it");
    world.when(&clean_up).unwrap();
    world.when(&drop).unwrap();
    assert_eq!(world.when(&drop), Ok(vec![]), "another node drops it as well");
    let late = world.when(&cancel).unwrap_err().to_string();
    assert_eq!(late, "the clean-up of balances v1.1 cannot be cancelled, it is too late: its view is being dropped");
    world.when(&CatalogCommand::FinishCleanUp(view("v1.1"))).unwrap();
    assert!(matches!(world.when(&cancel), Err(CatalogRefused::TooLate { .. })));
}

#[test]
fn a_replay_is_cancelled_once_and_ends_when_every_segment_has_left_it() {
    let mut world = serving_first();
    let (after, rows) = (Position::new(1), ReplayRows::Keep);
    world.when(&CatalogCommand::RequestReplay { view: view("v1.1"), after, rows }).unwrap();
    let request = world.catalog.position;
    let cancel = CatalogCommand::CancelReplay(view("v1.1"));
    assert_eq!(world.when(&cancel).unwrap().len(), 1);
    assert_eq!(world.when(&cancel), Ok(vec![]));
    let state = world.catalog.version(&view("v1.1")).unwrap();
    assert!(state.replay.unwrap().cancelled && state.last_replay.unwrap().cancelled, "nobody takes it up any more");
    world.when(&CatalogCommand::EndReplay { view: view("v1.1"), request }).unwrap();
    assert!(matches!(world.when(&cancel), Err(CatalogRefused::NoReplayUnderWay { .. })));
}

#[test]
fn what_would_be_discarded_is_what_only_has_to_be_flipped_to() {
    let mut world = serving_first();
    for command in [schedule(2), begin("v2.1")] {
        world.when(&command).unwrap();
    }
    let discards = |world: &World| world.catalog.projections[&name()].would_discard().count();
    assert_eq!(discards(&world), 0);
    world.when(&verified(view("v2.1"), None, false)).unwrap();
    assert_eq!(discards(&world), 0, "it was not found right");
    world.when(&verified(view("v2.1"), None, true)).unwrap();
    assert_eq!(discards(&world), 1);
}

/// The catalog is read from a disk, and may have been written by who knows what.
#[test]
fn an_event_that_does_not_fit_is_an_error_and_changes_nothing() {
    let mut world = World::given([schedule(1)]);
    let first = || view("v1.1");
    let (kind, covers, by) = (FlipKind::Flip, Position::new(1), String::from("ana"));
    for (event, found) in [
        (world.history[0].clone(), "was scheduled before"),
        (CatalogEvent::Paused { view: view("v9.1") }, "v9.1 was never scheduled"),
        (CatalogEvent::Obsolete { view: first() }, "v1.1 may not become Obsolete from Scheduled"),
        (CatalogEvent::Waived { view: first(), by: by.clone(), why: by }, "it has no verdict"),
        (CatalogEvent::FlipPostponed { view: first() }, "no flip is under way"),
        (CatalogEvent::Flipped { view: first(), from: Some(first().version), kind, covers }, "what serves is none"),
    ] {
        let (before, position) = (world.catalog.clone(), world.catalog.position.plus(4));
        let misfit = world.catalog.evolve(&event, position, Timestamp::from_micros(0)).unwrap_err();
        assert_eq!(misfit.position, position);
        assert!(misfit.to_string().contains(found), "{event:?}: {misfit}");
        assert_eq!(world.catalog, before, "{event:?}");
    }
    let again = world.catalog.evolve(&world.history[0], world.catalog.position, Timestamp::from_micros(0));
    assert!(again.unwrap_err().to_string().contains("folded once"));
}
