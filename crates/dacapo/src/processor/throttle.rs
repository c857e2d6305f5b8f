//! Rests, so that a version that is built far from the head leaves the machine to those that serve.
//!
//! It rests after every few milliseconds of work rather than after a batch, which may take seconds: whoever serves
//! would wait for those, however long the rest behind it.

use std::time::Duration;

use dacapo_model::WorkShare;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits;

pub(super) struct Throttle {
    asked: watch::Receiver<WorkShare>,
    /// That of the batch under way.
    share: WorkShare,
    /// When it last rested, or began.
    since: Instant,
    /// For how long it has rested in this batch.
    rested: Duration,
}

impl Throttle {
    pub(super) fn new(asked: watch::Receiver<WorkShare>) -> Self {
        Self { asked, share: WorkShare::ALL, since: Instant::now(), rested: Duration::ZERO }
    }

    /// A batch begins. Near the head nothing rests: what is to serve soon has to keep up.
    pub(super) fn begin(&mut self, far: bool) {
        let asked = *self.asked.borrow_and_update();
        self.share = if far { asked } else { WorkShare::ALL };
        (self.since, self.rested) = (Instant::now(), Duration::ZERO);
    }

    /// The share that it keeps to, if that is not all.
    pub(super) fn share(&self) -> Option<WorkShare> {
        (self.share < WorkShare::ALL).then_some(self.share)
    }

    /// Whether another share is asked for since the batch began.
    pub(super) fn is_told(&self) -> bool {
        self.asked.has_changed().unwrap_or(false)
    }

    /// How much of the time since `started`, when the batch began, it has worked.
    pub(super) fn worked(&self, started: Instant) -> Duration {
        started.elapsed().saturating_sub(self.rested)
    }

    /// The rest that is due, if it is long enough to be taken.
    pub(super) fn due(&self) -> Option<Duration> {
        Some(self.share.rest(self.since.elapsed())).filter(|rest| *rest >= limits::THROTTLE_REST_MIN)
    }

    /// It has rested for this long.
    pub(super) fn rested(&mut self, rest: Duration) {
        self.rested += rest;
        self.since = Instant::now();
    }
}
