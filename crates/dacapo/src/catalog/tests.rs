use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use dacapo_model::{FlipPolicy, ProjectionName, Reads, Revision, SegmentCount, StreamName, VersionId, ViewId};
use dacapo_store::memory::MemoryJournal;
use dacapo_store::{Appended, EventBatch, SystemClock};
use tokio::time::Instant;

use super::*;
use crate::world::{Ids, NoProbe, Offload, SystemIds};

/// What the catalog on a disk says is not what the rules would have written: damage, with its place.
#[tokio::test]
async fn an_entry_that_does_not_fit_is_damage_at_its_position() {
    let journal = MemoryJournal::new(Arc::new(SystemClock));
    let projection = ProjectionName::new("balances").unwrap();
    let event = CatalogEvent::Paused { view: ViewId { projection, version: VersionId { code: 1, build: 1 } } };
    let (event_type, payload) = catalog_form::encode(&event);
    let new = NewEvent { id: SystemIds.next(), event_type, payload, metadata: Metadata::default(), tags: vec![] };
    journal.append(Append::to_stream(catalog_form::stream(), ExpectedRevision::Any, vec![new])).await.unwrap();
    match history(&journal).await {
        Err(StoreError::Corrupt { place, found }) => {
            assert!(place.contains("position 1") && found.contains("v1.1 was never scheduled"), "{place}: {found}");
        }
        other => panic!("{other:?}"),
    }
}

fn world() -> World {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    World { clock, ids, offload: Offload::default(), probe: Arc::new(NoProbe) }
}

/// A journal that does not answer for a while.
struct Hanging {
    inner: MemoryJournal,
    hangs: watch::Sender<bool>,
    /// The number of reads of a stream that are answered before one never is.
    reads_left: AtomicU64,
    appended: AtomicBool,
}

impl Hanging {
    fn new() -> Self {
        let (inner, hangs) = (MemoryJournal::new(Arc::new(SystemClock)), watch::Sender::new(false));
        Self { inner, hangs, reads_left: AtomicU64::new(u64::MAX), appended: AtomicBool::new(false) }
    }

    async fn answers(&self) {
        drop(self.hangs.subscribe().wait_for(|hangs| !hangs).await);
    }

    async fn append_once_it_answers(&self, append: Append) -> Result<Appended, AppendError> {
        self.answers().await;
        self.appended.store(true, Ordering::Release);
        self.inner.append(append).await
    }

    async fn read_stream_while_any_are_left(
        &self,
        stream: &StreamName,
        after: Revision,
        limit: Limit,
    ) -> Result<EventBatch, StoreError> {
        self.answers().await;
        if self.reads_left.fetch_sub(1, Ordering::AcqRel) == 0 {
            std::future::pending::<()>().await;
        }
        self.inner.read_stream(stream, after, limit).await
    }
}

/// A call that waits until the journal answers.
macro_rules! once_it_answers {
    ($self:ident, $call:expr,) => {{
        $self.answers().await;
        $call.await
    }};
}

dacapo_store::delegate! {
    impl Journal for Hanging {
        id;
        mark;
        append => append_once_it_answers;
        read by once_it_answers();
        read_stream => read_stream_while_any_are_left;
        stream_revision by once_it_answers();
        streams;
        head;
        close;
    }
}

fn schedule(view: &ViewId) -> CatalogCommand {
    CatalogCommand::Schedule {
        projection: view.projection.clone(),
        code: view.version.code,
        segments: SegmentCount::ONE,
        flip: FlipPolicy::WhenReady,
        fingerprint: String::new(),
        reads: Reads::default(),
        seeded: false,
        if_new: false,
    }
}

/// Another node has changed the catalog, and a look at that was given up in the middle.
#[tokio::test(start_paused = true)]
async fn what_a_look_has_folded_that_was_given_up_is_told_with_the_next_change() {
    let journal = Arc::new(Hanging::new());
    let open = || CatalogLog::open(Arc::clone(&journal) as Arc<dyn Journal>, world());
    let (here, elsewhere) = (Arc::new(open().await.unwrap()), Arc::new(open().await.unwrap()));
    let view =
        ViewId { projection: ProjectionName::new("balances").unwrap(), version: VersionId { code: 1, build: 1 } };
    for command in [schedule(&view), CatalogCommand::Begin(view.clone())] {
        Arc::clone(&elsewhere).change(command, RequestedBy::by("another node")).await.unwrap();
    }
    // The first read returns the events, and the second one, which would find the end, is not answered.
    journal.reads_left.store(1, Ordering::Release);
    assert!(tokio::time::timeout(Duration::from_millis(1), here.refresh()).await.is_err(), "the look is given up");
    journal.reads_left.store(u64::MAX, Ordering::Release);
    assert!(here.current().version(&view).is_none(), "nobody was told, or this test tests nothing");
    let nothing = Arc::clone(&here).change(CatalogCommand::Begin(view.clone()), RequestedBy::by_plan()).await.unwrap();
    assert_eq!(nothing, [], "it has begun already");
    assert_eq!(here.current().version(&view).unwrap().phase, Phase::Initializing);
}

/// Those who wait for each other wait no longer than one does, whatever each wants. The time is not that of the world.
#[tokio::test(start_paused = true)]
async fn where_the_journal_does_not_answer_nobody_waits_for_the_time_of_others() {
    let journal = Arc::new(Hanging::new());
    let log = Arc::new(CatalogLog::open(Arc::clone(&journal) as Arc<dyn Journal>, world()).await.unwrap());
    journal.hangs.send_replace(true);
    let began = Instant::now();
    let view =
        ViewId { projection: ProjectionName::new("balances").unwrap(), version: VersionId { code: 1, build: 1 } };
    let asked = RequestedBy { idempotency_key: Some("one".to_owned()), ..RequestedBy::by("somebody") };
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (looking, changing, asked) = (Arc::clone(&log), Arc::clone(&log), asked.clone());
        let schedule = schedule(&view);
        waiting.spawn(async move { looking.refresh().await.map_err(CatalogError::from) });
        waiting.spawn(async move { changing.change(schedule, asked).await.map(drop) });
    }
    loop {
        let answer = tokio::time::timeout(2 * limits::REQUEST_TIME_MAX, waiting.join_next()).await;
        let Some(answer) = answer.expect("each has a time of its own") else { break };
        let answer = answer.unwrap();
        assert!(matches!(answer, Err(CatalogError::Store(StoreError::Unavailable { .. }))), "{answer:?}");
        // Timers are as exact as this.
        assert!(began.elapsed() <= limits::REQUEST_TIME_MAX + Duration::from_millis(2), "{:?}", began.elapsed());
    }
    // What was begun goes on to its end, and what was asked for twice under one key is done once.
    journal.hangs.send_replace(false);
    let mut current = log.watch();
    current.wait_for(|catalog| catalog.version(&view).is_some()).await.unwrap();
    assert!(journal.appended.load(Ordering::Acquire));
    log.refresh().await.unwrap();
}
