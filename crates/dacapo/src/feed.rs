//! The feed: events from a place in the journal on, first those that are there, then those that come.
//!
//! What comes next is read while its asker works on what came before, as far as it is there already.

use std::sync::Arc;

use dacapo_model::Position;
use dacapo_store::{EventBatch, Filter, Journal, Limit, StoreError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Follows the journal. It wakes as soon as something is appended and never goes past the head.
pub struct Feed {
    journal: Arc<dyn Journal>,
    head: watch::Receiver<Position>,
    filter: Arc<Filter>,
    limit: Limit,
    position: Position,
    /// The read behind `position`, if it has begun.
    ahead: Option<Ahead>,
}

impl Feed {
    /// The events behind `after` that `filter` wants, at most `limit` at a time.
    pub fn new(journal: Arc<dyn Journal>, after: Position, filter: Filter, limit: Limit) -> Self {
        let head = journal.head();
        Self { journal, head, filter: Arc::new(filter), limit, position: after, ahead: None }
    }

    /// Everything through here was looked at.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next events: at once if there are any, else as soon as there are. `None` once the journal was
    /// closed. Must be called in a tokio runtime. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read; asking again tries again.
    pub async fn next(&mut self) -> Result<Option<EventBatch>, StoreError> {
        loop {
            let head = *self.head.borrow_and_update();
            while self.position < head {
                let read = match &mut self.ahead {
                    Some(ahead) => ahead.done().await,
                    None => self.journal.read(self.position, &self.filter, self.limit).await,
                };
                // Only now, so that a future that is dropped while it waits leaves the read to the next one.
                self.ahead = None;
                let batch = read?;
                assert!(batch.through > self.position, "a read below the head gets on");
                self.position = batch.through;
                if self.position < head {
                    self.ahead = Some(Ahead::begin(&self.journal, self.position, &self.filter, self.limit));
                }
                if !batch.is_empty() {
                    return Ok(Some(batch));
                }
            }
            if self.head.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// The event at `position`, alone in its batch.
pub(crate) async fn event_at(journal: &dyn Journal, position: Position) -> Result<EventBatch, StoreError> {
    let before = Position::new(position.get().saturating_sub(1));
    let batch = journal.read(before, &Filter::everything(), Limit::events(1)).await?;
    // I-1: there is one at every position through the head.
    let found = batch.iter().next().map(|event| event.position);
    if found == Some(position) {
        return Ok(batch);
    }
    let found = found.map_or("nothing".to_owned(), |found| format!("event {found}"));
    Err(StoreError::corrupt(format!("the journal at position {position}"), format!("{found} was read there")))
}

/// A read that goes on beside whoever will ask for it.
pub(crate) struct Ahead(JoinHandle<Result<EventBatch, StoreError>>);

impl Ahead {
    /// Begins to read. It may wait for the disk, so it holds up none of the runtime's workers.
    pub(crate) fn begin(journal: &Arc<dyn Journal>, after: Position, filter: &Arc<Filter>, limit: Limit) -> Self {
        let (journal, filter, runtime) = (Arc::clone(journal), Arc::clone(filter), Handle::current());
        let read = move || runtime.block_on(journal.read(after, &filter, limit));
        Self(tokio::task::spawn_blocking(read))
    }

    /// What was read. Dropping the future loses nothing; once it is done it must not be asked for again.
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
