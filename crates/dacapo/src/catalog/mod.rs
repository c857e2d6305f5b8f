//! The catalog in the form in which a node keeps it: the fold of `$catalog`, and the one door through which it changes.
//!
//! A change is decided from the fold and appended with the fold's exact revision. If another change came first, the
//! fold is brought up to date and the change is decided again.

mod keys;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dacapo_model::{CatalogCommand, ExpectedRevision, Metadata, Misfit, NewEvent, Position, Timestamp};
use dacapo_store::{Append, AppendError, AppendRefused, EventRef, Journal, Limit, StoreError, catalog_form};
use tokio::sync::{Mutex, watch};

pub use dacapo_model::{
    AskedText, AskedTooLong, Catalog, CatalogEvent, CatalogRefused, CodeId, CodeMismatch, FlipKind, Phase, Reads, Stage,
};
pub use keys::KeyReused;
pub(crate) use keys::{KeyedRequest, Which, view_of};

use crate::limits;
use crate::world::World;

/// The field of a catalog event's metadata that holds the reason of the request.
const REASON: &str = "reason";
/// The field that holds the key under which a request may be repeated.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The field that holds the request under that key. Events of earlier releases have none.
const REQUEST: &str = "request";

/// The requester of a change, and the reason. The catalog keeps them with the change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedBy {
    /// The requester.
    pub actor: String,
    /// The reason.
    pub reason: Option<String>,
    /// The idempotency key. A request that is repeated under the same key is carried out once.
    pub idempotency_key: Option<String>,
}

impl RequestedBy {
    /// Returns a request by `actor`.
    pub fn by(actor: impl Into<String>) -> Self {
        Self { actor: actor.into(), ..Self::default() }
    }

    /// Sets the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Checks the lengths of its texts.
    ///
    /// # Errors
    /// [`AskedTooLong`] for the first one that is too long.
    pub(crate) fn check(&self) -> Result<(), AskedTooLong> {
        AskedText::Actor.check(&self.actor)?;
        self.reason.as_deref().map_or(Ok(()), |reason| AskedText::Reason.check(reason))?;
        self.idempotency_key.as_deref().map_or(Ok(()), |key| AskedText::Key.check(key))
    }

    /// Returns a request by dacapo itself, which follows the plan.
    pub(crate) fn by_plan() -> Self {
        Self::by("dacapo")
    }
}

/// A change of the catalog, as it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Its position in the journal.
    pub position: Position,
    /// The time at which it was appended.
    pub recorded: Timestamp,
    /// The change.
    pub event: CatalogEvent,
    /// The requester, and the reason.
    pub asked: RequestedBy,
    /// The request under the key, in words.
    pub(crate) request: Option<String>,
}

impl CatalogEntry {
    /// Returns true if it only keeps the key of a request that had nothing to change.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self.event, CatalogEvent::NothingToDo { .. })
    }
}

/// The reason why a change of the catalog did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] CatalogRefused),
    /// The request itself exceeds a limit, such as a reason of many pages.
    #[error(transparent)]
    Append(AppendRefused),
    /// Its key belongs to another request.
    #[error(transparent)]
    KeyReused(#[from] KeyReused),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) struct CatalogLog {
    journal: Arc<dyn Journal>,
    world: World,
    folded: Mutex<Folded>,
    /// The position through which `current` has everything that the catalog says.
    folded_through: AtomicU64,
    current: watch::Sender<Arc<Catalog>>,
}

#[derive(Default)]
struct Folded {
    catalog: Catalog,
    /// The entries that resulted from each idempotency key.
    keys: HashMap<String, Vec<CatalogEntry>>,
}

impl CatalogLog {
    pub(crate) async fn open(journal: Arc<dyn Journal>, world: World) -> Result<Self, StoreError> {
        let mut folded = Folded::default();
        fold_on(&*journal, &mut folded).await?;
        let current = watch::Sender::new(Arc::new(folded.catalog.clone()));
        Ok(Self { journal, world, folded: Mutex::new(folded), folded_through: AtomicU64::new(0), current })
    }

