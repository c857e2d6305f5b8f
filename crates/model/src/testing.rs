//! What the tests of several rules have in common: one projection, its versions, and their tokens.

use crate::catalog::{Catalog, CatalogEvent, FlipPolicy, ProjectionState};
use crate::name::ProjectionName;
use crate::position::Position;
use crate::segment::{Segment, SegmentCount};
use crate::time::Timestamp;
use crate::token::{Applied, Epoch, Token};
use crate::version::{VersionId, ViewId};

/// Returns a token that nobody has claimed.
pub(crate) fn token(segment: Segment, position: u64) -> Token {
    Token {
        segment,
        epoch: Epoch::new(1),
        position: Position::new(position),
        claimed_by: None,
        held_for: None,
        cap: None,
        applied: Applied::default(),
        replay: None,
    }
}

/// Returns the tokens of a version with one segment for each position.
pub(crate) fn tokens(positions: &[u64]) -> Vec<Token> {
    let count = SegmentCount::new(positions.len() as u16).unwrap();
    count.segments().zip(positions).map(|(segment, position)| token(segment, *position)).collect()
}

/// Returns the first build of this code version.
pub(crate) fn view(code: u32) -> ViewId {
    ViewId { projection: ProjectionName::new("p").unwrap(), version: VersionId { code, build: 1 } }
}

pub(crate) fn scheduled(view: ViewId, seed: Option<VersionId>) -> CatalogEvent {
    let (segments, flip, fingerprint) = (SegmentCount::ONE, FlipPolicy::OnCommand, String::new());
    CatalogEvent::Scheduled { view, segments, flip, fingerprint, reads: None, seed }
}

/// Returns the fold of these events, the first of which is at position 1.
pub(crate) fn catalog(events: impl IntoIterator<Item = CatalogEvent>) -> Catalog {
    let mut catalog = Catalog::default();
    for (event, position) in events.into_iter().zip(1..) {
        catalog.evolve(&event, Position::new(position), Timestamp::from_micros(0)).unwrap();
    }
    catalog
}

/// Returns the state of the one projection after these events.
pub(crate) fn projection(events: impl IntoIterator<Item = CatalogEvent>) -> ProjectionState {
    catalog(events).projections.into_values().next().unwrap()
}
