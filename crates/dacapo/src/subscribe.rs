//! Subscriptions: events after a place in the journal, first the existing ones and then new ones, for readers that keep
//! no token.
//!
//! ```text
//!   journal ──each for itself──▶ catching up ──┐
//!      │                             ▲         ├──▶ next()
//!      └──once for all──▶ tail ──────┼─▶ live ─┘
//!                                    └── what it needs is no longer in the tail
//! ```
//!
//! A subscription is a position, and asks for the events after it: from the tail if that has them, otherwise from the
//! journal. So there is no hand-over in which an event could be lost or repeated. A live subscription that is too slow
//! for the tail simply catches up again. Of those that catch up, a few read at the same time, and the others wait for
//! their turn, one read each. There are no queues: a subscription that does not ask gets nothing, and blocks nobody.

mod subscriber;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dacapo_model::{Position, limits};
use dacapo_store::{EventBatch, Filter, Journal, Limit, StoreError, Streams};
use futures::Stream;
use tokio::sync::watch;

pub use subscriber::{Subscriber, SubscriberFailure, SubscriberStatus};

use crate::code::check_categories;
use crate::feed::Ahead;
pub(crate) use subscriber::{AnySubscriber, Subscribed};
pub(crate) use tail::{Bounds, Tail};

/// A subscription to events as they are appended. See [`Node::subscribe`](crate::Node::subscribe).
pub struct Subscription {
    tail: Arc<Tail>,
    head: watch::Receiver<Position>,
    filter: Arc<Filter>,
    position: Position,
    /// The read after `position`, if it has begun.
    ahead: Option<Ahead>,
}

impl Subscription {
    /// Returns a subscription to the events of `journal` after `after` that `filter` wants, with a tail of its own. The
    /// subscriptions of one node share a tail: [`Node::subscribe`](crate::Node::subscribe).
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] if `after` is not in the journal; another [`StoreError`] if the journal cannot be
    /// read.
    pub async fn new(journal: Arc<dyn Journal>, after: Position, filter: Filter) -> Result<Self, StoreError> {
        Self::on(Arc::new(Tail::new(journal, Bounds::default())), after, filter).await
    }

    /// Checks `after` once, here: later the journal may have grown past a position that was never in it.
    pub(crate) async fn on(tail: Arc<Tail>, after: Position, filter: Filter) -> Result<Self, StoreError> {
        if let Streams::Categories(categories) = &filter.streams {
            check_categories(categories, true).map_err(StoreError::Invalid)?;
        }
        let head = tail.journal().head();
        if after > *head.borrow() {
            // The head that is known here may lag what others have appended. The journal checks again before it
            // refuses.
            tail.journal().read(after, &Filter::everything(), Limit { events: 1, bytes: 1 }).await?;
        }
        Ok(Self { tail, head, filter: Arc::new(filter), position: after, ahead: None })
    }

    /// Returns the position through which all wanted events were returned. Another subscription after this position
    /// continues at the same place.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the next events: at once if there are any, otherwise as soon as there are. Returns `None` once the
    /// journal is closed and all its events were returned. It must be called in a tokio runtime. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read. Another call retries.
    pub async fn next(&mut self) -> Result<Option<EventBatch>, StoreError> {
        loop {
            match self.look().await? {
                Some(batch) if batch.is_empty() => {}
                batch => return Ok(batch),
            }
        }
    }

    /// Returns the same events as a stream of batches, which ends when [`next`](Self::next) returns `None`. After an
    /// error it continues at the same place.
    pub fn into_stream(self) -> impl Stream<Item = Result<EventBatch, StoreError>> + Send {
        futures::stream::unfold(self, async |mut subscription| {
            let next = subscription.next().await.transpose()?;
            Some((next, subscription))
        })
    }

    /// Returns the next events, even if none of them is wanted.
    pub(crate) async fn look(&mut self) -> Result<Option<EventBatch>, StoreError> {
        loop {
            let head = *self.head.borrow_and_update();
            if self.position < head {
                let batch = self.read(head).await?;
                assert!(batch.through > self.position, "a read below the head gets on");
                self.position = batch.through;
                return Ok(Some(batch));
            }
            if self.head.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Returns the events after the position, from the tail or from the journal. The position stays.
    async fn read(&mut self, head: Position) -> Result<EventBatch, StoreError> {
        if self.ahead.is_none()
            && let Some(batch) = self.tail.behind(self.position, head).await?
        {
            return Ok(batch.only(|event| event.position > self.position && self.filter.wants(event)));
        }
        let limit = Limit { events: limits::READ_EVENTS_MAX, bytes: limits::BATCH_BYTES_MAX };
        let begin = |after, permit| {
            Ahead::begin_scan(self.tail.offload(), self.tail.journal(), after, &self.filter, limit, permit)
        };
        let ahead = match &mut self.ahead {
            Some(ahead) => ahead,
            begun => begun.insert(begin(self.position, self.tail.scan().await?)),
        };
        let read = ahead.done().await;
        // Only now, so that a future that is dropped while it waits leaves the read to the next one.
        self.ahead = None;
        let batch = read?;
        // Near the head it is time to look into the tail, which reads once for all.
        if self.tail.is_far(batch.through, head) {
            self.ahead = self.tail.scan_at_once().map(|permit| begin(batch.through, permit));
        }
        Ok(batch)
    }
}
