//! The state of the catalog: the fold of `$catalog`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::CatalogCommand;
use crate::journal::Parted;
use crate::letter::LettersOf;
use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::position::{Position, Revision};
use crate::reads::{Announcement, CodeMismatch, Reads};
use crate::rebuild::Code;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::verify::{Report, Verdict};
use crate::version::{VersionId, ViewId};

/// The moment at which a version that is ready becomes the serving one. The first version of a projection flips by
/// itself under either policy, because there is nothing it could replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlipPolicy {
    /// As soon as it is ready.
    #[default]
    WhenReady,
    /// When an operator requests it.
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

impl fmt::Display for FlipKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flip => "flip",
            Self::Rollback => "rollback",
        })
    }
}

/// The reason why a version is cleaned up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CleanUpReason {
    /// Its stand-by is over.
    StandByOver,
    /// A later version was scheduled before it served.
    Superseded {
        /// The later version.
        by: VersionId,
    },
    /// An operator requested it.
    Asked,
    /// An operator cancelled its rebuild.
    Cancelled,
}

impl fmt::Display for CleanUpReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandByOver => f.write_str("its stand-by is over"),
            Self::Superseded { by } => write!(f, "superseded by {by}"),
            Self::Asked => f.write_str("asked for"),
            Self::Cancelled => f.write_str("its rebuild was cancelled"),
        }
    }
}

/// The state of one version in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionState {
    /// Its phase.
    pub phase: Phase,
    /// The time at which it entered that phase.
    pub since: Timestamp,
    /// Its number of segments.
    pub segments: SegmentCount,
    /// The moment of its flip.
    pub flip: FlipPolicy,
    /// True if an operator cancelled a flip to it. It then flips only on command, even if no version serves.
    pub flip_cancelled: bool,
    /// The code's declaration about itself.
    pub fingerprint: String,
    /// The events that its code reads; `None` if an earlier release scheduled the version and no node has carried its
    /// code since.
    pub reads: Option<Reads>,
    /// The events that a newer code of its number shall read, until that is decided.
    pub announced: Option<Announcement>,
    /// The position of the last catalog event about what it reads.
    pub reads_at: Option<Position>,
    /// The position at which its building began. Events through here are the past that it replays.
    pub began_at: Option<Position>,
    /// The reason why it failed or is cleaned up.
    pub reason: Option<String>,
    /// The version whose view it copies at its start.
    pub seed: Option<VersionId>,
    /// The difference between its view's history and this journal, if the view was ever found to reach beyond the
    /// journal. Such a view never belongs to this journal again.
    pub parted: Option<Parted>,
    /// True if no events are applied to its view.
    pub paused: bool,
    /// The position at which it was resumed last.
    pub resumed_at: Option<Position>,
    /// The result of its last verification.
    pub verified: Option<Verified>,
    /// The position of a request for a new verification that is still pending. Until it is done, the verdict does not
    /// count.
    pub verify_again: Option<Position>,
    /// The replay in place under way.
    pub replay: Option<PendingReplay>,
    /// The phase in which its clean-up was requested, and the reason of that phase: the state to return to if the
    /// clean-up is cancelled.
    pub cleaned_from: Option<(Phase, Option<String>)>,
    /// True if its view is being dropped, so that a clean-up can no longer be cancelled.
    pub dropping: bool,
    /// Events that an operator wants set aside if they are refused.
    pub set_aside: Arc<BTreeSet<Position>>,
    /// The last replay that was requested, even if it has ended: a view that lost its last commits replays again.
    pub last_replay: Option<PendingReplay>,
    /// The position of the first request through which events are applied later than they arrived, or never: a retry
    /// or drop of dead letters, or a replay that kept the rows.
    pub late: Option<Position>,
}

impl VersionState {
    /// Returns how code with this number of segments that reads these events differs from what the catalog recorded
    /// for the version. Returns `None` if there is no difference, or if nothing was recorded.
    pub fn unlike(&self, segments: SegmentCount, reads: &Reads) -> Option<CodeMismatch> {
        if let Some(announced) = &self.announced {
            return Some(CodeMismatch::Undecided { announced: announced.position });
        }
        if self.segments != segments {
            return Some(CodeMismatch::Segments { recorded: self.segments, declared: segments });
        }
        reads.unlike(self.reads.as_ref()?)
    }

