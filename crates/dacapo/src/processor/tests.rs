//! The processor over a sink in memory, which knows nothing of rows.

mod memory;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dacapo_model::{
    Applied, CodeId, EventId, EventType, ExpectedRevision, Member, MemberCode, MemberId, Metadata, NewEvent,
    ProjectionName, Reads, Refusal, Retry, StreamName, Token, VersionId,
};
use dacapo_store::memory::{MemoryJournal, MemoryMembers};
use dacapo_store::{Append, Commit, Streams, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::memory::Memory;
use super::*;
use crate::catalog::CatalogLog;
use crate::cluster::{Cluster, SharedClock};
use crate::world::{NoProbe, SystemIds, World};

const SEGMENTS: u16 = 4;
const STREAMS: u64 = 11;

/// Longer than any test.
fn long() -> Duration {
    Duration::from_secs(30)
}

/// What lasts of the sink.
struct Lasting {
    tokens: Vec<Token>,
    refusals: Vec<Refusal>,
    /// The events that were committed, in this order.
    committed: Vec<Position>,
    /// How many events were taken, committed or not.
    taken: usize,
    /// The event that is refused.
    refuses: Option<Position>,
}

/// What a test does before a commit. An error is the result of the commit; `None` lets the sink carry it out.
type Trouble = dyn FnMut(&mut Lasting, &Commit, &[Position]) -> Option<StoreError> + Send;

/// Where a run finds it.
struct Shelf {
    lasting: Mutex<Lasting>,
    trouble: Mutex<Box<Trouble>>,
    /// How many commits were tried.
    tried: watch::Sender<u64>,
}

impl Shelf {
    fn lasting(&self) -> MutexGuard<'_, Lasting> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a commit meets before it is carried out.
    fn meet(&self, lasting: &mut Lasting, commit: &Commit, batch: &[Position]) -> Option<StoreError> {
        self.tried.send_modify(|tried| *tried += 1);
        (self.trouble.lock().unwrap_or_else(PoisonError::into_inner))(lasting, commit, batch)
    }
}

/// A processor over a sink in memory, and all that it hears of.
struct Stage {
    journal: Arc<dyn Journal>,
    shelf: Arc<Shelf>,
    commands: Commands,
    progress: Arc<watch::Sender<Progress>>,
    world: World,
    catalog: Arc<CatalogLog>,
    cluster: Arc<Cluster>,
    appended: u64,
}

/// A run of it.
struct Running {
    stop: watch::Sender<bool>,
    ended: JoinHandle<Ended>,
}

impl Running {
    async fn stop(self) -> Ended {
        self.stop.send_replace(true);
        tokio::time::timeout(long(), self.ended).await.expect("it stops").unwrap()
    }
}

fn id() -> ViewId {
    ViewId { projection: ProjectionName::new("copied").unwrap(), version: VersionId { code: 1, build: 1 } }
}

fn count() -> SegmentCount {
    SegmentCount::new(SEGMENTS).unwrap()
}

fn still() -> Orders {
    let (paused, resumed_at, replay, reads_at) = (false, None, None, None);
    Orders { phase: Phase::Serving, paused, resumed_at, replay, set_aside: Arc::default(), reads_at }
}

impl Stage {
    async fn new() -> Self {
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
        let world = World { clock, ids, offload: Offload::default(), probe: Arc::new(NoProbe) };
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(Arc::clone(&world.clock)));
        let catalog = Arc::new(CatalogLog::open(Arc::clone(&journal), world.clone()).await.unwrap());
        let code = CodeId { projection: id().projection, code: 1 };
        let carries = vec![MemberCode { id: code, in_place: None }];
        let me = MemberId::from_bytes([7; 16]);
        let me = Member { id: me, name: "this".to_owned(), address: None, carries, ready: true };
        let members = Arc::new(MemoryMembers::new(Arc::clone(&world.clock)));
        let shared = Arc::new(SharedClock::new(Arc::clone(&world.clock)));
        let cluster = Arc::new(Cluster::new(members, shared, false, me));
        let (_leave, left) = watch::channel(false);
        drop(cluster.join(left).await.unwrap());
        let token = |segment| Token {
            segment,
            epoch: dacapo_model::Epoch::new(1),
            position: Position::START,
            claimed_by: None,
            held_for: None,
            cap: None,
            applied: Applied::default(),
            replay: None,
        };
        let tokens = count().segments().map(token).collect();
        let lasting = Lasting { tokens, refusals: vec![], committed: vec![], taken: 0, refuses: None };
        let shelf = Arc::new(Shelf {
            lasting: Mutex::new(lasting),
            trouble: Mutex::new(Box::new(|_, _, _| None)),
            tried: watch::Sender::default(),
        });
        let (commands, progress) = (Commands::new(still()), Arc::default());
        Self { journal, shelf, commands, progress, world, catalog, cluster, appended: 0 }
    }

    /// Appends events to streams of all segments.
    async fn append(&mut self, events: u64) {
        for _ in 0..events {
            self.appended += 1;
            let event = NewEvent {
                id: EventId::from_bytes(u128::from(self.appended).to_be_bytes()),
                event_type: EventType::new("written").unwrap(),
                payload: b"1".to_vec(),
                metadata: Metadata::default(),
                tags: vec![],
            };
            let stream = StreamName::new(format!("a-{}", self.appended % STREAMS)).unwrap();
            self.journal.append(Append::to_stream(stream, ExpectedRevision::Any, vec![event])).await.unwrap();
        }
    }

    fn start(&self) -> Running {
        let (stop, stopped) = watch::channel(false);
        let retry = Retry { attempts: u32::MAX, first: long(), longest: long() };
        let assignment = Assignment {
            id: id(),
            options: Options { batch_events_max: 7, retry, ..Options::default() },
            filter: Arc::new(Filter { streams: Streams::User, types: None }),
            fence: Fence::new(Arc::clone(&self.catalog), id(), count(), Reads::default()),
            journal: Arc::clone(&self.journal),
            offload: self.world.offload,
            segments: count(),
            claims: Claims(Arc::clone(&self.cluster)),
            clock: Arc::clone(&self.world.clock),
            steady: Arc::clone(&self.world.clock),
            is_corrected: false,
            inbox: self.commands.inbox(stopped),
            progress: Arc::clone(&self.progress),
            probe: Arc::clone(&self.world.probe),
        };
        let ended = tokio::spawn(run::<Memory>(assignment, Arc::clone(&self.shelf)));
        Running { stop, ended }
    }

    /// From here on, this happens instead of commits.
    fn trouble(&self, trouble: impl FnMut(&mut Lasting, &Commit, &[Position]) -> Option<StoreError> + Send + 'static) {
        *self.shelf.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(trouble);
    }

    async fn until(&self, what: &str, is_so: impl FnMut(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        let seen = tokio::time::timeout(long(), progress.wait_for(is_so)).await;
        assert!(seen.is_ok(), "{what}: {:?}", *self.progress.borrow());
    }

    async fn until_covered(&self) {
        let head = Position::new(self.appended);
        self.until("it covers the head", |progress| progress.covers() >= head).await;
    }

    /// Every event of each segment is there once, and in order.
    fn check(&self) {
        let lasting = self.shelf.lasting();
        let mut by_segment: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        let segment_of = |number: u64| count().segment_of(&format!("a-{}", number % STREAMS));
        for position in &lasting.committed {
            by_segment.entry(segment_of(position.get())).or_default().push(position.get());
        }
        for segment in count().segments() {
            let expected: Vec<u64> = (1..=self.appended).filter(|number| segment_of(*number) == segment).collect();
            let found = by_segment.remove(&segment).unwrap_or_default();
            assert_eq!(found, expected, "segment {segment}");
        }
        assert!(lasting.tokens.iter().all(|token| token.position.get() == self.appended), "{:?}", lasting.tokens);
    }

    fn set_position(&self, change: impl Fn(&mut Token)) {
        self.shelf.lasting().tokens.iter_mut().for_each(change);
    }
}

/// Once, whenever it is asked first.
fn once() -> impl FnMut() -> bool + Send {
    let done = AtomicBool::new(false);
    move || !done.swap(true, Ordering::Relaxed)
}

#[tokio::test]
async fn every_event_is_taken_once_and_in_order() {
    let mut stage = Stage::new().await;
    stage.append(40).await;
    let running = stage.start();
    stage.until_covered().await;
    stage.append(25).await;
    stage.until_covered().await;
    assert!(matches!(running.stop().await, Ended::Stopped));
    stage.check();
    assert_eq!(stage.shelf.lasting().taken, 65, "nothing went wrong, so nothing was taken twice");
}

/// The batch is taken, and then another claim comes before its commit.
#[tokio::test]
async fn what_was_taken_under_a_claim_that_is_lost_does_not_land() {
    let mut stage = Stage::new().await;
    stage.append(30).await;
    let mut first = once();
    stage.trouble(move |lasting, _, _| {
        if first() {
            for token in &mut lasting.tokens {
                (token.claimed_by, token.epoch) = (Some(MemberId::from_bytes([9; 16])), token.epoch.next());
            }
        }
        None
    });
    let running = stage.start();
    stage.until_covered().await;
    running.stop().await;
    stage.check();
    let lasting = stage.shelf.lasting();
    assert!(lasting.taken > 30, "the first batch was taken again under another claim");
    assert!(lasting.tokens.iter().all(|token| token.epoch.get() == 4), "two claims, and one of another member");
}

/// Another process with the same claim has committed the first event: the position of its token refuses the commit.
#[tokio::test]
async fn a_commit_whose_tokens_have_moved_is_refused() {
    let mut stage = Stage::new().await;
    stage.append(30).await;
    let mut first = once();
    stage.trouble(move |lasting, _, batch| {
        if first() {
            let segment = count().segment_of(&format!("a-{}", batch[0].get() % STREAMS));
            let asked = lasting.tokens[usize::from(segment.get())].step(batch[0], 1);
            lasting.commit(&Commit::of([asked]), &batch[..1]).unwrap();
        }
        None
    });
    let running = stage.start();
    stage.until_covered().await;
    running.stop().await;
    stage.check();
}

#[tokio::test]
async fn a_commit_that_fails_is_tried_again_from_the_tokens() {
    let mut stage = Stage::new().await;
    stage.append(30).await;
    let mut left = 2;
    stage.trouble(move |_, _, _| {
        left -= i32::from(left > 0);
        (left > 0).then(|| StoreError::unavailable("commit", "a fault of the test"))
    });
    let running = stage.start();
    let tells = |waiting: &WaitingOn| matches!(waiting, WaitingOn::Store { error } if error.contains("of the test"));
    stage.until("it says why it waits", |progress| progress.reasons().any(tells)).await;
    stage.until_covered().await;
    running.stop().await;
    stage.check();
    assert!(stage.shelf.lasting().taken > 30);
}

/// It is done, and the processor is told that it is not.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_made_twice() {
    let mut stage = Stage::new().await;
    stage.append(30).await;
    let mut first = once();
    stage.trouble(move |lasting, commit, batch| {
        first().then(|| {
            lasting.commit(commit, batch).unwrap();
            StoreError::unavailable("commit", "the answer is lost")
        })
    });
    let running = stage.start();
    stage.until_covered().await;
    running.stop().await;
    stage.check();
    assert_eq!(stage.shelf.lasting().taken, 30, "what has landed is not taken again");
}

