//! One line: its form, its rules and its id.

use std::collections::HashSet;
use std::fmt;

use dacapo_api::{Json, Metadata, NewEvent, parse_event_id, parse_time};
use dacapo_model::{EventId, EventType, StreamName, limits};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    data: Json,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    metadata: Option<MetadataForm>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default, rename = "position")]
    _position: Option<IgnoredAny>,
    #[serde(default, rename = "revision")]
    _revision: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataForm {
    #[serde(default)]
    correlation: Option<String>,
    #[serde(default)]
    causation: Option<String>,
    #[serde(default)]
    actor: Option<String>,
    #[serde(default)]
    fields: std::collections::BTreeMap<String, String>,
}

/// The event in a line. Everything that can be told without the journal is checked here, so that it is
/// told with the line's number.
///
/// # Errors
/// What is wrong with the line, in words.
pub fn parse(number: u64, text: &[u8]) -> Result<Line, String> {
    let valid = std::str::from_utf8(text)
        .map_err(|error| format!("it is not UTF-8: byte {} of the line is wrong", error.valid_up_to() + 1))?;
    let mut json = serde_json::Deserializer::from_str(valid);
    UniqueKeys.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| in_words(&error))?;
    let form: Form = serde_json::from_str(valid).map_err(|error| in_words(&error))?;
    let (stream, event_type, tags) = check(&form)?;
    let metadata = metadata(form.metadata, form.time.as_deref())?;
    let extra = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?.len()
        + tags.iter().map(|tag| tag.len() + 3).sum::<usize>();
    within("metadata and tags together", extra, limits::METADATA_BYTES_MAX, "bytes")?;
    let id = match form.id.as_deref() {
        Some(id) => parse_event_id(id).map_err(|error| error.to_string())?,
        None => derived_id(number, &stream, &event_type, form.time.as_deref(), form.data.as_str()),
    };
    let (stream, event_type) = (stream.to_string(), event_type.to_string());
    let event = NewEvent { stream, id: Some(id.to_string()), event_type, data: form.data, metadata, tags };
    Ok(Line { number, event, text: text.to_vec() })
}

/// The id of a line that names none: a UUID of version 8 from the SHA-256 over the number of the line
/// as 8 bytes and over stream, type, time (empty when absent) and the bytes of the data, each behind its
/// length as 8 bytes; numbers are little-endian. It is a form: imported files depend on it.
pub fn derived_id(number: u64, stream: &StreamName, event_type: &EventType, time: Option<&str>, data: &str) -> EventId {
    let mut hash = Sha256::new();
    hash.update(number.to_le_bytes());
    for part in [stream.as_str(), event_type.as_str(), time.unwrap_or_default(), data] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (bytes, _) = digest.split_first_chunk::<16>().expect("a digest has 32 bytes");
    EventId::from_bytes(uuid::Builder::from_custom_bytes(*bytes).into_uuid().into_bytes())
}

fn check(form: &Form) -> Result<(StreamName, EventType, Vec<String>), String> {
    let stream = StreamName::new(&form.stream).map_err(|error| error.to_string())?;
    if stream.is_system() {
        return Err(format!("stream {stream} is dacapo's own: names that begin with $ cannot be imported"));
    }
    let event_type = EventType::new(&form.event_type).map_err(|error| error.to_string())?;
    let tags = form.tags.clone().unwrap_or_default();
    within("the data", form.data.as_str().len(), limits::PAYLOAD_BYTES_MAX, "bytes")?;
    within("the event", tags.len(), limits::TAGS_MAX, "tags")?;
    for tag in &tags {
        within("a tag", tag.len(), limits::TAG_BYTES_MAX, "bytes")?;
    }
    Ok((stream, event_type, tags))
}

/// The metadata with the original time among its fields. A time that is there already is older: it
/// comes from an export of what was imported before.
fn metadata(form: Option<MetadataForm>, time: Option<&str>) -> Result<Metadata, String> {
    let mut metadata = match form {
        Some(form) => Metadata {
            correlation: form.correlation,
            causation: form.causation,
            actor: form.actor,
            fields: form.fields,
        },
        None => Metadata::default(),
    };
    for id in [&metadata.correlation, &metadata.causation].into_iter().flatten() {
        parse_event_id(id).map_err(|error| error.to_string())?;
    }
    if let Some(time) = time {
        parse_time(time).map_err(|error| error.to_string())?;
        metadata.fields.entry("time".to_owned()).or_insert_with(|| time.to_owned());
    }
    Ok(metadata)
}

fn within(what: &str, actual: usize, max: usize, unit: &str) -> Result<(), String> {
    if actual > max { Err(format!("{what} has {actual} {unit}, at most {max} are allowed")) } else { Ok(()) }
}

/// The error without its line, which is always 1 here and would mislead.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) if error.column() > 0 => format!("{what}, at byte {} of the line", error.column()),
        _ => text,
    }
}

/// Walks through a JSON value and declines objects that name a key twice, of which readers would see
/// one or the other.
struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format!("the key {key:?} is there twice")));
            }
            seen.insert(key);
            map.next_value_seed(Self)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
