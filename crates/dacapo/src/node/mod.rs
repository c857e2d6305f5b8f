//! The node: one process's share of the system, from the store to queries.
//!
//! This module owns the order in which the parts start and stop. Each part owns its work.

mod builder;
mod cancel;
mod handle;
mod letters;
mod operate;
mod replay;
mod request;
mod wait;
mod write;

use std::sync::Arc;

use dacapo_model::{Catalog, CatalogRefused, Phase, Position, ProjectionName, VersionId, ViewId, limits};
use dacapo_store::Store;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::catalog::{self, CatalogEntry};
use crate::code::{Query, VersionCode, check_carried};
use crate::error::Error;
use crate::query::{self, Ask, Reading};
use crate::status::{self, NotReady, Status};
use crate::subscribe::{Subscribed, Tail};
use crate::times::{ClockBehind, Times};
use crate::versions::Versions;

pub use builder::NodeBuilder;
use handle::{ProjectionHandle, VersionHandle};
pub use write::JournalReader;

/// What the files of the operations have for users. All of it is public.
pub mod operations {
    pub use super::cancel::*;
    pub use super::handle::*;
    pub use super::letters::*;
    pub use super::operate::*;
    pub use super::replay::*;
    pub use super::request::*;
    pub use super::wait::*;
}

/// One process's share of the system: it appends to the journal, runs the processors of the versions whose code it
/// carries, and answers queries. Clones are the same node.
///
/// Dropping the last clone without [`shutdown`](Self::shutdown) loses nothing, but leaves batches unfinished.
#[derive(Clone)]
pub struct Node {
    pub(crate) versions: Arc<Versions>,
    running: Arc<Running>,
}

struct Running {
    /// The time of the last event.
    times: Arc<Times>,
    stop: watch::Sender<bool>,
    conductor: Mutex<Option<JoinHandle<()>>>,
    /// Ends the lease, by a message or when it is dropped.
    leave: watch::Sender<bool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// The part that all subscriptions share.
    tail: Arc<Tail>,
    subscribers: Vec<Subscribed>,
    store: Store,
}

impl Node {
    /// Returns the builder of a node. Default: it keeps everything in memory.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// Asks the serving version: `node.ask(query).await`, or `node.ask(query).after(position).await`.
    pub fn ask<Q: Query>(&self, query: Q) -> Ask<Q> {
        Ask::new(Arc::clone(&self.versions), query)
    }

    /// Returns one state of the serving version of `projection` that covers `after`, for rows and SQL whose form the
    /// caller knows. It waits up to [`limits::REQUEST_TIME_MAX`].
    ///
    /// # Errors
    /// [`Error::TimedOut`] if no version serves or covers `after` by then.
    pub async fn read(
        &self,
        projection: impl TryInto<ProjectionName, Error: Into<Error>>,
        after: Position,
    ) -> Result<Reading, Error> {
        let projection = projection.try_into().map_err(Into::into)?;
        query::open(&self.versions, &projection, after, limits::REQUEST_TIME_MAX).await
    }

    /// Returns a projection by its name, for operations: `node.projection("balances")?.flip().await`. Only the
    /// operations check that the projection exists.
    ///
    /// # Errors
    /// [`Error::Name`] if `name` cannot be the name of a projection.
    pub fn projection(
        &self,
        name: impl TryInto<ProjectionName, Error: Into<Error>>,
    ) -> Result<ProjectionHandle, Error> {
        Ok(ProjectionHandle { node: self.clone(), name: name.try_into().map_err(Into::into)? })
    }

    /// Returns a version by its projection and its number, as status and catalog name it, for operations.
    pub fn version(&self, view: ViewId) -> VersionHandle {
        VersionHandle { node: self.clone(), view }
    }

    /// Returns the version that was chosen for an earlier request under this idempotency key, or that it named; `None`
    /// if the key is new. A request that is repeated without a version means that version, whatever has changed since.
    ///
    /// # Errors
    /// [`Error::Store`] if the journal cannot be read.
    pub async fn version_under_key(&self, key: &str) -> Result<Option<ViewId>, Error> {
        self.versions.catalog.refresh().await?;
        let entries = self.versions.catalog.under_key(key).await?;
        Ok(entries.as_deref().and_then(catalog::view_of).cloned())
    }

    /// Runs one more version, as if the node had been started with it. It replaces code of the same version that the
    /// node carries already, such as corrected code of a version that is being built. The processor then continues from
    /// its place.
    ///
    /// # Errors
    /// [`Error::Catalog`] if its code has changed under an unchanged version number, even if it only reads more types,
    /// which is accepted only at the start of a node; [`Error::Carry`] if it could not run as it is.
    pub fn add_projection(&self, version: impl Into<VersionCode>) -> Result<(), Error> {
        let carried = version.into();
        check_carried(&carried)?;
        self.versions.catalog.current().decide(&carried.code.schedule())?;
        self.versions.carry(carried);
        Ok(())
    }

