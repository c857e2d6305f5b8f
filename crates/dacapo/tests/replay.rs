//! Replays in place: past events through the live version again. // I-3, I-7

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use dacapo::{
    Answers, Asked, Cancel, Carried, CatalogEvent, CatalogRefused, Error, ExpectedRevision, FlipPolicy, HandlerError,
    InPlace, Node, Options, Phase, Position, Probe, Projection, ReadView, Recorded, ReplayFrom, Requested, Retry, Row,
    SegmentCount, Step, Store, SystemClock, Table, Value, View, WaitingOn,
};

/// What a version of the ledger did, and what it shall do.
#[derive(Debug, Default)]
struct Watched {
    behaviour: Behaviour,
    /// Each event that was applied: its position, and whether it was a replay.
    applied: Mutex<Vec<(u64, bool)>>,
    reset_fails: AtomicBool,
    resets: AtomicU64,
}

impl Watched {
    fn applied(&self) -> Vec<(u64, bool)> {
        self.applied.lock().unwrap().clone()
    }

    async fn meet(&self, event: &Recorded<'_, LedgerEvent>) -> Result<i64, HandlerError> {
        let amount = self.behaviour.gate.subscribe().wait_for(|open| *open).await.map(|_| match event.data {
            LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount } => amount,
        })?;
        let doubts = matches!(event.data, LedgerEvent::Doubted { .. });
        if doubts && self.behaviour.refuse.load(Ordering::SeqCst) {
            return Err("doubtful".into());
        }
        self.applied.lock().unwrap().push((event.position.get(), event.is_replay()));
        Ok(amount)
    }

    fn forget(&self) {
        self.applied.lock().unwrap().clear();
    }

    fn shut(&self) {
        self.behaviour.gate.send_replace(false);
    }

    fn open(&self) {
        self.behaviour.gate.send_replace(true);
    }
}

/// Sums, which are only right if each event is added once: its rows must go before a replay.
#[derive(Clone)]
struct Sums<const CODE: u32> {
    options: Options,
    watched: Arc<Watched>,
}

impl<const CODE: u32> Projection for Sums<CODE> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = self.watched.meet(event).await?;
        let none = || Total { ledger: event.stream.to_owned(), sum: 0, events: 0 };
        let add = |row: &mut Total| (row.sum, row.events) = (row.sum + amount, row.events + 1);
        Ok(view.upsert(event.stream, none, add).await?)
    }

    async fn reset(&self, view: &mut View, after: Position) -> Result<(), HandlerError> {
        assert_eq!(after, Position::START);
        self.watched.resets.fetch_add(1, Ordering::SeqCst);
        view.clear().await?;
        match self.watched.reset_fails.load(Ordering::SeqCst) {
            true => Err("not now".into()),
            false => Ok(()),
        }
    }
}

impl<const CODE: u32> Answers<TotalOf> for Sums<CODE> {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        let row = view.get::<Total>(query.0.as_str()).await?;
        Ok(row.map(|row| (row.sum, row.events)).unwrap_or_default())
    }
}

/// One row an event, put whole: applying it twice makes the same row.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "entries")]
struct Entry {
    #[row(key)]
    position: i64,
    ledger: String,
    amount: i64,
}

#[derive(Clone)]
struct Entries {
    watched: Arc<Watched>,
    in_place: InPlace,
}

impl Projection for Entries {
    const NAME: &'static str = "entries";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Entry::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        let segments = SegmentCount::new(3).unwrap();
        Options { segments, in_place: self.in_place, ..Options::default() }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = self.watched.meet(event).await?;
        let position = i64::try_from(event.position.get())?;
        view.put(Entry { position, ledger: event.stream.to_owned(), amount })?;
        Ok(())
    }

    async fn reset(&self, view: &mut View, after: Position) -> Result<(), HandlerError> {
        let after = i64::try_from(after.get())?;
        view.execute("DELETE FROM entries WHERE position > $1", &[Value::from(after)]).await?;
        Ok(())
    }
}

fn sums<const CODE: u32>() -> Sums<CODE> {
    let segments = SegmentCount::new(3).unwrap();
    let options = Options { segments, in_place: InPlace::Resets, flip: FlipPolicy::OnCommand, ..Options::default() };
    Sums { options, watched: Arc::default() }
}

fn entries(in_place: InPlace) -> Entries {
    Entries { watched: Arc::default(), in_place }
}

