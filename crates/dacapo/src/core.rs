//! What the parts of a node share: the store, the catalog, the code it carries and the versions it has open.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dacapo_model::assign;
use dacapo_model::planted::{self, Fault};
use dacapo_model::{
    Phase, Position, ProjectionName, ProjectionState, Segment, Token, Unlike, VersionId, VersionState, ViewId,
    WaitingOn, WorkShare, limits,
};
use dacapo_store::{Filter, Journal, Limit, Outbox, StoreError, View as StoredView, Views};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::catalog::CatalogLog;
use crate::cluster::Cluster;
use crate::history;
use crate::processor::{self, Assignment, Beginning, Busy, Claims, Ended, Orders, Progress};
use crate::projection::{Carried, Query};
use crate::reactor::{Delivery, Voices};
use crate::reads::Fence;
use crate::seed::{SeedFrom, check, lacks};
use crate::status::Lookout;
use crate::times::Times;
use crate::trail::Trails;
use crate::verify::{Looking, Shadowing};
use crate::world::{Left, World};

/// How long to wait for the end of a hold whose flip has happened.
const PAUSE_WAIT: Duration = Duration::from_secs(1);
/// How long to wait for it where another member may have held the version, which nobody else is told.
const PAUSE_WAIT_SHARED: Duration = Duration::from_millis(100);
/// How long revoking a claim may wait for a transaction that has written. One of a handler that computes without end
/// would be waited for for ever, and everybody else with it.
const REVOKE_WAIT: Duration = Duration::from_millis(500);
/// How old may be what is known of where other members have taken a version, for whoever waits for that.
const LOOK: Duration = Duration::from_millis(2);

pub(crate) struct Core {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) catalog: Arc<CatalogLog>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) world: World,
    /// The head when this node started. Whatever was shown before the start is at most this, so an
    /// answer that covers it sends nobody back, even if a view has lost its last commits to a power cut (I-7).
    pub(crate) floor: Position,
    carried: RwLock<Vec<Carried>>,
    open: RwLock<BTreeMap<ViewId, Arc<OpenVersion>>>,
    /// Why views cannot be opened, read or dropped as their phases want.
    troubles: RwLock<BTreeMap<ViewId, WaitingOn>>,
    /// What keeps the rebuild driver from everything that it would do here.
    stuck: RwLock<Option<WaitingOn>>,
    /// Where the journal ended when views were closed.
    closed: RwLock<BTreeMap<ViewId, Position>>,
    published: RwLock<BTreeMap<ProjectionName, Published>>,
    /// What the log was told of the code that is carried.
    told: std::sync::Mutex<Told>,
    /// The views that this process has opened, or tried to, until their versions are gone. Locked while a version is
    /// opened, and by whoever relies on one being closed.
    pub(crate) opening: Mutex<BTreeSet<ViewId>>,
    /// Told whenever `carried` or `open` changes.
    pub(crate) opened: watch::Sender<()>,
    flips: watch::Sender<HashMap<ProjectionName, FlipState>>,
    /// How every version got on lately.
    pub(crate) trails: Trails,
    /// What the store told of versions.
    pub(crate) lookout: Lookout,
    /// The time of the last event.
    pub(crate) times: Times,
    /// Segments that nobody live has.
    unowned: std::sync::Mutex<BTreeMap<ViewId, Unowned>>,
    /// What the verifications under way are at.
    looking: RwLock<BTreeMap<ViewId, Looking>>,
    /// The versions that some live queries are put to as well.
    shadowing: RwLock<HashMap<ProjectionName, Arc<Shadowing>>>,
}

/// What is known about the flips of a projection beside the catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlipState {
    /// What the flip under way waits on.
    pub(crate) waiting_on: Vec<WaitingOn>,
    /// The last one that this node carried out: its position, and for how long it held the old version.
    pub(crate) last: Option<(Position, Duration)>,
}

/// What this node knows of how SQL from outside follows a projection, since it drives what serves of it.
struct Published {
    /// The flip that it was tried to let it see.
    flip: Position,
    /// Why it does not see it yet.
    trouble: Option<String>,
}

