//! The rules for a view as a whole: whether it is closed, whether its version fails, and whether it is dropped.

use crate::catalog::Catalog;
use crate::phase::Phase;
use crate::version::ViewId;

/// The reason why a view could not be used as the phase of its version requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewFault {
    /// It could not be reached this time.
    Unavailable,
    /// It does not belong to this journal.
    Parted,
    /// What was read is not what was written.
    Corrupt,
    /// It can never be used as it is, such as one whose tables have another form.
    Unfit,
}

/// The consequences of a fault for the version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// True if the view is closed, since nobody may be answered from it.
    pub closes: bool,
    /// True if it is not opened again for a while: an operator may restore it.
    pub rests: bool,
    /// True if the version fails: it is being built and can never be completed. A later build replaces it.
    pub fails: bool,
}

/// Returns the consequences of a look at the view of a version in this phase. `damaged`: the open view has found damage,
/// which may concern only a part of it.
pub fn consequences(phase: Phase, fault: Option<ViewFault>, damaged: bool) -> Consequences {
    // Damage of a part is refused where it is read, and the rest is answered.
    let rests = damaged && fault == Some(ViewFault::Corrupt);
    let lasts = damaged || fault.is_some_and(|fault| fault != ViewFault::Unavailable);
    Consequences {
        closes: rests || fault == Some(ViewFault::Parted),
        rests,
        fails: lasts && phase == Phase::Initializing,
    }
}

/// The consequence for a view that is found when a node starts, before anything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundView {
    /// The journal knows nothing of it. It is left alone: it may be of another journal.
    Unknown,
    /// It must reach no further than the journal, since it will follow it.
    MustMatch,
    /// Its version is gone, so it is dropped: a process that was killed before it knew that has made it again (I-12).
    IsDropped,
    /// Nothing follows.
    Stays,
}

impl Catalog {
    /// Returns the consequence for a view that is found when a node starts.
    pub fn found_view(&self, view: &ViewId) -> FoundView {
        match self.version(view) {
            None => FoundView::Unknown,
            Some(state) if state.phase.applies() && state.parted.is_none() => FoundView::MustMatch,
            Some(state) if state.phase == Phase::Obsolete => FoundView::IsDropped,
            Some(_) => FoundView::Stays,
        }
    }

    /// Returns true if nothing may keep a view of this version: it is obsolete, or was never scheduled.
    pub fn is_gone(&self, view: &ViewId) -> bool {
        self.version(view).is_none_or(|state| state.phase == Phase::Obsolete)
    }

    /// Returns true if the view of this version may be dropped: the catalog has given it up and cannot take that back
    /// (I-12).
    pub fn may_drop(&self, view: &ViewId) -> bool {
        self.is_gone(view) || self.version(view).is_some_and(|state| state.dropping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{CatalogCommand, CatalogEvent, CleanUpReason};
    use crate::journal::Parted;
    use crate::position::Position;
    use crate::testing::{scheduled, view};
    use crate::time::Timestamp;

    #[test]
    fn only_a_fault_that_lasts_has_consequences() {
        let none = Consequences::default();
        for phase in Phase::ALL {
            assert_eq!(consequences(phase, None, false), none);
            assert_eq!(consequences(phase, Some(ViewFault::Unavailable), false), none);
            let parted = consequences(phase, Some(ViewFault::Parted), false);
            assert!(parted.closes && !parted.rests, "nobody is answered from it in {phase}");
            let fails = phase == Phase::Initializing;
            for fault in [ViewFault::Parted, ViewFault::Corrupt, ViewFault::Unfit] {
                assert_eq!(consequences(phase, Some(fault), false).fails, fails, "{fault:?} in {phase}");
            }
            assert_eq!(consequences(phase, None, true), Consequences { fails, ..none }, "the rest is answered");
        }
    }

    #[test]
    fn a_view_rests_if_it_is_damaged_as_a_whole() {
        let whole = consequences(Phase::Serving, Some(ViewFault::Corrupt), true);
        assert_eq!(whole, Consequences { closes: true, rests: true, fails: false });
        let unknown = consequences(Phase::Serving, Some(ViewFault::Corrupt), false);
        assert_eq!(unknown, Consequences::default(), "it was not open, so there is nothing to close");
    }

    // I-12
    #[test]
    fn a_view_is_dropped_only_once_the_catalog_cannot_take_the_clean_up_back() {
        let view = view(1);
        let mut catalog = Catalog::default();
        let mut at = Position::START;
        assert_eq!((catalog.found_view(&view), catalog.may_drop(&view)), (FoundView::Unknown, true));
        let mut tell = |catalog: &mut Catalog, event: &CatalogEvent| {
            at = at.next();
            catalog.evolve(event, at, Timestamp::from_micros(0)).unwrap();
        };
        tell(&mut catalog, &scheduled(view.clone(), None));
        assert_eq!((catalog.found_view(&view), catalog.may_drop(&view)), (FoundView::Stays, false));
        tell(&mut catalog, &CatalogEvent::Initializing { view: view.clone() });
        assert_eq!((catalog.found_view(&view), catalog.may_drop(&view)), (FoundView::MustMatch, false));
        let (same_through, differs_at) = (Position::START, Position::new(1));
        tell(&mut catalog, &CatalogEvent::Parted { view: view.clone(), same_through, differs_at });
        assert_eq!(catalog.version(&view).unwrap().parted, Some(Parted::History { same_through, differs_at }));
        assert_eq!(catalog.found_view(&view), FoundView::Stays, "that is known already");
        let steps = [
            (CatalogCommand::CleanUp { view: view.clone(), reason: CleanUpReason::Asked }, false, FoundView::Stays),
            (CatalogCommand::BeginDrop(view.clone()), true, FoundView::Stays),
            (CatalogCommand::FinishCleanUp(view.clone()), true, FoundView::IsDropped),
        ];
        for (command, drops, found) in steps {
            for event in catalog.decide(&command).unwrap() {
                tell(&mut catalog, &event);
            }
            assert_eq!((catalog.may_drop(&view), catalog.found_view(&view)), (drops, found), "{command:?}");
            assert_eq!(catalog.is_gone(&view), found == FoundView::IsDropped);
        }
    }
}
