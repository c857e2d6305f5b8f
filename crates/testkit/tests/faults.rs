//! The store that goes wrong: it is like any other until a test plans a fault, and then does what the plan says.

use std::sync::Arc;

use async_trait::async_trait;
use dacapo::journal::{Append, Appended, EventId, EventType, NewEvent};
use dacapo::options::SegmentCount;
use dacapo::status::Token;
use dacapo::store::{Journal, Store, StoreError};
use dacapo::world::{Clock, SystemClock};
use dacapo::{ExpectedRevision, Metadata, Position, ProjectionName, Table, VersionId, ViewId};
use dacapo_store::contract::journal::JournalHome;
use dacapo_store::contract::views::claim_all;
use dacapo_store::{
    AppendError, Column, ColumnKind, Commit, CommitError, Health, Value, View, ViewHealth, ViewWriter, Views, of_none,
};
use dacapo_testkit::{Call, Fault, Faults};

mod without_a_plan {
    dacapo_store::journal_contract!(@together the_journal_is_like_any_other super::Home);
    dacapo_store::views_contract!(@together the_views_are_like_any_other (super::Passed::new(), ()));
}

struct Home;

#[async_trait]
impl JournalHome for Home {
    fn lasts(&self) -> bool {
        false
    }

    async fn open(&mut self, clock: Arc<dyn Clock>) -> Arc<dyn Journal> {
        Faults::default().over(&Store::memory(clock)).journal
    }
}

/// The views of a store whose faults nobody plans.
struct Passed(Arc<dyn Views>);

impl Passed {
    fn new() -> Self {
        Self(faulty().1.views)
    }
}

#[async_trait]
impl Views for Passed {
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        self.0.open(id, tables, segments).await
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        self.0.find(id).await
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        self.0.list().await
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        self.0.drop_view(id).await
    }
}

fn faulty() -> (Faults, Store) {
    let faults = Faults::default();
    let store = faults.over(&Store::memory(Arc::new(SystemClock)));
    (faults, store)
}

/// The append of one event, the same one for each number.
async fn append(journal: &dyn Journal, number: u128) -> Result<Appended, AppendError> {
    let event = NewEvent {
        id: EventId::from_bytes(number.to_be_bytes()),
        event_type: EventType::new("happened").unwrap(),
        payload: vec![],
        metadata: Metadata::default(),
        tags: vec![],
    };
    journal.append(Append::to_stream("a-1".try_into().unwrap(), ExpectedRevision::Any, vec![event])).await
}

fn is_unavailable<T>(result: Result<T, impl Into<CommitError>>) -> bool {
    matches!(result.map_err(Into::into), Err(CommitError::Store(StoreError::Unavailable { .. })))
}

fn appends(call: &Call<'_>) -> bool {
    call.appends("happened")
}

const NOTES: Table = Table {
    name: "notes",
    columns: &[Column { name: "id", kind: ColumnKind::Integer, optional: false }],
    key: &[0],
    indexes: &[],
};

fn id() -> ViewId {
    ViewId { projection: ProjectionName::new("notes").unwrap(), version: VersionId { code: 1, build: 1 } }
}

/// A view of one segment that is claimed.
async fn claimed(store: &Store) -> (Arc<dyn View>, Token) {
    let view = store.views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    (view, token)
}

async fn put(writer: &mut dyn ViewWriter, id: i64) -> Result<(), StoreError> {
    writer.put(&NOTES, &mut of_none([vec![Value::Integer(id)]])).await
}

async fn notes(view: &dyn View) -> Vec<Vec<Value>> {
    view.reader().await.unwrap().select(&NOTES, &[], 10).await.unwrap()
}

#[tokio::test]
async fn a_call_that_fails_is_not_done() {
    let (faults, store) = faulty();
    faults.next(2, Fault::Fails, appends);
    for _ in 0..2 {
        let error = append(&*store.journal, 1).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot do `Append` of happened: a fault of the test");
    }
    assert_eq!(append(&*store.journal, 1).await.unwrap().written, 1);
    assert_eq!((*store.journal.head().borrow(), faults.count()), (Position::new(1), 2));
}

#[tokio::test]
async fn a_call_that_loses_its_answer_is_done() {
    let (faults, store) = faulty();
    faults.next(1, Fault::LosesAnswer, appends);
    append(&*store.journal, 1).await.unwrap_err();
    assert_eq!(*store.journal.head().borrow(), Position::new(1));
    assert_eq!(append(&*store.journal, 1).await.unwrap().written, 0, "it is there");
}

