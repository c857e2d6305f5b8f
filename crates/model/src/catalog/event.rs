//! Events of the catalog: the changes that have happened.

use std::fmt;
use std::sync::Arc;

use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::position::Position;
use crate::reads::Reads;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
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

/// A change of the catalog that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogEvent {
    /// A version exists.
    Scheduled {
        /// The version.
        view: ViewId,
        /// Its number of segments, fixed from here on.
        segments: SegmentCount,
        /// The moment of its flip.
        flip: FlipPolicy,
        /// The code's declaration about itself. The same version number never has another one.
        fingerprint: String,
        /// The events that its code reads; `None` if an earlier release scheduled the version.
        reads: Option<Reads>,
        /// The version whose view the new one copies at its start.
        seed: Option<VersionId>,
    },
    /// A node carries code of this number that reads more types, of which the journal has no event through `checked`.
    /// Until this is decided, no commit passes the position of this event.
    ReadsAnnounced {
        /// The newest build of the code. It stands for all builds.
        view: ViewId,
        /// The events that the code reads.
        reads: Reads,
        /// The position through which the journal was searched.
        checked: Position,
    },
    /// The events that the code of this number reads from here on, in all its builds. Code that reads less gets no
    /// segments.
    ReadsRecorded {
        /// The newest build of the code.
        view: ViewId,
        /// The events that the code reads.
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
        /// The version.
        view: ViewId,
    },
    /// Readers shall move to `view`. The position of this event is the F of the flip protocol.
    FlipRequested {
        /// The version to serve.
        view: ViewId,
        /// The version that serves.
        from: Option<VersionId>,
        /// The direction.
        kind: FlipKind,
    },
    /// The hold of the requested flip has exceeded its budget. The flip is tried again under a new hold. A hold is
    /// lifted only after this event, [`Flipped`](Self::Flipped) or [`FlipAborted`](Self::FlipAborted), so that no
    /// controller can confirm on evidence that another one has given up.
    FlipPostponed {
        /// The version that will serve.
        view: ViewId,
    },
    /// The requested flip will not happen.
    FlipAborted {
        /// The version that would have served.
        view: ViewId,
        /// The reason.
        reason: String,
    },
    /// An operator cancelled the requested flip. From here on the version flips only on command.
    FlipCancelled {
        /// The version that would have served.
        view: ViewId,
    },
    /// Readers have moved to `view`. This event is the flip itself (I-5).
    Flipped {
        /// The version that serves from here on.
        view: ViewId,
        /// The version that served until here and stands by from here on.
        from: Option<VersionId>,
        /// The direction.
        kind: FlipKind,
        /// The evidence: every segment of `view` covers this position, and no reader ever saw anything later (I-6).
        covers: Position,
    },
    /// The view is being dropped.
    CleaningUp {
        /// The version.
        view: ViewId,
        /// The reason.
        reason: CleanUpReason,
    },
    /// The view is dropped from here on: its clean-up can no longer be cancelled (I-12).
    Dropping {
        /// The version.
        view: ViewId,
    },
    /// Its clean-up was cancelled before anything was dropped: it stands by again.
    CleanUpCancelled {
        /// The version.
        view: ViewId,
    },
    /// The view is gone (I-12).
    Obsolete {
        /// The version.
        view: ViewId,
    },
    /// The version cannot be built.
    Failed {
        /// The version.
        view: ViewId,
        /// The reason.
        reason: String,
    },
    /// Its view reaches beyond the journal: it was made from a history that no longer exists. Events that get those
    /// positions from now on are not in the view. The view is not shown, and no events are applied to it (I-3).
    Parted {
        /// The version.
        view: ViewId,
        /// The position through which both histories are known to be the same.
        same_through: Position,
        /// An upper bound of the first position that differs.
        differs_at: Position,
    },
    /// No events are applied to its view until it is resumed.
    Paused {
        /// The version.
        view: ViewId,
    },
    /// Events are applied again, and everything that halts is retried at once.
    Resumed {
        /// The version.
        view: ViewId,
    },
    /// It was verified.
    Verified {
        /// The version.
        view: ViewId,
        /// The verdict.
        verdict: Verdict,
        /// The report.
        report: Arc<Report>,
    },
    /// The version shall be verified again. Its verdict counts no longer.
    VerificationRequested {
        /// The version.
        view: ViewId,
    },
    /// An operator takes responsibility for a version that did not pass its verification.
    Waived {
        /// The version.
        view: ViewId,
        /// The operator.
        by: String,
        /// The reason.
        why: String,
    },
    /// Past events shall be replayed through the version again, in its own view. The position of this event
    /// identifies the replay.
    ReplayRequested {
        /// The version.
        view: ViewId,
        /// The position after which events are replayed.
        after: Position,
        /// The treatment of the rows that the replayed events made before.
        rows: ReplayRows,
    },
    /// An operator cancelled the replay. Segments continue from where they were when they went back.
    ReplayCancelled {
        /// The version.
        view: ViewId,
    },
    /// The event shall be set aside as a dead letter if its handler refuses it again.
    SetAside {
        /// The version.
        view: ViewId,
        /// The event at which a segment halts.
        event: Position,
    },
    /// An operator decided about dead letters or effects of the version.
    LettersDecided {
        /// The version.
        view: ViewId,
        /// The kind: events or effects.
        of: LettersOf,
        /// The selection of letters.
        which: WhichLetters,
        /// The decision.
        wish: Wish,
    },
    /// Every segment of the version has reached the position at which it went back.
    ReplayEnded {
        /// The version.
        view: ViewId,
    },
    /// A request with an idempotency key asked for a state that already existed. Nothing changed. The key belongs to
    /// this request from here on, so a retry under it changes nothing either.
    NothingToDo {
        /// The version.
        view: ViewId,
    },
}

impl CatalogEvent {
    /// Returns the version that the event is about.
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
