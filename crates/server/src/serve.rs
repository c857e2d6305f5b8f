//! Binding and serving.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use dacapo_api::{ApiError, Problem};
use http::{HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;

use crate::extract::Declined;
use crate::guard::Access;
use crate::limits::{self, DRAIN_TIME_MAX};
use crate::line::Line;
use crate::room::{Room, Seat, UnderWay};

/// Binds `address`. Without [`Access::Remote`] it must be a loopback address, since everyone who reaches the port can
/// do everything.
///
/// # Errors
/// [`ApiError::Invalid`] for an address that is not allowed; [`ApiError::Unavailable`] if the system refuses it.
pub async fn bind(address: SocketAddr, access: Access) -> Result<TcpListener, ApiError> {
    if access == Access::Loopback && !address.ip().is_loopback() {
        let problem = Problem::new("not_loopback", format!("{address} can be reached from other machines"));
        let problem = problem.tried(format!("listen on {address}")).found("the API has no authentication");
        let help = "listen on 127.0.0.1, or add --allow-remote if everyone who can reach the port may do everything";
        return Err(problem.help(help).invalid());
    }
    TcpListener::bind(address).await.map_err(|error| {
        let problem = Problem::new("cannot_listen", format!("cannot listen on {address}: {error}"));
        let help = "check whether another process has the port, or choose another one with --listen";
        problem.tried(format!("listen on {address}")).found(error).help(help).unavailable()
    })
}

/// The limits of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most connections. At the limit, a connection without a request under way is closed for a new one.
    pub connections: usize,
    /// Most additional connections while all others have a request under way. They get answers from `/livez` and
    /// `/readyz`, and 503 for everything else.
    pub reserve: usize,
    /// Longest time for the headers of a request to arrive. It is also the longest rest of a connection between two
    /// requests.
    pub header_time: Duration,
    /// Longest time for which a caller may read nothing of its answer.
    pub write_time: Duration,
    /// Longest time for an answer after the caller has closed its side of the connection. It may wait for the answer,
    /// or be gone.
    pub closed_time: Duration,
}

impl Default for Bounds {
    /// Default: [`CONNECTIONS_MAX`](crate::CONNECTIONS_MAX) connections; with the reserve, at most half as many as
    /// the process may have files.
    fn default() -> Self {
        let reserve = limits::RESERVE_CONNECTIONS_MAX;
        Self {
            connections: limits::CONNECTIONS_MAX.min((files_max() / 2).saturating_sub(reserve)).max(1),
            reserve,
            header_time: limits::HEADER_TIME_MAX,
            write_time: limits::WRITE_TIME_MAX,
            closed_time: limits::CLOSED_TIME_MAX,
        }
    }
}

/// Serves `router` until `shutdown` completes, within the default [`Bounds`]. Then it lets the requests under way
/// finish, for at most [`DRAIN_TIME_MAX`]. It adds no checks before the routes: [`guard`](crate::guard()) is part of
/// the operations of dacapo only.
///
/// # Errors
/// [`ApiError::Unavailable`] if the listener breaks, or if the process may have too few files to answer anybody.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    serve_within(listener, router, Bounds::default(), shutdown).await
}

/// Serves as [`serve`] does, within the given bounds.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    let room = Room::new(bounds.connections, bounds.reserve);
    let mut spares = Spares::of(&listener)?;
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut log = Log(None);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                // If there is no place for it, closing it says so.
                Ok((stream, _)) => {
                    // A connection that took a file of the reserve must not keep it for long.
                    let seat = if spares.are_whole(&listener) { room.enter() } else { room.enter_reserve() };
                    if let Some(seat) = seat {
                        connections.spawn(connection(stream, router.clone(), seat, bounds, ending.clone()));
                    }
                }
                Err(error) => not_accepted(&error, &room, &mut log, &mut spares).await?,
            },
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                spares.are_whole(&listener);
            }
        }
    }
    drop(listener);
    // There is no receiver when there are no connections.
    let _ = end.send(true);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if tokio::time::timeout(DRAIN_TIME_MAX, all_ended).await.is_err() {
        tracing::warn!(seconds = DRAIN_TIME_MAX.as_secs(), "requests under way were cut off at shutdown");
    }
    Ok(())
}

/// Files that are kept in reserve for connections, so that probes are answered when the process may open no more:
/// whatever took the last file, a load balancer learns the state of this node.
struct Spares(Vec<Spare>);

#[cfg(unix)]
type Spare = std::os::fd::OwnedFd;
#[cfg(not(unix))]
type Spare = ();

impl Spares {
    fn of(listener: &TcpListener) -> Result<Self, ApiError> {
        let mut spares = Self(Vec::with_capacity(limits::SPARE_FILES));
        if spares.are_whole(listener) {
            return Ok(spares);
        }
        let found = format!("this process may have {} files open, and has no more for connections", files_max());
        let help = format!("allow at least {} (ulimit -n)", limits::FILES_MIN);
        Err(Problem::new("too_few_files", &found).tried("take connections").help(help).unavailable())
    }

