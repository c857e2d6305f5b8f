//! The catalog: which versions exist, their phases, which one serves.
//!
//! It is a fold of the stream `$catalog`. A change is decided here from the current fold and appended
//! with the exact revision of that fold, so that of two concurrent changes one is refused and decided
//! again on what the other made. The position of a flip request in the journal is what makes a flip
//! race-free: everything before it is before the flip.
//!
//! This module never looks at tokens; whether a flip may be confirmed is the gate's rule in
//! [`flip`](crate::flip), and [`ConfirmFlip`](CatalogCommand::ConfirmFlip) carries its evidence.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::planted::{self, Fault};
use crate::position::{Position, Revision};
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::verify::{Report, Verdict};
use crate::version::{VersionId, ViewId};

/// When a version that is ready becomes the serving one. The first version of a projection does so by
/// itself under either policy, for there is nothing it could replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlipPolicy {
    /// As soon as it is ready.
    #[default]
    WhenReady,
    /// When somebody asks for it.
    OnCommand,
}

/// The direction of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlipKind {
    /// To a newer version, or to the first one.
    Flip,
    /// To an older version.
    Rollback,
}

/// Why a version is cleaned up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CleanUpReason {
    /// Its stand-by is over.
    StandByOver,
    /// A later version was scheduled before it served.
    Superseded {
        /// The later version.
        by: VersionId,
    },
    /// Somebody asked for it.
    Asked,
}

impl fmt::Display for CleanUpReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandByOver => f.write_str("its stand-by is over"),
            Self::Superseded { by } => write!(f, "superseded by {by}"),
            Self::Asked => f.write_str("asked for"),
        }
    }
}

/// A change of the catalog that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogEvent {
    /// A version exists.
    Scheduled {
        /// Which version.
        view: ViewId,
        /// Its number of segments, fixed from here on.
        segments: SegmentCount,
        /// When it flips.
        flip: FlipPolicy,
        /// What its code declared about itself; the same version number never comes with another one.
        fingerprint: String,
        /// The version whose view it begins as a copy of.
        seed: Option<VersionId>,
    },
    /// Its view is being built.
    Initializing {
        /// Which version.
        view: ViewId,
    },
    /// Readers shall move to `view`. The position of this event is the flip's F.
    FlipRequested {
        /// The version to serve.
        view: ViewId,
        /// The version that serves.
        from: Option<VersionId>,
        /// The direction.
        kind: FlipKind,
    },
    /// The hold of the requested flip has run out of its budget; it is tried again under a new hold. Only
    /// after this, [`Flipped`](Self::Flipped) or [`FlipAborted`](Self::FlipAborted) is a hold lifted, so that no
    /// controller can confirm on evidence that another one has let go.
    FlipPostponed {
        /// The version that will serve.
        view: ViewId,
    },
    /// The requested flip will not happen.
    FlipAborted {
        /// The version that would have served.
        view: ViewId,
        /// Why not.
        reason: String,
    },
    /// Readers have moved to `view`. This event is the flip (I-5).
    Flipped {
        /// The version that serves from here on.
        view: ViewId,
        /// The version that served until here and stands by from here on.
        from: Option<VersionId>,
        /// The direction.
        kind: FlipKind,
        /// The evidence: every segment of `view` covers this position, and nothing later was ever shown (I-6).
        covers: Position,
    },
    /// The view is being dropped.
    CleaningUp {
        /// Which version.
        view: ViewId,
        /// Why.
        reason: CleanUpReason,
    },
    /// The view is gone (I-12).
    Obsolete {
        /// Which version.
        view: ViewId,
    },
    /// The version cannot be built.
    Failed {
        /// Which version.
        view: ViewId,
        /// Why not.
        reason: String,
    },
    /// No events are applied to its view until it is resumed.
    Paused {
        /// Which version.
        view: ViewId,
    },
    /// Events are applied again, and whatever halts is tried at once.
    Resumed {
        /// Which version.
        view: ViewId,
    },
    /// It was verified.
    Verified {
        /// Which version.
        view: ViewId,
        /// What it came to.
        verdict: Verdict,
        /// What was found.
        report: Arc<Report>,
    },
    /// It shall be verified again; its verdict counts no more.
    VerificationRequested {
        /// Which version.
        view: ViewId,
    },
    /// Somebody answers for it although it was not found right.
    Waived {
        /// Which version.
        view: ViewId,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Past events shall go through the version again, in its own view. The position of this event names the replay.
    ReplayRequested {
        /// Which version.
        view: ViewId,
        /// The events behind this position.
        after: Position,
        /// What becomes of the rows that they made before.
        rows: ReplayRows,
    },
    /// Every segment of the version is where it was when it went back.
    ReplayEnded {
        /// Which version.
        view: ViewId,
    },
}

