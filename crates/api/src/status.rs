//! The status of a node: its row and its form.

use dacapo_model::{self as model, Fact, FlipKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::form::format_time;
use crate::verification::ScrubResult;

/// The row of the status.
#[doc(hidden)]
#[macro_export]
macro_rules! status_rows {
    ($with:ident [$($later:ident)*] $($rows:tt)*) => {
        $crate::operations! { $with [$($later)*] $($rows)*
            /// Returns the state of the node, its projections and versions, the members that share the store, and the
            /// subscribers. It answers at once, from what is known.
            ///
            /// # Errors
            /// [`ApiError::Unavailable`] if the node cannot answer at the moment.
            status: GET "/v1/status" () => Status, Read, Safe;
        }
    };
}

/// The status of a node and its projections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Status {
    /// The node that answers.
    pub node: NodeStatus,
    /// The nodes that are alive, itself among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// Its projections, by name.
    pub projections: Vec<ProjectionStatus>,
    /// Its subscribers, which keep no token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribers: Vec<SubscriberStatus>,
}

/// A handler that the node calls with events as they are appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SubscriberStatus {
    /// Its name.
    pub name: String,
    /// The position through which it was given all events that it wants.
    pub position: u64,
    /// Its lag: the number of positions after that one.
    pub lag: u64,
    /// The number of events that it failed to process since the node started.
    pub failed: u64,
    /// The last such event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<SubscriberFailure>,
    /// The reasons that it waits on, other than events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// An event that a subscriber failed to process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SubscriberFailure {
    /// Its position.
    pub position: u64,
    /// The error.
    pub error: String,
}

/// A node that is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct MemberStatus {
    /// The id of this run of the node. Segments name the member that claimed them by it.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The address of its API for other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// True if it may be given work.
    pub ready: bool,
    /// The code that it carries, such as `balances v2`.
    pub carries: Vec<String>,
}

impl MemberStatus {
    /// Returns the form of a member.
    pub fn new(member: &model::Member) -> Self {
        let code = |code: &model::MemberCode| format!("{} v{}", code.id.projection, code.id.code);
        Self {
            id: member.id.to_string(),
            name: member.name.clone(),
            address: member.address.clone(),
            ready: member.ready,
            carries: member.carries.iter().map(code).collect(),
        }
    }
}

/// The node that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// The release of dacapo that it runs.
    pub release: String,
    /// Its process id.
    pub pid: u32,
    /// The time for which it has run, in seconds.
    pub uptime_seconds: u64,
    /// Its store, in words: `memory`, `embedded in /data`.
    pub store: String,
    /// The last position of the journal.
    pub head: u64,
    /// The number of events in the journal, including dacapo's own.
    pub events: u64,
    /// True if it can answer queries on every projection that has a serving version.
    pub ready: bool,
    /// The reasons why it is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
    /// Findings that an operator should look at though they do not stop the node, such as a wrong clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One projection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The version that answers queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<String>,
    /// The flip under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<FlipStatus>,
    /// Its versions that are not obsolete, oldest first.
    pub versions: Vec<VersionStatus>,
}

/// A flip under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct FlipStatus {
    /// The version to serve.
    pub to: String,
    /// The version that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `flip` or `rollback`.
    pub kind: String,
    /// The position of the request.
    pub requested: u64,
    /// The reasons that it waits on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VersionStatus {
    /// Its name, such as `v2.1`.
    pub version: String,
    /// Its phase, by the names of `dacapo_model::Phase`.
    pub phase: String,
    /// Its stage while it initializes, by the names of `dacapo_model::Stage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The time at which it entered its phase, in RFC 3339.
    pub since: String,
    /// The reason why it failed or is cleaned up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True if this node carries its code.
    pub carried: bool,
    /// Its segments.
    pub segments: Vec<SegmentStatus>,
    /// The position that every segment covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<u64>,
    /// Its lag: the number of positions between its slowest segment and the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// The age of the oldest event that it does not cover, in seconds, while it lags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Its pace in positions a second, while it lags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Positions a second that are appended in the meantime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<f64>,
    /// The remaining time until it has caught up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_left: Option<TimeLeft>,
    /// The reason why there is no remaining time though it lags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_time_left: Option<String>,
    /// Its stall: it has something to do and makes no progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// True if readers could move to it now.
    pub rollback_ready: bool,
    /// The reason why they could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_not_ready: Option<String>,
    /// The position through which the answering node has applied events, if it applies them: more than the version
    /// covers in the middle of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<u64>,
    /// The number of events that are set aside in it as dead letters.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub letters: u64,
    /// The number of its effects that are set aside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub effects_aside: u64,
    /// The age of the facts about its view, in seconds, if the view could not be read just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// True if it applies no more events until an operator does something about `waiting_on`, according to the
    /// retries in its options. Absent if the answering node does not carry its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_somebody: Option<bool>,
    /// The result of the last check of its rows, if the answering node checks them while it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrubbed: Option<ScrubResult>,
    /// The reasons that it waits on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// One segment of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SegmentStatus {
    /// Its number, from 0.
    pub segment: u16,
    /// The last position that it covers.
    pub position: u64,
    /// Its lag: the number of positions between it and the head.
    pub lag: u64,
    /// The epoch of its claim, which is its fence.
    pub epoch: u64,
    /// The member that has claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
    /// True if a flip holds it for a moment.
    pub held: bool,
}

