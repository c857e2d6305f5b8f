//! A segment halts at an event that its handler refuses, tries it again, and goes on once somebody has put it right.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dacapo::catalog::{CatalogEvent, Phase, RequestedBy, Stage};
use dacapo::operate::LetterKind;
use dacapo::options::{Policy, Retry};
use dacapo::status::{VersionStatus, WaitingOn};
use dacapo::{Error, HandlerError, Node, Options, Position, Projection, Recorded, Row, Table, View};

use super::told::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_while_replaying_halts_its_segment_and_costs_the_others_nothing() {
    let version_1 = told::<1>(Policy::Halt);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    for _ in 0..10 {
        round(&node).await;
    }
    node.add_projection(version_1.carried()).unwrap();
    let found = halts(&node, "v1.1", doubted).await;
    assert_eq!((found.phase, found.stage), (Phase::Initializing, Some(Stage::Replaying)));
    let text = found.waiting_on[0].to_string();
    assert!(text.contains("doubtful") && text.contains(&format!("event {doubted}")), "I-11: {text}");
    assert_eq!(found.tokens.iter().map(|token| token.position).min(), Some(Position::new(doubted.get() - 1)));

    put_right(&node, &version_1).await;
    let mut handed = version_1.all_handed();
    assert!(handed.remove(&doubted.get()).unwrap() >= 3, "two tries and the one after it was put right");
    let more = handed.iter().filter(|(_, times)| **times > 1).collect::<Vec<_>>();
    assert!(more.is_empty(), "nothing else was handed to the handler twice: {more:?}");
    check_counts_now(&node, "v1.1").await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_while_serving_halts_its_segment_and_costs_the_others_nothing() {
    let version_1 = told::<1>(Policy::Halt);
    let node = serving(Node::builder(), &version_1).await;
    version_1.doubt(Act::Refuse);
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    let last = round(&node).await;
    halts(&node, "v1.1", doubted).await;
    let asked = node.ask(TotalOf("ledger-3".into())).after(last).within(Duration::from_millis(50));
    let error = asked.await.unwrap_err().to_string();
    assert!(error.contains("doubtful"), "the reader is told why: {error}");

    version_1.heal();
    node.version(view("v1.1")).resume().requested_by(by_test()).await.unwrap();
    assert_eq!(ask(&node, "ledger-3", last).await, (7, 3));
    check_serving(&node).await;
    let handed = version_1.all_handed();
    assert!(handed.iter().all(|(position, times)| *times == 1 || *position == doubted.get()), "{handed:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_handler_changed_before_it_refused_are_taken_back() {
    for act in [Act::RefuseLate, Act::Panic] {
        let version_1 = told::<1>(Policy::Halt);
        version_1.doubt(act);
        let (node, doubted) = with_a_doubtful_past(Node::builder(), &version_1).await;
        halts(&node, "v1.1", doubted).await;
        let before = version_1.all_handed();
        assert!(before.values().all(|times| *times <= 3), "at most once more for the whole batch: {before:?}");
        put_right(&node, &version_1).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_waits_for_ever_has_refused_the_event() {
    let version_1 = Told::<1>::new(Options { handler_time_max: Duration::from_millis(20), ..with(Policy::Halt) });
    version_1.doubt(Act::Hang);
    let node = Node::builder().projection(version_1.carried()).start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    let found = halts(&node, "v1.1", doubted).await;
    let text = found.waiting_on[0].to_string();
    assert!(text.contains("did not return within 0.02 s") && text.contains(&format!("event {doubted}")), "{text}");
    put_right(&node, &version_1).await;
    node.shutdown().await;
}

/// A clock that goes on whenever somebody looks at it, so that hardly two looks see the same time.
struct Hurried(ManualClock);

impl dacapo::world::Clock for Hurried {
    fn now(&self) -> dacapo_model::Timestamp {
        self.0.advance(Duration::from_millis(1));
        self.0.now()
    }

    fn steady(&self) -> std::time::Instant {
        self.0.advance(Duration::from_millis(1));
        self.0.steady()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_comes_due_between_two_looks_at_the_clock_is_made() {
    let wait = Duration::from_millis(5);
    let retry = Retry { attempts: 2, first: wait, longest: wait };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::Halt) });
    version_1.doubt(Act::Refuse);
    let clock = Arc::new(Hurried(ManualClock::default()));
    let node = Node::builder().clock(clock).projection(version_1.carried()).start().await.unwrap();
    let doubted = doubt(&node, "ledger-3", 5).await;
    // Nothing else happens: no try may need anything else to happen.
    let tried = |found: &VersionStatus| {
        let often = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { attempts, .. } if *attempts >= 30);
        found.waiting_on.iter().any(often)
    };
    until_version(&node, "v1.1", "it was tried thirty times", tried).await;
    version_1.heal();
    until_version(&node, "v1.1", "it went on", |found| found.covers >= doubted).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_and_their_times_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let hour = Duration::from_secs(3_600);
    let retry = Retry { attempts: 3, first: hour, longest: hour * 2 };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::Halt) });
    version_1.doubt(Act::Refuse);
    let start = || {
        let builder = Node::builder().data(directory.path()).clock(Arc::clone(&clock) as Arc<dyn dacapo::world::Clock>);
        builder.projection(version_1.carried()).start()
    };
    let attempts = |wanted: u32| {
        move |found: &VersionStatus| {
            let tried =
                |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { attempts, .. } if *attempts == wanted);
            found.waiting_on.iter().any(tried)
        }
    };
    let node = start().await.unwrap();
    let doubted = doubt(&node, "ledger-3", 5).await;
    until_version(&node, "v1.1", "it was tried", attempts(1)).await;
    node.shutdown().await;

    let node = start().await.unwrap();
    until_version(&node, "v1.1", "the try is known", attempts(1)).await;
    let last = add(&node, "ledger-4", 1).await;
    halted_behind(&node, last).await;
    assert_eq!(version_1.handed(doubted), 1, "it is not due");
    clock.advance(hour);
    // Time is looked at when something happens.
    add(&node, "ledger-4", 1).await;
    until_version(&node, "v1.1", "it was tried again", attempts(2)).await;
    node.shutdown().await;

    clock.advance(hour);
    let node = start().await.unwrap();
    let last = add(&node, "ledger-4", 1).await;
    halted_behind(&node, last).await;
    assert_eq!(version_1.handed(doubted), 2, "the second wait is longer");
    version_1.heal();
    clock.advance(hour);
    add(&node, "ledger-4", 1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-3", doubted).await, (5, 1));
    check_serving(&node).await;
    node.shutdown().await;
}