    /// Returns its code, as far as a new build needs it; `None` if an earlier release scheduled the version.
    pub fn code(&self, projection: &ProjectionName, code: u32) -> Option<Code> {
        Some(Code {
            projection: projection.clone(),
            code,
            segments: self.segments,
            // An operator may have cancelled its flip, which is not a policy of the code.
            flip: if self.flip_cancelled { FlipPolicy::OnCommand } else { self.flip },
            stand_by: Duration::ZERO,
            fingerprint: self.fingerprint.clone(),
            reads: self.reads.clone()?,
            seeded: false,
        })
    }

    /// Returns true if it can still have letters of this kind: dead letters while events are applied to it, effects as
    /// long as it exists.
    pub fn may_have(&self, of: LettersOf) -> bool {
        match of {
            LettersOf::Events => self.phase.applies(),
            LettersOf::Effects => self.phase != Phase::Obsolete,
        }
    }

    /// Returns true if it is being built, or is about to be.
    pub fn is_built(&self) -> bool {
        matches!(self.phase, Phase::Scheduled | Phase::Initializing)
    }

    /// Returns true if a verification is pending: there is none yet, or a new one was requested.
    pub fn is_unverified(&self) -> bool {
        self.phase == Phase::Initializing && (self.verified.is_none() || self.verify_again.is_some())
    }

    /// Returns true if the verdict lets it serve. A version that has served needs no verdict.
    pub fn may_serve(&self) -> bool {
        let lets_serve = self.verified.as_ref().is_some_and(Verified::lets_serve);
        self.phase != Phase::Initializing || (self.verify_again.is_none() && lets_serve)
    }
}

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The position of the result in the catalog.
    pub position: Position,
    /// The verdict.
    pub verdict: Verdict,
    /// The report.
    pub report: Arc<Report>,
    /// The operator who waived the verdict, and the reason.
    pub waived: Option<(String, String)>,
}

impl Verified {
    /// Returns true if the version may serve.
    pub fn lets_serve(&self) -> bool {
        self.verdict == Verdict::Pass || self.waived.is_some()
    }
}

/// A replay in place that was requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingReplay {
    /// The position of the request, which names it.
    pub requested: Position,
    /// The position after which events go through the version again.
    pub after: Position,
    /// The treatment of the rows that the replayed events made before.
    pub rows: ReplayRows,
    /// True if an operator cancelled it.
    pub cancelled: bool,
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
    /// The mark of the hold on the old version: the position of the request, or of the last postponement. Each try
    /// has a mark of its own.
    pub hold: Position,
}

/// A change that can be cancelled before it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The flip to a version that was requested, or that happens by itself.
    Flip,
    /// The building of a version that has not served.
    Rebuild,
    /// The clean-up of a version.
    CleanUp,
    /// The replay in place of a version.
    Replay,
}

impl Cancel {
    /// Returns the command that cancels it for `view`.
    pub fn of(self, view: ViewId) -> CatalogCommand {
        match self {
            Self::Flip => CatalogCommand::CancelFlip(view),
            Self::Rebuild => CatalogCommand::CancelRebuild(view),
            Self::CleanUp => CatalogCommand::CancelCleanUp(view),
            Self::Replay => CatalogCommand::CancelReplay(view),
        }
    }
}

impl fmt::Display for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flip => "the flip to",
            Self::Rebuild => "the rebuild of",
            Self::CleanUp => "the clean-up of",
            Self::Replay => "the replay of",
        })
    }
}

/// The state of one projection in the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectionState {
    /// Every version that ever existed.
    pub versions: BTreeMap<VersionId, VersionState>,
    /// The version that answers queries (I-5).
    pub serving: Option<VersionId>,
    /// The flip under way.
    pub flip: Option<PendingFlip>,
    /// The position at which its first version was scheduled.
    pub first: Option<Position>,
    /// Every flip that ever happened: its position, and the version that serves from there on.
    pub served: Vec<(Position, VersionId)>,
    /// The position that every segment of the serving version covered when readers moved to it. No reader is answered
    /// from a state before it, so that none goes back at a flip, even if a view loses commits later (I-7).
    pub evidence: Position,
}

