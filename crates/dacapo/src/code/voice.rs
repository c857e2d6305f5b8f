//! The assignment of effects to versions (I-9), as processors see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use dacapo_model::{PastEffects, Position, ProjectionState, Segment, VersionId, Voice};

/// The assignment of effects to versions, as far as the catalog is known. The conductor gives it to processors, so that
/// they do not keep effects that another version must make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Voices {
    /// Only the parts that decide about voices.
    projection: ProjectionState,
    /// The position through which all catalog events are known.
    through: Position,
}

impl Voices {
    pub(crate) fn new(projection: &ProjectionState, through: Position) -> Self {
        let (first, served) = (projection.first, projection.served.clone());
        Self { projection: ProjectionState { first, served, ..ProjectionState::default() }, through }
    }
}

/// The events for which a version keeps effects in the outbox.
pub(crate) struct Speaks {
    pub(crate) version: VersionId,
    pub(crate) past: PastEffects,
    pub(crate) voices: Voices,
    /// For each segment the last position that it had applied before a replay.
    pub(crate) replays_through: Vec<Position>,
    /// Events through those positions that were set aside then, so that their effects were never kept.
    pub(crate) unspoken: Arc<BTreeSet<Position>>,
}

impl Speaks {
    /// Returns true if the effects of an event are certainly not this version's to make, or were kept when it applied
    /// the event the first time.
    pub(crate) fn is_silent(&self, segment: Segment, position: Position) -> bool {
        let voice = || self.voices.projection.voice(position, self.past);
        let other = || !matches!(voice(), Voice::First) && voice() != Voice::Of(self.version);
        let again = position <= self.replays_through[usize::from(segment.get())] && !self.unspoken.contains(&position);
        again || (position <= self.voices.through && other())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::SegmentCount;

    #[test]
    fn only_what_may_be_this_versions_to_make_is_kept_and_once() {
        let (one, two) = (VersionId { code: 1, build: 1 }, VersionId { code: 2, build: 1 });
        let served = [(20, one), (30, two)].map(|(since, version)| (Position::new(since), version)).to_vec();
        let projection = ProjectionState { first: Some(Position::new(10)), served, ..ProjectionState::default() };
        let speaks = Speaks {
            version: one,
            past: PastEffects::Silent,
            voices: Voices::new(&projection, Position::new(50)),
            replays_through: vec![Position::new(22), Position::START],
            unspoken: Arc::new(BTreeSet::from([Position::new(12)])),
        };
        let count = SegmentCount::new(2).unwrap();
        let silent = |segment, position| speaks.is_silent(count.segment(segment).unwrap(), Position::new(position));
        assert!(silent(1, 5), "it was there before the projection");
        assert!(!silent(1, 11) && silent(0, 11), "its own, but kept when the segment came past it first");
        assert!(!silent(0, 12), "it was set aside then");
        assert!(!silent(0, 25) && silent(0, 35), "the other version's");
        assert!(!silent(0, 60), "whose it is is not known yet");
    }
}
