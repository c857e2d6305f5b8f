//! The journal: the ordered log of all events.

use async_trait::async_trait;
use dacapo_model::{
    EventId, ExpectedRevision, JournalId, Mark, NewEvent, Parted, Position, Revision, StreamName, Timestamp,
    category_of, limits,
};
use tokio::sync::watch;

use crate::error::{AppendError, AppendRefused, StoreError};
use crate::record::{EventBatch, EventRef, encoded_len};

/// An event and its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEvent {
    /// The stream.
    pub stream: StreamName,
    /// The event.
    pub event: NewEvent,
}

/// The treatment of events that are in the journal already (I-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnKnown {
    /// If all of them are there, it is a retry, and the answer is that of the first time. If only some are there, it
    /// is refused.
    #[default]
    Recognise,
    /// Write those that are not there, for imports that start again anywhere.
    Skip,
}

/// A batch of events to append: all or none of them, in this order, without other events in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The events, of one stream or of many.
    pub events: Vec<StreamEvent>,
    /// The revisions that the append expects of streams. A stream that is not named may have any revision. A stream
    /// that is named need not be written to.
    pub expected: Vec<(StreamName, ExpectedRevision)>,
    /// The treatment of events that are there already.
    pub on_known: OnKnown,
}

impl Append {
    /// Returns an append of events to one stream.
    pub fn to_stream(stream: StreamName, expected: ExpectedRevision, events: Vec<NewEvent>) -> Self {
        let events = events.into_iter().map(|event| StreamEvent { stream: stream.clone(), event }).collect();
        Self { events, expected: vec![(stream, expected)], on_known: OnKnown::Recognise }
    }

    /// Checks the append against every limit that does not depend on the contents of the journal, and returns the
    /// size of its records in bytes. Every store calls this first.
    ///
    /// # Errors
    /// [`AppendRefused::Empty`], [`AppendRefused::Limit`].
    pub fn check(&self) -> Result<usize, AppendRefused> {
        let within =
            |what, actual, max| if actual > max { Err(AppendRefused::Limit { what, actual, max }) } else { Ok(()) };
        if self.events.is_empty() {
            return Err(AppendRefused::Empty);
        }
        within("the number of events", self.events.len(), limits::APPEND_EVENTS_MAX)?;
        within("the number of streams with an expected revision", self.expected.len(), limits::APPEND_EXPECTED_MAX)?;
        let mut bytes = 0;
        for StreamEvent { stream, event } in &self.events {
            within("the size of a payload in bytes", event.payload.len(), limits::PAYLOAD_BYTES_MAX)?;
            within("the number of tags", event.tags.len(), limits::TAGS_MAX)?;
            for tag in &event.tags {
                within("the size of a tag in bytes", tag.len(), limits::TAG_BYTES_MAX)?;
            }
            let extra = crate::extra::counted(&event.metadata, &event.tags);
            within("the size of the metadata in bytes", extra, limits::METADATA_BYTES_MAX)?;
            bytes += encoded_len(stream.as_str(), event);
        }
        within("the size in bytes", bytes, limits::APPEND_BYTES_MAX)?;
        Ok(bytes)
    }
}

/// The result of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of the last of its events, also if they were there already.
    pub position: Position,
    /// The revision of the last of its events in that event's stream.
    pub revision: Revision,
    /// The number of events that were written; 0 for a recognised retry of another call.
    pub written: usize,
}

/// The streams that a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// All streams of users.
    #[default]
    User,
    /// The streams of these categories.
    Categories(Vec<String>),
    /// All streams, including those of dacapo itself (`$…`).
    All,
}

/// The events that a reader wants. Default: every event of users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The streams.
    pub streams: Streams,
    /// The types; `None` means all.
    pub types: Option<Vec<String>>,
}

impl Filter {
    /// Returns a filter that wants every event, including dacapo's own.
    pub fn everything() -> Self {
        Self { streams: Streams::All, types: None }
    }

    /// Returns true if the reader wants `event`.
    pub fn wants(&self, event: &EventRef<'_>) -> bool {
        self.picks(event.stream, event.event_type)
    }

    /// Returns true if the reader wants the events of a stream that have a type.
    pub fn picks(&self, stream: &str, event_type: &str) -> bool {
        let of_stream = match &self.streams {
            Streams::User => !stream.starts_with('$'),
            Streams::Categories(categories) => categories.iter().any(|category| category == category_of(stream)),
            Streams::All => true,
        };
        of_stream && self.types.as_ref().is_none_or(|types| types.iter().any(|name| name == event_type))
    }
}

/// The most that one read returns. At least one event is returned if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Number of events.
    pub events: usize,
    /// Bytes of records that are read.
    pub bytes: usize,
}

impl Limit {
    /// Returns a limit of this many events, and of [`limits::BATCH_BYTES_MAX`] bytes.
    pub fn events(events: usize) -> Self {
        Self { events: events.clamp(1, limits::READ_EVENTS_MAX), bytes: limits::BATCH_BYTES_MAX }
    }
}

/// The facts about a stream that are known without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: StreamName,
    /// Its last revision, which is also the number of its events.
    pub revision: Revision,
    /// The position of its last event.
    pub last: Position,
}

