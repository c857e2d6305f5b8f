//! Work that blocks its thread.

use crate::error::StoreError;

/// Does work that may wait for the disk, or for a lock of another process, beside the runtime's workers, if there is
/// a runtime. The work continues if nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => match runtime.spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::unavailable("use the disk", "the runtime is shutting down")),
        },
        Err(_) => work(),
    }
}
