//! Work beside events that failed and is tried again: the reset before a replay in place, the copy to begin with.

use std::time::Duration;

use dacapo_model::{Retry, Timestamp};

/// What was tried, in vain so far.
pub(super) struct Tried {
    pub(super) attempts: u32,
    /// What was said last.
    pub(super) error: String,
    due: Timestamp,
    wait: Duration,
}

impl Tried {
    /// It failed once more than `before`, and rests as long as a refused event would.
    pub(super) fn again(before: Option<&Self>, error: String, retry: Retry, now: Timestamp) -> Self {
        let attempts = before.map_or(1, |before| before.attempts.saturating_add(1));
        let wait = retry.wait(attempts);
        Self { attempts, error, due: now.plus(wait), wait }
    }

    /// Whether the next try is not due yet. One that would rest longer than it was to was written by a clock that has
    /// been put back since.
    pub(super) fn rests(&self, now: Timestamp) -> bool {
        self.due > now && self.due <= now.plus(self.wait)
    }

    /// In how long it is tried again. One that is due waits for something else.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        self.rests(now).then(|| self.due.since(now))
    }

    /// The next try is due.
    pub(super) fn try_now(&mut self, now: Timestamp) {
        self.due = self.due.min(now);
    }
}