/// The health of a journal, as shown by its last calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// No problem is known.
    #[default]
    Well,
    /// Its calls fail. The text, for people, says what was tried, what was found and what to do.
    Failing(String),
    /// A part of it is not what was written, or is gone. If new events could be lost with that part, the journal
    /// accepts no more events until it is repaired. The text, for people, says what was found, where, and what to do.
    Damaged(String),
    /// Its history is no longer the one that was read from it. Every call fails until it is opened again.
    Parted(Parted),
}

impl From<&StoreError> for Health {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::Damaged(error.to_string()),
            StoreError::JournalParted(parted) => Self::Parted(*parted),
            error => Self::Failing(error.to_string()),
        }
    }
}

/// The ordered log of all events: positions are dense and given in commit order (I-1), and acknowledged events last
/// (I-2).
///
/// Its users rely on a history that only grows. A database that fails over can replace the history while it is open.
/// Such a store notices this before it returns or accepts anything of the other history. From then on every call
/// fails with [`StoreError::JournalParted`], and [`health`](Self::health) reports it.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Returns its identity, which it has from the beginning and which every copy of it keeps.
    fn id(&self) -> JournalId;

    /// Returns the mark of its history at the last position through `through` at which it keeps one. It keeps one at
    /// least at the end of each group of appends that one flush or one transaction made durable. For a position that
    /// it once returned it always returns the same mark. So a holder of a mark can check later whether this is still
    /// its history.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] if `through` is not in the journal; another [`StoreError`] if it cannot be read.
    async fn mark(&self, through: Position) -> Result<Mark, StoreError>;

    /// Appends a batch: all of it or nothing. Once this returns, the events are durable, and every later read sees
    /// them.
    ///
    /// # Errors
    /// [`AppendRefused`](AppendError::Refused) if the present state does not allow the batch; [`AppendError::Store`]
    /// if the store cannot write at the moment.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// Returns the events after `after` that `filter` wants, in order, at most `limit` of them, never past the head.
    /// The batch states the position through which it was searched; at the head that is the head.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] if `after` is not in the journal. A store that several nodes share checks the end
    /// of the journal again before it refuses. Another [`StoreError`] if the events cannot be read.
    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError>;

    /// Returns the events after `after` for a caller that counts them. It returns every event, as
    /// [`read`](Self::read) does, but guarantees only their positions, streams and types. A store may omit the rest
    /// if that is expensive.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    async fn read_places(&self, after: Position, limit: Limit) -> Result<EventBatch, StoreError> {
        self.read(after, &Filter::everything(), limit).await
    }

    /// Returns the events of one stream after the revision `after`, in order, at most `limit` of them. The batch
    /// covers the position of its last event.
    ///
    /// # Errors
    /// [`StoreError::BeyondStream`] if the stream does not have the revision `after`; another [`StoreError`] if the
    /// events cannot be read.
    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError>;

    /// Returns the last revision of a stream; [`Revision::START`] if it has no events.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError>;

    /// Returns the position of the event with this id; `None` if it is not in the journal. A store without an index
    /// of ids reads everything.
    ///
    /// # Errors
    /// [`StoreError`] if the search fails.
    async fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        let (mut after, head) = (Position::START, *self.head().borrow());
        while after < head {
            let batch = self.read(after, &Filter::everything(), Limit::events(limits::READ_EVENTS_MAX)).await?;
            if let Some(found) = batch.iter().find(|event| event.id == id) {
                return Ok(Some(found.position));
            }
            after = batch.through;
        }
        Ok(None)
    }

    /// Returns the last position that was appended before `time`: every event after it was appended at `time` or
    /// later. Returns [`Position::START`] if there is none. Recorded times never decrease, so a binary search finds
    /// it.
    ///
    /// # Errors
    /// [`StoreError`] if events cannot be read.
    async fn position_before(&self, time: Timestamp) -> Result<Position, StoreError> {
        let (mut before, mut from) = (Position::START, self.head().borrow().next());
        while from.since(before) > 1 {
            let middle = before.plus(from.since(before) / 2);
            let batch = self.read(Position::new(middle.get() - 1), &Filter::everything(), Limit::events(1)).await?;
            let earlier = batch.iter().next().is_some_and(|event| event.recorded < time);
            (before, from) = if earlier { (middle, from) } else { (before, middle) };
        }
        Ok(before)
    }

    /// Returns streams in the order of their names' bytes, after the name `after`, of one category or of all, at most
    /// `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError>;

    /// Returns true if a read may block the thread that polls it, as reading a disk does. Long reads then get a
    /// thread of their own. For reads that only wait for messages, that would cost two changes of threads each.
    fn blocks(&self) -> bool {
        true
    }

    /// Returns its health, as its last appends and reads have shown it. It waits for nothing. A store that can
    /// recover checks again by itself, even if nobody appends any more because the node reports that it is not ready.
    fn health(&self) -> Health {
        Health::Well
    }

    /// Returns findings that an operator should look at though they do not stop the journal: for people, with what to
    /// do. It waits for nothing.
    fn warnings(&self) -> Vec<String> {
        vec![]
    }

    /// Returns the last durable position, as a watch that wakes its followers. The watch ends when the journal is
    /// closed.
    fn head(&self) -> watch::Receiver<Position>;

    /// Finishes the work under way and releases every resource. Appends are refused from here on.
    async fn close(&self);
}