fn entries_name() -> dacapo::ProjectionName {
    dacapo::ProjectionName::new("entries").unwrap()
}

async fn ask_replay(node: &Node, from: ReplayFrom) -> Result<Requested, Error> {
    let state = node.catalog().borrow().projections.keys().next().unwrap().clone();
    node.replay(&state, None, from, Asked::by("test")).await
}

async fn replay(node: &Node, from: ReplayFrom) -> dacapo::ReplayReport {
    let requested = ask_replay(node, from).await.unwrap();
    node.replayed(&requested, WAIT_MAX).await.unwrap()
}

/// Waits for the first version of a projection to serve.
async fn serving(node: &Node) {
    let mut catalog = node.catalog();
    let serves = catalog.wait_for(|catalog| catalog.projections.values().any(|state| state.serving.is_some()));
    tokio::time::timeout(WAIT_MAX, serves).await.unwrap().unwrap();
}

async fn fill(node: &Node, count: i64) -> Position {
    let mut last = Position::START;
    for number in 1..=count {
        last = add(node, &format!("ledger-{}", number % 7), number).await;
    }
    last
}

/// How often replays ended, after each was asked for.
async fn ends(node: &Node) -> Vec<&'static str> {
    let told = |entry: &dacapo::CatalogEntry| match entry.event {
        CatalogEvent::ReplayRequested { .. } => Some("asked"),
        CatalogEvent::ReplayEnded { .. } => Some("ended"),
        _ => None,
    };
    node.history().await.unwrap().iter().filter_map(told).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_reset_and_made_again_and_no_reader_goes_back() {
    let sums = sums::<1>();
    let node = Node::builder().carry(sums.clone()).start().await.unwrap();
    serving(&node).await;
    let last = fill(&node, 100).await;
    node.read("totals", last).await.unwrap();
    assert!(sums.watched.applied().iter().all(|(_, replay)| !replay), "it was live");
    sums.watched.forget();
    let reader = tokio::spawn({
        let node = node.clone();
        async move {
            let (mut seen, mut events) = (Position::START, 0);
            while events < 140 {
                let (_, covers, rows) = rows(&node, Position::START).await.unwrap();
                let found = rows.values().map(|(_, events)| events).sum::<i64>();
                assert!(covers >= seen && found >= events, "I-7: {covers} after {seen}, {found} after {events}");
                (seen, events) = (covers, found);
                assert_eq!(rows, fold(&node, covers).await, "I-3");
            }
        }
    });
    let requested = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    for number in 0..40 {
        add(&node, &format!("ledger-{}", number % 7), 1).await;
    }
    let report = node.replayed(&requested, WAIT_MAX).await.unwrap();
    assert_eq!((report.after, Some(report.requested)), (Position::START, requested.position));
    tokio::time::timeout(WAIT_MAX, reader).await.unwrap().unwrap();
    node.read("totals", node.head()).await.unwrap();
    check_serving(&node).await;
    // Events that came while it was asked for may have been applied before the tokens went back, so the flags tell
    // where that was: each event through there is a replay, and no other.
    let applied = sums.watched.applied();
    let replays: Vec<u64> = applied.iter().filter(|(_, replay)| *replay).map(|(position, _)| *position).collect();
    let live: Vec<u64> = applied.iter().filter(|(_, replay)| !replay).map(|(position, _)| *position).collect();
    assert!(replays.len() >= 100);
    let distinct: std::collections::BTreeSet<u64> = live.iter().copied().collect();
    assert_eq!(distinct.len(), live.len(), "what is no replay is applied once");
    assert_eq!(ends(&node).await, ["asked", "ended"]);
    assert_eq!(sums.watched.resets.load(Ordering::SeqCst), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_answered_while_rows_that_stay_are_replayed_from_a_position() {
    let entries = entries(InPlace::KeepsRows);
    let node = Node::builder().carry(entries.clone()).start().await.unwrap();
    serving(&node).await;
    let last = fill(&node, 60).await;
    node.read("entries", last).await.unwrap();
    entries.watched.forget();
    entries.watched.shut();
    let from = Position::new(last.get() - 19);
    let requested = ask_replay(&node, ReplayFrom::Position(from)).await.unwrap();
    let status = until(&node, "it has begun", |status| {
        status.projections[0].versions[0].tokens.iter().any(|token| token.replays())
    })
    .await;
    let found = &status.projections[0].versions[0];
    let running = found.replay.unwrap();
    assert_eq!((Some(running.requested), running.after.next()), (requested.position, from));
    let through = running.through;
    assert!((last..=running.requested).contains(&through), "where it was when it saw the request");
    let waits = WaitingOn::Replay { version: version("v1.1"), at: running.at, through };
    assert_eq!(found.waiting_on[0], waits, "I-11");
    let mut reading = node.read("entries", last).await.unwrap();
    assert_eq!(reading.view.covers(), through, "what was shown is shown on");
    assert_eq!(reading.view.rows::<Entry>().load().await.unwrap().len(), 60);

    let new = add(&node, "ledger-1", 5).await;
    let early = node.replayed(&requested, Duration::ZERO).await.unwrap_err();
    assert!(early.to_string().contains("the end of the replay of v1.1, at position"), "{early}");
    entries.watched.open();
    let report = node.replayed(&requested, WAIT_MAX).await.unwrap();
    assert_eq!(report.after.next(), from);
    node.read("entries", new).await.unwrap();
    let mut applied = entries.watched.applied();
    applied.sort_unstable();
    // The batch that the new event came into straddled the end: it was cut, and each event was told apart.
    let expected: Vec<_> =
        (from.get()..=last.get()).map(|position| (position, true)).chain([(new.get(), false)]).collect();
    assert_eq!(applied, expected);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_begins_at_a_time_or_at_an_event() {
    let entries = entries(InPlace::ResetsFrom);
    let clock = Arc::new(ManualClock::default());
    let node = Node::builder().clock(Arc::clone(&clock) as _).carry(entries.clone()).start().await.unwrap();
    serving(&node).await;
    let mut positions = vec![];
    for number in 0..10 {
        clock.advance(Duration::from_secs(1));
        positions.push(add(&node, "ledger-1", number).await);
    }
    let batch = node.journal().read(positions[5], &dacapo::Filter::default(), dacapo::Limit::events(1)).await.unwrap();
    let (id, time) = (batch.get(0).id, batch.get(0).recorded);
    for from in [ReplayFrom::Event(id), ReplayFrom::Time(time), ReplayFrom::Position(positions[6])] {
        node.read("entries", node.head()).await.unwrap();
        entries.watched.forget();
        let report = replay(&node, from).await;
        assert_eq!(report.after.next(), positions[6], "{from}");
        let replays: Vec<u64> = entries.watched.applied().iter().map(|(position, _)| *position).collect();
        assert_eq!(replays, positions[6..].iter().map(|position| position.get()).collect::<Vec<_>>());
        let mut reading = node.read("entries", positions[9]).await.unwrap();
        assert_eq!(reading.view.rows::<Entry>().load().await.unwrap().len(), 10);
    }
    for (from, why) in [
        (ReplayFrom::Event(dacapo::EventId::from_bytes([7; 16])), "is not in the journal"),
        (ReplayFrom::Position(node.head().plus(9)), "there is nothing to replay from position"),
        (ReplayFrom::Time(dacapo::Timestamp::from_micros(i64::MAX / 2)), "there is nothing to replay"),
    ] {
        let error = ask_replay(&node, from).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_does_not_let_it_is_told_what_to_do_instead() {
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    serving(&node).await;
    let refused = ask_replay(&node, ReplayFrom::Start).await.unwrap_err();
    assert!(matches!(refused, Error::NotInPlace { .. }) && refused.to_string().contains("`rebuild`"), "{refused}");
    node.shutdown().await;

    let node = Node::builder().carry(sums::<1>()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 9).await;
    let refused = ask_replay(&node, ReplayFrom::Position(Position::new(5))).await.unwrap_err().to_string();
    assert!(refused.contains("only be reset as a whole"), "{refused}");
    let other = dacapo::ProjectionName::new("others").unwrap();
    let unknown = node.replay(&other, None, ReplayFrom::Start, Asked::by("test")).await.unwrap_err();
    assert!(matches!(unknown, Error::NoSuchProjection { .. }), "{unknown}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_replay_is_refused_with_how_far_the_first_one_is() {
    let entries = entries(InPlace::KeepsRows);
    let node = Node::builder().carry(entries.clone()).start().await.unwrap();
    serving(&node).await;
    let last = fill(&node, 30).await;
    node.read("entries", last).await.unwrap();
    entries.watched.shut();
    let asked = Asked { idempotency_key: Some("k-1".into()), ..Asked::by("ann") };
    let name = entries_name();
    let first = node.replay(&name, None, ReplayFrom::Start, asked.clone()).await.unwrap();
    let again = node.replay(&name, None, ReplayFrom::Start, asked.clone()).await.unwrap();
    assert_eq!(first, again, "the same key answers the same");
    let error = ask_replay(&node, ReplayFrom::Position(Position::new(3))).await.unwrap_err();
    let Error::ReplayUnderWay { requested, after, progress, .. } = &error else { panic!("{error}") };
    let (at, through) = progress.unwrap();
    assert_eq!((Some(*requested), *after, at), (first.position, Position::START, Position::START));
    assert!((last..=*requested).contains(&through), "where it was when it saw the request");
    assert!(error.to_string().contains(&format!("is at position 0 of {through}")), "{error}");
    entries.watched.open();
    let report = node.replayed(&first, WAIT_MAX).await.unwrap();
    assert_eq!(node.replay(&name, None, ReplayFrom::Start, asked).await.unwrap(), first, "also once it has ended");
    assert_eq!(node.replayed(&first, WAIT_MAX).await.unwrap(), report);
    replay(&node, ReplayFrom::Start).await;
    assert_eq!(ends(&node).await, ["asked", "ended", "asked", "ended"]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_at_different_tokens_each_end_where_they_were() {
    let entries = entries(InPlace::KeepsRows);
    entries.watched.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().carry(entries.clone()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 20).await;
    let doubted = node.append("ledger-3", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 5 }]).await.unwrap();
    let last = fill(&node, 20).await;
    let at = |status: &dacapo::Status| {
        let mut at: Vec<_> = status.projections[0].versions[0].tokens.iter().map(|token| token.position).collect();
        at.sort();
        at
    };
    let halted = Position::new(doubted.position.get() - 1);
    until(&node, "one halts", |status| at(status) == [halted, last, last]).await;
    entries.watched.forget();
    // It ends although one segment halts: that one is where it was.
    let report = replay(&node, ReplayFrom::Position(Position::new(5))).await;
    assert_eq!(report.after, Position::new(4));
    until(&node, "each is where it was", |status| at(status) == [halted, last.max(status.head), last.max(status.head)])
        .await;
    assert!(entries.watched.applied().iter().all(|(_, replay)| *replay));
    entries.watched.behaviour.refuse.store(false, Ordering::SeqCst);
    node.read("entries", last).await.unwrap();
    let after_halt = entries.watched.applied().into_iter().filter(|(_, replay)| !replay).map(|(position, _)| position);
    let after_halt: Vec<u64> = after_halt.collect();
    assert!(after_halt.contains(&doubted.position.get()), "what the halting segment never had is no replay");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_can_leave_a_version_that_replays_and_not_move_to_one() {
    let (old, new) = (sums::<1>(), sums::<2>());
    let node = Node::builder().carry(Carried::version(old.clone()).answers::<TotalOf>()).start().await.unwrap();
    serving(&node).await;
    let last = fill(&node, 50).await;
    node.carry(Carried::version(new.clone()).answers::<TotalOf>()).unwrap();
    ready(&node, "v2.1").await;
    let past = node.catalog().borrow().version(&view("v2.1")).unwrap().began_at.unwrap().get();
    let built = new.watched.applied();
    assert!(built.iter().all(|(position, replay)| *replay == (*position <= past)), "a rebuild is of the past, too");
    let (_, covers, before) = rows(&node, last).await.unwrap();

    // From one that replays: readers are not stuck with it.
    old.watched.shut();
    let replaying = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    until(&node, "it has begun", |status| status.projections[0].versions[0].tokens.iter().any(|it| it.replays())).await;
    let waits = node.ask_rows(Duration::from_millis(50)).await.unwrap_err();
    assert!(waits.contains("is replayed in place") && waits.contains("the end of the replay of v1.1"), "{waits}");
    let report = flip(&node).await;
    assert!(report.covers >= covers, "I-7");
    let (serves, covers_then, rows_then) = rows(&node, Position::START).await.unwrap();
    assert_eq!((serves, rows_then), (version("v2.1"), before));
    assert!(covers_then >= covers);

    // To one that replays: refused, and the status says why.
    let refused = node.rollback(&totals(), None, Asked::by("test")).await.unwrap_err();
    assert!(matches!(refused, Error::Catalog(CatalogRefused::ReplayUnderWay { .. })), "{refused}");
    let status = node.status().await.unwrap();
    let not_ready = status.projections[0].versions[0].rollback_ready.clone().unwrap();
    assert!(matches!(not_ready, Err(WaitingOn::Replay { .. })), "I-8: {not_ready:?}");
    old.watched.open();
    node.replayed(&replaying, WAIT_MAX).await.unwrap();
    roll_back(&node).await;
    check_serving(&node).await;

    // And none begins while readers are being moved.
    new.watched.shut();
    let next = add(&node, "ledger-1", 1).await;
    let requested = node.flip(&totals(), Some(version("v2.1")), Asked::by("test")).await.unwrap();
    let refused = ask_replay(&node, ReplayFrom::Start).await.unwrap_err();
    assert!(matches!(refused, Error::Catalog(CatalogRefused::FlipUnderWay { .. })), "{refused}");
    new.watched.open();
    node.flipped(&requested, WAIT_MAX).await.unwrap();
    node.read("totals", next).await.unwrap();
    check_serving(&node).await;
    node.shutdown().await;
}

/// Asking for rows with little patience.
trait AskRows {
    async fn ask_rows(&self, within: Duration) -> Result<(), String>;
}

impl AskRows for Node {
    async fn ask_rows(&self, within: Duration) -> Result<(), String> {
        let asked = self.ask(TotalOf("ledger-1".into())).within(within).await;
        asked.map(drop).map_err(|error| error.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_fails_is_tried_again_and_the_version_follows_meanwhile() {
    let sums = sums::<1>();
    let node = Node::builder().carry(sums.clone()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 20).await;
    sums.watched.reset_fails.store(true, Ordering::SeqCst);
    let requested = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    let status = until(&node, "it fails", |status| {
        let waiting_on = &status.projections[0].versions[0].waiting_on;
        waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Reset { attempts: 2.., .. }))
    })
    .await;
    assert!(status.projections[0].versions[0].waiting_on.iter().any(|reason| reason.to_string().contains("not now")));
    let last = fill(&node, 5).await;
    node.read("totals", last).await.unwrap();
    check_serving(&node).await;
    sums.watched.reset_fails.store(false, Ordering::SeqCst);
    node.replayed(&requested, WAIT_MAX).await.unwrap();
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_failed_is_tried_at_once_when_the_version_is_resumed() {
    let mut sums = sums::<1>();
    let never = Duration::from_secs(1_000_000);
    sums.options.retry = Retry { attempts: 10, first: never, longest: never };
    let node = Node::builder().carry(sums.clone()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 20).await;
    sums.watched.reset_fails.store(true, Ordering::SeqCst);
    let requested = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    until(&node, "it fails", |status| {
        let waiting_on = &status.projections[0].versions[0].waiting_on;
        waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Reset { attempts: 1, .. }))
    })
    .await;
    sums.watched.reset_fails.store(false, Ordering::SeqCst);
    node.resume(&requested.view, Asked::by("test")).await.unwrap();
    node.replayed(&requested, WAIT_MAX).await.unwrap();
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_failed_is_forgotten_when_its_replay_is_cancelled() {
    let sums = sums::<1>();
    let node = Node::builder().carry(sums.clone()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 20).await;
    sums.watched.reset_fails.store(true, Ordering::SeqCst);
    ask_replay(&node, ReplayFrom::Start).await.unwrap();
    let rests = |reason: &WaitingOn| matches!(reason, WaitingOn::Reset { .. });
    until(&node, "it fails", |status| status.projections[0].versions[0].waiting_on.iter().any(rests)).await;
    node.cancel(&totals(), Some(Cancel::Replay), None, Asked::by("test")).await.unwrap();
    until(&node, "nobody asks for it", |status| !status.projections[0].versions[0].waiting_on.iter().any(rests)).await;
    sums.watched.reset_fails.store(false, Ordering::SeqCst);
    let last = fill(&node, 5).await;
    node.read("totals", last).await.unwrap();
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_told_once_though_two_nodes_see_it() {
    let store = Store::memory(Arc::new(SystemClock));
    let node = Node::builder().store(store.clone()).carry(entries(InPlace::KeepsRows)).start().await.unwrap();
    serving(&node).await;
    fill(&node, 10).await;
    // It does not carry the code, so it claims nothing; it sees the tokens and plans as every node does.
    let other = Node::builder().store(store).start().await.unwrap();
    for _ in 0..10 {
        replay(&node, ReplayFrom::Start).await;
    }
    let told = ends(&node).await;
    assert_eq!(told, ["asked", "ended"].repeat(10));
    other.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_lost_its_last_commits_takes_the_replay_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let begin = async || {
        let sums = sums::<1>();
        let node = Node::builder().data(directory.path()).carry(sums.clone()).start().await.unwrap();
        (node, sums)
    };
    let file = directory.path().join("views/totals/v1.1.db");
    let (node, _) = begin().await;
    serving(&node).await;
    let last = fill(&node, 30).await;
    node.read("totals", last).await.unwrap();
    node.shutdown().await;
    drop(node);
    let before = std::fs::read(&file).unwrap();

    let (node, _) = begin().await;
    replay(&node, ReplayFrom::Start).await;
    node.shutdown().await;
    drop(node);
    // What a power cut may do: the journal has the end of the replay, and the view does not have its beginning.
    for suffix in ["-wal", "-shm"] {
        let beside = directory.path().join(format!("views/totals/v1.1.db{suffix}"));
        std::fs::remove_file(beside).ok();
    }
    std::fs::write(&file, before).unwrap();
    let (node, sums) = begin().await;
    until(&node, "it was replayed again", |_| {
        sums.watched.applied().iter().filter(|(_, replay)| *replay).count() == 30
    })
    .await;
    check_serving(&node).await;
    assert_eq!(ends(&node).await, ["asked", "ended"], "its end is told once");
    node.shutdown().await;
}

const CHILD: &str = "DACAPO_REPLAY_CHILD";

/// Ends the process at a step, as kill -9 would.
struct DieAt(Option<Step>);

impl Probe for DieAt {
    fn completed(&self, step: Step) {
        if self.0 == Some(step) {
            std::process::abort();
        }
    }
}

/// Ends the process after so many events of the replay.
#[derive(Clone)]
struct Dies {
    inner: Sums<1>,
    after: u64,
}

impl Projection for Dies {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { batch_events_max: 7, ..self.inner.options.clone() }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        self.inner.apply(event, view).await?;
        let replays = self.inner.watched.applied().iter().filter(|(_, replay)| *replay).count() as u64;
        if self.after > 0 && replays == self.after {
            std::process::abort();
        }
        Ok(())
    }

    async fn reset(&self, view: &mut View, after: Position) -> Result<(), HandlerError> {
        self.inner.reset(view, after).await
    }
}

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (dies, directory) = told.split_once(':').unwrap();
    let step = Step::REPLAY.into_iter().find(|known| format!("{known:?}") == dies);
    let after = dies.parse().unwrap_or(0);
    let builder = Node::builder().data(directory).probe(Arc::new(DieAt(step)));
    let node = builder.carry(Dies { inner: sums::<1>(), after }).start().await.unwrap();
    serving(&node).await;
    fill(&node, 100).await;
    node.read("totals", node.head()).await.unwrap();
    let requested = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    node.replayed(&requested, WAIT_MAX).await.unwrap();
    // A child that was to die at the end dies a moment after it was told.
    std::future::pending::<()>().await;
}

fn run_child(directory: &Path, dies: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, format!("{dies}:{}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its output ends when it does.
    BufReader::new(child.stdout.take().unwrap()).lines().for_each(drop);
    assert!(!child.wait().unwrap().success(), "{dies}: it was to die");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_may_die_anywhere_in_a_replay_and_exactly_at_its_end() {
    let steps = Step::REPLAY.map(|step| format!("{step:?}"));
    for dies in steps.into_iter().chain(["1", "50", "99", "100"].map(str::to_owned)) {
        let directory = tempfile::tempdir().unwrap();
        run_child(directory.path(), &dies);
        let sums = sums::<1>();
        let node = Node::builder().data(directory.path()).carry(sums.clone()).start().await.unwrap();
        let mut catalog = node.catalog();
        let over = catalog.wait_for(|catalog| catalog.version(&view("v1.1")).unwrap().replay.is_none());
        tokio::time::timeout(WAIT_MAX, over).await.unwrap_or_else(|_| panic!("{dies}: it ends")).unwrap();
        node.read("totals", node.head()).await.unwrap();
        check_serving(&node).await;
        assert_eq!(ends(&node).await, ["asked", "ended"], "{dies}");
        let resets = sums.watched.resets.load(Ordering::SeqCst);
        assert_eq!(resets, 0, "{dies}: a replay that has begun is gone on with");
        phase(&node, "v1.1", Phase::Serving).await;
        node.shutdown().await;
    }
}
