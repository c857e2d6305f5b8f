//! What was asked for is cancelled.

use super::*;

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
    assert_eq!(late, "it is too late to cancel the flip to balances v2.1: it serves");
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
    assert_eq!(late, "it is too late to cancel the clean-up of balances v1.1: its view is being dropped");
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