    /// Checks that such a version exists, or has existed.
    ///
    /// # Errors
    /// [`Error::NoSuchProjection`], or [`Error::Catalog`] with the existing versions.
    pub(crate) fn known_version(&self, projection: &ProjectionName, version: VersionId) -> Result<(), Error> {
        let catalog = self.versions.catalog.current();
        let view = view_of(projection, version);
        if catalog.version(&view).is_some() {
            return Ok(());
        }
        let versions = catalog
            .versions()
            .filter(|(known, state)| known.projection == *projection && state.phase != Phase::Obsolete);
        let known = versions.map(|(known, _)| known.version).collect();
        Err(self.unknown_or(projection, || CatalogRefused::NoSuchVersion { view, known }.into()))
    }

    /// Returns the difference if the journal's times are ahead of this node's clock by more than
    /// [`limits::CLOCK_BEHIND_MAX`], as far as the node has looked. Every appended event gets the time of the last one
    /// until the clock has reached it.
    pub fn clock_behind(&self) -> Option<ClockBehind> {
        self.running.times.behind(self.versions.world.clock.now())
    }

    /// Returns the catalog: which versions exist, their phases, which one serves. The watch wakes at every change.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.versions.catalog.watch()
    }

    /// Returns every change of the catalog, with the requester and the reason.
    ///
    /// # Errors
    /// [`Error::Store`] if the journal cannot be read.
    pub async fn history(&self) -> Result<Vec<CatalogEntry>, Error> {
        Ok(catalog::history(&*self.versions.journal).await?)
    }

    /// Returns the state of the projections. A view that cannot be read is not an error: its version shows what it
    /// waits on.
    ///
    /// # Errors
    /// [`Error::Store`], which is reserved for stores that must be asked for the head.
    pub async fn status(&self) -> Result<Status, Error> {
        let mut status = status::status(&self.versions).await;
        status.subscribers = self.running.subscribers.iter().map(|found| found.status(status.head)).collect();
        Ok(status)
    }

    /// Returns the reasons why this node cannot answer queries on every projection that has a serving version, such as
    /// missing code, a view that is not open, or a store that does not answer. Returns an empty list if it can. It asks
    /// no store, so it returns at once.
    pub fn not_ready(&self) -> Vec<NotReady> {
        status::not_ready(&self.versions)
    }

    /// Returns the kind and the place of the node's store, for people.
    pub fn store_description(&self) -> &str {
        &self.running.store.description
    }

    /// Stops the node within [`limits::SHUTDOWN_TIME_MAX`], in this order:
    ///
    /// 1. No more steps of rebuilds begin.
    /// 2. Each processor stops after its batch, or in the middle of it after [`limits::STOP_TIME_MAX`]. A processor
    ///    whose handler computes without end is abandoned, and its claim is revoked. Meanwhile, effects under way end.
    /// 3. The lease is given back. The journal closes after the waiting appends. The subscribers stop after they got the
    ///    remaining events, or without them after the same time.
    ///
    /// A stage that the store keeps from ending is left when the time is over. Flips under way continue at the next
    /// start.
    pub async fn shutdown(&self) {
        let end = Instant::now() + limits::SHUTDOWN_TIME_MAX;
        self.running.stop.send_replace(true);
        let stopped = async {
            if let Some(conductor) = self.running.conductor.lock().await.take()
                && let Err(error) = conductor.await
            {
                tracing::error!(%error, "the conductor ended by a bug in dacapo");
            }
            let versions = self.versions.open_versions();
            futures::future::join_all(versions.iter().map(|version| version.stop())).await;
        };
        until(end - limits::CLOSE_TIME, "stop the versions", stopped).await;
        // Other members take over this node's work at once.
        self.running.leave.send_replace(true);
        let left = async {
            if let Some(keeper) = self.running.keeper.lock().await.take()
                && let Err(error) = keeper.await
            {
                tracing::error!(%error, "the lease ended by a bug in dacapo");
            }
        };
        let closed = async {
            until(end, "close the journal", self.versions.journal.close()).await;
            futures::future::join_all(self.running.subscribers.iter().map(|subscriber| subscriber.end(end))).await;
        };
        tokio::join!(until(end, "give back the lease", left), closed);
    }

    pub(crate) fn unknown_or(&self, projection: &ProjectionName, known: impl FnOnce() -> Error) -> Error {
        let catalog = self.versions.catalog.current();
        let carried = self.versions.carried().into_iter().map(|carried| carried.code.projection);
        let all: Vec<_> = catalog.projections.keys().cloned().chain(carried).collect();
        if all.contains(projection) { known() } else { Error::no_such_projection(projection, all.into_iter()) }
    }
}

/// Does one stage of a shutdown, which is left at `end`.
async fn until(end: Instant, tried: &str, stage: impl Future<Output = ()>) {
    if tokio::time::timeout_at(end, stage).await.is_err() {
        tracing::warn!(tried, "a stage of the shutdown does not end in time, and is left: the next start continues");
    }
}

fn view_of(projection: &ProjectionName, version: VersionId) -> ViewId {
    ViewId { projection: projection.clone(), version }
}
