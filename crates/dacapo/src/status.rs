//! The state of a node and its versions, as data for tables, progress bars and consoles.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::progress::{stalled, time_left};
use dacapo_model::reasons::VersionFacts;
use dacapo_model::rebuild::rollback_ready;
use dacapo_model::scrub::ScrubResult;
use dacapo_model::{
    PendingFlip, Phase, Position, ProjectionName, ProjectionState, Stage, Timestamp, VersionId, ViewId, covered, replay,
};
use dacapo_store::Health;
use futures::future::join_all;

pub use crate::times::ClockBehind;
pub use dacapo_model::progress::{Basis, NoTimeLeft, Pace, Stall, TimeLeft};
pub use dacapo_model::{Member, MemberId, Parted, Segment, Token, WaitingOn};

use crate::subscribe::SubscriberStatus;
use crate::versions::{Facts, Known, Versions};

/// A node and its projections.
#[derive(Clone, Debug)]
pub struct Status {
    /// The last position of the journal.
    pub head: Position,
    /// The live nodes that share the store, including this one, as this node saw them last. Empty if the node does not
    /// share its store.
    pub members: Vec<Member>,
    /// Every projection in the catalog, by name.
    pub projections: Vec<ProjectionStatus>,
    /// The subscribers of this node, in the order in which its builder got them.
    pub subscribers: Vec<SubscriberStatus>,
}

/// One projection.
#[derive(Clone, Debug)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: ProjectionName,
    /// The version that answers queries.
    pub serving: Option<VersionId>,
    /// The flip under way, and its wait reasons.
    pub flip: Option<(PendingFlip, Vec<WaitingOn>)>,
    /// Its versions that are not obsolete, oldest first.
    pub versions: Vec<VersionStatus>,
}

/// One version.
#[derive(Clone, Debug)]
pub struct VersionStatus {
    /// Its number.
    pub version: VersionId,
    /// Its phase.
    pub phase: Phase,
    /// The stage, in the phase Initializing.
    pub stage: Option<Stage>,
    /// The time at which it entered the phase.
    pub since: Timestamp,
    /// The reason why it failed or is cleaned up.
    pub reason: Option<String>,
    /// True if this node carries its code.
    pub carried: bool,
    /// Its tokens. Empty if this node has no view of it.
    pub tokens: Vec<Token>,
    /// The position that all of its segments cover.
    pub covers: Position,
    /// The position that it has applied, if this node applies it. In the middle of a batch this is more than it covers.
    pub reached: Option<Position>,
    /// The number of positions between the lowest of its segments and the head.
    pub lag: u64,
    /// The age of the oldest event that it does not cover, by the time of its append.
    pub lag_time: Duration,
    /// Positions covered in each second, over the last seconds, if there is something to cover and the rate is known.
    pub rate: Option<f64>,
    /// Positions appended in each second, over the same time.
    pub arrivals: Option<f64>,
    /// For a version that follows the journal: the time until it has caught up, with the basis of the estimate, or the
    /// reason why it is unknown.
    pub time_left: Option<Result<TimeLeft, NoTimeLeft>>,
    /// The fact that it has work to do but makes no progress, with the reason.
    pub stall: Option<Stall>,
    /// For a version that stands by: `Ok` if a rollback to it would happen at once, or the reason why not (I-8).
    pub rollback_ready: Option<Result<(), WaitingOn>>,
    /// The replay in place under way: its request, the position that it covers, and its end.
    pub replay: Option<ReplayStatus>,
    /// The number of its dead letters.
    pub letters: u64,
    /// The number of its effects that are set aside.
    pub effects_aside: u64,
    /// The age of these facts about its view, if the view could not be read now.
    pub age: Option<Duration>,
    /// True if no more events are applied until an operator acts on its wait reasons, according to the retries in its
    /// options. `None` if this node does not carry its code.
    pub needs_somebody: Option<bool>,
    /// The result of the last background check of its rows, if this node does it.
    pub scrubbed: Option<ScrubResult>,
    /// Its wait reasons.
    pub waiting_on: Vec<WaitingOn>,
}

