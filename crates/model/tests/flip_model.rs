//! Every interleaving of flips and claims in the small, over the functions that run: `Catalog::decide` and `evolve`,
//! `flip::gate`, `Token::moved`.
//!
//! Two versions of one projection, `a` which serves and `b` which is ready; two writers of one version, of which one
//! is a zombie as soon as the other claims; two nodes that drive the same flip, each of which may sleep between any
//! two of its steps or lose all it knows; a reader that keeps books. What is not a function of the model is done here as the
//! drivers do it, in the same steps: tokens are read one version after the other, the gate is asked on what was read,
//! and whatever it says is carried out later, when things may have changed.
//!
//! The last tests break one rule each and see that the checks notice.

#[path = "flip_model/explore.rs"]
mod explore;
#[path = "flip_model/state.rs"]
mod state;
#[path = "flip_model/world.rs"]
mod world;

use explore::{Broken, Flips, NONE, explore, small};

#[test]
fn a_reader_never_goes_back() {
    assert_eq!(explore(Flips { reader: true, ..small() }), NONE);
}

#[test]
fn one_node_flips_and_rolls_back() {
    assert_eq!(explore(Flips { requests: 2, ..small() }), NONE);
}

#[test]
fn two_nodes_drive_one_flip() {
    assert_eq!(explore(Flips { nodes: 2, ..small() }), NONE);
}

#[test]
fn a_zombie_of_the_old_version_writes_during_the_flip() {
    assert_eq!(explore(Flips { writers: vec![0, 0, 1], claims: 3, ..small() }), NONE);
}

#[test]
fn a_zombie_of_the_new_version_writes_during_the_flip() {
    assert_eq!(explore(Flips { writers: vec![0, 1, 1], claims: 3, ..small() }), NONE);
}

#[test]
fn segments_at_different_places() {
    assert_eq!(explore(Flips { segments: 2, postponed: 0, ..small() }), NONE);
}

#[test]
fn an_unfenced_commit_is_noticed() {
    let failed = explore(Flips { writers: vec![0, 1, 1], claims: 3, broken: Some(Broken::Unfenced), ..small() });
    assert!(failed.contains(&"I-4") || failed.contains(&"I-3"), "{failed:?}");
}

#[test]
fn a_flip_without_a_hold_is_noticed() {
    let failed = explore(Flips { broken: Some(Broken::NoHold), ..small() });
    assert_eq!(failed, ["I-6"]);
}

#[test]
fn a_reader_behind_a_flip_without_a_hold_is_noticed() {
    let failed = explore(Flips { reader: true, broken: Some(Broken::ShowsUnchecked), ..small() });
    assert_eq!(failed, ["I-7"]);
}

#[test]
fn a_confirmation_under_another_hold_is_noticed() {
    let failed = explore(Flips { nodes: 2, broken: Some(Broken::ConfirmsUnderAnyHold), ..small() });
    assert_eq!(failed, ["I-6"]);
}

#[test]
fn a_hold_that_is_lifted_in_silence_is_noticed() {
    let failed = explore(Flips { nodes: 2, broken: Some(Broken::LiftsInSilence), ..small() });
    assert_eq!(failed, ["I-6"]);
}

#[test]
fn a_flip_on_one_segment_alone_is_noticed() {
    let failed = explore(Flips { segments: 2, postponed: 0, broken: Some(Broken::AnySegment), ..small() });
    assert_eq!(failed, ["I-6"]);
}
