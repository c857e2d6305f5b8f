//! Pauses between tries, longer each time and never the same on two nodes.

use std::time::Duration;

use crate::limits;

/// The pauses of one loop.
#[derive(Debug)]
pub(crate) struct BackOff {
    chance: u64,
    next: Duration,
}

impl BackOff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { chance: seed, next: limits::BACK_OFF_TIME_MIN }
    }

    /// Returns the next pause: between the half and the whole of a time that doubles up to its bound.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(limits::BACK_OFF_TIME_MAX);
        // SplitMix64.
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        whole / 2 + (whole / 2).mul_f64((mixed >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// It worked: the next pause is a short one again.
    pub(crate) fn reset(&mut self) {
        self.next = limits::BACK_OFF_TIME_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_differ() {
        let (mut one, mut other) = (BackOff::new(1), BackOff::new(2));
        let mut whole = limits::BACK_OFF_TIME_MIN;
        for _ in 0..20 {
            let (a, b) = (one.pause(), other.pause());
            assert!(a >= whole / 2 && a <= whole && a != b, "{a:?} of {whole:?}, {b:?}");
            whole = (whole * 2).min(limits::BACK_OFF_TIME_MAX);
        }
        one.reset();
        assert!(one.pause() <= limits::BACK_OFF_TIME_MIN);
    }
}
