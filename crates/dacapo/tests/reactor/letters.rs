//! Effects that do not come about: listed, set aside, retried, dropped, and in their order across a flip.

use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::{CatalogEvent, Phase, RequestedBy};
use dacapo::effects::EffectFailure;
use dacapo::operate::WhichLetters;
use dacapo::status::WaitingOn;
use dacapo::{Node, Position};
use dacapo_testkit::{Call, Fault, Faults};

use super::office::*;
use crate::common::*;

/// A version whose effects are tried again only when somebody wants it.
pub(super) fn patient<const CODE: u32>(office: &Arc<Office>, on_failure: EffectFailure) -> Notices<CODE> {
    let mut version = notices::<CODE>(office);
    let never = Duration::from_secs(3_600);
    let effects = &mut version.options.effects;
    (effects.retry_first, effects.retry_longest, effects.on_failure) = (never, never, on_failure);
    version
}

async fn start_patient(office: &Arc<Office>, on_failure: EffectFailure) -> Node {
    let node = Node::builder().projection(carry(patient::<1>(office, on_failure))).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node
}

/// The events whose effects are listed, and whether they are set aside.
pub(super) async fn listed(node: &Node, version: &str) -> Vec<(u64, bool)> {
    let letters = node.version(view(version)).effect_letters().limit(100).await.unwrap();
    letters.iter().map(|letter| (letter.pending.effect.position.get(), letter.aside.is_some())).collect()
}

