//! A rolling upgrade to a program that knows one more event, in most of the seeds with several nodes.
//!
//! Nodes that begin before its time know fewer events than those that begin later, under the same version numbers. Clients
//! One node is started again when it begins, the others as it happens, at the latest when the storm is over. Clients
//! write the new event once every version reads it, as the catalog says: the first release reads, the second one writes.
//! From then on it must be in every view, whichever nodes there are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::catalog::{Catalog, Phase};

use crate::world::Program;

/// The event that only the second release knows.
const NEW: &str = "given";

pub struct Upgrade {
    /// The time at which it begins; none where every node knows all events from the start.
    at: Option<Duration>,
    /// The highest code versions that the first release has. Later ones come with the second.
    first: BTreeMap<&'static str, u32>,
    done: AtomicBool,
}

impl Upgrade {
    pub fn new(mut chance: fastrand::Rng, nodes: usize, deployed: &Program) -> Self {
        let at = Duration::from_millis(chance.u64(2_000..9_000));
        let first = deployed.iter().map(|(projection, codes)| (*projection, *codes.end())).collect();
        let is_there = nodes > 1 && chance.u8(..4) > 0;
        Self { at: is_there.then_some(at), first, done: AtomicBool::new(!is_there) }
    }

    /// Returns the time at which it begins, if there is one.
    pub fn at(&self) -> Option<Duration> {
        self.at
    }

    /// Returns true if there is one in this world.
    pub fn is_there(&self) -> bool {
        self.at.is_some()
    }

    /// Returns true if a node that begins now has the program of the first release.
    pub fn is_before(&self, now: Duration) -> bool {
        self.at.is_some_and(|at| now < at)
    }

    /// Returns true if the first release has this code version.
    pub fn is_of_first(&self, projection: &str, code: u32) -> bool {
        self.first.get(projection).is_some_and(|last| code <= *last)
    }

    /// Returns true if clients may write the new event.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// Checks whether every version that there is, or may be, reads the new event.
    pub fn look(&self, catalog: &Catalog) {
        let done = self.first.iter().all(|(projection, last)| {
            let versions = catalog.projections.iter().filter(|(name, _)| name.as_str() == *projection);
            let mut versions = versions.flat_map(|(_, state)| &state.versions).peekable();
            let reads = catalog.versions().filter(|(id, _)| id.projection.as_str() == *projection);
            let all = reads.into_iter().all(|(_, state)| {
                let reads = state.reads.as_ref().is_some_and(|reads| reads.has(NEW));
                state.phase == Phase::Obsolete || (reads && state.announced.is_none())
            });
            versions.peek().is_some() && versions.any(|(id, _)| id.code >= *last) && all
        });
        if done {
            self.done.store(true, Ordering::SeqCst);
        }
    }
}
