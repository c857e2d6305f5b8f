//! The looks at every version that is kept up to date, from which its pace is told.
//!
//! The conductor looks at each version as often as it goes around, and so does whoever asks for the status.

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

    /// The time since the node began, which is that of every look.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Notes how far a version is, with what it has `reached` of a batch under way, and returns what is known of it.
    pub(crate) fn look(&self, id: &ViewId, tokens: &[Token], reached: Option<Position>, head: Position) -> Trail {
        let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        let trail = trails.entry(id.clone()).or_default();
        if let Some(covers) = tokens.iter().map(|token| token.position).min() {
            trail.look(Look { at: self.now(), covers: reached.unwrap_or(covers).max(covers), head });
        }
        trail.clone()
    }

    /// A version is no longer kept up to date.
    pub(crate) fn forget(&self, id: &ViewId) {
        self.trails.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