    pub(crate) fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.current.subscribe()
    }

    /// Brings the fold up to date, in case the journal could not be read after an append.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        // The stream knows everything that is in the journal by the time it is asked.
        let head = *self.journal.head().borrow();
        in_time(async {
            let mut folded = self.folded.lock().await;
            self.look(&mut folded, head).await
        })
        .await
    }

    /// Returns the fold of everything that the catalog says through `through`, which the caller has seen in the
    /// journal. It asks the journal only if that is not known yet.
    pub(crate) async fn through(&self, through: Position) -> Result<Arc<Catalog>, StoreError> {
        let is_known = || self.folded_through.load(Ordering::Acquire) >= through.get();
        if !is_known() {
            in_time(async {
                let mut folded = self.folded.lock().await;
                if is_known() { Ok(()) } else { self.look(&mut folded, through).await }
            })
            .await?;
        }
        Ok(self.current())
    }

    /// Folds the catalog events in the journal, at least all through `through`.
    async fn look(&self, folded: &mut Folded, through: Position) -> Result<(), StoreError> {
        if self.journal.stream_revision(&catalog_form::stream()).await? > folded.catalog.revision {
            self.fold_on(folded).await?;
        }
        // A look that was cancelled in the middle may have folded events that were not passed on.
        self.tell(folded);
        self.folded_through.fetch_max(through.get(), Ordering::Release);
        Ok(())
    }

    /// Passes the fold to its watchers if it is new. Otherwise the conductor would immediately retry what has just
    /// failed.
    fn tell(&self, folded: &Folded) {
        self.current.send_if_modified(|known| {
            let is_new = known.revision != folded.catalog.revision;
            if is_new {
                *known = Arc::new(folded.catalog.clone());
            }
            is_new
        });
    }

    /// Folds the events in the journal after the fold, passes the fold to its watchers, and returns the events.
    async fn fold_on(&self, folded: &mut Folded) -> Result<Vec<CatalogEntry>, StoreError> {
        let entries = fold_on(&*self.journal, folded).await;
        self.tell(folded);
        entries
    }

    /// Returns what was done before under an idempotency key, for any request.
    pub(crate) async fn under_key(&self, key: &str) -> Result<Option<Vec<CatalogEntry>>, StoreError> {
        in_time(async { Ok(self.folded.lock().await.keys.get(key).cloned()) }).await
    }

    /// Returns what was done before under the idempotency key of `asked`, which belongs to one request.
    pub(crate) async fn repeated(
        &self,
        asked: &RequestedBy,
        request: &KeyedRequest,
    ) -> Result<Option<Vec<CatalogEntry>>, CatalogError> {
        if asked.idempotency_key.is_none() {
            return Ok(None);
        }
        let known = in_time(async { Ok(known(&*self.folded.lock().await, asked, Some(request))) }).await?;
        Ok(known?)
    }

    /// Carries out `command`, and returns the resulting entries: none if nothing has to change, the first ones if the
    /// request is a repetition.
    ///
    /// It continues to its end even if the caller goes away, so that the fold and its watchers get everything that was
    /// appended.
    pub(crate) async fn change(
        self: Arc<Self>,
        command: CatalogCommand,
        asked: RequestedBy,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        self.change_as_asked(command, asked, None).await
    }

    /// Does the same for a `request` that may have a key.
    pub(crate) async fn change_for(
        self: Arc<Self>,
        request: KeyedRequest,
        command: CatalogCommand,
        asked: RequestedBy,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        self.change_as_asked(command, asked, Some(request)).await
    }

    async fn change_as_asked(
        self: Arc<Self>,
        command: CatalogCommand,
        asked: RequestedBy,
        request: Option<KeyedRequest>,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        let change = tokio::spawn(async move { self.change_to_the_end(&command, &asked, request.as_ref()).await });
        let ended = in_time(async { Ok::<_, StoreError>(change.await) }).await?;
        ended.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::unavailable("change the catalog", "the node is shutting down").into()),
        })
    }

    async fn change_to_the_end(
        &self,
        command: &CatalogCommand,
        asked: &RequestedBy,
        request: Option<&KeyedRequest>,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        let mut folded = self.folded.lock().await;
        // A look that was given up in the middle has folded events that nobody was told.
        self.tell(&folded);
        loop {
            if let Some(entries) = known(&folded, asked, request)? {
                return Ok(changes(entries));
            }
            let mut events = folded.catalog.decide(command)?;
            if events.is_empty() {
                // A key belongs to its request even if there was nothing to do. Otherwise a repetition would do
                // something as soon as there is something to do.
                let keyed = request.is_some() && asked.idempotency_key.is_some();
                let Some(view) = command.view().filter(|_| keyed) else { return Ok(vec![]) };
                events.push(CatalogEvent::NothingToDo { view: view.clone() });
            }
            let expected = ExpectedRevision::Exact(folded.catalog.revision);
            let kept = request.and_then(|request| request.kept(&events));
            let new = events.iter().map(|event| self.new_event(event, asked, &kept)).collect();
            let appended = self.journal.append(Append::to_stream(catalog_form::stream(), expected, new)).await;
            // This happens after an error, too: the events may be there although the answer was lost.
            let entries = self.fold_on(&mut folded).await;
            let ours = entries.map(|mut entries| {
                entries.truncate(events.len());
                entries
            });
            match appended {
                Ok(_) => {
                    let ours = ours?;
                    // What was acknowledged is there, unless another journal has taken the place of this one.
                    if ours.len() < events.len() {
                        let found = "the journal does not show what it has acknowledged";
                        return Err(StoreError::unavailable("read the catalog after a change", found).into());
                    }
                    return Ok(changes(ours));
                }
                Err(AppendError::Refused(AppendRefused::WrongRevision { .. })) => {
                    ours?;
                }
                Err(AppendError::Refused(refused)) => return Err(CatalogError::Append(refused)),
                Err(AppendError::Store(error)) => {
                    let same = |ours: &Vec<CatalogEntry>| {
                        let ours = ours.iter().map(|entry| (&entry.event, &entry.asked));
                        ours.eq(events.iter().map(|event| (event, asked)))
                    };
                    return ours.ok().filter(same).map(changes).ok_or(error.into());
                }
            }
        }
    }

    fn new_event(&self, event: &CatalogEvent, asked: &RequestedBy, request: &Option<String>) -> NewEvent {
        let (event_type, payload) = catalog_form::encode(event);
        let field = |name: &str, value: &Option<String>| value.clone().map(|value| (name.to_owned(), value));
        let key = &asked.idempotency_key;
        let request = key.as_ref().and(request.as_ref()).cloned();
        let fields = [field(REASON, &asked.reason), field(IDEMPOTENCY_KEY, key), field(REQUEST, &request)];
        let metadata = Metadata {
            actor: Some(asked.actor.clone()),
            fields: fields.into_iter().flatten().collect(),
            ..Metadata::default()
        };
        NewEvent { id: self.world.ids.next(), event_type, payload, metadata, tags: vec![] }
    }
}

