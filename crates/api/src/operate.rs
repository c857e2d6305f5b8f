//! Forms of operating projections: rebuild, flip, rollback, clean-up, and the history of all that.

use std::num::NonZeroU32;

use dacapo_model::verify::Verdict;
use dacapo_model::{Cancel, CatalogEvent, FlipKind, LettersOf, Position, Timestamp, WhichLetters, Wish};
use serde::{Deserialize, Serialize};

use crate::form::format_time;
use crate::status::{WaitingOn, kind_of_flip};

/// Who asks for a change, why, and the key under which it is asked once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Asked {
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A text of the caller's choice, the same for every try of one request: what was asked under it
    /// before is answered again and not done again. The header `Idempotency-Key` does the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// The reading of requests that ask for a change: what is flattened into them must be known by name too, so that a key
/// that none of them has is refused (serde cannot do both at once).
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

/// A new version of a projection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RebuildRequest {
    /// Of this code version; the newest that is carried when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Begin as a copy of the view that serves, as the code says, and read only what came after.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_copy: bool,
    /// Take the place of a version that is ready and only has to be flipped to. Without it, that is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The version that was scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RebuildResponse {
    /// Of which projection.
    pub projection: String,
    /// The new version.
    pub version: String,
    /// The position at which the catalog has the request.
    pub requested: u64,
    /// The versions whose place it takes; their views are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discards: Vec<String>,
}

/// Another version to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct FlipRequest {
    /// The version; the newest above (for a rollback: the one that served last below) when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Wait at most so long until it has happened; 0 and absent answer at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What a flip or a rollback came to while the caller waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct FlipResponse {
    /// Of which projection.
    pub projection: String,
    /// `flip` or `rollback`.
    pub kind: String,
    /// The version that served when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version to serve.
    pub to: String,
    /// The position of the request; where `to` served already, that of the flip that made it serve.
    pub requested: u64,
    /// Whether it has happened.
    pub flipped: bool,
    /// The position of the flip, once it has happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// What every segment of the new version covered then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<u64>,
    /// How long the appliers of the old version were held, where the answering node knows; writers
    /// and readers never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
    /// What it waits on, while it has not happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// Past events shall go through a version again, in its own view. Just one of the four says where that begins; what is
/// named is replayed too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct ReplayRequest {
    /// The version; the one that serves when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With the event at this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// With the first event that was recorded at this time or later, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_time: Option<String>,
    /// With the event of this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_event: Option<String>,
    /// With the first event there is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_start: bool,
    /// Wait at most so long for its end; 0 and absent answer at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What a replay came to while the caller waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ReplayResponse {
    /// Of which projection.
    pub projection: String,
    /// Of which version.
    pub version: String,
    /// The position of the request, which names the replay.
    pub requested: u64,
    /// Whether it has ended.
    pub ended: bool,
    /// The position of its end, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// What it waits on, while it has not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// The view of a version is to be dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct CleanUpRequest {
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CleanUpResponse {
    /// Of which projection.
    pub projection: String,
    /// Which version.
    pub version: String,
    /// The position at which the catalog has the request.
    pub requested: u64,
}

/// Something that was asked for and has not happened is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct CancelRequest {
    /// What: `flip`, `rebuild`, `clean_up` or `replay`; the only thing that could be when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Of this version; of the only one that it could be when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who asks and why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CancelResponse {
    /// Of which projection.
    pub projection: String,
    /// Of which version.
    pub version: String,
    /// `flip`, `rebuild`, `clean_up` or `replay`.
    pub what: String,
    /// The position at which the catalog has it; absent when it was cancelled already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// The name of what can be cancelled.
pub fn name_of_cancel(what: Cancel) -> &'static str {
    match what {
        Cancel::Flip => "flip",
        Cancel::Rebuild => "rebuild",
        Cancel::CleanUp => "clean_up",
        Cancel::Replay => "replay",
    }
}

/// Which part of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PhasesRequest {
    /// Of this projection; of all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// What happened behind this position.
    #[serde(default)]
    pub after: u64,
    /// At most so many entries; the node has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
}

/// What happened to versions, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct History {
    /// The entries.
    pub history: Vec<HistoryEntry>,
    /// Everything through this position was looked at: the `after` to go on with.
    pub through: u64,
    /// Whether more follow.
    pub more: bool,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct HistoryEntry {
    /// Where the catalog has it.
    pub position: u64,
    /// When, in RFC 3339.
    pub time: String,
    /// To which projection.
    pub projection: String,
    /// To which version.
    pub version: String,
    /// Its kind in snake_case, such as `flip_requested`.
    pub event: String,
    /// What happened, in words.
    pub text: String,
    /// Who asked; absent for what dacapo did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a flip: what every segment of the new version covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<u64>,
}

impl HistoryEntry {
    /// The entry for a catalog event; `actor` and `reason` are those of the request that led to it.
    pub fn new(
        position: Position,
        time: Timestamp,
        event: &CatalogEvent,
        actor: Option<String>,
        reason: Option<String>,
    ) -> Self {
        let (tag, text) = describe(event);
        let covers = match event {
            CatalogEvent::Flipped { covers, .. } => Some(covers.get()),
            _ => None,
        };
        Self {
            position: position.get(),
            time: format_time(time),
            projection: event.view().projection.to_string(),
            version: event.view().version.to_string(),
            event: tag.to_owned(),
            text,
            actor,
            reason,
            covers,
        }
    }
}

