//! The drivers that a node runs beside its conductor.
//!
//! [`wanted`] is called whenever something changed. A node starts what is wanted and does not run yet. A driver that is
//! not wanted any more notices that itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Catalog;
use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::position::Position;
use crate::rebuild::wants_verification;
use crate::token::Token;
use crate::version::ViewId;

/// The work of a driver. A node runs at most one driver for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Carries out the flip of a projection that is under way.
    Flip(ProjectionName),
    /// Lets SQL from outside find the serving version of a projection. No flip waits for this.
    Publish(ProjectionName),
    /// Verifies a version.
    Verify(ViewId),
    /// Puts live queries to a version that does not serve yet.
    Shadow(ViewId),
    /// Checks the rows of serving versions in the background.
    Scrub,
}

/// The facts about one version on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// True if its code is here.
    pub carried: bool,
    /// True if a live member can get its segments.
    pub capable: bool,
    /// True if this node does for it what one member does alone ([`assign::driver`](crate::assign::driver)).
    pub drives: bool,
    /// True if its processor reports that it waits on something; `None` if no processor runs here.
    pub waits: Option<bool>,
    /// True if its code wants live queries.
    pub live_queries: bool,
    /// The last flip of its projection that SQL from outside sees, if this node has looked a moment ago.
    pub published: Option<Position>,
}

/// The facts from which the wanted drivers follow.
#[derive(Clone, Copy, Debug)]
pub struct WorkFacts<'a> {
    /// The facts about each version on this node.
    pub here: &'a BTreeMap<ViewId, Here>,
    /// The tokens of the versions that are open on this node.
    pub tokens: &'a BTreeMap<ViewId, Vec<Token>>,
    /// The views that lack indexes.
    pub bare: &'a BTreeSet<ViewId>,
    /// The last position of the journal.
    pub head: Position,
}

