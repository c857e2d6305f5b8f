//! The feed: events from a place in the journal on, first those that are there, then those that come.

use std::sync::Arc;

use dacapo_model::Position;
use dacapo_store::{EventBatch, Filter, Journal, Limit, StoreError};
use tokio::sync::watch;

/// Follows the journal. It wakes as soon as something is appended and never goes past the head.
pub struct Feed {
    journal: Arc<dyn Journal>,
    head: watch::Receiver<Position>,
    filter: Filter,
    limit: Limit,
    position: Position,
}

impl Feed {
    /// The events behind `after` that `filter` wants, at most `limit` at a time.
    pub fn new(journal: Arc<dyn Journal>, after: Position, filter: Filter, limit: Limit) -> Self {
        let head = journal.head();
        Self { journal, head, filter, limit, position: after }
    }

    /// Everything through here was looked at.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next events: at once if there are any, else as soon as there are. `None` once the journal was
    /// closed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read; asking again tries again.
    pub async fn next(&mut self) -> Result<Option<EventBatch>, StoreError> {
        loop {
            let head = *self.head.borrow_and_update();
            while self.position < head {
                let batch = self.journal.read(self.position, &self.filter, self.limit).await?;
                assert!(batch.through > self.position, "a read below the head gets on");
                self.position = batch.through;
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
