//! What was asked for is given up before it happens: clean-ups and replays in place. Flips and rebuilds are in
//! `rebuild/versions.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dacapo::catalog::{CatalogRefused, Phase, RequestedBy};
use dacapo::effects::EffectFailure;
use dacapo::operate::{Cancel, LetterKind, ReplayFrom, WhichLetters};
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::{Error, ExpectedRevision, Node};

use super::letters::until_listed;
use super::office::*;
use crate::common::*;

fn refusal(error: Error) -> CatalogRefused {
    match error {
        Error::Catalog(refused) => refused,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_that_drops_nothing_yet_is_cancelled_and_the_version_follows_again() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    version.options.effects.on_failure = EffectFailure::Halt;
    let node = Node::builder().projection(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let first = add(&node, "ledger-1", 1).await;
    until_listed(&node, "v1.1", &[(first.get(), false)]).await;
    node.add_projection(carry(notices::<2>(&office))).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    // It waits for its effect, so nothing is dropped.
    node.version(view("v1.1")).clean_up().by("ana").await.unwrap();
    phase(&node, "v1.1", Phase::CleaningUp).await;
    let asked = RequestedBy { idempotency_key: Some("k".into()), ..RequestedBy::by("ben").because("not that one") };
    let cancelled = node.projection(totals()).unwrap().cancel(None).requested_by(asked.clone()).await.unwrap();
    assert_eq!((cancelled.what, &cancelled.requested.view), (Cancel::CleanUp, &view("v1.1")));
    phase(&node, "v1.1", Phase::StandingBy).await;
    assert_eq!(
        node.projection(totals()).unwrap().cancel(None).requested_by(asked).await.unwrap(),
        cancelled,
        "asked again under its key"
    );
    let head = add(&node, "ledger-2", 1).await;
    until(&node, "it follows", |status| status.projections[0].versions[0].covers >= head).await;
    roll_back(&node).await;
    office.fail.lock().unwrap().clear();
    node.version(view("v1.1")).resume().by("ana").await.unwrap();
    office.made_at_least(2).await;

    node.version(view("v2.1")).clean_up().by("ana").await.unwrap();
    phase(&node, "v2.1", Phase::Obsolete).await;
    let late =
        node.projection(totals()).unwrap().version("v2.1".parse().unwrap()).cancel(Cancel::CleanUp).by("ben").await;
    assert!(matches!(refusal(late.unwrap_err()), CatalogRefused::TooLate { .. }));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_keeps_its_rows_is_left_and_what_was_set_aside_stays_so() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    version.options.on_failure = OnFailure { serving: Policy::DeadLetter, initializing: Policy::Halt };
    version.options.retry = Retry { attempts: 1, ..Retry::default() };
    let node = Node::builder().projection(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.refuses.store(true, Ordering::SeqCst);
    for number in 0..10 {
        add(&node, "ledger-2", number).await;
    }
    let doubted = node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 7 }]).await.unwrap();
    let behind = add(&node, "ledger-1", 1).await;
    let letters = |status: &dacapo::status::Status| status.projections[0].versions[0].letters;
    until(&node, "both are set aside", |status| letters(status) == 2).await;
    office.made_at_least(10).await;
    let made = office.made().len();

    office.lags.send_replace(true);
    let replay = node.projection(totals()).unwrap().replay(ReplayFrom::Start).by("ana").await.unwrap();
    until(&node, "it has begun", |status| status.projections[0].versions[0].tokens.iter().any(|token| token.replays()))
        .await;
    let cancelled = node.projection(totals()).unwrap().cancel(None).by("ben").because("enough").await.unwrap();
    assert_eq!((cancelled.what, &cancelled.requested.view), (Cancel::Replay, &view("v1.1")));
    office.lags.send_replace(false);
    let ended = replay.done().within(WAIT_MAX).await.unwrap_err().to_string();
    assert!(ended.contains("cancelled by ben"), "{ended}");
    let status = until(&node, "it is where it was", |status| {
        let version = &status.projections[0].versions[0];
        version.tokens.iter().all(|token| !token.replays()) && letters(status) == 2
    })
    .await;
    assert_eq!(status.projections[0].versions[0].replay, None);
    let kept = node.version(view("v1.1")).letters().limit(10).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|letter| (letter.letter.position, letter.letter.kind)).collect();
    let first = doubted.position;
    assert_eq!(kept, [(first, LetterKind::Refused), (behind, LetterKind::Blocked { first })], "I-11");
    assert_eq!(office.made().len(), made, "I-9: nothing speaks again");
    office.refuses.store(false, Ordering::SeqCst);
    node.version(view("v1.1")).retry_letters(WhichLetters::All).by("ana").await.unwrap();
    office.made_at_least(made + 3).await;
    let again = node.projection(totals()).unwrap().cancel(None).by("ben").await;
    assert!(matches!(again, Err(Error::NoTarget(_))), "{again:?}");
    node.shutdown().await;
}
