//! Commands to the catalog.

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

/// A requested change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogCommand {
    /// Schedules a new build of the code version `code`.
    Schedule {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// Its number of segments.
        segments: SegmentCount,
        /// The moment of its flip.
        flip: FlipPolicy,
        /// The code's declaration about itself: its fingerprint.
        fingerprint: String,
        /// The events that the code reads.
        reads: Reads,
        /// True if the version begins as a copy of the view that serves.
        seeded: bool,
        /// True if the version is scheduled only when no build of this code or of later code is known. Of nodes that
        /// find new code at the same time, one has it built.
        if_new: bool,
    },
    /// Announces that the code of a version shall read more types, of which the journal has no event yet.
    AnnounceReads {
        /// The code.
        code: Code,
        /// The position through which the journal was found to have none.
        checked: Position,
    },
    /// Reports that the journal was searched through the position of the announcement.
    SettleReads {
        /// The version of the announcement.
        view: ViewId,
        /// The position of the announcement, so that a late decision never answers for a later one.
        announced: Position,
        /// The first event of the added types, if there is one: its type and position.
        found: Option<(String, Position)>,
    },
    /// Starts to build a scheduled version.
    Begin(ViewId),
    /// Requests that readers move to a version. A move to an older version is a rollback.
    RequestFlip(ViewId),
    /// Carries out the requested flip: the gate is open.
    ConfirmFlip {
        /// The version of the request.
        view: ViewId,
        /// The hold under which the evidence was taken, so that a late confirmation never answers for a
        /// later hold.
        hold: Position,
        /// The position that every segment of it covers.
        covers: Position,
    },
    /// Gives up the hold of the requested flip, to try again later.
    PostponeFlip {
        /// The version of the request.
        view: ViewId,
        /// The hold that is given up.
        hold: Position,
    },
    /// Cancels the requested flip to a version.
    CancelFlip(ViewId),
    /// Cancels the building of a version that has not served.
    CancelRebuild(ViewId),
    /// Lets a version stand by again while its view is not being dropped yet.
    CancelCleanUp(ViewId),
    /// Cancels the replay of a version.
    CancelReplay(ViewId),
    /// Sets the event aside at which a segment halts.
    SetAside {
        /// The version.
        view: ViewId,
        /// The event.
        event: Position,
    },
    /// Decides about dead letters or effects of a version.
    DecideLetters {
        /// The version.
        view: ViewId,
        /// The kind: events or effects.
        of: LettersOf,
        /// The selection of letters.
        which: WhichLetters,
        /// The decision.
        wish: Wish,
    },
    /// Drops the view of a version that does not serve.
    CleanUp {
        /// The version.
        view: ViewId,
        /// The reason.
        reason: CleanUpReason,
    },
    /// Begins to drop the view. It is requested before anything is dropped, so that a clean-up is cancelled in time
    /// or not at all.
    BeginDrop(ViewId),
    /// Reports that the view has been dropped.
    FinishCleanUp(ViewId),
    /// Reports that the version cannot be built.
    Fail {
        /// The version.
        view: ViewId,
        /// The reason.
        reason: String,
    },
    /// Reports that its view reaches beyond the journal.
    Part {
        /// The version.
        view: ViewId,
        /// The position through which both histories are known to be the same.
        same_through: Position,
        /// An upper bound of the first position that differs.
        differs_at: Position,
    },
    /// Stops applying events to its view.
    Pause(ViewId),
    /// Applies events again, and retries everything that halts at once.
    Resume(ViewId),
    /// Requests a new verification, whatever the verdict is.
    RequestVerification(ViewId),
    /// Reports the result of a verification.
    Verify {
        /// The version.
        view: ViewId,
        /// The position of the request for a new verification that this one answers, if there is one. A verification
        /// that began before a request never answers it.
        answers: Option<Position>,
        /// The verdict.
        verdict: Verdict,
        /// The report.
        report: Arc<Report>,
    },
    /// Lets a version serve that did not pass its verification: an operator takes responsibility.
    Waive {
        /// The version.
        view: ViewId,
        /// The operator.
        by: String,
        /// The reason.
        why: String,
    },
    /// Replays past events through the version again, in its own view.
    RequestReplay {
        /// The version.
        view: ViewId,
        /// The position after which events are replayed.
        after: Position,
        /// The treatment of the rows that the replayed events made before.
        rows: ReplayRows,
    },
    /// Reports that every segment has reached the position at which it went back.
    EndReplay {
        /// The version.
        view: ViewId,
        /// The position of the request, so that a late report never ends a later replay.
        request: Position,
    },
}

impl CatalogCommand {
    /// Returns the version that the command is about, where it is known before the decision.
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
