//! Versions that begin as a copy of the one that serves: filled in SQL or in Rust, refused where that cannot be right,
//! killed in the middle. // I-3, I-4, I-11

mod common;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "common/sums.rs"]
mod sums;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use dacapo::verify::{FindingKind, Outcome, Part, Verdict, Verify};
use dacapo::{
    Answers, Asked, Carried, Error, Event, ExpectedRevision, FlipPolicy, HandlerError, InPlace, Node, OnFailure,
    Options, Phase, Policy, Position, Projection, ReadView, Recorded, ReplayFrom, Retry, Row, Seed, SegmentCount,
    Store, SystemClock, Table, Value, VersionStatus, View, WaitingOn,
};
use dacapo_model::Applied;
use dacapo_store::WhichLetters;
use faulty::{Call, Fault, Faults};
use sums::{EVENTS, fill, fold_of, right};
use tokio::sync::watch;

/// The directory of a child process, and the call at which it dies.
const CHILD: &str = "DACAPO_SEED_CHILD";

/// Version 2 of the totals, which may begin as a copy.
fn copying(seed: Seed) -> TotalsV2 {
    // No copy of version 1 can know the last event of each ledger.
    let (flip, verify) = (FlipPolicy::WhenReady, Verify::default().without(Part::Fold));
    TotalsV2 { options: Options { seed, seed_new_code: true, flip, verify, ..options() }, ..v2() }
}

fn by_sql() -> Seed {
    Seed::Sql(vec![
        "INSERT INTO totals SELECT ledger, sum, 0, 0 FROM {source}.totals".into(),
        "UPDATE totals SET events = (SELECT events FROM {source}.totals AS old WHERE old.ledger = totals.ledger)"
            .into(),
    ])
}

/// A node on which version 1 serves some events.
async fn serving(store: Store) -> Node {
    let node = Node::builder().store(store).carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node).await;
    // A copy of a version that lags would be a copy of less.
    until(&node, "it follows", |status| status.projections[0].versions[0].covers == status.head).await;
    node
}

fn memory() -> Store {
    Store::memory(Arc::new(SystemClock))
}

fn embedded(directory: &Path) -> Store {
    Store::embedded(directory, Arc::new(SystemClock)).unwrap()
}

async fn found(node: &Node, text: &str) -> VersionStatus {
    let status = node.status().await.unwrap();
    let versions = status.projections.into_iter().flat_map(|projection| projection.versions);
    versions.into_iter().find(|found| found.version == version(text)).unwrap()
}

