//! A second version with mistakes as a test wants them, and what is found of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dacapo::catalog::{Phase, RequestedBy};
use dacapo::options::SegmentCount;
use dacapo::verify::{Assertion, Checks, Comparison, Part, PartReport, Report, Verdict, Verification, Verify};
use dacapo::{Answers, HandlerError, Node, Options, Projection, ReadView, Recorded, Table, VersionCode, View};
use tokio::sync::watch;

pub(super) use crate::common::scenario::fill;
use crate::common::*;

/// What a second version makes of an event: the amount that it adds, or nothing.
type Amount = dyn Fn(&Recorded<'_, LedgerEvent>, i64) -> Option<i64> + Send + Sync;

/// What its check does.
type Check = dyn Fn(&mut Checks) -> Result<(), HandlerError> + Send + Sync;

/// The second version of the totals, with mistakes as a test wants them.
#[derive(Clone)]
pub(super) struct Second {
    pub(super) options: Options,
    pub(super) amount: Arc<Amount>,
    pub(super) comparison: Comparison,
    /// What is declared panics.
    pub(super) declares_nonsense: bool,
    /// While this is true, it refuses what is doubted.
    pub(super) refuse: Arc<AtomicBool>,
    /// What it adds to each sum that it is asked for.
    pub(super) answers_more: i64,
    /// What its check finds.
    pub(super) check: Arc<Check>,
    /// While this is false, the check waits.
    pub(super) gate: watch::Sender<bool>,
    pub(super) checks: Arc<AtomicU64>,
}

impl Default for Second {
    fn default() -> Self {
        Self {
            options: Options { segments: SegmentCount::new(5).unwrap(), ..options() },
            amount: Arc::new(|_, amount| Some(amount)),
            comparison: Comparison::new(),
            declares_nonsense: false,
            refuse: Arc::default(),
            answers_more: 0,
            check: Arc::new(|_| Ok(())),
            gate: watch::Sender::new(true),
            checks: Arc::default(),
        }
    }
}

impl Second {
    pub(super) fn adding(
        amount: impl Fn(&Recorded<'_, LedgerEvent>, i64) -> Option<i64> + Send + Sync + 'static,
    ) -> Self {
        Self { amount: Arc::new(amount), ..Self::default() }
    }

    pub(super) fn verify(mut self, verify: Verify) -> Self {
        self.options.verify = verify;
        self
    }

    /// It drops every 1000th event.
    pub(super) fn forgetful() -> Self {
        let seen = AtomicU64::new(0);
        Self::adding(move |_, amount| {
            (!(seen.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(1_000)).then_some(amount)
        })
    }

    /// It gets the sum of one ledger wrong.
    pub(super) fn wrong_in(ledger: &'static str) -> Self {
        Self::adding(move |event, amount| Some(if event.stream == ledger { 2 * amount } else { amount }))
    }
}

/// It ends as people end statements.
const NEGATIVE: &str = "SELECT ledger, sum FROM totals WHERE sum < 0 ORDER BY 1; -- none has a debt";

impl Projection for Second {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 2;
    const TABLES: &'static [Table] = TotalsV2::TABLES;
    const ASSERTIONS: &'static [Assertion] = &[Assertion { name: "no sum is below zero", sql: NEGATIVE }];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = event.data;
        if matches!(event.data, LedgerEvent::Doubted { .. }) && self.refuse.load(Ordering::SeqCst) {
            return Err("doubtful".into());
        }
        let Some(amount) = (self.amount)(event, amount) else { return Ok(()) };
        let none = || TotalWithLast { ledger: event.stream.to_owned(), sum: 0, events: 0, last: 0 };
        let add = |row: &mut TotalWithLast| {
            row.sum += amount;
            row.events += 1;
        };
        Ok(view.upsert(event.stream, none, add).await?)
    }

    async fn check(&self, _: &mut ReadView, checks: &mut Checks) -> Result<(), HandlerError> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        self.gate.subscribe().wait_for(|open| *open).await?;
        (self.check)(checks)
    }

    fn comparison(&self, _: u32) -> Comparison {
        assert!(!self.declares_nonsense, "apples and pears");
        self.comparison.clone()
    }
}

impl Answers<TotalOf> for Second {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        let row = view.get::<TotalWithLast>(query.0.as_str()).await?;
        Ok(row.map(|row| (row.sum + self.answers_more, row.events)).unwrap_or_default())
    }
}

pub(super) fn carry(second: &Second) -> VersionCode {
    second.clone().answering::<TotalOf>().into()
}

/// A node on which version 1 serves, with so many events in 40 ledgers.
pub(super) async fn serving(events: i64) -> Node {
    Scenario::new().serving(v1()).filled(events).start().await
}

pub(super) async fn verified(node: &Node, text: &str) -> Verification {
    phase(node, text, Phase::Initializing).await;
    node.version(view(text)).verified().within(WAIT_MAX).await.unwrap()
}

/// Carries version 2 and tells what is found of it.
pub(super) async fn report_of(node: &Node, second: &Second) -> (Verdict, Arc<Report>) {
    node.add_projection(carry(second)).unwrap();
    let verified = verified(node, "v2.1").await.verified.unwrap();
    (verified.verdict, verified.report)
}

pub(super) fn part(report: &Report, part: Part) -> &PartReport {
    report.parts.iter().find(|found| found.part == part).unwrap()
}

/// What was found of one key: the row of the old version and that of the new one.
pub(super) fn rows_of<'a>(part: &'a PartReport, key: &str) -> (Option<&'a str>, Option<&'a str>) {
    let finding = part.findings.iter().find(|finding| finding.key.as_deref() == Some(key));
    let finding = finding.unwrap_or_else(|| panic!("{key} is not named: {part:?}"));
    (finding.old.as_deref(), finding.new.as_deref())
}

pub(super) fn asked(reason: &str) -> RequestedBy {
    RequestedBy::by("ana").because(reason)
}