/// What the log was told of the code that is carried.
#[derive(Default)]
struct Told {
    /// Code that is not what was recorded for its number.
    unlike: BTreeMap<(ProjectionName, u32), Unlike>,
    /// The versions that serve and whose code is not here.
    lacking: BTreeSet<ViewId>,
}

/// Segments of a version that nobody live has, since a node noticed.
struct Unowned {
    /// The first of them.
    segment: Segment,
    segments: usize,
    since: Instant,
    /// Whether the alarm was raised.
    told: bool,
}

/// A version whose view is open on this node.
pub(crate) struct OpenVersion {
    pub(crate) id: ViewId,
    pub(crate) view: Arc<dyn StoredView>,
    /// Its code, if this node carries it; then its processor runs here.
    pub(crate) carried: Option<Carried>,
    /// How far it is, whoever takes it there.
    pub(crate) progress: watch::Receiver<Progress>,
    seen: Arc<watch::Sender<Progress>>,
    /// When its tokens were read last, for whoever waits for what another member does.
    looked: Mutex<Option<Instant>>,
    /// When it was compared with the journal last.
    compared: Mutex<Instant>,
    /// Held by whoever lets it meet another version, by a cap on its tokens.
    meeting: Arc<Mutex<()>>,
    pub(crate) lifted: Arc<Notify>,
    /// Whose effects are whose, for its processor.
    voices: watch::Sender<Voices>,
    /// What it still owes to the world outside, as its delivery saw it last.
    pub(crate) outbox: watch::Sender<Outbox>,
    /// The version whose effects come before its own in their streams.
    pub(crate) before: watch::Sender<Option<VersionId>>,
    /// The delivery of its effects, if it reacts.
    delivery: Mutex<Option<(watch::Sender<bool>, JoinHandle<()>)>>,
    /// How much of the time its processor works.
    share: watch::Sender<WorkShare>,
    orders: watch::Sender<Orders>,
    wishes: watch::Sender<()>,
    busy: Arc<Busy>,
    /// The furthest that a batch was seen at, and since when that batch is under way.
    reached: std::sync::Mutex<Option<(Instant, Position)>>,
    /// The run of its processor; whoever stops it has this until it has ended.
    run: Mutex<Option<RunHandle>>,
}

struct RunHandle {
    stop: watch::Sender<bool>,
    run: Left<Ended>,
}

