//! The operations on projections, such as rebuild, flip, rollback and clean-up, and their history: rows and forms.

use std::num::NonZeroU32;

use dacapo_model::{Cancel, CatalogEvent, Position, Timestamp};
use serde::{Deserialize, Serialize};

use crate::form::format_time;
use crate::operations::requests;
use crate::status::WaitingOn;

/// The rows of the operations on projections.
#[doc(hidden)]
#[macro_export]
macro_rules! operate_rows {
    ($with:ident [$($later:ident)*] $($rows:tt)*) => {
        $crate::operations! { $with [$($later)*] $($rows)*
            /// Lists the changes of versions, oldest first, each with its requester and reason.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if the projection is not known.
            phases: GET "/v1/phases" () PhasesRequest => History, Read, Safe;

            /// Schedules a new version beside the serving one. It reads the past, or begins as a copy of the serving
            /// view. `discards` in the answer names the versions that it replaces. It replaces a version that is ready
            /// only with `discard`.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if no live node carries such code; [`ApiError::Refused`] if the catalog refuses.
            rebuild: POST "/v1/projections/{projection}/rebuild" (projection) RebuildRequest => RebuildResponse,
                Operate, ByKey;

            /// Cancels a flip, a rebuild, a clean-up or a replay that was requested and is not carried out yet.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if it is too late, if there is
            /// nothing to cancel, or if it is not clear what to cancel.
            cancel: POST "/v1/projections/{projection}/cancel" (projection) CancelRequest => CancelResponse,
                Operate, ByKey;

            /// Moves readers to a newer version: to `to`, or to the newest above the serving one. With `wait_ms` it
            /// answers when the flip has happened or the time is over, and says which.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if the catalog refuses.
            flip: POST "/v1/projections/{projection}/flip" (projection) FlipRequest => FlipResponse, Operate, ByKey;

            /// Moves readers back: to `to`, or to the version that served last and stands by. With `wait_ms` it answers
            /// when the rollback has happened or the time is over, and says which.
            ///
            /// # Errors
            /// As [`flip`](Self::flip).
            rollback: POST "/v1/projections/{projection}/rollback" (projection) FlipRequest => FlipResponse,
                Operate, ByKey;

            /// Applies past events again to the serving version, or to `version`, in its own view. Give exactly one of
            /// `from`, `from_time`, `from_event` and `from_start`. With `wait_ms` it answers when the replay has ended
            /// or the time is over, and says which.
            ///
            /// # Errors
            /// [`ApiError::Refused`] if the projection does not allow it, and while another replay runs, with its
            /// progress; [`ApiError::NotFound`] if there is no such version.
            replay: POST "/v1/projections/{projection}/replay" (projection) ReplayRequest => ReplayResponse,
                Operate, ByKey;

            /// Drops the view of a version that does not serve. This aborts a flip to it.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if it serves.
            clean_up: POST "/v1/projections/{projection}/versions/{version}/clean-up" (projection, version)
                CleanUpRequest => CleanUpResponse, Operate, ByKey;
        }
    };
}

requests! {
    PhasesRequest {}
    RebuildRequest { asked }
    CancelRequest { asked }
    FlipRequest { asked, wait_ms }
    ReplayRequest { asked, wait_ms }
    CleanUpRequest { asked }
}

/// The caller of a change, the reason, and the key under which the change is made only once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Asked {
    /// The person or program that requests the change, in at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The reason for the change, in at most 4,096 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A text of the caller's choice of at most 255 bytes, the same for every try of one request. A second request under the same key gets
    /// the first answer again and changes nothing. The header `Idempotency-Key` does the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Implements the reading of requests that change something. Fields that are flattened into them must be known by
/// name too, so that a key that none of them has is refused (serde cannot do both at once).
macro_rules! asks {
    ($($request:ident { $($field:ident: $type:ty),* $(,)? })+) => {
        $(impl<'de> serde::Deserialize<'de> for $request {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Form {
                    $(#[serde(default)] $field: $type,)*
                    #[serde(default)]
                    actor: Option<String>,
                    #[serde(default)]
                    reason: Option<String>,
                    #[serde(default)]
                    idempotency_key: Option<String>,
                }
                let Form { $($field,)* actor, reason, idempotency_key } = Form::deserialize(deserializer)?;
                Ok(Self { $($field,)* asked: crate::operate::Asked { actor, reason, idempotency_key } })
            }
        })+
    };
}
pub(crate) use asks;

asks! {
    RebuildRequest { code: Option<u32>, from_copy: bool, discard: bool }
    CancelRequest { what: Option<String>, version: Option<String> }
    FlipRequest { to: Option<String>, wait_ms: Option<u64> }
    ReplayRequest {
        version: Option<String>,
        from: Option<u64>,
        from_time: Option<String>,
        from_event: Option<String>,
        from_start: bool,
        wait_ms: Option<u64>,
    }
    CleanUpRequest {}
}

/// A request for a new version of a projection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RebuildRequest {
    /// The code version. Default: the newest that is carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Begin as a copy of the view that serves, as the code says, and read only later events.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_copy: bool,
    /// Replace a version that is ready and only needs a flip. Without this, such a request is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The version that was scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RebuildResponse {
    /// The projection.
    pub projection: String,
    /// The new version.
    pub version: String,
    /// The position of the request in the catalog; absent if nothing had to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
    /// The versions that it replaces. Their views are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discards: Vec<String>,
}

