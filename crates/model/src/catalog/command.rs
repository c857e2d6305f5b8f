//! Commands to the catalog, and the decision about each: the changes that the catalog accepts, and those that it
//! declines. Decisions that look at more than the version itself are in `decide.rs`.

use std::sync::Arc;

use crate::catalog::decide::Declared;
use crate::catalog::{Catalog, CatalogEvent, CatalogRefused, CleanUpReason, FlipPolicy};
use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::name::ProjectionName;
use crate::phase::Phase;
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
    /// Cancels the clean-up of a version, which returns to its former phase, before the drop of its view begins.
    CancelCleanUp(ViewId),
    /// Cancels the replay of a version.
    CancelReplay(ViewId),
    /// Sets the event aside at which a segment halts.
    SetAside {
        /// The version.
        view: ViewId,
        /// The event.
        event: Position,
        /// True if a segment halts at it. Otherwise it is set aside already.
        halts: bool,
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
        /// True if such letters exist. Otherwise there is nothing to decide.
        exist: bool,
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

impl Catalog {
    /// Returns the events that follow from `command`. An empty answer means that the requested state already exists.
    ///
    /// # Errors
    /// [`CatalogRefused`] if the catalog declines the command. Nothing changes then.
    pub fn decide(&self, command: &CatalogCommand) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        match command {
            CatalogCommand::Schedule { projection, code, if_new: true, .. } if !self.is_new(projection, *code) => {
                Ok(vec![])
            }
            CatalogCommand::Schedule { projection, code, segments, flip, fingerprint, reads, seeded, if_new: _ } => {
                let declared = Declared { code: *code, segments: *segments, fingerprint, reads };
                self.schedule(projection, &declared, *flip, self.seed(projection, *seeded)?)
            }
            CatalogCommand::AnnounceReads { code, checked } => self.announce_reads(code, *checked),
            CatalogCommand::SettleReads { view, announced, found } => Ok(self.settle_reads(view, *announced, found)),
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
            CatalogCommand::CancelFlip(view) => self.cancel_flip(view),
            CatalogCommand::CancelRebuild(view) => self.cancel_rebuild(view),
            CatalogCommand::CancelCleanUp(view) => self.cancel_clean_up(view),
            CatalogCommand::CancelReplay(view) => self.cancel_replay(view),
            CatalogCommand::SetAside { view, event, halts } => {
                let is_known = self.applied(view, "set an event aside in")?.set_aside.contains(event) || !halts;
                Ok(if_new(is_known, CatalogEvent::SetAside { view: view.clone(), event: *event }))
            }
            CatalogCommand::DecideLetters { view, of, which, wish, exist } => {
                self.has_letters(view)?;
                let (view, of, which, wish) = (view.clone(), *of, which.clone(), *wish);
                Ok(if_new(!exist, CatalogEvent::LettersDecided { view, of, which, wish }))
            }
            CatalogCommand::BeginDrop(view) => {
                let dropping = self.cleaned_up(view, "drop")?.dropping;
                Ok(if_new(dropping, CatalogEvent::Dropping { view: view.clone() }))
            }
            CatalogCommand::FinishCleanUp(view) => self.finish_clean_up(view),
            CatalogCommand::Fail { view, reason } => self.fail(view, reason),
            CatalogCommand::Part { view, same_through, differs_at } => {
                let is_known = self.applied(view, "part")?.parted.is_some();
                let (view, same_through, differs_at) = (view.clone(), *same_through, *differs_at);
                Ok(if_new(is_known, CatalogEvent::Parted { view, same_through, differs_at }))
            }
            CatalogCommand::Pause(view) => {
                let paused = self.applied(view, "pause")?.paused;
                Ok(if_new(paused, CatalogEvent::Paused { view: view.clone() }))
            }
            // This also applies to a version that is not paused: everything that halts is then retried at once.
            CatalogCommand::Resume(view) => {
                self.applied(view, "resume")?;
                Ok(vec![CatalogEvent::Resumed { view: view.clone() }])
            }
            // This also applies while a verification is pending: it may be under way, and then it began too early.
            CatalogCommand::RequestVerification(view) => {
                self.initializing(view)?;
                Ok(vec![CatalogEvent::VerificationRequested { view: view.clone() }])
            }
            CatalogCommand::Verify { view, answers, verdict, report } => {
                self.check_answers(view, *answers)?;
                let (view, verdict, report) = (view.clone(), *verdict, Arc::clone(report));
                Ok(vec![CatalogEvent::Verified { view, verdict, report }])
            }
            CatalogCommand::Waive { view, by, why } => self.waive(view, by, why),
            CatalogCommand::RequestReplay { view, after, rows } => self.request_replay(view, *after, *rows),
            CatalogCommand::EndReplay { view, request } => self.end_replay(view, *request),
        }
    }
}

/// Returns the event if the requested state does not exist yet.
fn if_new(exists: bool, event: CatalogEvent) -> Vec<CatalogEvent> {
    if exists { vec![] } else { vec![event] }
}
