//! A node's use of the journal: appends, reads, and subscriptions.

use std::sync::Arc;

use dacapo_model::{
    EventId, ExpectedRevision, InvalidName, JournalId, Metadata, NewEvent, Position, Revision, StreamName,
};
use dacapo_store::{Append, Appended, EventBatch, Filter, Journal, Limit, StoreError, StreamInfo};
use tokio::sync::watch;

use super::Node;
use crate::error::Error;
use crate::event::{self, Event};
use crate::subscribe::Subscription;

/// A node's journal, for reading.
#[derive(Clone, Copy)]
pub struct JournalReader<'a>(&'a dyn Journal);

impl JournalReader<'_> {
    /// Returns its identity, which every copy of it keeps.
    pub fn id(&self) -> JournalId {
        self.0.id()
    }

    /// Returns the last durable position, as a watch. It ends when the journal is closed.
    pub fn head(&self) -> watch::Receiver<Position> {
        self.0.head()
    }

    /// Returns the events after `after` that `filter` wants, as many as `limit` allows.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] if `after` is not in the journal; another [`StoreError`] if it cannot be read.
    pub async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        self.0.read(after, filter, limit).await
    }

    /// Returns the events of a stream after the revision `after`, as many as `limit` allows.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read, or the stream has no such revision.
    pub async fn read_stream(
        &self,
        stream: &StreamName,
        after: Revision,
        limit: Limit,
    ) -> Result<EventBatch, StoreError> {
        self.0.read_stream(stream, after, limit).await
    }

    /// Returns the last revision of a stream; [`Revision::START`] if it has no events.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        self.0.stream_revision(stream).await
    }

    /// Returns at most `most` streams in the order of their names, of one category or of all, after a name.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        self.0.streams(category, after, most).await
    }

    /// Returns faults that prevent nobody from using it.
    pub fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }
}

impl Node {
    /// Appends events to a stream: all of them or none. When this returns they are durable, and a query with
    /// [`after`](crate::Ask::after) the returned position sees them.
    ///
    /// Each call gives the events new ids, so a second call appends them a second time. To retry safely, make the
    /// events once with [`new_event`](Self::new_event), and call [`append_batch`](Self::append_batch) with the same
    /// ones again: the journal recognises their ids.
    ///
    /// # Errors
    /// [`Error::Append`] if the stream is not at the expected revision; [`Error::Store`] if the journal cannot be
    /// written at the moment. After [`Error::Store`] the events may have been written although the answer was lost.
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

    /// Appends a batch of events of any streams: all of them or none. A payload is one JSON value. Only whitespace
    /// around it is removed. A retry with the same events, which have their ids, appends them once.
    ///
    /// # Errors
    /// As [`append`](Self::append); [`Error::SystemStream`] for a stream of dacapo itself; [`Error::Event`] for a
    /// payload that is not JSON.
    pub async fn append_batch(&self, mut append: Append) -> Result<Appended, Error> {
        for event in &mut append.events {
            event::check_payload(&mut event.event)?;
        }
        if let Some(event) = append.events.iter().find(|event| event.stream.is_system()) {
            return Err(Error::SystemStream(event.stream.clone()));
        }
        Ok(self.versions.journal.append(append).await?)
    }

    /// Returns `event` with a new id, ready for [`append_batch`](Self::append_batch).
    ///
    /// # Errors
    /// [`Error::Event`] if it cannot be written as JSON.
    pub fn new_event<E: Event>(&self, event: &E, metadata: Metadata) -> Result<NewEvent, Error> {
        let event_type = dacapo_model::EventType::new(event.event_type())?;
        Ok(NewEvent { id: self.new_id(), event_type, payload: event.encode()?, metadata, tags: vec![] })
    }

    /// Returns a new id.
    pub fn new_id(&self) -> EventId {
        self.versions.world.ids.next()
    }

    /// Returns the journal, for reading. Appends go through [`append`](Self::append) and
    /// [`append_batch`](Self::append_batch), which protect the streams of dacapo itself.
    pub fn journal(&self) -> JournalReader<'_> {
        JournalReader(&*self.versions.journal)
    }

    /// Returns the last position of the journal.
    pub fn head(&self) -> Position {
        self.versions.head()
    }

    /// Checks that `after`, which a caller claims to have seen, is in the journal. If the journal is shared, this
    /// includes what other nodes have just appended.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`](dacapo_store::StoreError::BeyondHead), as [`Error::Store`], if it is not.
    pub async fn check_seen(&self, after: Position) -> Result<(), Error> {
        Ok(self.versions.check_seen(after).await?)
    }

    /// Returns a subscription to the events after `after` that `filter` wants: the existing ones, then new ones, each
    /// once and in order. The caller sets the pace. Near the head, subscriptions share their reads.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`](dacapo_store::StoreError::BeyondHead), as [`Error::Store`], if `after` is not in the
    /// journal: the caller has seen another journal, or a history that this one has lost.
    pub async fn subscribe(&self, after: Position, filter: Filter) -> Result<Subscription, Error> {
        Ok(Subscription::on(Arc::clone(&self.running.tail), after, filter).await?)
    }
}
