//! The node: one process's share of the system, from the store to queries.
//!
//! This module owns the order in which the parts start and stop; what they do is theirs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{
    Catalog, CatalogCommand, CatalogEvent, CatalogRefused, CleanUpReason, EventId, ExpectedRevision, InvalidName,
    Member, MemberId, Metadata, NewEvent, Phase, Position, ProjectionName, StreamName, VersionId, ViewId, limits,
};
use dacapo_store::{Append, Appended, Clock, Filter, Journal, Store, StoreError, SystemClock};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;

use crate::catalog::{self, Asked, CatalogEntry, CatalogError, CatalogLog};
use crate::cluster::{Cluster, SharedClock};
use crate::core::Core;
use crate::error::Error;
use crate::event::{self, Event};
use crate::flip::FlipReport;
use crate::keys::{Request, Which};
use crate::processor::Orders;
use crate::projection::{Carried, Query};
use crate::query::{self, Ask, Reading};
use crate::reads::{self, CarryRefused};
use crate::rebuild;
use crate::replay::{self, ReplayFrom, ReplayReport};
use crate::scrub;
use crate::status::{self, NotReady, Status};
use crate::subscribe::{self, AnySubscriber, Subscribed, Subscriber, Subscription, Tail};
use crate::times::{self, ClockBehind};
use crate::verify::{self, Verification};
use crate::world::{Ids, NoProbe, Offload, Probe, SystemIds, World};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The code it carries does not fit what is stored.
    #[error(transparent)]
    Code(#[from] CatalogRefused),
    /// A version that it was given could not run.
    #[error(transparent)]
    Carry(#[from] CarryRefused),
    /// The store cannot be opened, or its views are not of its journal.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CatalogError> for StartError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Refused(refused) => Self::Code(refused),
            CatalogError::Store(error) => Self::Store(error),
            error => Self::Store(StoreError::Invalid(error.to_string())),
        }
    }
}

/// Where a node keeps what lasts.
enum Place {
    Memory,
    Directory(PathBuf),
    Opened(Store),
}

/// Puts a node together; see [`Node::builder`].
#[must_use = "a node runs once it is started"]
pub struct NodeBuilder {
    place: Place,
    name: Option<String>,
    address: Option<String>,
    carried: Vec<Carried>,
    subscribers: Vec<Arc<dyn AnySubscriber>>,
    looks: bool,
    world: World,
}

/// One process's share of the system: it appends to the journal, runs the processors of the versions
/// whose code it carries, and answers queries. Clones are the same node.
///
/// Dropping the last clone without [`shutdown`](Self::shutdown) loses nothing, but leaves batches unfinished.
#[derive(Clone)]
pub struct Node {
    pub(crate) core: Arc<Core>,
    running: Arc<Running>,
}

struct Running {
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

/// A change of the catalog that was asked for: what it is about, and the position at which it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The version it is about.
    pub view: ViewId,
    /// The position of the request in the journal; `None` when things were as asked already.
    pub position: Option<Position>,
}

/// How a projection is rebuilt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RebuildOptions {
    /// Of this code version; of the newest that the node carries when absent.
    pub code: Option<u32>,
    /// Whether it begins as a copy of the view that serves, as its code says.
    pub from_copy: bool,
    /// Whether it may take the place of a version that is ready and only has to be flipped to.
    pub discard: bool,
}

/// A new build that was scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The new version, and where the catalog has it.
    pub requested: Requested,
    /// The versions that it takes the place of, which are cleaned up.
    pub discards: Vec<VersionId>,
}

