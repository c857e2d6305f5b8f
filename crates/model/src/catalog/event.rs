//! What has happened in the catalog.

use std::fmt;
use std::sync::Arc;

use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::position::Position;
use crate::reads::Reads;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
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
    /// Somebody cancelled its rebuild.
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
        /// What its code reads; unknown of those that an earlier release scheduled.
        reads: Option<Reads>,
        /// The version whose view it begins as a copy of.
        seed: Option<VersionId>,
    },
    /// A node carries code of this number that reads more types, of which the journal has no event through `checked`.
    /// Until that is decided nothing is committed past the position of this event.
    ReadsAnnounced {
        /// The newest build of the code, for all of them.
        view: ViewId,
        /// What the code reads.
        reads: Reads,
        /// Through where the journal was looked through.
        checked: Position,
    },
    /// What the code of this number reads from here on, for all builds of it. Code that reads less gets no segments.
    ReadsRecorded {
        /// The newest build of the code.
        view: ViewId,
        /// What the code reads.
        reads: Reads,
    },
    /// The announced code may not run: the journal has events of the added types.
    ReadsDeclined {
        /// The newest build of the code.
        view: ViewId,
        /// The type of the first of them, and its position.
        found: (String, Position),
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
    /// Somebody cancelled the requested flip. The version flips on command only from here on.
    FlipCancelled {
        /// The version that would have served.
        view: ViewId,
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
    /// The view is dropped from here on: its clean-up cannot be cancelled any more (I-12).
    Dropping {
        /// Which version.
        view: ViewId,
    },
    /// Its clean-up was cancelled before anything was dropped: it stands by again.
    CleanUpCancelled {
        /// Which version.
        view: ViewId,
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
    /// Its view was found to reach beyond the journal, so it is made from a history that is there no more. Whatever gets
    /// those positions from here on is not in it: it is neither shown nor applied to again (I-3).
    Parted {
        /// Which version.
        view: ViewId,
        /// Through here both histories are known to be the same.
        same_through: Position,
        /// The first position that differs is at most this.
        differs_at: Position,
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
    /// Somebody cancelled the replay under way: segments go on from where they were when they went back.
    ReplayCancelled {
        /// Which version.
        view: ViewId,
    },
    /// The event shall be set aside as a dead letter, should its handler refuse it once more.
    SetAside {
        /// Which version.
        view: ViewId,
        /// The event at which a segment halts.
        event: Position,
    },
    /// Somebody decided about dead letters or effects of the version.
    LettersDecided {
        /// Which version.
        view: ViewId,
        /// Of what.
        of: LettersOf,
        /// Which of them.
        which: WhichLetters,
        /// What shall be done.
        wish: Wish,
    },
    /// Every segment of the version is where it was when it went back.
    ReplayEnded {
        /// Which version.
        view: ViewId,
    },
    /// Somebody asked, under a key, for what was so already. Nothing changed, and nothing will when it is asked again
    /// under that key, which belongs to this request from here on.
    NothingToDo {
        /// Which version.
        view: ViewId,
    },
}

impl CatalogEvent {
    /// The version that the event is about.
    pub fn view(&self) -> &ViewId {
        match self {
            Self::Scheduled { view, .. }
            | Self::ReadsAnnounced { view, .. }
            | Self::ReadsRecorded { view, .. }
            | Self::ReadsDeclined { view, .. }
            | Self::Initializing { view }
            | Self::FlipRequested { view, .. }
            | Self::FlipPostponed { view }
            | Self::FlipAborted { view, .. }
            | Self::Flipped { view, .. }
            | Self::CleaningUp { view, .. }
            | Self::Dropping { view }
            | Self::CleanUpCancelled { view }
            | Self::FlipCancelled { view }
            | Self::ReplayCancelled { view }
            | Self::SetAside { view, .. }
            | Self::LettersDecided { view, .. }
            | Self::Obsolete { view }
            | Self::Failed { view, .. }
            | Self::Parted { view, .. }
            | Self::Paused { view }
            | Self::Resumed { view }
            | Self::Verified { view, .. }
            | Self::VerificationRequested { view }
            | Self::Waived { view, .. }
            | Self::ReplayRequested { view, .. }
            | Self::NothingToDo { view }
            | Self::ReplayEnded { view } => view,
        }
    }
}
