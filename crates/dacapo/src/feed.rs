//! The feed: the next events are read while the caller works on the ones before.

use std::sync::Arc;

use dacapo_model::Position;
use dacapo_store::{EventBatch, Filter, Journal, Limit, StoreError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::world::Offload;

/// Returns the event at `position`, alone in its batch.
pub(crate) async fn event_at(journal: &dyn Journal, position: Position) -> Result<EventBatch, StoreError> {
    let before = Position::new(position.get().saturating_sub(1));
    let batch = journal.read(before, &Filter::everything(), Limit::events(1)).await?;
    // I-1: there is an event at every position through the head.
    let found = batch.iter().next().map(|event| event.position);
    if found == Some(position) {
        return Ok(batch);
    }
    let found = found.map_or("nothing".to_owned(), |found| format!("event {found}"));
    Err(StoreError::corrupt(format!("the journal at position {position}"), format!("{found} was read there")))
}

/// A read that runs until a caller asks for its result.
pub(crate) struct Ahead(JoinHandle<Result<EventBatch, StoreError>>);

impl Ahead {
    /// Begins a read, without blocking a worker of the runtime.
    pub(crate) fn begin(
        offload: Offload,
        journal: &Arc<dyn Journal>,
        after: Position,
        filter: &Arc<Filter>,
        limit: Limit,
    ) -> Self {
        let (asked, filter) = (Arc::clone(journal), Arc::clone(filter));
        Self::of(offload, journal, async move { asked.read(after, &filter, limit).await })
    }

    /// Does the same for one of a limited number of reads. The permit ends with the read, even if nobody asks for its
    /// result.
    pub(crate) fn begin_scan(
        offload: Offload,
        journal: &Arc<dyn Journal>,
        after: Position,
        filter: &Arc<Filter>,
        limit: Limit,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (asked, filter) = (Arc::clone(journal), Arc::clone(filter));
        Self::of(offload, journal, async move {
            let read = asked.read(after, &filter, limit).await;
            drop(permit);
            read
        })
    }

    /// Does the same with [`Journal::read_places`].
    pub(crate) fn begin_places(offload: Offload, journal: &Arc<dyn Journal>, after: Position, limit: Limit) -> Self {
        let asked = Arc::clone(journal);
        Self::of(offload, journal, async move { asked.read_places(after, limit).await })
    }

    fn of(
        offload: Offload,
        journal: &Arc<dyn Journal>,
        read: impl Future<Output = Result<EventBatch, StoreError>> + Send + 'static,
    ) -> Self {
        Self(if journal.blocks() { offload.begin(read) } else { tokio::spawn(read) })
    }

    /// Returns the result of the read. Dropping the future loses nothing. Once it is done it must not be called again.
    pub(crate) async fn done(&mut self) -> Result<EventBatch, StoreError> {
        match (&mut self.0).await {
            Ok(read) => read,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::unavailable("read", "the runtime is shutting down")),
            },
        }
    }
}
