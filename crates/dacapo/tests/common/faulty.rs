//! A store that fails, or loses its answers, where a test says so.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dacapo::journal::{Append, Appended, EventBatch, Filter, Limit, Revision, StreamName};
use dacapo::options::SegmentCount;
use dacapo::status::Token;
use dacapo::store::{Journal, Store, StoreError};
use dacapo::{Position, Table, ViewId};
use dacapo_model::{JournalId, Mark};
use dacapo_store::{
    AppendError, Commit, CommitError, Health, StreamInfo, View, ViewHealth, ViewReader, ViewWriter, Views,
};
use tokio::sync::watch;

/// A call that may go wrong.
#[derive(Debug)]
pub enum Call<'a> {
    Append(&'a Append),
    Read,
    ReadStream,
    Streams,
    Mark,
    StreamRevision,
    Open(&'a ViewId),
    Find(&'a ViewId),
    Drop(&'a ViewId),
    Publish(&'a ViewId),
    Tokens(&'a ViewId),
    Refusals(&'a ViewId),
    Claim(&'a ViewId),
    /// Where it ends; `None` lifts it.
    Cap(&'a ViewId, Option<Position>),
    Hold(&'a ViewId),
    Lift(&'a ViewId),
    Reader(&'a ViewId),
    Commit(&'a ViewId),
    History(&'a ViewId),
    Letters(&'a ViewId),
    Wish(&'a ViewId),
    /// Whatever reads the outbox.
    Effects(&'a ViewId),
    DecideEffects(&'a ViewId),
    ClaimEffects(&'a ViewId),
    BeginEffects(&'a ViewId),
    SettleEffects(&'a ViewId),
    Index(&'a ViewId),
    Attach(&'a ViewId),
    /// Any fault is that something is damaged.
    ViewHealth(&'a ViewId),
}

impl Call<'_> {
    /// Whether it appends a catalog event of this type.
    pub fn appends(&self, event_type: &str) -> bool {
        let Self::Append(append) = self else { return false };
        append.events.iter().any(|found| found.stream.is_system() && found.event.event_type.as_str() == event_type)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done.
    Fails,
    /// It is done, and nobody is told.
    LosesAnswer,
    /// What is there is not what was written.
    Damaged,
    /// A reader sees the view as it was when it was made.
    Stale,
    /// Nothing is done before there is another plan, which then says what goes wrong.
    Waits,
}

type Plan = Box<dyn FnMut(&Call<'_>) -> Option<Fault> + Send>;

/// Which calls go wrong, and how.
#[derive(Clone)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
    /// Told whenever there is another plan.
    planned: watch::Sender<()>,
    /// What the journal tells of itself.
    health: Arc<Mutex<Health>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { plan: Arc::new(Mutex::new(Box::new(|_| None))), planned: watch::Sender::new(()), health: Arc::default() }
    }
}

impl Faults {
    /// From here on, `plan` tells for each call what goes wrong with it.
    pub fn plan(&self, plan: impl FnMut(&Call<'_>) -> Option<Fault> + Send + 'static) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(plan);
        self.planned.send_replace(());
    }

    /// From here on, whoever opens the view of `id` waits for another plan. Tells when somebody does.
    pub fn hold_up_opening(&self, id: ViewId) -> watch::Receiver<bool> {
        let (opens, opened) = watch::channel(false);
        self.plan(move |call| match call {
            Call::Open(opening) if **opening == id => {
                opens.send_replace(true);
                Some(Fault::Waits)
            }
            _ => None,
        });
        opened
    }

    /// From here on, the journal tells this of itself.
    pub fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// From here on, nothing goes wrong.
    pub fn stop(&self) {
        self.plan(|_| None);
    }

    /// A store that goes wrong like this.
    pub fn over(&self, store: &Store) -> Store {
        Store {
            journal: Arc::new(FaultyJournal { inner: Arc::clone(&store.journal), faults: self.clone() }),
            views: Arc::new(FaultyViews { inner: Arc::clone(&store.views), faults: self.clone() }),
            ..store.clone()
        }
    }

    fn of(&self, call: &Call<'_>) -> Option<Fault> {
        (self.plan.lock().unwrap_or_else(PoisonError::into_inner))(call)
    }

    async fn of_in_time(&self, call: &Call<'_>) -> Option<Fault> {
        let mut planned = self.planned.subscribe();
        loop {
            match self.of(call) {
                Some(Fault::Waits) => planned.changed().await.expect("it is here"),
                fault => return fault,
            }
        }
    }

    async fn meet<T, E: From<StoreError>>(
        &self,
        call: Call<'_>,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let fault = self.of_in_time(&call).await;
        let error = || E::from(StoreError::unavailable(format!("{call:?}"), "a fault of the test"));
        match fault {
            None | Some(Fault::Stale | Fault::Waits) => act.await,
            Some(Fault::Fails) => Err(error()),
            Some(Fault::LosesAnswer) => act.await.and_then(|_| Err(error())),
            Some(Fault::Damaged) => Err(StoreError::corrupt(format!("{call:?}"), "a fault of the test").into()),
        }
    }
}

struct FaultyJournal {
    inner: Arc<dyn Journal>,
    faults: Faults,
}

#[async_trait]
impl Journal for FaultyJournal {
    fn id(&self) -> JournalId {
        self.inner.id()
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        self.faults.meet(Call::Mark, self.inner.mark(through)).await
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.faults.meet(Call::Append(&append), self.inner.append(append.clone())).await
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        self.faults.meet(Call::Read, self.inner.read(after, filter, limit)).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        self.faults.meet(Call::ReadStream, self.inner.read_stream(stream, after, limit)).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        self.faults.meet(Call::StreamRevision, self.inner.stream_revision(stream)).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        self.faults.meet(Call::Streams, self.inner.streams(category, after, most)).await
    }

    fn health(&self) -> Health {
        self.faults.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct FaultyViews {
    inner: Arc<dyn Views>,
    faults: Faults,
}

impl FaultyViews {
    fn wrap(&self, id: &ViewId, view: Arc<dyn View>) -> Arc<dyn View> {
        Arc::new(FaultyView { id: id.clone(), inner: view, faults: self.faults.clone() })
    }
}

#[async_trait]
impl Views for FaultyViews {
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        let view = self.faults.meet(Call::Open(id), self.inner.open(id, tables, segments)).await?;
        Ok(self.wrap(id, view))
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        let view = self.faults.meet(Call::Find(id), self.inner.find(id)).await?;
        Ok(view.map(|view| self.wrap(id, view)))
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        self.inner.list().await
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        self.faults.meet(Call::Drop(id), self.inner.drop_view(id)).await
    }

    async fn publish(&self, serving: &ViewId, flip: Position) -> Result<(), StoreError> {
        self.faults.meet(Call::Publish(serving), self.inner.publish(serving, flip)).await
    }
}

struct FaultyView {
    id: ViewId,
    inner: Arc<dyn View>,
    faults: Faults,
}

impl FaultyView {
    async fn cap_at(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        self.faults.meet(Call::Cap(&self.id, at), self.inner.cap(at)).await
    }

    async fn open_writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        let inner = self.inner.writer().await?;
        Ok(Box::new(FaultyWriter { id: self.id.clone(), inner, faults: self.faults.clone() }))
    }

    async fn open_reader(&self) -> Result<Box<dyn ViewReader>, StoreError> {
        let call = Call::Reader(&self.id);
        if self.faults.of(&call) == Some(Fault::Stale) {
            return Ok(Box::new(StaleReader::over(self.inner.reader().await?)));
        }
        self.faults.meet(call, self.inner.reader()).await
    }

    fn told(&self) -> ViewHealth {
        match self.faults.of(&Call::ViewHealth(&self.id)) {
            Some(_) => ViewHealth { damaged: Some("a fault of the test".into()), failing: None },
            None => self.inner.health(),
        }
    }
}

/// A call about a view that may go wrong.
macro_rules! meet {
    ($self:ident, $call:expr, $which:path) => {
        $self.faults.meet($which(&$self.id), $call).await
    };
}

dacapo_store::delegate! {
    impl ViewTokens for FaultyView {
        tokens by meet(Call::Tokens);
        history by meet(Call::History);
        claim by meet(Call::Claim);
        revoke;
        cap => cap_at;
        hold by meet(Call::Hold);
        lift by meet(Call::Lift);
    }
}

dacapo_store::delegate! {
    impl ViewLetters for FaultyView {
        refusals by meet(Call::Refusals);
        letters by meet(Call::Letters);
        wish by meet(Call::Wish);
        unspoken;
    }
}

dacapo_store::delegate! {
    impl ViewOutbox for FaultyView {
        effects_due by meet(Call::Effects);
        first_effect by meet(Call::Effects);
        outbox by meet(Call::Effects);
        effect_letters by meet(Call::Effects);
        decide_effects by meet(Call::DecideEffects);
        effects_claim by meet(Call::Effects);
        claim_effects by meet(Call::ClaimEffects);
        begin_effects by meet(Call::BeginEffects);
        settle_effects by meet(Call::SettleEffects);
    }
}

dacapo_store::delegate! {
    impl ViewRows for FaultyView {
        missing_indexes;
        { fn health(&self) -> ViewHealth { self.told() } }
        copy;
        writer => open_writer;
        reader => open_reader;
    }
}

struct StaleReader {
    inner: Box<dyn ViewReader>,
    tokens: Vec<Token>,
}

impl StaleReader {
    fn over(inner: Box<dyn ViewReader>) -> Self {
        let stale = |token: &Token| Token { position: Position::START, ..*token };
        Self { tokens: inner.tokens().iter().map(stale).collect(), inner }
    }
}

dacapo_store::delegate! {
    impl ViewReader for StaleReader {
        { fn tokens(&self) -> &[Token] { &self.tokens } }
        get;
        select;
        page;
        query;
        first_rows;
        letters;
    }
}

struct FaultyWriter {
    id: ViewId,
    inner: Box<dyn ViewWriter>,
    faults: Faults,
}

impl FaultyWriter {
    async fn commit_or_roll_back(&mut self, commit: &Commit) -> Result<(), CommitError> {
        let result = self.faults.meet(Call::Commit(&self.id), self.inner.commit(commit)).await;
        if matches!(result, Err(CommitError::Store(_))) {
            // A commit that failed is rolled back.
            self.inner.rollback().await?;
        }
        result
    }
}

dacapo_store::delegate! {
    impl ViewWriter for FaultyWriter {
        load;
        load_of;
        segments_of;
        rows_with;
        put;
        delete;
        execute;
        query;
        index by meet(Call::Index);
        attach by meet(Call::Attach);
        keep_segments;
        take_over_segments;
        commit => commit_or_roll_back;
        rollback;
    }
}
