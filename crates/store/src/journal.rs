//! The journal: the ordered log of all events.

use async_trait::async_trait;
use dacapo_model::{
    EventId, ExpectedRevision, JournalId, Mark, NewEvent, Parted, Position, Revision, StreamName, Timestamp,
    category_of, limits,
};
use tokio::sync::watch;

use crate::error::{AppendError, AppendRefused, StoreError};
use crate::record::{EventBatch, EventRef, encoded_len};

/// An event and the stream it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEvent {
    /// The stream.
    pub stream: StreamName,
    /// The event.
    pub event: NewEvent,
}

/// What to do with events that are in the journal already (I-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnKnown {
    /// All of them are there: a retry, answered as the first time. Some of them are there: refused.
    #[default]
    Recognise,
    /// Write those that are not there, for imports that begin again anywhere.
    Skip,
}

/// A batch of events to append: all of it or nothing, in this order, in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The events, of one stream or of many.
    pub events: Vec<StreamEvent>,
    /// What is demanded of streams before it. A stream that is not named may be at any revision; one
    /// that is named need not be written to.
    pub expected: Vec<(StreamName, ExpectedRevision)>,
    /// What to do with events that are there already.
    pub on_known: OnKnown,
}

impl Append {
    /// Events of one stream.
    pub fn to_stream(stream: StreamName, expected: ExpectedRevision, events: Vec<NewEvent>) -> Self {
        let events = events.into_iter().map(|event| StreamEvent { stream: stream.clone(), event }).collect();
        Self { events, expected: vec![(stream, expected)], on_known: OnKnown::Recognise }
    }

    /// Checks the append against every limit that does not depend on what is in the journal, and
    /// returns how many bytes its records take. Every store calls this first.
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
        within("the number of streams whose revision is demanded", self.expected.len(), limits::APPEND_EXPECTED_MAX)?;
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

/// What an append came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of the last of its events, also when they were there already.
    pub position: Position,
    /// The revision of the last of its events in that event's stream.
    pub revision: Revision,
    /// How many events were written; 0 for a recognised retry of another call.
    pub written: usize,
}

/// Which streams a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// All that belong to users.
    #[default]
    User,
    /// Those of these categories.
    Categories(Vec<String>),
    /// All, those of dacapo itself (`$…`) included.
    All,
}

/// Which events a reader wants. The default is every event of users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of which streams.
    pub streams: Streams,
    /// Of which types; `None` is all.
    pub types: Option<Vec<String>>,
}

impl Filter {
    /// Every event there is, dacapo's own included.
    pub fn everything() -> Self {
        Self { streams: Streams::All, types: None }
    }

    /// Whether the reader wants `event`.
    pub fn wants(&self, event: &EventRef<'_>) -> bool {
        self.picks(event.stream, event.event_type)
    }

    /// Whether the reader wants the events of a stream that have a type.
    pub fn picks(&self, stream: &str, event_type: &str) -> bool {
        let of_stream = match &self.streams {
            Streams::User => !stream.starts_with('$'),
            Streams::Categories(categories) => categories.iter().any(|category| category == category_of(stream)),
            Streams::All => true,
        };
        of_stream && self.types.as_ref().is_none_or(|types| types.iter().any(|name| name == event_type))
    }
}

/// How much one read returns at most. At least one event is returned if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Events.
    pub events: usize,
    /// Bytes of records that are looked at.
    pub bytes: usize,
}

impl Limit {
    /// At most this many events, and [`limits::BATCH_BYTES_MAX`] bytes.
    pub fn events(events: usize) -> Self {
        Self { events: events.clamp(1, limits::READ_EVENTS_MAX), bytes: limits::BATCH_BYTES_MAX }
    }
}

/// What is known about a stream without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: StreamName,
    /// Its last revision, which is the number of its events.
    pub revision: Revision,
    /// The position of its last event.
    pub last: Position,
}

