//! Reading events, and waiting for them.
//!
//! ```text
//!   read what is there ──▶ something: answered at once
//!          │ nothing
//!          ▼
//!   a subscription goes on from there ──▶ something: answered at once
//!          │ the time is over
//!          ▼
//!   how far it has looked: the next call continues from there
//! ```
//!
//! So a reader never reads an event twice, and new events are read once for all who wait.

use std::num::NonZeroU32;
use std::time::Duration;

use dacapo_api::{ApiError, Problem, ReadRequest, ReadResponse, check_category};
use dacapo_model::{EventType, Position, Revision, StreamName, limits};
use dacapo_store::{EventBatch, EventRef, Filter, Limit, Streams};
use tokio::time::Instant;

use crate::events::event_form;
use crate::limits::{ANSWER_BYTES_MAX, ANSWER_ENTRIES, READ_WAIT_TIME_MAX};
use crate::node::{Operations, refused, unavailable};

impl Operations {
    fn journal_id(&self) -> String {
        self.node().journal().id().to_string()
    }

    pub(crate) async fn read_patiently(&self, request: ReadRequest) -> Result<ReadResponse, ApiError> {
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0)).min(READ_WAIT_TIME_MAX);
        let deadline = Instant::now() + wait;
        is_clear(&request)?;
        match &request.stream {
            Some(stream) => self.read_stream(&StreamName::new(stream)?, &request, deadline).await,
            None => self.read_journal(&request, deadline).await,
        }
    }

    async fn read_journal(&self, request: &ReadRequest, deadline: Instant) -> Result<ReadResponse, ApiError> {
        let streams = match (request.categories.is_empty(), request.system) {
            (false, _) => Streams::Categories(request.categories.clone()),
            (true, true) => Streams::All,
            (true, false) => Streams::User,
        };
        let filter = Filter { streams, types: types(request) };
        let (after, limit) = (Position::new(request.after), limit(request));
        let batch = self.node().journal().read(after, &filter, limit).await.map_err(unavailable)?;
        if !batch.is_empty() || Instant::now() >= deadline {
            return self.answer(&batch, limit);
        }
        let mut subscription = self.node().subscribe(batch.through, filter).await.map_err(refused)?;
        match tokio::time::timeout_at(deadline, subscription.next()).await {
            Ok(Ok(Some(batch))) => self.answer(&batch, limit),
            Ok(Err(error)) => Err(unavailable(error)),
            // The time is over, or nothing more will come from a closed journal.
            Ok(Ok(None)) | Err(_) => self.answer(&EventBatch::empty(subscription.position()), limit),
        }
    }

    async fn read_stream(
        &self,
        stream: &StreamName,
        request: &ReadRequest,
        deadline: Instant,
    ) -> Result<ReadResponse, ApiError> {
        let types = types(request);
        let wanted =
            |event: &EventRef<'_>| types.as_ref().is_none_or(|types| types.iter().any(|name| name == event.event_type));
        let limit = limit(request);
        // Subscribed before the first read, so that a later event wakes it.
        let mut seen = self.node().head();
        let mut after = Revision::new(request.after);
        loop {
            let batch = self.node().journal().read_stream(stream, after, limit).await.map_err(unavailable)?;
            let last = batch.iter().next_back().map(|event| event.revision);
            let through = last.unwrap_or(after);
            if batch.iter().any(|event| wanted(&event)) || Instant::now() >= deadline {
                return self.stream_answer(&batch, wanted, through);
            }
            after = through;
            if last.is_some() {
                continue;
            }
            // Another reader's batch of the stream's category also serves this one.
            let filter =
                Filter { streams: Streams::Categories(vec![stream.category().to_owned()]), types: types.clone() };
            let mut subscription = self.node().subscribe(seen, filter).await.map_err(refused)?;
            let comes = async {
                loop {
                    match subscription.next().await? {
                        Some(batch) if batch.iter().any(|event| event.stream == stream.as_str()) => return Ok(true),
                        Some(_) => {}
                        None => return Ok(false),
                    }
                }
            };
            match tokio::time::timeout_at(deadline, comes).await {
                Ok(Ok(true)) => seen = subscription.position(),
                Ok(Err(error)) => return Err(unavailable(error)),
                Ok(Ok(false)) | Err(_) => return self.stream_answer(&batch, wanted, after),
            }
        }
    }

    /// Returns the events of `batch` within `limit`. The others are left to the next call.
    fn answer(&self, batch: &EventBatch, limit: Limit) -> Result<ReadResponse, ApiError> {
        let (mut events, mut bytes, mut through) = (Vec::new(), 0, batch.through);
        for event in batch.iter() {
            // At least one, however large it is.
            bytes += event.payload.len();
            if events.len() == limit.events || (bytes > limit.bytes && !events.is_empty()) {
                // The next call continues after the last event of this answer.
                through = Position::new(event.position.get() - 1);
                break;
            }
            events.push(event_form(&event)?);
        }
        let head = self.node().head().max(through);
        Ok(ReadResponse { events, through: through.get(), head: head.get(), journal: Some(self.journal_id()) })
    }

    /// Returns the wanted events of a batch of one stream, which is within the limits, read through this revision.
    fn stream_answer(
        &self,
        batch: &EventBatch,
        wanted: impl Fn(&EventRef<'_>) -> bool,
        through: Revision,
    ) -> Result<ReadResponse, ApiError> {
        let events = batch.iter().filter(wanted).map(|event| event_form(&event)).collect::<Result<_, _>>()?;
        let head = self.node().head().max(batch.through);
        Ok(ReadResponse { events, through: through.get(), head: head.get(), journal: Some(self.journal_id()) })
    }
}

/// Checks that the request has only one meaning, and that something can match it. A request that nothing can ever
/// match is a mistake, and would wait without end.
fn is_clear(request: &ReadRequest) -> Result<(), ApiError> {
    let ReadRequest { stream, categories, types, system, .. } = request;
    let named = [("stream", stream.is_some()), ("categories", !categories.is_empty()), ("system", *system)];
    let mut named = named.into_iter().filter_map(|(name, is_there)| is_there.then_some(name));
    if let (Some(one), Some(other)) = (named.next(), named.next()) {
        let problem = Problem::new("unprocessable", format!("{one} and {other} cannot be combined"));
        return Err(problem.field("at", other).help("name one of stream, categories and system").invalid());
    }
    types.iter().try_for_each(|name| EventType::new(name).map(drop))?;
    categories.iter().try_for_each(|name| check_category(name))?;
    if let Some(system) = categories.iter().find(|name| name.starts_with('$')) {
        let problem = Problem::new("unprocessable", format!("the category {system} belongs to dacapo itself"));
        let help = "read the streams of dacapo with system, or one of them with stream";
        return Err(problem.field("at", "categories").help(help).invalid());
    }
    Ok(())
}

fn types(request: &ReadRequest) -> Option<Vec<String>> {
    (!request.types.is_empty()).then(|| request.types.clone())
}

fn limit(request: &ReadRequest) -> Limit {
    let events = request.limit.map_or(ANSWER_ENTRIES, NonZeroU32::get).min(limits::READ_EVENTS_MAX as u32) as usize;
    Limit { events, bytes: ANSWER_BYTES_MAX }
}
