//! The observations of every version that is kept up to date, from which its pace is computed.
//!
//! The conductor observes each version in each of its rounds, and so does a caller that asks for the status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dacapo_model::progress::{Look, Trail};
use dacapo_model::{Position, Token, ViewId};
use tokio::time::Instant;

pub(crate) struct Trails {
    begun: Instant,
    trails: Mutex<BTreeMap<ViewId, Trail>>,
}

impl Trails {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), trails: Mutex::default() }
    }

    /// Returns the time since the node began, which all observations use.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Records the progress of a version, with what it has `reached` of a batch under way, and returns its trail.
    pub(crate) fn look(&self, id: &ViewId, tokens: &[Token], reached: Option<Position>, head: Position) -> Trail {
        let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        let trail = trails.entry(id.clone()).or_default();
        if let Some(covers) = tokens.iter().map(|token| token.position).min() {
            trail.look(Look { at: self.now(), covers: reached.unwrap_or(covers).max(covers), head });
        }
        trail.clone()
    }

    /// Forgets a version that is no longer kept up to date.
    pub(crate) fn forget(&self, id: &ViewId) {
        self.trails.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
