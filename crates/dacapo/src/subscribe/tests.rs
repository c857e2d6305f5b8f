//! Every interleaving of appends, reads and subscribers gives each event once and in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use dacapo_model::{EventId, EventType, Metadata, NewEvent, Position, StreamName, Timestamp, limits};
use dacapo_store::memory::MemoryJournal;
use dacapo_store::{Append, Clock, EventBatch, Filter, Journal, Limit, OnKnown, StoreError, StreamEvent, Streams};
use proptest::prelude::*;

use super::{Bounds, Subscription, Tail};

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }
}

/// A journal that counts its reads and lets others go first while it reads.
struct Slow {
    inner: MemoryJournal,
    reads: AtomicU64,
    pauses: Vec<u8>,
    blocks: bool,
    /// How many reads are under way, and how many were at most.
    under_way: AtomicU64,
    most: AtomicU64,
    /// Where the last read was.
    read_on: Mutex<Option<ThreadId>>,
}

impl Slow {
    fn new(pauses: Vec<u8>) -> Arc<Self> {
        Arc::new(Self::of(pauses, true))
    }

    fn of(pauses: Vec<u8>, blocks: bool) -> Self {
        let inner = MemoryJournal::new(Arc::new(Epoch));
        let (reads, under_way, most, read_on) = Default::default();
        Self { inner, reads, pauses, blocks, under_way, most, read_on }
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    async fn append_to(&self, stream: &str, first: u64, count: u64) {
        let event = |number: u64| StreamEvent {
            stream: StreamName::new(stream).unwrap(),
            event: NewEvent {
                id: EventId::from_bytes(u128::from(number).to_be_bytes()),
                event_type: EventType::new("counted").unwrap(),
                payload: b"{}".to_vec(),
                metadata: Metadata::default(),
                tags: vec![],
            },
        };
        let events = (first..first + count).map(event).collect();
        self.append(Append { events, expected: vec![], on_known: OnKnown::Recognise }).await.unwrap();
    }
}

async fn pause(times: u8) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

impl Slow {
    async fn read_slowly(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst) as usize;
        *self.read_on.lock().unwrap() = Some(thread::current().id());
        let times = self.pauses.get(number % self.pauses.len().max(1)).copied().unwrap_or(0);
        self.most.fetch_max(self.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        pause(times / 2).await;
        let batch = self.inner.read(after, filter, limit).await;
        pause(times - times / 2).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        batch
    }
}

dacapo_store::delegate! {
    impl Journal for Slow {
        id;
        mark;
        append;
        read => read_slowly;
        read_stream;
        stream_revision;
        streams;
        { fn blocks(&self) -> bool { self.blocks } }
        head;
        close;
    }
}

/// One who subscribes at some time, from somewhere, and is more or less slow.
#[derive(Clone, Debug)]
struct Who {
    begins: u8,
    after: u64,
    only_a: bool,
    slow: u8,
    /// Gives up the future of `next` so often before it waits for it.
    gives_up: u8,
}

fn who() -> impl Strategy<Value = Who> {
    (0..60_u8, 0..40_u64, any::<bool>(), 0..30_u8, 0..3_u8).prop_map(|(begins, after, only_a, slow, gives_up)| Who {
        begins,
        after,
        only_a,
        slow,
        gives_up,
    })
}

fn filter(who: &Who) -> Filter {
    match who.only_a {
        true => Filter { streams: Streams::Categories(vec!["a".into()]), types: None },
        false => Filter::default(),
    }
}

/// What `who` is given from where it begins, which it has seen, to the end of the journal.
async fn follow(tail: Arc<Tail>, who: Who) -> (u64, Vec<u64>) {
    pause(who.begins).await;
    let after = Position::new(who.after).min(*tail.journal().head().borrow());
    (after.get(), given_after(after, tail, who).await)
}

async fn given_after(after: Position, tail: Arc<Tail>, who: Who) -> Vec<u64> {
    let mut subscription = Subscription::on(tail, after, filter(&who)).await.unwrap();
    let mut seen = Vec::new();
    loop {
        for _ in 0..who.gives_up {
            let next = tokio::time::timeout(std::time::Duration::ZERO, subscription.next()).await;
            if let Ok(given) = next {
                let Some(batch) = given.unwrap() else { return seen };
                seen.extend(batch.iter().map(|event| event.position.get()));
            }
        }
        let Some(batch) = subscription.next().await.unwrap() else { return seen };
        seen.extend(batch.iter().map(|event| event.position.get()));
        assert!(batch.through == subscription.position());
        pause(who.slow).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    // Nothing is lost, nothing comes twice, all in order, wherever the hand-over falls.
    #[test]
    fn each_event_is_given_once_and_in_order(
        appends in prop::collection::vec((any::<bool>(), 1..6_u64, 0..9_u8), 1..40),
        followers in prop::collection::vec(who(), 1..7),
        pauses in prop::collection::vec(0..7_u8, 1..9),
        events_max in 1..12_usize, bytes_max in prop_oneof![Just(1_usize), Just(400), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let journal = Slow::new(pauses);
            let tail = Arc::new(Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max, bytes_max }));
            let following: Vec<_> =
                followers.iter().map(|who| tokio::spawn(follow(Arc::clone(&tail), who.clone()))).collect();
            let (mut written, mut of_a) = (0, vec![]);
            for (to_a, count, rest) in appends {
                journal.append_to(if to_a { "a-1" } else { "b-1" }, written + 1, count).await;
                of_a.extend((written + 1..=written + count).filter(|_| to_a));
                written += count;
                pause(rest).await;
            }
            journal.close().await;
            for (who, following) in followers.iter().zip(following) {
                let (after, seen) = following.await.unwrap();
                let all: Vec<u64> = if who.only_a { of_a.clone() } else { (1..=written).collect() };
                let wanted: Vec<u64> = all.into_iter().filter(|position| *position > after).collect();
                prop_assert_eq!(seen, wanted, "{:?}", who);
            }
            Ok(())
        })?;
    }
}

