//! The look at the rows of a version that serves, which nobody asks for.

mod common;
#[path = "common/tampered.rs"]
mod tampered;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use dacapo::catalog::{Phase, RequestedBy};
use dacapo::operate::{ReplayFrom, WhichLetters};
use dacapo::options::{FlipPolicy, InPlace, OnFailure, Policy, Retry, RowScope, Scrub, SegmentCount};
use dacapo::status::WaitingOn;
use dacapo::store::Store;
use dacapo::verify::{Outcome, ScrubResult};
use dacapo::world::SystemClock;
use dacapo::{HandlerError, Node, Options, Projection, Recorded, Row, Table, VersionCode, View};
use dacapo_store::{Commit, Views};
use proptest::prelude::*;
use tampered::{LEDGERS, fill, is_told_and_healed, looked, pace, rows_reason};

/// Changes rows of a view behind the back of the node that applies its events: no token moves.
async fn change(views: &dyn Views, version: &str, sql: &str) {
    let stored = views.find(&view(version)).await.unwrap().expect("it is there");
    // Whoever applies may have moved a token in between.
    loop {
        let mut writer = stored.writer().await.unwrap();
        writer.execute(sql, &[]).await.unwrap();
        let stays =
            stored.tokens().await.unwrap().iter().map(|token| token.step(token.position, 0)).collect::<Vec<_>>();
        if writer.commit(&Commit::of(stays)).await.is_ok() {
            return;
        }
    }
}

/// The key of the first row that is told as wrong, what it should be and what it is.
fn told(status: &dacapo::status::Status) -> Option<(String, String, String)> {
    match rows_reason(status)? {
        WaitingOn::Rows { key, made, found, .. } => Some((key.clone(), made.clone(), found.clone())),
        _ => None,
    }
}

