//! The node: one process's share of the system, from the store to queries.
//!
//! This module owns the order in which the parts start and stop; what they do is theirs.

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

use crate::catalog::{self, CatalogEntry};
use crate::code::{Query, VersionCode, check_carried};
use crate::error::Error;
use crate::query::{self, Ask, Reading};
use crate::status::{self, NotReady, Status};
use crate::subscribe::{Subscribed, Tail};
use crate::times::{ClockBehind, Times};
use crate::versions::Versions;

pub use builder::NodeBuilder;
pub use cancel::{Cancellation, Cancelled};
pub use handle::{ProjectionHandle, VersionHandle};
pub use letters::{DeadLetter, List, Listed, SetAside, Settle};
pub use operate::{CleanUp, Examine, Flip, Order, Rebuild, Rebuilt};
pub use replay::{Replay, ReplayFrom, ReplayReport};
pub use request::{Done, End, Operation, Request, Requested};
pub use wait::CleanedUp;
pub use write::JournalReader;

/// One process's share of the system: it appends to the journal, runs the processors of the versions
/// whose code it carries, and answers queries. Clones are the same node.
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
    /// Ends the lease, once told to or dropped.
    leave: watch::Sender<bool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// What the subscriptions share.
    tail: Arc<Tail>,
    subscribers: Vec<Subscribed>,
    store: Store,
}

impl Node {
    /// A node that keeps everything in memory, unless told otherwise.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// Asks the version that serves: `node.ask(query).await`, or `node.ask(query).after(position).await`.
    pub fn ask<Q: Query>(&self, query: Q) -> Ask<Q> {
        Ask::new(Arc::clone(&self.versions), query)
    }

    /// One state of the version of `projection` that serves, which covers `after`: for rows and SQL of a
    /// shape the caller knows. It waits for up to [`limits::REQUEST_TIME_MAX`].
    ///
    /// # Errors
    /// [`Error::TimedOut`] when no version serves or covers `after` by then.
    pub async fn read(
        &self,
        projection: impl TryInto<ProjectionName, Error: Into<Error>>,
        after: Position,
    ) -> Result<Reading, Error> {
        let projection = projection.try_into().map_err(Into::into)?;
        query::open(&self.versions, &projection, after, limits::REQUEST_TIME_MAX).await
    }

    /// A projection by its name, to operate it: `node.projection("balances")?.flip().await`. Whether there is such a
    /// projection is found out when something is asked of it.
    ///
    /// # Errors
    /// [`Error::Name`] when `name` cannot be the name of a projection.
    pub fn projection(
        &self,
        name: impl TryInto<ProjectionName, Error: Into<Error>>,
    ) -> Result<ProjectionHandle, Error> {
        Ok(ProjectionHandle { node: self.clone(), name: name.try_into().map_err(Into::into)? })
    }

    /// A version by its projection and its number, as status and catalog name it, to operate it.
    pub fn version(&self, view: ViewId) -> VersionHandle {
        VersionHandle { node: self.clone(), view }
    }

    /// Runs one more version, as if the node had been started with it. In place of code of the same version that
    /// it carries already, such as corrected code of one that is being built: its processor goes on from where it is.
    ///
    /// # Errors
    /// [`Error::Catalog`] when its code has changed under an unchanged version number: also when it only reads more types,
    /// which is accepted at the start of a node alone; [`Error::Carry`] when it could not run as it is.
    pub fn add_projection(&self, version: impl Into<VersionCode>) -> Result<(), Error> {
        let carried = version.into();
        check_carried(&carried)?;
        self.versions.catalog.current().decide(&carried.code.schedule())?;
        self.versions.carry(carried);
        Ok(())
    }

    /// Whether there is such a version, or was.
    ///
    /// # Errors
    /// [`Error::NoSuchProjection`], or [`Error::Catalog`] with those that there are.
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

    /// That the journal's times are ahead of this node's clock by more than [`limits::CLOCK_BEHIND_MAX`], as far as it
    /// has looked: every event that is appended gets the time of the last one until the clock has come to that.
    pub fn clock_behind(&self) -> Option<ClockBehind> {
        self.running.times.behind(self.versions.world.clock.now())
    }

    /// The catalog: which versions exist, their phases, which one serves. The watch wakes at every change.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.versions.catalog.watch()
    }

    /// Every change of the catalog there ever was, with who asked for it and why.
    ///
    /// # Errors
    /// [`Error::Store`] when the journal cannot be read.
    pub async fn history(&self) -> Result<Vec<CatalogEntry>, Error> {
        Ok(catalog::history(&*self.versions.journal).await?)
    }

    /// How the projections are. A view that cannot be read is no error: its version says what it waits on.
    ///
    /// # Errors
    /// [`Error::Store`] is kept for stores that have to be asked for the head.
    pub async fn status(&self) -> Result<Status, Error> {
        let mut status = status::status(&self.versions).await;
        status.subscribers = self.running.subscribers.iter().map(|found| found.status(status.head)).collect();
        Ok(status)
    }

    /// Why this node cannot answer queries on every projection that has a serving version: its code is not here, its view
    /// is not open, the store is away. Empty when it can. It asks no store, so it can be told at once.
    pub fn not_ready(&self) -> Vec<NotReady> {
        status::not_ready(&self.versions)
    }

    /// Where the node keeps what lasts, in a few words.
    pub fn store_description(&self) -> &str {
        &self.running.store.description
    }

    /// Stops in order: no new rebuild steps, then the processors after the batch each is in, or without it after
    /// [`limits::STOP_TIME_MAX`] (one whose handler computes without end is left behind, and its claim revoked), then
    /// the journal after what waits to be appended, and the subscribers after they were given the rest, or without it
    /// after the same time. Flips under way go on at the next start.
    pub async fn shutdown(&self) {
        self.running.stop.send_replace(true);
        if let Some(conductor) = self.running.conductor.lock().await.take()
            && let Err(error) = conductor.await
        {
            tracing::error!(%error, "the conductor ended by a bug in dacapo");
        }
        let versions = self.versions.open_versions();
        futures::future::join_all(versions.iter().map(|version| version.stop())).await;
        // Others take over at once what was this node's.
        self.running.leave.send_replace(true);
        if let Some(keeper) = self.running.keeper.lock().await.take()
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, "the lease ended by a bug in dacapo");
        }
        self.versions.journal.close().await;
        futures::future::join_all(self.running.subscribers.iter().map(Subscribed::end)).await;
    }

    pub(crate) fn unknown_or(&self, projection: &ProjectionName, known: impl FnOnce() -> Error) -> Error {
        let catalog = self.versions.catalog.current();
        let carried = self.versions.carried().into_iter().map(|carried| carried.code.projection);
        let mut all: Vec<_> = catalog.projections.keys().cloned().chain(carried).collect();
        all.sort();
        all.dedup();
        if all.contains(projection) {
            return known();
        }
        Error::NoSuchProjection { name: projection.clone(), known: all }
    }
}

fn view_of(projection: &ProjectionName, version: VersionId) -> ViewId {
    ViewId { projection: projection.clone(), version }
}
