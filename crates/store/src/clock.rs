//! Time as an argument, so that a test or the simulator sets it.

use dacapo_model::Timestamp;

/// A source of the present time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time. Somebody may set the clock at any moment, so two readings do not tell how much time has
    /// passed between them.
    fn now(&self) -> Timestamp;

    /// Returns the present point of a clock that nobody sets. Only the time between two points of the same clock means
    /// anything. Default: the clock of tokio, which a simulator can steer.
    fn steady(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the time comes in")]
    fn now(&self) -> Timestamp {
        let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        })
    }
}

/// Returns a UUID of version 7 for this time. A time before 1970, which the form cannot express, is replaced by 1970.
/// Then only the random part makes the UUID unique.
#[expect(clippy::disallowed_methods, reason = "the one place where ids come in")]
pub fn uuid_at(now: std::time::SystemTime) -> [u8; 16] {
    let id = match now.duration_since(std::time::UNIX_EPOCH) {
        Ok(_) => uuid::Uuid::now_v7(),
        Err(_) => uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 0, 0)),
    };
    id.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_clock_before_1970_makes_ids() {
        let early = UNIX_EPOCH - Duration::from_secs(1);
        let (one, other) = (uuid_at(early), uuid_at(early));
        assert!(one != other && one[6] >> 4 == 7, "{one:?} {other:?}");
        assert_eq!(one[..6], [0; 6]);
    }
}
