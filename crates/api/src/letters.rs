//! The operations on dead letters, and those that pause and resume versions: rows and forms.

use std::num::NonZeroU32;

use dacapo_model::{self as model, LetterKind, Wish};
use serde::{Deserialize, Serialize};

use crate::events::Event;
use crate::form::{Json, format_time};
use crate::operate::{Asked, asks};
use crate::operations::requests;

/// The rows of dead letters, pauses and resumptions.
#[doc(hidden)]
#[macro_export]
macro_rules! letter_rows {
    ($with:ident [$($later:ident)*] $($rows:tt)*) => {
        $crate::operations! { $with [$($later)*] $($rows)*
            /// Stops applying events to a version, and making its effects, until it is resumed.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if the catalog refuses, or if it
            /// is not clear which version is meant.
            pause: POST "/v1/projections/{projection}/pause" (projection) PauseRequest => PauseResponse, Operate, ByKey;

            /// Applies events to a version again, and immediately retries the event that its handler refused, and a
            /// failed copy or reset.
            ///
            /// # Errors
            /// As [`pause`](Self::pause).
            resume: POST "/v1/projections/{projection}/resume" (projection) PauseRequest => PauseResponse,
                Operate, ByKey;

            /// Lists the dead letters of a version: the events that were set aside, each with its error, its number of
            /// tries, its time and its kind. With `effects` it lists the failed effects; then `after` is the `number`
            /// of an effect.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if it is not clear which
            /// version is meant.
            letters: GET "/v1/projections/{projection}/letters" (projection) LettersRequest => LettersResponse,
                Read, Safe;

            /// Retries dead letters, in the order of their streams. Give exactly one of `position`, `stream` and `all`.
            ///
            /// # Errors
            /// As [`letters`](Self::letters); [`ApiError::Refused`] for one event if an earlier event of its stream is
            /// set aside and has no decision.
            retry_letters: POST "/v1/projections/{projection}/letters/retry" (projection)
                SettleRequest => SettleResponse, Operate, ByKey;

            /// Drops dead letters: they are never applied. Give exactly one of `position`, `stream` and `all`.
            ///
            /// # Errors
            /// As [`letters`](Self::letters).
            drop_letters: POST "/v1/projections/{projection}/letters/drop" (projection)
                SettleRequest => SettleResponse, Operate, ByKey;

            /// Sets aside the event at which a segment halts, if the handler refuses it once more.
            ///
            /// # Errors
            /// As [`letters`](Self::letters); [`ApiError::Refused`] if no segment halts at that event.
            set_aside: POST "/v1/projections/{projection}/letters/set-aside" (projection)
                SetAsideRequest => SetAsideResponse, Operate, ByKey;
        }
    };
}

requests! {
    PauseRequest { asked }
    LettersRequest {}
    SettleRequest { asked }
    SetAsideRequest { asked }
}

/// A request to list dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LettersRequest {
    /// The version. Default: the only one that has any, or else the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Only letters of events after this position.
    #[serde(default)]
    pub after: u64,
    /// Most letters in the answer. The node has a limit of its own.
    #[serde(default, deserialize_with = "crate::form::limit", skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// List failed effects instead of events. Then `after` is the number of an effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub effects: bool,
}

/// Dead letters, in the order of their events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LettersResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The letters.
    pub letters: Vec<Letter>,
    /// The effects, if they were requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<EffectLetter>,
    /// True if more follow after the last one.
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
    /// The reason why it was set aside: `refused`, `blocked` by another event of its stream, or `skipped`.
    pub kind: String,
    /// The position of the event that blocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The handler's last error, for this event or for the one that blocks it.
    pub error: String,
    /// The number of tries.
    pub attempts: u32,
    /// The time at which it was set aside or last tried, in RFC 3339.
    pub time: String,
    /// The decision that is still to be carried out: `retry` or `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<String>,
}

impl Letter {
    /// Returns the form of a letter and its event.
    pub fn new(letter: &model::Letter, event: Event) -> Self {
        let (kind, first) = match letter.kind {
            LetterKind::Refused => ("refused", None),
            LetterKind::Blocked { first } => ("blocked", Some(first.get())),
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

/// A request to retry or drop dead letters. Give exactly one of `position`, `stream` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct SettleRequest {
    /// The version. Default: the only one that has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The event at this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The events of this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// All letters.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Failed effects instead of events that were set aside.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub effects: bool,
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// A failed effect, or one that a version which is cleaned up still owes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct EffectLetter {
    /// Its number in the outbox of its version.
    pub number: u64,
    /// Its idempotency key.
    pub key: String,
    /// The position of the event that it follows from.
    pub position: u64,
    /// The stream of that event.
    pub stream: String,
    /// The name of its kind.
    pub name: String,
    /// `set_aside`; or `failing` while it is retried and its stream waits; or `waiting` if it was never tried.
    pub state: String,
    /// Its payload; absent if it is not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// The error of the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The number of tries.
    pub attempts: u32,
    /// The time at which it was set aside, or of the next try, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl EffectLetter {
    /// Returns the form of an effect of `projection`.
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

/// A request to set aside an event at which a segment halts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct SetAsideRequest {
    /// The version. Default: the only one that halts there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The event at this position.
    pub position: u64,
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The request as it was recorded. It is carried out once the event is refused again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SetAsideResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The position of the event.
    pub position: u64,
    /// The position of the request in the catalog; absent if the event was already set aside, or the request already
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// The decision as it was recorded. It is carried out soon; the list shows the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SettleResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The number of letters that will be retried or dropped; absent if a decision is repeated under its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letters: Option<u64>,
    /// The position of the request in the catalog; absent if there was no such letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// A request to pause or resume a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct PauseRequest {
    /// The version. Default: the only one to which the request can apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The request as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PauseResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The position of the request in the catalog; absent if the version was already in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}
