//! The builder of a node, which starts the node's parts in their order.

#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::sync::Arc;

use dacapo_model::{CatalogRefused, Member, MemberId};
use dacapo_store::{Clock, Store, StoreError, Streams, SystemClock};
use tokio::sync::{Mutex, oneshot, watch};

use super::{Node, Running};
use crate::catalog::{self, CatalogLog};
use crate::cluster::{Cluster, SharedClock};
use crate::code::{VersionCode, check_all_carried, check_categories};
use crate::conductor;
use crate::error::StartError;
use crate::reads;
use crate::scrub;
use crate::subscribe::{self, AnySubscriber, Subscribed, Subscriber, Tail};
use crate::times::{self, Times};
use crate::versions::Versions;
use crate::world::{Ids, NoProbe, Offload, Probe, SystemIds, World};

/// The place in which a node keeps its data.
enum Place {
    /// Not set: in memory, if that store is compiled in.
    Unsaid,
    #[cfg(feature = "embedded")]
    Directory(PathBuf),
    Opened(Store),
}

impl Place {
    #[cfg(feature = "embedded")]
    fn open(self, looks: bool, clock: Arc<dyn Clock>) -> Result<Store, StartError> {
        Ok(match self {
            Self::Unsaid => Store::memory(clock),
            Self::Directory(directory) if looks => Store::look(&directory, clock)?,
            Self::Directory(directory) => Store::embedded(&directory, clock)?,
            Self::Opened(store) => store,
        })
    }

    #[cfg(not(feature = "embedded"))]
    fn open(self, _: bool, _: Arc<dyn Clock>) -> Result<Store, StartError> {
        match self {
            Self::Unsaid => Err(StartError::NoStore),
            Self::Opened(store) => Ok(store),
        }
    }
}

/// Builds a node; see [`Node::builder`].
#[must_use = "a node runs once it is started"]
pub struct NodeBuilder {
    place: Place,
    name: Option<String>,
    address: Option<String>,
    carried: Vec<VersionCode>,
    subscribers: Vec<Arc<dyn AnySubscriber>>,
    looks: bool,
    world: World,
}

impl NodeBuilder {
    pub(super) fn new() -> Self {
        let (clock, ids, probe) = (Arc::new(SystemClock), Arc::new(SystemIds), Arc::new(NoProbe));
        let world = World { clock, ids, offload: Offload::default(), probe };
        let (name, address, looks) = (None, None, false);
        Self { place: Place::Unsaid, name, address, carried: Vec::new(), subscribers: Vec::new(), looks, world }
    }

