//! Forms of dead letters, and of pausing and resuming versions.

use std::num::NonZeroU32;

use dacapo_model::{self as model, LetterKind, Wish};
use serde::{Deserialize, Serialize};

use crate::events::Event;
use crate::form::{Json, format_time};
use crate::operate::{Asked, asks};

/// Which dead letters to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LettersRequest {
    /// Of this version; where absent, of the only one that has any, or of the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Those of events behind this position.
    #[serde(default)]
    pub after: u64,
    /// At most so many; the node has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// Effects that were tried in vain, in place of events. Then `after` is the number of an effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub effects: bool,
}

/// Dead letters, in the order of their events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LettersResponse {
    /// Of which projection.
    pub projection: String,
    /// Of which version.
    pub version: String,
    /// The letters.
    pub letters: Vec<Letter>,
    /// The effects, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<EffectLetter>,
    /// Whether more follow behind the last.
    pub more: bool,
}

/// A dead letter: an event that was set aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Letter {
    /// The event, as it was appended.
    pub event: Event,
    /// The segment it belongs to.
    pub segment: u16,
    /// Why it was set aside: `refused`, `behind` another one of its stream, or `skipped`.
    pub kind: String,
    /// The position of the event it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// What the handler said last, of it or of the one it is behind.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside or last tried, in RFC 3339.
    pub time: String,
    /// What shall be done with it and is not done yet: `retry` or `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<String>,
}

impl Letter {
    /// The form of a letter and its event.
    pub fn new(letter: &model::Letter, event: Event) -> Self {
        let (kind, first) = match letter.kind {
            LetterKind::Refused => ("refused", None),
            LetterKind::Behind { first } => ("behind", Some(first.get())),
            LetterKind::Skipped => ("skipped", None),
        };
        let wish = letter.wish.map(|wish| match wish {
            Wish::Retry => "retry".to_owned(),
            Wish::Drop => "drop".to_owned(),
        });
        Self {
            event,
            segment: letter.segment.get(),
            kind: kind.to_owned(),
            first,
            error: letter.error.clone(),
            attempts: letter.attempts,
            time: format_time(letter.recorded),
            wish,
        }
    }
}

asks! {
    SettleRequest { version: Option<String>, position: Option<u64>, stream: Option<String>, all: bool, effects: bool }
    SetAsideRequest { version: Option<String>, position: u64 }
    PauseRequest { version: Option<String> }
}

/// What shall be retried or dropped: exactly one of `position`, `stream` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct SettleRequest {
    /// Of this version; where absent, of the only one that has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The event at this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The events of this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// All.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Effects that were tried in vain, in place of events that were set aside.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub effects: bool,
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// An effect that was tried in vain, or that a version which is cleaned up still owes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct EffectLetter {
    /// Its place in the outbox of its version.
    pub number: u64,
    /// Its idempotency key.
    pub key: String,
    /// The event that it follows from.
    pub position: u64,
    /// The stream of that event.
    pub stream: String,
    /// The name of its kind.
    pub name: String,
    /// `set_aside`, or `failing` while it is tried again and its stream waits, or `waiting` when it was never tried.
    pub state: String,
    /// What it is; absent where that is not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// What was said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside, or is tried next, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl EffectLetter {
    /// The form of an effect of `projection`.
    pub fn new(projection: &model::ProjectionName, letter: &model::EffectLetter) -> Self {
        let model::PendingEffect { number, effect, attempts, error, due } = &letter.pending;
        let (projection, ordinal) = (projection.clone(), effect.ordinal);
        let key = model::EffectKey { projection, position: effect.position, ordinal };
        let (state, time) = match (letter.aside, attempts) {
            (Some(at), _) => ("set_aside", Some(at)),
            (None, 0) => ("waiting", None),
            (None, _) => ("failing", Some(*due).filter(|due| due.micros() > 0)),
        };
        Self {
            number: *number,
            key: key.to_string(),
            position: effect.position.get(),
            stream: effect.stream.to_string(),
            name: effect.name.clone(),
            state: state.to_owned(),
            data: Json::from_payload(&effect.payload).ok(),
            error: error.clone(),
            attempts: *attempts,
            time: time.map(format_time),
        }
    }
}

/// An event at which a segment halts shall be set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct SetAsideRequest {
    /// In this version; where absent, in the only one that halts there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The event at this position.
    pub position: u64,
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What was asked for. It happens once the event is refused again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SetAsideResponse {
    /// Of which projection.
    pub projection: String,
    /// In which version.
    pub version: String,
    /// The event.
    pub position: u64,
    /// The position at which the catalog has the request; absent when it was set aside or asked for already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// How many dead letters will be retried or dropped. It happens soon; the list tells what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SettleResponse {
    /// Of which projection.
    pub projection: String,
    /// Of which version.
    pub version: String,
    /// How many there are.
    pub letters: u64,
}

/// A version to be paused or resumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct PauseRequest {
    /// Which version; where absent, the only one that it can be asked of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PauseResponse {
    /// Of which projection.
    pub projection: String,
    /// Which version.
    pub version: String,
    /// The position at which the catalog has the request; absent when things were so already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}
