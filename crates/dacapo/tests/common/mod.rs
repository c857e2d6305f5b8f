//! A small ledger in two versions, and what tests do with it.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod money;
pub mod scenario;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dacapo::catalog::{Phase, Stage};
use dacapo::journal::{Filter, Limit};
use dacapo::operate::FlipReport;
use dacapo::options::{FlipPolicy, SegmentCount};
use dacapo::{
    Answers, Error, Event, ExpectedRevision, HandlerError, Node, Options, Position, Projection, ProjectionName, Query,
    ReadView, Recorded, Row, Table, VersionCode, VersionId, View, ViewId,
};
use dacapo_testkit::Faults;
pub use dacapo_testkit::ManualClock;
pub use scenario::Scenario;
use tokio::sync::watch;

/// The longest that a test waits for something that must happen.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Event)]
pub enum LedgerEvent {
    #[event(name = "added")]
    Added { amount: i64 },
    /// Which the handlers refuse for as long as they are told to.
    #[event(name = "doubted")]
    Doubted { amount: i64 },
}

pub fn added(amount: i64) -> LedgerEvent {
    LedgerEvent::Added { amount }
}

#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "totals")]
pub struct Total {
    #[row(key)]
    pub ledger: String,
    pub sum: i64,
    pub events: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "totals")]
pub struct TotalWithLast {
    #[row(key)]
    pub ledger: String,
    pub sum: i64,
    pub events: i64,
    #[row(index)]
    pub last: i64,
}

#[derive(Clone, Debug)]
pub struct TotalOf(pub String);

impl Query for TotalOf {
    const PROJECTION: &'static str = "totals";
    /// Sum and number of events.
    type Answer = (i64, i64);
}

/// What a handler does with events that are doubted, and when it waits.
#[derive(Debug)]
pub struct Behaviour {
    pub refuse: AtomicBool,
    pub panic: AtomicBool,
    pub applied: AtomicU64,
    /// While this is false, the handler waits before each event.
    pub gate: watch::Sender<bool>,
}

impl Default for Behaviour {
    fn default() -> Self {
        let (refuse, panic, applied) = Default::default();
        Self { refuse, panic, applied, gate: watch::Sender::new(true) }
    }
}

impl Behaviour {
    async fn meet(&self, event: &LedgerEvent) -> Result<i64, HandlerError> {
        let mut gate = self.gate.subscribe();
        gate.wait_for(|open| *open).await?;
        self.applied.fetch_add(1, Ordering::SeqCst);
        match event {
            LedgerEvent::Added { amount } => Ok(*amount),
            LedgerEvent::Doubted { .. } if self.panic.load(Ordering::SeqCst) => panic!("what is this?"),
            LedgerEvent::Doubted { .. } if self.refuse.load(Ordering::SeqCst) => Err("doubtful".into()),
            LedgerEvent::Doubted { amount } => Ok(*amount),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct TotalsV1 {
    pub options: Options,
    pub behaviour: Arc<Behaviour>,
}

impl TotalsV1 {
    /// With a handler that refuses what is doubted.
    pub fn refusing(self) -> Self {
        self.behaviour.refuse.store(true, Ordering::SeqCst);
        self
    }

    /// With a handler that waits before each event until its gate is opened.
    pub fn held(self) -> Self {
        self.behaviour.gate.send_replace(false);
        self
    }
}

impl Projection for TotalsV1 {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = self.behaviour.meet(&event.data).await?;
        let none = || Total { ledger: event.stream.to_owned(), sum: 0, events: 0 };
        let add = |row: &mut Total| {
            row.sum += amount;
            row.events += 1;
        };
        Ok(view.upsert(event.stream, none, add).await?)
    }
}

impl Answers<TotalOf> for TotalsV1 {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        let row = view.get::<Total>(query.0.as_str()).await?;
        Ok(row.map(|row| (row.sum, row.events)).unwrap_or_default())
    }
}

#[derive(Clone, Debug, Default)]
pub struct TotalsV2 {
    pub options: Options,
    pub behaviour: Arc<Behaviour>,
}

impl TotalsV2 {
    /// With a handler that refuses what is doubted.
    pub fn refusing(self) -> Self {
        self.behaviour.refuse.store(true, Ordering::SeqCst);
        self
    }

    /// With a handler that waits before each event until its gate is opened.
    pub fn held(self) -> Self {
        self.behaviour.gate.send_replace(false);
        self
    }
}

impl Projection for TotalsV2 {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 2;
    const TABLES: &'static [Table] = &[TotalWithLast::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = self.behaviour.meet(&event.data).await?;
        let none = || TotalWithLast { ledger: event.stream.to_owned(), sum: 0, events: 0, last: 0 };
        let add = |row: &mut TotalWithLast| {
            row.sum += amount;
            row.events += 1;
            row.last = i64::try_from(event.position.get()).expect("a small journal");
        };
        Ok(view.upsert(event.stream, none, add).await?)
    }
}

impl Answers<TotalOf> for TotalsV2 {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        let row = view.get::<TotalWithLast>(query.0.as_str()).await?;
        Ok(row.map(|row| (row.sum, row.events)).unwrap_or_default())
    }
}

pub fn options() -> Options {
    Options { segments: SegmentCount::new(3).unwrap(), flip: FlipPolicy::OnCommand, ..Options::default() }
}

pub fn v1() -> TotalsV1 {
    TotalsV1 { options: options(), behaviour: Arc::default() }
}

pub fn v2() -> TotalsV2 {
    TotalsV2 { options: options(), behaviour: Arc::default() }
}

pub fn carry_v1(version: TotalsV1) -> VersionCode {
    version.answering::<TotalOf>().into()
}

