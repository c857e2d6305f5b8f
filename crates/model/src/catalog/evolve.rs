//! From an event to the next state. The table of the changes is beside the events; the longer changes are here.

use std::fmt;
use std::sync::Arc;

use crate::catalog::{
    Catalog, CatalogEvent, CleanUpReason, FlipKind, FlipPolicy, PendingFlip, PendingReplay, ProjectionState,
    VersionState,
};
use crate::phase::Phase;
use crate::position::Position;
use crate::replay::ReplayRows;
use crate::segment::SegmentCount;
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

impl VersionState {
    /// Returns the state of a version that was scheduled just now.
    pub(super) fn scheduled(since: Timestamp, segments: SegmentCount, flip: FlipPolicy) -> Self {
        Self {
            phase: Phase::Scheduled,
            since,
            segments,
            flip,
            flip_cancelled: false,
            fingerprint: String::new(),
            reads: None,
            announced: None,
            reads_at: None,
            began_at: None,
            reason: None,
            seed: None,
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
        }
    }
}

impl ProjectionState {
    pub(super) fn add(&mut self, version: VersionId, new: VersionState, position: Position) -> Result<(), String> {
        self.first.get_or_insert(position);
        match self.versions.insert(version, new) {
            Some(_) => Err("I-12: it was scheduled before".to_owned()),
            None => Ok(()),
        }
    }

    /// Changes what every build of a code version reads, by the event at `position`.
    pub(super) fn change_reads(&mut self, code: u32, position: Position, change: impl Fn(&mut VersionState)) {
        for (_, state) in self.versions.iter_mut().filter(|(id, _)| id.code == code) {
            change(state);
            state.reads_at = Some(position);
        }
    }

    pub(super) fn begin_flip(
        &mut self,
        to: VersionId,
        from: Option<VersionId>,
        kind: FlipKind,
        position: Position,
    ) -> Result<(), String> {
        match self.flip.replace(PendingFlip { to, from, kind, requested: position, hold: position }) {
            Some(pending) => Err(format!("a flip to {} is under way", pending.to)),
            None => Ok(()),
        }
    }

    pub(super) fn cancel_flip(&mut self, to: VersionId) -> Result<(), String> {
        self.flip = self.flip.filter(|flip| flip.to != to);
        // By itself, the version would request it again at once.
        let state = self.known(to)?;
        (state.flip, state.flip_cancelled) = (FlipPolicy::OnCommand, true);
        Ok(())
    }

    /// Lets `to` serve instead of `from` (I-5).
    pub(super) fn serve(&mut self, to: VersionId, from: Option<VersionId>, recorded: Timestamp) -> Result<(), String> {
        if self.serving != from {
            let named = |version: Option<VersionId>| version.map_or("none".to_owned(), |it| it.to_string());
            let (serves, from) = (named(self.serving), named(from));
            return Err(format!("I-5: the event replaces {from}, but {serves} is serving"));
        }
        if let Some(from) = from {
            self.enter(from, Phase::StandingBy, recorded)?;
        }
        self.enter(to, Phase::Serving, recorded)?;
        self.serving = Some(to);
        Ok(())
    }

    pub(super) fn clean_up(
        &mut self,
        version: VersionId,
        reason: &CleanUpReason,
        recorded: Timestamp,
    ) -> Result<(), String> {
        let state = self.known(version)?;
        let before = (state.phase, state.reason.take());
        let state = self.enter(version, Phase::CleaningUp, recorded)?;
        (state.reason, state.cleaned_from) = (Some(reason.to_string()), Some(before));
        Ok(())
    }

    /// Returns a version whose clean-up was cancelled to its former phase.
    pub(super) fn come_back(&mut self, version: VersionId, recorded: Timestamp) -> Result<(), String> {
        let before = self.known(version)?.cleaned_from.take();
        let (phase, reason) = before.ok_or("only a clean-up under way is cancelled")?;
        let state = self.enter(version, phase, recorded)?;
        state.reason = reason;
        if state.is_built() {
            // A newer version may serve by now. This one must not replace it by itself.
            state.flip = FlipPolicy::OnCommand;
        }
        Ok(())
    }

    pub(super) fn begin_replay(&mut self, version: VersionId, pending: PendingReplay) -> Result<(), String> {
        let state = self.known(version)?;
        state.last_replay = Some(pending);
        if pending.rows == ReplayRows::Keep {
            state.late.get_or_insert(pending.requested);
        }
        match state.replay.replace(pending) {
            Some(before) => Err(format!("the replay requested at position {} is under way", before.requested)),
            None => Ok(()),
        }
    }

    pub(super) fn known(&mut self, version: VersionId) -> Result<&mut VersionState, String> {
        self.versions.get_mut(&version).ok_or_else(|| format!("{version} was never scheduled"))
    }

    /// The one place where a phase is written.
    pub(super) fn enter(
        &mut self,
        version: VersionId,
        next: Phase,
        recorded: Timestamp,
    ) -> Result<&mut VersionState, String> {
        let state = self.known(version)?;
        if !state.phase.may_become(next) {
            return Err(format!("{version} may not become {next} from {}", state.phase));
        }
        state.phase = next;
        state.since = recorded;
        Ok(state)
    }
}
