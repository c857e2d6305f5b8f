//! The rights of callers.
//!
//! This crate recognises no caller. An application that does puts a [`Caller`] into the extensions of each request, in a
//! layer around [`operations`](crate::operations). The route of an operation then demands the right of its row. A request
//! without a [`Caller`] has all rights.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dacapo_api::operations::Right;
use dacapo_api::{ApiError, Problem};

use crate::extract::Declined;

/// The caller of a request, as the application that mounts the operations has recognised it.
///
/// A layer puts it into the extensions of each request, as `docs/operating/proxies.md` shows in full. Here every caller
/// has the same rights:
///
/// ```
/// use axum::{Extension, Router};
/// use dacapo_server::{Caller, Right};
///
/// // The application looks up the caller of each request. Here every caller is the dashboard, which only reads.
/// fn for_the_dashboard(operations: Router) -> Router {
///     operations.layer(Extension(Caller { name: Some("dashboard".to_owned()), rights: vec![Right::Read] }))
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its name. The catalog keeps it as the requester of a change, in place of the `actor` in the request. `None`: the
    /// `actor` in the request is kept.
    pub name: Option<String>,
    /// What it may do. No right includes another one.
    pub rights: Vec<Right>,
}

impl Caller {
    fn check(&self, operation: &str, right: Right) -> Result<(), ApiError> {
        if self.rights.contains(&right) {
            return Ok(());
        }
        let right = right.as_str();
        let has: Vec<&str> = self.rights.iter().map(|right| right.as_str()).collect();
        let has = if has.is_empty() { "no right".to_owned() } else { format!("only: {}", has.join(", ")) };
        let name = self.name.as_deref().unwrap_or("the caller");
        let message = format!("the operation {operation} needs the right {right}, which {name} does not have");
        let problem = Problem::new("forbidden", message).tried(operation).found(format!("{name} has {has}"));
        let problem = problem.field("operation", operation).field("right", right);
        Err(problem.help(format!("let the application that serves this API give {name} the right {right}")).invalid())
    }
}

/// Passes a request on only if its caller has the right of the operation.
pub(crate) async fn demand(
    State((operation, right)): State<(&'static str, Right)>,
    request: Request,
    next: Next,
) -> Response {
    match request.extensions().get::<Caller>().map_or(Ok(()), |caller| caller.check(operation, right)) {
        Ok(()) => next.run(request).await,
        Err(error) => Declined(error).into_response(),
    }
}