pub fn carry_v2(version: TotalsV2) -> VersionCode {
    version.answering::<TotalOf>().into()
}

pub fn totals() -> ProjectionName {
    ProjectionName::new("totals").unwrap()
}

pub fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

pub fn view(text: &str) -> ViewId {
    ViewId { projection: totals(), version: version(text) }
}

pub async fn add(node: &Node, ledger: &str, amount: i64) -> Position {
    node.append(ledger, ExpectedRevision::Any, [added(amount)]).await.unwrap().position
}

/// Appends an event that handlers refuse for as long as they are told to.
pub async fn doubt(node: &Node, ledger: &str, amount: i64) -> Position {
    node.append(ledger, ExpectedRevision::Any, [LedgerEvent::Doubted { amount }]).await.unwrap().position
}

pub async fn ask(node: &Node, ledger: &str, after: Position) -> (i64, i64) {
    node.ask(TotalOf(ledger.to_owned())).after(after).within(WAIT_MAX).await.unwrap().value
}

/// Waits until the version is in this phase.
pub async fn phase(node: &Node, text: &str, wanted: Phase) {
    let mut catalog = node.catalog();
    let reached = catalog.wait_for(|catalog| catalog.version(&view(text)).is_some_and(|state| state.phase == wanted));
    let Ok(reached) = tokio::time::timeout(WAIT_MAX, reached).await else {
        panic!("{text} never became {wanted}: {:#?}", node.status().await);
    };
    reached.unwrap();
}

/// Waits until the status is as wanted; there is no event for every part of it.
pub async fn until(
    node: &Node,
    what: &str,
    wanted: impl Fn(&dacapo::status::Status) -> bool,
) -> dacapo::status::Status {
    let mut last = None;
    let looking = async {
        loop {
            let status = node.status().await.unwrap();
            if wanted(&status) {
                return status;
            }
            last = Some(status);
            // Whoever asks without a pause keeps others from what they do.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    match tokio::time::timeout(WAIT_MAX, looking).await {
        Ok(status) => status,
        Err(_) => panic!("never: {what}; the last status was {last:#?}"),
    }
}

/// Waits until an initializing version could be flipped to.
pub async fn ready(node: &Node, text: &str) {
    until(node, &format!("{text} ready"), |status| {
        let versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.into_iter().any(|found| found.version == version(text) && found.stage == Some(Stage::Ready))
    })
    .await;
}

/// Waits until a version could be flipped to, or was already.
pub async fn ready_or_past(node: &Node, text: &str) {
    until(node, &format!("{text} ready, or past that"), |status| {
        let versions = status.projections.iter().flat_map(|projection| &projection.versions);
        let mut found = versions.filter(|found| found.version == version(text));
        found.any(|found| {
            found.stage == Some(Stage::Ready) || !matches!(found.phase, Phase::Scheduled | Phase::Initializing)
        })
    })
    .await;
}

/// Flips to a version once it could be, whether somebody asked for that before or not.
pub async fn ready_and_flip(node: &Node, text: &str) {
    ready_or_past(node, text).await;
    let requested = node.version(view(text)).flip().by("test").await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
}

pub async fn flip(node: &Node) -> FlipReport {
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap()
}

pub async fn roll_back(node: &Node) -> FlipReport {
    let requested = node.projection(totals()).unwrap().rollback().by("test").await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap()
}

/// Sum and number of events of each ledger through a position, folded from the journal alone.
pub async fn fold(node: &Node, through: Position) -> BTreeMap<String, (i64, i64)> {
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut after = Position::START;
    while after < through {
        let batch = node.journal().read(after, &Filter::default(), Limit::events(1_000)).await.unwrap();
        for event in batch.iter().filter(|event| event.position <= through) {
            let Some(data) = LedgerEvent::decode(event.event_type, event.payload).unwrap() else { continue };
            let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = data;
            let sum = sums.entry(event.stream.to_owned()).or_default();
            *sum = (sum.0 + amount, sum.1 + 1);
        }
        after = batch.through;
    }
    sums
}

/// The rows of the version that serves, once it covers `after`, and the position they are of.
pub async fn rows(node: &Node, after: Position) -> Result<(VersionId, Position, BTreeMap<String, (i64, i64)>), Error> {
    let reading = async {
        loop {
            match node.read("totals", after).await {
                // On a machine that is busy with something else.
                Err(Error::TimedOut { .. }) => {}
                reading => return reading,
            }
        }
    };
    let mut reading = tokio::time::timeout(WAIT_MAX, reading).await.expect("a version covers it")?;
    let (_, rows) = reading.view.query("SELECT ledger, sum, events FROM totals", &[]).await?;
    let row = |row: Vec<dacapo::rows::Value>| match <[dacapo::rows::Value; 3]>::try_from(row) {
        Ok(
            [
                dacapo::rows::Value::Text(ledger),
                dacapo::rows::Value::Integer(sum),
                dacapo::rows::Value::Integer(events),
            ],
        ) => (ledger, (sum, events)),
        other => panic!("a row of totals is {other:?}"),
    };
    Ok((reading.version, reading.view.covers(), rows.into_iter().map(row).collect()))
}

/// I-3 for the version that serves: its rows are the fold of the journal through what they cover.
pub async fn check_serving(node: &Node) {
    let head = node.head();
    let (version, covers, rows) = rows(node, head).await.unwrap();
    assert_eq!(rows, fold(node, covers).await, "I-3: {version} at {covers}");
}

/// Waits until the last plan has made a call go wrong.
pub async fn met(faults: &Faults) {
    tokio::time::timeout(WAIT_MAX, faults.met()).await.expect("a call goes wrong");
}