fn memory() -> Store {
    Store::memory(Arc::new(SystemClock))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_changed_by_hand_is_told_until_it_is_right_or_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), Store::embedded(directory.path(), Arc::new(SystemClock)).unwrap()] {
        let views = Arc::clone(&store.views);
        let carried = carry_v1(TotalsV1 { options: pace(Scrub::default()), ..v1() });
        let node = Node::builder().store(store).projection(carried).start().await.unwrap();
        is_told_and_healed(&node, async |sql| change(&*views, "v1.1", sql).await).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_gone_or_too_many_are_told_as_well() {
    let store = memory();
    let views = Arc::clone(&store.views);
    let carried = carry_v1(TotalsV1 { options: pace(Scrub::default()), ..v1() });
    let node = Node::builder().store(store).projection(carried).start().await.unwrap();
    fill(&node).await;
    let changes = [
        ("DELETE FROM totals WHERE ledger = 'ledger-3'", ("ledger-3", "sum 3, events 1", "no row")),
        (
            "INSERT INTO totals (ledger, sum, events) VALUES ('ledger-33', 1, 1)",
            ("ledger-33", "no row", "sum 1, events 1"),
        ),
    ];
    for (sql, (key, made, found)) in changes {
        change(&*views, "v1.1", sql).await;
        let status = until(&node, "it is told", |status| told(status).is_some_and(|reason| reason.0 == key)).await;
        assert_eq!(told(&status), Some((key.to_owned(), made.to_owned(), found.to_owned())));
        let repair = "DELETE FROM totals WHERE ledger = 'ledger-33'";
        change(&*views, "v1.1", repair).await;
        let repair =
            "INSERT INTO totals (ledger, sum, events) VALUES ('ledger-3', 3, 1) ON CONFLICT (ledger) DO NOTHING";
        change(&*views, "v1.1", repair).await;
        until(&node, "it is right", |status| rows_reason(status).is_none()).await;
    }
    node.shutdown().await;
}

/// Where there are more events than are folded at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_by_part_every_row_is_looked_at() {
    let scrub = Scrub { events_max: 4, rows_of_one_stream: true, ..Scrub::default() };
    for segments in [SegmentCount::ONE, SegmentCount::new(3).unwrap()] {
        let store = memory();
        let views = Arc::clone(&store.views);
        let options = Options { segments, ..pace(scrub) };
        let node =
            Node::builder().store(store).projection(carry_v1(TotalsV1 { options, ..v1() })).start().await.unwrap();
        let last = fill(&node).await;
        let found = looked(&node, |found| found.position >= last && found.report.looked_at > 0).await;
        assert_eq!(found.report.outcome, Outcome::Passed, "{found:?}");
        let note = &found.report.notes[0];
        assert!(found.report.looked_at < LEDGERS && note.contains("streams that begin after"), "{found:?}");
        for number in [0, LEDGERS / 2, LEDGERS - 1] {
            let sql = format!("UPDATE totals SET sum = sum + 5 WHERE ledger = 'ledger-{number}'");
            change(&*views, "v1.1", &sql).await;
            let key = format!("ledger-{number}");
            until(&node, "it is told", |status| told(status).is_some_and(|reason| reason.0 == key)).await;
            let sql = format!("UPDATE totals SET sum = sum - 5 WHERE ledger = 'ledger-{number}'");
            change(&*views, "v1.1", &sql).await;
            until(&node, "it is right", |status| rows_reason(status).is_none()).await;
        }
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_compared_soundly_is_not_and_says_so() {
    // Also where a row is of one segment: by SQL, events of the others may have changed it.
    for segments in [SegmentCount::ONE, SegmentCount::new(3).unwrap()] {
        let options = Options { segments, ..pace(Scrub { events_max: 4, ..Scrub::default() }) };
        let node = Node::builder().projection(carry_v1(TotalsV1 { options, ..v1() })).start().await.unwrap();
        let last = fill(&node).await;
        let found = looked(&node, |found| found.position >= last).await;
        let Outcome::NotDone { why } = &found.report.outcome else { panic!("{found:?}") };
        assert!(why.contains("Scrub::rows_of_one_stream"), "{why}");
        node.shutdown().await;
    }
    let node = Node::builder().projection(carry_v1(TotalsV1 { options: pace(Scrub::never()), ..v1() }));
    let node = node.start().await.unwrap();
    fill(&node).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.status().await.unwrap().projections[0].versions[0].scrubbed, None);
    node.shutdown().await;
}

/// A row of each ledger and one of all of them, both with a digest that depends on the order of events.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "totals")]
struct Digest {
    #[row(key)]
    ledger: String,
    sum: i64,
    events: i64,
    digest: i64,
}

#[derive(Clone, Default)]
struct Digests {
    options: Options,
    behaviour: Arc<Behaviour>,
}

impl Projection for Digests {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Digest::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let refuse = self.behaviour.refuse.load(Ordering::SeqCst);
        let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = event.data;
        if refuse && matches!(event.data, LedgerEvent::Doubted { .. }) {
            return Err("doubtful".into());
        }
        for ledger in [event.stream, "all"] {
            let none = || Digest { ledger: ledger.to_owned(), sum: 0, events: 0, digest: 0 };
            let position = i64::try_from(event.position.get())?;
            let change = |row: &mut Digest| {
                row.sum += amount;
                row.events += 1;
                row.digest = row.digest.wrapping_mul(31).wrapping_add(position);
            };
            view.upsert(ledger, none, change).await?;
        }
        Ok(())
    }
}

fn digests(behaviour: &Arc<Behaviour>, policy: Policy) -> VersionCode {
    let options = Options {
        segments: SegmentCount::ONE,
        rows: RowScope::AcrossSegments,
        flip: FlipPolicy::WhenReady,
        in_place: InPlace::Resets,
        on_failure: OnFailure { serving: policy, initializing: policy },
        retry: Retry { attempts: 1, first: Duration::from_millis(1), longest: Duration::from_millis(2) },
        verify: dacapo::verify::Verify { letters_allowed: true, ..dacapo::verify::Verify::default() }
            .without(dacapo::verify::Part::Rows),
        batch_events_max: 3,
        ..pace(Scrub::default())
    };
    VersionCode::new(Digests { options, behaviour: Arc::clone(behaviour) })
}

