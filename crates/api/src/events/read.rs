//! Events that are read, and streams that are listed.

use std::num::NonZeroU32;

use dacapo_model::{self as model, EventId, Position, Revision, Timestamp};
use serde::{Deserialize, Serialize};

use super::append::Metadata;
use crate::error::ApiError;
use crate::form::{Json, format_time};

/// A request to read events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadRequest {
    /// Read after this position; with `stream`, after this revision.
    #[serde(default)]
    pub after: u64,
    /// Only this stream. It cannot be combined with `categories`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Only streams of these categories. In a query the parameter is repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Only events of these types. In a query the parameter is repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Most events in the answer. The node has a limit of its own, in events and in bytes.
    #[serde(default, deserialize_with = "crate::form::limit", skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// Time to wait for events if there are none yet, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Include the streams of dacapo itself (`$…`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
}

/// Events in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ReadResponse {
    /// The events.
    pub events: Vec<Event>,
    /// The end of the range that was searched: the `after` of the next request. It is a position, or a revision if
    /// one stream was read.
    pub through: u64,
    /// The last position of the journal.
    pub head: u64,
    /// The permanent identity of the journal. Positions of another journal mean nothing here. Absent from nodes of
    /// earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Event {
    /// Its place in the journal.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Its place in its stream.
    pub revision: u64,
    /// Its identity.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The time at which it was recorded, in RFC 3339.
    pub time: String,
    /// Its payload, byte for byte as appended.
    pub data: Json,
    /// Its metadata.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// A request to list streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamsRequest {
    /// Only streams of this category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Only streams whose names come after this one in the order of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most streams in the answer. The node has a limit of its own.
    #[serde(default, deserialize_with = "crate::form::limit", skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
}

/// Streams in the order of their names' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StreamsResponse {
    /// The streams. Fewer than requested means that there are no more, except if `more` is true.
    pub streams: Vec<StreamSummary>,
    /// True if more streams follow. Continue with `after` set to the last of these.
    pub more: bool,
}

/// The facts about a stream that are known without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StreamSummary {
    /// Its name.
    pub name: String,
    /// Its last revision, which is also the number of its events.
    pub revision: u64,
    /// The position of its last event.
    pub last: u64,
}

/// The parts of a recorded event from which its form is made, borrowed from the store.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// Its place in the journal.
    pub position: Position,
    /// Its place in its stream.
    pub revision: Revision,
    /// Its identity.
    pub id: EventId,
    /// The time at which it was recorded.
    pub recorded: Timestamp,
    /// Its stream.
    pub stream: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Event {
    /// Returns the form of a recorded event.
    ///
    /// # Errors
    /// [`ApiError::Corrupt`] if its payload is not JSON.
    pub fn from_recorded(event: Recorded<'_>, metadata: model::Metadata, tags: Vec<String>) -> Result<Self, ApiError> {
        let data = Json::from_payload(event.payload)
            .map_err(|error| ApiError::corrupt(format!("the payload of event {}", event.position), error))?;
        Ok(Self {
            position: event.position.get(),
            stream: event.stream.to_owned(),
            revision: event.revision.get(),
            id: event.id.to_string(),
            event_type: event.event_type.to_owned(),
            time: format_time(event.recorded),
            data,
            metadata: metadata.into(),
            tags,
        })
    }
}
