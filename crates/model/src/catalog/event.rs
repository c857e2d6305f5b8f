//! Events of the catalog: the changes that have happened, and the state after each of them.

use std::sync::Arc;

use crate::catalog::{CleanUpReason, FlipKind, FlipPolicy, PendingReplay, ProjectionState, Verified, VersionState};
use crate::journal::Parted;
use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::{Announcement, Reads};
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::verify::{Report, Verdict};
use crate::version::{VersionId, ViewId};

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
    /// lifted only after this event, [`Flipped`](Self::Flipped), [`FlipAborted`](Self::FlipAborted) or
    /// [`FlipCancelled`](Self::FlipCancelled), so that no controller can confirm on evidence that another one has given
    /// up.
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
    /// The version is cleaned up: its view will be dropped.
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
    /// Its clean-up was cancelled before anything was dropped: it returns to its former phase.
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

impl ProjectionState {
    /// Folds the event into one projection, which must not be used after an error. The longer changes are in `evolve.rs`.
    pub(super) fn evolve(
        &mut self,
        event: &CatalogEvent,
        position: Position,
        recorded: Timestamp,
    ) -> Result<(), String> {
        let version = event.view().version;
        match event {
            CatalogEvent::Scheduled { segments, flip, fingerprint, reads, seed, .. } => {
                let (fingerprint, reads) = (fingerprint.clone(), reads.clone());
                let new = VersionState::scheduled(recorded, *segments, *flip);
                self.add(version, VersionState { fingerprint, reads, seed: *seed, ..new }, position)?;
            }
            CatalogEvent::ReadsAnnounced { reads, checked, .. } => {
                let announced = Announcement { position, reads: reads.clone(), checked: *checked };
                self.change_reads(version.code, position, |state| state.announced = Some(announced.clone()));
            }
            CatalogEvent::ReadsRecorded { reads, .. } => self.change_reads(version.code, position, |state| {
                (state.reads, state.announced) = (Some(reads.clone()), None);
            }),
            CatalogEvent::ReadsDeclined { .. } => {
                self.change_reads(version.code, position, |state| state.announced = None);
            }
            CatalogEvent::Initializing { .. } => {
                self.enter(version, Phase::Initializing, recorded)?.began_at = Some(position);
            }
            CatalogEvent::FlipRequested { from, kind, .. } => self.begin_flip(version, *from, *kind, position)?,
            CatalogEvent::FlipPostponed { .. } => self.flip.as_mut().ok_or("no flip is under way")?.hold = position,
            CatalogEvent::FlipAborted { .. } => self.flip = None,
            CatalogEvent::FlipCancelled { .. } => self.cancel_flip(version)?,
            CatalogEvent::Flipped { from, covers, .. } => {
                self.serve(version, *from, recorded)?;
                self.served.push((position, version));
                (self.evidence, self.flip) = (*covers, None);
            }
            CatalogEvent::CleaningUp { reason, .. } => self.clean_up(version, reason, recorded)?,
            CatalogEvent::Dropping { .. } => self.known(version)?.dropping = true,
            CatalogEvent::CleanUpCancelled { .. } => self.come_back(version, recorded)?,
            CatalogEvent::SetAside { event, .. } => {
                Arc::make_mut(&mut self.known(version)?.set_aside).insert(*event);
            }
            // The view has them, and carries out the decision.
            CatalogEvent::LettersDecided { of: LettersOf::Effects, .. } => {}
            CatalogEvent::LettersDecided { of: LettersOf::Events, .. } => {
                self.known(version)?.late.get_or_insert(position);
            }
            CatalogEvent::NothingToDo { .. } => {}
            CatalogEvent::Obsolete { .. } => drop(self.enter(version, Phase::Obsolete, recorded)?),
            CatalogEvent::Failed { reason, .. } => {
                self.enter(version, Phase::Failed, recorded)?.reason = Some(reason.clone());
            }
            CatalogEvent::Parted { same_through, differs_at, .. } => {
                let (same_through, differs_at) = (*same_through, *differs_at);
                self.known(version)?.parted = Some(Parted::History { same_through, differs_at });
            }
            CatalogEvent::Paused { .. } => self.known(version)?.paused = true,
            CatalogEvent::Resumed { .. } => {
                let state = self.known(version)?;
                (state.paused, state.resumed_at) = (false, Some(position));
            }
            CatalogEvent::Verified { verdict, report, .. } => {
                let (verdict, report, waived) = (*verdict, Arc::clone(report), None);
                let state = self.known(version)?;
                (state.verified, state.verify_again) = (Some(Verified { position, verdict, report, waived }), None);
            }
            CatalogEvent::VerificationRequested { .. } => self.known(version)?.verify_again = Some(position),
            CatalogEvent::Waived { by, why, .. } => {
                let verified = self.known(version)?.verified.as_mut();
                verified.ok_or("it has no verdict")?.waived = Some((by.clone(), why.clone()));
            }
            CatalogEvent::ReplayRequested { after, rows, .. } => self.begin_replay(
                version,
                PendingReplay { requested: position, after: *after, rows: *rows, cancelled: false },
            )?,
            CatalogEvent::ReplayCancelled { .. } => {
                let state = self.known(version)?;
                let pending = state.replay.iter_mut().chain(&mut state.last_replay);
                pending.for_each(|pending| pending.cancelled = true);
            }
            CatalogEvent::ReplayEnded { .. } => self.known(version)?.replay = None,
        }
        Ok(())
    }
}
