//! Handlers that refuse events, panic, wait for ever or compute for ever, and what an operator does about it.

mod common;
#[path = "common/faulty.rs"]
mod faulty;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::*;
use dacapo::{
    Answers, Asked, Carried, CatalogEvent, Error, EventRef, ExpectedRevision, Filter, FlipPolicy, HandlerError,
    LetterKind, Limit, Node, OnFailure, Options, Phase, Policy, Position, Projection, ReadView, Recorded, Retry, Row,
    Rows, SegmentCount, Stage, Status, Store, StoreError, SystemClock, Table, Verify, VersionStatus, View, WaitingOn,
    WhichLetters, limits,
};
use dacapo_model::verify::Part;
use faulty::{Call, Fault, Faults};

/// What a handler does with an event.
#[derive(Clone, Debug)]
enum Act {
    Apply,
    Refuse,
    /// Refuses it after it has changed the row.
    RefuseLate,
    /// Panics while it changes the row.
    Panic,
    /// Waits and never goes on.
    Hang,
    /// Computes until it is released.
    Spin(Arc<AtomicBool>),
    /// Writes a row that the store does not take.
    Violate,
    /// Writes a row that panics when it is written down.
    Brittle,
}

type Plan = Arc<dyn Fn(&EventRef<'_>) -> Act + Send + Sync>;

/// A row that may be too long to be indexed.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "marks")]
struct Mark {
    #[row(key)]
    position: i64,
    #[row(index)]
    mark: String,
}

/// A row that cannot be written down.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "brittle")]
struct Brittle {
    #[row(key)]
    position: i64,
    #[row(json)]
    note: Unwritable,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
struct Unwritable;

impl serde::Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("no words for it")
    }
}

/// Version `V` of the totals, whose handler does as it is told, event by event.
#[derive(Clone)]
struct Told<const V: u32> {
    options: Options,
    plan: Arc<Mutex<Plan>>,
    /// How often each position was handed to the handler.
    handed: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl<const V: u32> Told<V> {
    fn new(options: Options) -> Self {
        Self { options, plan: Arc::new(Mutex::new(Arc::new(|_| Act::Apply))), handed: Arc::default() }
    }

    fn plan(&self, plan: impl Fn(&EventRef<'_>) -> Act + Send + Sync + 'static) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
    }

    /// What was wrong is put right.
    fn heal(&self) {
        self.plan(|_| Act::Apply);
    }

    /// Events of the type `doubted` are not applied but treated like this.
    fn doubt(&self, act: Act) {
        self.plan(move |event| if event.event_type == "doubted" { act.clone() } else { Act::Apply });
    }

    fn handed(&self, position: Position) -> u64 {
        self.all_handed().get(&position.get()).copied().unwrap_or(0)
    }

    fn all_handed(&self) -> BTreeMap<u64, u64> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn carried(&self) -> Carried {
        Carried::version(self.clone()).answers::<TotalOf>().into()
    }
}

impl<const V: u32> Projection for Told<V> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = V;
    const TABLES: &'static [Table] = &[Total::TABLE, Mark::TABLE, Brittle::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner).entry(event.position.get()).or_default() += 1;
        let plan = Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner));
        let act = plan(event);
        match &act {
            Act::Refuse => return Err("doubtful".into()),
            Act::Hang => std::future::pending().await,
            Act::Spin(released) => {
                while !released.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
            }
            Act::Violate => {
                let mark = "long ".repeat(1_000);
                view.put(Mark { position: i64::try_from(event.position.get())?, mark })?;
            }
            Act::Brittle => view.put(Brittle { position: i64::try_from(event.position.get())?, note: Unwritable })?,
            Act::Apply | Act::RefuseLate | Act::Panic => {}
        }
        let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = event.data;
        let none = || Total { ledger: event.stream.to_owned(), sum: 0, events: 0 };
        let add = |row: &mut Total| {
            row.sum += amount;
            assert!(!matches!(act, Act::Panic), "what is this?");
            row.events += 1;
        };
        view.upsert(event.stream, none, add).await?;
        if matches!(act, Act::RefuseLate) { Err("doubtful after all".into()) } else { Ok(()) }
    }
}

impl<const V: u32> Answers<TotalOf> for Told<V> {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        let row = view.get::<Total>(query.0.as_str()).await?;
        Ok(row.map(|row| (row.sum, row.events)).unwrap_or_default())
    }
}

/// Four segments, tried once more after a millisecond and then every minute.
fn with(policy: Policy) -> Options {
    Options {
        segments: SegmentCount::new(4).unwrap(),
        flip: FlipPolicy::OnCommand,
        retry: Retry { attempts: 2, first: Duration::from_millis(1), longest: Duration::from_secs(60) },
        on_failure: OnFailure { serving: policy, initializing: policy },
        // What is set aside is to be seen in versions that serve.
        verify: Verify { letters_allowed: true, ..Verify::default().without(Part::Rows) },
        ..Options::default()
    }
}

fn told<const V: u32>(policy: Policy) -> Told<V> {
    Told::new(with(policy))
}

async fn doubt(node: &Node, ledger: &str, amount: i64) -> Position {
    node.append(ledger, ExpectedRevision::Any, [LedgerEvent::Doubted { amount }]).await.unwrap().position
}

