//! The rules of the background checks: when they rest, which version is checked, and what is shown of the result.
//!
//! The rows of a serving version must equal a fold of its events. A fold takes the events in the order of the journal,
//! each once. A view has the same rows only if it also took them so. Events that were set aside may be applied later or
//! never, also by a replay in place over rows that stay. Nothing records which rows that has touched, so such a version
//! is not compared until it is rebuilt.

use std::fmt;
use std::time::Duration;

use crate::catalog::ProjectionState;
use crate::limits;
use crate::numbers::grouped;
use crate::position::Position;
use crate::reads::Reads;
use crate::segment::SegmentCount;
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

/// Checks that the rows of a version are compared with what code that reads these events in so many segments makes of
/// past events. `leaves_out`: the version's options leave the part [`Fold`](crate::verify::Part::Fold) out.
///
/// # Errors
/// The reason why they are not compared.
pub fn may_compare(
    projection: &ProjectionState,
    version: VersionId,
    segments: SegmentCount,
    reads: &Reads,
    leaves_out: bool,
) -> Result<(), String> {
    is_fold(projection, version).map_err(|why| why.to_string())?;
    let Some(state) = projection.versions.get(&version) else { return Ok(()) };
    match state.unlike(segments, reads) {
        Some(unlike) => Err(unlike.to_string()),
        None if state.seed.is_some() && leaves_out => {
            Err("it began as a copy, and its options leave that part out".to_owned())
        }
        None => Ok(()),
    }
}

/// The consequence of a check of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterCheck {
    /// The result before it stays the last one.
    Forget,
    /// It is kept, and the next check is at the same place, so that it notices when the rows are right.
    Again,
    /// It is kept, and the next check is at the next place.
    GoOn,
}

/// Returns the consequence of a check of rows. `was_wrong`: the result before it shows wrong rows. Rows that could not be
/// checked stay as wrong as before.
pub fn after_check(outcome: &Outcome, was_wrong: bool) -> AfterCheck {
    match outcome {
        Outcome::NotDone { .. } if was_wrong => AfterCheck::Forget,
        Outcome::Failed => AfterCheck::Again,
        Outcome::Passed | Outcome::NotDone { .. } => AfterCheck::GoOn,
    }
}

/// Returns true if a version has much to do and makes progress, so that background checks wait. `reasons` are those that
/// its processor reports.
pub fn has_much_to_do(reasons: &[WaitingOn], lag: u64) -> bool {
    let works = |reason: &WaitingOn| {
        matches!(reason, WaitingOn::Share { .. } | WaitingOn::Copy { .. } | WaitingOn::Index { .. })
    };
    reasons.iter().all(works) && lag > limits::READY_LAG_MAX
}

/// Returns the rest after each check of pages, if a pass over all views has this many checks.
pub fn rest_of_pages(checks: u32) -> Duration {
    (limits::SCRUB_TIME / checks.max(1)).clamp(limits::SCRUB_REST_MIN, limits::SCRUB_REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, CatalogEvent, FlipPolicy};
    use crate::letter::{LettersOf, WhichLetters, Wish};
    use crate::name::ProjectionName;
    use crate::replay::ReplayRows;
    use crate::share::WorkShare;
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
    fn a_pass_over_the_pages_takes_a_day_unless_there_is_little() {
        assert_eq!(rest_of_pages(0), limits::SCRUB_REST_MAX);
        assert_eq!(rest_of_pages(100), limits::SCRUB_REST_MAX);
        assert_eq!(rest_of_pages(86_400), Duration::from_secs(1));
        assert_eq!(rest_of_pages(u32::MAX), limits::SCRUB_REST_MIN);
    }

    #[test]
    fn checks_wait_for_a_version_that_works_on_a_large_lag() {
        let far = limits::READY_LAG_MAX + 1;
        let reasons = [WaitingOn::Share { share: WorkShare::ALL }, WaitingOn::Paused];
        assert!(has_much_to_do(&[], far) && has_much_to_do(&reasons[..1], far));
        assert!(!has_much_to_do(&[], limits::READY_LAG_MAX));
        assert!(!has_much_to_do(&reasons, far), "it may rest for ever");
    }

    #[test]
    fn rows_that_were_wrong_are_checked_until_they_are_right() {
        let undone = || Outcome::NotDone { why: "no".into() };
        let after = |outcome: &Outcome| [false, true].map(|was_wrong| after_check(outcome, was_wrong));
        assert_eq!(after(&Outcome::Passed), [AfterCheck::GoOn; 2]);
        assert_eq!(after(&Outcome::Failed), [AfterCheck::Again; 2]);
        assert_eq!(after(&undone()), [AfterCheck::GoOn, AfterCheck::Forget]);
    }

    #[test]
    fn only_rows_of_the_recorded_code_are_compared_and_those_of_a_copy_if_its_options_let_them() {
        let mut catalog = Catalog::default();
        for (event, position) in [scheduled(1, None), scheduled(2, Some(1))].into_iter().zip(1..) {
            catalog.evolve(&event, Position::new(position), Timestamp::from_micros(0)).unwrap();
        }
        let projection = catalog.projections.values().next().unwrap();
        let may = |build, segments, leaves_out| {
            may_compare(projection, version(build), segments, &Reads::default(), leaves_out)
        };
        assert_eq!(may(1, SegmentCount::ONE, true), Ok(()), "it is no copy");
        assert_eq!(may(2, SegmentCount::ONE, false), Ok(()));
        assert!(may(2, SegmentCount::ONE, true).unwrap_err().starts_with("it began as a copy"));
        assert!(may(1, SegmentCount::new(2).unwrap(), false).unwrap_err().starts_with("it has 2 segments"));
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
