//! What the catalog knows: the fold of `$catalog`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{CatalogCommand, FlipKind, FlipPolicy};
use crate::journal::Parted;
use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::planted::{self, Fault};
use crate::position::{Position, Revision};
use crate::reads::{Announced, Reads, Unlike};
use crate::rebuild::Code;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::verify::{Report, Verdict};
use crate::version::{VersionId, ViewId};

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
    /// Whether somebody cancelled a flip to it, so that it flips on command only, also if nothing serves.
    pub flip_cancelled: bool,
    /// What its code declared.
    pub fingerprint: String,
    /// What its code reads; `None` while no code was carried since an earlier release scheduled it.
    pub reads: Option<Reads>,
    /// What a newer code of its number shall read, until that is decided.
    pub announced: Option<Announced>,
    /// Where the catalog last said something of what it reads.
    pub reads_at: Option<Position>,
    /// Where its building began: events through here are the past that it replays.
    pub began_at: Option<Position>,
    /// Why it failed or is cleaned up.
    pub reason: Option<String>,
    /// The version whose view it begins as a copy of.
    pub seed: Option<VersionId>,
    /// How its view and this journal have parted, if it was found to reach beyond the journal once. It is never of this
    /// journal again.
    pub parted: Option<Parted>,
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
    /// In which phase its clean-up was asked for, and the reason of that phase: where it goes if the clean-up is cancelled.
    pub cleaned_from: Option<(Phase, Option<String>)>,
    /// Whether its view is being dropped, so that a clean-up cannot be cancelled any more.
    pub dropping: bool,
    /// Events that somebody wants set aside, should they be refused.
    pub set_aside: Arc<BTreeSet<Position>>,
    /// The last one that was requested, also when it has ended: a view that lost its last commits takes it up again.
    pub last_replay: Option<PendingReplay>,
    /// Where it was asked for first that events are applied later than they came, or never: dead letters were retried or
    /// dropped, or events went through it again although its rows stayed.
    pub late: Option<Position>,
}

impl VersionState {
    /// In what code with so many segments that reads this is unlike what was recorded of the version; `None` as well
    /// where nothing was.
    pub fn unlike(&self, segments: SegmentCount, reads: &Reads) -> Option<Unlike> {
        if let Some(announced) = &self.announced {
            return Some(Unlike::Undecided { announced: announced.position });
        }
        if self.segments != segments {
            return Some(Unlike::Segments { recorded: self.segments, declared: segments });
        }
        let unlike = reads.unlike(self.reads.as_ref()?);
        unlike.filter(|found| !(planted::is(Fault::Unread) && matches!(found, Unlike::Missing(_))))
    }

    /// Its code, as far as a new build of it needs to know; `None` of what an earlier release scheduled.
    pub fn code(&self, projection: &ProjectionName, code: u32) -> Option<Code> {
        Some(Code {
            projection: projection.clone(),
            code,
            segments: self.segments,
            // Somebody may have cancelled its flip, which is no policy of the code.
            flip: if self.flip_cancelled { FlipPolicy::OnCommand } else { self.flip },
            stand_by: Duration::ZERO,
            fingerprint: self.fingerprint.clone(),
            reads: self.reads.clone()?,
            seeded: false,
        })
    }

    /// Whether it is being built, or is about to.
    pub fn is_built(&self) -> bool {
        matches!(self.phase, Phase::Scheduled | Phase::Initializing)
    }

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
    /// Whether somebody cancelled it.
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
    /// The mark under which the old version is held: the position of the request, or of the last
    /// postponement. Each try has a mark of its own.
    pub hold: Position,
}

/// What is given up before it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The flip to a version that was requested, or comes by itself.
    Flip,
    /// The building of a version that has not served.
    Rebuild,
    /// The clean-up of a version.
    CleanUp,
    /// The replay in place of a version.
    Replay,
}

impl Cancel {
    /// The command for `view`.
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
    /// Whether the version has served at some time.
    pub fn has_served(&self, version: VersionId) -> bool {
        self.served.iter().any(|(_, served)| *served == version)
    }

    /// The versions that a new build would discard although they are found right and only have to be flipped to.
    pub fn would_discard(&self) -> impl Iterator<Item = VersionId> {
        let ready = |state: &VersionState| state.phase == Phase::Initializing && state.may_serve();
        self.versions.iter().filter(move |(_, state)| ready(state)).map(|(id, _)| *id)
    }

    /// Whether a version of this projection flips once it is ready, without a command.
    pub fn flips_by_itself(&self, version: &VersionState) -> bool {
        version.flip == FlipPolicy::WhenReady || (self.serving.is_none() && !version.flip_cancelled)
    }

    /// The version that is being built, or is about to, and flips without a command.
    pub fn flips_next(&self) -> Option<VersionId> {
        let flips = |state: &VersionState| state.is_built() && self.flips_by_itself(state);
        self.versions.iter().rfind(|(_, state)| flips(state)).map(|(id, _)| *id)
    }

    /// Whether a version that is cleaned up could go back to where it was: at most one is being built.
    pub(super) fn may_come_back(&self, version: VersionId) -> bool {
        let was_built =
            matches!(self.versions[&version].cleaned_from, Some((Phase::Scheduled | Phase::Initializing, _)));
        !was_built || !self.versions.values().any(VersionState::is_built)
    }

    /// What could be cancelled now.
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

    /// The newest build of a code version, be it obsolete.
    pub fn newest_build(&self, projection: &ProjectionName, code: u32) -> Option<(VersionId, &VersionState)> {
        let versions = &self.projections.get(projection)?.versions;
        versions.iter().filter(|(id, _)| id.code == code).map(|(id, state)| (*id, state)).next_back()
    }

    /// In what this code is unlike what was recorded for its number. `None` where it may run: it is the same, or nothing
    /// was recorded yet.
    pub fn unlike(&self, code: &Code) -> Option<Unlike> {
        let (_, state) = self.newest_build(&code.projection, code.code)?;
        state.unlike(code.segments, &code.reads)
    }

    /// What a node with this code must have recorded before it runs: the version was scheduled by a release that did not
    /// say what its code reads.
    pub fn lacks_reads(&self, code: &Code) -> bool {
        self.newest_build(&code.projection, code.code).is_some_and(|(_, state)| state.reads.is_none())
    }

    /// Whether this code is later than all that was ever scheduled. What is not is carried for the sake of versions that
    /// exist, not to be built anew.
    pub fn is_new(&self, projection: &ProjectionName, code: u32) -> bool {
        let versions = self.projections.get(projection).map(|state| &state.versions);
        versions.is_none_or(|versions| versions.keys().all(|known| known.code < code))
    }

    /// The newest build of each code that shall read more types, while that is not decided.
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

    /// Every version that is not obsolete, with its state.
    pub fn versions(&self) -> impl Iterator<Item = (ViewId, &VersionState)> {
        self.projections.iter().flat_map(|(projection, state)| {
            let views = state.versions.iter().filter(|(_, version)| version.phase != Phase::Obsolete);
            views.map(move |(id, version)| (ViewId { projection: projection.clone(), version: *id }, version))
        })
    }
}
