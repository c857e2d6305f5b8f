//! The tries of one request: the only place where something that failed is tried again.

use dacapo_store::StoreError;
use tokio::time::Instant;

use crate::back_off::BackOff;
use crate::limits;

pub(crate) struct Tries {
    until: Instant,
    back_off: BackOff,
}

impl Tries {
    pub(crate) fn new(seed: u64) -> Self {
        Self { until: Instant::now() + limits::RETRY_TIME_MAX, back_off: BackOff::new(seed) }
    }

    /// Returns when it is time to try again after `error`.
    ///
    /// # Errors
    /// `error`, when a further try would not help or comes too late.
    pub(crate) async fn again(&mut self, error: StoreError) -> Result<(), StoreError> {
        let next = Instant::now() + self.back_off.pause();
        if !matches!(error, StoreError::Unavailable { .. }) || next > self.until {
            return Err(error);
        }
        tracing::debug!(%error, "a retry follows");
        tokio::time::sleep_until(next).await;
        Ok(())
    }
}
