//! Flips: on which evidence, asked for twice, and remembered.

use super::*;

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
    assert_eq!(refused.to_string(), "balances v9.1 does not exist: the versions are v1.1, v2.1");
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

// I-7
#[test]
fn the_evidence_of_the_last_flip_is_the_floor_of_its_readers() {
    let mut world = serving_first();
    let at_first = world.catalog.projections[&name()].evidence;
    for command in [schedule(2), begin("v2.1"), flip("v2.1")] {
        world.when(&command).unwrap();
        assert_eq!(world.catalog.projections[&name()].evidence, at_first, "{command:?} moves no reader");
    }
    world.settle("v2.1");
    let CatalogEvent::Flipped { covers, .. } = world.history.last().unwrap() else { panic!("{:?}", world.history) };
    assert!(*covers > at_first);
    assert_eq!(world.catalog.projections[&name()].evidence, *covers);
}
