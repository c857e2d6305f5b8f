//! The pauses between the tries of something that fails.

use std::time::Duration;

/// The pauses of one loop that retries: the first one, then each twice as long as the one before, up to the longest.
///
/// It knows no clock: the caller sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    first: Duration,
    max: Duration,
    /// The number of pauses since the last reset.
    pauses: u32,
}

impl BackOff {
    /// Begins with a pause of `first`. No pause is longer than `max`, not even the first one.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, pauses: 0 }
    }

    /// Counts a failure, and returns the pause after it.
    pub fn pause(&mut self) -> Duration {
        self.pauses = self.pauses.saturating_add(1);
        self.after(self.pauses)
    }

    /// Counts a failure, and returns the pause after it, shortened by up to a half as `random` says. So two nodes that
    /// failed at the same time do not retry at the same time. All values of `random` must be equally likely.
    pub fn pause_at_random(&mut self, random: u64) -> Duration {
        let half = self.pause() / 2;
        // Half of the random bits are exact enough, and the product fits.
        half + Duration::from_nanos_u128((half.as_nanos() * u128::from(random >> 32)) >> 32)
    }

    /// Returns the pause after so many failures in a row, for a caller that counts them itself. 0 counts as 1.
    pub fn after(&self, failures: u32) -> Duration {
        // 127 doublings of one nanosecond are more than any duration.
        let factor = 1_u128 << failures.saturating_sub(1).min(127);
        Duration::from_nanos_u128(self.first.as_nanos().saturating_mul(factor).min(self.max.as_nanos()))
    }

    /// Begins again: the next pause is the first one.
    pub fn reset(&mut self) {
        self.pauses = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_reset() {
        let mut back_off = BackOff::new(millis(100), millis(500));
        for _ in 0..2 {
            let pauses = [(); 5].map(|()| back_off.pause().as_millis());
            assert_eq!(pauses, [100, 200, 400, 500, 500]);
            back_off.reset();
        }
        assert_eq!([0, 1, 2, 3, 4].map(|failures| back_off.after(failures).as_millis()), [100, 100, 200, 400, 500]);
    }

    #[test]
    fn a_first_pause_beyond_the_longest_is_the_longest() {
        assert_eq!(BackOff::new(millis(3), millis(2)).pause(), millis(2));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let never = BackOff::new(Duration::MAX, Duration::MAX);
        assert_eq!([1, 2, 128, u32::MAX].map(|failures| never.after(failures)), [Duration::MAX; 4]);
        let mut late = BackOff { pauses: u32::MAX, ..BackOff::new(Duration::from_nanos(1), Duration::MAX) };
        assert_eq!((late.pause(), late.pause()), (Duration::MAX, Duration::MAX));
        let none = BackOff::new(Duration::ZERO, Duration::MAX);
        assert_eq!(none.after(u32::MAX), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn every_pause_is_twice_the_one_before_or_the_longest(
            first in 1_u64..u64::MAX,
            max in 0_u64..u64::MAX,
            pauses in 1_usize..200,
        ) {
            let (first, max) = (Duration::from_nanos(first), Duration::from_nanos(max));
            let mut back_off = BackOff::new(first, max);
            let mut expected = first.min(max);
            for nth in 1..=pauses {
                let pause = back_off.pause();
                prop_assert_eq!(pause, expected);
                prop_assert_eq!(pause, back_off.after(nth as u32));
                expected = expected.saturating_mul(2).min(max);
            }
            // 64 doublings reach the longest from any first pause.
            prop_assert!(pauses <= 64 || back_off.pause() == max);
            back_off.reset();
            prop_assert_eq!(back_off.pause(), first.min(max));
        }

        #[test]
        fn chance_shortens_a_pause_by_no_more_than_a_half(
            first in 1_u64..u64::MAX,
            max in 0_u64..u64::MAX,
            random: u64,
            failures in 0_u32..100,
        ) {
            let whole = BackOff { pauses: failures, ..BackOff::new(Duration::from_nanos(first), Duration::from_nanos(max)) };
            let pause = |random| { let mut back_off = whole; (back_off.pause_at_random(random), back_off) };
            let (shortened, after) = pause(random);
            let longest = whole.after(failures + 1);
            prop_assert!(shortened >= longest / 2 && shortened <= longest, "{shortened:?} of {longest:?}");
            prop_assert!(pause(0).0 <= shortened && shortened <= pause(u64::MAX).0);
            prop_assert_eq!(after.pauses, failures + 1, "it counts as a pause");
        }
    }
}
