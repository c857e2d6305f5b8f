//! Events that are set aside: what waits behind them, and how they are tried again or dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dacapo::catalog::{CatalogEvent, Phase, RequestedBy};
use dacapo::operate::{LetterKind, Settled, WhichLetters};
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::status::WaitingOn;
use dacapo::{Error, ExpectedRevision, Node, Options, Position, limits};

use super::told::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_holds_back_the_rest_of_its_stream_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().data(directory.path()).projection(version_1.carried()).start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    let behind = add(&node, "ledger-3", 100).await;
    let last = round(&node).await;
    until_version(&node, "v1.1", "it goes on", |found| found.covers >= last).await;
    assert_eq!(ask(&node, "ledger-4", last).await, (2, 2));
    assert_eq!(ask(&node, "ledger-3", last).await, (1, 1));
    let first = doubted;
    let mut expected = vec![(doubted.get(), LetterKind::Refused, 2), (behind.get(), LetterKind::Blocked { first }, 0)];
    let all = letters(&node, "v1.1").await;
    assert_eq!(all[..2], expected);
    assert_eq!((all.len(), all[2].1), (3, LetterKind::Blocked { first }), "that of the last round");
    expected.push(all[2]);
    let status = node.status().await.unwrap();
    assert_eq!(version_in(&status, "v1.1").unwrap().letters, 3);
    check_counts(&node, version_in(&status, "v1.1").unwrap()).await;
    assert_eq!(version_1.handed(behind), 0, "it is not tried");
    let listed = node.version(view("v1.1")).letters().limit(1).await.unwrap();
    let (letter, event) = (&listed[0].letter, listed[0].event());
    assert_eq!((event.stream, event.event_type, event.payload), ("ledger-3", "doubted", &br#"{"amount":5}"#[..]));
    assert_eq!((letter.stream.as_str(), letter.error.as_str()), ("ledger-3", "doubtful"));

    // One behind another says so; a retry in vain counts.
    let error =
        node.version(view("v1.1")).retry_letters(WhichLetters::One(behind)).requested_by(by_test()).await.unwrap_err();
    assert!(matches!(error, Error::Behind { .. }), "{error}");
    assert!(error.to_string().contains(&format!("for event {doubted}")), "{error}");
    let ledger_3 = WhichLetters::Stream("ledger-3".try_into().unwrap());
    assert_eq!(
        node.version(view("v1.1")).retry_letters(ledger_3.clone()).requested_by(by_test()).await.unwrap().letters,
        Some(3)
    );
    until_attempts(&node, 3).await;
    expected[0].2 = 3;
    assert_eq!(letters(&node, "v1.1").await, expected);
    let wishes = node.version(view("v1.1")).letters().limit(9).await.unwrap();
    assert!(wishes.iter().all(|found| found.letter.wish.is_none()), "the wish has ended");

    // Letters outlive a restart, and so does their order.
    node.shutdown().await;
    let node = Node::builder().data(directory.path()).projection(version_1.carried()).start().await.unwrap();
    let last = add(&node, "ledger-3", 1_000).await;
    until_letters(&node, "v1.1", 4).await;
    version_1.heal();
    node.version(view("v1.1")).retry_letters(WhichLetters::One(doubted)).requested_by(by_test()).await.unwrap();
    until_letters(&node, "v1.1", 3).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (6, 2));
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (1_107, 5));
    let last = add(&node, "ledger-3", 1).await;
    ask(&node, "ledger-3", last).await;
    check_serving(&node).await;
    check_counts_now(&node, "v1.1").await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_set_apart_for_building_and_for_serving() {
    let on_failure = OnFailure { serving: Policy::Skip, initializing: Policy::DeadLetter };
    let version_1 = Told::<1>::new(Options { on_failure, ..with(Policy::Halt) });
    version_1.doubt(Act::RefuseLate);
    let node = Node::builder().start().await.unwrap();
    let built = doubt(&node, "ledger-3", 5).await;
    node.add_projection(version_1.carried()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let served = doubt(&node, "ledger-4", 5).await;
    let last = add(&node, "ledger-4", 1).await;
    until_letters(&node, "v1.1", 2).await;
    assert_eq!(ask(&node, "ledger-4", last).await, (1, 1), "a skipped event holds nothing back");
    let kinds = letters(&node, "v1.1").await;
    assert_eq!(kinds, [(built.get(), LetterKind::Refused, 2), (served.get(), LetterKind::Skipped, 2)], "I-11");
    check_counts_now(&node, "v1.1").await;

    assert_eq!(
        node.version(view("v1.1"))
            .drop_letters(WhichLetters::One(served))
            .requested_by(by_test())
            .await
            .unwrap()
            .letters,
        Some(1)
    );
    until_letters(&node, "v1.1", 1).await;
    let add_behind = add(&node, "ledger-3", 1).await;
    assert_eq!(ask(&node, "ledger-3", add_behind).await, (0, 0));
    // Given up, with what came behind it.
    node.version(view("v1.1")).drop_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    let last = add(&node, "ledger-3", 1).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (1, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_order_does_not_matter_nothing_waits_behind_a_dead_letter() {
    let version_1 = Told::<1>::new(Options { order_matters: false, ..with(Policy::DeadLetter) });
    version_1.doubt(Act::Refuse);
    let node = Node::builder().projection(version_1.carried()).start().await.unwrap();
    doubt(&node, "ledger-3", 5).await;
    doubt(&node, "ledger-3", 6).await;
    let last = add(&node, "ledger-3", 1).await;
    until_letters(&node, "v1.1", 2).await;
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (1, 1));
    version_1.heal();
    let second = letters(&node, "v1.1").await[1].0;
    node.version(view("v1.1"))
        .retry_letters(WhichLetters::One(Position::new(second)))
        .requested_by(by_test())
        .await
        .unwrap();
    until_letters(&node, "v1.1", 1).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (7, 2));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_refuses_everything_does_not_set_everything_aside() {
    let retry = Retry { attempts: 1, ..with(Policy::DeadLetter).retry };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::DeadLetter) });
    version_1.plan(|_| Act::Refuse);
    let node = Node::builder().start().await.unwrap();
    // Half of them would be set aside only because of the other half.
    let streams = limits::LETTERS_MAX / 2;
    let events = (0..streams + 50).flat_map(|number| [(number, 1), (number, 2)]);
    for (number, amount) in events.collect::<Vec<_>>() {
        node.append(format!("ledger-{number}"), ExpectedRevision::Any, [added(amount)]).await.unwrap();
    }
    node.add_projection(version_1.carried()).unwrap();
    let full = limits::LETTERS_MAX as u64;
    let found = until_version(&node, "v1.1", "no more is set aside", |found| {
        let halts = |reason: &&WaitingOn| matches!(reason, WaitingOn::Letters { .. });
        found.letters == full && found.waiting_on.iter().filter(halts).count() == found.tokens.len()
    })
    .await;
    let text = found.waiting_on[0].to_string();
    assert!(text.contains("10,000 events are set aside, so segment") && text.contains("doubtful"), "I-11: {text}");
    check_counts(&node, &found).await;

    // With room again they go on at once.
    version_1.heal();
    node.version(view("v1.1")).drop_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    phase(&node, "v1.1", Phase::Serving).await;
    let (_, _, rows) = rows(&node, node.head()).await.unwrap();
    assert_eq!(rows.values().map(|(_, events)| events).sum::<i64>(), 100, "all that was not given up");
    node.shutdown().await;
}

