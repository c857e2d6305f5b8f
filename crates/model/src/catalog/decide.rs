//! The longer decisions about commands.

use std::collections::BTreeMap;

use crate::catalog::{
    Catalog, CatalogEvent, CatalogRefused, CleanUpReason, FlipPolicy, PendingFlip, PendingReplay, VersionState,
};
use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::{CodeMismatch, Reads};
use crate::rebuild::Code;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
use crate::version::{VersionId, ViewId};

/// The code's declaration about itself.
pub(super) struct Declared<'a> {
    pub(super) code: u32,
    pub(super) segments: SegmentCount,
    pub(super) fingerprint: &'a str,
    pub(super) reads: &'a Reads,
}

impl Catalog {
    /// Returns the state of a version that is being built, and so can be verified.
    pub(super) fn initializing(&self, view: &ViewId) -> Result<&VersionState, CatalogRefused> {
        let state = self.known(view)?;
        match state.phase {
            Phase::Initializing => Ok(state),
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "verify" }),
        }
    }

    /// Checks that a verification answers the last request for one.
    pub(super) fn check_answers(&self, view: &ViewId, answers: Option<Position>) -> Result<(), CatalogRefused> {
        match self.initializing(view)?.verify_again == answers {
            true => Ok(()),
            false => Err(CatalogRefused::VerificationOutdated { view: view.clone() }),
        }
    }

    /// Checks that a version can have letters.
    pub(super) fn has_letters(&self, view: &ViewId) -> Result<(), CatalogRefused> {
        match self.known(view)?.phase {
            phase @ (Phase::Scheduled | Phase::Obsolete) => {
                Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "decide about letters of" })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn waive(&self, view: &ViewId, by: &str, why: &str) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let state = self.known(view)?;
        match (&state.verified, state.phase) {
            (Some(verified), Phase::Initializing) if verified.waived.is_some() && state.may_serve() => Ok(vec![]),
            (Some(_), Phase::Initializing) if state.may_serve() => {
                Err(CatalogRefused::NothingToWaive { view: view.clone() })
            }
            (Some(_), Phase::Initializing) if state.verify_again.is_none() => {
                Ok(vec![CatalogEvent::Waived { view: view.clone(), by: by.to_owned(), why: why.to_owned() }])
            }
            (_, Phase::Initializing) => Err(CatalogRefused::NotVerified { view: view.clone(), waiting_on: vec![] }),
            (_, phase) => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "waive the verdict on" }),
        }
    }

    pub(super) fn request_replay(
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

    /// Returns the state of a version to which events are applied.
    pub(super) fn applied(&self, view: &ViewId, asked: &'static str) -> Result<&VersionState, CatalogRefused> {
        let state = self.known(view)?;
        let phase = state.phase;
        if phase.applies() { Ok(state) } else { Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked }) }
    }

    /// Returns the version that a new build begins as a copy of, if it is `seeded`.
    pub(super) fn seed(&self, projection: &ProjectionName, seeded: bool) -> Result<Option<VersionId>, CatalogRefused> {
        match (seeded, self.serving(projection)) {
            (false, _) => Ok(None),
            (true, Some(serving)) => Ok(Some(serving)),
            (true, None) => Err(CatalogRefused::NothingToCopy { projection: projection.clone() }),
        }
    }

    pub(super) fn schedule(
        &self,
        projection: &ProjectionName,
        declared: &Declared<'_>,
        flip: FlipPolicy,
        seed: Option<VersionId>,
    ) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let Declared { code, segments, fingerprint, reads } = *declared;
        let none = BTreeMap::new();
        let versions = self.projections.get(projection).map_or(&none, |state| &state.versions);
        let mut builds = versions.iter().filter(|(id, _)| id.code == code);
        if let Some((_, earlier)) = builds.clone().find(|(_, earlier)| earlier.fingerprint != fingerprint) {
            return Err(CatalogRefused::Fingerprint {
                projection: projection.clone(),
                code,
                recorded: earlier.fingerprint.clone(),
                declared: fingerprint.to_owned(),
            });
        }
        let newest = builds.clone().next_back().map(|(_, newest)| newest);
        if let Some(unlike) = newest.and_then(|newest| newest.unlike(segments, reads)) {
            return Err(CatalogRefused::Reads { projection: projection.clone(), code, unlike });
        }
        // I-12: builds are counted over obsolete versions too, so a number never comes back.
        let build = builds.next_back().map_or(1, |(last, _)| last.build + 1);
        let view = ViewId { projection: projection.clone(), version: VersionId { code, build } };
        let by = view.version;
        let (fingerprint, reads) = (fingerprint.to_owned(), Some(reads.clone()));
        let mut events = vec![CatalogEvent::Scheduled { view, segments, flip, fingerprint, reads, seed }];
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

    pub(super) fn announce_reads(&self, code: &Code, checked: Position) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let Some((version, state)) = self.newest_build(&code.projection, code.code) else { return Ok(vec![]) };
        let view = ViewId { projection: code.projection.clone(), version };
        let reads = code.reads.clone();
        match state.unlike(code.segments, &reads) {
            // The catalog accepts a version that an earlier release scheduled as it is first seen.
            None if state.reads.is_none() => Ok(vec![CatalogEvent::ReadsRecorded { view, reads }]),
            None => Ok(vec![]),
            Some(CodeMismatch::Added { .. }) => Ok(vec![CatalogEvent::ReadsAnnounced { view, reads, checked }]),
            Some(unlike) => Err(CatalogRefused::Reads { projection: code.projection.clone(), code: code.code, unlike }),
        }
    }

    /// Nothing changes if another node was first.
    pub(super) fn settle_reads(
        &self,
        view: &ViewId,
        at: Position,
        found: &Option<(String, Position)>,
    ) -> Vec<CatalogEvent> {
        let announced = self.version(view).and_then(|state| state.announced.as_ref());
        let Some(announced) = announced.filter(|announced| announced.position == at) else { return vec![] };
        let view = view.clone();
        vec![match found {
            None => CatalogEvent::ReadsRecorded { view, reads: announced.reads.clone() },
            Some(found) => CatalogEvent::ReadsDeclined { view, found: found.clone() },
        }]
    }

    pub(super) fn request_flip(&self, view: &ViewId) -> Result<Vec<CatalogEvent>, CatalogRefused> {
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
                let (from, kind) = (projection.serving, projection.kind_of_flip(view.version));
                Ok(vec![CatalogEvent::FlipRequested { view: view.clone(), from, kind }])
            }
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "flip to" }),
        }
    }

    pub(super) fn cancel_flip(&self, view: &ViewId) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let (state, projection) = (self.known(view)?, &self.projections[&view.projection]);
        let phase = state.phase;
        match projection.flip.filter(|flip| flip.to == view.version) {
            Some(_) => Ok(vec![CatalogEvent::FlipCancelled { view: view.clone() }]),
            None if phase == Phase::Serving => Err(too_late(view, "the flip to", "it serves")),
            // The catalog would request it once the version is ready.
            None if state.is_built() && projection.flips_by_itself(state) => {
                Ok(vec![CatalogEvent::FlipCancelled { view: view.clone() }])
            }
            None => Err(CatalogRefused::NoFlipUnderWay { projection: view.projection.clone() }),
        }
    }

    pub(super) fn cancel_rebuild(&self, view: &ViewId) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        match self.known(view)?.phase {
            Phase::Scheduled | Phase::Initializing | Phase::Failed => self.clean_up(view, &CleanUpReason::Cancelled),
            Phase::Serving => Err(too_late(view, "the rebuild of", "it serves")),
            Phase::StandingBy => Err(too_late(view, "the rebuild of", "it has served and stands by")),
            Phase::CleaningUp => Ok(vec![]),
            Phase::Obsolete => Err(too_late(view, "the rebuild of", "its view is gone")),
        }
    }

    pub(super) fn cancel_clean_up(&self, view: &ViewId) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let state = self.known(view)?;
        match state.phase {
            Phase::CleaningUp if state.dropping => Err(too_late(view, "the clean-up of", "its view is being dropped")),
            Phase::CleaningUp if !self.projections[&view.projection].may_come_back(view.version) => {
                Err(CatalogRefused::NotRestored { view: view.clone() })
            }
            Phase::CleaningUp => Ok(vec![CatalogEvent::CleanUpCancelled { view: view.clone() }]),
            Phase::Obsolete => Err(too_late(view, "the clean-up of", "its view is gone")),
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "cancel a clean-up of" }),
        }
    }

    pub(super) fn confirm_flip(
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

    pub(super) fn cancel_replay(&self, view: &ViewId) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        match self.known(view)?.replay {
            Some(replay) if replay.cancelled => Ok(vec![]),
            Some(_) => Ok(vec![CatalogEvent::ReplayCancelled { view: view.clone() }]),
            None => Err(CatalogRefused::NoReplayUnderWay { view: view.clone() }),
        }
    }

    pub(super) fn end_replay(&self, view: &ViewId, request: Position) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        match self.known(view)?.replay {
            Some(replay) if replay.requested == request => Ok(vec![CatalogEvent::ReplayEnded { view: view.clone() }]),
            _ => Err(CatalogRefused::NoReplayUnderWay { view: view.clone() }),
        }
    }

    /// Returns the flip under way to `view`, if `hold` is its present hold.
    pub(super) fn pending_under(&self, view: &ViewId, hold: Position) -> Result<PendingFlip, CatalogRefused> {
        let pending = self.projections.get(&view.projection).and_then(|state| state.flip);
        pending
            .filter(|pending| pending.to == view.version && pending.hold == hold)
            .ok_or_else(|| CatalogRefused::NoFlipUnderWay { projection: view.projection.clone() })
    }

    pub(super) fn clean_up(&self, view: &ViewId, reason: &CleanUpReason) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        let pending = self.projections.get(&view.projection).and_then(|state| state.flip);
        match self.known(view)?.phase {
            Phase::CleaningUp => Ok(vec![]),
            // A rollback that was requested at the last moment is still carried out.
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

    /// Returns the state of a version that is being cleaned up.
    pub(super) fn cleaned_up(&self, view: &ViewId, asked: &'static str) -> Result<&VersionState, CatalogRefused> {
        let state = self.known(view)?;
        match state.phase {
            Phase::CleaningUp => Ok(state),
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked }),
        }
    }

    /// I-12: a view is never dropped while its clean-up may still be cancelled.
    pub(super) fn finish_clean_up(&self, view: &ViewId) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        const ASKED: &str = "finish cleaning up";
        match self.cleaned_up(view, ASKED)? {
            state if state.dropping => Ok(vec![CatalogEvent::Obsolete { view: view.clone() }]),
            state => Err(CatalogRefused::WrongPhase { view: view.clone(), phase: state.phase, asked: ASKED }),
        }
    }

    pub(super) fn fail(&self, view: &ViewId, reason: &str) -> Result<Vec<CatalogEvent>, CatalogRefused> {
        match self.known(view)?.phase {
            Phase::Initializing => {
                let failed = CatalogEvent::Failed { view: view.clone(), reason: reason.to_owned() };
                Ok(self.abort_flip_to(view, reason).into_iter().chain([failed]).collect())
            }
            Phase::Failed => Ok(vec![]),
            phase => Err(CatalogRefused::WrongPhase { view: view.clone(), phase, asked: "fail" }),
        }
    }

    pub(super) fn abort_flip_to(&self, view: &ViewId, reason: &str) -> Option<CatalogEvent> {
        let pending = self.projections.get(&view.projection)?.flip?;
        (pending.to == view.version)
            .then(|| CatalogEvent::FlipAborted { view: view.clone(), reason: reason.to_owned() })
    }

    pub(super) fn known(&self, view: &ViewId) -> Result<&VersionState, CatalogRefused> {
        self.version(view).ok_or_else(|| {
            let versions = self.projections.get(&view.projection).map(|state| &state.versions);
            let known = versions.into_iter().flatten().filter(|(_, state)| state.phase != Phase::Obsolete);
            CatalogRefused::NoSuchVersion { view: view.clone(), known: known.map(|(id, _)| *id).collect() }
        })
    }
}

fn too_late(view: &ViewId, what: &'static str, found: &'static str) -> CatalogRefused {
    CatalogRefused::TooLate { view: view.clone(), what, found }
}
