//! What is found of a version before readers move to it, and what that keeps from happening. // I-6

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use dacapo::catalog::{CatalogEvent, CatalogRefused, Phase, RequestedBy, Stage};
use dacapo::journal::{Append, Appended, EventBatch, Filter, Limit, Revision, StreamEvent, StreamName};
use dacapo::options::{FlipPolicy, OnFailure, Policy, Retry, SegmentCount};
use dacapo::status::WaitingOn;
use dacapo::store::{Journal, Store, StoreError};
use dacapo::verify::{
    Assertion, Checks, Comparison, FindingKind, Outcome, Part, PartReport, Report, TableComparison, Verdict,
    Verification, Verify,
};
use dacapo::world::SystemClock;
use dacapo::{
    Answers, Error, ExpectedRevision, HandlerError, Metadata, Node, Options, Position, Projection, ReadView, Recorded,
    Table, VersionCode, View,
};
use dacapo_model::{JournalId, Letter, LetterKind, Mark, Timestamp};
use dacapo_store::{AppendError, Commit, StreamInfo, WhichLetters};
use tokio::sync::watch;

/// What a second version makes of an event: the amount that it adds, or nothing.
type Amount = dyn Fn(&Recorded<'_, LedgerEvent>, i64) -> Option<i64> + Send + Sync;

/// What its check does.
type Check = dyn Fn(&mut Checks) -> Result<(), HandlerError> + Send + Sync;

/// The second version of the totals, with mistakes as a test wants them.
#[derive(Clone)]
struct Second {
    options: Options,
    amount: Arc<Amount>,
    comparison: Comparison,
    /// What is declared panics.
    declares_nonsense: bool,
    /// While this is true, it refuses what is doubted.
    refuse: Arc<AtomicBool>,
    /// What it adds to each sum that it is asked for.
    answers_more: i64,
    /// What its check finds.
    check: Arc<Check>,
    /// While this is false, the check waits.
    gate: watch::Sender<bool>,
    checks: Arc<AtomicU64>,
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
    fn adding(amount: impl Fn(&Recorded<'_, LedgerEvent>, i64) -> Option<i64> + Send + Sync + 'static) -> Self {
        Self { amount: Arc::new(amount), ..Self::default() }
    }

    fn verify(mut self, verify: Verify) -> Self {
        self.options.verify = verify;
        self
    }

    /// It drops every 1000th event.
    fn forgetful() -> Self {
        let seen = AtomicU64::new(0);
        Self::adding(move |_, amount| {
            (!(seen.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(1_000)).then_some(amount)
        })
    }

    /// It gets the sum of one ledger wrong.
    fn wrong_in(ledger: &'static str) -> Self {
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

fn carry(second: &Second) -> VersionCode {
    second.clone().answering::<TotalOf>().into()
}

/// A node on which version 1 serves, with so many events in 40 ledgers.
async fn serving(events: i64) -> Node {
    let node = Node::builder().projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, events).await;
    node
}

async fn fill(node: &Node, events: i64) {
    let event = |number: i64| {
        let stream = StreamName::new(format!("ledger-{}", number % 40)).unwrap();
        StreamEvent { stream, event: node.new_event(&added(number), Metadata::default()).unwrap() }
    };
    for first in (0..events).step_by(1_000) {
        let events = (first..events.min(first + 1_000)).map(event).collect();
        let append = Append { events, expected: vec![], on_known: dacapo::journal::OnKnown::Recognise };
        node.append_batch(append).await.unwrap();
    }
}

async fn verified(node: &Node, text: &str) -> Verification {
    phase(node, text, Phase::Initializing).await;
    node.version(view(text)).verified().within(WAIT_MAX).await.unwrap()
}

/// Carries version 2 and tells what is found of it.
async fn report_of(node: &Node, second: &Second) -> (Verdict, Arc<Report>) {
    node.add_projection(carry(second)).unwrap();
    let verified = verified(node, "v2.1").await.verified.unwrap();
    (verified.verdict, verified.report)
}

fn part(report: &Report, part: Part) -> &PartReport {
    report.parts.iter().find(|found| found.part == part).unwrap()
}

/// What was found of one key: the row of the old version and that of the new one.
fn rows_of<'a>(part: &'a PartReport, key: &str) -> (Option<&'a str>, Option<&'a str>) {
    let finding = part.findings.iter().find(|finding| finding.key.as_deref() == Some(key));
    let finding = finding.unwrap_or_else(|| panic!("{key} is not named: {part:?}"));
    (finding.old.as_deref(), finding.new.as_deref())
}

fn asked(reason: &str) -> RequestedBy {
    RequestedBy::by("ana").because(reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_right_passes_and_every_part_says_what_it_looked_at() {
    let node = serving(3_000).await;
    let (verdict, report) = report_of(&node, &Second::default()).await;
    assert_eq!((verdict, report.against), (Verdict::Pass, Some(version("v1.1"))), "{report:?}");
    let looked_at = [(Part::Counts, 3_000), (Part::Checks, 1), (Part::Rows, 40)];
    for (of, expected) in looked_at {
        let part = part(&report, of);
        assert_eq!((&part.outcome, part.looked_at), (&Outcome::Passed, expected), "{part:?}");
    }
    assert!(matches!(part(&report, Part::Answers).outcome, Outcome::NotDone { .. }));
    assert_eq!(part(&report, Part::Rows).notes, ["column totals.last is new"]);
    ready(&node, "v2.1").await;
    flip(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_is_verified_by_itself_and_says_what_it_could_not_be_compared_with() {
    let strict = Options { verify: Verify::default().require([Part::Rows, Part::Answers]), ..options() };
    let node = Node::builder().projection(carry_v1(TotalsV1 { options: strict, ..v1() })).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let verification = node.projection(totals()).unwrap().verification().unwrap();
    assert_eq!((&verification.view, verification.phase), (&view("v1.1"), Phase::Serving));
    let verified = verification.verified.unwrap();
    assert_eq!((verified.verdict, verified.report.against), (Verdict::Pass, None));
    assert_eq!(verified.report.required, [Part::Counts, Part::Checks], "there is nothing to compare with");
    let Outcome::NotDone { why } = &part(&verified.report, Part::Rows).outcome else { panic!("{verified:?}") };
    assert!(why.contains("no version serves"), "{why}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_drops_every_1000th_event_is_found_and_the_keys_are_named() {
    let node = serving(5_000).await;
    let second =
        Second { options: Options { flip: FlipPolicy::WhenReady, ..Second::default().options }, ..Second::forgetful() };
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Fail);
    // It was handed every event, so nothing but the rows can tell.
    assert_eq!(part(&report, Part::Counts).outcome, Outcome::Passed);
    let rows = part(&report, Part::Rows);
    assert_eq!(rows.outcome, Outcome::Failed);
    let [(FindingKind::Differs, wrong)] = rows.wrong[..] else { panic!("{rows:?}") };
    assert!((1..=5).contains(&wrong), "{rows:?}");
    assert_eq!(rows.findings.len() as u64, wrong);
    for finding in &rows.findings {
        let key = finding.key.as_deref().unwrap();
        assert!(key.starts_with("ledger-"), "{finding:?}");
        let (old, new) = rows_of(rows, key);
        assert!(old.unwrap().ends_with("events 125") && !new.unwrap().ends_with("events 125"), "{finding:?}");
    }
    let status = until(&node, "it says why it is not flipped to", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1"));
        found.is_some_and(|found| matches!(&found.waiting_on[..], [WaitingOn::Verdict { .. }]))
    })
    .await;
    assert_eq!(status.projections[0].versions[1].stage, Some(Stage::Verifying), "until somebody does something");
    assert_eq!(status.projections[0].serving, Some(version("v1.1")));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sum_is_found_and_no_command_flips_to_it_until_it_is_waived() {
    let node = serving(400).await;
    let (verdict, report) = report_of(&node, &Second::wrong_in("ledger-7")).await;
    assert_eq!(verdict, Verdict::Fail);
    let rows = part(&report, Part::Rows);
    assert_eq!((&rows.wrong[..], rows.looked_at), (&[(FindingKind::Differs, 1)][..], 40));
    let sum: i64 = (0..400).filter(|number| number % 40 == 7).sum();
    let (old, new) = (format!("sum {sum}"), format!("sum {}", 2 * sum));
    assert_eq!(rows_of(rows, "ledger-7"), (Some(&*old), Some(&*new)));

    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    until(&node, "the flip says that it waits for a verdict", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_some_and(|(_, reasons)| matches!(&reasons[..], [WaitingOn::Verdict { found, .. }] if found.contains("1 row differs")))
    })
    .await;
    let position = add(&node, "ledger-7", 1).await;
    assert_eq!(ask(&node, "ledger-7", position).await.1, 11, "the serving version is not held for it");
    // It can be taken back.
    node.projection(totals())
        .unwrap()
        .cancel(dacapo::operate::Cancel::Flip)
        .requested_by(asked("not like this"))
        .await
        .unwrap();
    assert!(matches!(requested.done().within(WAIT_MAX).await, Err(Error::FlipAborted { .. })));
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();

    let error = node.projection(totals()).unwrap().waive().by("ana").await.unwrap_err();
    assert!(matches!(error, Error::NoReason), "{error}");
    node.projection(totals()).unwrap().waive().requested_by(asked("ledger 7 counts twice from now on")).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    let history = node.history().await.unwrap();
    let waived = history.iter().find(|entry| matches!(entry.event, CatalogEvent::Waived { .. })).unwrap();
    let CatalogEvent::Waived { by, why, .. } = &waived.event else { unreachable!() };
    assert_eq!((by.as_str(), why.as_str()), ("ana", "ledger 7 counts twice from now on"));
    let flipped = history.iter().rfind(|entry| matches!(entry.event, CatalogEvent::Flipped { .. })).unwrap();
    assert!(waived.position < flipped.position, "I-6");
    // The way back needs no verdict: version 1 has served.
    roll_back(&node).await;
    flip(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_that_are_declared_pass() {
    let node = serving(400).await;
    let by = TableComparison::of("totals").by(
        |old: Total| (old.ledger == "ledger-7", old.sum),
        |new: TotalWithLast| (new.ledger == "ledger-7", if new.ledger == "ledger-7" { new.sum / 2 } else { new.sum }),
    );
    let second = Second { comparison: Comparison::new().table(by), ..Second::wrong_in("ledger-7") };
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!((verdict, part(&report, Part::Rows).looked_at), (Verdict::Pass, 40), "{report:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_mapped_must_be_what_the_old_one_makes() {
    let node = serving(400).await;
    let mapped = |factor: i64| {
        TableComparison::of("totals").mapped(move |old: Total| TotalWithLast {
            sum: factor * old.sum,
            ledger: old.ledger,
            events: old.events,
            last: 0,
        })
    };
    let twice = || Second::adding(|_, amount| Some(2 * amount));
    let second = Second { comparison: Comparison::new().table(mapped(3)), ..twice() };
    let (verdict, report) = report_of(&node, &second).await;
    // 0 times 3 is 0 times 2: no ledger has that sum.
    assert_eq!((verdict, &part(&report, Part::Rows).wrong[..]), (Verdict::Fail, &[(FindingKind::Differs, 40)][..]));
    assert!(rows_of(part(&report, Part::Rows), "ledger-0").0.unwrap().starts_with("TotalWithLast {"));

    let second = Second { comparison: Comparison::new().table(mapped(2)), ..twice() };
    node.add_projection(carry(&second)).unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("the declaration was wrong")).await.unwrap();
    let again = verified(&node, "v2.1").await;
    assert_eq!(again.verified.unwrap().verdict, Verdict::Pass);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_other_rows_altogether_leaves_them_out() {
    let node = serving(40).await;
    let second = Second::adding(|_, _| Some(0)).verify(Verify::default().without(Part::Rows));
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Pass);
    assert!(matches!(part(&report, Part::Rows).outcome, Outcome::NotDone { .. }));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_version_checks_of_itself_counts() {
    let node = serving(400).await;
    let second = Second::adding(|event, amount| Some(if event.stream == "ledger-3" { -amount } else { amount }));
    let checks = |checks: &mut Checks| {
        checks.holds("the books are closed", false);
        checks.equal("as many books as shelves", 3, 3);
        checks.equal_at("the price of a book", "book-9", 12, 15);
        Err("the shelf is locked".into())
    };
    let second = Second { check: Arc::new(checks), ..second }.verify(Verify::default().without(Part::Rows));
    let (verdict, report) = report_of(&node, &second).await;
    let found = part(&report, Part::Checks);
    assert_eq!((verdict, found.looked_at), (Verdict::Fail, 4), "{found:?}");
    assert_eq!(found.wrong, [(FindingKind::Check, 4)]);
    let told = |place: &str| found.findings.iter().find(|finding| finding.place == place).unwrap();
    assert!(told("no sum is below zero").new.as_deref().unwrap().starts_with("ledger ledger-3, sum -"));
    assert!(told("the books are closed").new.is_none());
    let price = told("the price of a book");
    assert_eq!(
        (price.key.as_deref(), price.old.as_deref(), price.new.as_deref()),
        (Some("book-9"), Some("15"), Some("12"))
    );
    assert_eq!(told("the check of the code").new.as_deref(), Some("the shelf is locked"));

    let panics = Second { check: Arc::new(|_| panic!("what shelf?")), ..second };
    node.add_projection(carry(&panics)).unwrap();
    node.version(view("v2.1")).verify_again().requested_by(asked("the check is mended")).await.unwrap();
    let report = verified(&node, "v2.1").await.verified.unwrap().report;
    let told = part(&report, Part::Checks).findings.iter().find(|finding| finding.place == "the check of the code");
    assert_eq!(told.unwrap().new.as_deref(), Some("it panicked: what shelf?"));
    node.shutdown().await;
}

/// A journal that keeps an event from whoever reads only some types: from processors.
struct Hiding {
    inner: Arc<dyn Journal>,
    hidden: Arc<Mutex<Option<Position>>>,
}

#[async_trait]
impl Journal for Hiding {
    fn id(&self) -> JournalId {
        self.inner.id()
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        self.inner.mark(through).await
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.inner.append(append).await
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let batch = self.inner.read(after, filter, limit).await?;
        let hidden = *self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hidden) = hidden.filter(|_| filter.types.is_some()) else { return Ok(batch) };
        let before = batch.iter().position(|event| event.position == hidden);
        match before {
            None => Ok(batch),
            Some(0) => self.inner.read(hidden, filter, limit).await,
            Some(before) => self.inner.read(after, filter, Limit { events: before, ..limit }).await,
        }
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        self.inner.read_stream(stream, after, limit).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        self.inner.stream_revision(stream).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        self.inner.streams(category, after, most).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_that_reads_nothing_of_the_journal_says_so() {
    let node = Node::builder().store(Store::memory(Arc::new(SystemClock))).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    add(&node, "ledger-2", 1).await;
    let mut elsewhere = Second::default();
    elsewhere.options.categories = Some(vec!["ledgers".to_owned()]);
    let (_, report) = report_of(&node, &elsewhere).await;
    let notes = &part(&report, Part::Counts).notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("it reads none of the 2 events in the journal: its code reads the types "),
        "{notes:?}"
    );
    assert!(notes[0].ends_with(" of the categories ledgers, and the journal has added"), "{notes:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fell_out_on_the_way_shows_at_lag_0() {
    let (store, hidden) = (Store::memory(Arc::new(SystemClock)), Arc::<Mutex<Option<Position>>>::default());
    let journal = Arc::new(Hiding { inner: Arc::clone(&store.journal), hidden: Arc::clone(&hidden) });
    let node = Node::builder().store(Store { journal, ..store }).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 2_000).await;
    let position = add(&node, "ledger-7", 0).await;
    ask(&node, "ledger-7", position).await;
    *hidden.lock().unwrap() = Some(position);
    // What fell out would not even have changed a sum that anybody compares.
    let only_sums = Comparison::new().table(TableComparison::of("totals").except(["events"]));
    let (verdict, report) = report_of(&node, &Second { comparison: only_sums, ..Second::default() }).await;
    assert_eq!(verdict, Verdict::Fail);
    let counts = part(&report, Part::Counts);
    assert_eq!((&counts.wrong[..], counts.looked_at), (&[(FindingKind::Count, 1)][..], 2_001), "{counts:?}");
    let segment = SegmentCount::new(5).unwrap().segment_of("ledger-7");
    assert_eq!(counts.findings[0].place, format!("segment {segment}"));
    // The verdict itself is a position that it has to cover.
    let status = until(&node, "the tokens say that all is well", |status| {
        status.projections[0].versions.iter().all(|found| found.lag == 0)
    })
    .await;
    let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1")).unwrap();
    let token = &found.tokens[usize::from(segment.get())];
    assert!(counts.findings[0].new.as_deref().unwrap().starts_with(&format!("{} ", token.applied.events)));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_set_aside_fail_unless_the_policy_allows_them() {
    let store = Store::memory(Arc::new(SystemClock));
    let node = Node::builder().store(store.clone()).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 40).await;
    let (verdict, _) = report_of(&node, &Second::default()).await;
    assert_eq!(verdict, Verdict::Pass);
    // Nothing moves any more, so that what is committed beside the processor does not come in its way.
    until(&node, "it covers its verdict", |status| status.projections[0].versions[1].covers == status.head).await;

    let stored = store.views.find(&view("v2.1")).await.unwrap().unwrap();
    let letter = |position: u64, kind| Letter {
        position: Position::new(position),
        segment: SegmentCount::ONE.segment(0).unwrap(),
        stream: StreamName::new("ledger-7").unwrap(),
        event_type: dacapo::journal::EventType::new("added").unwrap(),
        kind,
        error: "no such ledger".into(),
        attempts: 3,
        recorded: Timestamp::from_micros(0),
        wish: None,
    };
    let first = Position::new(6);
    let letters =
        vec![letter(6, LetterKind::Refused), letter(8, LetterKind::Blocked { first }), letter(9, LetterKind::Skipped)];
    let moves = stored.tokens().await.unwrap().iter().map(|token| token.step(token.position, 0)).collect::<Vec<_>>();
    let commit = Commit { letters, ..Commit::of(moves) };
    stored.writer().await.unwrap().commit(&commit).await.unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("some were set aside")).await.unwrap();
    let verified_again = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified_again.verdict, Verdict::Fail);
    let counts = part(&verified_again.report, Part::Counts);
    assert_eq!(counts.wrong, [(FindingKind::Letter, 2)]);
    let (old, new) = rows_of(counts, "event 6 of ledger-7");
    assert_eq!((old, new), (Some("added"), Some("set aside after 3 tries: no such ledger")));
    assert_eq!(counts.notes, ["1 event skipped, as the policy is"]);

    let allowed = Second::default().verify(Verify { letters_allowed: true, ..Verify::default() });
    node.add_projection(carry(&allowed)).unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("that is fine")).await.unwrap();
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Pass);
    assert!(
        part(&verified.report, Part::Counts).notes.contains(&"2 events set aside, which the policy allows".to_owned())
    );
    node.shutdown().await;
}

/// Appends to its ledgers and reads what it appended until it is told to stop; tells the longest that it waited.
async fn client(node: Node, number: usize, stop: Arc<AtomicBool>) -> u64 {
    let mut asked = 0;
    while !stop.load(Ordering::SeqCst) {
        let ledger = format!("ledger-{number}");
        let before = ask(&node, &ledger, node.head()).await;
        let position = add(&node, &ledger, 1).await;
        let after = ask(&node, &ledger, position).await;
        assert_eq!(after.1, before.1 + 1, "its own event is in the answer");
        asked += 1;
    }
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_are_compared_at_one_position_while_writers_and_readers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 2_000).await;
    ask(&node, "ledger-0", node.head()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|number| tokio::spawn(client(node.clone(), number, Arc::clone(&stop)))).collect();
    let second = Second::default().verify(Verify::default().require([Part::Rows]));
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Pass, "{report:?}");
    let mut at = report.at;
    for round in 0..10 {
        // It is compared further on each time.
        let position = add(&node, "ledger-9", 1).await;
        node.projection(totals()).unwrap().verify_again().requested_by(asked("once more")).await.unwrap();
        let verified = verified(&node, "v2.1").await.verified.unwrap();
        assert_eq!(verified.verdict, Verdict::Pass, "round {round}: {:?}", verified.report);
        assert!(verified.report.at >= position && verified.report.at > at, "round {round}");
        at = verified.report.at;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    flip(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_was_cut_off_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let second = Second::default();
    second.gate.send_replace(false);
    let start = async || {
        let builder = Node::builder().data(directory.path()).projection(carry_v1(v1()));
        builder.start().await.unwrap()
    };
    let node = start().await;
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 100).await;
    node.add_projection(carry(&second)).unwrap();
    let checking = async |times| {
        until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) >= times).await;
    };
    checking(1).await;
    let status = node.status().await.unwrap();
    let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1")).unwrap();
    assert_eq!(found.stage, Some(Stage::Verifying));
    assert!(matches!(&found.waiting_on[..], [WaitingOn::Verification { part: Some(Part::Checks), .. }]), "{found:?}");
    let error = node.version(view("v2.1")).verified().within(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let error = node.projection(totals()).unwrap().waive().requested_by(asked("why not?")).await.unwrap_err();
    assert!(matches!(error, Error::Catalog(CatalogRefused::NotVerified { .. })), "{error}");
    // It goes on applying what comes: it rests only while it meets version 1.
    let position = add(&node, "ledger-1", 1).await;
    until(&node, "version 2 follows", |status| status.projections[0].versions[1].covers >= position).await;
    node.shutdown().await;

    let node = Node::builder()
        .data(directory.path())
        .projection(carry_v1(v1()))
        .projection(carry(&second))
        .start()
        .await
        .unwrap();
    until(&node, "it checks again", |_| second.checks.load(Ordering::SeqCst) >= 2).await;
    let verdicts = |history: &[dacapo::catalog::CatalogEntry]| {
        let verified = |entry: &&dacapo::catalog::CatalogEntry| matches!(&entry.event, CatalogEvent::Verified { view, .. } if view.version == version("v2.1"));
        history.iter().filter(verified).count()
    };
    assert_eq!(verdicts(&node.history().await.unwrap()), 0);
    second.gate.send_replace(true);
    ready(&node, "v2.1").await;
    assert_eq!(verdicts(&node.history().await.unwrap()), 1);
    flip(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_asked_for_meanwhile_begins_after_that() {
    let node = serving(100).await;
    let second = Second::default();
    let (verdict, _) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Pass);
    second.gate.send_replace(false);
    node.projection(totals()).unwrap().verify_again().requested_by(asked("to be sure")).await.unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 2).await;
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    until(&node, "the flip waits for the verification", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_some_and(|(_, reasons)| matches!(&reasons[..], [WaitingOn::Verification { .. }]))
    })
    .await;
    assert!(
        node.projection(totals()).unwrap().verification().unwrap().again,
        "the verdict that is there does not count"
    );
    second.gate.send_replace(true);
    requested.done().within(WAIT_MAX).await.unwrap();
    let error = node.version(view("v2.1")).verify_again().requested_by(asked("to be sure")).await.unwrap_err();
    assert!(error.to_string().contains("cannot verify totals v2.1: it is Serving"), "{error}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_declared_queries_are_compared() {
    let node = serving(400).await;
    let second = Second::wrong_in("ledger-7").verify(Verify::default().without(Part::Rows));
    let carried = second.code().sample(TotalOf("ledger-6".into())).sample(TotalOf("ledger-7".into()));
    node.add_projection(carried).unwrap();
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Fail);
    let answers = part(&verified.report, Part::Answers);
    assert_eq!((&answers.wrong[..], answers.looked_at), (&[(FindingKind::Answer, 1)][..], 2));
    let finding = &answers.findings[0];
    assert_eq!(finding.place, "TotalOf(\"ledger-7\")");
    let sum: i64 = (0..400).filter(|number| number % 40 == 7).sum();
    assert_eq!(
        (finding.old.as_deref(), finding.new.as_deref()),
        (Some(&*format!("({sum}, 10)")), Some(&*format!("({}, 10)", 2 * sum)))
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_share_of_the_live_queries_is_put_to_the_version_as_well() {
    let node = serving(400).await;
    let verify = Verify { shadow_share: 0.5, answers_min: 20, ..Verify::default() };
    let second = Second::wrong_in("ledger-7").verify(verify.require([Part::Answers]).without(Part::Rows));
    node.add_projection(second.shadowing::<TotalOf>()).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let asking = async {
        loop {
            // Every second one is put to both; writers go on meanwhile.
            for ledger in [7, 7, 8, 8] {
                let position = add(&node, "ledger-8", 1).await;
                let (sum, _) = ask(&node, &format!("ledger-{ledger}"), position).await;
                assert!(sum > 0);
            }
        }
    };
    let second = view("v2.1");
    let verified = tokio::select! {
        () = asking => unreachable!("it asks without end"),
        verified = node.version(second.clone()).verified().within(WAIT_MAX) => verified.unwrap().verified.unwrap(),
    };
    assert_eq!(verified.verdict, Verdict::Fail);
    let answers = part(&verified.report, Part::Answers);
    assert!(answers.looked_at >= 20, "{answers:?}");
    let [(FindingKind::Answer, wrong)] = answers.wrong[..] else { panic!("{answers:?}") };
    assert!(wrong > 0 && wrong < answers.looked_at, "only those of ledger 7: {answers:?}");
    assert!(answers.findings.iter().all(|finding| finding.place == "TotalOf(\"ledger-7\")"), "{answers:?}");
    let live = node.projection(totals()).unwrap().verification().unwrap().live.expect("it goes on");
    assert!(live.looked_at >= answers.looked_at);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_version_that_halts_is_not_compared_with_and_that_is_told() {
    let version_1 = v1();
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(carry_v1(version_1)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 40).await;
    node.append("ledger-7", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    until(&node, "it halts", |status| {
        let reasons = &status.projections[0].versions[0].waiting_on;
        reasons.iter().any(|reason| matches!(reason, WaitingOn::Handler { .. }))
    })
    .await;
    let patience = Verify { meet_time_max: Duration::from_millis(200), ..Verify::default() };
    let (verdict, report) = report_of(&node, &Second::default().verify(patience)).await;
    assert_eq!(verdict, Verdict::Pass, "rows are not required");
    let Outcome::NotDone { why } = &part(&report, Part::Rows).outcome else { panic!("{report:?}") };
    assert!(why.contains("v1.1 did not reach one position") && why.contains("doubtful"), "{why}");
    ready(&node, "v2.1").await;
    // Readers can leave the version that halts.
    flip(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_paused_is_verified_once_it_is_resumed_and_not_with_less() {
    let directory = tempfile::tempdir().unwrap();
    let second = Second::default().verify(Verify { meet_time_max: Duration::from_millis(200), ..Verify::default() });
    let start = || Node::builder().data(directory.path()).projection(carry_v1(v1())).projection(carry(&second)).start();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 40).await;
    node.add_projection(carry(&second)).unwrap();
    ready(&node, "v2.1").await;
    node.version(view("v2.1")).pause().requested_by(asked("let us see")).await.unwrap();
    node.shutdown().await;

    let node = start().await.unwrap();
    fill(&node, 40).await;
    node.projection(totals()).unwrap().verify_again().requested_by(asked("once more")).await.unwrap();
    // Time enough to find that it does not get on.
    let never = node.ask(TotalOf("ledger-7".into())).after(Position::new(1_000_000));
    never.within(Duration::from_millis(500)).await.unwrap_err();
    assert!(node.projection(totals()).unwrap().verification().unwrap().again, "there is no verdict on less");
    let resumed = node.version(view("v2.1")).resume().requested_by(asked("go on")).await.unwrap();
    let found = verified(&node, "v2.1").await.verified.unwrap();
    assert!(Some(found.position) > resumed.position, "{found:?}");

    // One that serves says why it cannot be compared with.
    node.version(view("v1.1")).pause().requested_by(asked("let us see")).await.unwrap();
    node.shutdown().await;
    let node = start().await.unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("once more")).await.unwrap();
    let found = verified(&node, "v2.1").await.verified.unwrap();
    let Outcome::NotDone { why } = &part(&found.report, Part::Rows).outcome else { panic!("{found:?}") };
    assert!(why.contains("the version is paused"), "{why}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_is_required_is_not_gone_without() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 40).await;
    node.shutdown().await;
    // The next release does not carry version 1 any more.
    let strict = Second::default().verify(Verify::default().require([Part::Rows]));
    let node = Node::builder().data(directory.path()).projection(carry(&strict)).start().await.unwrap();
    let found = verified(&node, "v2.1").await;
    let Some(WaitingOn::Verdict { found: why, .. }) = found.waiting_on else { panic!("{found:?}") };
    assert_eq!(why, "rows: not done, this node does not carry the code of the serving version v1.1");
    // Somebody finds it and puts it back.
    node.add_projection(carry_v1(v1())).unwrap();
    until(&node, "version 1 runs", |status| status.projections[0].versions[0].covers == status.head).await;
    node.projection(totals()).unwrap().verify_again().requested_by(asked("version 1 is back")).await.unwrap();
    assert_eq!(verified(&node, "v2.1").await.verified.unwrap().verdict, Verdict::Pass);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_in_the_middle_lets_it_begin_against_the_version_that_serves_then() {
    let node = serving(100).await;
    let second = Second::default();
    node.add_projection(carry_v2(TotalsV2 { options: second.options.clone(), ..v2() })).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    second.gate.send_replace(false);
    node.add_projection(carry(&second)).unwrap();
    node.projection(totals()).unwrap().rebuild().code(2).by("test").await.unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 1).await;
    roll_back(&node).await;
    until(&node, "it checks again", |_| second.checks.load(Ordering::SeqCst) == 2).await;
    second.gate.send_replace(true);
    let verified = node.version(view("v2.2")).verified().within(WAIT_MAX).await.unwrap().verified.unwrap();
    assert_eq!((verified.verdict, verified.report.against), (Verdict::Pass, Some(version("v1.1"))));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_falls_behind_after_its_verdict_keeps_it() {
    let node = serving(100).await;
    let gated = v2();
    node.add_projection(carry_v2(gated.clone())).unwrap();
    ready(&node, "v2.1").await;
    gated.behaviour.gate.send_replace(false);
    let many = i64::try_from(dacapo::limits::READY_LAG_MAX).unwrap() + 1;
    fill(&node, many).await;
    until(&node, "it catches up again", |status| status.projections[0].versions[1].stage == Some(Stage::CatchingUp))
        .await;
    gated.behaviour.gate.send_replace(true);
    ready(&node, "v2.1").await;
    let verified = |entry: &&dacapo::catalog::CatalogEntry| matches!(entry.event, CatalogEvent::Verified { .. });
    assert_eq!(node.history().await.unwrap().iter().filter(verified).count(), 2, "one for each version");
    flip(&node).await;
    node.shutdown().await;
}

/// A first version that takes its time over each event once it is told to.
#[derive(Clone)]
struct Slow(Arc<AtomicBool>);

impl Projection for Slow {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = TotalsV1::TABLES;
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { batch_events_max: 1, ..options() }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        if self.0.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        v1().apply(event, view).await
    }
}

impl Answers<TotalOf> for Slow {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        v1().answer(query, view).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flip_does_not_wait_for_live_queries_that_wait_for_a_slow_old_version() {
    let slow = Arc::new(AtomicBool::new(false));
    let node = Node::builder().projection(Slow(Arc::clone(&slow)).answering::<TotalOf>()).start();
    let node = node.await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let second = Second::default().verify(Verify { shadow_share: 1.0, ..Verify::default() });
    node.add_projection(second.shadowing::<TotalOf>()).unwrap();
    ready(&node, "v2.1").await;
    slow.store(true, Ordering::SeqCst);
    fill(&node, 400).await;
    // A live query is put to both, so version 2 rests until version 1 has come to where it is, in forty seconds.
    loop {
        ask(&node, "ledger-7", Position::START).await;
        let position = add(&node, "ledger-7", 1).await;
        let follows = until(&node, "version 2 follows", |status| status.projections[0].versions[1].covers >= position);
        if tokio::time::timeout(Duration::from_millis(400), follows).await.is_err() {
            break;
        }
    }
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    let flipped = requested.done().within(Duration::from_secs(30)).await;
    slow.store(false, Ordering::SeqCst);
    flipped.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_queries_that_come_before_it_has_caught_up_are_not_said_to_be_too_many() {
    let node = serving(20_000).await;
    let gated = TotalsV2 {
        options: Options { verify: Verify { shadow_share: 1.0, ..Verify::default() }, ..options() },
        ..v2()
    };
    gated.behaviour.gate.send_replace(false);
    node.add_projection(gated.clone().shadowing::<TotalOf>()).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let live = || node.projection(totals()).unwrap().verification().unwrap().live;
    until(&node, "live queries are taken note of", |_| live().is_some()).await;
    for _ in 0..3 {
        ask(&node, "ledger-7", Position::START).await;
    }
    until(&node, "they are told of", |_| live().is_some_and(|live| !live.notes.is_empty())).await;
    let notes = live().unwrap().notes;
    assert!(notes.iter().all(|note| note.contains("it has not caught up")), "{notes:?}");
    gated.behaviour.gate.send_replace(true);
    node.shutdown().await;
}

/// A query whose answers cannot be compared without a panic.
#[derive(Clone, Debug)]
struct Brittle;

#[derive(Debug)]
struct BrittleAnswer;

impl PartialEq for BrittleAnswer {
    fn eq(&self, _: &Self) -> bool {
        panic!("as apples and pears")
    }
}

impl dacapo::Query for Brittle {
    const PROJECTION: &'static str = "totals";
    type Answer = BrittleAnswer;
}

impl Answers<Brittle> for TotalsV1 {
    async fn answer(&self, _: &Brittle, _: &mut ReadView) -> Result<BrittleAnswer, HandlerError> {
        Ok(BrittleAnswer)
    }
}

impl Answers<Brittle> for Second {
    async fn answer(&self, _: &Brittle, _: &mut ReadView) -> Result<BrittleAnswer, HandlerError> {
        Ok(BrittleAnswer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_of_answers_that_panics_is_found_and_not_tried_for_ever() {
    let node = Node::builder().projection(v1().answering::<Brittle>()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(Second::default().code().sample(Brittle)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let verified = node.version(view("v2.1")).verified().within(WAIT_MAX).await.unwrap().verified.unwrap();
    let answers = part(&verified.report, Part::Answers);
    assert_eq!((verified.verdict, &answers.wrong[..]), (Verdict::Fail, &[(FindingKind::Answer, 1)][..]));
    let finding = &answers.findings[0];
    assert_eq!(finding.new.as_deref(), Some("it panicked: as apples and pears"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_versions_did_not_meet_is_cut_however_many_segments_halt() {
    let version_1 = TotalsV1 { options: Options { segments: SegmentCount::new(64).unwrap(), ..options() }, ..v1() };
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(carry_v1(version_1)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    for ledger in 0..40 {
        let ledger = format!("ledger-{ledger}");
        node.append(&ledger, ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    }
    until(&node, "many segments halt", |status| status.projections[0].versions[0].waiting_on.len() >= 20).await;
    let patience = Verify { meet_time_max: Duration::from_millis(200), ..Verify::default() };
    let (_, report) = report_of(&node, &Second::default().verify(patience)).await;
    let Outcome::NotDone { why } = &part(&report, Part::Rows).outcome else { panic!("{report:?}") };
    assert!(why.contains("v1.1 did not reach one position"), "{why}");
    assert!(why.len() <= dacapo::limits::FINDING_BYTES_MAX, "{} bytes", why.len());
    node.shutdown().await;
}

#[derive(Clone, Debug, PartialEq, dacapo::Row)]
#[row(table = "totals")]
struct TotalInFull {
    #[row(key)]
    ledger: String,
    sum: f64,
    events: i64,
}

/// A second version that has its sums as floats, and wrong.
struct InFull(Options);

impl Projection for InFull {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 2;
    const TABLES: &'static [Table] = &[<TotalInFull as dacapo::Row>::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.0.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let none = || TotalInFull { ledger: event.stream.to_owned(), sum: 0.5, events: 0 };
        Ok(view.upsert(event.stream, none, |row: &mut TotalInFull| row.events += 1).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_comparison_has_not_passed_where_a_column_could_not_be_compared() {
    let node = serving(40).await;
    let verify = Verify::default().require([Part::Rows]);
    node.add_projection(InFull(Options { verify, ..options() }).code()).unwrap();
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Fail);
    let rows = part(&verified.report, Part::Rows);
    let Outcome::NotDone { why } = &rows.outcome else { panic!("{rows:?}") };
    assert_eq!(why, "column totals.sum cannot be compared: it was Integer and is Float");
    assert_eq!(rows.looked_at, 40, "the other columns were");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_after_the_verdict_counts_as_well() {
    let node = serving(40).await;
    let on_failure = OnFailure { initializing: Policy::DeadLetter, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let refusing = TotalsV2 { options: Options { on_failure, retry, ..options() }, ..v2() };
    refusing.behaviour.refuse.store(true, Ordering::SeqCst);
    node.add_projection(carry_v2(refusing)).unwrap();
    ready(&node, "v2.1").await;
    node.append("ledger-7", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    until(&node, "it sets the event aside", |status| status.projections[0].versions[1].letters == 1).await;
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    let status = until(&node, "the flip is done, or waits for a verdict", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_none_or(|(_, reasons)| matches!(&reasons[..], [WaitingOn::Verdict { .. }]))
    })
    .await;
    assert_eq!(status.projections[0].serving, Some(version("v1.1")), "its rows lack an event");
    node.projection(totals()).unwrap().waive().requested_by(asked("that event is none of ours")).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_rests_to_meet_another_is_not_said_to_have_no_processor() {
    let version_1 = v1();
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(carry_v1(version_1)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.append("ledger-7", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    let patience = Verify { meet_time_max: WAIT_MAX, ..Verify::default() };
    node.add_projection(carry(&Second::default().verify(patience))).unwrap();
    until(&node, "it is to meet version 1", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1"));
        found.is_some_and(|found| matches!(found.waiting_on[..], [WaitingOn::Verification { part: Some(_), .. }]))
    })
    .await;
    // What is appended before it rests it still takes up, and has nothing to stand still on.
    let stall = loop {
        add(&node, "ledger-7", 1).await;
        let status = until(&node, "it took that up, or stands still", |status| {
            let found = &status.projections[0].versions[1];
            found.lag == 0 || found.stall.is_some()
        })
        .await;
        if let Some(stall) = &status.projections[0].versions[1].stall {
            break stall.clone();
        }
    };
    assert!(matches!(stall.on[..], [WaitingOn::Verification { .. }]), "{stall}");
    node.shutdown().await;
}

/// Waits until version 2 is to be compared with the one that serves.
async fn meeting(node: &Node) {
    until(node, "it is to meet version 1", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1"));
        found.is_some_and(|found| matches!(found.waiting_on[..], [WaitingOn::Verification { part: Some(_), .. }]))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_version_whose_code_is_replaced_meanwhile_is_compared_with_all_the_same() {
    let version_1 = v1();
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(carry_v1(version_1)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.append("ledger-7", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    // While version 1 halts they do not meet; then its processor gives way to that of corrected code.
    let patience = Verify { meet_time_max: WAIT_MAX, ..Verify::default() };
    node.add_projection(carry(&Second::default().verify(patience))).unwrap();
    meeting(&node).await;
    node.add_projection(carry_v1(v1())).unwrap();
    let found = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(part(&found.report, Part::Rows).outcome, Outcome::Passed, "{found:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_under_way_begins_again_with_code_that_is_carried_meanwhile() {
    let node = serving(40).await;
    let (wrong, mended) = (Second::default(), Second::default());
    wrong.gate.send_replace(false);
    node.add_projection(carry(&wrong)).unwrap();
    until(&node, "it checks", |_| wrong.checks.load(Ordering::SeqCst) == 1).await;
    node.add_projection(carry(&mended)).unwrap();
    assert_eq!(verified(&node, "v2.1").await.verified.unwrap().verdict, Verdict::Pass);
    assert_eq!(mended.checks.load(Ordering::SeqCst), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_asked_for_while_the_first_is_under_way_begins_after_that() {
    let node = serving(40).await;
    let second = Second::default();
    second.gate.send_replace(false);
    node.add_projection(carry(&second)).unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 1).await;
    let asked = node.projection(totals()).unwrap().verify_again().requested_by(asked("to be sure")).await.unwrap();
    until(&node, "it checks again", |_| second.checks.load(Ordering::SeqCst) == 2).await;
    second.gate.send_replace(true);
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert!(Some(verified.position) > asked.position);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_those_of_the_state_whose_rows_are_compared() {
    let node = serving(40).await;
    node.append("ledger-7", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    let on_failure = OnFailure { initializing: Policy::DeadLetter, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let second = Second::default();
    let second = Second { options: Options { on_failure, retry, ..second.options }, ..second };
    second.refuse.store(true, Ordering::SeqCst);
    second.gate.send_replace(false);
    node.add_projection(carry(&second)).unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 1).await;
    // By now the rows have been compared.
    second.refuse.store(false, Ordering::SeqCst);
    assert_eq!(
        node.version(view("v2.1"))
            .retry_letters(WhichLetters::All)
            .requested_by(asked("it is no doubt"))
            .await
            .unwrap(),
        1
    );
    until(&node, "the event is applied", |status| {
        status.projections[0].versions.iter().all(|found| found.letters == 0)
    })
    .await;
    second.gate.send_replace(true);
    let report = verified(&node, "v2.1").await.verified.unwrap().report;
    assert_eq!(part(&report, Part::Rows).wrong, [(FindingKind::Differs, 1)], "{report:?}");
    assert_eq!(part(&report, Part::Counts).wrong, [(FindingKind::Letter, 1)], "which is why: {report:?}");
    node.projection(totals()).unwrap().verify_again().requested_by(asked("it is applied")).await.unwrap();
    assert_eq!(verified(&node, "v2.1").await.verified.unwrap().verdict, Verdict::Pass);
    node.shutdown().await;
}

/// Asks version 1, for what other versions are asked as well, until version 2 is verified.
async fn verified_by_answers(node: &Node) -> Arc<Report> {
    let asking = async {
        loop {
            ask(node, "ledger-7", Position::START).await;
            // No answer has to be waited for, so nothing else would get its turn.
            tokio::task::yield_now().await;
        }
    };
    let verified = tokio::select! {
        () = asking => unreachable!("it asks without end"),
        verified = verified(node, "v2.1") => verified.verified.unwrap(),
    };
    verified.report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_live_queries_found_before_another_verification_was_asked_for_does_not_count_for_it() {
    let node = serving(400).await;
    let verify = Verify { shadow_share: 1.0, answers_min: 5, ..Verify::default() }.require([Part::Answers]);
    let wrong = Second { answers_more: 1, ..Second::default() }.verify(verify.clone());
    let shadowing = |second: Second| second.shadowing::<TotalOf>();
    node.add_projection(shadowing(wrong)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let report = verified_by_answers(&node).await;
    let answers = part(&report, Part::Answers);
    assert_eq!(
        (report.verdict(), &answers.wrong[..]),
        (Verdict::Fail, &[(FindingKind::Answer, answers.looked_at)][..])
    );

    node.add_projection(shadowing(Second::default().verify(verify))).unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("the answer is mended")).await.unwrap();
    let report = verified_by_answers(&node).await;
    let answers = part(&report, Part::Answers);
    assert_eq!((report.verdict(), &answers.outcome), (Verdict::Pass, &Outcome::Passed), "{answers:?}");
    assert!(answers.looked_at >= 5, "{answers:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_rows_an_assertion_gives_all_are_counted_and_some_are_told() {
    let node = serving(400).await;
    let second = Second::adding(|_, amount| Some(-amount)).verify(Verify::default().without(Part::Rows));
    let (_, report) = report_of(&node, &second).await;
    let checks = part(&report, Part::Checks);
    assert_eq!((&checks.wrong[..], checks.findings.len()), (&[(FindingKind::Check, 40)][..], 10), "{checks:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_panics_is_found_and_not_tried_for_ever() {
    let node = serving(40).await;
    let (verdict, report) = report_of(&node, &Second { declares_nonsense: true, ..Second::default() }).await;
    let rows = part(&report, Part::Rows);
    assert_eq!((verdict, &rows.wrong[..]), (Verdict::Fail, &[(FindingKind::Check, 1)][..]));
    assert_eq!(rows.findings[0].place, "the comparison of the code");
    assert_eq!(rows.findings[0].new.as_deref(), Some("it panicked: apples and pears"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_be_verified_by_itself_says_what_it_waits_on() {
    let directory = tempfile::tempdir().unwrap();
    let second = Second::default();
    let retry = Retry { attempts: 2, first: Duration::from_millis(1), ..Retry::default() };
    let second = Second { options: Options { retry, ..second.options }, ..second };
    second.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.append("ledger-7", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    node.add_projection(carry(&second)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let halts = async |node: &Node, reason: fn(&WaitingOn) -> bool| {
        until(node, "it halts", |_| {
            let found = node.projection(totals()).unwrap().verification().unwrap();
            found.halts && found.waiting_on.as_ref().is_some_and(reason)
        })
        .await;
    };
    halts(&node, |reason| matches!(reason, WaitingOn::Handler { attempts: 2.., .. })).await;
    let error = node.version(view("v2.1")).verified().within(Duration::ZERO).await.unwrap_err();
    let Error::TimedOut { waiting_on, .. } = error else { panic!("{error}") };
    assert!(matches!(waiting_on[..], [WaitingOn::Handler { .. }]), "{waiting_on:?}");
    node.version(view("v2.1")).pause().requested_by(asked("let us see")).await.unwrap();
    halts(&node, |reason| matches!(reason, WaitingOn::Paused)).await;
    node.shutdown().await;

    // A release that does not carry it.
    let node = Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap();
    halts(&node, |reason| matches!(reason, WaitingOn::Code { .. })).await;
    second.refuse.store(false, Ordering::SeqCst);
    node.add_projection(carry(&second)).unwrap();
    node.version(view("v2.1")).resume().requested_by(asked("it is mended")).await.unwrap();
    let found = verified(&node, "v2.1").await;
    assert_eq!((found.verified.unwrap().verdict, found.halts), (Verdict::Pass, false));
    node.shutdown().await;
}
