//! From an event to the next state. This is the only place where a phase changes and a version begins to serve.

use std::fmt;
use std::sync::Arc;

use crate::catalog::{
    Catalog, CatalogEvent, FlipPolicy, PendingFlip, PendingReplay, ProjectionState, Verified, VersionState,
};
use crate::journal::Parted;
use crate::letter::LettersOf;
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::Announcement;
use crate::replay::ReplayRows;
use crate::time::Timestamp;
use crate::version::VersionId;

/// An event that contradicts the state of the catalog before it: either [`decide`](Catalog::decide) has not written
/// it, or an event before it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The position of the event.
    pub position: Position,
    /// The contradiction.
    pub found: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the event at position {} contradicts the events before it in the catalog: {}",
            self.position, self.found
        )
    }
}

impl std::error::Error for Misfit {}

impl Catalog {
    /// Folds one more event. `position` is the event's own and `recorded` the time at which it was appended.
    ///
    /// # Errors
    /// [`Misfit`] if the event makes a move that [`Phase::may_become`] does not allow, would leave a projection with
    /// two serving versions (I-5), or concerns something that does not exist. Nothing has changed then.
    pub fn evolve(&mut self, event: &CatalogEvent, position: Position, recorded: Timestamp) -> Result<(), Misfit> {
        let misfit = |found| Misfit { position, found };
        if position <= self.position {
            return Err(misfit(format!(
                "the fold already includes position {}, and each event is folded once",
                self.position
            )));
        }
        let name = &event.view().projection;
        let mut projection = self.projections.get(name).cloned().unwrap_or_default();
        projection.evolve(event, position, recorded).map_err(|found| misfit(format!("{}: {found}", event.view())))?;
        self.projections.insert(name.clone(), projection);
        self.revision = self.revision.next();
        self.position = position;
        Ok(())
    }
}