/// The tag and the words for what happened.
fn describe(event: &CatalogEvent) -> (&'static str, String) {
    let version = event.view().version;
    let direction = |kind: &FlipKind| kind_of_flip(*kind);
    match event {
        CatalogEvent::Scheduled { segments, seed, .. } => {
            let unit = if segments.get() == 1 { "segment" } else { "segments" };
            let copy = seed.map(|source| format!(", begins as a copy of {source}")).unwrap_or_default();
            ("version_scheduled", format!("{version} scheduled, {segments} {unit}{copy}"))
        }
        CatalogEvent::ReadsAnnounced { checked, .. } => {
            let code = version.code;
            ("reads_announced", format!("code v{code} shall read more types, of which there is none through {checked}"))
        }
        CatalogEvent::ReadsRecorded { reads, .. } => {
            let types = reads.types.iter().flatten().map(String::as_str).collect::<Vec<_>>();
            let types = if reads.types.is_none() { "every type".to_owned() } else { types.join(", ") };
            ("reads_recorded", format!("code v{} reads {types}", version.code))
        }
        CatalogEvent::ReadsDeclined { found: (event_type, position), .. } => {
            let code = version.code;
            ("reads_declined", format!("code v{code} goes on as it was: event {position} is of type {event_type}"))
        }
        CatalogEvent::Initializing { .. } => ("version_initializing", format!("{version} begins to be built")),
        CatalogEvent::FlipRequested { from: Some(from), kind, .. } => {
            ("flip_requested", format!("{} from {from} to {version} requested", direction(kind)))
        }
        CatalogEvent::FlipRequested { from: None, kind, .. } => {
            ("flip_requested", format!("first {} to {version} requested", direction(kind)))
        }
        CatalogEvent::FlipPostponed { .. } => {
            ("flip_postponed", format!("flip to {version} postponed: the old version was held for too long"))
        }
        CatalogEvent::FlipAborted { reason, .. } => ("flip_aborted", format!("flip to {version} aborted: {reason}")),
        CatalogEvent::Flipped { from: Some(from), kind: FlipKind::Flip, covers, .. } => {
            ("flipped", format!("{version} serves, {from} stands by; covers {covers}"))
        }
        CatalogEvent::Flipped { from: Some(from), kind: FlipKind::Rollback, covers, .. } => {
            ("flipped", format!("rolled back: {version} serves again, {from} stands by; covers {covers}"))
        }
        CatalogEvent::Flipped { from: None, covers, .. } => {
            ("flipped", format!("{version} serves, the first to do so; covers {covers}"))
        }
        CatalogEvent::CleaningUp { reason, .. } => {
            ("version_cleaning_up", format!("view of {version} being dropped: {reason}"))
        }
        CatalogEvent::Dropping { .. } => ("version_dropping", format!("view of {version} goes now")),
        CatalogEvent::CleanUpCancelled { .. } => {
            ("clean_up_cancelled", format!("clean-up of {version} cancelled: it stands by again"))
        }
        CatalogEvent::FlipCancelled { .. } => {
            ("flip_cancelled", format!("flip to {version} cancelled; it flips on command from here on"))
        }
        CatalogEvent::ReplayCancelled { .. } => ("replay_cancelled", format!("replay of {version} in place cancelled")),
        CatalogEvent::SetAside { event, .. } => {
            ("event_set_aside", format!("event {event} to be set aside in {version}, should it be refused again"))
        }
        CatalogEvent::LettersDecided { of, which, wish, .. } => {
            ("letters_decided", format!("{} of {version} {}", meant(*of, which), done(*wish)))
        }
        CatalogEvent::Obsolete { .. } => ("version_obsolete", format!("view of {version} gone")),
        CatalogEvent::Failed { reason, .. } => ("version_failed", format!("{version} failed: {reason}")),
        CatalogEvent::Parted { same_through, differs_at, .. } => {
            let text = format!(
                "view of {version} reaches beyond the journal: of another history, the same through position \
                 {same_through}, another one at {differs_at} at the latest"
            );
            ("version_parted", text)
        }
        CatalogEvent::NothingToDo { .. } => ("nothing_to_do", format!("asked of {version} what was so already")),
        CatalogEvent::Paused { .. } => ("version_paused", format!("{version} paused")),
        CatalogEvent::Resumed { .. } => ("version_resumed", format!("{version} resumed")),
        CatalogEvent::Verified { verdict, report, .. } => {
            let compared = report.against.map(|against| format!(" against {against}")).unwrap_or_default();
            let found = match verdict {
                Verdict::Pass => String::new(),
                Verdict::Fail => format!(" ({})", report.summary()),
            };
            let verdict = verdict.as_str();
            ("version_verified", format!("{version} verified{compared} at position {}: {verdict}{found}", report.at))
        }
        CatalogEvent::VerificationRequested { .. } => {
            ("verification_requested", format!("another verification of {version} requested"))
        }
        CatalogEvent::Waived { by, why, .. } => ("verdict_waived", format!("{by} answers for {version}: {why}")),
        CatalogEvent::ReplayRequested { after, .. } => {
            ("replay_requested", format!("replay of {version} in place from behind position {after} requested"))
        }
        CatalogEvent::ReplayEnded { .. } => ("replay_ended", format!("replay of {version} in place ended")),
    }
}

/// What somebody decided about, in words.
fn meant(of: LettersOf, which: &WhichLetters) -> String {
    let what = match of {
        LettersOf::Events => "dead letters",
        LettersOf::Effects => "effects",
    };
    match which {
        WhichLetters::One(position) => format!("{what} of event {position}"),
        WhichLetters::Stream(stream) => format!("{what} of {stream}"),
        WhichLetters::All => format!("all {what}"),
    }
}

fn done(wish: Wish) -> &'static str {
    match wish {
        Wish::Retry => "to be retried",
        Wish::Drop => "to be dropped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::{ProjectionName, VersionId, ViewId};

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
