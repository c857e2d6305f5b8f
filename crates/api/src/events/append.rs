//! The forms of an append and of its result.

use std::collections::BTreeMap;

use dacapo_model::{self as model, EventId, EventType, StreamName, limits};
use serde::{Deserialize, Serialize};

use super::bounds::{at_most, bounded_fields, few_tags, or_nothing};
use super::demand::Expected;
use crate::error::ApiError;
use crate::form::{Json, parse_event_id};

/// Events to append: all or none of them, in this order, without other events in between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AppendRequest {
    /// The events, of one stream or of many; at most [`APPEND_EVENTS_MAX`](limits::APPEND_EVENTS_MAX).
    #[serde(deserialize_with = "at_most::<_, _, { limits::APPEND_EVENTS_MAX }>")]
    pub events: Vec<NewEvent>,
    /// The revisions that the append expects of streams. A stream that is not named may have any revision. At most
    /// [`APPEND_EXPECTED_MAX`](limits::APPEND_EXPECTED_MAX) are named.
    #[serde(
        default,
        deserialize_with = "at_most::<_, _, { limits::APPEND_EXPECTED_MAX }>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub expected: Vec<Expected>,
    /// The treatment of events that are in the journal already.
    #[serde(default)]
    pub on_known: OnKnown,
}

/// An event that has no place in the journal yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NewEvent {
    /// The stream that it is appended to.
    pub stream: String,
    /// Its identity, a UUID. Default: the node chooses one, and then a retry writes the event again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its payload, kept byte for byte.
    pub data: Json,
    /// Its metadata.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// A few indexed labels.
    #[serde(default, deserialize_with = "few_tags", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Metadata of an event, beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Metadata {
    /// The conversation it belongs to, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The event or command it follows from, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<String>,
    /// The person or program that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Free fields of the writer.
    #[serde(default, deserialize_with = "bounded_fields", skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// The treatment of events that are in the journal already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnKnown {
    /// If all of them are there, it is a retry, and the answer is that of the first time. If only some are there, it
    /// is refused.
    #[default]
    Recognise,
    /// Write those that are not there.
    Skip,
}

/// The result of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AppendResponse {
    /// The position of the last of its events, also if they were there already.
    pub position: u64,
    /// The revision of the last of its events in that event's stream.
    pub revision: u64,
    /// The number of events that were written; 0 for a recognised retry.
    pub written: u64,
}

impl NewEvent {
    /// Returns the event as a type of the model, and its stream. `new_id` gives it an id if it has none.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if a name or an id breaks a rule.
    pub fn into_model(self, new_id: impl FnOnce() -> EventId) -> Result<(StreamName, model::NewEvent), ApiError> {
        let event = model::NewEvent {
            id: self.id.as_deref().map(parse_event_id).transpose()?.unwrap_or_else(new_id),
            event_type: EventType::new(&self.event_type)?,
            payload: self.data.into_payload(),
            metadata: self.metadata.into_model()?,
            tags: self.tags,
        };
        Ok((StreamName::new(&self.stream)?, event))
    }
}

impl Metadata {
    /// Returns true if there is no metadata at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the metadata as a type of the model.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if an id is not a UUID.
    pub fn into_model(self) -> Result<model::Metadata, ApiError> {
        Ok(model::Metadata {
            correlation: self.correlation.as_deref().map(parse_event_id).transpose()?,
            causation: self.causation.as_deref().map(parse_event_id).transpose()?,
            actor: self.actor,
            fields: self.fields,
        })
    }
}

impl From<model::Metadata> for Metadata {
    fn from(metadata: model::Metadata) -> Self {
        Self {
            correlation: metadata.correlation.map(|id| id.to_string()),
            causation: metadata.causation.map(|id| id.to_string()),
            actor: metadata.actor,
            fields: metadata.fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_append_is_stream_type_and_data() {
        let text = r#"{"events":[{"stream":"account-1","type":"opened","data":{"limit": 1.0}}]}"#;
        let request: AppendRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.on_known, OnKnown::Recognise);
        let id = EventId::from_bytes([9; 16]);
        let (stream, event) = request.events[0].clone().into_model(|| id).unwrap();
        assert_eq!((stream.as_str(), event.event_type.as_str(), event.id), ("account-1", "opened", id));
        assert_eq!(event.payload, br#"{"limit": 1.0}"#);
    }

    #[test]
    fn a_name_that_breaks_a_rule_is_invalid() {
        let event = NewEvent {
            stream: String::new(),
            id: None,
            event_type: "opened".into(),
            data: Json::parse("{}").unwrap(),
            metadata: Metadata::default(),
            tags: vec![],
        };
        let error = event.into_model(|| EventId::from_bytes([0; 16])).unwrap_err();
        assert_eq!((error.http_status(), error.problem().code.as_str()), (422, "invalid_name"));
    }
}
