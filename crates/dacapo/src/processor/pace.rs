//! The size of batches.

use std::time::Duration;

use crate::limits;

/// The largest growth from one batch to the next. The time of a commit is not known before, so the first batches are no
/// measure for the largest ones.
const GROWTH_MAX: f64 = 16.0;

/// The size of batches, adapted so that each takes about [`limits::BATCH_TIME_TARGET`];
/// [`limits::BATCH_TIME_TARGET_FAR`] while the head is far; and [`limits::BATCH_TIME_TARGET_BUILD`] in a version that
/// answers nobody. That is long enough to spread the cost of a commit, and short enough that readers near the head, a
/// hold or a shutdown do not wait for it.
pub(super) struct Pace {
    events: usize,
    events_max: usize,
    target: Duration,
}

impl Pace {
    pub(super) fn new(events_max: usize) -> Self {
        let events_max = events_max.clamp(1, limits::BATCH_EVENTS_MAX);
        Self { events: limits::BATCH_EVENTS_FIRST.min(events_max), events_max, target: limits::BATCH_TIME_TARGET }
    }

    /// Sets the target for the next batch, which begins `lag` positions before the head. `answers` is true if the
    /// version has readers.
    pub(super) fn aim(&mut self, lag: u64, answers: bool) {
        self.target = match (lag > limits::READY_LAG_MAX, answers) {
            (false, _) => limits::BATCH_TIME_TARGET,
            (true, true) => limits::BATCH_TIME_TARGET_FAR,
            (true, false) => limits::BATCH_TIME_TARGET_BUILD,
        };
    }

    /// Returns true if the head is far from the beginning of the next batch.
    pub(super) fn is_far(&self) -> bool {
        self.target > limits::BATCH_TIME_TARGET
    }

    /// Returns the time that the next batch should take.
    pub(super) fn target(&self) -> Duration {
        self.target
    }

    /// Returns the most events of the next batch.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Records that a batch of `events` took `elapsed`. Batches that were not full show nothing about larger ones.
    pub(super) fn took(&mut self, events: usize, elapsed: Duration) {
        let slow = elapsed > self.target;
        if events < self.events && !slow {
            return;
        }
        let scale = self.target.as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
        let wanted = (events as f64 * scale.clamp(0.25, GROWTH_MAX)) as usize;
        self.events = wanted.clamp(limits::BATCH_EVENTS_MIN.min(self.events_max), self.events_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_approach_the_time_they_should_take() {
        let mut pace = Pace::new(50_000);
        for _ in 0..20 {
            let events = pace.events();
            pace.took(events, Duration::from_micros(events as u64 * 10));
        }
        assert!((9_000..=11_000).contains(&pace.events()), "{}", pace.events());
    }

    #[test]
    fn far_from_the_head_batches_take_longer() {
        for (answers, events) in [(true, 90_000..=110_000), (false, 360_000..=440_000)] {
            let mut pace = Pace::new(limits::BATCH_EVENTS_MAX);
            pace.aim(limits::READY_LAG_MAX + 1, answers);
            for _ in 0..20 {
                pace.took(pace.events(), Duration::from_micros(pace.events() as u64 * 10));
            }
            assert!(events.contains(&pace.events()), "{}", pace.events());
            assert!(pace.is_far());
            pace.aim(limits::READY_LAG_MAX, answers);
            assert_eq!((pace.target(), pace.is_far()), (limits::BATCH_TIME_TARGET, false));
        }
    }

    #[test]
    fn a_batch_that_was_not_full_does_not_enlarge_the_next() {
        let mut pace = Pace::new(50_000);
        pace.took(3, Duration::from_micros(1));
        assert_eq!(pace.events(), limits::BATCH_EVENTS_FIRST);
    }

    #[test]
    fn a_slow_handler_makes_batches_small() {
        let mut pace = Pace::new(50_000);
        for _ in 0..20 {
            pace.took(pace.events(), Duration::from_millis(50 * pace.events() as u64));
        }
        assert_eq!(pace.events(), limits::BATCH_EVENTS_MIN);
        assert_eq!(Pace::new(5).events(), 5);
    }
}
