//! Work beside events that failed and is tried again: the reset before a replay in place, the copy to begin with.

use dacapo_model::Retry;
use tokio::time::{Duration, Instant};

/// What was tried, in vain so far.
pub(super) struct Tried {
    pub(super) attempts: u32,
    /// What was said last.
    pub(super) error: String,
    due: Instant,
}

impl Tried {
    /// It failed once more than `before`, and rests as long as a refused event would.
    pub(super) fn again(before: Option<&Self>, error: String, retry: Retry) -> Self {
        let attempts = before.map_or(1, |before| before.attempts.saturating_add(1));
        Self { attempts, error, due: Instant::now() + retry.wait(attempts) }
    }

    /// Whether the next try is not due yet.
    pub(super) fn rests(&self) -> bool {
        self.due > Instant::now()
    }

    /// In how long it is tried again.
    pub(super) fn due_in(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// The next try is due.
    pub(super) fn try_now(&mut self) {
        self.due = Instant::now();
    }
}
