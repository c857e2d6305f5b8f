//! The declaration of the queries that a view answers.

use std::future::Future;

use super::{HandlerError, Projection};
use crate::view::ReadView;

/// A query to a projection. The version that serves answers it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a query",
    label = "`Query` is missing",
    note = "implement `Query` for it: its projection and the type of its answer"
)]
pub trait Query: Send + Sync + 'static {
    /// The name of the projection that answers.
    const PROJECTION: &'static str;
    /// The type of the answer.
    type Answer: Send + 'static;
}

/// A version that answers `Q`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not answer `{Q}`",
    label = "`Answers<{Q}>` is missing",
    note = "implement `Answers<{Q}>` for this version of the projection"
)]
pub trait Answers<Q: Query>: Projection {
    /// Answers from one state of this version's view.
    ///
    /// # Errors
    /// The reason for the failure, which the caller gets.
    fn answer(&self, query: &Q, view: &mut ReadView) -> impl Future<Output = Result<Q::Answer, HandlerError>> + Send;
}
