//! How a node and its versions are, as data: the facts behind every table, progress bar and console.

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
pub use dacapo_model::{Member, MemberId, Segment, Token, WaitingOn};

use crate::subscribe::SubscriberStatus;
use crate::versions::{Facts, Known, Versions};

/// A node and its projections.
#[derive(Clone, Debug)]
pub struct Status {
    /// The last position of the journal.
    pub head: Position,
    /// The nodes that share the store and are alive, this one among them, as it saw them last; none where it has the
    /// store for itself.
    pub members: Vec<Member>,
    /// Every projection the catalog knows, by name.
    pub projections: Vec<ProjectionStatus>,
    /// The subscribers of this node, in the order in which it was given them.
    pub subscribers: Vec<SubscriberStatus>,
}

/// One projection.
#[derive(Clone, Debug)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: ProjectionName,
    /// The version that answers queries.
    pub serving: Option<VersionId>,
    /// The flip under way, and what it waits on.
    pub flip: Option<(PendingFlip, Vec<WaitingOn>)>,
    /// Its versions that are not obsolete, oldest first.
    pub versions: Vec<VersionStatus>,
}

/// One version.
#[derive(Clone, Debug)]
pub struct VersionStatus {
    /// Which version.
    pub version: VersionId,
    /// Its phase.
    pub phase: Phase,
    /// Inside Initializing, how far it is.
    pub stage: Option<Stage>,
    /// When it entered the phase.
    pub since: Timestamp,
    /// Why it failed or is cleaned up.
    pub reason: Option<String>,
    /// Whether this node carries its code.
    pub carried: bool,
    /// Its tokens; empty when this node has no view of it.
    pub tokens: Vec<Token>,
    /// The position that all of its segments cover.
    pub covers: Position,
    /// What it has applied where this node applies it: in the middle of a batch that is more than what it covers.
    pub reached: Option<Position>,
    /// How many positions the lowest of its segments is behind the head.
    pub lag: u64,
    /// How old the oldest event is that it does not cover, by the time at which that was appended.
    pub lag_time: Duration,
    /// Positions covered a second over the last seconds, while there is something to cover and the rate is known.
    pub rate: Option<f64>,
    /// Positions appended a second over the same time.
    pub arrivals: Option<f64>,
    /// When it will have caught up and what that rests on, or why that cannot be told; for a version that is kept
    /// up to date.
    pub time_left: Option<Result<TimeLeft, NoTimeLeft>>,
    /// That it has something to do and does not get on, and why.
    pub stall: Option<Stall>,
    /// While standing by: whether a rollback to it would be carried out at once, or why not (I-8).
    pub rollback_ready: Option<Result<(), WaitingOn>>,
    /// The replay in place under way: its request, what it covers again, and where it ends.
    pub replay: Option<ReplayStatus>,
    /// How many events are set aside in it as dead letters.
    pub letters: u64,
    /// How many of its effects are set aside.
    pub effects_aside: u64,
    /// How old is what is told here of its view, when that could not be read just now.
    pub age: Option<Duration>,
    /// Whether events are applied no further until somebody does something about what it waits on, by what its options
    /// say of retries; nothing where this node does not carry its code.
    pub needs_somebody: Option<bool>,
    /// What the last look at its rows found, where this node looks at them while it serves.
    pub scrubbed: Option<ScrubResult>,
    /// What it waits on.
    pub waiting_on: Vec<WaitingOn>,
}

/// A replay in place under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayStatus {
    /// The position of the request, which names it.
    pub requested: Position,
    /// The events behind this position are replayed.
    pub after: Position,
    /// What every segment covers again.
    pub at: Position,
    /// Where it ends.
    pub through: Position,
}

/// Why a node cannot answer queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// On which projection; on none of them if there is no name.
    pub projection: Option<ProjectionName>,
    /// What it waits on.
    pub reason: WaitingOn,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.projection, &self.reason) {
            (Some(projection), reason) => write!(f, "{projection}: {reason}"),
            (None, WaitingOn::Parted { parted }) => {
                write!(f, "the right journal, or a start of every node anew to go on with what is there: {parted}")
            }
            (None, reason) => reason.fmt(f),
        }
    }
}

pub(crate) async fn status(versions: &Arc<Versions>) -> Status {
    let catalog = versions.catalog.current();
    let head = versions.head();
    let ids: Vec<ViewId> = catalog.projections.iter().flat_map(|(name, state)| told(name, state)).collect();
    versions.lookout.keep(&ids);
    // First, so that what a version waits on is never later than what else is found of it.
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

/// The versions of a projection that are told of.
fn told(name: &ProjectionName, state: &ProjectionState) -> impl Iterator<Item = ViewId> {
    let versions = state.versions.iter().filter(|(_, state)| state.phase != Phase::Obsolete);
    versions.map(|(version, _)| ViewId { projection: name.clone(), version: *version })
}

/// What the flip to a version waits on. Where nobody drives it, that is somebody who can.
fn flip_waiting_on(versions: &Versions, projection: &ProjectionName, flip: PendingFlip) -> Vec<WaitingOn> {
    let PendingFlip { to, requested, .. } = flip;
    let is_carried = versions.code_of(&ViewId { projection: projection.clone(), version: to }).is_some();
    if !is_carried {
        return vec![WaitingOn::Code { version: to }];
    }
    let told = versions.notes.flip_waiting_on(projection, requested);
    if told.is_empty() { versions.notes.stuck().into_iter().collect() } else { told }
}

/// Why this node cannot append, or cannot answer queries on every projection that has a serving version; empty when it can. Asks no store,
/// so that it can be told while that is away.
pub(crate) fn not_ready(versions: &Versions) -> Vec<NotReady> {
    let lost = versions.cluster.lost().map(|error| WaitingOn::Lease { error });
    let mut reasons: Vec<_> = lost.map(|reason| NotReady { projection: None, reason }).into_iter().collect();
    let fails = match versions.journal.health() {
        Health::Well => None,
        Health::Failing(error) => Some(WaitingOn::Store { error }),
        Health::Damaged(error) => Some(WaitingOn::Damaged { error }),
        Health::Parted(parted) => Some(WaitingOn::Parted { parted }),
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
        // What is not of now says nothing about a pace.
        _ if age.is_some() => Pacing::default(),
        _ => {
            let trail = versions.trails.look(&id, &tokens, reached, head);
            let batch = open.as_ref().and_then(|open| open.progress.borrow().batch);
            let busy = batch.map(|(after, since)| WaitingOn::Batch { after, since: since.elapsed() });
            // How far a replay is explains no rest.
            let is_rest = |reason: &&WaitingOn| !matches!(reason, WaitingOn::Replay { .. });
            let waiting_on: Vec<_> = reasons.kept.iter().chain(&reasons.verdict).filter(is_rest).cloned().collect();
            let left = time_left(head.since(reached.unwrap_or(covers)), lag_time, trail.pace());
            let stall = stalled(trail.still(versions.trails.now()), &waiting_on, busy);
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
    // An effect that fails keeps nobody from a rollback.
    let kept: Vec<_> = reasons.kept.iter().chain(&reasons.verdict).cloned().collect();
    let rollback_ready = (state.phase == Phase::StandingBy).then(|| rollback_ready(id.version, &tokens, head, &kept));
    let outbox = open.as_ref().map(|open| open.outbox.borrow().clone()).unwrap_or_default();
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

/// How a version gets on.
#[derive(Default)]
struct Pacing {
    left: Option<Result<TimeLeft, NoTimeLeft>>,
    pace: Option<Pace>,
    stall: Option<Stall>,
}