/// A replay in place under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayStatus {
    /// The position of the request, which identifies it.
    pub requested: Position,
    /// The position after which events are replayed.
    pub after: Position,
    /// The position that every segment covers.
    pub at: Position,
    /// The position where it ends.
    pub through: Position,
}

/// The reason why a node cannot answer queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// The projection; `None` for all projections.
    pub projection: Option<ProjectionName>,
    /// The wait reason.
    pub reason: WaitingOn,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.projection, &self.reason) {
            (Some(projection), reason) => write!(f, "{projection}: {reason}"),
            (None, reason) => reason.fmt(f),
        }
    }
}

pub(crate) async fn status(versions: &Arc<Versions>) -> Status {
    let catalog = versions.catalog.current();
    let head = versions.head();
    let ids: Vec<ViewId> = catalog.projections.iter().flat_map(|(name, state)| told(name, state)).collect();
    versions.lookout.keep(&ids);
    // The facts come first, so that the wait reasons of a version are never newer than its other facts.
    let facts: Vec<_> = ids.iter().map(|id| versions.facts(&catalog, id, &[])).collect();
    let known = join_all(ids.iter().map(|id| versions.lookout.look(versions, id))).await;
    let head = head.max(versions.head());
    let mut found: HashMap<_, _> = ids.into_iter().zip(facts.into_iter().zip(known)).collect();
    let mut projections = Vec::new();
    for (name, state) in &catalog.projections {
        let mut told_of = Vec::new();
        for id in told(name, state) {
            let Some((Some(facts), known)) = found.remove(&id) else { continue };
            told_of.push(version_status(versions, head, id, facts, known));
        }
        let flip = state.flip.map(|flip| (flip, flip_waiting_on(versions, name, flip)));
        projections.push(ProjectionStatus { name: name.clone(), serving: state.serving, flip, versions: told_of });
    }
    let members = if versions.cluster.is_shared() { versions.cluster.live().borrow().clone() } else { vec![] };
    Status { head, members, projections, subscribers: vec![] }
}

/// Returns the versions of a projection that the status shows.
fn told(name: &ProjectionName, state: &ProjectionState) -> impl Iterator<Item = ViewId> {
    let versions = state.versions.iter().filter(|(_, state)| state.phase != Phase::Obsolete);
    versions.map(|(version, _)| ViewId { projection: name.clone(), version: *version })
}

/// Returns what the flip to a version waits on. Without the code of the version, this node knows no more than that.
fn flip_waiting_on(versions: &Versions, projection: &ProjectionName, flip: PendingFlip) -> Vec<WaitingOn> {
    let PendingFlip { to, requested, .. } = flip;
    let is_carried = versions.code_of(&ViewId { projection: projection.clone(), version: to }).is_some();
    if !is_carried {
        return vec![WaitingOn::Code { version: to }];
    }
    let told = versions.notes.flip_waiting_on(projection, requested);
    if told.is_empty() { versions.notes.stuck().into_iter().collect() } else { told }
}

/// Returns the reasons why this node cannot append, or cannot answer queries on every projection that has a serving
/// version; empty if it can. It asks no store, so it works while the store does not answer.
pub(crate) fn not_ready(versions: &Versions) -> Vec<NotReady> {
    let lost = versions.cluster.lost().map(|error| WaitingOn::Lease { error });
    let mut reasons: Vec<_> = lost.map(|reason| NotReady { projection: None, reason }).into_iter().collect();
    let fails = match versions.journal.health() {
        Health::Well => None,
        Health::Failing(error) => Some(WaitingOn::Store { error }),
        Health::Damaged(error) => Some(WaitingOn::Damaged { error }),
        Health::Parted(parted) => Some(WaitingOn::JournalParted { parted }),
    };
    reasons.extend(fails.map(|reason| NotReady { projection: None, reason }));
    let catalog = versions.catalog.current();
    for (projection, state) in &catalog.projections {
        let Some(version) = state.serving else { continue };
        let id = ViewId { projection: projection.clone(), version };
        let of = |reason| NotReady { projection: Some(projection.clone()), reason };
        let tokens = versions.seen(&id);
        let told = versions.facts(&catalog, &id, &tokens).map(|facts| facts.not_ready()).unwrap_or_default();
        reasons.extend(told.into_iter().map(of));
    }
    reasons
}

