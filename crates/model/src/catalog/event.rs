//! Events of the catalog: the changes that have happened, each in words, and the state after each of them.
//!
//! Each event is one row of `events!`: its name, its public name, its fields and its words. To add an event, add a row,
//! and the state after it below.

use std::fmt;
use std::sync::Arc;

use crate::catalog::{CleanUpReason, FlipKind, FlipPolicy, PendingReplay, ProjectionState, Verified, VersionState};
use crate::journal::Parted;
use crate::letter::{LettersOf, WhichLetters, Wish};
use crate::numbers::grouped;
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::{Announcement, Reads};
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::verify::{Report, Verdict};
use crate::version::{VersionId, ViewId};

macro_rules! events {
    ($f:ident, $version:ident: $(
        $(#[doc = $meaning:literal])+
        $event:ident $kind:literal { $($(#[doc = $field_meaning:literal])+ $field:ident: $type:ty,)+ } => $words:expr,
    )+) => {
        /// A change of the catalog that has happened. Its text is the change in words.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum CatalogEvent {
            $($(#[doc = $meaning])+ $event { $($(#[doc = $field_meaning])+ $field: $type,)+ },)+
        }

        impl CatalogEvent {
            /// Returns the version that the event is about.
            pub fn view(&self) -> &ViewId {
                match self {
                    $(Self::$event { view, .. } => view,)+
                }
            }

            /// Returns its public name, in snake_case, such as `flip_requested`.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$event { .. } => $kind,)+
                }
            }
        }

        impl fmt::Display for CatalogEvent {
            fn fmt(&self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $version = self.view().version;
                match self {
                    $(#[allow(unused_variables, reason = "not every field is in the words")]
                    Self::$event { $($field),+ } => $words,)+
                }
            }
        }
    };
}

events! { f, version:
    /// A version exists.
    Scheduled "version_scheduled" {
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
    } => {
        let unit = if segments.get() == 1 { "segment" } else { "segments" };
        let copy = seed.map(|source| format!(", begins as a copy of {source}")).unwrap_or_default();
        write!(f, "{version} scheduled, {segments} {unit}{copy}")
    },
    /// A node carries code of this number that reads more types, of which the journal has no event through `checked`.
    /// Until this is decided, no commit passes the position of this event.
    ReadsAnnounced "reads_announced" {
        /// The newest build of the code. It stands for all builds.
        view: ViewId,
        /// The events that the code reads.
        reads: Reads,
        /// The position through which the journal was searched.
        checked: Position,
    } => {
        let (code, checked) = (version.code, at(*checked));
        write!(f, "code v{code} shall read more types, of which the journal has none through {checked}")
    },
    /// The events that the code of this number reads from here on, in all its builds. Code that reads less gets no
    /// segments.
    ReadsRecorded "reads_recorded" {
        /// The newest build of the code.
        view: ViewId,
        /// The events that the code reads.
        reads: Reads,
    } => {
        let types = reads.types.as_ref().map(|types| types.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
        write!(f, "code v{} reads {}", version.code, types.as_deref().unwrap_or("every type"))
    },
    /// The announced code may not run: the journal has events of the added types.
    ReadsDeclined "reads_declined" {
        /// The newest build of the code.
        view: ViewId,
        /// The type of the first of them, and its position.
        found: (String, Position),
    } => {
        let (event_type, position) = found;
        write!(f, "code v{} stays as it was: event {} is of type {event_type}", version.code, at(*position))
    },
    /// Its view is being built.
    Initializing "version_initializing" {
        /// The version.
        view: ViewId,
    } => write!(f, "the build of {version} begins"),
    /// Readers shall move to `view`. The position of this event is the F of the flip protocol.
    FlipRequested "flip_requested" {
        /// The version to serve.
        view: ViewId,
        /// The version that serves.
        from: Option<VersionId>,
        /// The direction.
        kind: FlipKind,
    } => match from {
        Some(from) => write!(f, "{kind} from {from} to {version} requested"),
        None => write!(f, "first {kind} to {version} requested"),
    },
    /// The hold of the requested flip has exceeded its budget. The flip is tried again under a new hold. A hold is
    /// lifted only after this event, [`Flipped`](Self::Flipped), [`FlipAborted`](Self::FlipAborted) or
    /// [`FlipCancelled`](Self::FlipCancelled), so that no controller can confirm on evidence that another one has given
    /// up.
    FlipPostponed "flip_postponed" {
        /// The version that will serve.
        view: ViewId,
    } => write!(f, "flip to {version} postponed: the old version was held for too long"),
    /// The requested flip will not happen.
    FlipAborted "flip_aborted" {
        /// The version that would have served.
        view: ViewId,
        /// The reason.
        reason: String,
    } => write!(f, "flip to {version} aborted: {reason}"),
    /// An operator cancelled the requested flip. From here on the version flips only on command.
    FlipCancelled "flip_cancelled" {
        /// The version that would have served.
        view: ViewId,
    } => write!(f, "flip to {version} cancelled; it flips on command from here on"),
    /// Readers have moved to `view`. This event is the flip itself (I-5).
    Flipped "flipped" {
        /// The version that serves from here on.
        view: ViewId,
        /// The version that served until here and stands by from here on.
        from: Option<VersionId>,
        /// The direction.
        kind: FlipKind,
        /// The evidence: every segment of `view` covers this position, and no reader ever saw anything later (I-6).
        covers: Position,
    } => match (from, kind) {
        (None, _) => write!(f, "{version} serves, the first to do so; covers {}", at(*covers)),
        (Some(from), FlipKind::Flip) => write!(f, "{version} serves, {from} stands by; covers {}", at(*covers)),
        (Some(from), FlipKind::Rollback) => {
            write!(f, "rolled back: {version} serves again, {from} stands by; covers {}", at(*covers))
        }
    },
    /// The version is cleaned up: its view will be dropped.
    CleaningUp "version_cleaning_up" {
        /// The version.
        view: ViewId,
        /// The reason.
        reason: CleanUpReason,
    } => write!(f, "the clean-up of {version} begins: {reason}"),
    /// The view is dropped from here on: its clean-up can no longer be cancelled (I-12).
    Dropping "version_dropping" {
        /// The version.
        view: ViewId,
    } => write!(f, "the drop of the view of {version} begins"),
    /// Its clean-up was cancelled before anything was dropped: it returns to its former phase.
    CleanUpCancelled "clean_up_cancelled" {
        /// The version.
        view: ViewId,
    } => write!(f, "clean-up of {version} cancelled"),
    /// The view is gone (I-12).
    Obsolete "version_obsolete" {
        /// The version.
        view: ViewId,
    } => write!(f, "view of {version} gone"),
    /// The version cannot be built.
    Failed "version_failed" {
        /// The version.
        view: ViewId,
        /// The reason.
        reason: String,
    } => write!(f, "{version} failed: {reason}"),
    /// Its view reaches beyond the journal: it was made from a history that no longer exists. Events that get those
    /// positions from now on are not in the view. The view is not shown, and no events are applied to it (I-3).
    Parted "version_parted" {
        /// The version.
        view: ViewId,
        /// The position through which both histories are known to be the same.
        same_through: Position,
        /// An upper bound of the first position that differs.
        differs_at: Position,
    } => write!(
        f,
        "view of {version} reaches beyond the journal: its history is the same through position {}, and another one \
         from position {} on at the latest",
        at(*same_through),
        at(*differs_at)
    ),
    /// No events are applied to its view until it is resumed.
    Paused "version_paused" {
        /// The version.
        view: ViewId,
    } => write!(f, "{version} paused"),
    /// Events are applied again, and everything that halts is retried at once.
    Resumed "version_resumed" {
        /// The version.
        view: ViewId,
    } => write!(f, "{version} resumed"),
    /// It was verified.
    Verified "version_verified" {
        /// The version.
        view: ViewId,
        /// The verdict.
        verdict: Verdict,
        /// The report.
        report: Arc<Report>,
    } => {
        let against = report.against.map(|against| format!(" against {against}")).unwrap_or_default();
        write!(f, "{version} verified{against} at position {}: {}", at(report.at), verdict.as_str())?;
        if *verdict == Verdict::Fail { write!(f, " ({})", report.summary()) } else { Ok(()) }
    },
    /// The version shall be verified again. Its verdict counts no longer.
    VerificationRequested "verification_requested" {
        /// The version.
        view: ViewId,
    } => write!(f, "another verification of {version} requested"),
    /// An operator takes responsibility for a version that did not pass its verification.
    Waived "verdict_waived" {
        /// The version.
        view: ViewId,
        /// The operator.
        by: String,
        /// The reason.
        why: String,
    } => write!(f, "{by} waived the verdict on {version}: {why}"),
    /// Past events shall be replayed through the version again, in its own view. The position of this event
    /// identifies the replay.
    ReplayRequested "replay_requested" {
        /// The version.
        view: ViewId,
        /// The position after which events are replayed.
        after: Position,
        /// The treatment of the rows that the replayed events made before.
        rows: ReplayRows,
    } => write!(f, "replay of {version} in place after position {} requested", at(*after)),
    /// An operator cancelled the replay. Segments continue from where they were when they went back.
    ReplayCancelled "replay_cancelled" {
        /// The version.
        view: ViewId,
    } => write!(f, "replay of {version} in place cancelled"),
    /// The event shall be set aside as a dead letter if its handler refuses it again.
    SetAside "event_set_aside" {
        /// The version.
        view: ViewId,
        /// The event at which a segment halts.
        event: Position,
    } => write!(f, "event {} to be set aside in {version} if it is refused again", at(*event)),
    /// An operator decided about dead letters or effects of the version.
    LettersDecided "letters_decided" {
        /// The version.
        view: ViewId,
        /// The kind: events or effects.
        of: LettersOf,
        /// The selection of letters.
        which: WhichLetters,
        /// The decision.
        wish: Wish,
    } => {
        let what = match of {
            LettersOf::Events => "dead letters",
            LettersOf::Effects => "effects",
        };
        match which {
            WhichLetters::One(position) => write!(f, "{what} of event {} of {version}", at(*position)),
            WhichLetters::Stream(stream) => write!(f, "{what} of {stream} of {version}"),
            WhichLetters::All => write!(f, "all {what} of {version}"),
        }?;
        f.write_str(match wish {
            Wish::Retry => " to be retried",
            Wish::Drop => " to be dropped",
        })
    },
    /// Every segment of the version has reached the position at which it went back.
    ReplayEnded "replay_ended" {
        /// The version.
        view: ViewId,
    } => write!(f, "replay of {version} in place ended"),
    /// A request with an idempotency key had nothing to change. The key belongs to
    /// this request from here on, so a retry under it changes nothing either.
    NothingToDo "nothing_to_do" {
        /// The version.
        view: ViewId,
    } => write!(f, "request for {version} changed nothing: there was nothing to change"),
}

/// Returns a position as people read it.
fn at(position: Position) -> String {
    grouped(position.get())
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
