//! How a node and its versions are, as data: the facts behind every table, progress bar and console.

mod facts;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::progress::{NoTimeLeft, Stall, TimeLeft, stalled, time_left};
use dacapo_model::rebuild::{rollback_ready, stage};
use dacapo_model::{
    Member, PendingFlip, Phase, Position, ProjectionName, ProjectionState, Stage, Timestamp, Token, VersionId,
    VersionState, ViewId, WaitingOn, replay,
};
use dacapo_store::Health;
use futures::future::join_all;

use crate::core::{Core, OpenVersion};
use crate::reactor;
use crate::subscribe::SubscriberStatus;
use crate::verify;
use facts::{Facts, Known, is_ours};

pub(crate) use facts::Lookout;

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

pub(crate) async fn status(core: &Arc<Core>) -> Status {
    let catalog = core.catalog.current();
    let head = core.head();
    let ids: Vec<ViewId> = catalog.projections.iter().flat_map(|(name, state)| told(name, state)).collect();
    core.lookout.keep(&ids);
    // First, so that what a version waits on is never later than what else is found of it.
    let waiting: Vec<_> = ids.iter().map(|id| core.waiting_on(id)).collect();
    let known = join_all(ids.iter().map(|id| core.lookout.look(core, id))).await;
    let head = head.max(core.head());
    let mut found: HashMap<_, _> = ids.into_iter().zip(waiting.into_iter().zip(known)).collect();
    let mut projections = Vec::new();
    for (name, state) in &catalog.projections {
        let mut versions = Vec::new();
        for id in told(name, state) {
            let version_state = &state.versions[&id.version];
            let (waiting_on, known) = found.remove(&id).unwrap_or_default();
            versions.push(version_status(core, head, id, (state, version_state), waiting_on, known));
        }
        let flip = state.flip.map(|flip| (flip, flip_waiting_on(core, name, flip.to)));
        projections.push(ProjectionStatus { name: name.clone(), serving: state.serving, flip, versions });
    }
    let members = if core.cluster.is_shared() { core.cluster.live().borrow().clone() } else { vec![] };
    Status { head, members, projections, subscribers: vec![] }
}

/// The versions of a projection that are told of.
fn told(name: &ProjectionName, state: &ProjectionState) -> impl Iterator<Item = ViewId> {
    let versions = state.versions.iter().filter(|(_, state)| state.phase != Phase::Obsolete);
    versions.map(|(version, _)| ViewId { projection: name.clone(), version: *version })
}

/// What the flip to a version waits on. Where nobody drives it, that is somebody who can.
fn flip_waiting_on(core: &Core, projection: &ProjectionName, to: VersionId) -> Vec<WaitingOn> {
    let is_carried = core.code_of(&ViewId { projection: projection.clone(), version: to }).is_some();
    if !is_carried {
        return vec![WaitingOn::Code { version: to }];
    }
    let told = core.flip_state(projection).waiting_on;
    if told.is_empty() { core.stuck().into_iter().collect() } else { told }
}

/// Why this node cannot append, or cannot answer queries on every projection that has a serving version; empty when it can. Asks no store,
/// so that it can be told while that is away.
pub(crate) fn not_ready(core: &Core) -> Vec<NotReady> {
    let lost = core.cluster.lost().map(|error| WaitingOn::Lease { error });
    let mut reasons: Vec<_> = lost.map(|reason| NotReady { projection: None, reason }).into_iter().collect();
    let fails = match core.journal.health() {
        Health::Well => None,
        Health::Failing(error) => Some(WaitingOn::Store { error }),
        Health::Damaged(error) => Some(WaitingOn::Damaged { error }),
        Health::Parted(parted) => Some(WaitingOn::Parted { parted }),
    };
    reasons.extend(fails.map(|reason| NotReady { projection: None, reason }));
    let catalog = core.catalog.current();
    for (projection, state) in &catalog.projections {
        let Some(version) = state.serving else { continue };
        let id = ViewId { projection: projection.clone(), version };
        let of = |reason| NotReady { projection: Some(projection.clone()), reason };
        if core.code_of(&id).is_none() {
            reasons.push(of(WaitingOn::Code { version }));
            continue;
        }
        let open = core.open_version(&id);
        let is_open = open.as_ref().is_some_and(|open| !open.progress.borrow().tokens.is_empty());
        if !is_open || core.trouble(&id).is_some() || open.is_some_and(|open| is_failing(&open)) {
            let told = core.waiting_on(&id);
            let told = if told.is_empty() { vec![WaitingOn::Processor] } else { told };
            reasons.extend(told.into_iter().map(of));
        }
    }
    reasons
}

/// Whether something is wrong with a view that is open, or its processor cannot go on for that.
fn is_failing(open: &OpenVersion) -> bool {
    let health = open.view.health();
    let waits = |reason: &WaitingOn| matches!(reason, WaitingOn::Store { .. } | WaitingOn::Damaged { .. });
    health.damaged.is_some() || health.failing.is_some() || open.progress.borrow().waiting_on.iter().any(waits)
}

