//! The stored form of metadata and tags: a JSON object with short names, or nothing at all.
//!
//! Readers ignore fields they do not know, so a later writer may add some.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dacapo_model::{EventId, Metadata, limits};
use serde::{Deserialize, Serialize};

/// The field that an import adds: the time at which the event happened.
const TIME: &str = "time";

#[derive(Default, Serialize, Deserialize)]
struct Form<'a> {
    #[serde(rename = "cor", skip_serializing_if = "Option::is_none")]
    correlation: Option<[u8; 16]>,
    #[serde(rename = "cau", skip_serializing_if = "Option::is_none")]
    causation: Option<[u8; 16]>,
    #[serde(rename = "act", borrow, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
    #[serde(rename = "f", borrow, default, skip_serializing_if = "Option::is_none")]
    fields: Option<Cow<'a, BTreeMap<String, String>>>,
    #[serde(rename = "t", borrow, default, skip_serializing_if = "Option::is_none")]
    tags: Option<Cow<'a, [String]>>,
}

#[expect(clippy::expect_used, reason = "strings and bytes are always JSON")]
pub(crate) fn encode(metadata: &Metadata, tags: &[String]) -> Vec<u8> {
    if metadata.is_empty() && tags.is_empty() {
        return Vec::new();
    }
    let form = Form {
        correlation: metadata.correlation.map(EventId::bytes),
        causation: metadata.causation.map(EventId::bytes),
        actor: metadata.actor.as_deref().map(Cow::Borrowed),
        fields: (!metadata.fields.is_empty()).then_some(Cow::Borrowed(&metadata.fields)),
        tags: (!tags.is_empty()).then_some(Cow::Borrowed(tags)),
    };
    serde_json::to_vec(&form).expect("strings and bytes are always JSON")
}

/// Returns the bytes that count towards the limit. A short field `time`, which an import may have added, does not
/// count.
pub(crate) fn counted(metadata: &Metadata, tags: &[String]) -> usize {
    let all = encode(metadata, tags).len();
    let added = metadata.fields.get(TIME).is_some_and(|time| time.len() <= limits::METADATA_TIME_BYTES_MAX);
    if all <= limits::METADATA_BYTES_MAX || !added {
        return all;
    }
    let mut own = metadata.clone();
    own.fields.remove(TIME);
    encode(&own, tags).len()
}

pub(crate) fn decode(extra: &[u8]) -> Result<(Metadata, Vec<String>), serde_json::Error> {
    if extra.is_empty() {
        return Ok(Default::default());
    }
    let form: Form<'_> = serde_json::from_slice(extra)?;
    let metadata = Metadata {
        correlation: form.correlation.map(EventId::from_bytes),
        causation: form.causation.map(EventId::from_bytes),
        actor: form.actor.map(Cow::into_owned),
        fields: form.fields.map(Cow::into_owned).unwrap_or_default(),
    };
    Ok((metadata, form.tags.map(Cow::into_owned).unwrap_or_default()))
}
