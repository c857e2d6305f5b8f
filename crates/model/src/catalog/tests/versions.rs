//! Versions from their schedule to their end, one after the other.

use super::*;

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
fn changed_code_under_an_unchanged_version_is_refused() {
    let mut world = serving_first();
    let mut changed = schedule(1);
    let CatalogCommand::Schedule { fingerprint, .. } = &mut changed else { unreachable!() };
    *fingerprint = "other".into();
    let refused = world.when(&changed).unwrap_err();
    assert!(refused.to_string().contains("raise the version number"), "{refused}");
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
        (CatalogEvent::Flipped { view: first(), from: Some(first().version), kind, covers }, "but none is serving"),
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
