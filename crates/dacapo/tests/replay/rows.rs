//! Rows are made again where readers use them, and end where they were.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dacapo::catalog::CatalogRefused;
use dacapo::operate::ReplayFrom;
use dacapo::options::InPlace;
use dacapo::status::WaitingOn;
use dacapo::{Error, ExpectedRevision, Node, Position, Projection};

use super::setup::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_reset_and_made_again_and_no_reader_goes_back() {
    let sums = sums::<1>();
    let node = Node::builder().projection(sums.clone()).start().await.unwrap();
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
    let report = requested.done().within(WAIT_MAX).await.unwrap();
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
    let node = Node::builder().projection(entries.clone()).start().await.unwrap();
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
    let early = requested.done().within(Duration::ZERO).await.unwrap_err();
    assert!(early.to_string().contains("the end of the replay of v1.1, at position"), "{early}");
    entries.watched.open();
    let report = requested.done().within(WAIT_MAX).await.unwrap();
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
    let node = Node::builder().clock(Arc::clone(&clock) as _).projection(entries.clone()).start().await.unwrap();
    serving(&node).await;
    let mut positions = vec![];
    for number in 0..10 {
        clock.advance(Duration::from_secs(1));
        positions.push(add(&node, "ledger-1", number).await);
    }
    let batch = node
        .journal()
        .read(positions[5], &dacapo::journal::Filter::default(), dacapo::journal::Limit::events(1))
        .await
        .unwrap();
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
        (ReplayFrom::Event(dacapo::journal::EventId::from_bytes([7; 16])), "is not in the journal"),
        (ReplayFrom::Position(node.head().plus(9)), "there is nothing to replay from position"),
        (ReplayFrom::Time(dacapo::journal::Timestamp::from_micros(i64::MAX / 2)), "there is nothing to replay"),
    ] {
        let error = ask_replay(&node, from).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_at_different_tokens_each_end_where_they_were() {
    let entries = entries(InPlace::KeepsRows);
    entries.watched.behaviour.refuse.store(true, Ordering::SeqCst);
    let node = Node::builder().projection(entries.clone()).start().await.unwrap();
    serving(&node).await;
    fill(&node, 20).await;
    let doubted = node.append("ledger-3", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 5 }]).await.unwrap();
    let last = fill(&node, 20).await;
    let at = |status: &dacapo::status::Status| {
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
    let node = Node::builder().projection(old.clone().answering::<TotalOf>()).start().await.unwrap();
    serving(&node).await;
    let last = fill(&node, 50).await;
    node.add_projection(new.clone().answering::<TotalOf>()).unwrap();
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
    assert!(waits.contains("does not cover position") && waits.contains("the end of the replay of v1.1"), "{waits}");
    let report = flip(&node).await;
    assert!(report.covers >= covers, "I-7");
    let (serves, covers_then, rows_then) = rows(&node, Position::START).await.unwrap();
    assert_eq!((serves, rows_then), (version("v2.1"), before));
    assert!(covers_then >= covers);

    // To one that replays: refused, and the status says why.
    let refused = node.projection(totals()).unwrap().rollback().by("test").await.unwrap_err();
    assert!(matches!(refused, Error::Catalog(CatalogRefused::ReplayUnderWay { .. })), "{refused}");
    let status = node.status().await.unwrap();
    let not_ready = status.projections[0].versions[0].rollback_ready.clone().unwrap();
    assert!(matches!(not_ready, Err(WaitingOn::Replay { .. })), "I-8: {not_ready:?}");
    old.watched.open();
    replaying.done().within(WAIT_MAX).await.unwrap();
    roll_back(&node).await;
    check_serving(&node).await;

    // And none begins while readers are being moved.
    new.watched.shut();
    let next = add(&node, "ledger-1", 1).await;
    let requested = node.version(view("v2.1")).flip().by("test").await.unwrap();
    let refused = ask_replay(&node, ReplayFrom::Start).await.unwrap_err();
    assert!(matches!(refused, Error::Catalog(CatalogRefused::FlipUnderWay { .. })), "{refused}");
    new.watched.open();
    requested.done().within(WAIT_MAX).await.unwrap();
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