/// Returns the drivers that shall run on this node, in the order in which they start.
pub fn wanted(catalog: &Catalog, facts: &WorkFacts<'_>) -> Vec<Work> {
    let here = |view: &ViewId| facts.here.get(view).copied().unwrap_or_default();
    let mut wanted = vec![Work::Scrub];
    for (projection, state) in &catalog.projections {
        // Any node may carry it out, but only a node with the code of the new version can know whether that is ready.
        let to = state.flip.map(|flip| here(&ViewId { projection: projection.clone(), version: flip.to }));
        wanted.extend(to.filter(|to| to.carried || !to.capable).map(|_| Work::Flip(projection.clone())));
    }
    for (projection, state) in &catalog.projections {
        let Some((flip, version)) = state.served.last().copied() else { continue };
        let serving = here(&ViewId { projection: projection.clone(), version });
        let lags = serving.published.is_none_or(|published| published < flip);
        wanted.extend((serving.drives && lags).then(|| Work::Publish(projection.clone())));
    }
    for (view, state) in catalog.versions().filter(|(_, state)| state.phase == Phase::Initializing) {
        let Here { drives, waits, live_queries, .. } = here(&view);
        let (Some(tokens), Some(waits)) = (facts.tokens.get(&view), waits.filter(|_| drives)) else { continue };
        // A version that halts or is paused would only be found unfinished. It reports its own wait reasons.
        let verify = wants_verification(state, tokens, facts.bare.contains(&view), facts.head);
        wanted.extend((verify && !state.paused && !waits).then(|| Work::Verify(view.clone())));
        wanted.extend(live_queries.then_some(Work::Shadow(view)));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{CatalogEvent, FlipKind};
    use crate::testing::{self, scheduled, tokens, view};
    use crate::version::VersionId;

    const HEAD: Position = Position::new(100);

    /// v1.1 serves since position 4, and v2.1 is being built.
    fn catalog(more: impl IntoIterator<Item = CatalogEvent>) -> Catalog {
        let begins = |code| CatalogEvent::Initializing { view: view(code) };
        let (from, kind, covers) = (None, FlipKind::Flip, Position::new(3));
        let flips = CatalogEvent::FlipRequested { view: view(1), from, kind };
        let flipped = CatalogEvent::Flipped { view: view(1), from, kind, covers };
        let events = [scheduled(view(1), None), begins(1), flips, flipped, scheduled(view(2), None), begins(2)];
        testing::catalog(events.into_iter().chain(more))
    }

    fn all(catalog: &Catalog, here: impl IntoIterator<Item = (u32, Here)>) -> Vec<Work> {
        let here = here.into_iter().map(|(code, here)| (view(code), here)).collect();
        let tokens = [1, 2].map(|code| (view(code), tokens(&[HEAD.get()]))).into();
        wanted(catalog, &WorkFacts { here: &here, tokens: &tokens, bare: &BTreeSet::new(), head: HEAD })
    }

    /// Returns the wanted drivers beside the one that is always wanted.
    fn of(catalog: &Catalog, here: impl IntoIterator<Item = (u32, Here)>) -> Vec<Work> {
        let mut wanted = all(catalog, here);
        assert_eq!(wanted.remove(0), Work::Scrub);
        wanted
    }

    const RUNS: Here =
        Here { carried: true, capable: true, drives: true, waits: Some(false), live_queries: false, published: None };

    #[test]
    fn a_node_carries_a_flip_out_if_it_has_the_code_or_nobody_can_have_the_segments() {
        let requested = CatalogEvent::FlipRequested {
            view: view(2),
            from: Some(VersionId { code: 1, build: 1 }),
            kind: FlipKind::Flip,
        };
        let catalog = catalog([requested]);
        let flips = |carried, capable| !of(&catalog, [(2, Here { carried, capable, ..Here::default() })]).is_empty();
        assert_eq!(
            [flips(true, true), flips(false, true), flips(true, false), flips(false, false)],
            [true, false, true, true]
        );
    }

    #[test]
    fn the_driver_of_the_serving_version_publishes_it_until_sql_sees_the_last_flip() {
        let catalog = catalog([]);
        let published = |drives, published: Option<u64>| {
            let published = published.map(Position::new);
            of(&catalog, [(1, Here { drives, published, ..Here::default() })])
        };
        let wanted = [Work::Publish(view(1).projection)];
        assert_eq!(published(true, None), wanted);
        assert_eq!(published(true, Some(3)), wanted, "an earlier flip");
        assert_eq!(published(true, Some(4)), []);
        assert_eq!(published(false, None), []);
    }

    #[test]
    fn a_version_is_verified_where_it_is_driven_and_runs_without_a_reason_to_wait() {
        let verifies = |catalog: &Catalog, here| of(catalog, [(2, here)]).contains(&Work::Verify(view(2)));
        let built = catalog([]);
        assert!(verifies(&built, RUNS));
        assert!(!verifies(&built, Here { drives: false, ..RUNS }));
        assert!(!verifies(&built, Here { waits: None, ..RUNS }), "it does not run here");
        assert!(!verifies(&built, Here { waits: Some(true), ..RUNS }), "it would only be found unfinished");
        assert!(!verifies(&catalog([CatalogEvent::Paused { view: view(2) }]), RUNS));
        assert!(!verifies(&catalog([CatalogEvent::Failed { view: view(2), reason: String::new() }]), RUNS));
    }

    #[test]
    fn live_queries_are_put_to_a_version_that_is_being_built_even_while_it_waits() {
        let waits = Here { waits: Some(true), live_queries: true, ..RUNS };
        let built = catalog([CatalogEvent::Paused { view: view(2) }]);
        assert_eq!(of(&built, [(1, Here { published: Some(HEAD), ..waits }), (2, waits)]), [Work::Shadow(view(2))]);
        assert_eq!(of(&built, [(2, Here { drives: false, ..waits })]), []);
    }
}