    /// Keeps all data in this directory, which is made if it does not exist. One process at a time owns it.
    #[cfg(feature = "embedded")]
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.place = Place::Directory(directory.into());
        self
    }

    /// Keeps all data in this store.
    pub fn store(mut self, store: Store) -> Self {
        self.place = Place::Opened(store);
        self
    }

    /// Only looks at the stored data: the node appends, builds, flips and cleans up nothing, and no byte of a directory
    /// changes. Its store refuses other requests, or they wait for ever.
    pub fn looks(mut self) -> Self {
        self.looks = true;
        self
    }

    /// Sets the name of this node for people, such as its host name. It need not be unique.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the address at which other nodes reach the API of this one, such as `http://10.0.0.7:7373`.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Runs this version of a projection. Call it once for each version. A new version is built beside the serving one
    /// and flips as its options say. Keep the old version here as long as it serves or stands by.
    pub fn projection(mut self, version: impl Into<VersionCode>) -> Self {
        self.carried.push(version.into());
        self
    }

    /// Calls this subscriber with events as they are appended.
    pub fn subscriber(mut self, subscriber: impl Subscriber) -> Self {
        self.subscribers.push(Arc::new(subscriber));
        self
    }

    /// Takes the time from `clock`. If the store has one clock for all nodes, the time is that of the store, and `clock`
    /// counts on from there.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.world.clock = clock;
        self
    }

    /// Takes ids from `ids`.
    pub fn ids(mut self, ids: Arc<dyn Ids>) -> Self {
        self.world.ids = ids;
        self
    }

    /// Runs work that may block its thread with `offload`. Default: on threads of its own.
    pub fn offload(mut self, offload: Offload) -> Self {
        self.world.offload = offload;
        self
    }

    /// Lets `probe` watch the steps of flips and clean-ups.
    pub fn probe(mut self, probe: Arc<dyn Probe>) -> Self {
        self.world.probe = probe;
        self
    }

    /// Starts the node: opens the store, reads the catalog, continues what an earlier run left unfinished, and runs the
    /// processors. It must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`], which says what to do.
    pub async fn start(mut self) -> Result<Node, StartError> {
        check_all_carried(&self.carried)?;
        check_subscribers(&self.subscribers)?;
        let clock = Arc::clone(&self.world.clock);
        let store = self.place.open(self.looks, clock)?;
        let shared_clock = Arc::new(SharedClock::new(Arc::clone(&self.world.clock)));
        self.world.clock = Arc::clone(&shared_clock) as Arc<dyn Clock>;
        let catalog = Arc::new(CatalogLog::open(Arc::clone(&store.journal), self.world.clone()).await?);
        for carried in &self.carried {
            // The plan decides whether it is needed. Only what the catalog would never accept counts here.
            match catalog.current().decide(&carried.code.schedule()) {
                // It may read more events, and is checked again below.
                Ok(_) | Err(CatalogRefused::Reads { .. }) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        if !self.looks {
            check_names(&store, &catalog, &self.carried)?;
            conductor::check_views(&store, &catalog).await?;
            for carried in &self.carried {
                reads::agree(&store.journal, &catalog, carried).await?;
            }
        }
        let views = Arc::clone(&store.views);
        let id = MemberId::from_bytes(self.world.ids.next().bytes());
        let name = self.name.unwrap_or_else(|| format!("node {id}"));
        let me = Member { id, name, address: self.address, carries: vec![], ready: false };
        let cluster = Arc::new(Cluster::new(Arc::clone(&store.members), shared_clock, store.shared, me));
        cluster.carries(self.carried.iter().map(VersionCode::of_member).collect());
        let (leave, left) = watch::channel(false);
        let keeper = tokio::spawn(cluster.join(left).await?.run());
        let versions =
            Arc::new(Versions::new(Arc::clone(&store.journal), views, catalog, cluster, self.world, self.carried));
        let (stop, stopped) = watch::channel(false);
        let tail = Tail::new(Arc::clone(&store.journal), subscribe::Bounds::default());
        let tail = Arc::new(tail.done_by(versions.world.offload));
        let begin = |subscriber| Subscribed::begin(subscriber, Arc::clone(&tail), stop.subscribe());
        let subscribers = self.subscribers.into_iter().map(begin).collect();
        if versions.views.has_pages() {
            // It ends with the node as well, and changes no stored data.
            drop(tokio::spawn(scrub::scrub(Arc::downgrade(&versions), stopped.clone())));
        }
        let (looked, has_looked) = oneshot::channel();
        if store.shared {
            // It ends with the node, and nobody waits for it, since it changes nothing.
            drop(tokio::spawn(catalog::follow(Arc::clone(&versions.catalog), stopped.clone())));
        }
        let times = Arc::new(Times::default());
        times.look(&*versions.journal, &*versions.world.clock).await;
        let (journal, clock) = (Arc::clone(&versions.journal), Arc::clone(&versions.world.clock));
        drop(tokio::spawn(times::watch(Arc::clone(&times), journal, clock, stopped.clone())));
        // From here on the status shows every existing version.
        let conductor = if self.looks {
            conductor::look(&versions).await;
            None
        } else {
            let conductor = tokio::spawn(conductor::conduct(Arc::clone(&versions), stopped, looked));
            // It never fails: the driver sends or panics.
            has_looked.await.ok();
            Some(conductor)
        };
        versions.cluster.set_ready(!self.looks);
        let (conductor, keeper) = (Mutex::new(conductor), Mutex::new(Some(keeper)));
        let running = Running { times, stop, conductor, leave, keeper, tail, subscribers, store };
        Ok(Node { versions, running: Arc::new(running) })
    }
}

/// Checks that each subscriber could ever be called.
fn check_subscribers(subscribers: &[Arc<dyn AnySubscriber>]) -> Result<(), StartError> {
    for subscriber in subscribers {
        let refused = |why| StartError::Subscriber { name: subscriber.name(), why };
        if let Streams::Categories(categories) = &subscriber.filter().streams {
            check_categories(categories, false).map_err(refused)?;
        }
    }
    Ok(())
}

/// Refuses projections that the store could not distinguish from others.
fn check_names(store: &Store, catalog: &CatalogLog, carried: &[VersionCode]) -> Result<(), StoreError> {
    let catalog = catalog.current();
    let known: Vec<_> = catalog.projections.keys().collect();
    let new = carried.iter().map(|carried| &carried.code.projection);
    store.views.check_names(&known, &new.filter(|name| !known.contains(name)).collect::<Vec<_>>())
}
