//! The versions that this node has open, and what it knows of each.
//!
//! This module owns the registry of open versions, the code that the node carries, and the notes that the drivers leave
//! for each other and for the status. It drives nothing: the conductor opens and closes versions, and processors apply
//! events.

mod carried;
mod copy;
mod facts;
mod notes;
mod open;
mod reasons;
mod shadowing;
mod speaking;
mod stands;
mod subject;
mod trail;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use dacapo_model::{Position, ProjectionName, ProjectionState, Token, VersionId, ViewId};
use dacapo_store::{Filter, Journal, Limit, StoreError, Views};
use tokio::sync::{Mutex, watch};

pub(crate) use carried::CarriedHere;
pub(crate) use facts::{Facts, Known, Lookout};
pub(crate) use notes::Notes;
pub(crate) use open::{OpenVersion, revoke};
pub(crate) use shadowing::{Noted, Shadowing};
pub(crate) use speaking::may_speak;
pub(crate) use stands::Stands;
pub(crate) use subject::Subject;
pub(crate) use trail::Trails;

use crate::catalog::CatalogLog;
use crate::cluster::{Cluster, SteadyClock};
use crate::code::{Query, VersionCode};
use crate::world::{Clock, World};

/// The versions of a node, and the parts that they need.
pub(crate) struct Versions {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) catalog: Arc<CatalogLog>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) world: World,
    /// The clock by which this node decides that a time has passed.
    pub(crate) steady: Arc<dyn Clock>,
    /// How long each version has stood by.
    pub(crate) stands: Stands,
    /// The head when this node started. Everything that was shown before the start is at most at this position. So an
    /// answer that covers it sends no reader back, even if a view has lost its last commits in a power cut (I-7).
    pub(crate) floor: Position,
    /// For each projection, the highest position that an answer of this node has covered.
    answered: RwLock<HashMap<ProjectionName, Position>>,
    /// The code that this node carries.
    pub(crate) code: CarriedHere,
    open: RwLock<BTreeMap<ViewId, Arc<OpenVersion>>>,
    /// The views that this process has opened, or tried to, until their versions are gone. Locked while a version is
    /// opened, and by callers that rely on a version being closed.
    pub(crate) opening: Mutex<BTreeSet<ViewId>>,
    /// Wakes when the carried code or the set of open versions changes.
    pub(crate) opened: watch::Sender<()>,
    /// The findings of the drivers.
    pub(crate) notes: Notes,
    /// The recent progress of every version.
    pub(crate) trails: Trails,
    /// The facts about versions from the store.
    pub(crate) lookout: Lookout,
    /// The versions that also get some live queries.
    shadowing: RwLock<HashMap<ProjectionName, Arc<Shadowing>>>,
}