/// Appends to each of twenty ledgers, and returns the last position.
async fn round(node: &Node) -> Position {
    let mut last = Position::START;
    for ledger in 0..20 {
        last = add(node, &format!("ledger-{ledger}"), 1).await;
    }
    last
}

fn version_in<'a>(status: &'a Status, text: &str) -> Option<&'a VersionStatus> {
    let versions = status.projections.iter().find(|found| found.name == totals()).map(|found| &found.versions);
    versions?.iter().find(|found| found.version == version(text))
}

/// Waits until the version is as wanted.
async fn until_version(node: &Node, text: &str, what: &str, wanted: impl Fn(&VersionStatus) -> bool) -> VersionStatus {
    let status = until(node, what, |status| version_in(status, text).is_some_and(&wanted)).await;
    version_in(&status, text).unwrap().clone()
}

/// Waits until one segment halts before `position`, having tried it twice, and all others are at the head.
async fn halts(node: &Node, text: &str, position: Position) -> VersionStatus {
    let head = node.head();
    until_version(node, text, "one segment halts and the others follow", |found| {
        let following = found.tokens.iter().filter(|token| token.covers(head)).count();
        let tried = |reason: &WaitingOn| match reason {
            WaitingOn::Handler { position: at, attempts, .. } => *at == position && *attempts >= 2,
            _ => false,
        };
        following + 1 == found.tokens.len() && found.waiting_on.iter().any(tried)
    })
    .await
}

async fn letters(node: &Node, text: &str) -> Vec<(u64, LetterKind, u32)> {
    let letters = node.letters(&view(text), Position::START, 100).await.unwrap();
    letters.iter().map(|found| (found.letter.position.get(), found.letter.kind, found.letter.attempts)).collect()
}

async fn until_letters(node: &Node, text: &str, number: u64) {
    until_version(node, text, &format!("{number} letters"), |found| found.letters == number).await;
}

/// What each segment has taken up is what the journal has for it, whatever became of it.
async fn check_counts(node: &Node, found: &VersionStatus) {
    let count = SegmentCount::new(u16::try_from(found.tokens.len()).unwrap()).unwrap();
    let filter = Filter { types: Some(vec!["added".into(), "doubted".into()]), ..Filter::default() };
    let mut events = vec![0; found.tokens.len()];
    let mut after = Position::START;
    while after < node.head() {
        let batch = node.journal().read(after, &filter, Limit::events(1_000)).await.unwrap();
        for event in batch.iter() {
            let segment = usize::from(count.segment_of(event.stream).get());
            events[segment] += u64::from(found.tokens[segment].covers(event.position));
        }
        after = batch.through;
    }
    assert_eq!(found.tokens.iter().map(|token| token.applied.events).collect::<Vec<_>>(), events);
}

fn store(directory: &Path) -> Store {
    Store::embedded(directory, Arc::new(SystemClock)).unwrap()
}

fn by_test() -> Asked {
    Asked::by("test")
}

// Halting.

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
    node.carry(version_1.carried()).unwrap();
    let found = halts(&node, "v1.1", doubted).await;
    assert_eq!((found.phase, found.stage), (Phase::Initializing, Some(Stage::Replaying)));
    let text = found.waiting_on[0].to_string();
    assert!(text.contains("doubtful") && text.contains(&format!("event {doubted}")), "I-11: {text}");
    assert_eq!(found.tokens.iter().map(|token| token.position).min(), Some(Position::new(doubted.get() - 1)));

    version_1.heal();
    node.resume(&view("v1.1"), by_test()).await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    check_serving(&node).await;
    let mut handed = version_1.all_handed();
    assert!(handed.remove(&doubted.get()).unwrap() >= 3, "two tries and the one after it was put right");
    let more = handed.iter().filter(|(_, times)| **times > 1).collect::<Vec<_>>();
    assert!(more.is_empty(), "nothing else was handed to the handler twice: {more:?}");
    let status = node.status().await.unwrap();
    check_counts(&node, version_in(&status, "v1.1").unwrap()).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_while_serving_halts_its_segment_and_costs_the_others_nothing() {
    let version_1 = told::<1>(Policy::Halt);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    version_1.doubt(Act::Refuse);
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    let last = round(&node).await;
    halts(&node, "v1.1", doubted).await;
    let asked = node.ask(TotalOf("ledger-3".into())).after(last).within(Duration::from_millis(50));
    let error = asked.await.unwrap_err().to_string();
    assert!(error.contains("doubtful"), "the reader is told why: {error}");

    version_1.heal();
    node.resume(&view("v1.1"), by_test()).await.unwrap();
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
        let node = Node::builder().start().await.unwrap();
        round(&node).await;
        let doubted = doubt(&node, "ledger-3", 5).await;
        round(&node).await;
        node.carry(version_1.carried()).unwrap();
        halts(&node, "v1.1", doubted).await;
        let before = version_1.all_handed();
        assert!(before.values().all(|times| *times <= 3), "at most once more for the whole batch: {before:?}");
        version_1.heal();
        node.resume(&view("v1.1"), by_test()).await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        check_serving(&node).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_waits_for_ever_has_refused_the_event() {
    let version_1 = Told::<1>::new(Options { handler_time_max: Duration::from_millis(20), ..with(Policy::Halt) });
    version_1.doubt(Act::Hang);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    let found = halts(&node, "v1.1", doubted).await;
    let text = found.waiting_on[0].to_string();
    assert!(text.contains("did not return within 0.02 s") && text.contains(&format!("event {doubted}")), "{text}");
    version_1.heal();
    node.resume(&view("v1.1"), by_test()).await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    check_serving(&node).await;
    node.shutdown().await;
}

/// A clock that goes on whenever somebody looks at it, so that hardly two looks see the same time.
struct Hurried(ManualClock);

impl dacapo::Clock for Hurried {
    fn now(&self) -> dacapo_model::Timestamp {
        self.0.advance(Duration::from_millis(1));
        self.0.now()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_comes_due_between_two_looks_at_the_clock_is_made() {
    let wait = Duration::from_millis(5);
    let retry = Retry { attempts: 2, first: wait, longest: wait };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::Halt) });
    version_1.doubt(Act::Refuse);
    let clock = Arc::new(Hurried(ManualClock::default()));
    let node = Node::builder().clock(clock).carry(version_1.carried()).start().await.unwrap();
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
        let builder = Node::builder().data(directory.path()).clock(Arc::clone(&clock) as Arc<dyn dacapo::Clock>);
        builder.carry(version_1.carried()).start()
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
    let node = Node::builder().start().await.unwrap();
    round(&node).await;
    doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    node.carry(version_1.carried()).unwrap();
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
    let node = Node::builder().data(directory.path()).start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    node.carry(wrong.carried()).unwrap();
    halts(&node, "v1.1", doubted).await;

    let right = told::<1>(Policy::Halt);
    node.carry(right.carried()).unwrap();
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
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    let doubted = doubt(&node, "ledger-3", 5).await;
    halts(&node, "v1.1", doubted).await;
    let error = node.carry(Changed).unwrap_err().to_string();
    assert!(error.contains("raise the version number"), "{error}");
    version_1.heal();
    node.resume(&view("v1.1"), by_test()).await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    check_serving(&node).await;
    node.shutdown().await;
}