/// Has `version` treat events of the type `doubted` as `act` says, but only once `released`; tells when one is there.
fn doubt_slowly<const V: u32>(version: &Told<V>, act: Act) -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let (there, released) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (comes, goes) = (Arc::clone(&there), Arc::clone(&released));
    version.plan(move |event| {
        if event.event_type != "doubted" {
            return Act::Apply;
        }
        comes.store(true, Ordering::SeqCst);
        while !goes.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        act.clone()
    });
    (there, released)
}

async fn until_set(flag: &AtomicBool) {
    let set = async {
        while !flag.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, set).await.expect("the handler gets there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_given_up_while_it_is_tried_again_goes() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = serving(Node::builder(), &version_1).await;
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    let (there, released) = doubt_slowly(&version_1, Act::Refuse);
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_set(&there).await;
    assert_eq!(
        node.version(view("v1.1")).drop_letters(WhichLetters::All).requested_by(by_test()).await.unwrap().letters,
        Some(1)
    );
    released.store(true, Ordering::SeqCst);
    until_letters(&node, "v1.1", 0).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_stream_takes_along_what_comes_meanwhile() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = serving(Node::builder(), &version_1).await;
    doubt(&node, "ledger-3", 5).await;
    add(&node, "ledger-3", 10).await;
    until_letters(&node, "v1.1", 2).await;
    // A stream that is busy would else have new letters whenever the old ones are gone.
    let (there, released) = doubt_slowly(&version_1, Act::Apply);
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_set(&there).await;
    let last = add(&node, "ledger-3", 100).await;
    released.store(true, Ordering::SeqCst);
    ask(&node, "ledger-3", last).await;
    until_letters(&node, "v1.1", 0).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (115, 3));
    check_serving(&node).await;
    check_counts_now(&node, "v1.1").await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_behind_one_that_nobody_wants_to_go_is_not_retried_for_ever() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = serving(Node::builder(), &version_1).await;
    let first = doubt(&node, "ledger-3", 5).await;
    let second = add(&node, "ledger-3", 10).await;
    let third = add(&node, "ledger-3", 100).await;
    until_letters(&node, "v1.1", 3).await;
    node.version(view("v1.1")).pause().requested_by(by_test()).await.unwrap();
    until_version(&node, "v1.1", "it says so", |found| found.waiting_on.contains(&WaitingOn::Paused)).await;
    node.version(view("v1.1")).retry_letters(WhichLetters::One(first)).requested_by(by_test()).await.unwrap();
    let error =
        node.version(view("v1.1")).retry_letters(WhichLetters::One(third)).requested_by(by_test()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("for event {second}")), "{error}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_go_with_their_version() {
    let (version_1, version_2) = (told::<1>(Policy::Skip), told::<2>(Policy::Halt));
    version_1.doubt(Act::Refuse);
    let node = Node::builder().projection(version_1.carried()).start().await.unwrap();
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(version_2.carried()).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    assert_eq!(letters(&node, "v2.1").await, []);
    node.version(view("v1.1")).clean_up().requested_by(by_test()).await.unwrap();
    phase(&node, "v1.1", Phase::Obsolete).await;
    let error = node.version(view("v1.1")).letters().limit(1).await.unwrap_err();
    assert!(error.to_string().contains("totals v1.1 does not exist"), "{error}");
    let error = node.version(view("v1.1")).pause().requested_by(by_test()).await.unwrap_err();
    assert!(error.to_string().contains("v1.1"), "{error}");
    node.shutdown().await;
}

