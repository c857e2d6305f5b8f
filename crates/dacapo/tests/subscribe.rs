//! Subscriptions and subscribers on a whole node.

mod common;

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use dacapo::journal::{Filter, Streams};
use dacapo::operate::ReplayFrom;
use dacapo::status::WaitingOn;
use dacapo::store::StoreError;
use dacapo::subscribe::Subscriber;
use dacapo::{Error, ExpectedRevision, HandlerError, Node, NodeBuilder, Position, Recorded, limits};
use futures::StreamExt;
use tokio::sync::watch;

/// A node in memory, and one in a directory.
fn builders(directory: &Path) -> [NodeBuilder; 2] {
    [Node::builder(), Node::builder().data(directory)]
}

/// Every position that a subscription gives through the end of the journal.
async fn to_the_end(mut subscription: dacapo::subscribe::Subscription) -> Vec<u64> {
    let mut seen = vec![];
    while let Some(batch) = subscription.next().await.unwrap() {
        seen.extend(batch.iter().map(|event| event.position.get()));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_begin_while_others_append_get_each_event_once() {
    let directory = tempfile::tempdir().unwrap();
    for builder in builders(directory.path()) {
        let node = builder.start().await.unwrap();
        let writers = (0..4).map(|writer| {
            let node = node.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    add(&node, &format!("{}-{writer}", ["ledger", "book"][writer % 2]), number).await;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut following = vec![];
        for number in 0..40 {
            let after = Position::new(number * 7 % 100).min(node.head());
            let books = Filter { streams: Streams::Categories(vec!["book".into()]), types: None };
            let filter = if number % 2 == 0 { Filter::default() } else { books };
            let subscription = node.subscribe(after, filter.clone()).await.unwrap();
            following.push((after, filter, tokio::spawn(to_the_end(subscription))));
            add(&node, "ledger-x", 1).await;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        node.shutdown().await;
        let mut all = vec![];
        let everything =
            node.journal().read(Position::START, &Filter::default(), dacapo::journal::Limit::events(10_000)).await;
        all.extend(everything.unwrap().iter().map(|event| (event.position.get(), event.category() == "book")));
        assert_eq!(all.len(), 440);
        for (after, filter, seen) in following {
            let seen = tokio::time::timeout(WAIT_MAX, seen).await.expect("the shutdown ends it").unwrap();
            let wanted =
                |(position, book): &(u64, bool)| *position > after.get() && (*book || filter == Filter::default());
            let wanted: Vec<u64> = all.iter().filter(|event| wanted(event)).map(|(position, _)| *position).collect();
            assert_eq!(seen, wanted);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_holds_up_nobody_and_loses_nothing_when_the_tail_overflows() {
    let directory = tempfile::tempdir().unwrap();
    for builder in builders(directory.path()) {
        let node = builder.start().await.unwrap();
        let (mut slow, mut quick) = (
            node.subscribe(Position::START, Filter::default()).await.unwrap(),
            node.subscribe(Position::START, Filter::default()).await.unwrap(),
        );
        let first = add(&node, "ledger-1", 1).await;
        assert_eq!(slow.next().await.unwrap().unwrap().len(), 1);
        // More than the tail has room for, several times over.
        let mut last = Position::START;
        let each = 2_000;
        for _ in 0..limits::TAIL_EVENTS_MAX / each * 3 {
            let events = (0..each).map(|_| added(1));
            last = node.append("ledger-1", ExpectedRevision::Any, events).await.unwrap().position;
            while quick.position() < last {
                quick.next().await.unwrap().unwrap();
            }
        }
        assert_eq!(slow.position(), first, "it is given nothing that it does not ask for");
        let mut seen = vec![];
        while slow.position() < last {
            seen.extend(slow.next().await.unwrap().unwrap().iter().map(|event| event.position.get()));
        }
        assert_eq!(seen, (first.get() + 1..=last.get()).collect::<Vec<_>>());
        let last = add(&node, "ledger-1", 1).await;
        for subscription in [&mut slow, &mut quick] {
            let batch = subscription.next().await.unwrap().unwrap();
            assert_eq!((batch.len(), batch.through), (1, last));
        }
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_a_stream_too() {
    let node = Node::builder().start().await.unwrap();
    let last = add(&node, "ledger-1", 5).await;
    let mut stream = pin!(node.subscribe(Position::START, Filter::default()).await.unwrap().into_stream());
    assert_eq!(stream.next().await.unwrap().unwrap().through, last);
    node.shutdown().await;
    assert!(stream.next().await.is_none());
}

/// Writes down what it is given.
#[derive(Clone, Default)]
struct Notes {
    seen: Arc<Mutex<Vec<(u64, i64)>>>,
    from_start: bool,
    panics: Arc<AtomicBool>,
}

impl Notes {
    fn seen(&self) -> Vec<(u64, i64)> {
        self.seen.lock().unwrap().clone()
    }
}

impl Subscriber for Notes {
    const NAME: &'static str = "notes";
    type Event = LedgerEvent;

    fn after(&self, head: Position) -> Position {
        if self.from_start { Position::START } else { head }
    }

    fn categories(&self) -> Option<Vec<String>> {
        Some(vec!["ledger".into()])
    }

    async fn receive(&self, event: &Recorded<'_, LedgerEvent>) -> Result<(), HandlerError> {
        match event.data {
            LedgerEvent::Added { amount } => self.seen.lock().unwrap().push((event.position.get(), amount)),
            LedgerEvent::Doubted { .. } if self.panics.load(Ordering::SeqCst) => panic!("what is this?"),
            LedgerEvent::Doubted { .. } => return Err("doubtful".into()),
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_is_given_what_is_appended_from_the_start_of_the_node_on() {
    let directory = tempfile::tempdir().unwrap();
    let before = Node::builder().data(directory.path()).start().await.unwrap();
    let past = add(&before, "ledger-1", 1).await;
    before.shutdown().await;

    let (new, all) = (Notes::default(), Notes { from_start: true, ..Notes::default() });
    let builder = Node::builder().data(directory.path()).subscriber(new.clone()).subscriber(all.clone());
    let node = builder.start().await.unwrap();
    let first = add(&node, "ledger-1", 2).await;
    add(&node, "book-1", 3).await;
    let last = add(&node, "ledger-2", 4).await;
    until(&node, "both are at the head", |status| status.subscribers.iter().all(|found| found.lag == 0)).await;
    assert_eq!(new.seen(), [(first.get(), 2), (last.get(), 4)]);
    assert_eq!(all.seen(), [(past.get(), 1), (first.get(), 2), (last.get(), 4)]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_or_a_panic_of_a_subscriber_is_told_and_ends_neither_it_nor_others() {
    let (failing, panicking) = (Notes::default(), Notes::default());
    panicking.panics.store(true, Ordering::SeqCst);
    let builder = Node::builder().subscriber(failing.clone()).subscriber(panicking.clone());
    let node = builder.start().await.unwrap();
    let first = add(&node, "ledger-1", 1).await;
    let doubted = node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 5 }]).await.unwrap();
    let last = add(&node, "ledger-1", 2).await;
    let status = until(&node, "both went on", |status| status.subscribers.iter().all(|found| found.lag == 0)).await;
    for (found, error) in status.subscribers.iter().zip(["doubtful", "it panicked: what is this?"]) {
        let failure = found.last_failure.as_ref().unwrap();
        assert_eq!((found.name, found.failed, failure.position), ("notes", 1, doubted.position), "I-11");
        assert_eq!(failure.error, error);
    }
    for notes in [failing, panicking] {
        assert_eq!(notes.seen(), [(first.get(), 1), (last.get(), 2)]);
    }
    node.shutdown().await;
}

/// Takes nothing before it is let.
struct Gated {
    gate: watch::Receiver<bool>,
    notes: Notes,
}

impl Subscriber for Gated {
    const NAME: &'static str = "gated";
    type Event = LedgerEvent;

    async fn receive(&self, event: &Recorded<'_, LedgerEvent>) -> Result<(), HandlerError> {
        self.gate.clone().wait_for(|open| *open).await?;
        self.notes.receive(event).await
    }
}

// The shutdown waits only so long, so the time stands still while there is something to do.
#[tokio::test(start_paused = true)]
async fn a_subscriber_is_given_the_rest_at_the_shutdown_and_others_do_not_wait_for_it() {
    let (gate, quick, notes) = (watch::Sender::new(false), Notes::default(), Notes::default());
    let gated = Gated { gate: gate.subscribe(), notes: notes.clone() };
    let node = Node::builder().subscriber(gated).subscriber(quick.clone()).start().await.unwrap();
    for number in 1..=50 {
        add(&node, "ledger-1", number).await;
    }
    let status = until(&node, "the quick one is at the head", |status| status.subscribers[1].lag == 0).await;
    assert_eq!(status.subscribers[0].lag, status.head.get(), "it is seen to be behind");
    let ending = tokio::spawn({
        let node = node.clone();
        async move { node.shutdown().await }
    });
    while node.append("ledger-1", ExpectedRevision::Any, [added(1)]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.send_replace(true);
    ending.await.unwrap();
    assert_eq!(notes.seen(), quick.seen());
    assert!(notes.seen().len() >= 50);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_never_returns_does_not_hold_the_shutdown() {
    let (_shut, gate) = watch::channel(false);
    let gated = Gated { gate, notes: Notes::default() };
    let node = Node::builder().subscriber(gated).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    let begun = tokio::time::Instant::now();
    node.shutdown().await;
    assert!(begun.elapsed() >= limits::STOP_TIME_MAX && begun.elapsed() < 2 * limits::STOP_TIME_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_end_with_a_node_that_is_dropped() {
    let (shut, gate) = watch::channel(true);
    let node = Node::builder().subscriber(Gated { gate, notes: Notes::default() }).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    drop(node);
    tokio::time::timeout(WAIT_MAX, shut.closed()).await.expect("the subscriber is dropped as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_seen_what_is_not_in_the_journal_is_told_at_every_door() {
    let directory = tempfile::tempdir().unwrap();
    for builder in builders(directory.path()) {
        let node = builder.projection(carry_v1(v1())).start().await.unwrap();
        add(&node, "ledger-1", 1).await;
        // The catalog's own events come when they like.
        let beyond = Position::new(1_000);
        let told = |found: Result<(), Error>| match found {
            Err(Error::Store(StoreError::BeyondHead { after, head })) => {
                assert!(after == beyond && head > Position::START && head <= node.head());
            }
            other => panic!("{other:?}"),
        };
        told(node.subscribe(beyond, Filter::default()).await.map(drop));
        told(node.version(view("v1.1")).letters().after(beyond).limit(9).await.map(drop));
        told(node.check_seen(beyond).await);
        let from = ReplayFrom::Position(beyond);
        let replay = node.version(view("v1.1")).replay(from).by("test").await;
        assert!(matches!(replay, Err(Error::NotInPlace { .. } | Error::NoTarget(_))), "{replay:?}");
        // A position may be about to come from elsewhere, so whoever asks for it waits, and is told in the end.
        let asked = node.ask(TotalOf("ledger-1".into())).after(beyond).within(Duration::from_millis(1)).await;
        let Err(Error::TimedOut { waiting_on, .. }) = asked else { panic!("{asked:?}") };
        assert!(matches!(waiting_on[..], [WaitingOn::BeyondHead { position, .. }] if position == beyond));
        node.shutdown().await;
    }
}

/// Says that it has seen what is not there.
struct Ahead(Notes);

impl Subscriber for Ahead {
    const NAME: &'static str = "ahead";
    type Event = LedgerEvent;

    fn after(&self, head: Position) -> Position {
        head.plus(2)
    }

    async fn receive(&self, event: &Recorded<'_, LedgerEvent>) -> Result<(), HandlerError> {
        self.0.receive(event).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_begins_beyond_the_end_is_given_nothing_and_says_why() {
    let (notes, others) = (Notes::default(), Notes::default());
    let node = Node::builder().subscriber(Ahead(notes.clone())).subscriber(others.clone()).start().await.unwrap();
    let status = until(&node, "it is told", |status| !status.subscribers[0].waiting_on.is_empty()).await;
    let (position, head) = (Position::new(2), Position::START);
    assert_eq!(status.subscribers[0].waiting_on, [WaitingOn::BeyondHead { position, head }]);
    for number in 1..=5 {
        add(&node, "ledger-1", number).await;
    }
    let status = until(&node, "the other one is at the head", |status| status.subscribers[1].lag == 0).await;
    assert_eq!(status.subscribers[0].waiting_on, [WaitingOn::BeyondHead { position, head }]);
    node.shutdown().await;
    assert_eq!((notes.seen().len(), others.seen().len()), (0, 5));
}

/// Is called for streams of these categories.
struct Of(Vec<String>);

impl Subscriber for Of {
    const NAME: &'static str = "of";
    type Event = LedgerEvent;

    fn categories(&self) -> Option<Vec<String>> {
        Some(self.0.clone())
    }

    async fn receive(&self, _: &Recorded<'_, LedgerEvent>) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_of_a_category_that_no_stream_has_is_refused_by_name() {
    for (category, told) in [("order-line", "\"order\""), ("", "first '-'"), ("$catalog", "belong to dacapo")] {
        let refused = Node::builder().subscriber(Of(vec![category.into()])).start().await.err();
        let text = refused.map(|refused| refused.to_string()).unwrap_or_default();
        assert!(text.contains("subscriber of") && text.contains(told), "{category:?}: {text}");
    }
    let node = Node::builder().start().await.unwrap();
    let of = |category: &str| Filter { streams: Streams::Categories(vec![category.into()]), types: None };
    let refused = node.subscribe(Position::START, of("order-line")).await.err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|text| text.contains("first '-'")), "{refused:?}");
    assert!(node.subscribe(Position::START, of("$catalog")).await.is_ok(), "an operator may look");
    node.shutdown().await;
}