/// Returns the entries that changed something.
fn changes(mut entries: Vec<CatalogEntry>) -> Vec<CatalogEntry> {
    entries.retain(|entry| !entry.is_nothing());
    entries
}

/// Does something with the journal within [`limits::REQUEST_TIME_MAX`], which includes the wait for another caller that
/// does the same. So if the store does not answer, each caller waits for that time, and not also for all callers before
/// it.
async fn in_time<T>(done: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(limits::REQUEST_TIME_MAX, done).await {
        Ok(done) => done,
        Err(_) => {
            let found = "the journal has not answered in time, so whether something has changed is unknown: look at the \
                         status, or ask for the same again under the same idempotency key";
            Err(StoreError::unavailable("read or change the catalog", found))
        }
    }
}

/// Returns what was done before under the key of `asked`. Changes by dacapo itself have no key.
fn known(
    folded: &Folded,
    asked: &RequestedBy,
    request: Option<&KeyedRequest>,
) -> Result<Option<Vec<CatalogEntry>>, KeyReused> {
    let Some(key) = &asked.idempotency_key else { return Ok(None) };
    let Some(entries) = folded.keys.get(key) else { return Ok(None) };
    request.map_or(Ok(()), |request| request.check(key, entries))?;
    Ok(Some(entries.clone()))
}

/// Keeps the fold up to date with the appends of other nodes, until it is stopped.
pub(crate) async fn follow(log: Arc<CatalogLog>, mut stop: watch::Receiver<bool>) {
    let mut head = log.journal.head();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            // A journal that closes drops its sender.
            changed = head.changed() => if changed.is_err() { return },
        }
        let rest = match log.refresh().await {
            Ok(()) => limits::CATALOG_FOLLOW_REST,
            Err(error) => {
                tracing::warn!(%error, "the catalog cannot be followed now, and is read again");
                head.mark_changed();
                limits::CATALOG_RETRY_PAUSE
            }
        };
        if tokio::time::timeout(rest, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}

/// Returns every change of the catalog, in order.
pub(crate) async fn history(journal: &dyn Journal) -> Result<Vec<CatalogEntry>, StoreError> {
    fold_on(journal, &mut Folded::default()).await
}

/// Folds the events in the journal after the fold, and returns them.
async fn fold_on(journal: &dyn Journal, folded: &mut Folded) -> Result<Vec<CatalogEntry>, StoreError> {
    let mut entries = Vec::new();
    loop {
        let after = folded.catalog.revision;
        let batch =
            journal.read_stream(&catalog_form::stream(), after, Limit::events(limits::CATALOG_READ_EVENTS)).await?;
        if batch.is_empty() {
            return Ok(entries);
        }
        for event in batch.iter() {
            let entry = entry(&event)?;
            folded.catalog.evolve(&entry.event, entry.position, entry.recorded).map_err(misfit)?;
            if let Some(key) = &entry.asked.idempotency_key {
                folded.keys.entry(key.clone()).or_default().push(entry.clone());
            }
            entries.push(entry);
        }
    }
}

fn misfit(Misfit { position, found }: Misfit) -> StoreError {
    StoreError::corrupt(
        format!("the catalog at position {position}"),
        format!("it does not fit what comes before: {found}"),
    )
}

fn entry(event: &EventRef<'_>) -> Result<CatalogEntry, StoreError> {
    let decoded = catalog_form::decode(event.event_type, event.payload)
        .map_err(|found| StoreError::corrupt(format!("the catalog at position {}", event.position), found))?;
    let (mut metadata, _) = event.extra()?;
    let request = metadata.fields.remove(REQUEST);
    let asked = RequestedBy {
        actor: metadata.actor.unwrap_or_default(),
        reason: metadata.fields.remove(REASON),
        idempotency_key: metadata.fields.remove(IDEMPOTENCY_KEY),
    };
    Ok(CatalogEntry { position: event.position, recorded: event.recorded, event: decoded, asked, request })
}

#[cfg(test)]
mod tests;
