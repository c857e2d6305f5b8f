//! Forms of appending and reading events, and of listing streams.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use dacapo_model::{
    self as model, EventId, EventType, ExpectedRevision, Position, Revision, StreamName, Timestamp, limits,
};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::ApiError;
use crate::form::{Json, format_time, parse_event_id};

/// Events to append: all of them or nothing, in this order, in one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AppendRequest {
    /// The events, of one stream or of many; at most [`APPEND_EVENTS_MAX`](limits::APPEND_EVENTS_MAX).
    #[serde(deserialize_with = "at_most::<_, _, { limits::APPEND_EVENTS_MAX }>")]
    pub events: Vec<NewEvent>,
    /// What is demanded of streams before it. A stream that is not named may be at any revision. At most
    /// [`APPEND_EXPECTED_MAX`](limits::APPEND_EXPECTED_MAX) are named.
    #[serde(
        default,
        deserialize_with = "at_most::<_, _, { limits::APPEND_EXPECTED_MAX }>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub expected: Vec<Expected>,
    /// What to do with events that are in the journal already.
    #[serde(default)]
    pub on_known: OnKnown,
}

/// An event that has no place yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NewEvent {
    /// The stream it goes to.
    pub stream: String,
    /// Its identity, a UUID; the node chooses one when it is absent, and then a retry writes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its payload, kept byte for byte.
    pub data: Json,
    /// What is known about it.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// A few indexed labels.
    #[serde(default, deserialize_with = "few_tags", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// What is known about an event beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Metadata {
    /// The conversation it belongs to, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The event or command it follows from, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<String>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Whatever else the writer wants to keep.
    #[serde(default, deserialize_with = "bounded_fields", skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// What an append demands of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Expected {
    /// The stream.
    pub stream: String,
    /// What its last revision must be.
    pub revision: RevisionDemand,
}

/// A demand on a stream's last revision: `"any"`, `"no_stream"`, `"exists"` or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionDemand {
    /// Whatever is there.
    Any,
    /// The stream has no events yet.
    NoStream,
    /// The stream has at least one event.
    Exists,
    /// The stream's last event has exactly this revision.
    Exact(u64),
}

/// What to do with events that are in the journal already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnKnown {
    /// All of them are there: a retry, answered as the first time. Some of them are there: refused.
    #[default]
    Recognise,
    /// Write those that are not there.
    Skip,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AppendResponse {
    /// The position of the last of its events, also when they were there already.
    pub position: u64,
    /// The revision of the last of its events in that event's stream.
    pub revision: u64,
    /// How many events were written; 0 for a recognised retry.
    pub written: u64,
}

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

/// `null` for what is absent, as other systems write it.
pub(crate) fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

impl NewEvent {
    /// The event as the rules know it, and the stream it goes to. `new_id` gives it an id if it has none.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] when a name or an id breaks a rule.
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
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The metadata as the rules know it.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] when an id is no UUID.
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

impl Expected {
    /// The demand as the rules know it.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] when the stream's name breaks a rule.
    pub fn into_model(self) -> Result<(StreamName, ExpectedRevision), ApiError> {
        Ok((StreamName::new(&self.stream)?, self.revision.into()))
    }
}

impl From<RevisionDemand> for ExpectedRevision {
    fn from(demand: RevisionDemand) -> Self {
        match demand {
            RevisionDemand::Any => Self::Any,
            RevisionDemand::NoStream => Self::NoStream,
            RevisionDemand::Exists => Self::Exists,
            RevisionDemand::Exact(revision) => Self::Exact(Revision::new(revision)),
        }
    }
}

impl From<ExpectedRevision> for RevisionDemand {
    fn from(expected: ExpectedRevision) -> Self {
        match expected {
            ExpectedRevision::Any => Self::Any,
            ExpectedRevision::NoStream => Self::NoStream,
            ExpectedRevision::Exists => Self::Exists,
            ExpectedRevision::Exact(revision) => Self::Exact(revision.get()),
        }
    }
}

impl Serialize for RevisionDemand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::NoStream => serializer.serialize_str("no_stream"),
            Self::Exists => serializer.serialize_str("exists"),
            Self::Exact(revision) => serializer.serialize_u64(*revision),
        }
    }
}

impl<'de> Deserialize<'de> for RevisionDemand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Demand;
        impl Visitor<'_> for Demand {
            type Value = RevisionDemand;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\", \"no_stream\", \"exists\" or a revision")
            }

            fn visit_u64<E: de::Error>(self, revision: u64) -> Result<RevisionDemand, E> {
                Ok(RevisionDemand::Exact(revision))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RevisionDemand, E> {
                match text {
                    "any" => Ok(RevisionDemand::Any),
                    "no_stream" => Ok(RevisionDemand::NoStream),
                    "exists" => Ok(RevisionDemand::Exists),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Demand)
    }
}