impl ProjectionState {
    /// Returns true if the version has served at some time.
    pub fn has_served(&self, version: VersionId) -> bool {
        self.served.iter().any(|(_, served)| *served == version)
    }

    /// Returns the versions that a new build would discard although they passed verification and only need a flip.
    pub fn would_discard(&self) -> impl Iterator<Item = VersionId> {
        let ready = |state: &VersionState| state.phase == Phase::Initializing && state.may_serve();
        self.versions.iter().filter(move |(_, state)| ready(state)).map(|(id, _)| *id)
    }

    /// Returns true if a version of this projection flips without a command once it is ready.
    pub fn flips_by_itself(&self, version: &VersionState) -> bool {
        version.flip == FlipPolicy::WhenReady || (self.serving.is_none() && !version.flip_cancelled)
    }

    /// Returns the direction of a move of readers to this version.
    pub fn kind_of_flip(&self, to: VersionId) -> FlipKind {
        if self.serving.is_some_and(|from| to < from) { FlipKind::Rollback } else { FlipKind::Flip }
    }

    /// Returns the mark of the present hold on a version: that of the flip away from it which is under way.
    pub fn hold_on(&self, version: VersionId) -> Option<Position> {
        self.flip.filter(|flip| flip.from == Some(version)).map(|flip| flip.hold)
    }

    /// Returns true if a flip is under way that a version with a verdict must not delay by waiting for the old version,
    /// which may be slow. A version without a verdict may need that wait for its verdict.
    pub fn flips_before(&self, version: VersionId) -> bool {
        self.flip.is_some() && self.versions.get(&version).is_none_or(VersionState::may_serve)
    }

    /// Returns the version that is being built, or is about to be, and flips without a command.
    pub fn flips_next(&self) -> Option<VersionId> {
        let flips = |state: &VersionState| state.is_built() && self.flips_by_itself(state);
        self.versions.iter().rfind(|(_, state)| flips(state)).map(|(id, _)| *id)
    }

    /// Returns true if a version that is cleaned up could return to its former phase: at most one is being built.
    pub(super) fn may_come_back(&self, version: VersionId) -> bool {
        let was_built =
            matches!(self.versions[&version].cleaned_from, Some((Phase::Scheduled | Phase::Initializing, _)));
        !was_built || !self.versions.values().any(VersionState::is_built)
    }

    /// Returns the changes that could be cancelled now.
    pub fn cancellable(&self) -> Vec<(Cancel, VersionId)> {
        let of_version = |(id, state): (&VersionId, &VersionState)| {
            let is_built = matches!(state.phase, Phase::Scheduled | Phase::Initializing | Phase::Failed);
            let comes_back = state.phase == Phase::CleaningUp && !state.dropping && self.may_come_back(*id);
            let replays = state.phase.applies() && state.replay.is_some_and(|replay| !replay.cancelled);
            let what = [(is_built, Cancel::Rebuild), (comes_back, Cancel::CleanUp), (replays, Cancel::Replay)];
            what.into_iter().filter(|(may, _)| *may).map(|(_, what)| (what, *id)).collect::<Vec<_>>()
        };
        let flip = self.flip.map(|flip| (Cancel::Flip, flip.to));
        flip.into_iter().chain(self.versions.iter().flat_map(of_version)).collect()
    }

    /// Returns the version for which such a cancellation would be too late, if no change of this kind can be cancelled
    /// now. `None` stands for any kind.
    pub fn too_late_for(&self, what: Option<Cancel>) -> Option<VersionId> {
        match what {
            Some(Cancel::Flip) => self.flips_next().or(self.serving),
            Some(Cancel::CleanUp) => self.newest(|state| state.phase == Phase::CleaningUp),
            Some(Cancel::Rebuild | Cancel::Replay) | None => self.serving,
        }
    }

