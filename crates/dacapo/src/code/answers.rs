//! Answers to queries, with their types erased.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Answers, HandlerError, Query};
use crate::view::ReadView;

/// The erased form of an answer.
pub(super) trait AnyAnswer: Send + Sync {
    fn answer<'a>(
        &'a self,
        query: &'a (dyn Any + Send + Sync),
        view: &'a mut ReadView,
    ) -> BoxFuture<'a, Result<Box<dyn Any + Send>, HandlerError>>;
}

pub(super) struct Answerer<P, Q> {
    pub(super) projection: Arc<P>,
    pub(super) query: PhantomData<fn(Q)>,
}

impl<P: Answers<Q>, Q: Query> AnyAnswer for Answerer<P, Q> {
    #[expect(clippy::expect_used, reason = "answers are registered under their query's type")]
    fn answer<'a>(
        &'a self,
        query: &'a (dyn Any + Send + Sync),
        view: &'a mut ReadView,
    ) -> BoxFuture<'a, Result<Box<dyn Any + Send>, HandlerError>> {
        Box::pin(async move {
            let query = query.downcast_ref::<Q>().expect("answers are registered under their query's type");
            let answer = self.projection.answer(query, view).await?;
            Ok(Box::new(answer) as Box<dyn Any + Send>)
        })
    }
}