impl CatalogEvent {
    /// The version that the event is about.
    pub fn view(&self) -> &ViewId {
        match self {
            Self::Scheduled { view, .. }
            | Self::Initializing { view }
            | Self::FlipRequested { view, .. }
            | Self::FlipPostponed { view }
            | Self::FlipAborted { view, .. }
            | Self::Flipped { view, .. }
            | Self::CleaningUp { view, .. }
            | Self::Obsolete { view }
            | Self::Failed { view, .. }
            | Self::Paused { view }
            | Self::Resumed { view }
            | Self::Verified { view, .. }
            | Self::VerificationRequested { view }
            | Self::Waived { view, .. }
            | Self::ReplayRequested { view, .. }
            | Self::ReplayEnded { view } => view,
        }
    }
}

/// A change that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogCommand {
    /// A new build of the code version `code`.
    Schedule {
        /// Of which projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// Its number of segments.
        segments: SegmentCount,
        /// When it flips.
        flip: FlipPolicy,
        /// What the code declares about itself.
        fingerprint: String,
        /// Whether it begins as a copy of the view that serves.
        seeded: bool,
    },
    /// Start to build a scheduled version.
    Begin(ViewId),
    /// Let readers move to a version; back to an older one, that is a rollback.
    RequestFlip(ViewId),
    /// The gate is open: carry out the requested flip.
    ConfirmFlip {
        /// The version of the request.
        view: ViewId,
        /// The hold under which the evidence was taken, so that a late confirmation never answers for a
        /// later hold.
        hold: Position,
        /// What every segment of it covers.
        covers: Position,
    },
    /// Give up the hold of the requested flip and try again later.
    PostponeFlip {
        /// The version of the request.
        view: ViewId,
        /// The hold that is given up.
        hold: Position,
    },
    /// Drop the view of a version that does not serve.
    CleanUp {
        /// Which version.
        view: ViewId,
        /// Why.
        reason: CleanUpReason,
    },
    /// The view has been dropped.
    FinishCleanUp(ViewId),
    /// The version cannot be built.
    Fail {
        /// Which version.
        view: ViewId,
        /// Why not.
        reason: String,
    },
    /// Apply no more events to its view.
    Pause(ViewId),
    /// Apply events again, and try at once whatever halts.
    Resume(ViewId),
    /// Verify it again, whatever its verdict is.
    RequestVerification(ViewId),
    /// It was verified.
    Verify {
        /// Which version.
        view: ViewId,
        /// The request to verify again that this answers, if there is one, so that what was begun before a request
        /// never answers it.
        answers: Option<Position>,
        /// What it came to.
        verdict: Verdict,
        /// What was found.
        report: Arc<Report>,
    },
    /// Answer for a version that was not found right.
    Waive {
        /// Which version.
        view: ViewId,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Let past events go through the version again, in its own view.
    RequestReplay {
        /// Which version.
        view: ViewId,
        /// The events behind this position.
        after: Position,
        /// What becomes of the rows that they made before.
        rows: ReplayRows,
    },
    /// Every segment is where it was when it went back.
    EndReplay {
        /// Which version.
        view: ViewId,
        /// The position of the request, so that a late end never answers for a later replay.
        request: Position,
    },
}

