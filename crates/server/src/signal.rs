//! Requests to this process to end.

use std::future::Future;

use dacapo_api::ApiError;

/// Completes when this process is asked to end, by Ctrl-C or, on Unix, by SIGTERM. From this call on neither of them
/// ends the process by itself. It must be called in a tokio runtime.
///
/// # Errors
/// [`ApiError::Unavailable`] if the system does not let the process listen for signals.
#[cfg(unix)]
pub fn asked_to_end() -> Result<impl Future<Output = ()> + Send + 'static, ApiError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| ApiError::unavailable("listen for signals", error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Completes when this process is asked to end, by Ctrl-C. From this call on Ctrl-C does not end the process by
/// itself. It must be called in a tokio runtime.
///
/// # Errors
/// [`ApiError::Unavailable`] if the system does not let the process listen for it.
#[cfg(windows)]
pub fn asked_to_end() -> Result<impl Future<Output = ()> + Send + 'static, ApiError> {
    let listened = tokio::signal::windows::ctrl_c();
    let mut interrupt = listened.map_err(|error| ApiError::unavailable("listen for Ctrl-C", error))?;
    Ok(async move {
        interrupt.recv().await;
    })
}