/// The history says what was decided, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_about_letters_that_do_not_exist_is_no_decision_in_the_history() {
    let version_1 = told::<1>(Policy::DeadLetter);
    let node = serving(Node::builder(), &version_1).await;
    let add = doubt(&node, "ledger-3", 5).await;
    until_version(&node, "v1.1", "it is applied", |found| found.covers >= add).await;
    let version = node.version(view("v1.1"));
    let one = || WhichLetters::One(add);
    macro_rules! check {
        ($($key:literal: $request:expr),+ $(,)?) => {
            $(for round in 0..2 {
                let asked = RequestedBy { idempotency_key: Some($key.into()), ..RequestedBy::by("ana") };
                let settled = $request.requested_by(asked).await.unwrap();
                assert_eq!((settled.letters, settled.requested.position), (Some(0), None), "{} {round}", $key);
            })+
        };
    }
    check! {
        "retry": version.retry_letters(one()),
        "drop": version.drop_letters(one()),
        "retry all": version.retry_letters(WhichLetters::All),
        "retry effects": version.retry_effects(one()),
        "drop effects": version.drop_effects(one()),
    }
    // The same words as before, since the event is set aside by now.
    version_1.doubt(Act::Refuse);
    let later = doubt(&node, "ledger-3", 6).await;
    until_letters(&node, "v1.1", 1).await;
    let asked = RequestedBy { idempotency_key: Some("aside".into()), ..RequestedBy::by("ana") };
    assert_eq!(version.set_aside(later).requested_by(asked).await.unwrap().position, None);
    let history = node.history().await.unwrap();
    let of_ana: Vec<_> = history.iter().filter(|entry| entry.asked.actor == "ana").collect();
    assert_eq!(of_ana.len(), 6);
    for entry in of_ana {
        assert_eq!(entry.event.to_string(), "request for v1.1 changed nothing: there was nothing to change");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_dead_letters_is_in_the_history_and_is_done_once_under_its_key() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = serving(Node::builder(), &version_1).await;
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    let asked = RequestedBy { idempotency_key: Some("k".into()), ..RequestedBy::by("ana").because("a test account") };
    let drop = || node.version(view("v1.1")).drop_letters(WhichLetters::All).requested_by(asked.clone());
    let first = drop().await.unwrap();
    assert_eq!(first.letters, Some(1));
    until_letters(&node, "v1.1", 0).await;
    let later = doubt(&node, "ledger-3", 6).await;
    until_letters(&node, "v1.1", 1).await;
    assert_eq!(drop().await.unwrap(), Settled { letters: None, ..first.clone() }, "the same request, without a number");
    assert_eq!(letters(&node, "v1.1").await, [(later.get(), LetterKind::Refused, 2)], "that came later");
    let history = node.history().await.unwrap();
    let decided = history.iter().filter(|entry| matches!(entry.event, CatalogEvent::LettersDecided { .. }));
    let decided: Vec<_> = decided
        .map(|entry| (Some(entry.position), entry.asked.actor.as_str(), entry.asked.reason.as_deref()))
        .collect();
    assert_eq!(decided, [(first.requested.position, "ana", Some("a test account"))]);
    // The version is gone, and the answer is the same.
    version_1.heal();
    let built = node.projection("totals").unwrap().rebuild().by("ana").await.unwrap();
    built.done().within(WAIT_MAX).await.unwrap();
    node.version(built.view().clone()).flip().by("ana").await.unwrap().done().within(WAIT_MAX).await.unwrap();
    node.version(view("v1.1")).clean_up().by("ana").await.unwrap().done().within(WAIT_MAX).await.unwrap();
    assert_eq!(drop().await.unwrap(), Settled { letters: None, ..first });
    node.shutdown().await;
}
