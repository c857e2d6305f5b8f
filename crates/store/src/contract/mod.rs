//! The suite that every store must pass, as functions that panic if a store is wrong. The tests of a store pass in how
//! to make one.

pub mod journal;
pub mod members;
pub mod views;

use std::pin::Pin;

use futures::StreamExt;

/// The most checks that run at once if all are one test. More would wait for each other's connections.
const AT_ONCE: usize = 4;

/// Runs checks, a few at a time.
#[doc(hidden)]
pub async fn a_few_at_a_time(checks: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    futures::stream::iter(checks).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// A source of chance that reports its seed, so that a failure can be repeated.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Returns the source with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