/// Whether a journal does what it is asked, as the last calls of it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known to speak against it.
    #[default]
    Well,
    /// What is asked of it fails. The text, for people, says what was tried, what was found and what to do.
    Failing(String),
    /// Something of it is not what was written, or is gone. Where what is appended from now on could be lost with that it
    /// takes no more events until it is mended. The text, for people, says what was found, where, and what to do.
    Damaged(String),
    /// Its history is not the one that was read from it any more, and nothing goes through it until it is opened anew.
    Parted(Parted),
}

impl From<&StoreError> for Health {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::Damaged(error.to_string()),
            StoreError::Parted(parted) => Self::Parted(*parted),
            error => Self::Failing(error.to_string()),
        }
    }
}

/// The ordered log of all events: positions are dense and given in commit order (I-1), what is
/// acknowledged lasts (I-2).
///
/// Whoever uses it relies on a history that only grows. A store under which another one can be put while it is open, as a
/// database that fails over, notices that before it gives or takes anything of the other history. From then on every call
/// is answered with [`StoreError::Parted`], and [`health`](Self::health) says so.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Its identity, which it has from its birth and which every copy of it keeps.
    fn id(&self) -> JournalId;

    /// The mark of its history at the last position through `through` at which it keeps one. It keeps one at least at the
    /// end of each group of appends that one flush or one transaction made durable. For a position that it once returned
    /// it returns the same mark for ever, so what keeps a mark can tell later whether this is still its history.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] when `through` is not in the journal; another [`StoreError`] when it cannot be read.
    async fn mark(&self, through: Position) -> Result<Mark, StoreError>;

    /// Appends a batch: all of it or nothing. Once this returns, the events are durable, and every
    /// later read sees them.
    ///
    /// # Errors
    /// [`AppendRefused`](AppendError::Refused) when the batch cannot be written as things are;
    /// [`AppendError::Store`] when the store cannot write at the moment.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// The events behind `after` that `filter` wants, in order, at most `limit` of them, never past
    /// the head. The batch tells how far was looked; at the head that is the head.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] when `after` is not in the journal. A store that several nodes share is asked where it
    /// ends before it refuses. Another [`StoreError`] when the events cannot be read.
    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError>;

    /// The events behind `after` for whoever counts them: as [`read`](Self::read) gives everything, but only their
    /// positions, streams and types are sure to be there. A store for which the rest is dear leaves it out.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    async fn read_places(&self, after: Position, limit: Limit) -> Result<EventBatch, StoreError> {
        self.read(after, &Filter::everything(), limit).await
    }

    /// The events of one stream behind the revision `after`, in order, at most `limit` of them. The
    /// batch covers the position of its last event.
    ///
    /// # Errors
    /// [`StoreError::BeyondStream`] when the stream does not have the revision `after`; another [`StoreError`] when the
    /// events cannot be read.
    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError>;

    /// The last revision of a stream; [`Revision::START`] when it has no events.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError>;

    /// The position of the event with this id; `None` when it is not in the journal. A store without an index of ids
    /// reads everything.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be looked for.
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

    /// The last position that was appended before `time`: every event behind it was appended at `time` or later.
    /// [`Position::START`] when there is none. Found by halving, since recorded times never decrease.
    ///
    /// # Errors
    /// [`StoreError`] when events cannot be read.
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

    /// Streams in the order of their names' bytes, behind the name `after`, of one category or of all,
    /// at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError>;

    /// Whether a read may block the thread that polls it, as one of a disk does. Long reads then get a thread of their
    /// own. Where they only wait for messages that would cost two changes of threads for each of them.
    fn blocks(&self) -> bool {
        true
    }

    /// Whether it works, as its last appends and reads went. It waits for nothing. A store that can recover looks again
    /// by itself, also when nobody appends any more because the node says that it is not ready.
    fn health(&self) -> Health {
        Health::Well
    }

    /// What somebody should look at though it keeps the journal from nothing: for people, with what to do. It waits for
    /// nothing.
    fn warnings(&self) -> Vec<String> {
        vec![]
    }

    /// The last durable position, as a watch that wakes whoever follows. It ends when the journal is closed.
    fn head(&self) -> watch::Receiver<Position>;

    /// Finishes what is under way and lets go of every resource. Appends are refused from here on.
    async fn close(&self);
}
