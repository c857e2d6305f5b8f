//! The rule whether the rows of a serving version must equal a fold of its events, and the reason that it shows if
//! they do not.
//!
//! A fold takes the events in the order of the journal, each once. A view has the same rows only if it also took them
//! so. Events that were set aside may be applied later or never, also by a replay in place over rows that stay.
//! Nothing records which rows that has touched, so such a version is not compared until it is rebuilt.

use std::fmt;

use crate::catalog::ProjectionState;
use crate::numbers::grouped;
use crate::position::Position;
use crate::time::Timestamp;
use crate::verify::{Outcome, PartReport};
use crate::version::VersionId;
use crate::waiting::WaitingOn;

/// The result of a check of the rows of a version that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubResult {
    /// The time at which it ended.
    pub at: Timestamp,
    /// The position that the checked rows cover.
    pub position: Position,
    /// Its findings. In them, `old` is what the events make, and `new` is what the view has.
    pub report: PartReport,
}

impl ScrubResult {
    /// Returns the reason that somebody must look at the rows, if anything was wrong.
    pub fn waiting_on(&self) -> Option<WaitingOn> {
        if self.report.outcome != Outcome::Failed {
            return None;
        }
        let first = self.report.findings.first()?.clone();
        let text = |text: Option<String>| text.unwrap_or_else(|| "no row".to_owned());
        Some(WaitingOn::Rows {
            position: self.position,
            looked_at: self.report.looked_at,
            wrong: self.report.wrong.iter().map(|(_, count)| count).sum(),
            table: first.place,
            key: first.key.unwrap_or_default(),
            made: text(first.old),
            found: text(first.new),
        })
    }
}

/// The reason why the rows of a version may differ from a fold of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFold {
    /// Events were applied later than they came, or never.
    Late {
        /// The version in which this happened: itself, or one that it began as a copy of.
        version: VersionId,
        /// The position of the first request for it.
        position: Position,
    },
    /// It began as a copy, and an operator waived the verdict on it.
    Waived {
        /// The version: itself, or one that it began as a copy of.
        version: VersionId,
    },
}

impl fmt::Display for NoFold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late { version, position } => write!(
                f,
                "dead letters of {version} were retried or dropped, or it was replayed in place over rows that stayed \
                 (from position {} on); until it is rebuilt, its rows may differ from those of its events in order",
                grouped(position.get())
            ),
            Self::Waived { version } => {
                write!(f, "{version} began as a copy, and an operator waived the verdict on it")
            }
        }
    }
}

/// Checks whether the rows of a version must equal a fold of its events through its tokens, by the state of the
/// catalog after they were read: a change of a version is in the catalog before it is in its view. A replay that
/// resets its rows moves the tokens with them, so the rows equal a fold all the time.
///
/// # Errors
/// [`NoFold`] if they need not be equal.
pub fn is_fold(projection: &ProjectionState, version: VersionId) -> Result<(), NoFold> {
    let mut next = Some(version);
    // A version is a copy of one that was scheduled before it, so this chain is no longer than the number of
    // versions.
    for _ in 0..projection.versions.len() {
        let Some((version, state)) = next.and_then(|id| projection.versions.get_key_value(&id)) else { break };
        if let Some(position) = state.late {
            return Err(NoFold::Late { version: *version, position });
        }
        let is_waived = state.verified.as_ref().is_some_and(|verified| verified.waived.is_some());
        if state.seed.is_some() && is_waived {
            return Err(NoFold::Waived { version: *version });
        }
        next = state.seed;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, CatalogEvent, FlipPolicy};
    use crate::letter::{LettersOf, WhichLetters, Wish};
    use crate::name::ProjectionName;
    use crate::replay::ReplayRows;
    use crate::segment::SegmentCount;
    use crate::version::ViewId;

    fn version(build: u32) -> VersionId {
        VersionId { code: 1, build }
    }

    fn view(build: u32) -> ViewId {
        ViewId { projection: ProjectionName::new("p").unwrap(), version: version(build) }
    }

    fn scheduled(build: u32, seed: Option<u32>) -> CatalogEvent {
        CatalogEvent::Scheduled {
            view: view(build),
            segments: SegmentCount::ONE,
            flip: FlipPolicy::WhenReady,
            fingerprint: String::new(),
            reads: None,
            seed: seed.map(version),
        }
    }

    fn decided(of: LettersOf) -> CatalogEvent {
        CatalogEvent::LettersDecided { view: view(1), of, which: WhichLetters::All, wish: Wish::Retry }
    }

    fn replay(rows: ReplayRows) -> CatalogEvent {
        CatalogEvent::ReplayRequested { view: view(1), after: Position::START, rows }
    }

    /// Returns the results for builds 1, 2 and 3. The second is a copy of the first, and the third of the second.
    fn said(events: impl IntoIterator<Item = CatalogEvent>) -> [Result<(), NoFold>; 3] {
        let mut catalog = Catalog::default();
        let builds = [scheduled(1, None), scheduled(2, Some(1)), scheduled(3, Some(2))];
        for (event, position) in builds.into_iter().chain(events).zip(1..) {
            catalog.evolve(&event, Position::new(position), Timestamp::from_micros(0)).unwrap();
        }
        let projection = catalog.projections.values().next().unwrap();
        [1, 2, 3].map(|build| is_fold(projection, version(build)))
    }

    #[test]
    fn only_a_view_that_took_its_events_in_their_order_is_a_fold_of_them() {
        assert_eq!(said([]), [Ok(()); 3]);
        assert_eq!(said([decided(LettersOf::Effects)]), [Ok(()); 3], "effects are no rows");
        let late = Err(NoFold::Late { version: version(1), position: Position::new(4) });
        assert_eq!(said([decided(LettersOf::Events), decided(LettersOf::Events)]), [late; 3], "nor are its copies");
        let ended = CatalogEvent::ReplayEnded { view: view(1) };
        assert_eq!(said([replay(ReplayRows::Keep), ended]), [late; 3]);
        assert_eq!(said([replay(ReplayRows::Reset)]), [Ok(()); 3], "rows and tokens go back together");
    }
}