    /// Returns the version that a question about a verification means: the newest one that is being built, or else the
    /// newest one that was verified.
    pub fn verification_target(&self) -> Option<VersionId> {
        let built = self.newest(|state| state.phase == Phase::Initializing);
        built.or_else(|| self.newest(|state| state.verified.is_some()))
    }

    fn newest(&self, wanted: impl Fn(&VersionState) -> bool) -> Option<VersionId> {
        self.versions.iter().rev().find(|(_, state)| wanted(state)).map(|(id, _)| *id)
    }

    /// Returns the version that a plain `flip` moves to: the newest one above the serving one that is being built or
    /// stands by.
    pub fn flip_target(&self) -> Option<VersionId> {
        self.candidates(|version| self.serving.is_none_or(|serving| version > serving)).next_back()
    }

    /// Returns the version that a plain `rollback` moves to: of those below the serving one that stand by, the one
    /// that served last.
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
    /// Every projection that ever existed.
    pub projections: BTreeMap<ProjectionName, ProjectionState>,
    /// The revision of `$catalog` that this fold includes. A change is appended with exactly this expected revision.
    pub revision: Revision,
    /// The position of the last event folded.
    pub position: Position,
}

impl Catalog {
    /// Returns the state of one version.
    pub fn version(&self, view: &ViewId) -> Option<&VersionState> {
        self.projections.get(&view.projection)?.versions.get(&view.version)
    }

    /// Returns the version of `projection` that answers queries.
    pub fn serving(&self, projection: &ProjectionName) -> Option<VersionId> {
        self.projections.get(projection)?.serving
    }

    /// Returns the newest build of a code version, even if it is obsolete.
    pub fn newest_build(&self, projection: &ProjectionName, code: u32) -> Option<(VersionId, &VersionState)> {
        let versions = &self.projections.get(projection)?.versions;
        versions.iter().filter(|(id, _)| id.code == code).map(|(id, state)| (*id, state)).next_back()
    }

    /// Returns how this code differs from what was recorded for its number. Returns `None` if it may run: it is the
    /// same, or nothing was recorded yet.
    pub fn unlike(&self, code: &Code) -> Option<CodeMismatch> {
        let (_, state) = self.newest_build(&code.projection, code.code)?;
        state.unlike(code.segments, &code.reads)
    }

    /// Returns the reason why this code gets no work. An open decision is made soon, and prevents none.
    pub fn barred(&self, code: &Code) -> Option<CodeMismatch> {
        self.unlike(code).filter(|unlike| !matches!(unlike, CodeMismatch::Undecided { .. }))
    }

    /// Returns true if a node with this code must record what the code reads before it runs: the version was
    /// scheduled by a release that did not record it.
    pub fn lacks_reads(&self, code: &Code) -> bool {
        self.newest_build(&code.projection, code.code).is_some_and(|(_, state)| state.reads.is_none())
    }

    /// Returns true if this code is later than every code that was ever scheduled. Other code is carried for versions
    /// that exist, not to be built again.
    pub fn is_new(&self, projection: &ProjectionName, code: u32) -> bool {
        let versions = self.projections.get(projection).map(|state| &state.versions);
        versions.is_none_or(|versions| versions.keys().all(|known| known.code < code))
    }

    /// Returns the newest build of each code that shall read more types, while that is not decided.
    pub fn announced(&self) -> impl Iterator<Item = (ViewId, &VersionState)> {
        self.projections.iter().flat_map(|(projection, state)| {
            let announced = state.versions.iter().filter(|(_, version)| version.announced.is_some());
            let is_newest = |id: &VersionId| {
                let later = VersionId { build: id.build + 1, ..*id };
                !state.versions.contains_key(&later)
            };
            let newest = announced.filter(move |(id, _)| is_newest(id));
            newest.map(move |(id, version)| (ViewId { projection: projection.clone(), version: *id }, version))
        })
    }

    /// Returns every version that is not obsolete, with its state.
    pub fn versions(&self) -> impl Iterator<Item = (ViewId, &VersionState)> {
        self.projections.iter().flat_map(|(projection, state)| {
            let views = state.versions.iter().filter(|(_, version)| version.phase != Phase::Obsolete);
            views.map(move |(id, version)| (ViewId { projection: projection.clone(), version: *id }, version))
        })
    }
}