/// Waits until all segments but one cover `last`.
async fn halted_behind(node: &Node, last: Position) {
    until_version(node, "v1.1", "the others follow", |found| {
        found.tokens.iter().filter(|token| token.covers(last)).count() + 1 == found.tokens.len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_outside_heals_by_itself_and_the_replay_goes_on_without_anybody() {
    let retry = Retry { attempts: 3, first: Duration::from_millis(1), longest: Duration::from_millis(5) };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::Halt) });
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    version_1.plan(move |event| match event.event_type {
        "doubted" if counted.fetch_add(1, Ordering::SeqCst) < 20 => Act::Refuse,
        _ => Act::Apply,
    });
    let (node, _) = with_a_doubtful_past(Node::builder(), &version_1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    check_serving(&node).await;
    assert_eq!(tries.load(Ordering::SeqCst), 21);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn corrected_code_goes_on_where_the_wrong_one_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = told::<1>(Policy::Halt);
    wrong.doubt(Act::RefuseLate);
    let (node, doubted) = with_a_doubtful_past(Node::builder().data(directory.path()), &wrong).await;
    halts(&node, "v1.1", doubted).await;

    let right = told::<1>(Policy::Halt);
    node.add_projection(right.carried()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    check_serving(&node).await;
    let handed = right.all_handed();
    assert!(handed.keys().all(|position| *position >= doubted.get()), "nothing is read from the start: {handed:?}");
    node.shutdown().await;
}

/// The rows of the totals with one more column.
#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
struct MoreColumns {
    #[row(key)]
    ledger: String,
    more: i64,
}

struct Changed;

impl Projection for Changed {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[MoreColumns::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        Ok(view.put(MoreColumns { ledger: event.stream.to_owned(), more: 0 })?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_handler_under_an_unchanged_version_is_refused_while_it_initializes_too() {
    let version_1 = told::<1>(Policy::Halt);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().projection(version_1.carried()).start().await.unwrap();
    let doubted = doubt(&node, "ledger-3", 5).await;
    halts(&node, "v1.1", doubted).await;
    let error = node.add_projection(Changed).unwrap_err().to_string();
    assert!(error.contains("raise the version number"), "{error}");
    put_right(&node, &version_1).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_at_which_a_segment_halts_is_set_aside_by_somebody_and_the_segment_goes_on() {
    let version_1 = told::<1>(Policy::Halt);
    version_1.doubt(Act::Refuse);
    let node = serving(Node::builder(), &version_1).await;
    round(&node).await;
    let position = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    halts(&node, "v1.1", position).await;
    let asked = |reason: &str| RequestedBy::by("ana").because(reason);
    let other = node.version(view("v1.1")).set_aside(Position::new(2)).requested_by(asked("a slip")).await.unwrap_err();
    assert!(matches!(&other, Error::NotHalted { halts, .. } if *halts == [position]), "{other}");
    let keyed = RequestedBy { idempotency_key: Some("k".into()), ..asked("nobody knows this account") };
    let requested = node.version(view("v1.1")).set_aside(position).requested_by(keyed.clone()).await.unwrap();
    assert!(requested.position.is_some());
    assert_eq!(
        node.version(view("v1.1")).set_aside(position).requested_by(keyed).await.unwrap(),
        requested,
        "asked again under its key"
    );
    let head = node.head();
    let found = until_version(&node, "v1.1", "it goes on", |found| found.covers >= head).await;
    check_counts(&node, &found).await;
    let set_aside = letters(&node, "v1.1").await;
    // Tried twice until it halted, and once more; a slow node is at its next try by the time it hears of it.
    let (at, kind, attempts) = set_aside[0];
    assert!((at, kind) == (position.get(), LetterKind::Refused) && attempts >= 3, "{set_aside:?}");
    assert!(matches!(set_aside[1..], [(_, LetterKind::Blocked { .. }, 0)]), "the rest of its stream: {set_aside:?}");
    let again = node.version(view("v1.1")).set_aside(position).requested_by(asked("once more")).await.unwrap();
    assert_eq!(again.position, None, "it is set aside already");
    let history = node.history().await.unwrap();
    let entry = history.iter().find(|it| matches!(it.event, CatalogEvent::SetAside { event, .. } if event == position));
    let asked = entry.map(|entry| (entry.asked.actor.as_str(), entry.asked.reason.as_deref()));
    assert_eq!(asked, Some(("ana", Some("nobody knows this account"))));

    // The next one halts: it was decided about one event.
    let next = doubt(&node, "ledger-5", 5).await;
    halts(&node, "v1.1", next).await;
    node.shutdown().await;
}