/// What is applied later than it came makes other rows than the order of the journal would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_whose_letters_were_retried_or_dropped_is_left_alone_until_it_is_built_anew() {
    for drops in [false, true] {
        let behaviour = Arc::<Behaviour>::default();
        behaviour.refuse.store(true, Ordering::SeqCst);
        let node = Node::builder().projection(digests(&behaviour, Policy::Skip)).start().await.unwrap();
        fill(&node).await;
        let doubted = [LedgerEvent::Doubted { amount: 50 }];
        let doubted = node.append("ledger-1", dacapo::ExpectedRevision::Any, doubted).await.unwrap().position;
        let last = add(&node, "ledger-1", 2).await;
        let found = looked(&node, |found| found.position >= last).await;
        assert_eq!(found.report.outcome, Outcome::Passed, "what is set aside is left out: {found:?}");
        behaviour.refuse.store(false, Ordering::SeqCst);
        let (which, asked) = (WhichLetters::One(doubted), RequestedBy::by("test"));
        match drops {
            true => node.version(view("v1.1")).drop_letters(which.clone()).requested_by(asked.clone()).await.unwrap(),
            false => node.version(view("v1.1")).retry_letters(which.clone()).requested_by(asked.clone()).await.unwrap(),
        };
        let letters = |status: &dacapo::status::Status| status.projections[0].versions[0].letters;
        until(&node, "the letter is gone", |status| letters(status) == 0).await;
        // Whatever began before has ended by then.
        let last = add(&node, "ledger-2", 2).await;
        let found = looked(&node, |found| found.position >= last).await;
        let Outcome::NotDone { why } = &found.report.outcome else { panic!("{found:?}") };
        assert!(why.contains("dead letters of v1.1"), "{why}");
        node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
        phase(&node, "v1.2", Phase::Serving).await;
        let is_looked_at = |found: &dacapo::status::VersionStatus| {
            found.version == version("v1.2")
                && found.scrubbed.as_ref().is_some_and(|it| it.report.outcome == Outcome::Passed)
        };
        until(&node, "it is compared again", |status| status.projections[0].versions.iter().any(is_looked_at)).await;
        node.shutdown().await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Add(u8),
    Doubt(u8),
    Refuse(bool),
    Retry,
    Drop,
    Rebuild,
    RollBack,
    Replay,
    Pause,
    Resume,
    Look,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => any::<u8>().prop_map(Act::Add),
        5 => any::<u8>().prop_map(Act::Doubt),
        2 => any::<bool>().prop_map(Act::Refuse),
        2 => Just(Act::Retry),
        1 => Just(Act::Drop),
        1 => Just(Act::Rebuild),
        1 => Just(Act::RollBack),
        2 => Just(Act::Replay),
        1 => Just(Act::Pause),
        1 => Just(Act::Resume),
        4 => Just(Act::Look),
    ]
}

