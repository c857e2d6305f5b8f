//! What is asked of the catalog.

use std::sync::Arc;

use crate::catalog::{CleanUpReason, FlipPolicy};
use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::name::ProjectionName;
use crate::position::Position;
use crate::reads::Reads;
use crate::rebuild::Code;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::verify::{Report, Verdict};
use crate::version::ViewId;

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
        /// What the code reads.
        reads: Reads,
        /// Whether it begins as a copy of the view that serves.
        seeded: bool,
        /// Only if no build of this code or of later code is known: of nodes that find new code at the same time, one has
        /// it built.
        if_new: bool,
    },
    /// The code of a version shall read more types, of which the journal has no event yet.
    AnnounceReads {
        /// The code.
        code: Code,
        /// Through where the journal was found to have none.
        checked: Position,
    },
    /// The journal was looked through to the announcement.
    SettleReads {
        /// The version of the announcement.
        view: ViewId,
        /// Its position, so that a late decision never answers for a later one.
        announced: Position,
        /// The first event of the added types, if there is one.
        found: Option<(String, Position)>,
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
    /// Give up the requested flip to a version.
    CancelFlip(ViewId),
    /// Give up a version that has not served.
    CancelRebuild(ViewId),
    /// Let a version stand by again whose view is not being dropped yet.
    CancelCleanUp(ViewId),
    /// Give up the replay of a version.
    CancelReplay(ViewId),
    /// Set the event aside at which a segment halts.
    SetAside {
        /// Which version.
        view: ViewId,
        /// The event.
        event: Position,
    },
    /// Decide about dead letters or effects of a version.
    DecideLetters {
        /// Which version.
        view: ViewId,
        /// Of what.
        of: LettersOf,
        /// Which of them.
        which: WhichLetters,
        /// What shall be done.
        wish: Wish,
    },
    /// Drop the view of a version that does not serve.
    CleanUp {
        /// Which version.
        view: ViewId,
        /// Why.
        reason: CleanUpReason,
    },
    /// Drop the view now: whoever drops it asks for this first, so that a clean-up is cancelled in time or not at all.
    BeginDrop(ViewId),
    /// The view has been dropped.
    FinishCleanUp(ViewId),
    /// The version cannot be built.
    Fail {
        /// Which version.
        view: ViewId,
        /// Why not.
        reason: String,
    },
    /// Its view reaches beyond the journal.
    Part {
        /// Which version.
        view: ViewId,
        /// Through here both histories are known to be the same.
        same_through: Position,
        /// The first position that differs is at most this.
        differs_at: Position,
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

impl CatalogCommand {
    /// The version that it is about, where that is known before it is decided.
    pub fn view(&self) -> Option<&ViewId> {
        match self {
            Self::Schedule { .. } | Self::AnnounceReads { .. } => None,
            Self::SettleReads { view, .. }
            | Self::Begin(view)
            | Self::RequestFlip(view)
            | Self::ConfirmFlip { view, .. }
            | Self::PostponeFlip { view, .. }
            | Self::CancelFlip(view)
            | Self::CancelRebuild(view)
            | Self::CancelCleanUp(view)
            | Self::CancelReplay(view)
            | Self::SetAside { view, .. }
            | Self::DecideLetters { view, .. }
            | Self::CleanUp { view, .. }
            | Self::BeginDrop(view)
            | Self::FinishCleanUp(view)
            | Self::Fail { view, .. }
            | Self::Part { view, .. }
            | Self::Pause(view)
            | Self::Resume(view)
            | Self::RequestVerification(view)
            | Self::Verify { view, .. }
            | Self::Waive { view, .. }
            | Self::RequestReplay { view, .. }
            | Self::EndReplay { view, .. } => Some(view),
        }
    }
}