impl ProjectionState {
    /// Folds the event into one projection, which must not be used after an error.
    fn evolve(&mut self, event: &CatalogEvent, position: Position, recorded: Timestamp) -> Result<(), String> {
        let view = event.view();
        let projection = self;
        match event {
            CatalogEvent::Scheduled { segments, flip, fingerprint, reads, seed, .. } => {
                projection.first.get_or_insert(position);
                let scheduled = VersionState {
                    phase: Phase::Scheduled,
                    since: recorded,
                    segments: *segments,
                    flip: *flip,
                    flip_cancelled: false,
                    fingerprint: fingerprint.clone(),
                    reads: reads.clone(),
                    announced: None,
                    reads_at: None,
                    began_at: None,
                    reason: None,
                    seed: *seed,
                    parted: None,
                    paused: false,
                    resumed_at: None,
                    verified: None,
                    verify_again: None,
                    replay: None,
                    cleaned_from: None,
                    dropping: false,
                    set_aside: Arc::default(),
                    last_replay: None,
                    late: None,
                };
                if projection.versions.insert(view.version, scheduled).is_some() {
                    return Err("I-12: it was scheduled before".to_owned());
                }
            }
            CatalogEvent::ReadsAnnounced { reads, checked, .. } => {
                let announced = Announcement { position, reads: reads.clone(), checked: *checked };
                for state in projection.builds_of(view.version.code) {
                    (state.announced, state.reads_at) = (Some(announced.clone()), Some(position));
                }
            }
            CatalogEvent::ReadsRecorded { reads, .. } => {
                for state in projection.builds_of(view.version.code) {
                    (state.reads, state.announced, state.reads_at) = (Some(reads.clone()), None, Some(position));
                }
            }
            CatalogEvent::ReadsDeclined { .. } => {
                for state in projection.builds_of(view.version.code) {
                    (state.announced, state.reads_at) = (None, Some(position));
                }
            }
            CatalogEvent::Initializing { .. } => {
                projection.enter(view.version, Phase::Initializing, recorded)?.began_at = Some(position);
            }
            CatalogEvent::FlipRequested { from, kind, .. } => {
                if let Some(pending) = &projection.flip {
                    return Err(format!("a flip to {} is under way", pending.to));
                }
                let (to, from, kind) = (view.version, *from, *kind);
                projection.flip = Some(PendingFlip { to, from, kind, requested: position, hold: position });
            }
            CatalogEvent::FlipPostponed { .. } => {
                projection.flip.as_mut().ok_or("no flip is under way")?.hold = position;
            }
            CatalogEvent::FlipAborted { .. } => projection.flip = None,
            CatalogEvent::FlipCancelled { .. } => {
                projection.flip = projection.flip.filter(|flip| flip.to != view.version);
                // By itself, the version would request it again at once.
                let state = projection.known(view.version)?;
                (state.flip, state.flip_cancelled) = (FlipPolicy::OnCommand, true);
            }
            CatalogEvent::Flipped { from, covers, .. } => {
                if projection.serving != *from {
                    let named = |version: Option<VersionId>| version.map_or("none".to_owned(), |it| it.to_string());
                    let (serves, from) = (named(projection.serving), named(*from));
                    return Err(format!("I-5: the event replaces {from}, but {serves} is serving"));
                }
                if let Some(from) = from {
                    projection.enter(*from, Phase::StandingBy, recorded)?;
                }
                projection.enter(view.version, Phase::Serving, recorded)?;
                projection.serving = Some(view.version);
                projection.served.push((position, view.version));
                projection.evidence = *covers;
                projection.flip = None;
            }
            CatalogEvent::CleaningUp { reason, .. } => {
                let state = projection.known(view.version)?;
                let before = (state.phase, state.reason.take());
                let state = projection.enter(view.version, Phase::CleaningUp, recorded)?;
                (state.reason, state.cleaned_from) = (Some(reason.to_string()), Some(before));
            }
            CatalogEvent::Dropping { .. } => projection.known(view.version)?.dropping = true,
            CatalogEvent::CleanUpCancelled { .. } => {
                let before = projection.known(view.version)?.cleaned_from.take();
                let (phase, reason) = before.ok_or("only a clean-up under way is cancelled")?;
                let state = projection.enter(view.version, phase, recorded)?;
                state.reason = reason;
                if state.is_built() {
                    // A newer version may serve by now. This one must not replace it by itself.
                    state.flip = FlipPolicy::OnCommand;
                }
            }
            CatalogEvent::SetAside { event, .. } => {
                Arc::make_mut(&mut projection.known(view.version)?.set_aside).insert(*event);
            }
            // The view has them, and carries out the decision.
            CatalogEvent::LettersDecided { of: LettersOf::Effects, .. } => {}
            CatalogEvent::LettersDecided { of: LettersOf::Events, .. } => {
                projection.known(view.version)?.late.get_or_insert(position);
            }
            CatalogEvent::NothingToDo { .. } => {}
            CatalogEvent::ReplayCancelled { .. } => {
                let state = projection.known(view.version)?;
                let pending = state.replay.iter_mut().chain(&mut state.last_replay);
                pending.for_each(|pending| pending.cancelled = true);
            }
            CatalogEvent::Obsolete { .. } => {
                projection.enter(view.version, Phase::Obsolete, recorded)?;
            }
            CatalogEvent::Failed { reason, .. } => {
                projection.enter(view.version, Phase::Failed, recorded)?.reason = Some(reason.clone());
            }
            CatalogEvent::Parted { same_through, differs_at, .. } => {
                let (same_through, differs_at) = (*same_through, *differs_at);
                projection.known(view.version)?.parted = Some(Parted::History { same_through, differs_at });
            }
            CatalogEvent::Paused { .. } => projection.known(view.version)?.paused = true,
            CatalogEvent::Resumed { .. } => {
                let state = projection.known(view.version)?;
                state.paused = false;
                state.resumed_at = Some(position);
            }
            CatalogEvent::Verified { verdict, report, .. } => {
                let (verdict, report, waived) = (*verdict, Arc::clone(report), None);
                let state = projection.known(view.version)?;
                state.verified = Some(Verified { position, verdict, report, waived });
                state.verify_again = None;
            }
            CatalogEvent::VerificationRequested { .. } => {
                projection.known(view.version)?.verify_again = Some(position);
            }
            CatalogEvent::Waived { by, why, .. } => {
                let verified = projection.known(view.version)?.verified.as_mut();
                verified.ok_or("it has no verdict")?.waived = Some((by.clone(), why.clone()));
            }
            CatalogEvent::ReplayRequested { after, rows, .. } => {
                let pending = PendingReplay { requested: position, after: *after, rows: *rows, cancelled: false };
                let state = projection.known(view.version)?;
                state.last_replay = Some(pending);
                if *rows == ReplayRows::Keep {
                    state.late.get_or_insert(position);
                }
                if let Some(before) = state.replay.replace(pending) {
                    return Err(format!("the replay requested at position {} is under way", before.requested));
                }
            }
            CatalogEvent::ReplayEnded { .. } => projection.known(view.version)?.replay = None,
        }
        Ok(())
    }

    fn builds_of(&mut self, code: u32) -> impl Iterator<Item = &mut VersionState> {
        self.versions.iter_mut().filter(move |(id, _)| id.code == code).map(|(_, state)| state)
    }

    fn known(&mut self, version: VersionId) -> Result<&mut VersionState, String> {
        self.versions.get_mut(&version).ok_or_else(|| format!("{version} was never scheduled"))
    }

    /// The one place where a phase is written.
    fn enter(&mut self, version: VersionId, next: Phase, recorded: Timestamp) -> Result<&mut VersionState, String> {
        let state = self.known(version)?;
        if !state.phase.may_become(next) {
            return Err(format!("{version} may not become {next} from {}", state.phase));
        }
        state.phase = next;
        state.since = recorded;
        Ok(state)
    }
}