/// An estimate of the remaining time, and its basis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TimeLeft {
    /// The remaining time, in seconds.
    pub seconds: f64,
    /// The basis in words: `the last 10 s at 210,000 events a second`.
    pub basis: String,
}

/// A version that has something to do and makes no progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Stall {
    /// The time since its last move, in seconds.
    pub seconds: f64,
    /// The stall and its reasons, in words.
    pub text: String,
    /// The reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// The reason why something does not happen yet.
///
/// The fields differ by kind and later releases may add kinds, so they are passed on as they are; `text` says the
/// same in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct WaitingOn {
    /// The kind in snake_case; `docs/waiting-on.md` lists every one.
    pub kind: String,
    /// The reason in words.
    pub text: String,
    /// The fields of its kind.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl From<&model::WaitingOn> for WaitingOn {
    fn from(reason: &model::WaitingOn) -> Self {
        let value = |fact| match fact {
            Fact::Number(number) => number.into(),
            Fact::Text(text) => text.into(),
            Fact::Time(time) => format_time(time).into(),
            Fact::Span(span) => millis(span),
        };
        let fields = reason.facts().into_iter().map(|(name, fact)| (name.to_owned(), value(fact)));
        Self { kind: reason.kind().to_owned(), text: reason.to_string(), fields: fields.collect() }
    }
}

impl TimeLeft {
    /// Returns the form of a remaining time.
    pub fn new(left: &model::progress::TimeLeft) -> Self {
        Self { seconds: left.left.as_secs_f64(), basis: left.basis.to_string() }
    }
}

impl Stall {
    /// Returns the form of a stall.
    pub fn new(stall: &model::progress::Stall) -> Self {
        Self {
            seconds: stall.still.as_secs_f64(),
            text: stall.to_string(),
            waiting_on: stall.on.iter().map(Into::into).collect(),
        }
    }
}

impl FlipStatus {
    /// Returns the form of a flip under way, and the reasons that it waits on.
    pub fn new(flip: &model::PendingFlip, waiting_on: &[model::WaitingOn]) -> Self {
        Self {
            to: flip.to.to_string(),
            from: flip.from.map(|from| from.to_string()),
            kind: kind_of_flip(flip.kind).to_owned(),
            requested: flip.requested.get(),
            waiting_on: waiting_on.iter().map(Into::into).collect(),
        }
    }
}

/// Returns the word for the direction of a flip: `flip` or `rollback`.
pub fn kind_of_flip(kind: FlipKind) -> &'static str {
    match kind {
        FlipKind::Flip => "flip",
        FlipKind::Rollback => "rollback",
    }
}

impl SegmentStatus {
    /// Returns the form of a segment's token, with its lag to the journal's head.
    pub fn new(token: &model::Token, head: model::Position) -> Self {
        Self {
            segment: token.segment.get(),
            position: token.position.get(),
            lag: head.since(token.position),
            epoch: token.epoch.get(),
            claimed_by: token.claimed_by.map(|member| member.to_string()),
            held: token.held_for.is_some(),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn millis(duration: std::time::Duration) -> Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::{SegmentCount, VersionId};

    #[test]
    fn a_reason_to_wait_has_its_kind_its_fields_and_its_words() {
        let segment = SegmentCount::new(4).unwrap().segment(2).unwrap();
        let version = VersionId { code: 2, build: 1 };
        let form = WaitingOn::from(&model::WaitingOn::Segment { version, segment, lag: 48_210 });
        let json = serde_json::to_value(&form).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "segment", "version": "v2.1", "segment": 2, "lag": 48210,
                "text": "segment 2 of v2.1 (lag 48,210)"
            })
        );
        assert_eq!(serde_json::from_value::<WaitingOn>(json).unwrap(), form);
    }

    #[test]
    fn a_kind_of_a_later_release_is_still_shown() {
        let text = r#"{"kind":"quorum","text":"two more nodes","missing":2}"#;
        let reason: WaitingOn = serde_json::from_str(text).unwrap();
        assert_eq!((reason.kind.as_str(), reason.text.as_str()), ("quorum", "two more nodes"));
    }
}