/// Why the catalog declined a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogRefused {
    /// No version of that number.
    NoSuchVersion {
        /// The version asked for.
        view: ViewId,
        /// Those that exist and are not obsolete.
        known: Vec<VersionId>,
    },
    /// Its phase does not allow the change.
    WrongPhase {
        /// The version asked for.
        view: ViewId,
        /// Its phase.
        phase: Phase,
        /// What was asked for.
        asked: &'static str,
    },
    /// Another flip is under way.
    FlipUnderWay {
        /// Where that one goes.
        view: ViewId,
    },
    /// No flip is under way, or not the one that is confirmed.
    NoFlipUnderWay {
        /// The projection asked about.
        projection: ProjectionName,
    },
    /// A replay in place is under way.
    ReplayUnderWay {
        /// Of which version.
        view: ViewId,
        /// The events behind this position.
        after: Position,
        /// The position of the request.
        requested: Position,
    },
    /// There is no verdict that could be waived.
    NotVerified {
        /// The version asked for.
        view: ViewId,
    },
    /// It has no verdict that lets it serve (I-6).
    NoVerdict {
        /// The version of the flip.
        view: ViewId,
    },
    /// A verification that was asked for later is to be done; this one answers for it no more.
    VerificationOutdated {
        /// The version that was verified.
        view: ViewId,
    },
    /// No replay in place is under way, or not the one that has ended.
    NoReplayUnderWay {
        /// The version asked about.
        view: ViewId,
    },
    /// No version serves that a new one could begin as a copy of.
    NothingToCopy {
        /// Of which projection.
        projection: ProjectionName,
    },
    /// The confirmation does not cover the request (I-6).
    NotCovered {
        /// The position of the request.
        requested: Position,
        /// What the new version covers.
        covers: Position,
    },
    /// The code changed under an unchanged version number.
    Fingerprint {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// What was declared when the version was first seen.
        recorded: String,
        /// What is declared now.
        declared: String,
    },
}

impl fmt::Display for CatalogRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchVersion { view, known } if known.is_empty() => {
                write!(f, "there is no {view}: the projection has no versions")
            }
            Self::NoSuchVersion { view, known } => {
                let known: Vec<_> = known.iter().map(ToString::to_string).collect();
                write!(f, "there is no {view}: the versions are {}", known.join(", "))
            }
            Self::WrongPhase { view, phase, asked } => write!(f, "cannot {asked} {view}: it is {phase}"),
            Self::FlipUnderWay { view } => {
                write!(f, "a flip to {view} is under way: wait for it, or clean that version up to abort it")
            }
            Self::NoFlipUnderWay { projection } => write!(f, "no such flip of {projection} is under way"),
            Self::ReplayUnderWay { view, after, requested } => write!(
                f,
                "a replay of {view} from behind position {after} is under way, asked for at position {requested}: \
                 wait for its end"
            ),
            Self::NotVerified { view } => {
                write!(f, "{view} was not verified yet, so there is no verdict to waive: wait until it has caught up")
            }
            Self::NoVerdict { view } => {
                write!(f, "{view} has no verdict that lets it serve: `dacapo verify` shows what was found of it")
            }
            Self::VerificationOutdated { view } => {
                write!(f, "{view} shall be verified again, and what is told was begun before that was asked for")
            }
            Self::NoReplayUnderWay { view } => write!(f, "no such replay of {view} is under way"),
            Self::NothingToCopy { projection } => write!(
                f,
                "no version of {projection} serves, so there is nothing to begin as a copy of: rebuild it from the \
                 journal"
            ),
            Self::NotCovered { requested, covers } => {
                write!(f, "the flip requested at {requested} is not covered: the new version covers {covers}")
            }
            Self::Fingerprint { projection, code, recorded, declared } => write!(
                f,
                "the code of {projection} v{code} has changed under an unchanged version number (it declared \
                 {recorded:?}, now {declared:?}): raise the version number, so that the view is rebuilt"
            ),
        }
    }
}

impl std::error::Error for CatalogRefused {}