/// A request that another version serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct FlipRequest {
    /// The version. Default: the newest above the serving one; for a rollback, the one below it that served last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Longest time to wait until it has happened, in milliseconds. Default: 0, which answers at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The state of a flip or a rollback when the caller's wait ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct FlipResponse {
    /// The projection.
    pub projection: String,
    /// `flip` or `rollback`.
    pub kind: String,
    /// The version that served at the time of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version to serve.
    pub to: String,
    /// The position of the request. If `to` served already, the position of the flip that made it serve.
    pub requested: u64,
    /// True if it has happened.
    pub flipped: bool,
    /// The position of the flip, once it has happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The position that every segment of the new version covered at the flip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<u64>,
    /// Time for which the processors of the old version were held, if the answering node knows it. Writers and readers
    /// were never held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
    /// The reasons that it waits on, if it has not happened yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// A request to replay past events through a version again, in its own view. Exactly one of the four fields says
/// where the replay begins. The event that it names is replayed too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct ReplayRequest {
    /// The version. Default: the one that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Begin with the event at this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Begin with the first event that was recorded at this time or later, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_time: Option<String>,
    /// Begin with the event of this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_event: Option<String>,
    /// Begin with the first event of the journal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_start: bool,
    /// Longest time to wait for its end, in milliseconds. Default: 0, which answers at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The state of a replay when the caller's wait ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ReplayResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The position of the request, which identifies the replay; absent if nothing had to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
    /// True if it has ended.
    pub ended: bool,
    /// The position of its end, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The reasons that it waits on, if it has not ended yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// A request to drop the view of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct CleanUpRequest {
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The request as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CleanUpResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The position of the request in the catalog; absent if the clean-up was already under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// A request to cancel something that was requested and has not happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct CancelRequest {
    /// The change to cancel: `flip`, `rebuild`, `clean_up` or `replay`. Default: the only one that can be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The version. Default: the only one for which it can be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The caller, the reason and the idempotency key.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The cancelled change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CancelResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// `flip`, `rebuild`, `clean_up` or `replay`.
    pub what: String,
    /// The position of the cancellation in the catalog; absent if it had already been cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// Returns the name of a change that can be cancelled.
pub fn name_of_cancel(what: Cancel) -> &'static str {
    match what {
        Cancel::Flip => "flip",
        Cancel::Rebuild => "rebuild",
        Cancel::CleanUp => "clean_up",
        Cancel::Replay => "replay",
    }
}

/// A request for a part of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PhasesRequest {
    /// Only this projection. Default: all projections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// Only what happened after this position.
    #[serde(default)]
    pub after: u64,
    /// Most entries in the answer. The node has a limit of its own.
    #[serde(default, deserialize_with = "crate::form::limit", skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
}

/// The changes of versions, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct History {
    /// The entries.
    pub history: Vec<HistoryEntry>,
    /// The end of the range that was searched: the `after` of the next request.
    pub through: u64,
    /// True if more entries follow.
    pub more: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct HistoryEntry {
    /// The position of the change in the catalog.
    pub position: u64,
    /// The time of the change, in RFC 3339.
    pub time: String,
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// Its kind in snake_case, such as `flip_requested`.
    pub event: String,
    /// The change in words.
    pub text: String,
    /// The person or program that requested it; absent if dacapo did it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The reason, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For a flip: the position that every segment of the new version covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<u64>,
}

impl HistoryEntry {
    /// Returns the entry for a catalog event. `actor` and `reason` are those of the request that led to it.
    pub fn new(
        position: Position,
        time: Timestamp,
        event: &CatalogEvent,
        actor: Option<String>,
        reason: Option<String>,
    ) -> Self {
        let covers = match event {
            CatalogEvent::Flipped { covers, .. } => Some(covers.get()),
            _ => None,
        };
        Self {
            position: position.get(),
            time: format_time(time),
            projection: event.view().projection.to_string(),
            version: event.view().version.to_string(),
            event: event.kind().to_owned(),
            text: event.to_string(),
            actor,
            reason,
            covers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::{FlipKind, ProjectionName, VersionId, ViewId};

    #[test]
    fn a_flip_in_the_history_names_both_versions_and_its_evidence() {
        let projection = ProjectionName::new("balances").unwrap();
        let view = ViewId { projection, version: VersionId { code: 2, build: 1 } };
        let from = Some(VersionId { code: 1, build: 1 });
        let event = CatalogEvent::Flipped { view, from, kind: FlipKind::Flip, covers: Position::new(77) };
        let entry = HistoryEntry::new(Position::new(80), Timestamp::from_micros(0), &event, Some("ana".into()), None);
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            json,
            r#"{"position":80,"time":"1970-01-01T00:00:00Z","projection":"balances","version":"v2.1","event":"flipped","text":"v2.1 serves, v1.1 stands by; covers 77","actor":"ana","covers":77}"#
        );
    }

    #[test]
    fn an_empty_body_asks_for_the_default() {
        assert_eq!(serde_json::from_str::<FlipRequest>("{}").unwrap(), FlipRequest::default());
        let request: RebuildRequest = serde_json::from_str(r#"{"code":2,"actor":"ana","reason":"r"}"#).unwrap();
        assert_eq!((request.code, request.asked.actor.as_deref()), (Some(2), Some("ana")));
    }
}
