//! A store that fails, or loses its answers, where a test says so.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dacapo::{
    Append, Appended, EventBatch, Filter, Index, Journal, Limit, Position, Revision, Segment, SegmentCount, Store,
    StoreError, StreamName, Table, Token, Value, ViewId,
};
use dacapo_model::{
    BegunEffect, EffectLetter, EffectsClaim, Epoch, JournalId, Letter, Mark, MemberId, PendingEffect, Refusal, Settled,
    Timestamp, Wish,
};
use dacapo_store::{
    AppendError, Attached, Commit, CommitError, FirstRows, Health, OfSegment, Outbox, StreamInfo, View, ViewCopy,
    ViewHealth, ViewHistory, ViewReader, ViewWriter, Views, WhichEffects, WhichLetters,
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

#[async_trait]
impl View for FaultyView {
    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.faults.meet(Call::Tokens(&self.id), self.inner.tokens()).await
    }

    async fn history(&self) -> Result<Option<ViewHistory>, StoreError> {
        self.faults.meet(Call::History(&self.id), self.inner.history()).await
    }

    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        self.faults.meet(Call::Claim(&self.id), self.inner.claim(by, seen)).await
    }

    async fn revoke(&self) -> Result<(), StoreError> {
        self.inner.revoke().await
    }

    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        self.faults.meet(Call::Cap(&self.id, at), self.inner.cap(at)).await
    }

    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError> {
        self.faults.meet(Call::Hold(&self.id), self.inner.hold(mark)).await
    }

    async fn lift(&self, mark: Position) -> Result<(), StoreError> {
        self.faults.meet(Call::Lift(&self.id), self.inner.lift(mark)).await
    }

    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        self.faults.meet(Call::Refusals(&self.id), self.inner.refusals()).await
    }

    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        self.faults.meet(Call::Letters(&self.id), self.inner.letters(after, most)).await
    }

    async fn unspoken(&self) -> Result<Vec<Position>, StoreError> {
        self.inner.unspoken().await
    }

    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError> {
        self.faults.meet(Call::Effects(&self.id), self.inner.effects_due(now, longest, most)).await
    }

    async fn first_effect(&self, stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError> {
        self.faults.meet(Call::Effects(&self.id), self.inner.first_effect(stream, after)).await
    }

    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError> {
        self.faults.meet(Call::Effects(&self.id), self.inner.outbox(most)).await
    }

    async fn effect_letters(&self, after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError> {
        self.faults.meet(Call::Effects(&self.id), self.inner.effect_letters(after, most, untried)).await
    }

    async fn decide_effects(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError> {
        self.faults.meet(Call::DecideEffects(&self.id), self.inner.decide_effects(which, wish)).await
    }

    async fn effects_claim(&self) -> Result<EffectsClaim, StoreError> {
        self.inner.effects_claim().await
    }

    async fn claim_effects(&self, by: Option<MemberId>, seen: Epoch) -> Result<Option<Epoch>, StoreError> {
        self.faults.meet(Call::ClaimEffects(&self.id), self.inner.claim_effects(by, seen)).await
    }

    async fn begin_effects(
        &self,
        claim: EffectsClaim,
        numbers: &[u64],
    ) -> Result<Option<Vec<BegunEffect>>, StoreError> {
        self.faults.meet(Call::BeginEffects(&self.id), self.inner.begin_effects(claim, numbers)).await
    }

    async fn settle_effects(&self, epoch: Epoch, settled: &[(u64, Settled)]) -> Result<(), StoreError> {
        self.faults.meet(Call::SettleEffects(&self.id), self.inner.settle_effects(epoch, settled)).await
    }

    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        self.faults.meet(Call::Wish(&self.id), self.inner.wish(which, wish)).await
    }

    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError> {
        self.inner.missing_indexes(tables).await
    }

    fn health(&self) -> ViewHealth {
        match self.faults.of(&Call::ViewHealth(&self.id)) {
            Some(_) => ViewHealth { damaged: Some("a fault of the test".into()), failing: None },
            None => self.inner.health(),
        }
    }

    async fn copy(&self) -> Result<ViewCopy, StoreError> {
        self.inner.copy().await
    }

    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        let inner = self.inner.writer().await?;
        Ok(Box::new(FaultyWriter { id: self.id.clone(), inner, faults: self.faults.clone() }))
    }

    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError> {
        let call = Call::Reader(&self.id);
        if self.faults.of(&call) == Some(Fault::Stale) {
            return Ok(Box::new(StaleReader::over(self.inner.reader().await?)));
        }
        self.faults.meet(call, self.inner.reader()).await
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

#[async_trait]
impl ViewReader for StaleReader {
    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    async fn get(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        self.inner.get(table, key).await
    }

    async fn select(
        &mut self,
        table: &Table,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        self.inner.select(table, columns, most).await
    }

    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        self.inner.page(table, after, most).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<(Vec<String>, Vec<Vec<Value>>), StoreError> {
        self.inner.query(sql, parameters).await
    }

    async fn first_rows(&mut self, sql: &str, most: usize) -> Result<FirstRows, StoreError> {
        self.inner.first_rows(sql, most).await
    }

    async fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        self.inner.letters(after, most).await
    }
}

struct FaultyWriter {
    id: ViewId,
    inner: Box<dyn ViewWriter>,
    faults: Faults,
}

#[async_trait]
impl ViewWriter for FaultyWriter {
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        self.inner.load(table, key).await
    }

    async fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError> {
        self.inner.load_of(table, key).await
    }

    async fn segments_of(&mut self, table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError> {
        self.inner.segments_of(table, keys).await
    }

    async fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError> {
        self.inner.rows_with(table, index, values).await
    }

    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        self.inner.put(table, rows).await
    }

    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        self.inner.delete(table, keys).await
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.inner.execute(sql, parameters).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError> {
        self.inner.query(sql, parameters).await
    }

    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError> {
        self.faults.meet(Call::Index(&self.id), self.inner.index(table, index)).await
    }

    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError> {
        self.faults.meet(Call::Attach(&self.id), self.inner.attach(copy)).await
    }

    async fn keep_segments(&mut self, table: &Table) -> Result<(), StoreError> {
        self.inner.keep_segments(table).await
    }

    async fn take_over_segments(&mut self, table: &Table, from: &Attached) -> Result<(), StoreError> {
        self.inner.take_over_segments(table, from).await
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        let result = self.faults.meet(Call::Commit(&self.id), self.inner.commit(commit)).await;
        if matches!(result, Err(CommitError::Store(_))) {
            // A commit that failed is rolled back.
            self.inner.rollback().await?;
        }
        result
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        self.inner.rollback().await
    }
}
