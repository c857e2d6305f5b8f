//! What the drivers ask the catalog.

use super::*;
use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::reads::CodeMismatch;
use crate::rebuild::Code;
use crate::version::VersionId;
use std::time::Duration;

fn id(version: &str) -> VersionId {
    view(version).version
}

fn state(world: &World) -> &ProjectionState {
    &world.catalog.projections[&name()]
}

/// v1.1 serves and v2.1 is being built.
fn building() -> World {
    let mut world = serving_first();
    world.when(&schedule(2)).unwrap();
    world.when(&begin("v2.1")).unwrap();
    world
}

#[test]
fn a_move_to_an_earlier_version_than_the_serving_one_is_a_rollback() {
    let mut world = building();
    assert_eq!(state(&world).kind_of_flip(id("v2.1")), FlipKind::Flip);
    assert_eq!(state(&world).kind_of_flip(id("v1.1")), FlipKind::Flip, "it serves already");
    world.when(&flip("v2.1")).unwrap();
    world.settle("v2.1");
    assert_eq!(state(&world).kind_of_flip(id("v1.1")), FlipKind::Rollback);
    assert_eq!(ProjectionState::default().kind_of_flip(id("v1.1")), FlipKind::Flip, "none serves");
}

#[test]
fn a_decision_about_letters_that_do_not_exist_changes_nothing() {
    let mut world = building();
    let mut decide = |exist| {
        let (view, of, which, wish) = (view("v1.1"), LettersOf::Events, WhichLetters::All, Wish::Drop);
        world.when(&CatalogCommand::DecideLetters { view, of, which, wish, exist }).unwrap().len()
    };
    assert_eq!((decide(false), decide(true)), (0, 1));
    let (nowhere, of, which) = (view("v9.1"), LettersOf::Events, WhichLetters::All);
    let command = CatalogCommand::DecideLetters { view: nowhere, of, which, wish: Wish::Drop, exist: false };
    assert!(world.when(&command).is_err(), "there is no such version");
}

#[test]
fn a_flip_holds_the_version_that_it_leaves_under_the_mark_of_its_last_try() {
    let mut world = building();
    assert_eq!(state(&world).hold_on(id("v1.1")), None);
    world.when(&flip("v2.1")).unwrap();
    let requested = world.catalog.position;
    assert_eq!(state(&world).hold_on(id("v1.1")), Some(requested));
    assert_eq!(state(&world).hold_on(id("v2.1")), None);
    world.when(&CatalogCommand::PostponeFlip { view: view("v2.1"), hold: requested }).unwrap();
    assert_eq!(state(&world).hold_on(id("v1.1")), Some(world.catalog.position));
}

#[test]
fn a_flip_waits_for_answers_only_while_they_may_be_part_of_the_verdict() {
    let mut world = building();
    assert!(!state(&world).flips_before(id("v2.1")), "no flip is under way");
    world.when(&flip("v2.1")).unwrap();
    assert!(!state(&world).flips_before(id("v2.1")), "it has no verdict");
    world.when(&verified(view("v2.1"), None, true)).unwrap();
    assert!(state(&world).flips_before(id("v2.1")));
}

#[test]
fn a_question_about_a_verification_means_the_version_that_is_built_or_else_the_last_verified_one() {
    let mut world = building();
    assert_eq!(state(&world).verification_target(), Some(id("v2.1")));
    world.when(&verified(view("v2.1"), None, false)).unwrap();
    world.when(&CatalogCommand::Fail { view: view("v2.1"), reason: "no".into() }).unwrap();
    assert_eq!(state(&world).verification_target(), Some(id("v2.1")), "it has a verdict");
    world.when(&schedule(3)).unwrap();
    assert_eq!(state(&world).verification_target(), Some(id("v2.1")), "the next one has not begun");
    world.when(&begin("v3.1")).unwrap();
    assert_eq!(state(&world).verification_target(), Some(id("v3.1")));
    assert_eq!(ProjectionState::default().verification_target(), None);
}

#[test]
fn a_cancellation_that_is_too_late_is_so_for_the_version_that_was_meant() {
    let mut world = building();
    let late = |world: &World, what| state(world).too_late_for(what);
    assert_eq!(late(&world, Some(Cancel::Flip)), Some(id("v2.1")), "it flips by itself");
    assert_eq!(late(&world, Some(Cancel::CleanUp)), None);
    world.when(&flip("v2.1")).unwrap();
    world.settle("v2.1");
    world.when(&CatalogCommand::CleanUp { view: view("v1.1"), reason: CleanUpReason::Asked }).unwrap();
    assert_eq!(late(&world, Some(Cancel::CleanUp)), Some(id("v1.1")));
    for what in [Some(Cancel::Flip), Some(Cancel::Rebuild), Some(Cancel::Replay), None] {
        assert_eq!(late(&world, what), Some(id("v2.1")), "it serves");
    }
}

#[test]
fn a_version_has_dead_letters_while_events_are_applied_and_effects_until_it_is_gone() {
    let mut world = building();
    let may = |world: &World, version: &str| {
        let state = world.catalog.version(&view(version)).unwrap();
        [LettersOf::Events, LettersOf::Effects].map(|of| state.may_have(of))
    };
    assert_eq!(may(&world, "v2.1"), [true, true]);
    world.when(&CatalogCommand::CleanUp { view: view("v2.1"), reason: CleanUpReason::Asked }).unwrap();
    assert_eq!(may(&world, "v2.1"), [false, true]);
    world.when(&CatalogCommand::BeginDrop(view("v2.1"))).unwrap();
    world.when(&CatalogCommand::FinishCleanUp(view("v2.1"))).unwrap();
    assert_eq!(may(&world, "v2.1"), [false, false]);
}

#[test]
fn other_code_gets_no_work_except_while_a_decision_about_it_is_open() {
    let reads = |names: &[&str]| Reads {
        types: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..Reads::default()
    };
    let code = |reads| Code {
        projection: name(),
        code: 1,
        segments: SegmentCount::ONE,
        flip: FlipPolicy::WhenReady,
        stand_by: Duration::ZERO,
        fingerprint: "code 1".into(),
        reads,
        seeded: false,
    };
    let (old, wider) = (code(reads(&["opened"])), code(reads(&["opened", "closed"])));
    let mut world = World::given([old.schedule()]);
    assert_eq!(world.catalog.barred(&old), None);
    assert!(matches!(world.catalog.barred(&wider), Some(CodeMismatch::Added { .. })));
    world.when(&CatalogCommand::AnnounceReads { code: wider.clone(), checked: Position::START }).unwrap();
    assert!(world.catalog.unlike(&old).is_some() && world.catalog.barred(&old).is_none(), "it is decided soon");
}
