//! What a user declares about the questions that a view answers.

use std::future::Future;

use super::{HandlerError, Projection};
use crate::view::ReadView;

/// A question to a projection, whichever version of it serves.
pub trait Query: Send + Sync + 'static {
    /// The name of the projection that answers.
    const PROJECTION: &'static str;
    /// What the answer is.
    type Answer: Send + 'static;
}

/// A version that answers `Q`.
pub trait Answers<Q: Query>: Projection {
    /// Answers from one state of this version's view.
    ///
    /// # Errors
    /// Whatever keeps it from answering; the asker gets it.
    fn answer(&self, query: &Q, view: &mut ReadView) -> impl Future<Output = Result<Q::Answer, HandlerError>> + Send;
}
