//! Requests to this process to end.

use std::future::Future;

use dacapo_api::ApiError;

/// Completes when this process is asked to end: by Ctrl-C, by SIGTERM, or by SIGHUP, which a terminal sends when it
/// closes. From this call on none of them ends the process by itself. It must be called in a tokio runtime.
///
/// A SIGHUP that the process ignores, as `nohup` lets it, stays ignored. Only Linux shows whether it does. On other
/// systems SIGHUP keeps the effect that it had.
///
/// # Errors
/// [`ApiError::Unavailable`] if the system does not let the process listen for signals.
#[cfg(unix)]
pub fn asked_to_end() -> Result<impl Future<Output = ()> + Send + 'static, ApiError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| ApiError::unavailable("listen for signals", error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hang_up = if takes_hang_up() { Some(listen(SignalKind::hangup())?) } else { None };
    Ok(async move {
        let hung_up = async {
            match &mut hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
    })
}

/// Returns true if SIGHUP is known to end this process. The system lists the ignored signals as bits, the first of
/// which is SIGHUP.
#[cfg(unix)]
fn takes_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.is_some_and(|bits| bits & 1 == 0)
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
