//! Queries with erased types that are put to two versions, and the comparison of their answers.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Query;

/// A query of any type.
pub(crate) type AnyQuery = Arc<dyn Any + Send + Sync>;

/// The operations that are needed to put queries of one type to two versions and to compare the answers.
pub(crate) trait Shadow: Send + Sync {
    fn copy(&self, query: &(dyn Any + Send + Sync)) -> AnyQuery;
    fn show(&self, query: &(dyn Any + Send + Sync)) -> String;
    fn show_answer(&self, answer: &(dyn Any + Send)) -> String;
    /// Returns the difference between two answers; `None` if they are equal.
    fn differ(&self, old: &(dyn Any + Send), new: &(dyn Any + Send)) -> Option<(String, String)>;
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
