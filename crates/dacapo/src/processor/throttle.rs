//! Pauses, so that a version that is built far from the head leaves the machine to the serving versions.
//!
//! It pauses after every few milliseconds of work, and not after a batch, which may take seconds: the serving versions
//! would wait for the whole batch, however long the pause after it.

use std::time::Duration;

use dacapo_model::WorkShare;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits;

pub(super) struct Throttle {
    asked: watch::Receiver<WorkShare>,
    /// The share of the batch under way.
    share: WorkShare,
    /// The time of the end of the last pause, or of the beginning.
    since: Instant,
    /// The total of the pauses in this batch.
    rested: Duration,
}

impl Throttle {
    pub(super) fn new(asked: watch::Receiver<WorkShare>) -> Self {
        Self { asked, share: WorkShare::ALL, since: Instant::now(), rested: Duration::ZERO }
    }

    /// Begins a batch. Near the head it never pauses: a version that will serve soon must keep up.
    pub(super) fn begin(&mut self, far: bool) {
        let asked = *self.asked.borrow_and_update();
        self.share = if far { asked } else { WorkShare::ALL };
        (self.since, self.rested) = (Instant::now(), Duration::ZERO);
    }

    /// Returns the share that it keeps to, if that is not all.
    pub(super) fn share(&self) -> Option<WorkShare> {
        (self.share < WorkShare::ALL).then_some(self.share)
    }

    /// Returns true if another share was requested since the batch began.
    pub(super) fn is_told(&self) -> bool {
        self.asked.has_changed().unwrap_or(false)
    }

    /// Returns how much of the time since `started`, the beginning of the batch, it has worked.
    pub(super) fn worked(&self, started: Instant) -> Duration {
        started.elapsed().saturating_sub(self.rested)
    }

    /// Returns the pause that is due, if it is long enough to be taken.
    pub(super) fn due(&self) -> Option<Duration> {
        Some(self.share.rest(self.since.elapsed())).filter(|rest| *rest >= limits::THROTTLE_REST_MIN)
    }

    /// Records that it has paused for this long.
    pub(super) fn rested(&mut self, rest: Duration) {
        self.rested += rest;
        self.since = Instant::now();
    }
}