impl Core {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        views: Arc<dyn Views>,
        catalog: Arc<CatalogLog>,
        cluster: Arc<Cluster>,
        world: World,
        carried: Vec<Carried>,
    ) -> Self {
        let floor = *journal.head().borrow();
        Self {
            journal,
            views,
            catalog,
            cluster,
            world,
            floor,
            carried: RwLock::new(carried),
            open: RwLock::default(),
            troubles: RwLock::default(),
            stuck: RwLock::default(),
            closed: RwLock::default(),
            published: RwLock::default(),
            told: Default::default(),
            opening: Mutex::default(),
            opened: watch::Sender::new(()),
            flips: watch::Sender::default(),
            trails: Trails::new(),
            lookout: Lookout::default(),
            times: Times::default(),
            unowned: Default::default(),
            looking: RwLock::default(),
            shadowing: RwLock::default(),
        }
    }

    pub(crate) fn head(&self) -> Position {
        *self.journal.head().borrow()
    }

    /// Checks that `after` is in the journal, which somebody has seen. Another node may have appended what this one has
    /// not heard of, so the journal is asked before anybody is refused.
    ///
    /// # Errors
    /// [`StoreError::BeyondHead`] if it is not.
    pub(crate) async fn check_seen(&self, after: Position) -> Result<(), StoreError> {
        if after > self.head() {
            self.journal.read(after, &Filter::everything(), Limit { events: 1, bytes: 1 }).await?;
        }
        Ok(())
    }

    /// Where the journal ends, if it has nothing behind `after`.
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

    pub(crate) fn carried(&self) -> Vec<Carried> {
        self.carried.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn carry(&self, carried: Carried) {
        let mut all = self.carried.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| (&known.code.projection, known.code.code) != (&carried.code.projection, carried.code.code));
        all.push(carried);
        drop(all);
        self.tell_carried();
        self.opened.send_replace(());
    }

    /// Tells the other nodes which code of this one may be given work, and the log which may not and why, as well as which
    /// versions serve whose code is not here.
    pub(crate) fn tell_carried(&self) {
        let (catalog, carried) = (self.catalog.current(), self.carried());
        let mut unlike = BTreeMap::new();
        for Carried { code, .. } in &carried {
            match catalog.unlike(code) {
                // What is not decided is soon.
                None | Some(Unlike::Undecided { .. }) => {}
                Some(found) => drop(unlike.insert((code.projection.clone(), code.code), found)),
            }
        }
        let may_run = |carried: &&Carried| !unlike.contains_key(&(carried.code.projection.clone(), carried.code.code));
        self.cluster.carries(carried.iter().filter(may_run));
        let serving = catalog
            .projections
            .iter()
            .filter_map(|(projection, state)| Some(ViewId { projection: projection.clone(), version: state.serving? }));
        let lacking = serving.filter(|id| self.code_of(id).is_none()).collect();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for ((projection, code), unlike) in unlike.iter().filter(|(of, unlike)| told.unlike.get(*of) != Some(unlike)) {
            let advice = unlike.advice();
            tracing::error!(%projection, code, %unlike, advice, "this node gets no segments of a version it carries");
        }
        for (projection, code) in told.unlike.keys().filter(|of| !unlike.contains_key(*of)) {
            tracing::info!(%projection, code, "this node may be given segments of the version again");
        }
        for view in (&lacking as &BTreeSet<ViewId>).difference(&told.lacking) {
            tracing::warn!(%view, "this node does not carry the code of the version that serves and cannot answer for it");
        }
        for view in told.lacking.difference(&lacking) {
            tracing::info!(%view, "this node is not without the code of what serves any more");
        }
        *told = Told { unlike, lacking };
    }

    /// In what the code of a version that this node carries is unlike what was recorded for it, if it is.
    pub(crate) fn unlike(&self, id: &ViewId) -> Option<WaitingOn> {
        let carried = self.code_of(id)?;
        let state = self.catalog.current();
        let unlike = state.version(id)?.unlike(carried.code.segments, &carried.code.reads)?;
        Some(WaitingOn::Reads { version: id.version, unlike })
    }

    pub(crate) fn code_of(&self, id: &ViewId) -> Option<Carried> {
        let carried = self.carried.read().unwrap_or_else(PoisonError::into_inner);
        carried.iter().find(|carried| carried.is_of(&id.projection, id.version)).cloned()
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

    /// Why the view cannot be opened, read or dropped as the phase of its version wants.
    pub(crate) fn trouble(&self, id: &ViewId) -> Option<WaitingOn> {
        let troubles = self.troubles.read().unwrap_or_else(PoisonError::into_inner);
        troubles.get(id).cloned()
    }

    /// Remembers what is wrong with a view, if anything; what is new of it is logged.
    pub(crate) fn set_trouble(&self, id: &ViewId, trouble: Option<WaitingOn>) {
        let mut troubles = self.troubles.write().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(id) == trouble.as_ref() {
            return;
        }
        match trouble {
            Some(waiting_on) => {
                tracing::warn!(view = %id, %waiting_on, "the rebuild driver cannot go on with a view for the moment");
                troubles.insert(id.clone(), waiting_on);
            }
            None => {
                tracing::info!(view = %id, "the rebuild driver goes on with a view");
                troubles.remove(id);
            }
        }
    }

    /// Remembers whether SQL from outside sees by now that `serving` serves, by the flip at `flip`; what is new of that is
    /// logged.
    pub(crate) fn set_published(&self, serving: &ViewId, flip: Position, trouble: Option<String>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let before = published.insert(serving.projection.clone(), Published { flip, trouble: trouble.clone() });
        let before = before.filter(|before| before.flip == flip).and_then(|before| before.trouble);
        match trouble {
            Some(error) if before.as_ref() != Some(&error) => {
                tracing::warn!(view = %serving, error, "SQL from outside does not see yet what serves");
            }
            None if before.is_some() => tracing::info!(view = %serving, "SQL from outside sees what serves"),
            _ => {}
        }
    }

    /// Whether SQL from outside has seen the flip at `flip`, as far as this node knows.
    pub(crate) fn is_published(&self, projection: &ProjectionName, flip: Position) -> bool {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        published.get(projection).is_some_and(|found| found.flip >= flip && found.trouble.is_none())
    }

    /// Why SQL from outside does not see yet that this version serves, if this node is the one to know. It keeps nobody
    /// from anything else.
    pub(crate) fn unpublished(&self, id: &ViewId, projection: &ProjectionState) -> Option<WaitingOn> {
        let (flip, _) = projection.served.last().filter(|(_, version)| *version == id.version)?;
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let found = published.get(&id.projection).filter(|found| found.flip == *flip && self.cluster.drives(id))?;
        found.trouble.clone().map(|error| WaitingOn::Store { error })
    }

    /// Notes which segments of the version nobody live has, and raises the alarm when that lasts (I-10). Where no member
    /// could take them, that is what the version waits on.
    pub(crate) fn watch_claims(&self, id: &ViewId, tokens: &[Token]) {
        let unowned = assign::unowned(tokens, &self.cluster.live().borrow());
        let capable = self.cluster.has_capable(id);
        let mut all = self.unowned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = unowned.first().copied().filter(|_| capable) else {
            if all.remove(id).is_some_and(|before| before.told) {
                tracing::info!(view = %id, "every segment is a member's again");
            }
            return;
        };
        let now = Instant::now();
        let fresh = Unowned { segment, segments: 0, since: now, told: false };
        let found = all.entry(id.clone()).or_insert(fresh);
        (found.segment, found.segments) = (segment, unowned.len());
        if !found.told && found.since.elapsed() >= limits::UNOWNED_TIME_MAX {
            found.told = true;
            tracing::error!(view = %id, %segment, segments = unowned.len(), "segments have been nobody's for too long");
        }
    }

    fn unowned(&self, id: &ViewId) -> Option<WaitingOn> {
        let all = self.unowned.lock().unwrap_or_else(PoisonError::into_inner);
        let Unowned { segment, segments, since, .. } = *all.get(id).filter(|found| found.told)?;
        Some(WaitingOn::Unowned { segment, segments, since: since.elapsed() })
    }

    pub(crate) fn flip_state(&self, projection: &ProjectionName) -> FlipState {
        self.flips.borrow().get(projection).cloned().unwrap_or_default()
    }

    pub(crate) fn set_flip_state(&self, projection: &ProjectionName, change: impl FnOnce(&mut FlipState)) {
        self.flips.send_modify(|flips| change(flips.entry(projection.clone()).or_default()));
    }

    /// Notes what keeps the rebuild driver from everything that it would do, if anything does.
    pub(crate) fn set_stuck(&self, reason: Option<WaitingOn>) {
        *self.stuck.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// What keeps the rebuild driver from everything that it would do here. It is told wherever nothing else is known.
    pub(crate) fn stuck(&self) -> Option<WaitingOn> {
        self.stuck.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For how long the flip at `flipped` held the old version; `None` when another node or run did it.
    pub(crate) async fn flip_pause(&self, projection: &ProjectionName, flipped: Position) -> Option<Duration> {
        let mut flips = self.flips.subscribe();
        let last = |flips: &HashMap<ProjectionName, FlipState>| flips.get(projection).and_then(|state| state.last);
        // Readers follow a little before the hold is lifted and measured.
        let known = flips.wait_for(|flips| last(flips).is_some_and(|(position, _)| position >= flipped));
        let wait = if self.cluster.is_alone() { PAUSE_WAIT } else { PAUSE_WAIT_SHARED };
        let known = tokio::time::timeout(wait, known).await.ok()?.ok()?;
        last(&known).filter(|(position, _)| *position == flipped).map(|(_, pause)| pause)
    }

    /// What a version waits on beside the flips that go to it: that it is paused, what its processor tells, a handler
    /// that does not return, and what is wrong with its view; or else what keeps the rebuild driver from attending to it.
    pub(crate) fn waiting_on(&self, id: &ViewId) -> Vec<WaitingOn> {
        let paused = (self.is_paused(id) && !planted::is(Fault::Silent)).then_some(WaitingOn::Paused);
        let told = self.open_version(id).map(|open| open.waiting_on()).unwrap_or_default();
        let (unowned, trouble) = (self.unowned(id), self.trouble(id));
        let mut reasons: Vec<_> = paused.into_iter().chain(told).chain(unowned).chain(trouble).collect();
        // Where it keeps somebody from something, that is told already.
        let is_told = |reason: &WaitingOn| matches!(reason, WaitingOn::Damaged { .. } | WaitingOn::Store { .. });
        let health = self.open_version(id).map(|open| open.view.health()).unwrap_or_default();
        match (health.damaged, health.failing) {
            (Some(error), _) if !reasons.iter().any(|reason| matches!(reason, WaitingOn::Damaged { .. })) => {
                reasons.push(WaitingOn::Damaged { error });
            }
            (None, Some(error)) if !reasons.iter().any(is_told) => reasons.push(WaitingOn::Store { error }),
            _ => {}
        }
        if reasons.is_empty() { self.stuck().into_iter().collect() } else { reasons }
    }

    /// What of the view of a version is not what was written, if anything is known to be.
    pub(crate) fn damage(&self, id: &ViewId) -> Option<WaitingOn> {
        let error = self.open_version(id)?.view.health().damaged?;
        Some(WaitingOn::Damaged { error })
    }

    /// Notes that the view of a version was closed while it was damaged. Whatever it showed was in the journal by then.
    pub(crate) fn closed(&self, id: &ViewId) {
        let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        closed.insert(id.clone(), self.head());
    }

    /// What a version that is not open on this node may have shown here at most.
    pub(crate) fn shown(&self, id: &ViewId) -> Position {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        closed.get(id).copied().unwrap_or_default().max(self.floor)
    }

    /// Whether a version is on its way to events that it speaks for (I-9): whatever was appended while the flip away from
    /// it was under way, and what it lags. Nobody else makes their effects. One that halts or is paused is on no way, and
    /// neither is one whose code is nowhere.
    pub(crate) async fn is_speaking(
        &self,
        id: &ViewId,
        view: &dyn StoredView,
        tokens: &[Token],
    ) -> Result<bool, StoreError> {
        let reacts = |code: &Carried| code.code.projection == id.projection && !code.effect_names().is_empty();
        let catalog = self.catalog.current();
        let until = catalog.projections.get(&id.projection).and_then(|state| state.spoke_until(id.version));
        // A node that has just started knows of no member yet, not even of itself.
        let has_code = self.code_of(id).is_some() || self.cluster.has_code_of(id);
        let comes = has_code && self.carried().iter().any(reacts) && !self.is_paused(id);
        let Some(until) = until.filter(|_| comes) else { return Ok(false) };
        let behind: Vec<_> = tokens.iter().filter(|token| !token.covers(until)).map(|token| token.segment).collect();
        if behind.is_empty() {
            return Ok(false);
        }
        let halted: Vec<_> = view.refusals().await?.into_iter().map(|refusal| refusal.segment).collect();
        Ok(behind.iter().any(|segment| !halted.contains(segment)))
    }

    /// The same of a version that stands by, also while that cannot be told.
    pub(crate) async fn stands_by_speaking(&self, id: &ViewId) -> bool {
        let looked = async {
            self.catalog.refresh().await?;
            let stands_by = self.catalog.current().version(id).is_some_and(|state| state.phase == Phase::StandingBy);
            let Some(open) = self.open_version(id).filter(|_| stands_by) else { return Ok(false) };
            self.is_speaking(id, &*open.view, &open.tokens().await?).await
        };
        looked.await.unwrap_or_else(|error: StoreError| matches!(error, StoreError::Unavailable { .. }))
    }

    /// Whether events are kept from the version's view.
    pub(crate) fn is_paused(&self, id: &ViewId) -> bool {
        let applies = |phase: Phase| phase.applies();
        self.catalog.current().version(id).is_some_and(|state| state.paused && applies(state.phase))
    }

    /// Whether a new build of this code may begin as a copy of the version that serves.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_copy(&self, carried: &Carried) -> Result<(), String> {
        let (catalog, projection) = (self.catalog.current(), carried.code.projection.clone());
        let serving = catalog.serving(&projection).ok_or("no version serves")?;
        let source = ViewId { projection, version: serving };
        let state = catalog.version(&source).ok_or("no version serves")?;
        let letters = self.open_version(&source).map_or(0, |open| open.progress.borrow().letters.unwrap_or_default());
        check(carried, carried.code.segments, serving, state.segments, self.code_of(&source).as_ref())?;
        // Looked at again in the transaction that copies.
        if letters > 0 { Err(lacks(letters)) } else { Ok(()) }
    }

    /// Whether the view of a version lacks indexes that its code asks for.
    pub(crate) async fn is_bare(&self, id: &ViewId) -> Result<bool, StoreError> {
        let Some(version) = self.open_version(id) else { return Ok(false) };
        match &version.carried {
            Some(carried) => Ok(!version.view.missing_indexes(carried.tables).await?.is_empty()),
            None => Ok(false),
        }
    }

    /// What the verification of a version is at, if one is under way here.
    pub(crate) fn looking(&self, id: &ViewId) -> Option<Looking> {
        self.looking.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn set_looking(&self, id: &ViewId, looking: Option<Looking>) {
        let mut all = self.looking.write().unwrap_or_else(PoisonError::into_inner);
        match looking {
            Some(looking) => all.insert(id.clone(), looking),
            None => all.remove(id),
        };
    }

    /// What live queries are put to, beside the version of `projection` that serves.
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

    /// Takes note of a live query, should it be put to a version that does not serve as well.
    pub(crate) fn offer<Q: Query>(&self, projection: &ProjectionName, query: &Q) {
        if let Some(shadowing) = self.shadowing.read().unwrap_or_else(PoisonError::into_inner).get(projection) {
            shadowing.offer(query);
        }
    }

    /// The tokens of a version as stored; `None` when this node has no view of it.
    pub(crate) async fn tokens(&self, id: &ViewId) -> Result<Option<Vec<Token>>, StoreError> {
        match self.open_version(id) {
            Some(version) => version.tokens().await.map(Some),
            None => Ok(None),
        }
    }
}

impl OpenVersion {
    /// Opens a version whose code is carried and starts its processor. With `is_corrected` another code of the same
    /// version ran before on this node.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the system has no thread for it.
    pub(crate) fn run(
        core: &Core,
        id: ViewId,
        view: Arc<dyn StoredView>,
        carried: Carried,
        state: &VersionState,
        seed: Option<SeedFrom>,
        is_corrected: bool,
    ) -> Result<Self, StoreError> {
        let (stop, stopped) = watch::channel(false);
        let mut open = Self::still(id, view, Some(carried.clone()), Orders::of(state));
        let assignment = Assignment {
            id: open.id.clone(),
            fence: Fence::new(Arc::clone(&core.catalog), open.id.clone(), &carried),
            carried,
            beginning: Beginning { began_at: state.began_at.unwrap_or_default(), seed },
            share: open.share.subscribe(),
            journal: Arc::clone(&core.journal),
            offload: core.world.offload,
            view: Arc::clone(&open.view),
            segments: state.segments,
            claims: Claims(Arc::clone(&core.cluster)),
            clock: Arc::clone(&core.world.clock),
            is_corrected,
            orders: open.orders.subscribe(),
            wishes: open.wishes.subscribe(),
            lifted: Arc::clone(&open.lifted),
            busy: Arc::clone(&open.busy),
            progress: Arc::clone(&open.seen),
            voices: open.voices.subscribe(),
            probe: Arc::clone(&core.world.probe),
            stop: stopped,
        };
        // Handlers compute and SQLite waits for the disk: on a thread of their own they hold up nobody.
        let run = core.world.offload.leave(&open.id.to_string(), processor::run(assignment));
        let run = run.map_err(|error| StoreError::unavailable(format!("start a thread for {}", open.id), error))?;
        *open.run.get_mut() = Some(RunHandle { stop, run });
        Ok(open)
    }

    /// Opens a version to which no events are applied here, because its code is not carried or it is cleaned up: its
    /// tokens can be seen and held, and its effects made.
    pub(crate) fn still(id: ViewId, view: Arc<dyn StoredView>, carried: Option<Carried>, orders: Orders) -> Self {
        let (seen, progress) = watch::channel(Progress::default());
        let (orders, wishes) = (watch::Sender::new(orders), watch::Sender::new(()));
        let (lifted, share, busy, run, looked, meeting, reached) = Default::default();
        let (voices, outbox, before, delivery) = Default::default();
        Self {
            id,
            view,
            carried,
            progress,
            seen: Arc::new(seen),
            looked,
            compared: Mutex::new(Instant::now()),
            meeting,
            lifted,
            share,
            orders,
            wishes,
            busy,
            reached,
            voices,
            outbox,
            before,
            delivery,
            run,
        }
    }

    /// Lets its effects be made, if it reacts and its code is here.
    pub(crate) async fn deliver(&self, core: &Arc<Core>) {
        let Some(carried) = self.carried.clone().filter(|_| self.reacts()) else { return };
        let (stop, stopped) = watch::channel(false);
        let delivery = Delivery {
            core: Arc::downgrade(core),
            id: self.id.clone(),
            view: Arc::clone(&self.view),
            carried,
            progress: self.progress.clone(),
            outbox: self.outbox.clone(),
            before: self.before.clone(),
            stop: stopped,
        };
        *self.delivery.lock().await = Some((stop, tokio::spawn(delivery.run())));
    }

    /// Compares its view with the journal, unless that was done a moment ago.
    ///
    /// # Errors
    /// [`StoreError::Parted`] when it does not belong to the journal any more; another [`StoreError`] when either cannot be
    /// read.
    pub(crate) async fn compare(&self, journal: &dyn Journal) -> Result<(), StoreError> {
        let mut compared = self.compared.lock().await;
        if compared.elapsed() >= history::VIEW_LOOK {
            history::check(journal, &*self.view).await?;
            *compared = Instant::now();
        }
        Ok(())
    }

    /// Tells the processor whose effects are whose.
    pub(crate) fn hear(&self, voices: Voices) {
        self.voices.send_replace(voices);
    }

    /// From the next batch on its processor works so much of the time.
    pub(crate) fn work(&self, share: WorkShare) {
        self.share.send_if_modified(|before| std::mem::replace(before, share) != share);
    }

    /// Its tokens as stored, of which whoever watches it is told.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let tokens = self.view.tokens().await?;
        self.seen.send_if_modified(|progress| progress.see(&tokens));
        Ok(tokens)
    }

    /// Looks where other members have taken it, unless somebody has looked just now.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let mut looked = self.looked.lock().await;
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.tokens().await?;
            *looked = Some(Instant::now());
        }
        Ok(())
    }

    /// Whether its processor should run but does not.
    pub(crate) fn has_ended(&self) -> bool {
        // One that is being stopped is not to be put in its place yet.
        let Ok(run) = self.run.try_lock() else { return false };
        self.carried.is_some() && run.as_ref().is_none_or(|run| run.run.has_ended())
    }

    /// Tells the processor what the catalog says of its version.
    pub(crate) fn order(&self, orders: Orders) {
        self.orders.send_if_modified(|known| {
            let is_news = *known != orders;
            *known = orders;
            is_news
        });
    }

    /// Tells the processor that something is wished for dead letters.
    pub(crate) fn wished(&self) {
        self.wishes.send_replace(());
    }

    /// How far it is counting what the batch under way here has applied and not committed yet, where all segments cover
    /// `covers`.
    pub(crate) fn reached(&self, covers: Position) -> Option<Position> {
        let (after, since) = self.progress.borrow().batch.filter(|(after, _)| *after == covers)?;
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        // Between two reads, and while it commits, it is as far as it was.
        let known = reached.filter(|(batch, _)| *batch == since).map_or(after, |(_, known)| known);
        let at = self.busy.at().map_or(after, |at| Position::new(at.get() - 1));
        let furthest = known.max(at);
        *reached = Some((since, furthest));
        Some(furthest).filter(|furthest| *furthest > covers)
    }

    /// What the processor waits on, as it tells or as it is seen.
    pub(crate) fn waiting_on(&self) -> Vec<WaitingOn> {
        let busy = self.busy.look(Instant::now()).map(|busied| {
            if busied.is_news {
                let (position, seconds) = (busied.position, busied.time.as_secs());
                tracing::warn!(view = %self.id, %position, seconds, "a handler has been busy with one event for long");
            }
            WaitingOn::Busy { position: busied.position, time: busied.time }
        });
        busy.into_iter().chain(self.progress.borrow().waiting_on.clone()).collect()
    }

    /// Lets the processor finish its batch and the effects under way end, and waits for that. Stopping twice is
    /// stopping once.
    pub(crate) async fn stop(&self) {
        self.stop_applying().await;
        if let Some((stop, ended)) = self.delivery.lock().await.take() {
            stop.send_replace(true);
            if let Err(error) = ended.await {
                tracing::error!(view = %self.id, %error, "the delivery of effects ended by a bug in dacapo");
            }
        }
    }

    /// Whether it could make effects, and does not.
    pub(crate) async fn is_silent(&self) -> bool {
        self.reacts() && self.delivery.lock().await.is_none()
    }

    fn reacts(&self) -> bool {
        self.carried.as_ref().is_some_and(|carried| !carried.effect_names().is_empty())
    }

    /// Lets the processor finish its batch, and waits for that, but not for ever.
    pub(crate) async fn stop_applying(&self) {
        let mut running = self.run.lock().await;
        let Some(run) = &mut *running else { return };
        run.stop.send_replace(true);
        match tokio::time::timeout(limits::STOP_TIME_MAX + limits::STOP_MARGIN_MAX, run.run.ended()).await {
            // What it parted from is told by whoever opens it again.
            Ok(Some(Ended::Stopped | Ended::Parted)) => {}
            Ok(Some(Ended::GivenUp)) => {
                tracing::warn!(view = %self.id, "the handler did not return in time, its batch was given up");
            }
            Ok(Some(Ended::Fenced(refused))) => {
                tracing::warn!(view = %self.id, %refused, "the processor lost its claim")
            }
            Ok(None) => tracing::error!(view = %self.id, "the processor ended by a bug in dacapo"),
            Err(_) => self.leave_behind().await,
        }
        *running = None;
    }

    /// A handler that computes without end cannot be stopped. Its thread is left to itself; without its claim, nothing
    /// of what it does lands any more (I-4).
    async fn leave_behind(&self) {
        let waiting = self.waiting_on();
        let busy = waiting.iter().find(|reason| matches!(reason, WaitingOn::Busy { .. })).map(ToString::to_string);
        let revoked = revoke_view(&*self.view).await;
        let revoked = revoked.as_ref().map_or_else(ToString::to_string, |()| "its claim is revoked".to_owned());
        let found = busy.unwrap_or_else(|| "its handler does not return".to_owned());
        tracing::error!(view = %self.id, found, revoked, "a processor cannot be stopped, its thread is left behind");
    }

    /// The right to cap its tokens on this node, once nobody else has it.
    pub(crate) async fn meeting(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.meeting).lock_owned().await
    }

    /// Whether somebody on this node has the right to cap its tokens.
    pub(crate) fn is_meeting(&self) -> bool {
        self.meeting.try_lock().is_err()
    }

    /// Lets its tokens move as far as they can, and tells the processor.
    pub(crate) async fn uncap(&self) -> Result<(), StoreError> {
        self.view.cap(None).await?;
        self.lifted.notify_waiters();
        Ok(())
    }

    /// Lifts the hold under `mark`, and tells the processor.
    pub(crate) async fn lift(&self, mark: Position) -> Result<(), StoreError> {
        self.view.lift(mark).await?;
        self.lifted.notify_waiters();
        Ok(())
    }
}

/// Takes the right to write to the view of `id`, if there is one, from whoever has it (I-4).
pub(crate) async fn revoke(views: &dyn Views, id: &ViewId) -> Result<(), StoreError> {
    match views.find(id).await? {
        Some(view) if !planted::is(Fault::NotRevoked) => revoke_view(&*view).await,
        _ => Ok(()),
    }
}

async fn revoke_view(view: &dyn StoredView) -> Result<(), StoreError> {
    match tokio::time::timeout(REVOKE_WAIT, view.revoke()).await {
        Ok(revoked) => revoked,
        Err(_) => {
            let found = "its handler has written by SQL and does not return from its batch; end the process if it never \
                         does";
            Err(StoreError::unavailable("revoke the claim on the view", found))
        }
    }
}
