//! Requests of operators as values: who asks and why is said first, a request is recorded when it is awaited, and what is
//! recorded knows its end.
//!
//! ```text
//!   Request<Flip> ──.await──▶ Requested<FlipReport> ──.done()──▶ Done<FlipReport> ──.await──▶ FlipReport
//!     by, because, under_key     view, position                    within
//! ```
//!
//! Recording is durable: whatever happens to the node that was asked, the members of the cluster carry the request out.
//! Waiting for the end changes nothing, and can be given up and begun again.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::time::Duration;

use dacapo_model::{Position, ViewId, limits};
use futures::future::BoxFuture;

use super::Node;
use crate::catalog::{CatalogEntry, RequestedBy};
use crate::error::Error;

/// What a [`Request`] asks for. The types of this module implement it, and no others.
pub trait Operation: Send + 'static {
    /// What is known once the request is recorded.
    type Recorded: Send;

    /// Records the request.
    #[doc(hidden)]
    fn record(self, node: Node, by: RequestedBy) -> impl Future<Output = Result<Self::Recorded, Error>> + Send;
}

/// A request that is recorded in the catalog once it is awaited: `balances.flip().by("ana").because("new indexes").await`.
#[must_use = "a request is made when it is awaited"]
pub struct Request<O> {
    node: Node,
    by: RequestedBy,
    pub(super) operation: O,
}

impl<O> Request<O> {
    pub(super) fn new(node: &Node, operation: O) -> Self {
        Self { node: node.clone(), by: RequestedBy::by(node.versions.cluster.name()), operation }
    }

    /// Names who asks. Default: the name of the node.
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.by.actor = actor.into();
        self
    }

    /// Says why. Default: no reason.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.by.reason = Some(reason.into());
        self
    }

    /// Sets the idempotency key: a request that is repeated under the same key is carried out once, and answered as the
    /// first time. Default: none.
    pub fn under_key(mut self, key: impl Into<String>) -> Self {
        self.by.idempotency_key = Some(key.into());
        self
    }

    /// Sets who asks, why, and under which key, all at once.
    pub fn requested_by(mut self, by: RequestedBy) -> Self {
        self.by = by;
        self
    }
}

impl<O: Operation> IntoFuture for Request<O> {
    type Output = Result<O::Recorded, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.operation.record(self.node, self.by))
    }
}

/// A request that is recorded: what it is about, and the position at which it stands. `E` is what its end tells; a request
/// without one is done once it is recorded.
pub struct Requested<E = ()> {
    /// The version that it is about.
    pub view: ViewId,
    /// The position of the request in the journal; `None` when things were as asked already.
    pub position: Option<Position>,
    node: Node,
    end: PhantomData<fn() -> E>,
}

impl<E> Requested<E> {
    pub(super) fn new(node: &Node, view: ViewId, position: Option<Position>) -> Self {
        Self { view, position, node: node.clone(), end: PhantomData }
    }

    /// What is answered when the request of this entry is repeated.
    pub(super) fn of(node: &Node, entry: &CatalogEntry) -> Self {
        let position = (!entry.is_nothing()).then_some(entry.position);
        Self::new(node, entry.event.view().clone(), position)
    }
}

impl<E: End> Requested<E> {
    /// Waits for the end of what was asked for, once it is awaited: `requested.done().within(time).await`.
    pub fn done(&self) -> Done<E> {
        Done::new(&self.node, self.view.clone(), self.position)
    }
}

impl<E> Clone for Requested<E> {
    fn clone(&self) -> Self {
        Self::new(&self.node, self.view.clone(), self.position)
    }
}

impl<E> PartialEq for Requested<E> {
    fn eq(&self, other: &Self) -> bool {
        self.view == other.view && self.position == other.position
    }
}

impl<E> Eq for Requested<E> {}

impl<E> fmt::Debug for Requested<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requested").field("view", &self.view).field("position", &self.position).finish_non_exhaustive()
    }
}

/// What the end of a request tells. The reports of this module implement it, and no other types.
pub trait End: Sized + Send + 'static {
    /// Waits for the end of what was requested about `view` at `requested`.
    #[doc(hidden)]
    fn reached(
        node: Node,
        view: ViewId,
        requested: Option<Position>,
        within: Duration,
    ) -> impl Future<Output = Result<Self, Error>> + Send;
}

/// The end of a request, which is waited for once this is awaited. What was asked for goes on, whether it is waited for or
/// not.
///
/// # Errors
/// [`Error::TimedOut`], with what it waits on, when it has not happened by then.
#[must_use = "the end is waited for when this is awaited"]
pub struct Done<E> {
    node: Node,
    view: ViewId,
    requested: Option<Position>,
    within: Duration,
    end: PhantomData<fn() -> E>,
}

impl<E> Done<E> {
    pub(super) fn new(node: &Node, view: ViewId, requested: Option<Position>) -> Self {
        let within = limits::REQUEST_TIME_MAX;
        Self { node: node.clone(), view, requested, within, end: PhantomData }
    }

    /// Sets how long to wait. Default: [`limits::REQUEST_TIME_MAX`].
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }
}

impl<E: End> IntoFuture for Done<E> {
    type Output = Result<E, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(E::reached(self.node, self.view, self.requested, self.within))
    }
}
