//! Events that are read, and streams that are listed.

use std::num::NonZeroU32;

use dacapo_model::{self as model, EventId, Position, Revision, Timestamp};
use serde::{Deserialize, Serialize};

use super::append::Metadata;
use crate::error::ApiError;
use crate::form::{Json, format_time};

/// Which events to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadRequest {
    /// Read behind this position; with `stream`, behind this revision.
    #[serde(default)]
    pub after: u64,
    /// Of this stream only. It cannot be joined with `categories`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Of streams of these categories only; in a query the parameter is repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Of these types only; in a query the parameter is repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// At most so many events; the node has a limit of its own, in events and in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// With nothing to read, wait for so long until there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The streams of dacapo itself (`$…`) too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
}

/// Events in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ReadResponse {
    /// The events.
    pub events: Vec<Event>,
    /// Everything through here was looked at: the `after` to go on with. A position, or a revision when
    /// one stream was read.
    pub through: u64,
    /// The last position of the journal.
    pub head: u64,
    /// Which journal it is, for good: positions of another one say nothing here. Absent from nodes of earlier releases.
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
    /// When it was recorded, in RFC 3339.
    pub time: String,
    /// Its payload, byte for byte as appended.
    pub data: Json,
    /// What is known about it.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Which streams to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamsRequest {
    /// Those of this category only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Those whose names come behind this one in the order of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many; the node has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
}

/// Streams in the order of their names' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StreamsResponse {
    /// The streams. Fewer than asked for means that there are no more, unless `more` says otherwise.
    pub streams: Vec<StreamSummary>,
    /// Whether more follow: go on with `after` the last of these.
    pub more: bool,
}

/// What is known about a stream without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StreamSummary {
    /// Its name.
    pub name: String,
    /// Its last revision, which is the number of its events.
    pub revision: u64,
    /// The position of its last event.
    pub last: u64,
}

/// The parts of a recorded event, to make its form of; borrowed from wherever a store keeps them.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// Its place in the journal.
    pub position: Position,
    /// Its place in its stream.
    pub revision: Revision,
    /// Its identity.
    pub id: EventId,
    /// When it was recorded.
    pub recorded: Timestamp,
    /// Its stream.
    pub stream: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Event {
    /// The form of a recorded event.
    ///
    /// # Errors
    /// [`ApiError::Corrupt`] when its payload is not JSON.
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
