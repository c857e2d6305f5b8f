//! What the code of a number reads: what is recorded, announced and declined.

use super::*;
use crate::reads::{Announcement, CodeMismatch, Reads};
use crate::rebuild::Code;

fn reads(types: &[&str]) -> Reads {
    Reads { types: Some(types.iter().map(|name| (*name).to_owned()).collect()), ..Reads::default() }
}

fn code(types: &[&str]) -> Code {
    Code {
        projection: name(),
        code: 1,
        segments: SegmentCount::ONE,
        flip: FlipPolicy::WhenReady,
        stand_by: std::time::Duration::ZERO,
        fingerprint: "code 1".into(),
        reads: reads(types),
        seeded: false,
    }
}

fn announce(types: &[&str]) -> CatalogCommand {
    CatalogCommand::AnnounceReads { code: code(types), checked: Position::new(70) }
}

fn settle(world: &World, found: Option<(String, Position)>) -> CatalogCommand {
    let announced = world.catalog.version(&view("v1.1")).unwrap().announced.clone().unwrap().position;
    CatalogCommand::SettleReads { view: view("v1.1"), announced, found }
}

/// Two builds of code that reads `types`.
fn built(types: &[&str]) -> World {
    World::given([code(types).schedule(), code(types).schedule()])
}

#[test]
fn types_that_the_journal_does_not_have_are_recorded_for_every_build() {
    let mut world = built(&["a"]);
    world.when(&announce(&["a", "b"])).unwrap();
    let position = world.catalog.position;
    let announced = Announcement { position, reads: reads(&["a", "b"]), checked: Position::new(70) };
    for build in ["v1.1", "v1.2"] {
        assert_eq!(world.catalog.version(&view(build)).unwrap().announced, Some(announced.clone()));
    }
    // Until it is decided, nobody knows whether its code may continue.
    for types in [&["a"][..], &["a", "b"]] {
        assert_eq!(world.catalog.unlike(&code(types)), Some(CodeMismatch::Undecided { announced: position }));
    }
    let settled = CatalogCommand::SettleReads { view: view("v1.2"), announced: position, found: None };
    world.when(&settled).unwrap();
    assert_eq!(world.catalog.unlike(&code(&["a", "b"])), None);
    assert_eq!(world.catalog.unlike(&code(&["a"])), Some(CodeMismatch::Missing(vec!["b".into()])));
    assert_eq!(world.catalog.version(&view("v1.1")).unwrap().reads, Some(reads(&["a", "b"])));
    assert_eq!(world.when(&settled).unwrap(), [], "whoever decides it as well comes too late");
    assert_eq!(world.when(&announce(&["a", "b"])).unwrap(), []);
    assert!(world.when(&code(&["a", "b"]).schedule()).is_ok());
    let refused = world.when(&code(&["a"]).schedule()).unwrap_err();
    assert!(
        refused.to_string().contains("it does not read events of type \"b\", which the version reads"),
        "{refused}"
    );
}

#[test]
fn an_announcement_is_declined_where_an_event_was_passed() {
    let mut world = built(&["a"]);
    world.when(&announce(&["a", "b"])).unwrap();
    let declined = settle(&world, Some(("b".into(), Position::new(80))));
    world.when(&declined).unwrap();
    assert_eq!(world.catalog.unlike(&code(&["a"])), None, "the old code goes on");
    let added = CodeMismatch::Added { types: vec!["b".into()], event: None };
    assert_eq!(world.catalog.unlike(&code(&["a", "b"])), Some(added));
    world.when(&announce(&["a", "b"])).unwrap();
    assert_eq!(world.when(&declined).unwrap(), [], "a late decision does not answer for a later announcement");
}

#[test]
fn only_more_types_are_announced() {
    let mut world = built(&["a", "b"]);
    let refused = |world: &mut World, code: Code| {
        let command = CatalogCommand::AnnounceReads { code, checked: Position::START };
        world.when(&command).unwrap_err().to_string()
    };
    assert!(refused(&mut world, code(&["a", "c"])).contains("raise the version number"));
    let across = crate::assign::RowScope::AcrossSegments;
    let other = Code { reads: Reads { rows: across, ..reads(&["a", "b"]) }, ..code(&[]) };
    assert!(refused(&mut world, other).contains("raise the version number"));
    let categories = Some(["account".to_owned()].into());
    let other = Code { reads: Reads { categories, ..reads(&["a", "b"]) }, ..code(&[]) };
    assert!(refused(&mut world, other).contains("all categories; raise the version number"));
    let other = Code { segments: SegmentCount::new(2).unwrap(), ..code(&["a", "b"]) };
    assert!(refused(&mut world, other).contains("it has 2 segments, the version has 1"));
}

#[test]
fn what_an_earlier_release_scheduled_is_taken_as_it_is_first_seen() {
    let mut world = World::default();
    let scheduled = CatalogEvent::Scheduled {
        view: view("v1.1"),
        segments: SegmentCount::ONE,
        flip: FlipPolicy::WhenReady,
        fingerprint: "code 1".into(),
        reads: None,
        seed: None,
    };
    world.catalog.evolve(&scheduled, Position::new(1), Timestamp::from_micros(0)).unwrap();
    assert!(world.catalog.lacks_reads(&code(&["a"])) && world.catalog.unlike(&code(&["a"])).is_none());
    world.when(&announce(&["a"])).unwrap();
    assert!(!world.catalog.lacks_reads(&code(&["a"])));
    assert_eq!(world.catalog.version(&view("v1.1")).unwrap().reads, Some(reads(&["a"])));
}