pub(super) async fn until_listed(node: &Node, version: &str, wanted: &[(u64, bool)]) {
    let looking = async {
        while listed(node, version).await != wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let looked = tokio::time::timeout(WAIT_MAX, looking).await;
    if looked.is_err() {
        panic!("never {wanted:?}, but {:?}", listed(node, version).await);
    }
}

fn asked(reason: &str) -> RequestedBy {
    RequestedBy::by("ana").because(reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_always_fails_is_listed_dropped_and_retried() {
    let office: Arc<Office> = Arc::default();
    let node = start_patient(&office, EffectFailure::Halt).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let first = add(&node, "ledger-1", 1).await;
    let second = add(&node, "ledger-1", 2).await;
    until_listed(&node, "v1.1", &[(first.get(), false)]).await;
    let keyed = |reason: &str| RequestedBy { idempotency_key: Some("k".into()), ..asked(reason) };
    let stream = WhichLetters::Stream("ledger-1".try_into().unwrap());
    let none = WhichLetters::One(Position::new(1));
    assert_eq!(
        node.version(view("v1.1")).drop_effects(none.clone()).requested_by(asked("nothing")).await.unwrap().letters,
        Some(0)
    );
    assert_eq!(
        node.version(view("v1.1"))
            .drop_effects(stream.clone())
            .requested_by(keyed("no such address"))
            .await
            .unwrap()
            .letters,
        Some(1)
    );
    // The next one of its stream goes on, and fails as well.
    until_listed(&node, "v1.1", &[(second.get(), false)]).await;
    let third = add(&node, "ledger-1", 3).await;
    office.fail.lock().unwrap().clear();
    assert_eq!(
        node.version(view("v1.1"))
            .retry_effects(WhichLetters::All)
            .requested_by(asked("mended"))
            .await
            .unwrap()
            .letters,
        Some(1)
    );
    office.made_at_least(2).await;
    assert_eq!(office.by_ledger()["ledger-1"], [second.get(), third.get()]);
    // Requested again under its key, what came after it stays.
    office.fail.lock().unwrap().insert("ledger-1".into());
    let fourth = add(&node, "ledger-1", 4).await;
    until_listed(&node, "v1.1", &[(fourth.get(), false)]).await;
    assert_eq!(
        node.version(view("v1.1"))
            .drop_effects(stream.clone())
            .requested_by(keyed("no such address"))
            .await
            .unwrap()
            .letters,
        None
    );
    assert_eq!(listed(&node, "v1.1").await, [(fourth.get(), false)]);

    let history = node.history().await.unwrap();
    let decided = history.iter().filter(|entry| matches!(entry.event, CatalogEvent::LettersDecided { .. }));
    let decided: Vec<_> = decided.map(|entry| (entry.asked.actor.as_str(), entry.asked.reason.as_deref())).collect();
    assert_eq!(decided, [("ana", Some("no such address")), ("ana", Some("mended"))]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_set_aside_holds_nothing_back_and_is_made_when_it_is_retried() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    version.options.effects.on_failure = EffectFailure::SetAside { tries: 2 };
    let node = Node::builder().projection(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let first = add(&node, "ledger-1", 1).await;
    until_listed(&node, "v1.1", &[(first.get(), true)]).await;
    assert_eq!(office.tried().len(), 2);
    office.fail.lock().unwrap().clear();
    let second = add(&node, "ledger-1", 2).await;
    office.made_at_least(1).await;
    until(&node, "it is told", |status| status.projections[0].versions[0].effects_aside == 1).await;
    let one = WhichLetters::One(first);
    assert_eq!(
        node.version(view("v1.1")).retry_effects(one.clone()).requested_by(asked("mended")).await.unwrap().letters,
        Some(1)
    );
    office.made_at_least(2).await;
    assert_eq!(office.by_ledger()["ledger-1"], [second.get(), first.get()], "made at last, and once");
    until_listed(&node, "v1.1", &[]).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_effects_and_a_resumption_tries_at_once_what_fails() {
    let office: Arc<Office> = Arc::default();
    let node = start_patient(&office, EffectFailure::Halt).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let first = add(&node, "ledger-1", 1).await;
    until_listed(&node, "v1.1", &[(first.get(), false)]).await;
    node.version(view("v1.1")).pause().requested_by(asked("the post is on strike")).await.unwrap();
    office.fail.lock().unwrap().clear();
    let tries = office.tried().len();
    node.version(view("v1.1")).retry_effects(WhichLetters::All).requested_by(asked("too early")).await.unwrap();
    // Whoever looks at it meanwhile makes nothing: the delivery looks when the catalog changes.
    for number in 1..=3 {
        node.version(view("v1.1"))
            .drop_effects(WhichLetters::One(Position::new(number)))
            .requested_by(asked("x"))
            .await
            .unwrap();
        until_listed(&node, "v1.1", &[(first.get(), false)]).await;
    }
    assert_eq!(office.tried().len(), tries, "it is paused");
    node.version(view("v1.1")).resume().requested_by(asked("the strike is over")).await.unwrap();
    office.made_at_least(1).await;
    // Also what waits for its time.
    office.fail.lock().unwrap().insert("ledger-2".into());
    let second = add(&node, "ledger-2", 1).await;
    until_listed(&node, "v1.1", &[(second.get(), false)]).await;
    office.fail.lock().unwrap().clear();
    node.version(view("v1.1")).resume().requested_by(asked("mended")).await.unwrap();
    office.made_at_least(2).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_waits_for_one_that_fails_until_it_is_dropped() {
    let office: Arc<Office> = Arc::default();
    let node = start_patient(&office, EffectFailure::Halt).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let first = add(&node, "ledger-1", 1).await;
    let second = add(&node, "ledger-1", 2).await;
    until_listed(&node, "v1.1", &[(first.get(), false)]).await;
    node.add_projection(carry(patient::<2>(&office, EffectFailure::Halt))).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    node.version(view("v1.1")).clean_up().requested_by(asked("away with it")).await.unwrap();
    let status = until(&node, "it says what it waits for", |status| {
        let effects = |reason: &WaitingOn| matches!(reason, WaitingOn::Effects { pending: 2 });
        status.projections[0].versions[0].waiting_on.iter().any(effects)
    })
    .await;
    assert_eq!(status.projections[0].versions[0].phase, Phase::CleaningUp);
    assert_eq!(listed(&node, "v1.1").await, [(first.get(), false), (second.get(), false)], "all that it owes");
    assert_eq!(
        node.version(view("v1.1"))
            .drop_effects(WhichLetters::All)
            .requested_by(asked("never mind"))
            .await
            .unwrap()
            .letters,
        Some(2)
    );
    phase(&node, "v1.1", Phase::Obsolete).await;
    assert!(office.made().is_empty());
    node.shutdown().await;
}

/// The version that was left merely lags: what it speaks for comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_waits_for_those_of_the_version_that_was_left_and_lags() {
    let office: Arc<Office> = Arc::default();
    let node = start(&office).await;
    node.add_projection(carry(notices::<2>(&office))).unwrap();
    ready(&node, "v2.1").await;
    office.lags.send_replace(true);
    let first = add(&node, "ledger-1", 1).await;
    flip(&node).await;
    let second = add(&node, "ledger-1", 2).await;
    until(&node, "it is told", |status| {
        let before = WaitingOn::EffectsBefore { version: version("v1.1") };
        status.projections[0].versions.iter().any(|found| found.waiting_on.contains(&before))
    })
    .await;
    assert!(office.made().is_empty(), "{:?}", office.made());
    office.lags.send_replace(false);
    office.made_at_least(2).await;
    assert_eq!(office.by_ledger()["ledger-1"], [first.get(), second.get()]);
    let by: Vec<u32> = office.made().iter().map(|(code, ..)| *code).collect();
    assert_eq!(by, [1, 2], "I-9");
    node.shutdown().await;
}

/// The version that was left is not open: it is waited for all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_waits_for_those_of_a_version_that_could_not_be_opened_yet() {
    let (office, faults): (Arc<Office>, Faults) = Default::default();
    let directory = tempfile::tempdir().unwrap();
    let node = over(directory.path(), &faults, &office).await;
    phase(&node, "v1.1", Phase::Serving).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let first = add(&node, "ledger-1", 1).await;
    node.add_projection(carry(notices::<2>(&office))).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    let second = add(&node, "ledger-1", 2).await;
    until_listed(&node, "v1.1", &[(first.get(), false)]).await;
    node.shutdown().await;
    drop(node);

    office.fail.lock().unwrap().clear();
    faults.always(Fault::Fails, |call| matches!(call, Call::Open(view) if view.version.code == 1));
    let node = over(directory.path(), &faults, &office).await;
    node.add_projection(carry(notices::<2>(&office))).unwrap();
    until(&node, "it is told", |status| {
        let before = WaitingOn::EffectsBefore { version: version("v1.1") };
        status.projections[0].versions.iter().any(|found| found.waiting_on.contains(&before))
    })
    .await;
    assert!(office.made().is_empty(), "{:?}", office.made());
    faults.heal();
    office.made_at_least(2).await;
    assert_eq!(office.by_ledger()["ledger-1"], [first.get(), second.get()]);
    node.shutdown().await;
}