async fn given(subscription: &mut Subscription) -> Vec<u64> {
    let batch = subscription.next().await.unwrap().unwrap();
    batch.iter().map(|event| event.position.get()).collect()
}

#[tokio::test]
async fn who_is_live_shares_one_read() {
    let journal = Slow::new(vec![2]);
    let tail = Arc::new(Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max: 8, bytes_max: 4096 }));
    let mut live = Vec::new();
    for _ in 0..50 {
        live.push(Subscription::on(Arc::clone(&tail), Position::START, Filter::default()).await.unwrap());
    }
    for number in 1..=20 {
        journal.append_to("a-1", number, 1).await;
        for seen in futures::future::join_all(live.iter_mut().map(given)).await {
            assert_eq!(seen, [number]);
        }
        assert_eq!(journal.reads(), number, "one read for all of them");
    }
}

/// Though what they wait for does not come: what is appended is read once for all.
#[tokio::test]
async fn who_waits_for_what_does_not_come_does_not_look_again_with_each_append() {
    const WAITING: usize = 20;
    const APPENDS: u64 = 20;
    let journal = Slow::new(vec![0]);
    journal.append_to("b-1", 1, 200).await;
    let tail = Arc::new(Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max: 8, bytes_max: 4096 }));
    let only_a = Filter { streams: Streams::Categories(vec!["a".into()]), types: None };
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let mut subscription = Subscription::on(Arc::clone(&tail), Position::START, only_a.clone()).await.unwrap();
        waiting.push(tokio::spawn(async move { given(&mut subscription).await }));
    }
    // Until nobody reads any more: each has come to the end, and waits there.
    let rest = || async {
        let mut reads = u64::MAX;
        while std::mem::replace(&mut reads, journal.reads()) != journal.reads() {
            pause(250).await;
        }
        reads
    };
    let past = rest().await;
    for number in 201..=200 + APPENDS {
        journal.append_to("b-1", number, 1).await;
        rest().await;
    }
    let looked = rest().await - past;
    // Whoever comes from the past may look once more before it is live.
    assert!(looked <= APPENDS + WAITING as u64, "{looked} reads for {APPENDS} appends and {WAITING} who wait");
    journal.append_to("a-1", 221, 1).await;
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), [221]);
    }
}