#[tokio::test]
async fn a_call_waits_until_the_plan_changes_and_then_does_what_that_says() {
    let (faults, store) = faulty();
    for (number, then_fails) in [(1, true), (2, false)] {
        faults.always(Fault::Waits, appends);
        let journal = Arc::clone(&store.journal);
        let appending = tokio::spawn(async move { append(&*journal, number).await });
        faults.met().await;
        assert_eq!((*store.journal.head().borrow(), faults.count()), (Position::START, 1));
        assert!(!appending.is_finished());
        match then_fails {
            true => faults.always(Fault::Fails, appends),
            false => faults.heal(),
        }
        assert_eq!(appending.await.unwrap().is_err(), then_fails);
    }
    assert_eq!(*store.journal.head().borrow(), Position::new(1));
}

#[tokio::test]
async fn only_the_calls_that_are_picked_go_wrong_and_are_counted_until_the_next_plan() {
    let (faults, store) = faulty();
    let (view, _) = claimed(&store).await;
    faults.always(Fault::Fails, |call| matches!(call, Call::Tokens(of) if **of == id()));
    append(&*store.journal, 1).await.unwrap();
    view.refusals().await.unwrap();
    assert_eq!(faults.count(), 0);
    assert!(is_unavailable(view.tokens().await));
    faults.heal();
    view.tokens().await.unwrap();
    assert_eq!(faults.count(), 1, "that is known after the end of the faults as well");
    faults.plan(|_| None);
    assert_eq!(faults.count(), 0);
}

#[tokio::test]
async fn a_commit_that_fails_is_rolled_back_and_one_that_loses_its_answer_has_landed() {
    let (faults, store) = faulty();
    let (view, token) = claimed(&store).await;
    let mut writer = view.writer().await.unwrap();
    let commit = Commit::of([token.step(token.position.next(), 1)]);
    let commits = |call: &Call<'_>| matches!(call, Call::Commit(_));

    put(&mut *writer, 1).await.unwrap();
    faults.next(1, Fault::Fails, commits);
    assert!(is_unavailable(writer.commit(&commit).await));
    assert_eq!(view.tokens().await.unwrap(), [token]);

    put(&mut *writer, 2).await.unwrap();
    faults.next(1, Fault::LosesAnswer, commits);
    assert!(is_unavailable(writer.commit(&commit).await));
    assert_eq!(notes(&*view).await, [[Value::Integer(2)]], "nothing of the first try");
    assert_eq!(view.tokens().await.unwrap()[0].position, token.position.next());
}

#[tokio::test]
async fn writes_and_reads_of_rows_go_wrong_one_by_one() {
    let (faults, store) = faulty();
    let (view, _) = claimed(&store).await;
    let (mut writer, mut reader) = (view.writer().await.unwrap(), view.reader().await.unwrap());
    faults.always(Fault::Fails, |call| matches!(call, Call::Write(_)));
    assert!(is_unavailable(put(&mut *writer, 1).await));
    assert_eq!(writer.load(&NOTES, &[Value::Integer(1)]).await.unwrap(), None);
    faults.always(Fault::Fails, |call| matches!(call, Call::Load(_) | Call::Query(_)));
    assert!(is_unavailable(writer.load(&NOTES, &[Value::Integer(1)]).await));
    assert!(is_unavailable(reader.get(&NOTES, &[Value::Integer(1)]).await));
    put(&mut *writer, 1).await.unwrap();
}

#[tokio::test]
async fn damage_is_told_by_the_call_and_by_the_health_of_the_view() {
    let (faults, store) = faulty();
    let (view, _) = claimed(&store).await;
    faults.always(Fault::Damaged, |call| matches!(call, Call::Tokens(_) | Call::ViewHealth(_)));
    assert!(matches!(view.tokens().await, Err(StoreError::Corrupt { .. })));
    assert!(view.health().damaged.is_some());
    faults.always(Fault::Fails, |call| matches!(call, Call::ViewHealth(_)));
    let health = view.health();
    assert!(health.damaged.is_none() && health.failing.is_some(), "{health:?}");
    faults.heal();
    assert_eq!(view.health(), ViewHealth::default());
}

#[tokio::test]
async fn a_stale_reader_covers_nothing() {
    let (faults, store) = faulty();
    let (view, token) = claimed(&store).await;
    view.writer().await.unwrap().commit(&Commit::of([token.step(Position::new(3), 3)])).await.unwrap();
    faults.always(Fault::Stale, |call| matches!(call, Call::Reader(_)));
    assert_eq!(view.reader().await.unwrap().covers(), Position::START);
    faults.heal();
    assert_eq!(view.reader().await.unwrap().covers(), Position::new(3));
}

#[tokio::test]
async fn the_journal_reports_the_health_that_it_is_told_to_until_it_heals() {
    let (faults, store) = faulty();
    faults.report_health(Health::Failing("the disk is full".to_owned()));
    assert_eq!(store.journal.health(), Health::Failing("the disk is full".to_owned()));
    faults.heal();
    assert_eq!(store.journal.health(), Health::Well);
}
