//! Binding and serving.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use dacapo_api::{ApiError, Problem};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::guard::{Access, guard};
use crate::limits::DRAIN_TIME_MAX;

/// Binds `address`. Only a loopback address without [`Access::Remote`], since whoever reaches the port
/// can do everything.
///
/// # Errors
/// [`ApiError::Invalid`] for an address that is not allowed, [`ApiError::Unavailable`] when the system
/// refuses it.
pub async fn bind(address: SocketAddr, access: Access) -> Result<TcpListener, ApiError> {
    if access == Access::Loopback && !address.ip().is_loopback() {
        let problem = Problem::new("not_loopback", format!("{address} can be reached from other machines"));
        let problem = problem.tried(format!("listen on {address}")).found("no authentication stands before the API");
        let help = "listen on 127.0.0.1, or add --allow-remote if only those reach the port who may do everything";
        return Err(problem.help(help).invalid());
    }
    TcpListener::bind(address).await.map_err(|error| {
        let problem = Problem::new("cannot_listen", format!("cannot listen on {address}: {error}"));
        let help = "see whether another process has the port, or choose another one with --listen";
        problem.tried(format!("listen on {address}")).found(error).help(help).unavailable()
    })
}

/// Serves `router`, guarded, until `shutdown` completes; then lets the requests under way finish, for at
/// most [`DRAIN_TIME_MAX`].
///
/// # Errors
/// [`ApiError::Unavailable`] when the listener breaks.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    access: Access,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    let (draining, drain) = oneshot::channel();
    let signal = async move {
        shutdown.await;
        // Nobody listens only when serving has ended by itself.
        let _ = draining.send(());
    };
    let serving = axum::serve(listener, guard(router, access)).with_graceful_shutdown(signal).into_future();
    let out_of_time = async {
        match drain.await {
            Ok(()) => tokio::time::sleep(DRAIN_TIME_MAX).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = serving => served.map_err(|error| ApiError::unavailable("serve HTTP", error)),
        () = out_of_time => {
            tracing::warn!(seconds = DRAIN_TIME_MAX.as_secs(), "requests under way were cut off at shutdown");
            Ok(())
        }
    }
}
