//! One line: its form, its rules and its id.

use dacapo::journal::{Append, OnKnown, StreamEvent};
use dacapo_api::{Event, Json, Metadata, NewEvent, parse_event_id, parse_time, strict};
use dacapo_model::{EventId, EventType, StreamName};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

/// A good line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its number in the source, from 1.
    pub number: u64,
    /// The event, which has an id.
    pub event: NewEvent,
    /// Its bytes, for when the node refuses it.
    pub text: Vec<u8>,
}

/// `position` and `revision` are what `dacapo read --json` adds: its output can be imported.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    // A payload may be `null`, which is not the same as none.
    #[serde(default, deserialize_with = "there")]
    data: Option<Json>,
    #[serde(default)]
    data_text: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default, rename = "position")]
    _position: Option<u64>,
    #[serde(default, rename = "revision")]
    _revision: Option<u64>,
}

fn there<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(value).map(Some)
}

/// Returns the event in a line. Everything that can be told without the journal is checked here, so that it is told
/// with the line's number. The rules are those of every other door.
///
/// # Errors
/// The fault of the line, in words.
pub fn parse(number: u64, text: &[u8]) -> Result<Line, String> {
    let valid = std::str::from_utf8(text)
        .map_err(|error| format!("it is not UTF-8: byte {} of the line is wrong", error.valid_up_to() + 1))?;
    let form: Form = strict::from_line(valid).map_err(|(found, byte)| match byte {
        Some(byte) => format!("{found}, at byte {byte} of the line"),
        None => found,
    })?;
    let time = form.time.as_deref();
    time.map(parse_time).transpose().map_err(|error| error.to_string())?;
    let data = payload(form.data, form.data_text.as_deref())?;
    let (stream, event_type) = (
        StreamName::new(&form.stream).map_err(|error| error.to_string())?,
        EventType::new(&form.event_type).map_err(|error| error.to_string())?,
    );
    if stream.is_system() {
        return Err(format!("stream {stream} is dacapo's own: names that begin with $ cannot be imported"));
    }
    let id = match form.id.as_deref() {
        Some(id) => parse_event_id(id).map_err(|error| error.to_string())?,
        None => derived_id(number, &stream, &event_type, time, data.as_str()),
    };
    let event = NewEvent {
        stream: form.stream,
        id: Some(id.to_string()),
        event_type: form.event_type,
        data,
        metadata: with_time(form.metadata.unwrap_or_default(), time),
        tags: form.tags.unwrap_or_default(),
    };
    let (stream, checked) = event.clone().into_model(|| id).map_err(|error| error.to_string())?;
    let alone =
        Append { events: vec![StreamEvent { stream, event: checked }], expected: vec![], on_known: OnKnown::Skip };
    alone.check().map_err(|refused| refused.to_string())?;
    Ok(Line { number, event, text: text.to_vec() })
}

/// Returns the payload of a line: as JSON, as a text of JSON, or, where a line cannot hold it as it is, as both.
fn payload(data: Option<Json>, text: Option<&str>) -> Result<Json, String> {
    let Some(text) = text else { return data.ok_or_else(|| "missing field `data`".to_owned()) };
    let exact: Json = strict::from_line(text).map_err(|(found, _)| format!("data_text is not JSON: {found}"))?;
    match data {
        Some(data) if data.as_str() != in_one_line(exact.as_str()) => {
            Err("data and data_text differ: data must be data_text with a space for each line break; give one of them"
                .to_owned())
        }
        _ => Ok(exact),
    }
}

/// Returns the payload with a space for each character of a line break, which in JSON can only be space between its
/// parts. It is a form: the lines that `dacapo read --json` writes have it.
fn in_one_line(data: &str) -> String {
    data.replace(['\n', '\r'], " ")
}

/// Returns the line of an event, without its end, from which [`parse`] makes the same event.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn line_of(event: &Event) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Broken<'a> {
        #[serde(flatten)]
        event: &'a Event,
        data_text: &'a str,
    }
    let exact = event.data.as_str();
    if !exact.contains(['\n', '\r']) {
        return serde_json::to_string(event);
    }
    let event = Event { data: Json::parse(&in_one_line(exact))?, ..event.clone() };
    serde_json::to_string(&Broken { event: &event, data_text: exact })
}

/// Returns the metadata with the original time among its fields. A time that is there already is older: it comes from
/// an export of what was imported before.
fn with_time(mut metadata: Metadata, time: Option<&str>) -> Metadata {
    if let Some(time) = time {
        metadata.fields.entry("time".to_owned()).or_insert_with(|| time.to_owned());
    }
    metadata
}

/// Returns the id of a line that names none: a UUID of version 8 from the SHA-256 over the number of the line as 8
/// bytes and over stream, type, time (empty when absent) and the bytes of the data, each after its length as 8 bytes;
/// numbers are little-endian. It is a form: imported files depend on it.
pub fn derived_id(number: u64, stream: &StreamName, event_type: &EventType, time: Option<&str>, data: &str) -> EventId {
    let mut hash = Sha256::new();
    hash.update(number.to_le_bytes());
    for part in [stream.as_str(), event_type.as_str(), time.unwrap_or_default(), data] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let bytes: [u8; 16] = std::array::from_fn(|at| digest[at]);
    EventId::from_bytes(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
}
