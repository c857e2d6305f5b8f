//! Random numbers, so that nodes that lost the database at the same time do not all come back at the same time.

use dacapo_model::BackOff;

use crate::limits;

/// Random numbers from a seed, by SplitMix64. They need not be hard to guess.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number. All numbers are equally likely.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Returns the pauses of a loop that tries to reach the database.
pub(crate) fn back_off() -> BackOff {
    BackOff::new(limits::BACK_OFF_PAUSE_FIRST, limits::BACK_OFF_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // As its authors publish them for this seed.
        let mut chance = Chance::new(1_234_567);
        let numbers = [(); 3].map(|()| chance.number());
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn two_nodes_do_not_pause_for_the_same_time() {
        let (mut one, mut other) = (Chance::new(1), Chance::new(2));
        let (mut of_one, mut of_other) = (back_off(), back_off());
        for _ in 0..20 {
            assert_ne!(of_one.pause_at_random(one.number()), of_other.pause_at_random(other.number()));
        }
    }
}