    /// Returns true if the reserve is complete, after taking back the files that are free again.
    #[cfg(unix)]
    fn are_whole(&mut self, listener: &TcpListener) -> bool {
        while self.0.len() < limits::SPARE_FILES {
            let Ok(spare) = rustix::io::fcntl_dupfd_cloexec(listener, 0) else { return false };
            self.0.push(spare);
        }
        true
    }

    #[cfg(not(unix))]
    fn are_whole(&mut self, _: &TcpListener) -> bool {
        true
    }

    /// Gives one file to the next connection. Returns true if there was one.
    fn give(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

/// The time at which it was last logged that no connection can be accepted.
struct Log(Option<Instant>);

/// If the system allows the process no more files, gives up a file of the reserve; without one, closes a connection
/// that rests, and waits a moment. A fault of one new connection says nothing about the next one.
async fn not_accepted(error: &io::Error, room: &Room, log: &mut Log, spares: &mut Spares) -> Result<(), ApiError> {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput};
    match error.kind() {
        ConnectionAborted | ConnectionReset | Interrupted => return Ok(()),
        InvalidInput => return Err(ApiError::unavailable("take connections", error)),
        _ => {}
    }
    let open = room.len();
    let now = Instant::now();
    if log.0.is_none_or(|last| now.duration_since(last) >= limits::ACCEPT_LOG_PAUSE) {
        log.0 = Some(now);
        tracing::error!(%error, open, files_max = files_max(), "cannot accept another connection, except to answer probes: \
            let the process have more files open (ulimit -n), or let fewer callers connect");
    }
    if !spares.give() {
        // Connections with a request may have finished by then.
        room.make_room();
        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
    }
    Ok(())
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection was cut off");
    }
}

/// Serves one connection until it ends, has to make room, or the server ends.
async fn connection(stream: TcpStream, router: Router, seat: Seat, bounds: Bounds, mut ending: watch::Receiver<bool>) {
    let line = Line::new(stream);
    let mut stream = TimeoutStream::new(line.clone());
    stream.set_write_timeout(Some(bounds.write_time));
    let (seat, router) = (Arc::new(seat), TowerToHyperService::new(router));
    let guest = Arc::clone(&seat.guest);
    let service = service_fn(move |request: Request<Incoming>| {
        let (under_way, router, reserve, line) = (seat.asks(), router.clone(), seat.guest.reserve, line.clone());
        async move {
            let is_probe = matches!(request.uri().path(), "/livez" | "/readyz");
            let answer = match () {
                () if head_bytes(&request) > limits::HEAD_BYTES_MAX => long_head(),
                () if reserve && !is_probe => busy(),
                () => tokio::select! {
                    biased;
                    answer = router.call(request.map(Body::new)) => answer?,
                    () = line.given_up(bounds.closed_time) => too_late(bounds.closed_time),
                },
            };
            Ok::<_, Infallible>(answer.map(|body| Body::new(Held { body, _under_way: under_way })))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(bounds.header_time).max_buf_size(limits::HEAD_BYTES_MAX);
    builder.half_close(true);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(Box::pin(stream)), service).with_upgrades());
    tokio::select! {
        // The other end sees the fault of a connection. It concerns nobody else.
        _ = serving.as_mut() => return,
        () = guest.leave.notified() => {}
        // The sender ends only with the server.
        _ = ending.wait_for(|ending| *ending) => {}
    }
    let is_end = *ending.borrow();
    if !guest.has_asked() {
        return;
    }
    serving.as_mut().graceful_shutdown();
    match is_end {
        true => drop(serving.await),
        false => drop(tokio::time::timeout(limits::LEAVE_TIME_MAX, serving).await),
    }
}

/// Returns the size of the head of a request, as it is sent without optional space. The reader of heads has a coarser
/// bound: it stops at the first read of the connection that is beyond it.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    request.method().as_str().len() + target + "  HTTP/1.1\r\n\r\n".len() + fields.sum::<usize>()
}

fn long_head() -> Response {
    let found = format!("the target and the headers of the request have more than {} bytes", limits::HEAD_BYTES_MAX);
    let mut answer = last(Problem::new("too_large", found).help("send fewer or shorter headers"));
    *answer.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    answer
}

fn busy() -> Response {
    let problem = Problem::new("busy", "this node already answers as many requests as it can");
    last(problem.help("ask again in a moment, or ask another node"))
}

fn too_late(time: Duration) -> Response {
    let found = format!("there was no answer within {time:?} after the caller had closed its side of the connection");
    last(Problem::new("closed", found).help("keep the connection open while you wait, or wait for a shorter time"))
}

/// Returns the answer after which the connection is closed.
fn last(problem: Problem) -> Response {
    let mut answer = Declined(problem.unavailable()).into_response();
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer whose request is under way until all of it is handed over.
struct Held {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns the number of files that the process may have open.
#[cfg(unix)]
fn files_max() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn files_max() -> usize {
    usize::MAX
}
