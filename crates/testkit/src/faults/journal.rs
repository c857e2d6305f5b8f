//! A journal that goes wrong.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use dacapo::Position;
use dacapo::journal::{Append, Appended, EventBatch, EventId, Filter, Limit, Revision, StreamName, Timestamp};
use dacapo::store::{Journal, StoreError};
use dacapo_model::{JournalId, Mark};
use dacapo_store::{AppendError, Health, StreamInfo};
use tokio::sync::watch;

use super::{Call, Faults};

pub(super) struct FaultyJournal {
    pub(super) inner: Arc<dyn Journal>,
    pub(super) faults: Faults,
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

    async fn read_places(&self, after: Position, limit: Limit) -> Result<EventBatch, StoreError> {
        self.faults.meet(Call::Read, self.inner.read_places(after, limit)).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        self.faults.meet(Call::ReadStream, self.inner.read_stream(stream, after, limit)).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        self.faults.meet(Call::StreamRevision, self.inner.stream_revision(stream)).await
    }

    async fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        self.faults.meet(Call::FindPosition, self.inner.position_of(id)).await
    }

    async fn position_before(&self, time: Timestamp) -> Result<Position, StoreError> {
        self.faults.meet(Call::FindPosition, self.inner.position_before(time)).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        self.faults.meet(Call::Streams, self.inner.streams(category, after, most)).await
    }

    fn blocks(&self) -> bool {
        self.inner.blocks()
    }

    fn health(&self) -> Health {
        let planned = self.faults.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        planned.unwrap_or_else(|| self.inner.health())
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
