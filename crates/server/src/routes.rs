//! The routes: each reads its form, calls the API and passes the answer on.

use std::convert::identity;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodFilter, get, on};
use dacapo_api::operations::{NoRequest, Right, paths};
use dacapo_api::{Api, NodeStatus, Problem};
use http::{Method, Uri};

use crate::bodies::Bodies;
use crate::extract::{Answer, Asking, PathParts};
use crate::guard::{Hosts, guard};
use crate::limits::{APPEND_BODY_BYTES_MAX, BODY_BYTES_MAX};
use crate::rights::demand;

type Node = State<Arc<dyn Api>>;

/// Returns the whole API, to be served by [`serve`](crate::serve()): [`probes`], the guarded [`operations`], and an
/// answer for all other paths.
pub fn router(api: Arc<dyn Api>, hosts: &Hosts) -> Router {
    probes(Arc::clone(&api)).merge(operations(api, hosts)).fallback(no_such_path)
}

/// Returns `/livez` and `/readyz`. They answer everyone, whatever host the request names: load balancers send
/// requests in different ways.
pub fn probes(api: Arc<dyn Api>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(api)
}

/// Returns everything under `/v1/`, to be mounted in an application. These routes have the checks of
/// [`guard`](crate::guard()) and no authentication; other routes of the application do not have these checks. If the
/// application puts a [`Caller`](crate::Caller) into the extensions of a request, the route demands the right of its
/// operation.
pub fn operations(api: Arc<dyn Api>, hosts: &Hosts) -> Router {
    let operations = routes(&Bodies::new())
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

/// The type of a request, or of no request.
macro_rules! request {
    () => {
        NoRequest
    };
    ($request:ident) => {
        dacapo_api::$request
    };
}

/// The handler of each operation, and the routes to all of them, made from their rows.
macro_rules! routes {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        $(async fn $name(
            State(api): Node,
            parts: PathParts,
            Asking(_request): Asking<request!($($request)?)>,
        ) -> Answer<dacapo_api::$response> {
            let [$($part),*] = parts.named([$(stringify!($part)),*]);
            Answer(api.$name($($part,)* $(identity::<dacapo_api::$request>(_request))?).await)
        })*

        fn routes(bodies: &Bodies) -> Router<Arc<dyn Api>> {
            let take_in = |path| middleware::from_fn_with_state((bodies.clone(), body_bytes_max(path)), take_in);
            // The right is demanded before anything of the body is read.
            let demands = |operation, right| middleware::from_fn_with_state((operation, right), demand);
            Router::new()$(.route(
                $path,
                on(MethodFilter::$method, $name)
                    .layer(take_in($path))
                    .route_layer(demands(stringify!($name), Right::$right)),
            ))*
        }
    };
}

dacapo_api::operations!(routes);

/// Returns the largest body that is accepted at a path, in bytes.
fn body_bytes_max(path: &str) -> usize {
    if path == paths::append { APPEND_BODY_BYTES_MAX } else { BODY_BYTES_MAX }
}

async fn take_in(State((bodies, bytes_max)): State<(Bodies, usize)>, request: Request, next: Next) -> Response {
    bodies.answer(bytes_max, request, next).await
}

async fn wrong_method(method: Method, uri: Uri) -> Answer<()> {
    let message = format!("{} does not support {method}", uri.path());
    Answer(Err(Problem::new("method_not_allowed", message).invalid()))
}

async fn no_such_path(uri: Uri) -> Answer<()> {
    let problem = Problem::new("no_such_path", format!("there is nothing at {}", uri.path()));
    Answer(Err(problem.help("the paths of the API begin with /v1/").not_found()))
}
