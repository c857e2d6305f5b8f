//! One voice: which version speaks for an event across flips and replays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::effects::PastEffects;
use dacapo::operate::{ReplayFrom, WhichLetters};
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{ExpectedRevision, Node, Position, VersionCode};
use dacapo_testkit::{Call, Fault, Faults};

use super::office::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voice_through_flips_rollbacks_an_aborted_flip_and_a_replay() {
    let office: Arc<Office> = Arc::default();
    let node = start(&office).await;
    let mut count = 0;
    let mut appended = vec![];
    let mut some = async |node: &Node| {
        for number in 0..20 {
            appended.push(add(node, &format!("ledger-{}", number % 3), number).await);
            count += 1;
        }
        (count, appended.clone())
    };
    some(&node).await;
    node.add_projection(carry(notices::<2>(&office))).unwrap();
    ready(&node, "v2.1").await;
    some(&node).await;
    flip(&node).await;
    some(&node).await;
    roll_back(&node).await;
    some(&node).await;
    flip(&node).await;
    // A flip that comes to nothing.
    let rebuilt = node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready(&node, "v2.2").await;
    let requested = node.projection(totals()).unwrap().version(rebuilt.view().version).flip().by("test").await.unwrap();
    // It may have come to something all the same: then that version serves, and is not cleaned up.
    let aborted = node.version(rebuilt.view().clone()).clean_up().by("test").await.is_ok();
    assert!(aborted || requested.done().within(WAIT_MAX).await.is_ok());
    some(&node).await;
    let replay = node.projection(totals()).unwrap().replay(ReplayFrom::Start).by("test").await.unwrap();
    let replayed = replay.done().within(WAIT_MAX).await;
    let (count, appended) = some(&node).await;
    nothing_owed(&node, &office, count).await;
    node.shutdown().await;

    let state = node.catalog().borrow().projections[&totals()].clone();
    let made = office.made();
    assert_eq!(made.len(), count, "I-9: each once, since nothing failed");
    for position in appended {
        let by: Vec<u32> = made.iter().filter(|(_, key, _)| key.position == position).map(|(code, ..)| *code).collect();
        let voice = state.voice(position, PastEffects::Silent);
        let dacapo_model::Voice::Of(speaks) = voice else { panic!("{voice:?}") };
        assert_eq!(by, [speaks.code], "I-9: at {position}, {:?}", state.served);
    }
    assert!(replayed.is_ok(), "{replayed:?}");
    let codes: BTreeSet<u32> = made.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, BTreeSet::from([1, 2]), "both spoke");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_set_aside_speaks_once_when_a_replay_applies_it_at_last() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    // Apart from the phase, which the processor may hear of later than the test.
    version.options.on_failure = OnFailure { serving: Policy::DeadLetter, initializing: Policy::DeadLetter };
    version.options.retry = Retry { attempts: 1, ..Retry::default() };
    let node = Node::builder().projection(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.refuses.store(true, Ordering::SeqCst);
    add(&node, "ledger-1", 1).await;
    let doubted = node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 7 }]).await.unwrap();
    // It waits behind the other, since the order of a stream matters.
    let behind = add(&node, "ledger-1", 2).await;
    add(&node, "ledger-2", 3).await;
    until(&node, "both are set aside", |status| status.projections[0].versions[0].letters == 2).await;
    office.made_at_least(2).await;
    for round in 0..2 {
        let replay = node.projection(totals()).unwrap().replay(ReplayFrom::Start).by("test").await.unwrap();
        replay.done().within(WAIT_MAX).await.unwrap();
        // The end is seen in the view, maybe before the processor tells of its letters.
        let expected = if round == 0 { 2 } else { 0 };
        until(&node, "it was tried again", |status| status.projections[0].versions[0].letters == expected).await;
        office.refuses.store(false, Ordering::SeqCst);
    }
    // The second replay applied both; the next one comes past them again.
    office.made_at_least(5).await;
    let replay = node.projection(totals()).unwrap().replay(ReplayFrom::Start).by("test").await.unwrap();
    replay.done().within(WAIT_MAX).await.unwrap();
    let last = add(&node, "ledger-1", 4).await;
    office.made_at_least(6).await;
    let first = office.made()[0].1.position.get();
    let expected = [first, doubted.position.get(), doubted.position.get(), behind.get(), last.get()];
    assert_eq!(office.by_ledger()["ledger-1"], expected, "I-9: each once, in order");
    assert_eq!(office.made().len(), 6);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_has_spoken_and_is_set_aside_by_a_replay_does_not_speak_again() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    // Apart from the phase, which the processor may hear of later than the test.
    version.options.on_failure = OnFailure { serving: Policy::DeadLetter, initializing: Policy::DeadLetter };
    version.options.retry = Retry { attempts: 1, ..Retry::default() };
    let node = Node::builder().projection(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let doubt = async |ledger: &str| {
        let doubted = [LedgerEvent::Doubted { amount: 7 }];
        node.append(ledger, ExpectedRevision::Any, doubted).await.unwrap().position
    };
    let letters = async |expected| {
        until(&node, "so many are set aside", |status| status.projections[0].versions[0].letters == expected).await;
    };
    let replay = async || {
        let replay = node.projection(totals()).unwrap().replay(ReplayFrom::Start).by("test").await.unwrap();
        replay.done().within(WAIT_MAX).await.unwrap();
    };
    let retry = async || {
        node.version(view("v1.1")).retry_letters(WhichLetters::All).by("test").await.unwrap();
    };
    let spoken = [doubt("ledger-1").await, doubt("ledger-2").await];
    office.made_at_least(4).await;
    office.refuses.store(true, Ordering::SeqCst);
    let mute = doubt("ledger-3").await;
    letters(1).await;
    replay().await;
    letters(3).await;
    // One that goes by a retry, and one by a further replay.
    office.refuses.store(false, Ordering::SeqCst);
    let one = WhichLetters::One(spoken[0]);
    node.version(view("v1.1")).retry_letters(one.clone()).by("test").await.unwrap();
    letters(2).await;
    office.refuses.store(true, Ordering::SeqCst);
    replay().await;
    letters(3).await;
    office.refuses.store(false, Ordering::SeqCst);
    replay().await;
    letters(0).await;
    office.made_at_least(6).await;
    // And one that never spoke, by a retry after a replay.
    office.refuses.store(true, Ordering::SeqCst);
    let late = doubt("ledger-4").await;
    replay().await;
    letters(4).await;
    office.refuses.store(false, Ordering::SeqCst);
    retry().await;
    letters(0).await;
    // Nor does a replay that begins behind one keep it from speaking.
    office.refuses.store(true, Ordering::SeqCst);
    let stays = doubt("ledger-5").await;
    letters(1).await;
    let from = ReplayFrom::Position(add(&node, "ledger-6", 1).await);
    let replay = node.projection(totals()).unwrap().replay(from).by("test").await.unwrap();
    replay.done().within(WAIT_MAX).await.unwrap();
    office.refuses.store(false, Ordering::SeqCst);
    retry().await;
    letters(0).await;
    let mut last = vec![];
    for ledger in 1..=5 {
        last.push(add(&node, &format!("ledger-{ledger}"), 1).await);
    }
    office.made_at_least(16).await;
    let by_ledger = office.by_ledger();
    for (ledger, (doubted, last)) in [spoken[0], spoken[1], mute, late, stays].into_iter().zip(last).enumerate() {
        let expected = [doubted.get(), doubted.get(), last.get()];
        assert_eq!(by_ledger[&format!("ledger-{}", ledger + 1)], expected, "I-9: each once");
    }
    node.shutdown().await;
}

