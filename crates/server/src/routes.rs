//! The routes: each takes its form apart, asks the API and passes the answer on.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use dacapo_api::{
    Api, AppendRequest, AppendResponse, CleanUpRequest, CleanUpResponse, FlipRequest, FlipResponse, History,
    NodeStatus, PhasesRequest, Problem, ReadRequest, ReadResponse, RebuildRequest, RebuildResponse, ReplayRequest,
    ReplayResponse, Status, StreamsRequest, StreamsResponse, Verification, VerificationRequest, VerifyRequest,
    VerifyResponse, paths,
};
use dacapo_api::{
    CancelRequest, CancelResponse, LettersRequest, LettersResponse, PauseRequest, PauseResponse, SetAsideRequest,
    SetAsideResponse, SettleRequest, SettleResponse,
};
use http::{Method, Uri};

use crate::bodies::Bodies;
use crate::extract::{Answer, Body, Keyed, NoParameters, PathParts, Query};
use crate::guard::{Hosts, guard};
use crate::limits::{APPEND_BODY_BYTES_MAX, BODY_BYTES_MAX, WAIT_TIME_MAX};

type Node = State<Arc<dyn Api>>;

/// All of the API, to be served by [`serve`](crate::serve()): [`probes`], the guarded [`operations`], and an answer to
/// what is at none of these paths.
pub fn router(api: Arc<dyn Api>, hosts: &Hosts) -> Router {
    probes(Arc::clone(&api)).merge(operations(api, hosts)).fallback(no_such_path)
}

/// `/livez` and `/readyz`. They answer anyone, whatever the request says of its host: load balancers ask in ways of
/// their own.
pub fn probes(api: Arc<dyn Api>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(api)
}

/// Everything under `/v1/`, to be mounted in an application of one's own. They do not ask who is calling, but for what
/// [`guard`](crate::guard()) asks, which they have; the routes beside them do not have it.
pub fn operations(api: Arc<dyn Api>, hosts: &Hosts) -> Router {
    let bodies = Bodies::new();
    let take_in = |bytes_max| {
        let bodies = bodies.clone();
        middleware::from_fn(move |request: Request, next: Next| bodies.clone().answer(bytes_max, request, next))
    };
    let events = get(read).post(append).layer(take_in(APPEND_BODY_BYTES_MAX));
    let operations = Router::new()
        .route(paths::STATUS, get(status))
        .route(paths::STREAMS, get(streams))
        .route(paths::PHASES, get(phases))
        .route(paths::REBUILD, post(rebuild))
        .route(paths::FLIP, post(flip))
        .route(paths::ROLLBACK, post(rollback))
        .route(paths::REPLAY, post(replay))
        .route(paths::CLEAN_UP, post(clean_up))
        .route(paths::PAUSE, post(pause))
        .route(paths::RESUME, post(resume))
        .route(paths::LETTERS, get(letters))
        .route(paths::RETRY_LETTERS, post(retry_letters))
        .route(paths::DROP_LETTERS, post(drop_letters))
        .route(paths::SET_ASIDE, post(set_aside))
        .route(paths::CANCEL, post(cancel))
        .route(paths::VERIFICATION, get(verification).post(verify))
        .route(paths::WAIVE, post(waive))
        .layer(take_in(BODY_BYTES_MAX))
        .route(paths::EVENTS, events)
        .layer(DefaultBodyLimit::disable())
        .method_not_allowed_fallback(wrong_method)
        .with_state(api);
    guard(operations, hosts)
}

async fn livez() -> &'static str {
    "live\n"
}

async fn readyz(State(api): Node) -> Answer<NodeStatus> {
    Answer(api.readiness().await.and_then(|node| {
        if node.ready {
            return Ok(node);
        }
        let reasons: Vec<&str> = node.waiting_on.iter().map(|reason| reason.text.as_str()).collect();
        let found = if reasons.is_empty() { "no reason is known".to_owned() } else { reasons.join("; ") };
        Err(Problem::new("not_ready", format!("the node is not ready: {found}")).found(found).unavailable())
    }))
}

async fn status(State(api): Node, Query(NoParameters {}): Query<NoParameters>) -> Answer<Status> {
    Answer(api.status().await)
}