impl Versions {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        views: Arc<dyn Views>,
        catalog: Arc<CatalogLog>,
        cluster: Arc<Cluster>,
        world: World,
        carried: Vec<VersionCode>,
    ) -> Self {
        let floor = *journal.head().borrow();
        let steady: Arc<dyn Clock> = Arc::new(SteadyClock::new(Arc::clone(&world.clock)));
        let stands = Stands::new(Arc::clone(&steady), &catalog.current());
        Self {
            journal,
            views,
            catalog,
            cluster,
            world,
            steady,
            stands,
            floor,
            answered: RwLock::default(),
            code: CarriedHere::new(carried),
            open: RwLock::default(),
            opening: Mutex::default(),
            opened: watch::Sender::new(()),
            notes: Notes::default(),
            trails: Trails::new(),
            lookout: Lookout::default(),
            shadowing: RwLock::default(),
        }
    }

    pub(crate) fn head(&self) -> Position {
        *self.journal.head().borrow()
    }

    /// Checks that `after`, which a caller claims to have seen, is in the journal. Another node may have appended
    /// events that this node does not know of yet, so the journal is asked before the caller is refused.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] if it is not.
    pub(crate) async fn check_seen(&self, after: Position) -> Result<(), StoreError> {
        if after > self.head() {
            self.journal.read(after, &Filter::everything(), Limit { events: 1, bytes: 1 }).await?;
        }
        Ok(())
    }

    /// Returns the end of the journal, if it has no event after `after`.
    pub(crate) async fn ends_at(&self, after: Position) -> Result<Option<Position>, StoreError> {
        if after < self.head() {
            return Ok(None);
        }
        match self.journal.read(after, &Filter::everything(), Limit { events: 1, bytes: 1 }).await {
            Ok(batch) => Ok(batch.is_empty().then_some(batch.through)),
            Err(StoreError::BeyondHead { head, .. }) => Ok(Some(head)),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn carried(&self) -> Vec<VersionCode> {
        self.code.all()
    }

    /// Returns the code of this number, if it is here.
    pub(crate) fn code_here(&self, projection: &ProjectionName, code: u32) -> Option<VersionCode> {
        self.code.of(&ViewId { projection: projection.clone(), version: VersionId { code, build: 1 } })
    }

    pub(crate) fn code_of(&self, id: &ViewId) -> Option<VersionCode> {
        self.code.of(id)
    }

    /// Carries this version from here on, replacing other code of its number.
    pub(crate) fn carry(&self, carried: VersionCode) {
        self.code.add(carried);
        self.tell_carried();
        self.opened.send_replace(());
    }

    /// Reports to the other nodes which code of this one may get work, and the news about it to the log.
    pub(crate) fn tell_carried(&self) {
        self.code.tell(&self.catalog.current(), &self.cluster);
    }

    pub(crate) fn open_version(&self, id: &ViewId) -> Option<Arc<OpenVersion>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn open_versions(&self) -> Vec<Arc<OpenVersion>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn insert_open(&self, version: Arc<OpenVersion>) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(version.id.clone(), version);
        self.opened.send_replace(());
    }

    pub(crate) fn remove_open(&self, id: &ViewId) -> Option<Arc<OpenVersion>> {
        let removed = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(id)?;
        self.opened.send_replace(());
        Some(removed)
    }

    /// Records that the view of a version was closed while it was damaged, gone or parted. Everything that it had shown was in the
    /// journal by then.
    pub(crate) fn closed(&self, id: &ViewId) {
        self.notes.closed(id, self.head());
    }

    /// Returns the highest position that a version which is not open on this node may have shown here.
    pub(crate) fn shown(&self, id: &ViewId) -> Position {
        self.notes.closed_at(id).unwrap_or_default().max(self.floor)
    }

    /// Returns the highest position that an answer of this node about `projection` has covered.
    pub(crate) fn answered(&self, projection: &ProjectionName) -> Position {
        let answered = self.answered.read().unwrap_or_else(PoisonError::into_inner);
        answered.get(projection).copied().unwrap_or_default()
    }

    /// Records that an answer about `projection` covers `covers`.
    pub(crate) fn answers(&self, projection: &ProjectionName, covers: Position) {
        if self.answered(projection) < covers {
            let mut answered = self.answered.write().unwrap_or_else(PoisonError::into_inner);
            let known = answered.entry(projection.clone()).or_default();
            *known = covers.max(*known);
        }
    }

    /// Forgets answers that claimed to cover positions from `differs_at` on: the version that gave them has parted, and
    /// those positions are not in the journal.
    pub(crate) fn takes_back(&self, projection: &ProjectionName, differs_at: Position) {
        let last = Position::new(differs_at.get().saturating_sub(1));
        let mut answered = self.answered.write().unwrap_or_else(PoisonError::into_inner);
        answered.entry(projection.clone()).and_modify(|covers| *covers = last.min(*covers));
    }

    /// Returns the highest position that this node may have shown of a version whose view was closed, and perhaps made
    /// again, since: its present tokens may be lower.
    pub(crate) fn shown_before(&self, id: &ViewId) -> Position {
        self.notes.closed_at(id).unwrap_or_default().max(self.answered(&id.projection))
    }

    /// Returns the position below which no reader is answered from the serving version of a projection (I-7). A view that
    /// was closed may have been made again, so it counts as at a start.
    pub(crate) fn floor_of(&self, name: &ProjectionName, projection: &ProjectionState) -> Position {
        let id = projection.serving.map(|version| ViewId { projection: name.clone(), version });
        let closed_at = id.and_then(|id| self.notes.closed_at(&id)).unwrap_or_default();
        self.floor.max(projection.evidence).max(closed_at)
    }

    /// Returns the version of `projection` that also gets live queries, beside the serving one.
    pub(crate) fn shadowing(&self, projection: &ProjectionName) -> Option<Arc<Shadowing>> {
        self.shadowing.read().unwrap_or_else(PoisonError::into_inner).get(projection).cloned()
    }

    pub(crate) fn begin_shadowing(&self, shadowing: Arc<Shadowing>) {
        let mut all = self.shadowing.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(shadowing.id.projection.clone(), shadowing);
    }

    pub(crate) fn end_shadowing(&self, id: &ViewId) {
        self.shadowing.write().unwrap_or_else(PoisonError::into_inner).retain(|_, known| !known.is_of(id));
    }

    /// Records a live query, if it should also go to a version that does not serve.
    pub(crate) fn offer<Q: Query>(&self, projection: &ProjectionName, query: &Q) {
        if let Some(shadowing) = self.shadowing.read().unwrap_or_else(PoisonError::into_inner).get(projection) {
            shadowing.offer(query);
        }
    }

    /// Returns the stored tokens of a version; `None` if this node has no view of it.
    pub(crate) async fn tokens(&self, id: &ViewId) -> Result<Option<Vec<Token>>, StoreError> {
        match self.open_version(id) {
            Some(version) => version.tokens().await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns true if the view of a version lacks indexes that its code declares.
    pub(crate) async fn is_bare(&self, id: &ViewId) -> Result<bool, StoreError> {
        let Some(version) = self.open_version(id) else { return Ok(false) };
        match &version.carried {
            Some(carried) => Ok(!version.view.missing_indexes(carried.tables).await?.is_empty()),
            None => Ok(false),
        }
    }
}
