//! From an event to the next state. The change that each event makes is beside the event.

use std::fmt;

use crate::catalog::{Catalog, CatalogEvent, ProjectionState, VersionState};
use crate::phase::Phase;
use crate::position::Position;
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
    pub(super) fn builds_of(&mut self, code: u32) -> impl Iterator<Item = &mut VersionState> {
        self.versions.iter_mut().filter(move |(id, _)| id.code == code).map(|(_, state)| state)
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