fn version_status(
    versions: &Arc<Versions>,
    head: Position,
    id: ViewId,
    facts: VersionFacts<'_>,
    known: Known,
) -> VersionStatus {
    let Known { facts: Facts { tokens, unreadable, letters, halts, bare, oldest }, age } = known;
    let facts = VersionFacts { head, tokens: &tokens, unreadable, halts, bare, ..facts };
    let (state, reasons, stage, lag) = (facts.state, facts.reasons(), facts.stage(), facts.lag());
    let claimant = facts.claimant();
    let carried = versions.code_of(&id);
    let open = versions.open_version(&id);
    let covers = covered(&tokens);
    let reached = open.as_ref().and_then(|open| open.reached(covers));
    let since = |first| versions.world.clock.now().since(first);
    let lag_time = if lag > 0 { oldest.map_or(Duration::ZERO, since) } else { Duration::ZERO };
    let pace = match lag {
        _ if state.paused && lag > 0 => {
            Pacing { left: age.is_none().then_some(Err(NoTimeLeft::Paused)), ..Pacing::default() }
        }
        0 => Pacing { left: (!tokens.is_empty()).then_some(Err(NoTimeLeft::Following)), ..Pacing::default() },
        // Old facts show nothing about the present pace.
        _ if age.is_some() => Pacing::default(),
        _ => {
            let trail = versions.trails.look(&id, &tokens, reached, head);
            let busy = open.as_ref().and_then(|open| open.progress.borrow().busy());
            // The progress of a replay does not explain a pause.
            let is_rest = |reason: &&WaitingOn| !matches!(reason, WaitingOn::Replay { .. });
            let waiting_on: Vec<_> = reasons.kept.iter().chain(&reasons.verdict).filter(is_rest).cloned().collect();
            let left = time_left(head.since(reached.unwrap_or(covers)), lag_time, trail.pace());
            let elsewhere = || member(versions, claimant?);
            let stall = stalled(trail.still(versions.trails.now()), &waiting_on, busy.or_else(elsewhere));
            Pacing { left: Some(left), pace: trail.pace(), stall }
        }
    };
    let retry = carried.as_ref().map(|carried| carried.options.retry);
    let all = reasons.all();
    let needs_somebody = retry.map(|retry| all.iter().any(|reason| reason.needs_somebody(&retry)));
    let replay = state.replay.and_then(|pending| {
        let (at, through) = replay::progress(&tokens, &pending)?;
        Some(ReplayStatus { requested: pending.requested, after: pending.after, at, through })
    });
    // A failing effect does not prevent a rollback.
    let kept: Vec<_> = reasons.kept.iter().chain(&reasons.verdict).cloned().collect();
    let rollback_ready = (state.phase == Phase::StandingBy).then(|| rollback_ready(id.version, &tokens, head, &kept));
    let outbox = open.as_ref().map(|open| open.effects.outbox.borrow().clone()).unwrap_or_default();
    VersionStatus {
        version: id.version,
        phase: state.phase,
        stage,
        since: state.since,
        reason: state.reason.clone(),
        carried: carried.is_some(),
        covers,
        reached,
        lag,
        lag_time,
        rate: pace.pace.map(|pace| pace.rate),
        arrivals: pace.pace.map(|pace| pace.arrivals),
        time_left: pace.left,
        stall: pace.stall,
        rollback_ready,
        replay,
        letters,
        effects_aside: outbox.aside,
        age,
        needs_somebody,
        scrubbed: versions.notes.scrubbed(&id),
        waiting_on: all,
        tokens,
    }
}

/// Returns the reason that only a live member knows.
fn member(versions: &Versions, id: MemberId) -> Option<WaitingOn> {
    let live = versions.cluster.live();
    let live = live.borrow();
    let member = live.iter().find(|member| member.id == id)?;
    Some(WaitingOn::Member { member: member.name.clone() })
}

/// The pace of a version.
#[derive(Default)]
struct Pacing {
    left: Option<Result<TimeLeft, NoTimeLeft>>,
    pace: Option<Pace>,
    stall: Option<Stall>,
}
