//! How long a batch of a rebuild is, and what a throttled one says.

use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::options::WorkShare;
use dacapo::status::WaitingOn;
use dacapo::{ExpectedRevision, HandlerError, Node, Options, Position, Projection, Recorded, Row, Table, View};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_rebuild_says_so_and_ends_all_the_same() {
    let node = Node::builder().start().await.unwrap();
    for ledger in ["ledger-1", "ledger-2"] {
        node.append(ledger, ExpectedRevision::Any, (0..10_000).map(added)).await.unwrap();
    }
    // So little that it says so for seconds, while somebody looks.
    let rebuild_share = WorkShare::percent(5).unwrap();
    node.add_projection(carry_v1(TotalsV1 { options: Options { rebuild_share, ..options() }, ..v1() })).unwrap();
    until(&node, "it says that it leaves time to others", |status| {
        let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.any(|found| found.waiting_on.contains(&WaitingOn::Share { share: rebuild_share }))
    })
    .await;
    phase(&node, "v1.1", Phase::Serving).await;
    check_serving(&node).await;
    let at_head = |status: &dacapo::status::Status| status.projections[0].versions[0].waiting_on.is_empty();
    until(&node, "it works whenever there is something to do", at_head).await;
    node.shutdown().await;
}

/// What takes its time at each event, and stops for good at one of them until it is told to go on.
#[derive(Debug)]
struct Slow {
    waits: bool,
    stops_at: u64,
    begun: watch::Sender<u64>,
    gate: watch::Sender<bool>,
}

impl Projection for Slow {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        const EACH: Duration = Duration::from_millis(10);
        let mut begun = 0;
        self.begun.send_modify(|events| {
            *events += 1;
            begun = *events;
        });
        if begun == self.stops_at {
            self.gate.subscribe().wait_for(|open| *open).await?;
        }
        if self.waits {
            tokio::time::sleep(EACH).await;
        } else {
            let began = Instant::now();
            while began.elapsed() < EACH {
                std::hint::spin_loop();
            }
        }
        let none = || Total { ledger: event.stream.to_owned(), sum: 0, events: 0 };
        Ok(view.upsert(event.stream, none, |row| row.events += 1).await?)
    }
}

/// Whatever waits for the end of a batch, as a claim, a stop or a flip does, would else wait for all that was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_ends_after_its_time_however_much_was_read() {
    const EVENTS: u64 = 200;
    for waits in [true, false] {
        let node = Node::builder().start().await.unwrap();
        node.append("ledger-1", ExpectedRevision::Any, (0..EVENTS as i64).map(added)).await.unwrap();
        let (begun, gate) = (watch::Sender::new(0), watch::Sender::new(false));
        let (mut begins, opens) = (begun.subscribe(), gate.clone());
        node.add_projection(Slow { waits, stops_at: EVENTS, begun, gate }).unwrap();
        tokio::time::timeout(WAIT_MAX, begins.wait_for(|events| *events == EVENTS)).await.unwrap().unwrap();
        until(&node, "some of it is committed", |status| {
            let covers = status.projections[0].versions[0].covers;
            assert!(covers < Position::new(EVENTS), "the last one is not applied yet");
            covers > Position::START
        })
        .await;
        opens.send_replace(true);
        phase(&node, "v1.1", Phase::Serving).await;
        let found =
            node.read("totals", node.head()).await.unwrap().view.get::<Total>("ledger-1").await.unwrap().unwrap();
        assert_eq!((found.events, *begins.borrow()), (EVENTS as i64, EVENTS), "each event once");
        node.shutdown().await;
    }
}

/// How many events [`Long`] has; its first batches have 1,000 and 16,000 of them, the next one may have all others.
const LONG_EVENTS: u64 = 60_000;
const LONG_BATCH: u64 = 17_000;

/// Waits at some event in the middle of a batch that may be long, once something of it was sent to the store, if it should.
#[derive(Debug)]
struct Long {
    sends: bool,
    each: Duration,
    waits_at: u64,
    waits: watch::Sender<bool>,
    gate: watch::Sender<bool>,
}

impl Projection for Long {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let position = event.position.get();
        if self.sends && position == LONG_BATCH + 1 {
            view.execute("DELETE FROM totals WHERE ledger = $1", &["none".into()]).await?;
        }
        if position == self.waits_at {
            self.waits.send_replace(true);
            self.gate.subscribe().wait_for(|open| *open).await?;
        }
        let began = Instant::now();
        while position > LONG_BATCH && began.elapsed() < self.each {
            std::hint::spin_loop();
        }
        let none = || Total { ledger: event.stream.to_owned(), sum: 0, events: 0 };
        Ok(view.upsert(event.stream, none, |row| row.events += 1).await?)
    }
}

/// A node that builds a [`Long`] view of a journal whose reads have a few thousand events each, and waits in it.
async fn long(directory: &std::path::Path, sends: bool, each: Duration, waits_at: u64) -> (Node, watch::Sender<bool>) {
    let node = Node::builder().data(directory).start().await.unwrap();
    for _ in 0..LONG_EVENTS / 10_000 {
        node.append("ledger-1", ExpectedRevision::Any, (0..10_000).map(added)).await.unwrap();
    }
    let (waits, gate) = (watch::Sender::new(false), watch::Sender::new(false));
    let (mut waiting, opens) = (waits.subscribe(), gate.clone());
    node.add_projection(Long { sends, each, waits_at, waits, gate }).unwrap();
    tokio::time::timeout(WAIT_MAX, waiting.wait_for(|waits| *waits)).await.unwrap().unwrap();
    (node, opens)
}

/// The batch could have all events that are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_batch_ends_once_somebody_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (node, gate) = long(directory.path(), false, Duration::ZERO, LONG_BATCH + 3_000).await;
    node.version(view("v1.1")).pause().await.unwrap();
    gate.send_replace(true);
    let covers = |status: &dacapo::status::Status| status.projections[0].versions[0].covers.get();
    let status = until(&node, "the batch is committed", |status| covers(status) > LONG_BATCH + 3_000).await;
    assert!(covers(&status) < LONG_EVENTS, "{}", covers(&status));
    node.version(view("v1.1")).resume().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.shutdown().await;
}

/// A transaction blocks others, and one that nothing is sent in for long is ended by a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_that_has_a_transaction_open_is_no_longer_than_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let (node, gate) = long(directory.path(), true, Duration::from_micros(40), LONG_EVENTS - 3_000).await;
    let covers = node.status().await.unwrap().projections[0].versions[0].covers;
    assert!(
        covers > Position::new(LONG_BATCH),
        "what was sent is committed long before the handler comes here: {covers}"
    );
    gate.send_replace(true);
    phase(&node, "v1.1", Phase::Serving).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_takes_long_is_seen_to_get_on() {
    let node = Scenario::new().serving(v1()).start().await;
    let first = add(&node, "ledger-1", 1).await;
    let second = v2();
    let gate = second.behaviour.gate.clone();
    gate.send_replace(false);
    node.add_projection(carry_v2(second)).unwrap();
    // In the middle of its batch, which has committed nothing.
    let status = until(&node, "it is told where the handler is", |status| {
        status.projections[0].versions.get(1).is_some_and(|found| found.reached.is_some())
    })
    .await;
    let found = &status.projections[0].versions[1];
    assert_eq!((found.covers, found.reached), (Position::START, Some(Position::new(first.get() - 1))));
    gate.send_replace(true);
    ready(&node, "v2.1").await;
    node.shutdown().await;
}
