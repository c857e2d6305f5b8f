//! Rows that events of one segment write only: what counts is whose a row is, whatever is in memory.

#[path = "common/rooms.rs"]
mod rooms;

use std::sync::Arc;

use async_trait::async_trait;
use dacapo::Position;
use dacapo::journal::{Append, Appended, EventBatch, Filter, Limit, Revision, StreamName};
use dacapo::store::{Journal, Store, StoreError};
use dacapo::world::SystemClock;
use dacapo_model::{JournalId, Mark};
use dacapo_store::{AppendError, Health, StreamInfo};
use rooms::{a_copy_refuses_what_its_source_refuses, same_wherever_batches_end};
use tokio::sync::watch;

/// A journal in memory that a node which ends does not close, so that another one goes on with it.
struct KeptOpen(Arc<dyn Journal>);

#[async_trait]
impl Journal for KeptOpen {
    fn id(&self) -> JournalId {
        self.0.id()
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        self.0.mark(through).await
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.0.append(append).await
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        self.0.read(after, filter, limit).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        self.0.read_stream(stream, after, limit).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        self.0.stream_revision(stream).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        self.0.streams(category, after, most).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.0.head()
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    async fn close(&self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_in_memory() {
    same_wherever_batches_end(0..4, 120, async || {
        let store = Store::memory(Arc::new(SystemClock));
        let store = Store { journal: Arc::new(KeptOpen(Arc::clone(&store.journal))), ..store };
        async move || store.clone()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_on_disk() {
    let mut directories = vec![];
    same_wherever_batches_end(4..6, 120, async || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        directories.push(directory);
        async move || Store::embedded(&path, Arc::new(SystemClock)).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_refuses_what_its_source_refuses_on_every_store() {
    let directory = tempfile::tempdir().unwrap();
    a_copy_refuses_what_its_source_refuses(Store::memory(Arc::new(SystemClock))).await;
    a_copy_refuses_what_its_source_refuses(Store::embedded(directory.path(), Arc::new(SystemClock)).unwrap()).await;
}