/// It serves, its rows are the fold of the journal, it has its index, and it counts from where it began.
async fn check_copied(node: &Node, text: &str) {
    phase(node, text, Phase::Serving).await;
    check_serving(node).await;
    let mut reading = node.read("totals", node.head()).await.unwrap();
    let sql = "SELECT count(*) FROM totals INDEXED BY \"totals.last\" WHERE last >= 0";
    reading.view.query(sql, &[]).await.expect("the index is there");
    let tokens = found(node, text).await.tokens;
    let began = |counted: Applied| counted.after.get() >= EVENTS;
    assert!(tokens.iter().all(|token| began(token.applied)), "it counts what came after: {tokens:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_begins_as_a_copy_and_reads_only_what_came_after() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(&directory.path().join("%41 ?mode=rw#"))] {
        let node = serving(store).await;
        let version_2 = copying(by_sql());
        node.carry(carry_v2(version_2.clone())).unwrap();
        check_copied(&node, "v2.1").await;
        assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 0, "nothing came after");
        add(&node, "ledger-0", 5).await;
        check_copied(&node, "v2.1").await;
        assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 1);
        // The way back is open as after any flip (I-8).
        roll_back(&node).await;
        check_serving(&node).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_says_that_what_was_copied_is_not_counted() {
    let node = serving(memory()).await;
    node.carry(carry_v2(copying(by_sql()))).unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    let verified = node.verification(&totals(), Some(version("v2.1"))).unwrap().verified.unwrap();
    let counts = verified.report.parts.iter().find(|found| found.part == Part::Counts).unwrap();
    let after = found(&node, "v2.1").await.tokens[0].applied.after;
    assert_eq!(counts.notes, [format!("events through {after} are not counted, since it began as a copy")]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_copied_column_by_column() {
    let node = Node::builder().start().await.unwrap();
    fill(&node).await;
    let verify = Verify::default().without(Part::Fold);
    let copying = Options { seed: Seed::Columns, flip: FlipPolicy::WhenReady, verify, ..options() };
    let version_1 = TotalsV1 { options: copying, ..v1() };
    node.carry(carry_v1(version_1.clone())).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let applied = version_1.behaviour.applied.load(Ordering::SeqCst);
    assert_eq!(applied, EVENTS, "the first version has nothing to copy");
    let requested = node.rebuild_from_copy(&totals(), None, Asked::by("test")).await.unwrap();
    assert_eq!(requested.view.version, version("v1.2"));
    phase(&node, "v1.2", Phase::Serving).await;
    check_serving(&node).await;
    assert_eq!(version_1.behaviour.applied.load(Ordering::SeqCst), applied, "nothing was read again");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_new_column_stays_empty_is_found_wrong() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let (node, verified, part) = fold_of(store, Seed::Columns, false, 1_000).await;
        assert_eq!((verified.verdict, &part.outcome), (Verdict::Fail, &Outcome::Failed), "{verified:?}");
        assert_eq!((&part.wrong[..], part.looked_at), (&[(FindingKind::Differs, 7)][..], 7));
        let found = &part.findings[0];
        assert_eq!((&*found.place, found.key.as_deref()), ("totals", Some("ledger-0")));
        assert_eq!((found.old.as_deref(), found.new.as_deref()), (Some("first 1"), Some("first none")));
        // Readers move to it once somebody answers for it.
        let refused = node.flip(&totals(), Some(version("v2.1")), Asked::by("test")).await;
        let flipped = refused.is_ok() && node.catalog().borrow().serving(&totals()) == Some(version("v2.1"));
        assert!(!flipped, "I-6");
        node.waive(&totals(), Some(version("v2.1")), Asked { reason: Some("known".into()), ..Asked::by("test") })
            .await
            .unwrap();
        phase(&node, "v2.1", Phase::Serving).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_copy_is_compared_with_a_fold_of_the_past_and_passes() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let (node, verified, part) = fold_of(store, right(), true, 1_000).await;
        assert_eq!((verified.verdict, &part.outcome), (Verdict::Pass, &Outcome::Passed), "{verified:?}");
        assert_eq!(part.looked_at, 8, "seven ledgers, and all of them");
        assert_eq!(part.notes, ["compared with 30 events from the start"]);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_events_than_are_folded_a_segment_is_or_some_streams() {
    // More than a third of what the journal has, and less.
    for (events_max, note) in [(20, "not those of the others"), (9, "a sample of 9 events of 2 streams was folded")] {
        for (seed, verdict) in [(Seed::Columns, Verdict::Fail), (right(), Verdict::Pass)] {
            let (node, verified, part) = fold_of(memory(), seed, false, events_max).await;
            assert_eq!(verified.verdict, verdict, "{verified:?}");
            assert!((1..7).contains(&part.looked_at), "{part:?}");
            assert!(part.notes.iter().any(|told| told.contains(note)), "{part:?}");
            node.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_streams_beyond_the_sample_change_is_not_found_wrong() {
    let (node, verified, part) = fold_of(memory(), right(), true, 9).await;
    assert_eq!((verified.verdict, part.looked_at), (Verdict::Pass, 2), "{verified:?}");
    let told = "; 1 row that other streams may have changed were not compared";
    assert!(part.notes.iter().any(|note| note.ends_with(told)), "{part:?}");
    node.shutdown().await;
}

/// Version 3 reads events that no earlier one did; version 4 fills itself in Rust.
#[derive(Clone, Debug, Event)]
enum MoreEvents {
    #[event(name = "added")]
    Added { amount: i64 },
    #[event(name = "audited")]
    Audited {},
}

struct Odd<const VERSION: u32>(Options);

impl<const CODE: u32> Projection for Odd<CODE> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = MoreEvents;

    fn options(&self) -> Options {
        self.0.clone()
    }

    async fn apply(&self, _: &Recorded<'_, MoreEvents>, _: &mut View) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Fills itself in Rust, once it is let.
#[derive(Default)]
struct Migrating {
    options: Options,
    ready: Arc<AtomicBool>,
    /// While this is false, it waits in the middle.
    gate: Option<watch::Sender<bool>>,
    /// Whether it looks at what it has put, in SQL.
    by_sql: bool,
}

impl Projection for Migrating {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 4;
    const TABLES: &'static [Table] = &[TotalWithLast::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        v2().apply(event, view).await
    }

    async fn migrate(&self, source: &mut ReadView, view: &mut View) -> Result<(), HandlerError> {
        for Total { ledger, sum, events } in source.rows::<Total>().load().await? {
            view.put(TotalWithLast { ledger, sum, events, last: 0 })?;
        }
        if let Some(gate) = &self.gate {
            gate.subscribe().wait_for(|open| *open).await?;
        }
        if self.by_sql {
            // Refused by SQLite where that index is not there.
            let sql = "SELECT count(*) FROM totals INDEXED BY \"totals.last\" WHERE last = 0";
            assert_eq!(view.query(sql, &[]).await?, [[Value::Integer(7)]]);
        }
        assert!(self.ready.load(Ordering::SeqCst), "not yet");
        Ok(())
    }
}

impl Answers<TotalOf> for Migrating {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        v2().answer(query, view).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_come_about_says_why_and_is_tried_again() {
    let node = serving(memory()).await;
    let ready = Arc::new(AtomicBool::new(false));
    let migrating =
        Migrating { options: copying(Seed::Migrate).options, ready: Arc::clone(&ready), ..Migrating::default() };
    node.carry(Carried::version(migrating).answers::<TotalOf>()).unwrap();
    let waits = |status: &dacapo::Status, why: &str| {
        let mut waiting = status.projections[0].versions.iter().flat_map(|found| &found.waiting_on);
        waiting.any(|reason| matches!(reason, WaitingOn::Seed { error, .. } if error.contains(why)))
    };
    until(&node, "it says why", |status| waits(status, "it panicked: not yet")).await;
    assert_eq!(found(&node, "v4.1").await.covers, Position::START, "nothing of it is kept");
    ready.store(true, Ordering::SeqCst);
    check_copied(&node, "v4.1").await;
    node.shutdown().await;

    let node = serving(memory()).await;
    node.carry(carry_v2(copying(Seed::Sql(vec!["INSERT INTO totals SELECT * FROM {source}.gone".into()])))).unwrap();
    until(&node, "it says what is wrong", |status| waits(status, "no such table: source.gone")).await;
    node.shutdown().await;
}

/// What the version waits on.
async fn waits(node: &Node, text: &str, what: &str, wanted: impl Fn(&[WaitingOn]) -> bool) {
    until(node, what, |status| {
        let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.any(|found| found.version == version(text) && wanted(&found.waiting_on))
    })
    .await;
}

/// Code that begins as a copy, and after a failure tries again only when it is told to.
fn migrating(ready: bool) -> Migrating {
    let never = Duration::from_secs(1_000_000);
    let retry = Retry { attempts: 10, first: never, longest: never };
    let options = Options { retry, ..copying(Seed::Migrate).options };
    Migrating { options, ready: Arc::new(AtomicBool::new(ready)), ..Migrating::default() }
}

fn tried(times: u32) -> impl Fn(&[WaitingOn]) -> bool {
    move |waiting_on| {
        let mut seeds = waiting_on.iter();
        seeds.any(|reason| matches!(reason, WaitingOn::Seed { attempts, .. } if *attempts == times))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_did_not_come_about_is_tried_at_once_when_the_version_is_resumed() {
    let node = serving(memory()).await;
    let migrating = migrating(false);
    let ready = Arc::clone(&migrating.ready);
    node.carry(Carried::version(migrating).answers::<TotalOf>()).unwrap();
    waits(&node, "v4.1", "it fails", tried(1)).await;
    node.resume(&view("v4.1"), Asked::by("test")).await.unwrap();
    waits(&node, "v4.1", "it is tried at once", tried(2)).await;
    node.pause(&view("v4.1"), Asked::by("test")).await.unwrap();
    ready.store(true, Ordering::SeqCst);
    assert_eq!(found(&node, "v4.1").await.covers, Position::START);
    node.resume(&view("v4.1"), Asked::by("test")).await.unwrap();
    check_copied(&node, "v4.1").await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_way_is_given_up_for_a_pause_and_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let node = serving(store).await;
        let gate = watch::Sender::new(false);
        let migrating = Migrating { gate: Some(gate.clone()), ..migrating(true) };
        node.carry(Carried::version(migrating).answers::<TotalOf>()).unwrap();
        let copies = |waiting_on: &[WaitingOn]| waiting_on == [WaitingOn::Copy { of: version("v1.1") }];
        waits(&node, "v4.1", "it copies", copies).await;
        node.pause(&view("v4.1"), Asked::by("test")).await.unwrap();
        waits(&node, "v4.1", "it is paused", |waiting_on| waiting_on == [WaitingOn::Paused]).await;
        node.resume(&view("v4.1"), Asked::by("test")).await.unwrap();
        waits(&node, "v4.1", "it copies again", copies).await;
        gate.send_replace(true);
        check_copied(&node, "v4.1").await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_uses_sql_gets_the_indexes_first() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), embedded(directory.path())] {
        let node = serving(store).await;
        node.carry(Carried::version(Migrating { by_sql: true, ..migrating(true) }).answers::<TotalOf>()).unwrap();
        check_copied(&node, "v4.1").await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_fails_when_what_it_is_to_copy_goes_away() {
    let node = serving(memory()).await;
    let rebuilt = node.rebuild(&totals(), None, Asked::by("test")).await.unwrap();
    ready(&node, &rebuilt.view.version.to_string()).await;
    flip(&node).await;
    node.carry(Carried::version(migrating(false)).answers::<TotalOf>()).unwrap();
    waits(&node, "v4.1", "it fails to copy what serves", tried(1)).await;
    assert_eq!(node.catalog().borrow().version(&view("v4.1")).unwrap().seed, Some(version("v1.2")));
    roll_back(&node).await;
    node.clean_up(&view("v1.2"), Asked::by("test")).await.unwrap();
    phase(&node, "v4.1", Phase::Failed).await;
    let reason = found(&node, "v4.1").await.reason.unwrap();
    assert!(reason.contains("cannot begin as a copy of v1.2: its view is gone. Rebuild the projection"), "{reason}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_began_as_a_copy_reads_the_past_when_it_is_replayed() {
    let node = serving(memory()).await;
    let mut version_2 = copying(by_sql());
    version_2.options.in_place = InPlace::Resets;
    node.carry(carry_v2(version_2.clone())).unwrap();
    check_copied(&node, "v2.1").await;
    assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 0);
    let requested = node.replay(&totals(), None, ReplayFrom::Start, Asked::by("test")).await.unwrap();
    node.replayed(&requested, WAIT_MAX).await.unwrap();
    assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), EVENTS);
    check_serving(&node).await;
    node.shutdown().await;
}

/// Why a build of this code from a copy is refused.
async fn refused(node: &Node, code: u32, carried: Carried) -> String {
    node.carry(carried).unwrap();
    match node.rebuild_from_copy(&totals(), Some(code), Asked::by("test")).await {
        Err(Error::NoCopy { why, .. }) => why,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_right_is_refused() {
    let store = memory();
    let node = serving(store.clone()).await;
    let with = |seed: Seed| Options { seed, seed_new_code: true, ..options() };
    let version_2 = |options: Options| carry_v2(TotalsV2 { options, ..v2() });
    let why = refused(&node, 2, version_2(options())).await;
    assert!(why.contains("does not say how"), "{why}");
    let why = refused(&node, 2, version_2(with(Seed::Columns))).await;
    assert!(why.contains("it has no column totals.last, which is not optional"), "{why}");
    let why = refused(&node, 3, Carried::new(Odd::<3>(with(Seed::Columns)))).await;
    assert!(why.contains("it never saw events of type audited"), "{why}");
    // What may not begin as a copy reads the past, though it would rather.
    phase(&node, "v3.1", Phase::Initializing).await;
    assert_eq!(node.catalog().borrow().version(&view("v3.1")).unwrap().seed, None);
    let nothing = node.rebuild_from_copy(&totals(), Some(9), Asked::by("test")).await;
    assert!(matches!(nothing, Err(Error::NoSuchCode { code: 9, .. })), "{nothing:?}");

    let other = serving(memory()).await;
    let two = Options { segments: SegmentCount::new(2).unwrap(), ..with(by_sql()) };
    let why = refused(&other, 2, version_2(two)).await;
    assert!(why.contains("it has 3 segments and the new version 2"), "{why}");
    other.shutdown().await;

    let only = Options { categories: Some(vec!["ledger".into()]), ..options() };
    let why = {
        let node = Node::builder().carry(carry_v1(TotalsV1 { options: only, ..v1() })).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        let why = refused(&node, 2, version_2(with(by_sql()))).await;
        node.shutdown().await;
        why
    };
    assert!(why.contains("it never saw streams of every category"), "{why}");
    node.shutdown().await;

    let directory = tempfile::tempdir().unwrap();
    serving(embedded(directory.path())).await.shutdown().await;
    let node = Node::builder().data(directory.path()).start().await.unwrap();
    let why = refused(&node, 2, version_2(with(by_sql()))).await;
    assert!(why.contains("this node does not carry its code"), "{why}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_lacks_events_is_not_copied_before_somebody_gives_them_up() {
    let on_failure = OnFailure { serving: Policy::Skip, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let version_1 = TotalsV1 { options: Options { on_failure, retry, ..options() }, ..v1() };
    version_1.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().carry(carry_v1(version_1)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node).await;
    node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 1 }]).await.unwrap();
    until(&node, "the event is skipped", |status| status.projections[0].versions[0].letters == 1).await;
    let why = refused(&node, 2, carry_v2(copying(by_sql()))).await;
    assert!(why.contains("its rows lack an event that is set aside"), "{why}");
    // New code reads the past by itself then.
    phase(&node, "v2.1", Phase::Initializing).await;
    assert_eq!(node.catalog().borrow().version(&view("v2.1")).unwrap().seed, None);

    node.drop_letters(&view("v1.1"), &WhichLetters::All, &Asked::by("test")).await.unwrap();
    until(&node, "it is given up", |status| status.projections[0].versions[0].letters == 0).await;
    node.rebuild_from_copy(&totals(), Some(2), Asked::by("test")).await.unwrap();
    phase(&node, "v2.2", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await.1, 5, "it goes without the event, as it was asked for");
    node.shutdown().await;
}

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (die_at, directory) = told.split_once(':').unwrap();
    let (die_at, faults) = (die_at.to_owned(), Faults::default());
    faults.plan(move |call| {
        let of_new = |id: &dacapo::ViewId| id.version == version("v2.1");
        let dies = match call {
            Call::Attach(id) => die_at == "attach" && of_new(id),
            Call::Index(id) => die_at == "index" && of_new(id),
            Call::Commit(id) => die_at == "commit" && of_new(id),
            _ => false,
        };
        if dies {
            std::process::abort();
        }
        None::<Fault>
    });
    let node = Node::builder().store(faults.over(&embedded(Path::new(directory)))).carry(carry_v1(v1()));
    let _node = node.carry(carry_v2(copying(by_sql()))).start().await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_be_killed_while_it_copies() {
    for die_at in ["attach", "index", "commit"] {
        let directory = tempfile::tempdir().unwrap();
        serving(embedded(directory.path())).await.shutdown().await;
        let died = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact"])
            .env(CHILD, format!("{die_at}:{}", directory.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!died.success(), "{die_at}: it was to die");
        let store = embedded(directory.path());
        let left = store.views.find(&view("v2.1")).await.unwrap().unwrap();
        assert!(left.tokens().await.unwrap().iter().all(|token| token.position == Position::START), "{die_at}");
        let rows = left.reader().await.unwrap().select(&TotalWithLast::TABLE, &[], 10).await.unwrap();
        assert_eq!(rows.len(), 0, "{die_at}: rows come with their tokens");
        drop(left);
        let version_2 = copying(by_sql());
        let node = Node::builder().store(store).carry(carry_v1(v1())).carry(carry_v2(version_2.clone()));
        let node = node.start().await.unwrap();
        check_copied(&node, "v2.1").await;
        assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 0, "{die_at}");
        node.shutdown().await;
    }
}