#[tokio::test]
async fn who_falls_behind_the_tail_reads_the_journal_and_comes_back() {
    let journal = Slow::new(vec![0]);
    let tail = Arc::new(Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max: 4, bytes_max: 4096 }));
    let on = async || Subscription::on(Arc::clone(&tail), Position::START, Filter::default()).await.unwrap();
    let (mut quick, mut slow) = (on().await, on().await);
    for number in 1..=10 {
        journal.append_to("a-1", number, 1).await;
        assert_eq!(given(&mut quick).await, [number]);
    }
    let mut seen = vec![];
    while slow.position() < Position::new(10) {
        seen.extend(given(&mut slow).await);
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    let before = journal.reads();
    journal.append_to("a-1", 11, 1).await;
    assert_eq!((given(&mut slow).await, given(&mut quick).await), (vec![11], vec![11]));
    assert_eq!(journal.reads(), before + 1, "it is live again");
}

#[tokio::test]
async fn a_tail_that_nobody_followed_is_not_read_on_from_where_it_ended() {
    let journal = Slow::new(vec![0]);
    let tail = Arc::new(Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max: 4, bytes_max: 4096 }));
    journal.append_to("a-1", 1, 1).await;
    let mut first = Subscription::on(Arc::clone(&tail), Position::START, Filter::default()).await.unwrap();
    assert_eq!(given(&mut first).await, [1]);
    journal.append_to("a-1", 2, 100).await;
    let before = journal.reads();
    let mut late = Subscription::on(Arc::clone(&tail), Position::new(100), Filter::default()).await.unwrap();
    assert_eq!(given(&mut late).await, [101]);
    assert_eq!(journal.reads(), before + 1);
}

#[tokio::test]
async fn a_long_read_has_a_thread_of_its_own_if_it_may_block() {
    for blocks in [true, false] {
        let journal = Arc::new(Slow::of(vec![0], blocks));
        let tail = Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max: 4, bytes_max: 4096 });
        let mut catching_up = Subscription::on(Arc::new(tail), Position::START, Filter::default()).await.unwrap();
        journal.append_to("a-1", 1, 100).await;
        assert!(!given(&mut catching_up).await.is_empty());
        let here = thread::current().id();
        assert_eq!(journal.read_on.lock().unwrap().unwrap() != here, blocks, "blocks: {blocks}");
    }
}

/// However many readers look for something far from the head, they scan a few at a time, and nobody is left out.
#[tokio::test]
async fn readers_far_from_the_head_scan_a_few_at_a_time() {
    let journal = Arc::new(Slow::of(vec![40], false));
    journal.append_to("a-1", 1, 50).await;
    journal.append_to("rare-1", 51, 1).await;
    journal.append_to("a-1", 52, 50).await;
    let tail = Arc::new(Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max: 4, bytes_max: 4096 }));
    let filter = Filter { streams: Streams::Categories(vec!["rare".into()]), types: None };
    let readers = 20;
    let look = async || {
        let mut subscription = Subscription::on(Arc::clone(&tail), Position::START, filter.clone()).await.unwrap();
        let found = subscription.next().await.unwrap().unwrap();
        found.iter().map(|event| event.position.get()).collect::<Vec<_>>()
    };
    let found = futures::future::join_all((0..readers).map(|_| look())).await;
    assert_eq!(found, vec![vec![51]; readers]);
    assert_eq!(journal.most.load(Ordering::SeqCst), limits::SCANS_MAX as u64);
    assert_eq!(journal.reads(), readers as u64);
}

/// Whoever has read ahead and asks no more keeps nobody from reading.
#[tokio::test]
async fn a_reader_that_does_not_ask_holds_up_no_scan() {
    let journal = Arc::new(Slow::of(vec![2], false));
    // Two reads of the past, and more than the tail keeps behind the first.
    for first in (0..=limits::READ_EVENTS_MAX as u64).step_by(8_192) {
        journal.append_to("a-1", 1 + first, 8_192).await;
    }
    let tail = Arc::new(Tail::new(Arc::clone(&journal) as Arc<dyn Journal>, Bounds { events_max: 4, bytes_max: 4096 }));
    let begin = async || Subscription::on(Arc::clone(&tail), Position::START, Filter::default()).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..2 * limits::SCANS_MAX {
        let mut subscription = begin().await;
        assert!(subscription.next().await.unwrap().is_some());
        idle.push(subscription);
    }
    assert!(begin().await.next().await.unwrap().is_some());
}
