//! The time limit of an answer.

use std::future::Future;
use std::time::Duration;

use dacapo_api::ApiError;
use dacapo_model::limits;
use dacapo_store::StoreError;

use crate::node::unavailable;

/// Extra time for a request that settles letters and waits for the processor, in milliseconds.
pub(crate) const SETTLES: Option<u64> = Some(limits::REQUEST_TIME_MAX.as_millis() as u64);

/// Answers within [`limits::ANSWER_TIME_MAX`] plus the time for which the caller wants to wait, also if the store does not
/// answer. What has been begun continues to its end.
pub(crate) async fn in_time<T>(
    wait_ms: Option<u64>,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let wait = Duration::from_millis(wait_ms.unwrap_or(0));
    // Where there is no such point in time, it never comes.
    match tokio::time::timeout(limits::ANSWER_TIME_MAX.saturating_add(wait), answer).await {
        Ok(answer) => answer,
        Err(_) => Err(unavailable(StoreError::unavailable(
            "answer the request in time",
            "the store does not answer, so whether what was asked for is done is unknown: look at the status, or ask for \
             the same again under the same idempotency key",
        ))),
    }
}