/// A list that ends the reading at its limit: one that is much too long costs no more than one that is.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(from: D) -> Result<Vec<T>, D::Error> {
    struct AtMost<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut taken = Vec::new();
            while let Some(one) = list.next_element()? {
                if taken.len() == MAX {
                    return Err(de::Error::invalid_length(MAX + 1, &self));
                }
                taken.push(one);
            }
            Ok(taken)
        }
    }
    from.deserialize_seq(AtMost::<T, MAX>(PhantomData))
}

/// Twice as many tags as an event may have: those that are somewhat too many are told so by the rule that knows the limit.
fn few_tags<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Tags(#[serde(deserialize_with = "at_most::<_, _, { 2 * limits::TAGS_MAX }>")] Vec<String>);
    Ok(Option::<Tags>::deserialize(from)?.map(|Tags(tags)| tags).unwrap_or_default())
}

/// Fields of twice as many bytes as metadata may have, for the same reason.
fn bounded_fields<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an object of texts of at most {} bytes", limits::METADATA_BYTES_MAX)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            let (mut fields, mut bytes) = (BTreeMap::new(), 0);
            while let Some((key, value)) = object.next_entry::<String, String>()? {
                // What stands around each in JSON counts as well, or empty ones would cost nothing.
                bytes += key.len() + value.len() + r#""":"","#.len();
                if bytes > 2 * limits::METADATA_BYTES_MAX {
                    return Err(de::Error::invalid_length(bytes, &self));
                }
                fields.insert(key, value);
            }
            Ok(fields)
        }
    }
    from.deserialize_map(Fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_fields_that_are_far_too_many_are_not_read_to_their_end() {
        let read = |rest: &str| {
            let text = format!(r#"{{"stream":"a-1","type":"t","data":1,{rest}"#);
            serde_json::from_str::<NewEvent>(&text).map_err(|error| error.to_string())
        };
        // What follows is no JSON, and is never come to.
        let error = read(&format!(r#""tags":[{}?"#, r#""t","#.repeat(2 * limits::TAGS_MAX + 1))).unwrap_err();
        assert!(error.contains("invalid length 33, expected a list of at most 32"), "{error}");
        for field in [r#"KEY:"","#.to_owned(), format!(r#"KEY:"{}","#, "x".repeat(5_000))] {
            let fields: String = (0..30_000).map(|number| field.replace("KEY", &format!(r#""k{number}""#))).collect();
            let error = read(&format!(r#""metadata":{{"fields":{{{fields}?"#)).unwrap_err();
            assert!(error.contains("expected an object of texts of at most 65536 bytes"), "{error}");
        }
        // Those that are somewhat too many are for the rule to refuse.
        let event = read(&format!(r#""tags":[{}"t"]}}"#, r#""t","#.repeat(limits::TAGS_MAX))).unwrap();
        assert_eq!(event.tags.len(), limits::TAGS_MAX + 1);
        let long = "x".repeat(limits::METADATA_BYTES_MAX + 9);
        assert!(read(&format!(r#""metadata":{{"fields":{{"k":"{long}"}}}}}}"#)).is_ok());
        assert_eq!(read(r#""tags":null,"metadata":null}"#).unwrap().tags, Vec::<String>::new());
    }

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
    fn a_list_that_is_too_long_is_not_read_to_its_end() {
        let demand = r#"{"stream":"a-1","revision":"any"}"#;
        let list = format!("{demand},").repeat(limits::APPEND_EXPECTED_MAX);
        // What follows the limit is no JSON, and is never come to.
        let text = format!(r#"{{"events":[],"expected":[{list}{demand},?"#);
        let error = serde_json::from_str::<AppendRequest>(&text).unwrap_err().to_string();
        assert!(error.contains("invalid length 10001, expected a list of at most 10000"), "{error}");
        let text = format!(r#"{{"events":[],"expected":[{}]}}"#, list.trim_end_matches(','));
        assert_eq!(serde_json::from_str::<AppendRequest>(&text).unwrap().expected.len(), limits::APPEND_EXPECTED_MAX);
    }

    #[test]
    fn a_demand_is_a_word_or_a_number() {
        for (text, demand) in [
            (r#""any""#, RevisionDemand::Any),
            (r#""no_stream""#, RevisionDemand::NoStream),
            (r#""exists""#, RevisionDemand::Exists),
            ("7", RevisionDemand::Exact(7)),
        ] {
            assert_eq!(serde_json::from_str::<RevisionDemand>(text).unwrap(), demand);
            assert_eq!(serde_json::to_string(&demand).unwrap(), text);
            assert_eq!(RevisionDemand::from(ExpectedRevision::from(demand)), demand);
        }
        let error = serde_json::from_str::<RevisionDemand>(r#""none""#).unwrap_err();
        assert!(error.to_string().contains("no_stream"), "{error}");
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