#[tokio::test]
async fn a_hold_keeps_the_batch_and_its_end_lets_it_land() {
    let mut stage = Stage::new().await;
    stage.append(5).await;
    let mark = Position::new(3);
    stage.set_position(|token| token.held_for = Some(mark));
    let running = stage.start();
    let held = WaitingOn::Hold { held_for: mark };
    stage.until("it says that it is held", |progress| progress.waiting_on == [held.clone()]).await;
    let mut tried = stage.shelf.tried.subscribe();
    tried.mark_unchanged();
    tried.changed().await.unwrap();
    let moved = {
        let lasting = stage.shelf.lasting();
        (lasting.committed.len(), lasting.taken)
    };
    assert_eq!(moved, (0, 5), "nothing moves");
    stage.set_position(|token| token.held_for = None);
    stage.commands.lifted();
    stage.until_covered().await;
    running.stop().await;
    stage.check();
    assert_eq!(stage.shelf.lasting().taken, 5, "the batch that was held is the one that landed");
}

/// A cap in the middle of what would be one batch.
#[tokio::test]
async fn no_token_moves_past_a_cap() {
    let mut stage = Stage::new().await;
    stage.append(6).await;
    stage.set_position(|token| token.cap = Some(Position::new(4)));
    let running = stage.start();
    stage.until("it meets the cap", |progress| progress.covers() == Position::new(4) && progress.batch.is_none()).await;
    assert_eq!(stage.shelf.lasting().committed.len(), 4);
    stage.set_position(|token| token.cap = None);
    stage.until_covered().await;
    running.stop().await;
    stage.check();
}