// Computing without end.

#[test]
fn a_handler_that_never_returns_is_seen_and_holds_up_no_flip_no_clean_up_no_shutdown_and_no_process() {
    let released = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let spin = Arc::clone(&released);
    runtime.block_on(async move {
        let (version_1, version_2, version_3) =
            (told::<1>(Policy::Halt), told::<2>(Policy::Halt), told::<3>(Policy::Halt));
        version_1.doubt(Act::Spin(Arc::clone(&spin)));
        let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
        let first = round(&node).await;
        phase(&node, "v1.1", Phase::Serving).await;
        ask(&node, "ledger-1", first).await;
        node.carry(version_2.carried()).unwrap();
        let doubted = doubt(&node, "ledger-3", 5).await;
        let found = until_version(&node, "v1.1", "it is seen", |found| {
            found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Busy { .. }))
        })
        .await;
        let text = found.waiting_on.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains(&format!("busy with event {doubted} for")), "I-11: {text}");
        // Other versions go on, and readers can leave.
        ready(&node, "v2.1").await;
        assert_eq!(flip(&node).await.to, version("v2.1"));
        check_serving(&node).await;
        let found = until_version(&node, "v1.1", "it says so", |found| found.rollback_ready.is_some()).await;
        assert!(matches!(found.rollback_ready, Some(Err(WaitingOn::Busy { .. }))), "{:?}", found.rollback_ready);
        // It can be cleaned up.
        node.clean_up(&view("v1.1"), by_test()).await.unwrap();
        phase(&node, "v1.1", Phase::Obsolete).await;
        // A version that is built can be in such a handler when the node stops.
        version_3.doubt(Act::Spin(spin));
        node.carry(version_3.carried()).unwrap();
        until_version(&node, "v3.1", "it spins", |_| version_3.handed(doubted) > 0).await;
        tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("it stops");
    });
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(()).unwrap();
    });
    end.recv_timeout(WAIT_MAX).expect("the runtime ends while the handler computes");
    released.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_handler_that_was_left_behind_lands_later() {
    let released = Arc::new(AtomicBool::new(false));
    let directory = tempfile::tempdir().unwrap();
    let wrong = told::<1>(Policy::Halt);
    wrong.doubt(Act::Spin(Arc::clone(&released)));
    let node = Node::builder().data(directory.path()).carry(wrong.carried()).start().await.unwrap();
    let doubted = doubt(&node, "ledger-3", 5).await;
    until_version(&node, "v1.1", "it spins", |_| wrong.handed(doubted) > 0).await;
    let before = node.status().await.unwrap();
    let epoch = version_in(&before, "v1.1").unwrap().tokens[0].epoch;
    // Corrected code takes over, under a claim of its own.
    let right = told::<1>(Policy::Halt);
    node.carry(right.carried()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    released.store(true, Ordering::SeqCst);
    assert_eq!(ask(&node, "ledger-3", doubted).await, (5, 1));
    let last = add(&node, "ledger-3", 1).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (6, 2), "I-4");
    let after = node.status().await.unwrap();
    assert!(version_in(&after, "v1.1").unwrap().tokens[0].epoch > epoch);
    check_serving(&node).await;
    node.shutdown().await;
}

