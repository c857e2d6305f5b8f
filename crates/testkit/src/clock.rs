//! A clock that a test sets.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dacapo::journal::Timestamp;
use dacapo::world::Clock;

/// A clock that stands still until a test moves it. It begins at the Unix epoch.
///
/// ```
/// use std::time::Duration;
///
/// use dacapo::world::Clock;
/// use dacapo_testkit::ManualClock;
///
/// let clock = ManualClock::default();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().micros(), 60_000_000);
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
    /// The time that has passed, in microseconds.
    passed: AtomicU64,
    began: OnceLock<Instant>,
}

impl ManualClock {
    /// Sets the clock, as somebody sets the clock of a machine: the events that follow get this time, and no time passes.
    /// So no stand-by ends by it, and no wait for a retry.
    pub fn set(&self, time: Timestamp) {
        self.now.store(time.micros(), Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let later = |now: i64| Some(now.saturating_add_unsigned(micros));
        let longer = |passed: u64| Some(passed.saturating_add(micros));
        // The closures always return a time.
        let _ = self.now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        let _ = self.passed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, longer);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Instant {
        let began = *self.began.get_or_init(|| tokio::time::Instant::now().into_std());
        let passed = Duration::from_micros(self.passed.load(Ordering::SeqCst));
        began.checked_add(passed).unwrap_or(began)
    }
}
