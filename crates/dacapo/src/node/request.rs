//! Requests of operators as values. A request takes the requester and the reason, is recorded when it is awaited, and
//! the recorded request can wait for its end.
//!
//! ```text
//!   Request<Flip> ──.await──▶ Requested<FlipReport> ──.done()──▶ Done<FlipReport> ──.await──▶ FlipReport
//!     by, because, under_key     view, position                    within
//! ```
//!
//! A recorded request is durable: the members of the cluster carry it out even if the node that took it fails. Waiting
//! for the end changes nothing. A wait can be dropped and begun again.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::time::Duration;

use dacapo_model::{Position, ViewId, limits};
use futures::future::BoxFuture;

use super::Node;
use crate::catalog::{CatalogEntry, RequestedBy};
use crate::error::Error;

/// The operation of a [`Request`]. Only the types of this module implement it.
pub trait Operation: Send + 'static {
    /// The result of recording the request.
    type Recorded: Send;

    /// Records the request.
    #[doc(hidden)]
    fn record(self, node: Node, by: RequestedBy) -> impl Future<Output = Result<Self::Recorded, Error>> + Send;
}

/// A request that is recorded in the catalog once it is awaited: `balances.flip().by("ana").because("new
/// indexes").await`.
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

    /// Sets the requester. Default: the name of the node.
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.by.actor = actor.into();
        self
    }

    /// Sets the reason. Default: none.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.by.reason = Some(reason.into());
        self
    }

    /// Sets the idempotency key. A request that is repeated under the same key is carried out once, and gets the first
    /// answer. Default: none.
    pub fn under_key(mut self, key: impl Into<String>) -> Self {
        self.by.idempotency_key = Some(key.into());
        self
    }

    /// Sets the requester, the reason and the key together.
    pub fn requested_by(mut self, by: RequestedBy) -> Self {
        self.by = by;
        self
    }
}

impl<O: Operation> IntoFuture for Request<O> {
    type Output = Result<O::Recorded, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async {
            self.by.check()?;
            self.operation.record(self.node, self.by).await
        })
    }
}

/// A recorded request, with its version and its position. `E` is the result at its end. A request without one is done
/// once it is recorded.
pub struct Requested<E = ()> {
    /// The version that the request is about.
    pub view: ViewId,
    /// The position of the request in the journal; `None` if nothing had to change.
    pub position: Option<Position>,
    node: Node,
    end: PhantomData<fn() -> E>,
}

impl<E> Requested<E> {
    pub(super) fn new(node: &Node, view: ViewId, position: Option<Position>) -> Self {
        Self { view, position, node: node.clone(), end: PhantomData }
    }

    /// Returns the answer to a repetition of the request of this entry.
    pub(super) fn of(node: &Node, entry: &CatalogEntry) -> Self {
        let position = (!entry.is_nothing()).then_some(entry.position);
        Self::new(node, entry.event.view().clone(), position)
    }
}

impl<E: End> Requested<E> {
    /// Returns a future that waits for the end of the operation: `requested.done().within(time).await`.
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

/// The result at the end of a request. Only the reports of this module implement it.
pub trait End: Sized + Send + 'static {
    /// Waits for the end of the request about `view` at the position `requested`.
    #[doc(hidden)]
    fn reached(
        node: Node,
        view: ViewId,
        requested: Option<Position>,
        within: Duration,
    ) -> impl Future<Output = Result<Self, Error>> + Send;
}

/// The end of a request. Awaiting it waits for the end. The operation continues whether it is awaited or not.
///
/// # Errors
/// [`Error::TimedOut`], with the wait reasons, if it has not ended in the time allowed.
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

    /// Sets the longest wait. Default: [`limits::REQUEST_TIME_MAX`].
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