impl NodeBuilder {
    /// Keeps everything in this directory, which is made if it is not there. One process at a time has it.
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.place = Place::Directory(directory.into());
        self
    }

    /// Keeps everything in this store.
    pub fn store(mut self, store: Store) -> Self {
        self.place = Place::Opened(store);
        self
    }

    /// Only looks at what is stored: nothing is appended, built, flipped, cleaned up or otherwise carried on, and no byte of
    /// a directory changes. What is asked of such a node beyond looking is refused by its store, or waits for ever.
    pub fn looks(mut self) -> Self {
        self.looks = true;
        self
    }

    /// What people call this node, such as its host name; it need not be unique.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where other nodes reach the API of this one, such as `http://10.0.0.7:7373`.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Carries this version of a projection. New code is built beside the serving version and flipped to
    /// as its options say; keep carrying the old version for as long as it serves or stands by.
    pub fn carry(mut self, version: impl Into<Carried>) -> Self {
        self.carried.push(version.into());
        self
    }

    /// Calls this subscriber with events as they are appended.
    pub fn subscriber(mut self, subscriber: impl Subscriber) -> Self {
        self.subscribers.push(Arc::new(subscriber));
        self
    }

    /// Takes the time from `clock`; in a store that has a clock of its own for all nodes, it is set right by that one.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.world.clock = clock;
        self
    }

    /// Takes ids from `ids`.
    pub fn ids(mut self, ids: Arc<dyn Ids>) -> Self {
        self.world.ids = ids;
        self
    }

    /// Does work that may hold up its thread like this; on threads of its own unless set.
    pub fn offload(mut self, offload: Offload) -> Self {
        self.world.offload = offload;
        self
    }

    /// Lets `probe` watch the steps of flips and clean-ups.
    pub fn probe(mut self, probe: Arc<dyn Probe>) -> Self {
        self.world.probe = probe;
        self
    }

    /// Starts the node: opens the store, reads the catalog, takes up whatever an earlier run left
    /// unfinished, and runs the processors. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`], which says what to do.
    pub async fn start(mut self) -> Result<Node, StartError> {
        reads::check_all(&self.carried)?;
        let clock = Arc::clone(&self.world.clock);
        let store = match self.place {
            Place::Memory => Store::memory(clock),
            Place::Directory(directory) if self.looks => Store::look(&directory, clock)?,
            Place::Directory(directory) => Store::embedded(&directory, clock)?,
            Place::Opened(store) => store,
        };
        let shared_clock = Arc::new(SharedClock::new(Arc::clone(&self.world.clock)));
        self.world.clock = Arc::clone(&shared_clock) as Arc<dyn Clock>;
        let catalog = Arc::new(CatalogLog::open(Arc::clone(&store.journal), self.world.clone()).await?);
        for carried in &self.carried {
            // Whether it is needed is the plan's affair; here only what the catalog would never accept counts.
            match catalog.current().decide(&carried.code.schedule()) {
                // It may read more, or be looked at again: see below.
                Ok(_) | Err(CatalogRefused::Reads { .. }) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        if !self.looks {
            rebuild::check_views(&store, &catalog).await?;
            for carried in &self.carried {
                reads::agree(&store.journal, &catalog, carried).await?;
            }
        }
        let views = Arc::clone(&store.views);
        let id = MemberId::from_bytes(self.world.ids.next().bytes());
        let name = self.name.unwrap_or_else(|| format!("node {id}"));
        let me = Member { id, name, address: self.address, carries: vec![], ready: false };
        let cluster = Arc::new(Cluster::new(Arc::clone(&store.members), shared_clock, store.shared, me));
        cluster.carries(&self.carried);
        let (leave, left) = watch::channel(false);
        let keeper = tokio::spawn(cluster.join(left).await?.run());
        let core = Arc::new(Core::new(Arc::clone(&store.journal), views, catalog, cluster, self.world, self.carried));
        let (stop, stopped) = watch::channel(false);
        let tail = Tail::new(Arc::clone(&store.journal), subscribe::Bounds::default());
        let tail = Arc::new(tail.done_by(core.world.offload));
        let begin = |subscriber| Subscribed::begin(subscriber, Arc::clone(&tail), stop.subscribe());
        let subscribers = self.subscribers.into_iter().map(begin).collect();
        if core.views.has_pages() {
            // It ends with the node as well, and changes nothing that lasts.
            drop(tokio::spawn(scrub::scrub(Arc::downgrade(&core), stopped.clone())));
        }
        let (looked, has_looked) = oneshot::channel();
        if store.shared {
            // It ends with the node, and nobody waits for it: it changes nothing.
            drop(tokio::spawn(catalog::follow(Arc::clone(&core.catalog), stopped.clone())));
        }
        core.times.look(&core).await;
        drop(tokio::spawn(times::watch(Arc::downgrade(&core), stopped.clone())));
        // From here on the status shows every version that there is.
        let conductor = if self.looks {
            rebuild::look(&core).await;
            None
        } else {
            let conductor = tokio::spawn(rebuild::conduct(Arc::clone(&core), stopped, looked));
            // It never fails: the driver tells or panics.
            has_looked.await.ok();
            Some(conductor)
        };
        core.cluster.set_ready(!self.looks);
        let (conductor, keeper) = (Mutex::new(conductor), Mutex::new(Some(keeper)));
        let running = Running { stop, conductor, leave, keeper, tail, subscribers, store };
        Ok(Node { core, running: Arc::new(running) })
    }
}

impl Node {
    /// A node that keeps everything in memory, unless told otherwise.
    pub fn builder() -> NodeBuilder {
        let (clock, ids, probe) = (Arc::new(SystemClock), Arc::new(SystemIds), Arc::new(NoProbe));
        let world = World { clock, ids, offload: Offload::default(), probe };
        let (name, address, looks) = (None, None, false);
        NodeBuilder { place: Place::Memory, name, address, carried: Vec::new(), subscribers: Vec::new(), looks, world }
    }

    /// Appends events to a stream: all of them or none. When this returns they are durable, and whoever
    /// asks [`after`](Ask::after) the returned position sees them.
    ///
    /// # Errors
    /// [`Error::Append`] when the stream is not at the expected revision; [`Error::Store`] when the
    /// journal cannot be written at the moment.
    pub async fn append<E: Event>(
        &self,
        stream: impl TryInto<StreamName, Error = InvalidName>,
        expected: ExpectedRevision,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Appended, Error> {
        let events = events.into_iter().map(|event| self.new_event(&event, Metadata::default()));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        self.append_batch(Append::to_stream(stream.try_into()?, expected, events)).await
    }

    /// Appends a batch of events of any streams: all of them or none. A payload is one value of JSON; only space around
    /// it is dropped.
    ///
    /// # Errors
    /// As [`append`](Self::append); [`Error::SystemStream`] for a stream of dacapo itself; [`Error::Event`] for a payload
    /// that is not JSON.
    pub async fn append_batch(&self, mut append: Append) -> Result<Appended, Error> {
        for event in &mut append.events {
            event::check_payload(&mut event.event)?;
        }
        if let Some(event) = append.events.iter().find(|event| event.stream.is_system()) {
            return Err(Error::SystemStream(event.stream.clone()));
        }
        Ok(self.core.journal.append(append).await?)
    }

    /// `event` with a fresh id, ready for [`append_batch`](Self::append_batch).
    ///
    /// # Errors
    /// [`Error::Event`] when it cannot be written as JSON.
    pub fn new_event<E: Event>(&self, event: &E, metadata: Metadata) -> Result<NewEvent, Error> {
        let event_type = dacapo_model::EventType::new(event.event_type())?;
        Ok(NewEvent { id: self.new_id(), event_type, payload: event.encode()?, metadata, tags: vec![] })
    }

    /// A fresh id.
    pub fn new_id(&self) -> EventId {
        self.core.world.ids.next()
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.core.journal
    }

    /// The last position of the journal.
    pub fn head(&self) -> Position {
        self.core.head()
    }

    /// Checks that `after`, which somebody says to have seen, is in the journal. What other nodes appended a moment ago
    /// is asked for, where the journal is shared.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`](dacapo_store::StoreError::BeyondHead), as [`Error::Store`], if it is not.
    pub async fn check_seen(&self, after: Position) -> Result<(), Error> {
        Ok(self.core.check_seen(after).await?)
    }

    /// The events behind `after` that `filter` wants: those that are there, then those that come, each once and in
    /// order. The caller sets the pace; who is near the head shares what is read with the others.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`](dacapo_store::StoreError::BeyondHead), as [`Error::Store`], when `after` is not in the
    /// journal: whoever asks has seen another one, or a history that this one has lost.
    pub async fn subscribe(&self, after: Position, filter: Filter) -> Result<Subscription, Error> {
        Ok(Subscription::on(Arc::clone(&self.running.tail), after, filter).await?)
    }

    /// Asks the version that serves: `node.ask(query).await`, or `node.ask(query).after(position).await`.
    pub fn ask<Q: Query>(&self, query: Q) -> Ask<Q> {
        Ask::new(Arc::clone(&self.core), query)
    }

    /// One state of the version of `projection` that serves, which covers `after`: for rows and SQL of a
    /// shape the caller knows. It waits for up to [`limits::REQUEST_TIME_MAX`].
    ///
    /// # Errors
    /// [`Error::TimedOut`] when no version serves or covers `after` by then.
    pub async fn read(
        &self,
        projection: impl TryInto<ProjectionName, Error = InvalidName>,
        after: Position,
    ) -> Result<Reading, Error> {
        query::open(&self.core, &projection.try_into()?, after, limits::REQUEST_TIME_MAX).await
    }

    /// Carries one more version, as if the node had been started with it. In place of code of the same version that
    /// it carries already, such as corrected code of one that is being built: its processor goes on from where it is.
    ///
    /// # Errors
    /// [`Error::Catalog`] when its code has changed under an unchanged version number: also when it only reads more types,
    /// which is accepted at the start of a node alone; [`Error::Carry`] when it could not run as it is.
    pub fn carry(&self, version: impl Into<Carried>) -> Result<(), Error> {
        let carried = version.into();
        reads::check(&carried)?;
        self.core.catalog.current().decide(&carried.code.schedule())?;
        self.core.carry(carried);
        Ok(())
    }

    /// Schedules a new build of a projection beside the serving version: of the newest code that this
    /// node carries, or of `code`. It takes the place of a version that is being built.
    ///
    /// # Errors
    /// [`Error::NotCarried`] and [`Error::NoSuchCode`] when this node does not carry it. [`Error::WouldDiscard`] where it
    /// would take the place of a version that only has to be flipped to: with [`RebuildOptions::discard`] that is wanted.
    pub async fn rebuild(
        &self,
        projection: &ProjectionName,
        code: Option<u32>,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let how = RebuildOptions { code, ..RebuildOptions::default() };
        Ok(self.rebuild_with(projection, how, asked).await?.requested)
    }

    /// As [`rebuild`](Self::rebuild), but the new build begins as a copy of the view that serves, as its code says
    /// ([`Options::seed`](crate::Options::seed)), and reads only what came after.
    ///
    /// # Errors
    /// As `rebuild`; [`Error::NoCopy`] where the copy could not be what the new code would have made of the same events.
    pub async fn rebuild_from_copy(
        &self,
        projection: &ProjectionName,
        code: Option<u32>,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let how = RebuildOptions { code, from_copy: true, ..RebuildOptions::default() };
        Ok(self.rebuild_with(projection, how, asked).await?.requested)
    }

    /// As [`rebuild`](Self::rebuild), as `how` says, and tells which versions the new build takes the place of.
    ///
    /// # Errors
    /// As `rebuild` and [`rebuild_from_copy`](Self::rebuild_from_copy).
    pub async fn rebuild_with(
        &self,
        projection: &ProjectionName,
        how: RebuildOptions,
        asked: Asked,
    ) -> Result<Rebuilt, Error> {
        let RebuildOptions { code, from_copy: seeded, discard } = how;
        let request = Request::new("rebuild", projection, code.map_or(Which::Any, Which::Code));
        let request = if seeded { request.with("from a copy") } else { request };
        self.core.catalog.refresh().await?;
        if let Some(entries) = self.core.catalog.repeated(&asked, &request).await? {
            return Ok(rebuilt(&entries));
        }
        let carried = self.core.carried();
        let of_projection = carried.iter().filter(|carried| carried.code.projection == *projection);
        let wanted = of_projection.filter(|carried| code.is_none_or(|code| carried.code.code == code));
        let Some(newest) = wanted.max_by_key(|carried| carried.code.code) else {
            let carried = carried.iter().filter(|carried| carried.code.projection == *projection);
            let missing = || match code {
                Some(code) => {
                    let carried = carried.map(|carried| carried.code.code).collect();
                    Error::NoSuchCode { projection: projection.clone(), code, carried }
                }
                None => Error::NotCarried { projection: projection.clone(), version: None },
            };
            return Err(self.unknown_or(projection, missing));
        };
        let catalog = self.core.catalog.current();
        let ready = catalog.projections.get(projection).and_then(|state| state.would_discard().next());
        if let Some(version) = ready.filter(|_| !discard) {
            return Err(Error::WouldDiscard { view: view_of(projection, version) });
        }
        if seeded {
            let refused = |why| Error::NoCopy { projection: projection.clone(), why };
            self.core.may_copy(newest).map_err(refused)?;
        }
        let schedule = dacapo_model::rebuild::Code { seeded, ..newest.code.clone() }.schedule();
        let entries = Arc::clone(&self.core.catalog).change_for(request, schedule, asked).await?;
        Ok(rebuilt(&entries))
    }

    /// Asks that readers move to version `to`, or to the newest above the serving one. It happens as soon
    /// as that version covers everything that was ever shown; [`flipped`](Self::flipped) waits for it.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version; [`Error::Catalog`] when the catalog declines.
    pub async fn flip(
        &self,
        projection: &ProjectionName,
        to: Option<VersionId>,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let find = |_: &Asked| {
            let catalog = self.core.catalog.current();
            let state = catalog.projections.get(projection);
            let to = to.or_else(|| state?.flip_target()).ok_or_else(|| {
                let text = "has no version above the serving one to flip to: ask for a rebuild, or name a version";
                self.unknown_or(projection, || Error::NoTarget(format!("{projection} {text}")))
            })?;
            Ok((to, CatalogCommand::RequestFlip(view_of(projection, to))))
        };
        let request = Request::new("flip", projection, to);
        self.request(projection, request, asked, find).await
    }

    /// Asks that readers move back to version `to`, or to the one below the serving one that served last.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version; [`Error::Catalog`] when the catalog declines.
    pub async fn rollback(
        &self,
        projection: &ProjectionName,
        to: Option<VersionId>,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let find = |_: &Asked| {
            let catalog = self.core.catalog.current();
            let state = catalog.projections.get(projection);
            let to = to.or_else(|| state?.rollback_target()).ok_or_else(|| {
                let text = "has no earlier version that stands by, so there is nothing to roll back to";
                self.unknown_or(projection, || Error::NoTarget(format!("{projection} {text}")))
            })?;
            self.known_version(projection, to)?;
            if let Some(serving) = state.and_then(|state| state.serving).filter(|serving| to >= *serving) {
                let text = format!("{to} is not below {serving}, which serves: a rollback goes to an earlier version");
                return Err(Error::NoTarget(text));
            }
            Ok((to, CatalogCommand::RequestFlip(view_of(projection, to))))
        };
        let request = Request::new("rollback", projection, to);
        self.request(projection, request, asked, find).await
    }

    /// Has the catalog changed as `find` says, for the version that it finds; what was asked under the same key before is
    /// not done again.
    async fn request(
        &self,
        projection: &ProjectionName,
        request: Request,
        asked: Asked,
        find: impl FnOnce(&Asked) -> Result<(VersionId, CatalogCommand), Error>,
    ) -> Result<Requested, Error> {
        if let Some(requested) = self.repeated(&asked, &request).await? {
            return Ok(requested);
        }
        let (version, command) = find(&asked)?;
        let entries = Arc::clone(&self.core.catalog).change_for(request, command, asked).await?;
        let position = entries.first().map(|entry| entry.position);
        Ok(Requested { view: view_of(projection, version), position })
    }

    /// How the verification of a version stands: of `version`, or of the newest that is being built, or else of the
    /// newest that was verified.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version.
    pub fn verification(&self, projection: &ProjectionName, version: Option<VersionId>) -> Result<Verification, Error> {
        verify::verification(&self.core, projection, version).ok_or_else(|| match version {
            Some(version) => match self.known_version(projection, version) {
                Err(error) => error,
                Ok(()) => Error::NoTarget(format!("{projection} {version} was never verified")),
            },
            None => self.unknown_or(projection, || {
                Error::NoTarget(format!("no version of {projection} is being built or was verified: ask for a rebuild"))
            }),
        })
    }

    /// Asks that a version that is being built is verified again. Until that is done its verdict does not count.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version; [`Error::Catalog`] when it is not being built.
    pub async fn verify_again(
        &self,
        projection: &ProjectionName,
        version: Option<VersionId>,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let find = |_: &Asked| {
            let view = self.verification(projection, version)?.view;
            Ok((view.version, CatalogCommand::RequestVerification(view)))
        };
        let request = Request::new("verify", projection, version);
        self.request(projection, request, asked, find).await
    }

    /// Answers for a version that was not found right: it may serve all the same. Who and why are kept.
    ///
    /// # Errors
    /// [`Error::NoReason`] when `asked` has none; [`Error::Catalog`] when there is no verdict to waive.
    pub async fn waive(
        &self,
        projection: &ProjectionName,
        version: Option<VersionId>,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let find = |asked: &Asked| {
            let view = self.verification(projection, version)?.view;
            let why = asked.reason.clone().filter(|reason| !reason.trim().is_empty()).ok_or(Error::NoReason)?;
            Ok((view.version, CatalogCommand::Waive { view, by: asked.actor.clone(), why }))
        };
        let request = Request::new("waive", projection, version);
        self.request(projection, request, asked, find).await
    }

    /// Waits until a version is verified, for up to `within`, and tells what came of it.
    ///
    /// # Errors
    /// [`Error::TimedOut`], with what it waits on, when that has not happened by then. It goes on either way.
    pub async fn verified(&self, view: &ViewId, within: Duration) -> Result<Verification, Error> {
        let mut catalog = self.core.catalog.watch();
        let verified = catalog.wait_for(|catalog| {
            catalog.version(view).is_none_or(|state| match state.phase {
                Phase::Scheduled => false,
                _ => !state.is_unverified(),
            })
        });
        let in_time = tokio::time::timeout(within, verified).await.is_ok();
        let verification = self.verification(&view.projection, Some(view.version))?;
        if !in_time {
            let what = format!("{view} is not verified");
            return Err(Error::TimedOut {
                what,
                waited: within,
                waiting_on: verification.waiting_on.into_iter().collect(),
            });
        }
        Ok(verification)
    }

    /// What a request led to that was made before under the same idempotency key.
    ///
    /// Whatever is decided next is decided on what is known then: also of what other nodes have changed.
    async fn repeated(&self, asked: &Asked, request: &Request) -> Result<Option<Requested>, Error> {
        self.core.catalog.refresh().await?;
        let entry = self.core.catalog.repeated(asked, request).await?.and_then(|entries| entries.into_iter().next());
        Ok(entry.map(|entry| Requested { view: entry.event.view().clone(), position: Some(entry.position) }))
    }

    /// Waits for a requested flip or rollback to happen, for up to `within`.
    ///
    /// # Errors
    /// [`Error::FlipAborted`] when it was given up; [`Error::TimedOut`], with what it waits on, when it has
    /// not happened by then. It goes on either way.
    pub async fn flipped(&self, requested: &Requested, within: Duration) -> Result<FlipReport, Error> {
        let ViewId { projection, version: to } = &requested.view;
        let mut catalog = self.core.catalog.watch();
        let settled = catalog.wait_for(|catalog| {
            let pending = catalog.projections.get(projection).and_then(|state| state.flip);
            pending.is_none_or(|pending| pending.to != *to)
        });
        if tokio::time::timeout(within, settled).await.is_err() {
            let waiting_on = self.core.flip_state(projection).waiting_on;
            let what = format!("the flip of {projection} to {to} has not happened");
            return Err(Error::TimedOut { what, waited: within, waiting_on });
        }
        let history = catalog::history(&*self.core.journal).await?;
        let asked_at = requested.position.unwrap_or_default();
        let later =
            history.into_iter().filter(|entry| entry.position > asked_at && *entry.event.view() == requested.view);
        let settled = |entry: &CatalogEntry| {
            matches!(
                entry.event,
                CatalogEvent::Flipped { .. } | CatalogEvent::FlipAborted { .. } | CatalogEvent::FlipCancelled { .. }
            )
        };
        // The first one after a request settles it; without one, the last is why things are as they are.
        let mut settled = later.filter(settled);
        let entry = if requested.position.is_some() { settled.next() } else { settled.last() };
        if let Some(CatalogEntry { event: CatalogEvent::FlipCancelled { .. }, asked, .. }) = &entry {
            let why = asked.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let reason = format!("{} cancelled it{why}", asked.actor);
            return Err(Error::FlipAborted { projection: projection.clone(), to: *to, reason });
        }
        match entry.map(|entry| (entry.event, entry.position)) {
            Some((CatalogEvent::Flipped { from, kind, covers, .. }, flipped)) => {
                let pause = self.core.flip_pause(projection, flipped).await;
                Ok(FlipReport { to: *to, from, kind, flipped, covers, pause })
            }
            Some((CatalogEvent::FlipAborted { reason, .. }, _)) => {
                Err(Error::FlipAborted { projection: projection.clone(), to: *to, reason })
            }
            _ => Err(Error::NoTarget(format!("no flip of {projection} to {to} was asked for"))),
        }
    }

    /// Lets past events go through the serving version again, or through `version`, in its own view. Its projection
    /// says in [`Options::in_place`](crate::Options::in_place) that they may; what it costs readers is said there.
    /// [`replayed`](Self::replayed) waits for the end.
    ///
    /// # Errors
    /// [`Error::NotInPlace`] when the projection does not let it; [`Error::ReplayUnderWay`] while another one runs,
    /// with how far that is; [`Error::NoTarget`] when there is nothing to replay; [`Error::Catalog`] when the catalog
    /// declines, as during a flip.
    pub async fn replay(
        &self,
        projection: &ProjectionName,
        version: Option<VersionId>,
        from: ReplayFrom,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let request = Request::new("replay", projection, version).with(format_args!("from {from}"));
        if let Some(requested) = self.repeated(&asked, &request).await? {
            return Ok(requested);
        }
        if !self.core.catalog.current().projections.contains_key(projection) {
            let none = || Error::NoTarget(format!("no version of {projection} serves, so there is none to replay"));
            return Err(self.unknown_or(projection, none));
        }
        replay::request(&self.core, request, projection, version, from, asked).await
    }

    /// Waits for the end of a replay that was asked for, for up to `within`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], with how far it is, when it has not ended by then. It goes on either way.
    pub async fn replayed(&self, requested: &Requested, within: Duration) -> Result<ReplayReport, Error> {
        replay::ended(&self.core, requested, within).await
    }

    /// Drops the view of a version that does not serve: ends its stand-by, or gives up a rebuild. One that is on its way to
    /// events whose effects are its to make, such as those that were appended during the flip, is waited for, for up to
    /// [`limits::SPEAK_TIME_MAX`].
    ///
    /// # Errors
    /// [`Error::Catalog`] when the catalog declines.
    pub async fn clean_up(&self, view: &ViewId, asked: Asked) -> Result<Requested, Error> {
        let spoken = async {
            while self.core.stands_by_speaking(view).await {
                tokio::time::sleep(limits::SPEAK_LOOK).await;
            }
        };
        if tokio::time::timeout(limits::SPEAK_TIME_MAX, spoken).await.is_err() {
            tracing::warn!(%view, "it is cleaned up before it has come to all that it speaks for: that has no effects");
        }
        let command = CatalogCommand::CleanUp { view: view.clone(), reason: CleanUpReason::Asked };
        self.order("clean-up", command, view, asked).await
    }

    /// Applies no more events to the view of a version, after the batch it is in, until it is resumed. A copy that it
    /// begins as or an index under way is given up and begun again then. It survives a restart.
    ///
    /// # Errors
    /// [`Error::Catalog`] when no events are applied to it anyway.
    pub async fn pause(&self, view: &ViewId, asked: Asked) -> Result<Requested, Error> {
        self.order("pause", CatalogCommand::Pause(view.clone()), view, asked).await
    }

    /// Applies events to the view of a version again, and tries at once what its handler refused, and a copy or a reset
    /// that failed.
    ///
    /// # Errors
    /// [`Error::Catalog`] when no events are applied to a version in its phase.
    pub async fn resume(&self, view: &ViewId, asked: Asked) -> Result<Requested, Error> {
        self.order("resume", CatalogCommand::Resume(view.clone()), view, asked).await
    }

    async fn order(
        &self,
        act: &'static str,
        command: CatalogCommand,
        view: &ViewId,
        asked: Asked,
    ) -> Result<Requested, Error> {
        let request = Request::new(act, &view.projection, Which::Version(view.version));
        let requested = self.request(&view.projection, request, asked, |_| Ok((view.version, command))).await?;
        // The rebuild driver would tell it as well, but only when it comes around.
        if let (Some(open), Some(state)) = (self.core.open_version(view), self.core.catalog.current().version(view)) {
            open.order(Orders::of(state));
        }
        Ok(requested)
    }

    /// Whether there is such a version, or was.
    ///
    /// # Errors
    /// [`Error::NoSuchProjection`], or [`Error::Catalog`] with those that there are.
    pub(crate) fn known_version(&self, projection: &ProjectionName, version: VersionId) -> Result<(), Error> {
        let catalog = self.core.catalog.current();
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
        self.core.times.behind(self.core.world.clock.now())
    }

    /// The catalog: which versions exist, their phases, which one serves. The watch wakes at every change.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.core.catalog.watch()
    }

    /// Every change of the catalog there ever was, with who asked for it and why.
    ///
    /// # Errors
    /// [`Error::Store`] when the journal cannot be read.
    pub async fn history(&self) -> Result<Vec<CatalogEntry>, Error> {
        Ok(catalog::history(&*self.core.journal).await?)
    }

    /// How the projections are. A view that cannot be read is no error: its version says what it waits on.
    ///
    /// # Errors
    /// [`Error::Store`] is kept for stores that have to be asked for the head.
    pub async fn status(&self) -> Result<Status, Error> {
        let mut status = status::status(&self.core).await;
        status.subscribers = self.running.subscribers.iter().map(|found| found.status(status.head)).collect();
        Ok(status)
    }

    /// Why this node cannot answer queries on every projection that has a serving version: its code is not here, its view
    /// is not open, the store is away. Empty when it can. It asks no store, so it can be told at once.
    pub fn not_ready(&self) -> Vec<NotReady> {
        status::not_ready(&self.core)
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
            tracing::error!(%error, "the rebuild driver ended by a bug in dacapo");
        }
        let versions = self.core.open_versions();
        futures::future::join_all(versions.iter().map(|version| version.stop())).await;
        // Others take over at once what was this node's.
        self.running.leave.send_replace(true);
        if let Some(keeper) = self.running.keeper.lock().await.take()
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, "the lease ended by a bug in dacapo");
        }
        self.core.journal.close().await;
        futures::future::join_all(self.running.subscribers.iter().map(Subscribed::end)).await;
    }

    pub(crate) fn unknown_or(&self, projection: &ProjectionName, known: impl FnOnce() -> Error) -> Error {
        let catalog = self.core.catalog.current();
        let carried = self.core.carried().into_iter().map(|carried| carried.code.projection);
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

/// What these entries scheduled.
#[expect(clippy::expect_used, reason = "a schedule that is accepted schedules a version")]
fn rebuilt(entries: &[CatalogEntry]) -> Rebuilt {
    let scheduled = entries.iter().find(|entry| matches!(entry.event, CatalogEvent::Scheduled { .. }));
    // Asked again under the key of something else, it is answered as that was.
    let first = scheduled.or(entries.first()).expect("a schedule that is accepted schedules a version");
    let cleaned = entries.iter().filter(|entry| matches!(entry.event, CatalogEvent::CleaningUp { .. }));
    let discards = cleaned.map(|entry| entry.event.view().version).collect();
    let requested = Requested { view: first.event.view().clone(), position: Some(first.position) };
    Rebuilt { requested, discards }
}