// Setting aside.

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_holds_back_the_rest_of_its_stream_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().data(directory.path()).carry(version_1.carried()).start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    let behind = add(&node, "ledger-3", 100).await;
    let last = round(&node).await;
    until_version(&node, "v1.1", "it goes on", |found| found.covers >= last).await;
    assert_eq!(ask(&node, "ledger-4", last).await, (2, 2));
    assert_eq!(ask(&node, "ledger-3", last).await, (1, 1));
    let first = doubted;
    let mut expected = vec![(doubted.get(), LetterKind::Refused, 2), (behind.get(), LetterKind::Behind { first }, 0)];
    let all = letters(&node, "v1.1").await;
    assert_eq!(all[..2], expected);
    assert_eq!((all.len(), all[2].1), (3, LetterKind::Behind { first }), "that of the last round");
    expected.push(all[2]);
    let status = node.status().await.unwrap();
    assert_eq!(version_in(&status, "v1.1").unwrap().letters, 3);
    check_counts(&node, version_in(&status, "v1.1").unwrap()).await;
    assert_eq!(version_1.handed(behind), 0, "it is not tried");
    let listed = node.letters(&view("v1.1"), Position::START, 1).await.unwrap();
    let (letter, event) = (&listed[0].letter, listed[0].event());
    assert_eq!((event.stream, event.event_type, event.payload), ("ledger-3", "doubted", &br#"{"amount":5}"#[..]));
    assert_eq!((letter.stream.as_str(), letter.error.as_str()), ("ledger-3", "doubtful"));

    // One behind another says so; a retry in vain counts.
    let error = node.retry_letters(&view("v1.1"), &WhichLetters::One(behind), &by_test()).await.unwrap_err();
    assert!(matches!(error, Error::Behind { .. }), "{error}");
    assert!(error.to_string().contains(&format!("behind event {doubted}")), "{error}");
    let ledger_3 = WhichLetters::Stream("ledger-3".try_into().unwrap());
    assert_eq!(node.retry_letters(&view("v1.1"), &ledger_3, &by_test()).await.unwrap(), 3);
    until_attempts(&node, 3).await;
    expected[0].2 = 3;
    assert_eq!(letters(&node, "v1.1").await, expected);
    let wishes = node.letters(&view("v1.1"), Position::START, 9).await.unwrap();
    assert!(wishes.iter().all(|found| found.letter.wish.is_none()), "the wish has ended");

    // Letters outlive a restart, and so does their order.
    node.shutdown().await;
    let node = Node::builder().data(directory.path()).carry(version_1.carried()).start().await.unwrap();
    let last = add(&node, "ledger-3", 1_000).await;
    until_letters(&node, "v1.1", 4).await;
    version_1.heal();
    node.retry_letters(&view("v1.1"), &WhichLetters::One(doubted), &by_test()).await.unwrap();
    until_letters(&node, "v1.1", 3).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (6, 2));
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (1_107, 5));
    let last = add(&node, "ledger-3", 1).await;
    ask(&node, "ledger-3", last).await;
    check_serving(&node).await;
    let status = node.status().await.unwrap();
    check_counts(&node, version_in(&status, "v1.1").unwrap()).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_set_apart_for_building_and_for_serving() {
    let on_failure = OnFailure { serving: Policy::Skip, initializing: Policy::DeadLetter };
    let version_1 = Told::<1>::new(Options { on_failure, ..with(Policy::Halt) });
    version_1.doubt(Act::RefuseLate);
    let node = Node::builder().start().await.unwrap();
    let built = doubt(&node, "ledger-3", 5).await;
    node.carry(version_1.carried()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let served = doubt(&node, "ledger-4", 5).await;
    let last = add(&node, "ledger-4", 1).await;
    until_letters(&node, "v1.1", 2).await;
    assert_eq!(ask(&node, "ledger-4", last).await, (1, 1), "a skipped event holds nothing back");
    let kinds = letters(&node, "v1.1").await;
    assert_eq!(kinds, [(built.get(), LetterKind::Refused, 2), (served.get(), LetterKind::Skipped, 2)], "I-11");
    let status = node.status().await.unwrap();
    check_counts(&node, version_in(&status, "v1.1").unwrap()).await;

    assert_eq!(node.drop_letters(&view("v1.1"), &WhichLetters::One(served), &by_test()).await.unwrap(), 1);
    until_letters(&node, "v1.1", 1).await;
    let add_behind = add(&node, "ledger-3", 1).await;
    assert_eq!(ask(&node, "ledger-3", add_behind).await, (0, 0));
    // Given up, with what came behind it.
    node.drop_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    let last = add(&node, "ledger-3", 1).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (1, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_order_does_not_matter_nothing_waits_behind_a_dead_letter() {
    let version_1 = Told::<1>::new(Options { order_matters: false, ..with(Policy::DeadLetter) });
    version_1.doubt(Act::Refuse);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    doubt(&node, "ledger-3", 5).await;
    doubt(&node, "ledger-3", 6).await;
    let last = add(&node, "ledger-3", 1).await;
    until_letters(&node, "v1.1", 2).await;
    phase(&node, "v1.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (1, 1));
    version_1.heal();
    let second = letters(&node, "v1.1").await[1].0;
    node.retry_letters(&view("v1.1"), &WhichLetters::One(Position::new(second)), &by_test()).await.unwrap();
    until_letters(&node, "v1.1", 1).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (7, 2));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_store_does_not_take_is_its_events_failure() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Violate);
    let node = Node::builder().start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    node.carry(version_1.carried()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let all = letters(&node, "v1.1").await;
    assert_eq!(all[0], (doubted.get(), LetterKind::Refused, 2));
    let listed = node.letters(&view("v1.1"), Position::START, 1).await.unwrap();
    assert!(listed[0].letter.error.contains("the index mark of a row of table marks"), "{}", listed[0].letter.error);
    let last = round(&node).await;
    assert_eq!(ask(&node, "ledger-4", last).await, (3, 3));
    // A retry meets the same, and says so.
    node.retry_letters(&view("v1.1"), &WhichLetters::One(doubted), &by_test()).await.unwrap();
    until_attempts(&node, 3).await;
    version_1.heal();
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_only_the_commit_refuses_costs_a_few_tries_of_its_batch() {
    let events = |ledger: u64| (0..100).map(move |_| LedgerEvent::Added { amount: ledger as i64 });
    for policy in [Policy::Skip, Policy::DeadLetter] {
        let version_1 = Told::<1>::new(Options { order_matters: false, ..with(policy) });
        version_1.doubt(Act::Brittle);
        let node = Node::builder().start().await.unwrap();
        for ledger in 0..7 {
            node.append(&*format!("ledger-{ledger}"), ExpectedRevision::Any, events(ledger)).await.unwrap();
        }
        doubt(&node, "ledger-3", 5).await;
        let mut last = Position::START;
        for ledger in 0..13 {
            let events = events(ledger);
            last = node.append(&*format!("ledger-{ledger}"), ExpectedRevision::Any, events).await.unwrap().position;
        }
        node.carry(version_1.carried()).unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        assert_eq!(ask(&node, "ledger-1", last).await, (200, 200));
        assert_eq!(letters(&node, "v1.1").await.len(), 1);
        let handed: u64 = version_1.all_handed().values().sum();
        assert!(handed <= 4 * 2_001, "{handed} events were handed to the handler for 2,001, {policy:?}");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_panics_when_it_is_written_is_its_events_failure() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Brittle);
    let node = Node::builder().start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    node.carry(version_1.carried()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let listed = node.letters(&view("v1.1"), Position::START, 1).await.unwrap();
    let letter = &listed[0].letter;
    assert_eq!((letter.position, letter.kind, letter.attempts), (doubted, LetterKind::Refused, 2));
    assert!(letter.error.contains("brittle.note") && letter.error.contains("no words for it"), "{}", letter.error);
    version_1.heal();
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    node.shutdown().await;
}

/// Waits until the first letter was tried so often.
async fn until_attempts(node: &Node, attempts: u32) {
    let tried = async {
        while letters(node, "v1.1").await.first().is_none_or(|letter| letter.2 != attempts) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, tried).await.expect("it is tried again");
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
    node.carry(version_1.carried()).unwrap();
    let full = limits::LETTERS_MAX as u64;
    let found = until_version(&node, "v1.1", "no more is set aside", |found| {
        let halts = |reason: &&WaitingOn| matches!(reason, WaitingOn::Letters { .. });
        found.letters == full && found.waiting_on.iter().filter(halts).count() == found.tokens.len()
    })
    .await;
    let text = found.waiting_on[0].to_string();
    assert!(text.contains("10000 events are set aside, so segment") && text.contains("doubtful"), "I-11: {text}");
    check_counts(&node, &found).await;

    // With room again they go on at once.
    version_1.heal();
    node.drop_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
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
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    let (there, released) = doubt_slowly(&version_1, Act::Refuse);
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    until_set(&there).await;
    assert_eq!(node.drop_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap(), 1);
    released.store(true, Ordering::SeqCst);
    until_letters(&node, "v1.1", 0).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_stream_takes_along_what_comes_meanwhile() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    doubt(&node, "ledger-3", 5).await;
    add(&node, "ledger-3", 10).await;
    until_letters(&node, "v1.1", 2).await;
    // A stream that is busy would else have new letters whenever the old ones are gone.
    let (there, released) = doubt_slowly(&version_1, Act::Apply);
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    until_set(&there).await;
    let last = add(&node, "ledger-3", 100).await;
    released.store(true, Ordering::SeqCst);
    ask(&node, "ledger-3", last).await;
    until_letters(&node, "v1.1", 0).await;
    assert_eq!(ask(&node, "ledger-3", last).await, (115, 3));
    check_serving(&node).await;
    let status = node.status().await.unwrap();
    check_counts(&node, version_in(&status, "v1.1").unwrap()).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_behind_one_that_nobody_wants_to_go_is_not_retried_for_ever() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let first = doubt(&node, "ledger-3", 5).await;
    let second = add(&node, "ledger-3", 10).await;
    let third = add(&node, "ledger-3", 100).await;
    until_letters(&node, "v1.1", 3).await;
    node.pause(&view("v1.1"), by_test()).await.unwrap();
    until_version(&node, "v1.1", "it says so", |found| found.waiting_on.contains(&WaitingOn::Paused)).await;
    node.retry_letters(&view("v1.1"), &WhichLetters::One(first), &by_test()).await.unwrap();
    let error = node.retry_letters(&view("v1.1"), &WhichLetters::One(third), &by_test()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("behind event {second}")), "{error}");
    node.shutdown().await;
}

// Pausing.

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_version_applies_nothing_and_says_so_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let version_1 = told::<1>(Policy::DeadLetter);
    let node = Node::builder().data(directory.path()).carry(version_1.carried()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    version_1.doubt(Act::Refuse);
    let doubted = doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    version_1.heal();
    node.pause(&view("v1.1"), Asked::by("ann").because("the fees look odd")).await.unwrap();
    until_version(&node, "v1.1", "it says so", |found| found.waiting_on.contains(&WaitingOn::Paused)).await;
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    node.shutdown().await;

    let node = Node::builder().data(directory.path()).carry(version_1.carried()).start().await.unwrap();
    let last = round(&node).await;
    let asked = node.ask(TotalOf("ledger-4".into())).after(last).within(Duration::from_millis(100));
    let error = asked.await.unwrap_err().to_string();
    assert!(error.contains("it is paused"), "I-11: {error}");
    assert_eq!((version_1.handed(last), version_1.handed(doubted)), (0, 2), "nothing is applied, nor retried");
    let again = node.pause(&view("v1.1"), by_test()).await.unwrap();
    assert_eq!(again.position, None, "it is paused already");
    node.resume(&view("v1.1"), by_test()).await.unwrap();
    assert_eq!(ask(&node, "ledger-4", last).await, (1, 1));
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    let history = node.history().await.unwrap();
    let paused = history.iter().find(|entry| entry.asked.actor == "ann").unwrap();
    assert_eq!(paused.asked.reason.as_deref(), Some("the fees look odd"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_to_a_paused_version_waits_until_it_is_resumed() {
    let (version_1, version_2) = (told::<1>(Policy::Halt), told::<2>(Policy::Halt));
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    round(&node).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(version_2.carried()).unwrap();
    ready(&node, "v2.1").await;
    node.pause(&view("v2.1"), by_test()).await.unwrap();
    let requested = node.flip(&totals(), None, by_test()).await.unwrap();
    let status = until(&node, "the flip says why", |status| {
        status.projections[0].flip.as_ref().is_some_and(|(_, reasons)| reasons.contains(&WaitingOn::Paused))
    })
    .await;
    assert_eq!(status.projections[0].serving, Some(version("v1.1")));
    node.resume(&view("v2.1"), by_test()).await.unwrap();
    node.flipped(&requested, WAIT_MAX).await.unwrap();
    check_serving(&node).await;
    // The version that stands by is not one to roll back to at once while it is paused.
    node.pause(&view("v1.1"), by_test()).await.unwrap();
    until_version(&node, "v1.1", "it says so", |found| found.rollback_ready == Some(Err(WaitingOn::Paused))).await;
    node.shutdown().await;
}

// Versions.

#[tokio::test(flavor = "multi_thread")]
async fn a_third_version_takes_the_place_of_a_second_that_halts_while_it_is_built() {
    let versions = (told::<1>(Policy::Halt), told::<2>(Policy::Halt), told::<3>(Policy::Halt));
    let node = Node::builder().carry(versions.0.carried()).start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    let last = round(&node).await;
    phase(&node, "v1.1", Phase::Serving).await;
    versions.1.doubt(Act::Refuse);
    node.carry(versions.1.carried()).unwrap();
    halts(&node, "v2.1", doubted).await;
    node.carry(versions.2.carried()).unwrap();
    phase(&node, "v2.1", Phase::Obsolete).await;
    ready(&node, "v3.1").await;
    assert_eq!(ask(&node, "ledger-3", last).await, (7, 3));
    assert_eq!(flip(&node).await.to, version("v3.1"));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_back_right_after_a_flip_to_a_version_that_then_refuses_events() {
    let (version_1, version_2) = (told::<1>(Policy::Halt), told::<2>(Policy::Halt));
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    round(&node).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(version_2.carried()).unwrap();
    ready(&node, "v2.1").await;
    version_2.doubt(Act::Refuse);
    let doubted = doubt(&node, "ledger-3", 5).await;
    halts(&node, "v2.1", doubted).await;
    // It is not flipped to for as long as it would be waited for in vain.
    let requested = node.flip(&totals(), None, by_test()).await.unwrap();
    until(&node, "the flip waits for it", |status| {
        let handler = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { .. });
        status.projections[0].flip.as_ref().is_some_and(|(_, reasons)| reasons.iter().any(handler))
    })
    .await;
    let early = node.flipped(&requested, Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(early.contains("doubtful"), "I-11: {early}");
    version_2.heal();
    node.resume(&view("v2.1"), by_test()).await.unwrap();
    node.flipped(&requested, WAIT_MAX).await.unwrap();
    version_2.doubt(Act::Refuse);
    let last = doubt(&node, "ledger-4", 5).await;
    let back = roll_back(&node).await;
    assert_eq!(back.to, version("v1.1"));
    assert_eq!(ask(&node, "ledger-4", last).await, (6, 2), "the way back does not wait for it (I-8)");
    // There again, once it is put right.
    version_2.heal();
    node.resume(&view("v2.1"), by_test()).await.unwrap();
    assert_eq!(flip(&node).await.to, version("v2.1"));
    assert_eq!(roll_back(&node).await.to, version("v1.1"));
    assert_eq!(flip(&node).await.to, version("v2.1"));
    check_serving(&node).await;
    node.shutdown().await;
}

// Faults of the store.

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_while_a_refusal_or_a_letter_is_recorded_loses_neither_and_doubles_nothing() {
    for fault in [Fault::Fails, Fault::LosesAnswer] {
        let directory = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let version_1 = told::<1>(Policy::DeadLetter);
        let builder = Node::builder().store(faults.over(&store(directory.path()))).carry(version_1.carried());
        let node = builder.start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        version_1.doubt(Act::RefuseLate);
        // Every second commit goes wrong from here on: one that records the first try, one that records the letter…
        let commits = AtomicU64::new(0);
        faults.plan(move |call| match call {
            Call::Commit(_) if commits.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => Some(fault),
            _ => None,
        });
        round(&node).await;
        let doubted = doubt(&node, "ledger-3", 5).await;
        let behind = add(&node, "ledger-3", 10).await;
        let last = round(&node).await;
        until_version(&node, "v1.1", "it goes on", |found| found.covers >= last && found.letters == 3).await;
        let all = letters(&node, "v1.1").await;
        assert_eq!(all[0].0, doubted.get());
        assert_eq!((all[1].0, all[1].1), (behind.get(), LetterKind::Behind { first: doubted }));
        let status = node.status().await.unwrap();
        check_counts(&node, version_in(&status, "v1.1").unwrap()).await;
        version_1.heal();
        node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
        until_letters(&node, "v1.1", 0).await;
        faults.stop();
        check_serving(&node).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_event_cannot_be_read_any_more_holds_up_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let version_1 = told::<1>(Policy::DeadLetter);
    let builder = Node::builder().store(faults.over(&store(directory.path()))).carry(version_1.carried());
    let node = builder.start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    version_1.doubt(Act::Refuse);
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    until_version(&node, "v1.1", "it follows", |found| found.lag == 0).await;
    version_1.heal();
    let attempts = node.letters(&view("v1.1"), Position::START, 1).await.unwrap()[0].letter.attempts;
    faults.plan(|call| matches!(call, Call::Read).then_some(Fault::Damaged));
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    // The list of letters reads their events as well, so the view is asked.
    let tried = async || {
        let mut reading = node.read("totals", Position::START).await.unwrap();
        let (_, rows) = reading.view.query("SELECT attempts FROM _dacapo_letters", &[]).await.unwrap();
        rows == [[dacapo::Value::Integer(i64::from(attempts) + 1)]]
    };
    while !tried().await {
        tokio::task::yield_now().await;
    }
    faults.stop();
    // Its own stream waits behind it, the others do not.
    let last = round(&node).await;
    until_version(&node, "v1.1", "it goes on", |found| found.covers >= last && found.letters == 2).await;
    let letter = node.letters(&view("v1.1"), Position::START, 1).await.unwrap().remove(0).letter;
    assert_eq!((letter.attempts, letter.wish), (attempts + 1, None), "{}", letter.error);
    assert!(letter.error.contains("damaged") || letter.error.contains("corrupt"), "{}", letter.error);
    node.retry_letters(&view("v1.1"), &WhichLetters::All, &by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumption_outlives_a_failure_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let hour = Duration::from_secs(3_600);
    let retry = Retry { attempts: 2, first: Duration::from_millis(1), longest: hour };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::Halt) });
    let builder = Node::builder().store(faults.over(&store(directory.path()))).carry(version_1.carried());
    let node = builder.start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    version_1.doubt(Act::Refuse);
    let doubted = doubt(&node, "ledger-3", 5).await;
    halts(&node, "v1.1", doubted).await;
    version_1.heal();
    // The try itself is right, and cannot be committed.
    let (tried, before) = (version_1.clone(), version_1.handed(doubted));
    let fails = AtomicBool::new(true);
    faults.plan(move |call| match call {
        Call::Commit(_) if tried.handed(doubted) > before && fails.swap(false, Ordering::SeqCst) => Some(Fault::Fails),
        _ => None,
    });
    node.resume(&view("v1.1"), by_test()).await.unwrap();
    assert_eq!(ask(&node, "ledger-3", doubted).await, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_go_with_their_version() {
    let (version_1, version_2) = (told::<1>(Policy::Skip), told::<2>(Policy::Halt));
    version_1.doubt(Act::Refuse);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(version_2.carried()).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    assert_eq!(letters(&node, "v2.1").await, []);
    node.clean_up(&view("v1.1"), by_test()).await.unwrap();
    phase(&node, "v1.1", Phase::Obsolete).await;
    let error = node.letters(&view("v1.1"), Position::START, 1).await.unwrap_err();
    assert!(error.to_string().contains("there is no totals v1.1"), "{error}");
    let error = node.pause(&view("v1.1"), by_test()).await.unwrap_err();
    assert!(error.to_string().contains("v1.1"), "{error}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_store_in_a_handler_is_not_the_handlers() {
    // What the store could not do is tried again as a whole, and no event is blamed for it.
    let directory = tempfile::tempdir().unwrap();
    let retry = Retry { attempts: 1, ..with(Policy::DeadLetter).retry };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::DeadLetter) });
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    struct Blaming(Told<1>, Arc<AtomicU64>);
    #[derive(Debug, thiserror::Error)]
    #[error("the total cannot be told")]
    struct Wrapped(#[from] dacapo::ViewError);
    impl Projection for Blaming {
        const NAME: &'static str = "totals";
        const VERSION: u32 = 1;
        const TABLES: &'static [Table] = Told::<1>::TABLES;
        type Event = LedgerEvent;
        fn options(&self) -> Options {
            self.0.options()
        }
        async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
            let error: dacapo::ViewError = StoreError::unavailable("read the view", "a fault of the test").into();
            match self.1.fetch_add(1, Ordering::SeqCst) {
                0 => Err(error.into()),
                1 => Err(Wrapped(error).into()),
                _ => self.0.apply(event, view).await,
            }
        }
    }
    let node = Node::builder().data(directory.path()).carry(Blaming(version_1.clone(), counted)).start().await.unwrap();
    let last = round(&node).await;
    let found = until_version(&node, "v1.1", "it goes on", |found| found.covers >= last).await;
    assert_eq!((found.letters, calls.load(Ordering::SeqCst)), (0, 22));
    check_counts(&node, &found).await;
    node.shutdown().await;
}

/// One row for all ledgers.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "everything")]
struct Everything {
    #[row(key)]
    what: String,
    events: i64,
}

#[derive(Clone, Debug, Default)]
struct Counting {
    segments: u16,
    rows: Rows,
}

impl Projection for Counting {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Everything::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { segments: SegmentCount::new(self.segments).unwrap(), rows: self.rows, ..options() }
    }

    async fn apply(&self, _: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let none = || Everything { what: "all".to_owned(), events: 0 };
        Ok(view.upsert("all", none, |row: &mut Everything| row.events += 1).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_events_of_two_segments_would_write_is_refused_by_name() {
    let of = |segments, rows| Carried::version(Counting { segments, rows });
    for code in [of(1, Rows::OfOneSegment), of(3, Rows::AcrossSegments)] {
        let node = Node::builder().carry(code).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        for ledger in 0..8 {
            add(&node, &format!("ledger-{ledger}"), 1).await;
        }
        let reading = node.read("totals", node.head()).await.unwrap();
        assert_eq!(reading.view.covers(), node.head(), "nothing is wrong with it");
        node.shutdown().await;
    }

    let node = Node::builder().carry(of(3, Rows::OfOneSegment)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    for ledger in 0..8 {
        add(&node, &format!("ledger-{ledger}"), 1).await;
    }
    let status = until(&node, "it halts", |status| {
        let waiting_on = &status.projections[0].versions[0].waiting_on;
        waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let told = status.projections[0].versions[0].waiting_on[0].to_string();
    assert!(told.contains("row \"all\" of table everything is written by events of segments"), "{told}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_at_which_a_segment_halts_is_set_aside_by_somebody_and_the_segment_goes_on() {
    let version_1 = told::<1>(Policy::Halt);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    round(&node).await;
    let position = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    halts(&node, "v1.1", position).await;
    let asked = |reason: &str| Asked::by("ana").because(reason);
    let other = node.set_aside(&view("v1.1"), Position::new(2), asked("a slip")).await.unwrap_err();
    assert!(matches!(&other, Error::NotHalted { halts, .. } if *halts == [position]), "{other}");
    let keyed = Asked { idempotency_key: Some("k".into()), ..asked("nobody knows this account") };
    let requested = node.set_aside(&view("v1.1"), position, keyed.clone()).await.unwrap();
    assert!(requested.position.is_some());
    assert_eq!(node.set_aside(&view("v1.1"), position, keyed).await.unwrap(), requested, "asked again under its key");
    let head = node.head();
    let found = until_version(&node, "v1.1", "it goes on", |found| found.covers >= head).await;
    check_counts(&node, &found).await;
    let set_aside = letters(&node, "v1.1").await;
    // Tried twice until it halted, and once more; a slow node is at its next try by the time it hears of it.
    let (at, kind, attempts) = set_aside[0];
    assert!((at, kind) == (position.get(), LetterKind::Refused) && attempts >= 3, "{set_aside:?}");
    assert!(matches!(set_aside[1..], [(_, LetterKind::Behind { .. }, 0)]), "the rest of its stream: {set_aside:?}");
    let again = node.set_aside(&view("v1.1"), position, asked("once more")).await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_dead_letters_is_in_the_history_and_is_done_once_under_its_key() {
    let version_1 = told::<1>(Policy::DeadLetter);
    version_1.doubt(Act::Refuse);
    let node = Node::builder().carry(version_1.carried()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    let asked = Asked { idempotency_key: Some("k".into()), ..Asked::by("ana").because("a test account") };
    assert_eq!(node.drop_letters(&view("v1.1"), &WhichLetters::All, &asked).await.unwrap(), 1);
    until_letters(&node, "v1.1", 0).await;
    let later = doubt(&node, "ledger-3", 6).await;
    until_letters(&node, "v1.1", 1).await;
    assert_eq!(node.drop_letters(&view("v1.1"), &WhichLetters::All, &asked).await.unwrap(), 0, "that came later");
    assert_eq!(letters(&node, "v1.1").await, [(later.get(), LetterKind::Refused, 2)]);
    let history = node.history().await.unwrap();
    let decided = history.iter().filter(|entry| matches!(entry.event, CatalogEvent::LettersDecided { .. }));
    let decided: Vec<_> = decided.map(|entry| (entry.asked.actor.as_str(), entry.asked.reason.as_deref())).collect();
    assert_eq!(decided, [("ana", Some("a test account"))]);
    node.shutdown().await;
}