fn version_status(
    core: &Arc<Core>,
    head: Position,
    id: ViewId,
    (projection, state): (&ProjectionState, &VersionState),
    mut waiting_on: Vec<WaitingOn>,
    known: Known,
) -> VersionStatus {
    let Known { facts: Facts { tokens, unreadable, letters, halts, bare, oldest }, age } = known;
    let carried = core.code_of(&id);
    let open = core.open_version(&id);
    let progress = open.as_ref().map(|open| open.progress.borrow().clone()).unwrap_or_default();
    waiting_on.extend(halts);
    let covers = tokens.iter().map(|token| token.position).min().unwrap_or_default();
    let reached = open.as_ref().and_then(|open| open.reached(covers));
    let lag = if state.phase.applies() { head.since(covers) } else { 0 };
    let stage = stage(state, &tokens, bare && state.phase == Phase::Initializing, head);
    let busy = progress.batch.map(|(after, since)| WaitingOn::Batch { after, since: since.elapsed() });
    let is_told = waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Damaged { .. } | WaitingOn::Store { .. }));
    waiting_on.extend(unreadable.filter(|_| !is_told && core.trouble(&id).is_none()));
    if carried.is_none() && (state.phase.applies() || state.phase == Phase::Scheduled) {
        waiting_on.push(WaitingOn::Code { version: id.version });
    }
    if state.phase.applies() || state.phase == Phase::Scheduled {
        waiting_on.extend(core.unlike(&id));
    }
    let looking = core.looking(&id);
    // While it meets the version that serves it rests for a moment, which is no falling behind.
    let stage = if looking.is_some() { stage.map(|_| Stage::Verifying) } else { stage };
    if stage == Some(Stage::Verifying) {
        waiting_on.extend(verify::waits_on(core, &id, state));
        waiting_on.extend(looking.and_then(|looking| looking.error).map(|error| WaitingOn::Store { error }));
    }
    let (lag_time, time_left, pace, stall) = match lag {
        _ if state.paused && lag > 0 => {
            let lag_time = oldest.map_or(Duration::ZERO, |first| core.world.clock.now().since(first));
            (lag_time, age.is_none().then_some(Err(NoTimeLeft::Paused)), None, None)
        }
        0 => (Duration::ZERO, (!tokens.is_empty()).then_some(Err(NoTimeLeft::Following)), None, None),
        // What is not of now says nothing about a pace.
        _ if age.is_some() => {
            (oldest.map_or(Duration::ZERO, |first| core.world.clock.now().since(first)), None, None, None)
        }
        _ => {
            let trail = core.trails.look(&id, &tokens, reached, head);
            let lag_time = oldest.map_or(Duration::ZERO, |first| core.world.clock.now().since(first));
            let stall = stalled(trail.still(core.trails.now()), &waiting_on, busy);
            let left = head.since(reached.unwrap_or(covers));
            (lag_time, Some(time_left(left, lag_time, trail.pace())), trail.pace(), stall)
        }
    };
    let retry = carried.as_ref().map(|carried| carried.options.retry);
    let needs_somebody = retry.map(|retry| waiting_on.iter().any(|reason| reason.needs_somebody(&retry)));
    if stage == Some(Stage::Ready) && projection.flip.is_none() && !projection.flips_by_itself(state) {
        waiting_on.push(WaitingOn::FlipCommand);
    }
    let replay = state.replay.and_then(|pending| {
        let (at, through) = replay::progress(&tokens, &pending)?;
        Some(ReplayStatus { requested: pending.requested, after: pending.after, at, through })
    });
    // First, since nothing else explains a lag or a reader's wait while it runs.
    if let Some(ReplayStatus { at, through, .. }) = replay {
        waiting_on.insert(0, WaitingOn::Replay { version: id.version, at, through });
    }
    let rollback_ready =
        (state.phase == Phase::StandingBy).then(|| rollback_ready(id.version, &tokens, head, &waiting_on));
    // An effect that fails keeps nobody from a rollback.
    let outbox = open.as_ref().map(|open| open.outbox.borrow().clone()).unwrap_or_default();
    waiting_on.extend(reactor::waiting_on(&outbox));
    let before = open.as_ref().and_then(|open| *open.before.borrow());
    waiting_on.extend(before.map(|version| WaitingOn::EffectsBefore { version }));
    waiting_on.extend(core.unpublished(&id, projection));
    if state.phase == Phase::CleaningUp && outbox.pending > 0 {
        waiting_on.push(WaitingOn::Effects { pending: outbox.pending });
        waiting_on.extend(carried.is_none().then_some(WaitingOn::Code { version: id.version }));
    }
    if let (Phase::StandingBy, Some(carried)) = (state.phase, &carried) {
        let over = core.world.clock.now().since(state.since);
        waiting_on.push(WaitingOn::StandBy { remaining: carried.options.stand_by.saturating_sub(over) });
    }
    // Why a segment rests that another member has is for that one to tell; which one it is, its token says.
    let lowest = tokens.iter().min_by_key(|token| token.position);
    if let Some(lowest) = lowest.filter(|lowest| lag > 0 && waiting_on.is_empty() && !is_ours(core, lowest)) {
        waiting_on.push(WaitingOn::Segment { version: id.version, segment: lowest.segment, behind: lag });
    }
    VersionStatus {
        version: id.version,
        phase: state.phase,
        stage,
        since: state.since,
        reason: state.reason.clone(),
        carried: carried.is_some(),
        tokens,
        covers,
        reached,
        lag,
        lag_time,
        rate: pace.map(|pace| pace.rate),
        arrivals: pace.map(|pace| pace.arrivals),
        time_left,
        stall,
        rollback_ready,
        replay,
        letters,
        effects_aside: outbox.aside,
        age,
        needs_somebody,
        waiting_on,
    }
}