async fn append(State(api): Node, Body(request): Body<AppendRequest>) -> Answer<AppendResponse> {
    Answer(api.append(request).await)
}

async fn read(State(api): Node, Query(mut request): Query<ReadRequest>) -> Answer<ReadResponse> {
    request.wait_ms = within(request.wait_ms);
    Answer(api.read(request).await)
}

async fn streams(State(api): Node, Query(request): Query<StreamsRequest>) -> Answer<StreamsResponse> {
    Answer(api.streams(request).await)
}

async fn phases(State(api): Node, Query(request): Query<PhasesRequest>) -> Answer<History> {
    Answer(api.phases(request).await)
}

async fn rebuild(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<RebuildRequest>,
) -> Answer<RebuildResponse> {
    Answer(api.rebuild(&projection, request).await)
}

async fn flip(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(mut request): Keyed<FlipRequest>,
) -> Answer<FlipResponse> {
    request.wait_ms = within(request.wait_ms);
    Answer(api.flip(&projection, request).await)
}

async fn rollback(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(mut request): Keyed<FlipRequest>,
) -> Answer<FlipResponse> {
    request.wait_ms = within(request.wait_ms);
    Answer(api.rollback(&projection, request).await)
}

async fn replay(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(mut request): Keyed<ReplayRequest>,
) -> Answer<ReplayResponse> {
    request.wait_ms = within(request.wait_ms);
    Answer(api.replay(&projection, request).await)
}

async fn clean_up(
    State(api): Node,
    PathParts((projection, version)): PathParts<(String, String)>,
    Keyed(request): Keyed<CleanUpRequest>,
) -> Answer<CleanUpResponse> {
    Answer(api.clean_up(&projection, &version, request).await)
}

async fn verification(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Query(mut request): Query<VerificationRequest>,
) -> Answer<Verification> {
    request.wait_ms = within(request.wait_ms);
    Answer(api.verification(&projection, request).await)
}

async fn verify(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<VerifyRequest>,
) -> Answer<VerifyResponse> {
    Answer(api.verify(&projection, request).await)
}

async fn waive(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<VerifyRequest>,
) -> Answer<VerifyResponse> {
    Answer(api.waive(&projection, request).await)
}

async fn pause(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<PauseRequest>,
) -> Answer<PauseResponse> {
    Answer(api.pause(&projection, request).await)
}

async fn resume(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<PauseRequest>,
) -> Answer<PauseResponse> {
    Answer(api.resume(&projection, request).await)
}

async fn letters(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Query(request): Query<LettersRequest>,
) -> Answer<LettersResponse> {
    Answer(api.letters(&projection, request).await)
}

async fn retry_letters(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<SettleRequest>,
) -> Answer<SettleResponse> {
    Answer(api.retry_letters(&projection, request).await)
}

async fn drop_letters(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<SettleRequest>,
) -> Answer<SettleResponse> {
    Answer(api.drop_letters(&projection, request).await)
}

async fn set_aside(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<SetAsideRequest>,
) -> Answer<SetAsideResponse> {
    Answer(api.set_aside(&projection, request).await)
}

async fn cancel(
    State(api): Node,
    PathParts(projection): PathParts<String>,
    Keyed(request): Keyed<CancelRequest>,
) -> Answer<CancelResponse> {
    Answer(api.cancel(&projection, request).await)
}

async fn wrong_method(method: Method, uri: Uri) -> Answer<()> {
    let message = format!("{} does not take {method}", uri.path());
    Answer(Err(Problem::new("method_not_allowed", message).invalid()))
}

async fn no_such_path(uri: Uri) -> Answer<()> {
    let problem = Problem::new("no_such_path", format!("there is nothing at {}", uri.path()));
    Answer(Err(problem.help("the paths of the API begin with /v1/").not_found()))
}

/// The time to wait, within the limit.
fn within(wait_ms: Option<u64>) -> Option<u64> {
    let max = u64::try_from(WAIT_TIME_MAX.as_millis()).unwrap_or(u64::MAX);
    wait_ms.map(|wait_ms| wait_ms.min(max))
}