/// One version as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionState {
    /// Its phase.
    pub phase: Phase,
    /// When it entered that phase.
    pub since: Timestamp,
    /// Its number of segments.
    pub segments: SegmentCount,
    /// When it flips.
    pub flip: FlipPolicy,
    /// What its code declared.
    pub fingerprint: String,
    /// Where its building began: events through here are the past that it replays.
    pub began_at: Option<Position>,
    /// Why it failed or is cleaned up.
    pub reason: Option<String>,
    /// The version whose view it begins as a copy of.
    pub seed: Option<VersionId>,
    /// Whether events are kept from its view.
    pub paused: bool,
    /// Where it was resumed last.
    pub resumed_at: Option<Position>,
    /// What its last verification came to.
    pub verified: Option<Verified>,
    /// Where it was asked for another one that is not done yet; until then the verdict does not count.
    pub verify_again: Option<Position>,
    /// The replay in place under way.
    pub replay: Option<PendingReplay>,
    /// The last one that was requested, also when it has ended: a view that lost its last commits takes it up again.
    pub last_replay: Option<PendingReplay>,
}

impl VersionState {
    /// Whether a verification is to be done: there is none, or another one was asked for.
    pub fn is_unverified(&self) -> bool {
        self.phase == Phase::Initializing && (self.verified.is_none() || self.verify_again.is_some())
    }

    /// Whether the verdict lets it serve. One that has served needs none.
    pub fn may_serve(&self) -> bool {
        let lets_serve = self.verified.as_ref().is_some_and(Verified::lets_serve);
        let may = self.verify_again.is_none() && lets_serve;
        self.phase != Phase::Initializing || may || planted::is(Fault::Unverified)
    }
}

/// What a verification came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where the catalog has it.
    pub position: Position,
    /// The verdict.
    pub verdict: Verdict,
    /// What was found.
    pub report: Arc<Report>,
    /// Who answers for it all the same, and why.
    pub waived: Option<(String, String)>,
}

impl Verified {
    /// Whether the version may serve.
    pub fn lets_serve(&self) -> bool {
        self.verdict == Verdict::Pass || self.waived.is_some()
    }
}

/// A replay in place that was requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingReplay {
    /// The position of the request, which names it.
    pub requested: Position,
    /// The events behind this position go through the version again.
    pub after: Position,
    /// What becomes of the rows that they made before.
    pub rows: ReplayRows,
}

/// A flip that was requested and not yet confirmed or aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingFlip {
    /// The version to serve.
    pub to: VersionId,
    /// The version that serves.
    pub from: Option<VersionId>,
    /// The direction.
    pub kind: FlipKind,
    /// The position of the request: F.
    pub requested: Position,
    /// The mark under which the old version is held: the position of the request, or of the last
    /// postponement. Each try has a mark of its own.
    pub hold: Position,
}

/// One projection as the catalog knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectionState {
    /// Every version there ever was.
    pub versions: BTreeMap<VersionId, VersionState>,
    /// The one that answers queries (I-5).
    pub serving: Option<VersionId>,
    /// The flip under way.
    pub flip: Option<PendingFlip>,
    /// Where its first version was scheduled.
    pub first: Option<Position>,
    /// Every flip there was: its position, and the version that serves from there on.
    pub served: Vec<(Position, VersionId)>,
}

impl ProjectionState {
    /// The version that a plain `flip` moves to: the newest one above the serving one that is being
    /// built or stands by.
    pub fn flip_target(&self) -> Option<VersionId> {
        self.candidates(|version| self.serving.is_none_or(|serving| version > serving)).next_back()
    }

    /// The version that a plain `rollback` moves to: of those below the serving one that stand by, the
    /// one that served last.
    pub fn rollback_target(&self) -> Option<VersionId> {
        let serving = self.serving?;
        let standing_by = self.versions.iter().filter(|(id, state)| **id < serving && state.phase == Phase::StandingBy);
        standing_by.max_by_key(|(id, state)| (state.since, **id)).map(|(id, _)| *id)
    }

    fn candidates(&self, wanted: impl Fn(VersionId) -> bool) -> impl DoubleEndedIterator<Item = VersionId> {
        let open = |phase| matches!(phase, Phase::Scheduled | Phase::Initializing | Phase::StandingBy);
        self.versions.iter().filter(move |(id, state)| open(state.phase) && wanted(**id)).map(|(id, _)| *id)
    }
}

/// The fold of `$catalog`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Every projection there ever was.
    pub projections: BTreeMap<ProjectionName, ProjectionState>,
    /// The revision of `$catalog` that this is the fold of; a change is appended expecting exactly it.
    pub revision: Revision,
    /// The position of the last event folded.
    pub position: Position,
}