/// Nothing of what is asked for has to be possible just now.
async fn carry_out(node: &Node, behaviour: &Behaviour, act: Act) {
    let ledger = |number: u8| format!("ledger-{}", number % 5);
    let asked = || RequestedBy::by("test");
    let serving = node.catalog().borrow().serving(&totals());
    let serves = serving.map(|version| dacapo::ViewId { projection: totals(), version });
    match (act, serves) {
        (Act::Add(number), _) => drop(add(node, &ledger(number), i64::from(number)).await),
        (Act::Doubt(number), _) => {
            let doubted = [LedgerEvent::Doubted { amount: i64::from(number) }];
            node.append(&ledger(number), dacapo::ExpectedRevision::Any, doubted).await.unwrap();
        }
        (Act::Refuse(refuse), _) => behaviour.refuse.store(refuse, Ordering::SeqCst),
        (Act::Retry, Some(view)) => {
            behaviour.refuse.store(false, Ordering::SeqCst);
            drop(node.version(view.clone()).retry_letters(WhichLetters::All).requested_by(asked()).await);
        }
        (Act::Drop, Some(view)) => {
            drop(node.version(view.clone()).drop_letters(WhichLetters::All).requested_by(asked()).await)
        }
        (Act::Rebuild, _) => drop(node.projection(totals()).unwrap().rebuild().requested_by(asked()).await),
        (Act::RollBack, _) => drop(node.projection(totals()).unwrap().rollback().requested_by(asked()).await),
        (Act::Replay, _) => {
            drop(node.projection(totals()).unwrap().replay(ReplayFrom::Start).requested_by(asked()).await)
        }
        (Act::Pause, Some(view)) => drop(node.version(view.clone()).pause().requested_by(asked()).await),
        (Act::Resume, Some(view)) => drop(node.version(view.clone()).resume().requested_by(asked()).await),
        (Act::Look, _) => {
            // Long enough for some looks, and nothing depends on how many.
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        _ => {}
    }
}

/// The reasons of every version that tells of wrong rows.
fn accused(status: &dacapo::status::Status) -> Vec<&WaitingOn> {
    let versions = status.projections.iter().flat_map(|projection| &projection.versions);
    let reasons = versions.flat_map(|version| &version.waiting_on);
    reasons.filter(|reason| matches!(reason, WaitingOn::Rows { .. })).collect()
}

async fn is_never_accused(policy: Policy, acts: Vec<Act>) {
    let behaviour = Arc::<Behaviour>::default();
    behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(digests(&behaviour, policy)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    for act in &acts {
        carry_out(&node, &behaviour, *act).await;
        let status = node.status().await.unwrap();
        assert_eq!(accused(&status), Vec::<&WaitingOn>::new(), "after {act:?} of {acts:?}");
    }
    behaviour.refuse.store(false, Ordering::SeqCst);
    for found in node.status().await.unwrap().projections[0].versions.iter() {
        let view = dacapo::ViewId { projection: totals(), version: found.version };
        drop(node.version(view.clone()).resume().by("test").await);
    }
    let last = add(&node, "ledger-0", 1).await;
    let serves = |found: &&dacapo::status::VersionStatus| found.phase == Phase::Serving;
    let is_done = |found: &ScrubResult| found.position >= last;
    let status = until(&node, "the rows are looked at in the end", |status| {
        let found = status.projections[0].versions.iter().find(serves);
        found.and_then(|found| found.scrubbed.as_ref()).is_some_and(is_done)
    })
    .await;
    assert_eq!(accused(&status), Vec::<&WaitingOn>::new(), "in the end of {acts:?}");
    node.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_right_view_is_never_accused(
        policy in prop_oneof![Just(Policy::Skip), Just(Policy::DeadLetter)],
        acts in prop::collection::vec(act(), 5..40),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(is_never_accused(policy, acts));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_ends_with_its_node() {
    let options = Options { handler_time_max: Duration::from_secs(600), ..pace(Scrub::default()) };
    let version = TotalsV1 { options, ..v1() };
    let behaviour = Arc::clone(&version.behaviour);
    let node = Node::builder().projection(carry_v1(version)).start().await.unwrap();
    fill(&node).await;
    behaviour.gate.send_replace(false);
    let waits = async |wanted: bool| {
        while (behaviour.gate.receiver_count() > 0) != wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // The next fold waits within its first event: no other one is to be applied.
    tokio::time::timeout(WAIT_MAX, waits(true)).await.expect("it looks");
    tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("nobody waits for the look");
    tokio::time::timeout(WAIT_MAX, waits(false)).await.expect("the handler is not waited for");
}
