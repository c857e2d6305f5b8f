//! Failed work that is retried and is not the application of an event: the reset before a replay in place, and the copy
//! at the beginning.

use std::time::Duration;

use dacapo_model::{Retry, Timestamp};

/// The failed tries so far.
pub(super) struct Tried {
    pub(super) attempts: u32,
    /// The last error.
    pub(super) error: String,
    due: Timestamp,
}

impl Tried {
    /// Returns the tries after one more failure. The next one waits as long as that of a refused event.
    pub(super) fn again(before: Option<&Self>, error: String, retry: Retry, now: Timestamp) -> Self {
        let attempts = before.map_or(1, |before| before.attempts.saturating_add(1));
        Self { attempts, error, due: now.plus(retry.wait(attempts)) }
    }

    /// Returns true if the next try is not due yet.
    pub(super) fn rests(&self, now: Timestamp) -> bool {
        self.due > now
    }

    /// Returns the time until the next try. A try that is due already waits for something else.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        self.rests(now).then(|| self.due.since(now))
    }

    /// Makes the next try due.
    pub(super) fn try_now(&mut self, now: Timestamp) {
        self.due = self.due.min(now);
    }
}
