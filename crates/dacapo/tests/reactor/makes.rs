//! Effects are made under their keys, in the order of their streams, and one that fails holds back only its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::effects::PastEffects;
use dacapo::status::WaitingOn;
use dacapo::{ExpectedRevision, HandlerError, Node, Projection, Recorded, Table, View};

use super::office::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_effect_is_made_under_its_key_and_in_the_order_of_its_stream() {
    let office = Arc::default();
    let node = start(&office).await;
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for number in 0..60 {
        let ledger = format!("ledger-{}", number % 5);
        expected.entry(ledger.clone()).or_default().push(add(&node, &ledger, number).await.get());
    }
    let doubted = node.append("ledger-9", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 7 }]).await.unwrap();
    expected.insert("ledger-9".into(), vec![doubted.position.get(); 2]);
    office.made_at_least(62).await;
    assert_eq!(office.by_ledger(), expected);
    let keys: BTreeSet<_> = office.made().into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys.len(), 62, "each has a key of its own");
    let last = office.made().into_iter().filter(|(_, _, mail)| mail.ledger == "ledger-9");
    let last: Vec<_> = last.map(|(_, key, mail)| (key.to_string(), mail.amount)).collect();
    let key = |ordinal| format!("totals-{}-{ordinal}", doubted.position);
    assert_eq!(last, [(key(0), 7), (key(1), -7)]);
    assert_eq!(office.tried().len(), 62, "nothing was tried twice");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_holds_back_only_its_stream_and_is_seen() {
    let office: Arc<Office> = Arc::default();
    let node = start(&office).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    office.panic.lock().unwrap().insert("ledger-2".into());
    let first = add(&node, "ledger-1", 1).await;
    add(&node, "ledger-2", 1).await;
    for number in 0..20 {
        add(&node, &format!("ledger-{}", number % 4), number).await;
    }
    office.made_at_least(10).await;
    let status = until(&node, "it is told", |status| {
        let failing = |reason: &&WaitingOn| matches!(reason, WaitingOn::Effect { attempts: 2.., .. });
        status.projections[0].versions[0].waiting_on.iter().filter(failing).count() == 2
    })
    .await;
    let told: Vec<String> = status.projections[0].versions[0].waiting_on.iter().map(ToString::to_string).collect();
    assert!(told[0].contains(&format!("an effect of event {first} in ledger-1")), "I-11: {told:?}");
    assert!(told[0].contains("no stamps") && told[1].contains("it panicked: the printer is on fire"), "{told:?}");
    assert_eq!(office.by_ledger().keys().collect::<Vec<_>>(), ["ledger-0", "ledger-3"]);
    office.fail.lock().unwrap().clear();
    office.panic.lock().unwrap().clear();
    office.made_at_least(22).await;
    for (ledger, made) in office.by_ledger() {
        assert!(made.is_sorted(), "{ledger}: {made:?}");
    }
    let keys: BTreeSet<_> = office.made().into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys.len(), 22);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_has_failed_after_its_time() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    version.options.effects.time_max = Duration::from_millis(20);
    let node = Node::builder().projection(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.hang.lock().unwrap().insert("ledger-1".into());
    add(&node, "ledger-1", 1).await;
    add(&node, "ledger-2", 1).await;
    office.made_at_least(1).await;
    until(&node, "it is told", |status| {
        status.projections[0].versions[0].waiting_on.iter().any(|it| it.to_string().contains("longer than 20 ms"))
    })
    .await;
    office.hang.lock().unwrap().clear();
    office.made_at_least(2).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_the_projection_is_silent_unless_asked_for() {
    for (past, expected) in [(PastEffects::Silent, 1), (PastEffects::Made, 21)] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::builder().data(directory.path()).start().await.unwrap();
        for number in 0..20 {
            add(&node, "ledger-1", number).await;
        }
        node.shutdown().await;
        drop(node);
        let office = Arc::default();
        let mut version = notices::<1>(&office);
        version.options.effects.past = past;
        let node = Node::builder().data(directory.path()).projection(carry(version)).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        let new = add(&node, "ledger-1", 99).await;
        office.made_at_least(expected).await;
        let made = office.made();
        assert_eq!((made.len(), made.last().unwrap().1.position), (expected, new), "{past:?}");
        node.shutdown().await;
    }
}

/// Emits what nobody makes.
struct Mute;

impl Projection for Mute {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[];
    type Event = LedgerEvent;

    async fn apply(&self, _event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        Ok(view.emit(&Mail { ledger: String::new(), amount: 0 })?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_nobody_makes_is_the_handlers_mistake() {
    let node = Node::builder().projection(Mute).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    until(&node, "it is told", |status| {
        let versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.into_iter().any(|found| found.waiting_on.iter().any(|it| it.to_string().contains("add them with")))
    })
    .await;
    node.shutdown().await;
}