impl Catalog {
    /// The state of one version.
    pub fn version(&self, view: &ViewId) -> Option<&VersionState> {
        self.projections.get(&view.projection)?.versions.get(&view.version)
    }

    /// The version of `projection` that answers queries.
    pub fn serving(&self, projection: &ProjectionName) -> Option<VersionId> {
        self.projections.get(projection)?.serving
    }

    /// Every version that is not obsolete, with its state.
    pub fn versions(&self) -> impl Iterator<Item = (ViewId, &VersionState)> {
        self.projections.iter().flat_map(|(projection, state)| {
            let views = state.versions.iter().filter(|(_, version)| version.phase != Phase::Obsolete);
            views.map(move |(id, version)| (ViewId { projection: projection.clone(), version: *id }, version))
        })
    }

    /// What follows from `command`. An empty answer means that things already are as asked.
    ///
    /// # Errors
    /// [`CatalogRefused`], and nothing changes.
    pub fn decide(&self, command: &CatalogCommand) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        match command {
            CatalogCommand::Schedule { projection, code, segments, flip, fingerprint, seeded } => {
                let seed = match (seeded, self.serving(projection)) {
                    (false, _) => None,
                    (true, Some(serving)) => Some(serving),
                    (true, None) => return Err(CatalogRefused::NothingToCopy { projection: projection.clone() }),
                };
                self.schedule(projection, *code, *segments, *flip, fingerprint, seed)
            }
            CatalogCommand::Begin(view) => match self.known(view)?.phase {
                Phase::Scheduled => Ok(vec![CatalogEvent::Initializing { view: view.clone() }]),
                Phase::Initializing => Ok(vec![]),
                phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "begin to build" }),
            },
            CatalogCommand::RequestFlip(view) => self.request_flip(view),
            CatalogCommand::ConfirmFlip { view, hold, covers } => self.confirm_flip(view, *hold, *covers),
            CatalogCommand::PostponeFlip { view, hold } => {
                self.pending_under(view, *hold)?;
                Ok(vec![CatalogEvent::FlipPostponed { view: view.clone() }])
            }
            CatalogCommand::CleanUp { view, reason } => self.clean_up(view, reason),
            CatalogCommand::FinishCleanUp(view) => match self.known(view)?.phase {
                Phase::CleaningUp => Ok(vec![CatalogEvent::Obsolete { view: view.clone() }]),
                phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "finish cleaning up" }),
            },
            CatalogCommand::Fail { view, reason } => match self.known(view)?.phase {
                Phase::Initializing => {
                    let failed = CatalogEvent::Failed { view: view.clone(), reason: reason.clone() };
                    Ok(self.abort_flip_to(view, reason).into_iter().chain([failed]).collect())
                }
                Phase::Failed => Ok(vec![]),
                phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "fail" }),
            },
            CatalogCommand::Pause(view) => {
                let paused = self.applied(view, "pause")?.paused;
                Ok((!paused).then(|| CatalogEvent::Paused { view: view.clone() }).into_iter().collect())
            }
            // Also where it is not paused: whatever halts is then tried at once.
            CatalogCommand::Resume(view) => {
                self.applied(view, "resume")?;
                Ok(vec![CatalogEvent::Resumed { view: view.clone() }])
            }
            CatalogCommand::RequestVerification(view) => {
                let state = self.initializing(view)?;
                // One that is to be done anyway is as asked.
                let asked = CatalogEvent::VerificationRequested { view: view.clone() };
                Ok((!state.is_unverified()).then_some(asked).into_iter().collect())
            }
            CatalogCommand::Verify { view, answers, verdict, report } => {
                if self.initializing(view)?.verify_again != *answers {
                    return Err(CatalogRefused::VerificationOutdated { view: view.clone() });
                }
                let (view, verdict, report) = (view.clone(), *verdict, Arc::clone(report));
                Ok(vec![CatalogEvent::Verified { view, verdict, report }])
            }
            CatalogCommand::Waive { view, by, why } => self.waive(view, by, why),
            CatalogCommand::RequestReplay { view, after, rows } => self.request_replay(view, *after, *rows),
            CatalogCommand::EndReplay { view, request } => {
                let pending = self.known(view)?.replay.filter(|replay| replay.requested == *request);
                pending.ok_or_else(|| CatalogRefused::NoReplayUnderWay { view: view.clone() })?;
                Ok(vec![CatalogEvent::ReplayEnded { view: view.clone() }])
            }
        }
    }

    /// The state of a version that is being built, and so can be verified.
    fn initializing(&self, view: &ViewId) -> Result<&VersionState, CatalogRefused> {
        let state = self.known(view)?;
        match state.phase {
            Phase::Initializing => Ok(state),
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "verify" }),
        }
    }

    fn waive(&self, view: &ViewId, by: &str, why: &str) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let state = self.known(view)?;
        match (&state.verified, state.phase) {
            (Some(_), Phase::Initializing) if state.may_serve() => Ok(vec![]),
            (Some(_), Phase::Initializing) if state.verify_again.is_none() => {
                Ok(vec![CatalogEvent::Waived { view: view.clone(), by: by.to_owned(), why: why.to_owned() }])
            }
            (_, Phase::Initializing) => Err(CatalogRefused::NotVerified { view: view.clone() }),
            (_, phase) => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "waive the verdict on" }),
        }
    }

    fn request_replay(
        &self,
        view: &ViewId,
        after: Position,
        rows: ReplayRows,
    ) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let state = self.known(view)?;
        if let Some(PendingReplay { requested, after, .. }) = state.replay {
            return Err(CatalogRefused::ReplayUnderWay { view: view.clone(), after, requested });
        }
        if let Some(flip) = self.projections[&view.projection].flip {
            return Err(CatalogRefused::FlipUnderWay { view: ViewId { version: flip.to, ..view.clone() } });
        }
        match state.phase {
            Phase::Serving | Phase::StandingBy => {
                Ok(vec![CatalogEvent::ReplayRequested { view: view.clone(), after, rows }])
            }
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "replay in place" }),
        }
    }

    /// The state of a version to which events are applied.
    fn applied(&self, view: &ViewId, asked: &'static str) -> Result<&VersionState, CatalogRefused> {
        let state = self.known(view)?;
        let phase = state.phase;
        if phase.applies() { Ok(state) } else { Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked }) }
    }

    fn schedule(
        &self,
        projection: &ProjectionName,
        code: u32,
        segments: SegmentCount,
        flip: FlipPolicy,
        fingerprint: &str,
        seed: Option<VersionId>,
    ) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let none = BTreeMap::new();
        let versions = self.projections.get(projection).map_or(&none, |state| &state.versions);
        let forgotten = |state: &VersionState| planted::is(Fault::NumberAgain) && state.phase == Phase::Obsolete;
        let mut builds = versions.iter().filter(|(id, state)| id.code == code && !forgotten(state));
        if let Some((_, earlier)) = builds.clone().find(|(_, earlier)| earlier.fingerprint != fingerprint) {
            return Err(CatalogRefused::Fingerprint {
                projection: projection.clone(),
                code,
                recorded: earlier.fingerprint.clone(),
                declared: fingerprint.to_owned(),
            });
        }
        // I-12: builds are counted over obsolete versions too, so a number never comes back.
        let build = builds.next_back().map_or(1, |(last, _)| last.build + 1);
        let view = ViewId { projection: projection.clone(), version: VersionId { code, build } };
        let by = view.version;
        let fingerprint = fingerprint.to_owned();
        let mut events = vec![CatalogEvent::Scheduled { view, segments, flip, fingerprint, seed }];
        let superseded = versions
            .iter()
            .filter(|(_, state)| matches!(state.phase, Phase::Scheduled | Phase::Initializing | Phase::Failed));
        for (earlier, _) in superseded {
            let view = ViewId { projection: projection.clone(), version: *earlier };
            events.extend(self.abort_flip_to(&view, &format!("superseded by {by}")));
            events.push(CatalogEvent::CleaningUp { view, reason: CleanUpReason::Superseded { by } });
        }
        Ok(events)
    }

    fn request_flip(&self, view: &ViewId) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let phase = self.known(view)?.phase;
        let projection = &self.projections[&view.projection];
        if let Some(pending) = projection.flip {
            if pending.to == view.version {
                return Ok(vec![]);
            }
            let view = ViewId { version: pending.to, ..view.clone() };
            return Err(CatalogRefused::FlipUnderWay { view });
        }
        // Readers can leave a version that replays, but not move to one.
        if let Some(PendingReplay { requested, after, .. }) = self.known(view)?.replay
            && phase == Phase::StandingBy
        {
            return Err(CatalogRefused::ReplayUnderWay { view: view.clone(), after, requested });
        }
        match phase {
            Phase::Serving => Ok(vec![]),
            Phase::Initializing | Phase::StandingBy => {
                let from = projection.serving;
                let back = from.is_some_and(|from| view.version < from);
                let kind = if back { FlipKind::Rollback } else { FlipKind::Flip };
                Ok(vec![CatalogEvent::FlipRequested { view: view.clone(), from, kind }])
            }
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "flip to" }),
        }
    }

    fn confirm_flip(
        &self,
        view: &ViewId,
        hold: Position,
        covers: Position,
    ) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let pending = self.pending_under(view, hold)?;
        // I-6
        if covers < pending.requested {
            return Err(CatalogRefused::NotCovered { requested: pending.requested, covers });
        }
        if !self.known(view)?.may_serve() {
            return Err(CatalogRefused::NoVerdict { view: view.clone() });
        }
        Ok(vec![CatalogEvent::Flipped { view: view.clone(), from: pending.from, kind: pending.kind, covers }])
    }

    /// The flip under way to `view`, if `hold` is its present hold.
    fn pending_under(&self, view: &ViewId, hold: Position) -> Result<PendingFlip, CatalogRefused> {
        let pending = self.projections.get(&view.projection).and_then(|state| state.flip);
        pending
            .filter(|pending| pending.to == view.version && pending.hold == hold)
            .ok_or_else(|| CatalogRefused::NoFlipUnderWay { projection: view.projection.clone() })
    }

    fn clean_up(&self, view: &ViewId, reason: &CleanUpReason) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let pending = self.projections.get(&view.projection).and_then(|state| state.flip);
        match self.known(view)?.phase {
            Phase::CleaningUp => Ok(vec![]),
            // Whoever asked for a rollback in the last moment shall have it.
            Phase::StandingBy
                if *reason == CleanUpReason::StandByOver && pending.is_some_and(|flip| flip.to == view.version) =>
            {
                Err(CatalogRefused::FlipUnderWay { view: view.clone() })
            }
            phase if phase.may_become(Phase::CleaningUp) => {
                let aborted = self.abort_flip_to(view, &format!("{} is cleaned up: {reason}", view.version));
                let cleaning_up = CatalogEvent::CleaningUp { view: view.clone(), reason: reason.clone() };
                Ok(aborted.into_iter().chain([cleaning_up]).collect())
            }
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "clean up" }),
        }
    }

    fn abort_flip_to(&self, view: &ViewId, reason: &str) -> Option<CatalogEvent> {
        let pending = self.projections.get(&view.projection)?.flip?;
        (pending.to == view.version)
            .then(|| CatalogEvent::FlipAborted { view: view.clone(), reason: reason.to_owned() })
    }

    fn known(&self, view: &ViewId) -> Result<&VersionState, CatalogRefused> {
        self.version(view).ok_or_else(|| {
            let versions = self.projections.get(&view.projection).map(|state| &state.versions);
            let known = versions.into_iter().flatten().filter(|(_, state)| state.phase != Phase::Obsolete);
            CatalogRefused::NoSuchVersion { view: view.clone(), known: known.map(|(id, _)| *id).collect() }
        })
    }

    /// The fold, one event further. `position` is the event's own and `recorded` the time it was appended.
    ///
    /// # Panics
    /// When the event makes a move that [`Phase::may_become`] does not know, or would leave a projection with
    /// two serving versions (I-5): `$catalog` was not written by [`decide`](Self::decide).
    pub fn evolve(&mut self, event: &CatalogEvent, position: Position, recorded: Timestamp) {
        assert!(position > self.position, "catalog events are folded in order, each once");
        self.revision = self.revision.next();
        self.position = position;
        let view = event.view();
        let projection = self.projections.entry(view.projection.clone()).or_default();
        match event {
            CatalogEvent::Scheduled { segments, flip, fingerprint, seed, .. } => {
                projection.first.get_or_insert(position);
                let scheduled = VersionState {
                    phase: Phase::Scheduled,
                    since: recorded,
                    segments: *segments,
                    flip: *flip,
                    fingerprint: fingerprint.clone(),
                    began_at: None,
                    reason: None,
                    seed: *seed,
                    paused: false,
                    resumed_at: None,
                    verified: None,
                    verify_again: None,
                    replay: None,
                    last_replay: None,
                };
                let before = projection.versions.insert(view.version, scheduled);
                assert!(before.is_none(), "I-12: {view} was scheduled twice");
            }
            CatalogEvent::Initializing { .. } => {
                projection.enter(view.version, Phase::Initializing, recorded).began_at = Some(position);
            }
            CatalogEvent::FlipRequested { from, kind, .. } => {
                assert!(projection.flip.is_none(), "two flips of {} at once", view.projection);
                let (to, from, kind) = (view.version, *from, *kind);
                projection.flip = Some(PendingFlip { to, from, kind, requested: position, hold: position });
            }
            CatalogEvent::FlipPostponed { .. } => {
                let pending = projection.flip.as_mut().expect("only a flip under way is postponed");
                pending.hold = position;
            }
            CatalogEvent::FlipAborted { .. } => projection.flip = None,
            CatalogEvent::Flipped { from, .. } => {
                assert_eq!(projection.serving, *from, "I-5: the version that served is the one that steps back");
                if let Some(from) = from {
                    projection.enter(*from, Phase::StandingBy, recorded);
                }
                projection.enter(view.version, Phase::Serving, recorded);
                projection.serving = Some(view.version);
                projection.served.push((position, view.version));
                projection.flip = None;
            }
            CatalogEvent::CleaningUp { reason, .. } => {
                projection.enter(view.version, Phase::CleaningUp, recorded).reason = Some(reason.to_string());
            }
            CatalogEvent::Obsolete { .. } => {
                projection.enter(view.version, Phase::Obsolete, recorded);
            }
            CatalogEvent::Failed { reason, .. } => {
                projection.enter(view.version, Phase::Failed, recorded).reason = Some(reason.clone());
            }
            CatalogEvent::Paused { .. } => projection.known(view.version).paused = true,
            CatalogEvent::Resumed { .. } => {
                let state = projection.known(view.version);
                state.paused = false;
                state.resumed_at = Some(position);
            }
            CatalogEvent::Verified { verdict, report, .. } => {
                let (verdict, report, waived) = (*verdict, Arc::clone(report), None);
                let state = projection.known(view.version);
                state.verified = Some(Verified { position, verdict, report, waived });
                state.verify_again = None;
            }
            CatalogEvent::VerificationRequested { .. } => {
                projection.known(view.version).verify_again = Some(position);
            }
            CatalogEvent::Waived { by, why, .. } => {
                let verified = projection.known(view.version).verified.as_mut();
                verified.expect("only a verdict is waived").waived = Some((by.clone(), why.clone()));
            }
            CatalogEvent::ReplayRequested { after, rows, .. } => {
                let pending = PendingReplay { requested: position, after: *after, rows: *rows };
                let state = projection.known(view.version);
                state.last_replay = Some(pending);
                let before = state.replay.replace(pending);
                assert!(before.is_none(), "two replays of {view} at once");
            }
            CatalogEvent::ReplayEnded { .. } => projection.known(view.version).replay = None,
        }
    }
}

impl ProjectionState {
    fn known(&mut self, version: VersionId) -> &mut VersionState {
        self.versions.get_mut(&version).expect("a version is scheduled before anything happens to it")
    }

    /// The one place where a phase is written.
    fn enter(&mut self, version: VersionId, next: Phase, recorded: Timestamp) -> &mut VersionState {
        let state = self.known(version);
        assert!(state.phase.may_become(next), "{version} may not become {next} from {}", state.phase);
        state.phase = next;
        state.since = recorded;
        state
    }
}

#[cfg(test)]
mod tests;
