//! A projection whose handler does as it is told, event by event, and what tests look at of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dacapo::catalog::{Phase, RequestedBy};
use dacapo::journal::{Filter, Limit};
use dacapo::operate::LetterKind;
use dacapo::options::{FlipPolicy, OnFailure, Policy, Retry, SegmentCount};
use dacapo::status::{Status, VersionStatus, WaitingOn};
use dacapo::store::Store;
use dacapo::verify::Verify;
use dacapo::world::SystemClock;
use dacapo::{
    Answers, HandlerError, Node, NodeBuilder, Options, Position, Projection, ReadView, Recorded, Row, Table,
    VersionCode, View,
};
use dacapo_model::verify::Part;

use crate::common::*;

/// What a handler does with an event.
#[derive(Clone, Debug)]
pub(super) enum Act {
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

type Plan = Arc<dyn Fn(&Recorded<'_, LedgerEvent>) -> Act + Send + Sync>;

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
pub(super) struct Told<const V: u32> {
    options: Options,
    plan: Arc<Mutex<Plan>>,
    /// How often each position was handed to the handler.
    handed: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl<const V: u32> Told<V> {
    pub(super) fn new(options: Options) -> Self {
        Self { options, plan: Arc::new(Mutex::new(Arc::new(|_| Act::Apply))), handed: Arc::default() }
    }

    pub(super) fn plan(&self, plan: impl Fn(&Recorded<'_, LedgerEvent>) -> Act + Send + Sync + 'static) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
    }

    /// What was wrong is put right.
    pub(super) fn heal(&self) {
        self.plan(|_| Act::Apply);
    }

    /// Events of the type `doubted` are not applied but treated like this.
    pub(super) fn doubt(&self, act: Act) {
        self.plan(move |event| if event.event_type == "doubted" { act.clone() } else { Act::Apply });
    }

    pub(super) fn handed(&self, position: Position) -> u64 {
        self.all_handed().get(&position.get()).copied().unwrap_or(0)
    }

    pub(super) fn all_handed(&self) -> BTreeMap<u64, u64> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn carried(&self) -> VersionCode {
        self.clone().answering::<TotalOf>().into()
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
pub(super) fn with(policy: Policy) -> Options {
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

pub(super) fn told<const V: u32>(policy: Policy) -> Told<V> {
    Told::new(with(policy))
}

/// A node whose only version serves.
pub(super) async fn serving<const V: u32>(builder: NodeBuilder, version: &Told<V>) -> Node {
    Scenario::on(builder).serving(version.clone()).start().await
}

/// A node that begins to build a version from a past in which one event is doubted, and the position of that event.
pub(super) async fn with_a_doubtful_past<const V: u32>(builder: NodeBuilder, version: &Told<V>) -> (Node, Position) {
    let node = builder.start().await.unwrap();
    round(&node).await;
    let doubted = doubt(&node, "ledger-3", 5).await;
    round(&node).await;
    node.add_projection(version.carried()).unwrap();
    (node, doubted)
}

/// Puts right what was wrong with a version that is built, resumes it and waits until it serves.
pub(super) async fn put_right<const V: u32>(node: &Node, version: &Told<V>) {
    version.heal();
    let text = format!("v{V}.1");
    node.version(view(&text)).resume().requested_by(by_test()).await.unwrap();
    phase(node, &text, Phase::Serving).await;
    check_serving(node).await;
}

/// Appends to each of twenty ledgers, and returns the last position.
pub(super) async fn round(node: &Node) -> Position {
    let mut last = Position::START;
    for ledger in 0..20 {
        last = add(node, &format!("ledger-{ledger}"), 1).await;
    }
    last
}

pub(super) fn version_in<'a>(status: &'a Status, text: &str) -> Option<&'a VersionStatus> {
    let versions = status.projections.iter().find(|found| found.name == totals()).map(|found| &found.versions);
    versions?.iter().find(|found| found.version == version(text))
}

/// Waits until the version is as wanted.
pub(super) async fn until_version(
    node: &Node,
    text: &str,
    what: &str,
    wanted: impl Fn(&VersionStatus) -> bool,
) -> VersionStatus {
    let status = until(node, what, |status| version_in(status, text).is_some_and(&wanted)).await;
    version_in(&status, text).unwrap().clone()
}

/// Waits until one segment halts before `position`, having tried it twice, and all others are at the head.
pub(super) async fn halts(node: &Node, text: &str, position: Position) -> VersionStatus {
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

pub(super) async fn letters(node: &Node, text: &str) -> Vec<(u64, LetterKind, u32)> {
    let letters = node.version(view(text)).letters().limit(100).await.unwrap();
    letters.iter().map(|found| (found.letter.position.get(), found.letter.kind, found.letter.attempts)).collect()
}

pub(super) async fn until_letters(node: &Node, text: &str, number: u64) {
    until_version(node, text, &format!("{number} letters"), |found| found.letters == number).await;
}

/// What each segment has taken up is what the journal has for it, whatever became of it.
pub(super) async fn check_counts(node: &Node, found: &VersionStatus) {
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

/// [`check_counts`] of the version as it is now.
pub(super) async fn check_counts_now(node: &Node, text: &str) {
    let status = node.status().await.unwrap();
    check_counts(node, version_in(&status, text).unwrap()).await;
}

pub(super) fn store(directory: &Path) -> Store {
    Store::embedded(directory, Arc::new(SystemClock)).unwrap()
}

pub(super) fn by_test() -> RequestedBy {
    RequestedBy::by("test")
}

/// Waits until the first letter was tried so often.
pub(super) async fn until_attempts(node: &Node, attempts: u32) {
    let tried = async {
        while letters(node, "v1.1").await.first().is_none_or(|letter| letter.2 != attempts) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, tried).await.expect("it is tried again");
}
