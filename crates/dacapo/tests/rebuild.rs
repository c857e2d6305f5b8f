//! Rebuilds and flips in one process: under traffic, back and forth, held up, superseded, cleaned up.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::*;
use dacapo::{
    Asked, Cancel, CatalogEvent, Error, ExpectedRevision, FlipKind, FlipPolicy, HandlerError, Node, Options, Phase,
    Position, Probe, Projection, RebuildOptions, Recorded, Revision, Row, Step, Table, View, WaitingOn, WorkShare,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// Appends and reads without a pause, and checks every answer against its own books.
async fn client(node: Node, number: usize, stop: Arc<AtomicBool>) -> usize {
    let (mut sum, mut events, mut requests) = (0, 0, 0);
    let mut covers = Position::START;
    let mut shown: HashMap<usize, i64> = HashMap::new();
    let own = format!("ledger-{number}");
    while !stop.load(Ordering::SeqCst) {
        let expected = ExpectedRevision::Exact(Revision::new(events as u64));
        let appended = node.append(&own, expected, [added(events + 1)]).await.unwrap();
        events += 1;
        sum += events;
        let answered = node.ask(TotalOf(own.clone())).after(appended.position).await.unwrap();
        assert_eq!(answered.value, (sum, events), "nothing is lost or applied twice, in {}", answered.version);
        assert!(answered.covers >= covers, "I-7");
        covers = answered.covers;
        // Without naming a position.
        let other = (number + requests) % 4;
        let answered = node.ask(TotalOf(format!("ledger-{other}"))).await.unwrap();
        assert!(answered.covers >= covers, "I-7: {} after {covers}", answered.covers);
        covers = answered.covers;
        let before = shown.insert(other, answered.value.1).unwrap_or_default();
        assert!(answered.value.1 >= before, "I-7");
        requests += 1;
    }
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_go_back_while_versions_flip_back_and_forth() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|number| tokio::spawn(client(node.clone(), number, Arc::clone(&stop)))).collect();
    node.carry(carry_v2(v2())).unwrap();
    ready(&node, "v2.1").await;
    for round in 0..10 {
        let report = flip(&node).await;
        assert_eq!((report.to, report.kind), (version("v2.1"), FlipKind::Flip), "round {round}");
        assert!(report.pause.is_some(), "this node held the old version");
        let report = roll_back(&node).await;
        assert_eq!((report.to, report.kind), (version("v1.1"), FlipKind::Rollback), "round {round}");
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    check_serving(&node).await;
    flip(&node).await;
    check_serving(&node).await;
    check_history(&node).await;
    node.shutdown().await;
}

/// I-5 and I-6, from the history alone.
async fn check_history(node: &Node) {
    let mut serving = None;
    let mut requested = Position::START;
    for entry in node.history().await.unwrap() {
        match entry.event {
            CatalogEvent::FlipRequested { .. } => requested = entry.position,
            CatalogEvent::Flipped { view, from, covers, .. } => {
                assert_eq!(from, serving, "I-5");
                assert!(covers >= requested, "I-6");
                serving = Some(view.version);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_flips_by_itself_when_its_policy_says_so() {
    let options = Options { flip: FlipPolicy::WhenReady, ..options() };
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(TotalsV2 { options, ..v2() })).unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    phase(&node, "v1.1", Phase::StandingBy).await;
    let position = add(&node, "ledger-1", 2).await;
    // The hold of the flip may be noticed a moment longer.
    until(&node, "I-8: the old version follows and is ready for a rollback", |status| {
        let old = &status.projections[0].versions[0];
        old.covers >= position && old.rollback_ready == Some(Ok(()))
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_by_ends_after_its_time_and_the_view_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let options = Options { stand_by: Duration::from_secs(3_600), ..options() };
    let builder = Node::builder().data(directory.path()).clock(Arc::clone(&clock) as Arc<dyn dacapo::Clock>);
    let builder = builder.carry(carry_v1(TotalsV1 { options: options.clone(), ..v1() }));
    let node = builder.start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(TotalsV2 { options, ..v2() })).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    clock.advance(Duration::from_secs(3_599));
    until(&node, "version 1 stands by and waits for nothing but the end of that", |status| {
        let old = &status.projections[0].versions[0];
        old.phase == Phase::StandingBy && matches!(old.waiting_on[..], [WaitingOn::StandBy { .. }])
    })
    .await;

    let file = directory.path().join("views/totals/v1.1.db");
    assert!(file.exists());
    clock.advance(Duration::from_secs(1));
    phase(&node, "v1.1", Phase::Obsolete).await;
    assert!(!file.exists(), "I-12");
    let refused = node.rollback(&totals(), None, Asked::by("test")).await.unwrap_err();
    assert!(matches!(refused, Error::NoTarget(_)), "{refused}");
    let refused = node.rollback(&totals(), Some(version("v1.1")), Asked::by("test")).await.unwrap_err();
    assert!(refused.to_string().contains("cannot flip to totals v1.1: it is Obsolete"), "{refused}");
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_was_made_again_after_its_version_was_gone_goes_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let builder = || Node::builder().data(directory.path()).carry(carry_v1(v1()));
    let node = builder().start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(v2())).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    node.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
    phase(&node, "v1.1", Phase::Obsolete).await;
    node.shutdown().await;
    drop(node);

    // As a process leaves it that did not know yet and was killed before it looked again.
    let store = dacapo::Store::embedded(directory.path(), Arc::new(dacapo::SystemClock)).unwrap();
    store.views.open(&view("v1.1"), TotalsV1::TABLES, options().segments).await.unwrap();
    store.journal.close().await;
    drop(store);
    let file = directory.path().join("views/totals/v1.1.db");
    assert!(file.exists());
    let node = builder().carry(carry_v2(v2())).start().await.unwrap();
    assert!(!file.exists(), "I-12");
    check_serving(&node).await;
    node.shutdown().await;
}

/// Stops a flip once the new version covers its request, until it is let go.
struct StopAtCovered {
    covered: watch::Sender<bool>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Probe for StopAtCovered {
    fn completed(&self, step: Step) {
        if step == Step::FlipCovered {
            self.covered.send_replace(true);
            // An error means that nobody wants it stopped any more.
            self.go.lock().unwrap().recv().ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hold_that_runs_out_of_its_budget_is_lifted_and_tried_again() {
    let (go, stopped) = mpsc::channel();
    let probe = Arc::new(StopAtCovered { covered: watch::Sender::new(false), go: Mutex::new(stopped) });
    let version_2 = v2();
    let builder = Node::builder().carry(carry_v1(v1())).probe(Arc::clone(&probe) as Arc<dyn Probe>);
    let node = builder.start().await.unwrap();
    go.send(()).unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    probe.covered.send_replace(false);
    node.carry(carry_v2(version_2.clone())).unwrap();
    ready(&node, "v2.1").await;

    // Version 2 covers the request. Then version 1 shows one event more, at which version 2 stops.
    let requested = node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    probe.covered.subscribe().wait_for(|covered| *covered).await.unwrap();
    version_2.behaviour.gate.send_replace(false);
    let shown = add(&node, "ledger-1", 1).await;
    assert_eq!(ask(&node, "ledger-1", shown).await, (1, 1));
    drop(go);

    let mut catalog = node.catalog();
    let postponed = catalog.wait_for(|catalog| {
        catalog.projections[&totals()].flip.is_some_and(|flip| flip.hold > requested.position.unwrap())
    });
    tokio::time::timeout(WAIT_MAX, postponed).await.expect("the hold is given up in the journal").unwrap();
    let later = add(&node, "ledger-1", 1).await;
    assert_eq!(ask(&node, "ledger-1", later).await, (2, 2), "version 1 goes on between two holds");
    assert_eq!(node.catalog().borrow().serving(&totals()), Some(version("v1.1")));

    version_2.behaviour.gate.send_replace(true);
    phase(&node, "v2.1", Phase::Serving).await;
    check_serving(&node).await;
    check_history(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_waits_for_a_version_that_is_behind_and_says_so() {
    let version_2 = v2();
    version_2.behaviour.gate.send_replace(false);
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(version_2.clone())).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let requested = node.flip(&totals(), None, Asked::by("test")).await.unwrap();
    until(&node, "I-11: the flip says which segment it waits on", |status| {
        let flip = status.projections[0].flip.as_ref();
        flip.is_some_and(|(_, reasons)| reasons.iter().any(|reason| matches!(reason, WaitingOn::Segment { .. })))
    })
    .await;
    let error = node.flipped(&requested, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");

    // Giving the version up aborts its flip, although its handler still waits.
    node.clean_up(&view("v2.1"), Asked::by("test")).await.unwrap();
    let error = node.flipped(&requested, WAIT_MAX).await.unwrap_err();
    assert!(matches!(error, Error::FlipAborted { .. }), "{error}");
    phase(&node, "v2.1", Phase::Obsolete).await;
    assert_eq!(node.catalog().borrow().serving(&totals()), Some(version("v1.1")));
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_version_supersedes_one_that_does_not_serve_yet() {
    let version_2 = v2();
    version_2.behaviour.gate.send_replace(false);
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(carry_v2(version_2.clone())).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let second = node.rebuild(&totals(), Some(2), Asked::by("test")).await.unwrap();
    assert_eq!(second.view.version, version("v2.2"));
    version_2.behaviour.gate.send_replace(true);
    phase(&node, "v2.1", Phase::Obsolete).await;
    ready(&node, "v2.2").await;
    flip(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_version_whose_code_is_gone_does_not_block_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::builder().data(directory.path()).carry(carry_v1(v1())).start().await.unwrap();
    let position = add(&node, "ledger-1", 1).await;
    ask(&node, "ledger-1", position).await;
    node.shutdown().await;

    let options = Options { flip: FlipPolicy::WhenReady, ..options() };
    let version_2 = TotalsV2 { options, ..v2() };
    let node = Node::builder().data(directory.path()).carry(carry_v2(version_2)).start().await.unwrap();
    phase(&node, "v2.1", Phase::Serving).await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (1, 1));
    let status = node.status().await.unwrap();
    let old = &status.projections[0].versions[0];
    assert_eq!(old.rollback_ready, Some(Err(WaitingOn::Code { version: version("v1.1") })), "I-8");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_rebuild_says_so_and_ends_all_the_same() {
    let node = Node::builder().start().await.unwrap();
    for ledger in ["ledger-1", "ledger-2"] {
        node.append(ledger, ExpectedRevision::Any, (0..10_000).map(added)).await.unwrap();
    }
    // So little that it says so for seconds, while somebody looks.
    let rebuild_share = WorkShare::percent(5).unwrap();
    node.carry(carry_v1(TotalsV1 { options: Options { rebuild_share, ..options() }, ..v1() })).unwrap();
    until(&node, "it says that it leaves time to others", |status| {
        let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.any(|found| found.waiting_on.contains(&WaitingOn::Share { share: rebuild_share }))
    })
    .await;
    phase(&node, "v1.1", Phase::Serving).await;
    check_serving(&node).await;
    let at_head = |status: &dacapo::Status| status.projections[0].versions[0].waiting_on.is_empty();
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
        node.carry(Slow { waits, stops_at: EVENTS, begun, gate }).unwrap();
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
    node.carry(Long { sends, each, waits_at, waits, gate }).unwrap();
    tokio::time::timeout(WAIT_MAX, waiting.wait_for(|waits| *waits)).await.unwrap().unwrap();
    (node, opens)
}

/// The batch could have all events that are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_batch_ends_once_somebody_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (node, gate) = long(directory.path(), false, Duration::ZERO, LONG_BATCH + 3_000).await;
    node.pause(&view("v1.1"), Asked::default()).await.unwrap();
    gate.send_replace(true);
    let covers = |status: &dacapo::Status| status.projections[0].versions[0].covers.get();
    let status = until(&node, "the batch is committed", |status| covers(status) > LONG_BATCH + 3_000).await;
    assert!(covers(&status) < LONG_EVENTS, "{}", covers(&status));
    node.resume(&view("v1.1"), Asked::default()).await.unwrap();
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

fn refusal(error: Error) -> dacapo::CatalogRefused {
    match error {
        Error::Catalog(refused) => refused,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_and_a_rebuild_are_cancelled_until_the_version_serves() {
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 1).await;
    let mut second = v2();
    second.options.flip = FlipPolicy::WhenReady;
    let gate = second.behaviour.gate.clone();
    gate.send_replace(false);
    node.carry(carry_v2(second)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    // It is asked for, and cannot happen yet.
    let requested = node.flip(&totals(), None, Asked::by("ana")).await.unwrap();
    let unclear = node.cancel(&totals(), None, None, Asked::by("ben")).await.unwrap_err().to_string();
    assert!(unclear.contains("the flip to v2.1, or the rebuild of v2.1"), "{unclear}");
    let waits = tokio::spawn({
        let (node, requested) = (node.clone(), requested.clone());
        async move { node.flipped(&requested, WAIT_MAX).await }
    });
    let asked = Asked { idempotency_key: Some("k".into()), ..Asked::by("ben").because("not today") };
    let cancelled = node.cancel(&totals(), Some(Cancel::Flip), None, asked.clone()).await.unwrap();
    assert_eq!(cancelled.requested.view, view("v2.1"));
    let told = waits.await.unwrap().unwrap_err();
    assert!(matches!(&told, Error::FlipAborted { reason, .. } if reason == "ben cancelled it: not today"), "{told}");
    gate.send_replace(true);
    ready(&node, "v2.1").await;
    check_serving(&node).await;
    assert_eq!(node.catalog().borrow().serving(&totals()), Some(version("v1.1")), "nor by itself");

    flip(&node).await;
    let late = node.cancel(&totals(), Some(Cancel::Flip), None, Asked::by("ben")).await.unwrap_err();
    assert_eq!(refusal(late).to_string(), "the flip to totals v2.1 cannot be cancelled, it is too late: it serves");
    let late = node.cancel(&totals(), Some(Cancel::Rebuild), Some(version("v2.1")), Asked::by("ben")).await;
    assert!(matches!(refusal(late.unwrap_err()), dacapo::CatalogRefused::TooLate { .. }));
    assert_eq!(node.cancel(&totals(), Some(Cancel::Flip), None, asked).await.unwrap(), cancelled, "under its key");

    gate.send_replace(false);
    let rebuilt = node.rebuild(&totals(), None, Asked::by("ana")).await.unwrap();
    let cancelled = node.cancel(&totals(), None, None, Asked::by("ben")).await.unwrap();
    assert_eq!((cancelled.what, &cancelled.requested.view), (Cancel::Rebuild, &rebuilt.view));
    gate.send_replace(true);
    phase(&node, "v2.2", Phase::Obsolete).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_says_what_it_discards_and_needs_to_be_told_so_for_what_is_ready() {
    let node = Node::builder().carry(carry_v1(v1())).carry(carry_v2(v2())).start().await.unwrap();
    ready_and_flip(&node, "v2.1").await;
    let how = RebuildOptions::default();
    let first = node.rebuild_with(&totals(), how, Asked::by("ana")).await.unwrap();
    assert_eq!(first.discards, []);
    ready(&node, "v2.2").await;
    let refused = node.rebuild_with(&totals(), how, Asked::by("ana")).await.unwrap_err();
    assert!(matches!(&refused, Error::WouldDiscard { view: of } if *of == view("v2.2")), "{refused}");
    let plain = node.rebuild(&totals(), None, Asked::by("ana")).await;
    let copy = node.rebuild_from_copy(&totals(), None, Asked::by("ana")).await;
    for refused in [plain, copy] {
        assert!(matches!(refused, Err(Error::WouldDiscard { .. })), "however it is asked for: {refused:?}");
    }
    let how = RebuildOptions { discard: true, ..how };
    assert_eq!(node.rebuild_with(&totals(), how, Asked::by("ana")).await.unwrap().discards, [version("v2.2")]);
    let how = RebuildOptions { code: Some(7), ..how };
    let missing = node.rebuild_with(&totals(), how, Asked::by("ana")).await.unwrap_err().to_string();
    assert_eq!(missing, "no node carries version 7 of the code of totals: carried are 1, 2");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_takes_long_is_seen_to_get_on() {
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let first = add(&node, "ledger-1", 1).await;
    let second = v2();
    let gate = second.behaviour.gate.clone();
    gate.send_replace(false);
    node.carry(carry_v2(second)).unwrap();
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
