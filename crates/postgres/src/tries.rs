//! The tries of one request: the only place where something that failed is tried again.

use dacapo_model::BackOff;
use dacapo_store::StoreError;
use tokio::time::Instant;

use crate::chance::{Chance, back_off};
use crate::limits;

pub(crate) struct Tries {
    until: Instant,
    back_off: BackOff,
    chance: Chance,
}

impl Tries {
    pub(crate) fn new(seed: u64) -> Self {
        let until = Instant::now() + limits::RETRY_TIME_MAX;
        Self { until, back_off: back_off(), chance: Chance::new(seed) }
    }

    /// Returns when it is time to try again after `error`.
    ///
    /// # Errors
    /// `error`, when a further try would not help or comes too late.
    pub(crate) async fn again(&mut self, error: StoreError) -> Result<(), StoreError> {
        let next = Instant::now() + self.back_off.pause_at_random(self.chance.number());
        if !matches!(error, StoreError::Unavailable { .. }) || next > self.until {
            return Err(error);
        }
        tracing::debug!(%error, "a retry follows");
        tokio::time::sleep_until(next).await;
        Ok(())
    }
}