#[tokio::test]
async fn a_paused_version_takes_nothing_until_it_is_resumed() {
    let mut stage = Stage::new().await;
    stage.commands.order(Orders { paused: true, ..still() });
    stage.append(20).await;
    let running = stage.start();
    stage.until("it has its claim, and rests", |progress| progress.letters.is_some()).await;
    assert_eq!(stage.shelf.lasting().taken, 0);
    stage.commands.order(still());
    stage.until_covered().await;
    running.stop().await;
    stage.check();
}

#[tokio::test]
async fn a_segment_stops_before_an_event_that_is_refused_and_the_others_go_on() {
    let mut stage = Stage::new().await;
    stage.append(30).await;
    let refused = Position::new(9);
    let segment = count().segment_of(&format!("a-{}", 9 % STREAMS));
    stage.shelf.lasting().refuses = Some(refused);
    let running = stage.start();
    let head = Position::new(30);
    stage
        .until("the others reach the head", |progress| {
            let is_there = |token: &Token| token.segment == segment || token.position == head;
            progress.letters.is_some() && progress.tokens.iter().all(is_there)
        })
        .await;
    let kept = stage.shelf.lasting().refusals.clone();
    assert!(matches!(&kept[..], [kept] if (kept.segment, kept.position) == (segment, refused)), "{kept:?}");
    assert!(!stage.shelf.lasting().committed.contains(&refused));
    let tells = |waiting: &WaitingOn| matches!(waiting, WaitingOn::Handler { position, .. } if *position == refused);
    assert!(stage.progress.borrow().waiting_on.iter().any(tells), "{:?}", stage.progress.borrow().waiting_on);
    stage.shelf.lasting().refuses = None;
    stage.commands.order(Orders { resumed_at: Some(Position::new(31)), ..still() });
    stage.until_covered().await;
    running.stop().await;
    stage.check();
}