/// Notices of both versions, of which the one that steps back goes after `stand_by`.
fn going(office: &Arc<Office>, stand_by: Duration) -> (VersionCode, VersionCode) {
    let (mut one, mut two) = (notices::<1>(office), notices::<2>(office));
    (one.options.stand_by, two.options.stand_by) = (stand_by, stand_by);
    (carry(one), carry(two))
}

/// A node over `store` on which version 1 serves and version 2 could be flipped to.
async fn two_voices(store: Store, (one, two): (VersionCode, VersionCode)) -> Node {
    let node = Node::builder().store(store).projection(one).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(two).unwrap();
    ready(&node, "v2.1").await;
    node
}

/// Flips to version 2 while an event is appended, which is of version 1: it serves until the flip lands, and is held
/// meanwhile. Behind the flip the view of version 1 takes no commit, and does not tell how far it is, for as long as
/// `fails` says so.
async fn flip_beside_an_event(
    node: &Node,
    faults: &Faults,
    mut fails: impl FnMut() -> bool + Send + 'static,
) -> Position {
    faults.always(Fault::Waits, |call| call.appends("flipped"));
    let flipping = node.clone();
    let flipped = tokio::spawn(async move { flip(&flipping).await });
    met(faults).await;
    let during = add(node, "ledger-1", 5).await;
    faults.plan(move |call| {
        let is_asked = matches!(call, Call::Commit(id) | Call::Tokens(id) if **id == view("v1.1"));
        (is_asked && fails()).then_some(Fault::Fails)
    });
    flipped.await.unwrap();
    during
}

/// Version 1 goes, and has made the effect of what came `during` the flip; what comes now is of version 2.
async fn check_both_spoke(node: &Node, office: &Office, during: Position) {
    phase(node, "v1.1", Phase::Obsolete).await;
    let later = add(node, "ledger-1", 6).await;
    office.made_at_least(2).await;
    let made: Vec<_> = office.made().into_iter().map(|(code, key, _)| (code, key.position)).collect();
    assert_eq!(made, [(1, during), (2, later)]);
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_makes_the_effects_of_what_came_during_the_flip_before_it_goes_by_itself_or_when_asked() {
    for stand_by in [Duration::ZERO, Duration::from_secs(60)] {
        let (faults, office): (Faults, Arc<Office>) = Default::default();
        let store = faults.over(&Store::memory(Arc::new(SystemClock)));
        let node = two_voices(store, going(&office, stand_by)).await;
        let mut tries = 0;
        let during = flip_beside_an_event(&node, &faults, move || {
            tries += 1;
            tries < 4
        })
        .await;
        if !stand_by.is_zero() {
            node.version(view("v1.1")).clean_up().by("test").await.unwrap();
        }
        check_both_spoke(&node, &office, during).await;
        node.shutdown().await;
    }
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_during_the_flip_has_its_effects_also_if_the_node_ends_before_its_version_comes_to_it() {
    let (faults, office, directory): (Faults, Arc<Office>, _) =
        (Faults::default(), Arc::default(), tempfile::tempdir().unwrap());
    let store = faults.over(&Store::embedded(directory.path(), Arc::new(SystemClock)).unwrap());
    let node = two_voices(store, going(&office, Duration::ZERO)).await;
    let during = flip_beside_an_event(&node, &faults, || true).await;
    node.shutdown().await;
    drop(node);
    let (one, two) = going(&office, Duration::ZERO);
    let node = Node::builder().data(directory.path()).projection(one).projection(two).start().await.unwrap();
    check_both_spoke(&node, &office, during).await;
    node.shutdown().await;
}
