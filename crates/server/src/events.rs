//! Appending, reading and listing events: forms in, forms out. How a read waits is in `read.rs`.

use std::num::NonZeroU32;

use dacapo_api::{
    ApiError, AppendRequest, AppendResponse, Event, Expected, OnKnown, ReadRequest, ReadResponse, Recorded,
    StreamSummary, StreamsRequest, StreamsResponse, check_category,
};
use dacapo_model::StreamName;
use dacapo_store::{Append, EventRef, StreamEvent};

use crate::in_time::in_time;
use crate::limits::{ANSWER_ENTRIES, ANSWER_ENTRIES_MAX};
use crate::node::{Operations, refused, unavailable};

impl Operations {
    pub(crate) async fn append(&self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
        in_time(None, async move {
            let mut events = Vec::with_capacity(request.events.len());
            for event in request.events {
                let (stream, event) = event.into_model(|| self.node().new_id())?;
                events.push(StreamEvent { stream, event });
            }
            let expected = request.expected.into_iter().map(Expected::into_model).collect::<Result<_, _>>()?;
            let on_known = match request.on_known {
                OnKnown::Recognise => dacapo_store::OnKnown::Recognise,
                OnKnown::Skip => dacapo_store::OnKnown::Skip,
            };
            let appended = self.node().append_batch(Append { events, expected, on_known }).await.map_err(refused)?;
            Ok(AppendResponse {
                position: appended.position.get(),
                revision: appended.revision.get(),
                written: appended.written as u64,
            })
        })
        .await
    }

    pub(crate) async fn read(&self, request: ReadRequest) -> Result<ReadResponse, ApiError> {
        in_time(request.wait_ms, async move { self.read_patiently(request).await }).await
    }

    pub(crate) async fn streams(&self, request: StreamsRequest) -> Result<StreamsResponse, ApiError> {
        in_time(None, async move {
            let most = request.limit.map_or(ANSWER_ENTRIES, NonZeroU32::get).min(ANSWER_ENTRIES_MAX) as usize;
            let after = request.after.map(StreamName::try_from).transpose()?;
            request.category.as_deref().map(check_category).transpose()?;
            let journal = self.node().journal();
            // One more than requested shows whether more follow.
            let found = journal.streams(request.category.as_deref(), after.as_ref(), most + 1).await;
            let mut found = found.map_err(unavailable)?;
            let more = found.len() > most;
            found.truncate(most);
            let streams = found.into_iter().map(|stream| StreamSummary {
                name: stream.name.to_string(),
                revision: stream.revision.get(),
                last: stream.last.get(),
            });
            Ok(StreamsResponse { streams: streams.collect(), more })
        })
        .await
    }
}

pub(crate) fn event_form(event: &EventRef<'_>) -> Result<Event, ApiError> {
    let (metadata, tags) = event.extra().map_err(unavailable)?;
    let recorded = Recorded {
        position: event.position,
        revision: event.revision,
        id: event.id,
        recorded: event.recorded,
        stream: event.stream,
        event_type: event.event_type,
        payload: event.payload,
    };
    Event::from_recorded(recorded, metadata, tags)
}
