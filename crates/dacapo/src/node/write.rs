//! What a node does with the journal: appends, and reads as it grows.

use std::sync::Arc;

use dacapo_model::{EventId, ExpectedRevision, InvalidName, Metadata, NewEvent, Position, StreamName};
use dacapo_store::{Append, Appended, Filter, Journal};

use super::Node;
use crate::error::Error;
use crate::event::{self, Event};
use crate::subscribe::Subscription;

impl Node {
    /// Appends events to a stream: all of them or none. When this returns they are durable, and whoever
    /// asks [`after`](Ask::after) the returned position sees them.
    ///
    /// # Errors
    /// [`Error::Append`] when the stream is not at the expected revision; [`Error::Store`] when the
    /// journal cannot be written at the moment.
    pub async fn append<E: Event>(
        &self,
        stream: impl TryInto<StreamName, Error = InvalidName>,
        expected: ExpectedRevision,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Appended, Error> {
        let events = events.into_iter().map(|event| self.new_event(&event, Metadata::default()));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        self.append_batch(Append::to_stream(stream.try_into()?, expected, events)).await
    }

    /// Appends a batch of events of any streams: all of them or none. A payload is one value of JSON; only space around
    /// it is dropped.
    ///
    /// # Errors
    /// As [`append`](Self::append); [`Error::SystemStream`] for a stream of dacapo itself; [`Error::Event`] for a payload
    /// that is not JSON.
    pub async fn append_batch(&self, mut append: Append) -> Result<Appended, Error> {
        for event in &mut append.events {
            event::check_payload(&mut event.event)?;
        }
        if let Some(event) = append.events.iter().find(|event| event.stream.is_system()) {
            return Err(Error::SystemStream(event.stream.clone()));
        }
        Ok(self.versions.journal.append(append).await?)
    }

    /// `event` with a fresh id, ready for [`append_batch`](Self::append_batch).
    ///
    /// # Errors
    /// [`Error::Event`] when it cannot be written as JSON.
    pub fn new_event<E: Event>(&self, event: &E, metadata: Metadata) -> Result<NewEvent, Error> {
        let event_type = dacapo_model::EventType::new(event.event_type())?;
        Ok(NewEvent { id: self.new_id(), event_type, payload: event.encode()?, metadata, tags: vec![] })
    }

    /// A fresh id.
    pub fn new_id(&self) -> EventId {
        self.versions.world.ids.next()
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.versions.journal
    }

    /// The last position of the journal.
    pub fn head(&self) -> Position {
        self.versions.head()
    }

    /// Checks that `after`, which somebody says to have seen, is in the journal. What other nodes appended a moment ago
    /// is asked for, where the journal is shared.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`](dacapo_store::StoreError::BeyondHead), as [`Error::Store`], if it is not.
    pub async fn check_seen(&self, after: Position) -> Result<(), Error> {
        Ok(self.versions.check_seen(after).await?)
    }

    /// The events behind `after` that `filter` wants: those that are there, then those that come, each once and in
    /// order. The caller sets the pace; who is near the head shares what is read with the others.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`](dacapo_store::StoreError::BeyondHead), as [`Error::Store`], when `after` is not in the
    /// journal: whoever asks has seen another one, or a history that this one has lost.
    pub async fn subscribe(&self, after: Position, filter: Filter) -> Result<Subscription, Error> {
        Ok(Subscription::on(Arc::clone(&self.running.tail), after, filter).await?)
    }
}
