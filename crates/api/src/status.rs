//! The form of a node's status.

use dacapo_model::{self as model, Fact, FlipKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::form::format_time;
use crate::verification::Scrubbed;

/// How a node and its projections are.
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
    /// It was given everything through here that it wants.
    pub position: u64,
    /// How many positions that is behind the head.
    pub lag: u64,
    /// How many events it failed to take since the node started.
    pub failed: u64,
    /// The last of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<SubscriberFailure>,
    /// What it waits on, other than events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// An event that a subscriber failed to take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SubscriberFailure {
    /// Its position.
    pub position: u64,
    /// What went wrong.
    pub error: String,
}

/// A node that is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct MemberStatus {
    /// Which run of which node; segments name their owners by it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Where others reach its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether it may be given work.
    pub ready: bool,
    /// The code that it carries, such as `balances v2`.
    pub carries: Vec<String>,
}

impl MemberStatus {
    /// The form of a member.
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
    /// The release of dacapo it runs.
    pub release: String,
    /// Its process.
    pub pid: u32,
    /// For how long it has run.
    pub uptime_seconds: u64,
    /// Where it keeps things, in words: `memory`, `embedded in /data`.
    pub store: String,
    /// The last position of the journal.
    pub head: u64,
    /// How many events the journal has, dacapo's own included.
    pub events: u64,
    /// Whether it can answer queries on every projection that has a serving version.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
    /// What somebody should look at though it keeps the node from nothing, such as a clock that is wrong.
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
    /// What it waits on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VersionStatus {
    /// Which one, such as `v2.1`.
    pub version: String,
    /// Its phase, by the names of `dacapo_model::Phase`.
    pub phase: String,
    /// While it initializes: how far it is, by the names of `dacapo_model::Stage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// When it entered its phase, in RFC 3339.
    pub since: String,
    /// Why it failed or is cleaned up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether this node carries its code.
    pub carried: bool,
    /// Its segments.
    pub segments: Vec<SegmentStatus>,
    /// Every segment covers this position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<u64>,
    /// How many positions the slowest segment is behind the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// How old the oldest event is that it does not cover, in seconds, while it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Positions a second that it covers, while it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Positions a second that are appended meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<f64>,
    /// How long it takes until it has caught up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_left: Option<TimeLeft>,
    /// Why that cannot be told though it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_time_left: Option<String>,
    /// That it has something to do and does not get on, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// Whether readers could move to it now.
    pub rollback_ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_not_ready: Option<String>,
    /// What it has applied, as far as the answering node applies it: more than it covers in the middle of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<u64>,
    /// How many events are set aside in it as dead letters.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub letters: u64,
    /// How many of its effects are set aside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub effects_aside: u64,
    /// How old is what is told here of its view, in seconds, when that could not be read just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Whether events are applied no further until somebody does something about what it waits on, by what its options
    /// say of retries; absent where the answering node does not carry its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_somebody: Option<bool>,
    /// What the last look at its rows found, where the answering node looks at them while it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrubbed: Option<Scrubbed>,
    /// What it waits on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// One segment of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SegmentStatus {
    /// Its number, from 0.
    pub segment: u16,
    /// How far it has come.
    pub position: u64,
    /// How many positions it is behind the head.
    pub lag: u64,
    /// Its fence.
    pub epoch: u64,
    /// The member that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether a flip holds it for a moment.
    pub held: bool,
}

/// An estimate, and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TimeLeft {
    /// Seconds.
    pub seconds: f64,
    /// What it rests on, in words: `the last 10 s at 210,000 events a second`.
    pub basis: String,
}

/// A version that has something to do and does not get on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Stall {
    /// For how many seconds it has not moved.
    pub seconds: f64,
    /// That and what keeps it, in words.
    pub text: String,
    /// What keeps it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

/// Why something does not happen yet.
///
/// The fields differ by kind and later releases may add kinds, so they stay as they came; `text` says
/// the same in words.
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
    /// The form of a time left.
    pub fn new(left: &model::progress::TimeLeft) -> Self {
        Self { seconds: left.left.as_secs_f64(), basis: left.basis.to_string() }
    }
}

impl Stall {
    /// The form of a stall.
    pub fn new(stall: &model::progress::Stall) -> Self {
        Self {
            seconds: stall.still.as_secs_f64(),
            text: stall.to_string(),
            waiting_on: stall.on.iter().map(Into::into).collect(),
        }
    }
}

impl FlipStatus {
    /// The form of a flip under way, and what it waits on.
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

/// The word for the direction of a flip: `flip` or `rollback`.
pub fn kind_of_flip(kind: FlipKind) -> &'static str {
    match kind {
        FlipKind::Flip => "flip",
        FlipKind::Rollback => "rollback",
    }
}

impl SegmentStatus {
    /// The form of a segment's token, seen from the journal's head.
    pub fn new(token: &model::Token, head: model::Position) -> Self {
        Self {
            segment: token.segment.get(),
            position: token.position.get(),
            lag: head.since(token.position),
            epoch: token.epoch.get(),
            owner: token.owner.map(|owner| owner.to_string()),
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
        let form = WaitingOn::from(&model::WaitingOn::Segment { version, segment, behind: 48_210 });
        let json = serde_json::to_value(&form).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "segment", "version": "v2.1", "segment": 2, "behind": 48210,
                "text": "segment 2 of v2.1, 48210 behind"
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
