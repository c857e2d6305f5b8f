//! How long each version has stood by.
//!
//! Times of events do not tell that: a clock may have been set since. So this node counts for itself from the moment at
//! which it sees that a version stands by. Only for a version that stood by before the node started, the time of the
//! event counts, by the clock at the start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dacapo_model::{Catalog, Phase, Timestamp, VersionState, ViewId};
use dacapo_store::Clock;

/// A stand-by, and the time since when it is counted.
#[derive(Clone, Copy)]
struct Stand {
    /// The time of the event that began it, which tells it from an earlier one.
    since: Timestamp,
    /// The time on the steady clock.
    from: Timestamp,
}

/// How long each version has stood by.
pub(crate) struct Stands {
    /// A steady one.
    clock: Arc<dyn Clock>,
    stands: Mutex<BTreeMap<ViewId, Stand>>,
}

impl Stands {
    /// Begins with the versions that stand by in the catalog when the node starts.
    pub(crate) fn new(clock: Arc<dyn Clock>, catalog: &Catalog) -> Self {
        let now = clock.now();
        let stands = standing_by(catalog);
        let stands = stands.map(|(id, since)| (id, Stand { since, from: since.min(now) })).collect();
        Self { clock, stands: Mutex::new(stands) }
    }

    /// Returns how long each version has stood by, and forgets those that do not.
    pub(crate) fn look(&self, catalog: &Catalog) -> BTreeMap<ViewId, Duration> {
        let mut stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        *stands = standing_by(catalog).map(|(id, since)| (id.clone(), stand(stands.get(&id), since, now))).collect();
        stands.iter().map(|(id, stand)| (id.clone(), now.since(stand.from))).collect()
    }

    /// Returns how long a version has stood by; zero if it does not.
    pub(crate) fn stands_for(&self, id: &ViewId, state: &VersionState) -> Duration {
        if state.phase != Phase::StandingBy {
            return Duration::ZERO;
        }
        let mut stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let stand = stand(stands.get(id), state.since, now);
        stands.insert(id.clone(), stand);
        now.since(stand.from)
    }
}

/// Returns the stand-by that began at `since`: the known one, or a new one that is counted from `now`.
fn stand(known: Option<&Stand>, since: Timestamp, now: Timestamp) -> Stand {
    let known = known.filter(|known| known.since == since);
    known.copied().unwrap_or(Stand { since, from: now })
}

fn standing_by(catalog: &Catalog) -> impl Iterator<Item = (ViewId, Timestamp)> {
    let standing_by = catalog.versions().filter(|(_, state)| state.phase == Phase::StandingBy);
    standing_by.map(|(id, state)| (id, state.since))
}