/// The stop comes in the middle; what is left is taken by the next run, and nothing else.
#[tokio::test]
async fn a_run_goes_on_from_the_tokens_that_another_left() {
    let mut stage = Stage::new().await;
    stage.append(60).await;
    let running = stage.start();
    let mut tried = stage.shelf.tried.subscribe();
    tokio::time::timeout(long(), tried.wait_for(|tried| *tried >= 2)).await.unwrap().unwrap();
    assert!(matches!(running.stop().await, Ended::Stopped));
    let left = stage.shelf.lasting().committed.len();
    stage.append(10).await;
    let running = stage.start();
    stage.until_covered().await;
    running.stop().await;
    stage.check();
    let lasting = stage.shelf.lasting();
    assert!(left >= 7 && lasting.taken == 70, "{left}, {}", lasting.taken);
}

/// A new run that has only begun its batch shows nothing about the store.
#[tokio::test]
async fn a_failure_of_the_store_stays_the_reason_until_a_commit_has_succeeded() {
    let mut stage = Stage::new().await;
    stage.append(7).await;
    let (progress, seen) = (Arc::clone(&stage.progress), Arc::new(Mutex::new(vec![])));
    let told = Arc::clone(&seen);
    stage.trouble(move |_, _, _| {
        let (progress, mut told) = (progress.borrow(), told.lock().unwrap());
        told.push((progress.reasons().cloned().collect::<Vec<_>>(), progress.busy()));
        (told.len() <= 3).then(|| StoreError::unavailable("write the rows", "somebody holds a lock"))
    });
    let running = stage.start();
    stage.until_covered().await;
    running.stop().await;
    stage.check();
    let failed =
        WaitingOn::Store { error: "cannot write the view: cannot write the rows: somebody holds a lock".to_owned() };
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen[0].0, []);
    seen[1..4].iter().for_each(|(reasons, _)| assert_eq!(reasons, std::slice::from_ref(&failed)));
    assert!(seen[4..].iter().all(|(reasons, _)| reasons.is_empty()), "{seen:?}");
    let is_of_store = |busy: &Option<WaitingOn>| matches!(busy, Some(WaitingOn::Store { .. }));
    assert!(seen.iter().all(|(_, busy)| is_of_store(busy)), "the time goes into the commit: {seen:?}");
    assert_eq!(stage.progress.borrow().reasons().count(), 0);
}

#[tokio::test]
async fn a_version_that_is_paused_does_not_wait_for_the_store() {
    let mut stage = Stage::new().await;
    stage.append(7).await;
    stage.trouble(|_, _, _| Some(StoreError::unavailable("write the rows", "somebody holds a lock")));
    let running = stage.start();
    let waits = |progress: &Progress| progress.reasons().any(|reason| matches!(reason, WaitingOn::Store { .. }));
    stage.until("it waits for the store", waits).await;
    stage.commands.order(Orders { paused: true, ..still() });
    stage.until("it waits for nothing else", |progress| progress.reasons().next().is_none()).await;
    running.stop().await;
}

// I-3: the events that get those positions later would be skipped.
#[tokio::test]
async fn nothing_is_applied_from_a_token_beyond_the_end_of_the_journal() {
    let mut stage = Stage::new().await;
    stage.append(5).await;
    stage.set_position(|token| token.position = Position::new(300));
    let Running { ended, stop: _stop } = stage.start();
    let ended = tokio::time::timeout(long(), ended).await.expect("it ends").unwrap();
    assert!(matches!(ended, Ended::Parted), "{ended:?}");
    let parted = |reason: &WaitingOn| matches!(reason, WaitingOn::Parted { .. });
    assert!(stage.progress.borrow().reasons().any(parted), "{:?}", *stage.progress.borrow());
    assert_eq!(stage.shelf.lasting().taken, 0);
}
