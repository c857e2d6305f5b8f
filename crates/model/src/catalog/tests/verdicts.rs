//! Verdicts, and flips that need one.

use super::*;

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
