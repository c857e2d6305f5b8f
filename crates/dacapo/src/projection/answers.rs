//! Answers to queries whose types nobody else knows, and how two of them are compared.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Answers, HandlerError, Query};
use crate::verify::{AnyQuery, Shadow};
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

pub(super) struct ShadowOf<Q> {
    pub(super) query: PhantomData<fn(Q)>,
}

impl<Q: Query + Clone + fmt::Debug> Shadow for ShadowOf<Q>
where
    Q::Answer: PartialEq + fmt::Debug,
{
    #[expect(clippy::expect_used, reason = "shadows are registered under their query's type")]
    fn copy(&self, query: &(dyn Any + Send + Sync)) -> AnyQuery {
        Arc::new(query.downcast_ref::<Q>().expect("shadows are registered under their query's type").clone())
    }

    #[expect(clippy::expect_used, reason = "shadows are registered under their query's type")]
    fn show(&self, query: &(dyn Any + Send + Sync)) -> String {
        format!("{:?}", query.downcast_ref::<Q>().expect("shadows are registered under their query's type"))
    }

    #[expect(clippy::expect_used, reason = "an answer is of its query's type")]
    fn show_answer(&self, answer: &(dyn Any + Send)) -> String {
        format!("{:?}", answer.downcast_ref::<Q::Answer>().expect("an answer is of its query's type"))
    }

    fn differ(&self, old: &(dyn Any + Send), new: &(dyn Any + Send)) -> Option<(String, String)> {
        let of = |answer: &dyn Any| answer.downcast_ref::<Q::Answer>().is_some();
        assert!(of(old) && of(new), "an answer is of its query's type");
        let same = old.downcast_ref::<Q::Answer>() == new.downcast_ref::<Q::Answer>();
        (!same).then(|| (self.show_answer(old), self.show_answer(new)))
    }
}
