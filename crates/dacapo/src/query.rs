//! Queries: answers from one state of the serving version that covers what the caller has seen.
//!
//! ```text
//!   which version serves? ──▶ wait until it covers what is asked ──▶ open one state of its view
//!          ▲                                                               │
//!          └───────────── another one ◀── which version serves now? ◀──────┘
//!                                              │ the same
//!                                              ▼
//!                                            answer
//! ```
//!
//! The serving version is looked up again *after* the state was opened. The old version moves on only after readers
//! were directed to the new one. So a state that was opened while the old version still serves shows nothing that the
//! new one lacks (I-7).

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::reasons::VersionFacts;
use dacapo_model::{BackOff, PendingReplay, Position, ProjectionName, VersionId, ViewId, WaitingOn, grouped};
use dacapo_store::{Health, StoreError};
use tokio::time::Instant;

use crate::code::{Query, VersionCode};
use crate::error::Error;
use crate::limits;
use crate::versions::{OpenVersion, Versions};
use crate::view::ReadView;

/// An answer, with its version and the position that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<A> {
    /// The answer.
    pub value: A,
    /// The version that gave it.
    pub version: VersionId,
    /// The position through which every event was taken into account. A later query with [`after`](Ask::after) this
    /// position never goes back, on any node.
    pub covers: Position,
}

/// A query that is sent once it is awaited: `node.ask(query).after(position).await`.
#[must_use = "a query is asked when it is awaited"]
pub struct Ask<Q> {
    versions: Arc<Versions>,
    query: Q,
    after: Position,
    within: Duration,
}

impl<Q: Query> Ask<Q> {
    pub(crate) fn new(versions: Arc<Versions>, query: Q) -> Self {
        Self { versions, query, after: Position::START, within: limits::REQUEST_TIME_MAX }
    }

    /// Requires an answer that covers `position`, such as the position of an append whose effect must be visible.
    pub fn after(mut self, position: Position) -> Self {
        self.after = position;
        self
    }

    /// Sets the longest wait for a serving version that covers the position. Default: [`limits::REQUEST_TIME_MAX`].
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    async fn ask(self) -> Result<Answered<Q::Answer>, Error> {
        let projection = ProjectionName::new(Q::PROJECTION)?;
        let mut reading = open(&self.versions, &projection, self.after, self.within).await?;
        let (version, covers) = (reading.version, reading.view.covers());
        let Some(answer) = reading.carried.answer(&self.query, &mut reading.view) else {
            let answers = reading.carried.query_names().to_vec();
            let query = std::any::type_name::<Q>();
            return Err(Error::NoAnswer { view: ViewId { projection, version }, query, answers });
        };
        let value = answer.await.map_err(Error::Answer)?;
        drop(reading);
        self.versions.offer(&projection, &self.query);
        Ok(Answered { value, version, covers })
    }
}

impl<Q: Query> IntoFuture for Ask<Q> {
    type Output = Result<Answered<Q::Answer>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.ask())
    }
}

/// One state of the serving version.
pub struct Reading {
    /// The version that serves.
    pub version: VersionId,
    /// Its rows, in one state.
    pub view: ReadView,
    carried: VersionCode,
}

/// Opens one state of the serving version of `projection` that covers `after`.
pub(crate) async fn open(
    versions: &Versions,
    projection: &ProjectionName,
    after: Position,
    within: Duration,
) -> Result<Reading, Error> {
    let started = Instant::now();
    // What others are told from here on is not this caller's past.
    let answered = versions.answered(projection);
    // A flip raises the floor.
    let needed = || {
        let catalog = versions.catalog.current();
        let floor =
            catalog.projections.get(projection).map_or(versions.floor, |state| versions.floor_of(projection, state));
        after.max(floor).max(answered)
    };
    let found = tokio::time::timeout(within, async {
        loop {
            if let Health::Parted(parted) = versions.journal.health() {
                return Err(StoreError::JournalParted(parted).into());
            }
            let (version, carried) = serving(versions, projection).await?;
            if !covered(versions, &version, needed()).await {
                continue;
            }
            let reader = version.view.reader().await;
            // A flip that another node has made is in the store. A flip that is not in the store by now had not
            // happened when the state was opened.
            if versions.cluster.is_shared() {
                versions.catalog.refresh().await?;
            }
            // I-7. A version that does not serve any more may also be gone already.
            if versions.catalog.current().serving(projection) != Some(version.id.version) {
                continue;
            }
            // The catalog is read after the state was opened, so it knows the replay of every mark in it.
            let view = ReadView::shown(reader?, last_replay(versions, &version.id).as_ref());
            if let Some(view) = view.filter(|view| view.covers() >= needed()) {
                versions.answers(projection, view.covers());
                return Ok(Reading { version: version.id.version, view, carried });
            }
            tokio::time::sleep(limits::QUERY_LOOK_MAX).await;
        }
    });
    match found.await {
        Ok(reading) => reading,
        Err(_) if after > versions.head() => Err(Error::beyond_head(after, versions.head(), within)),
        Err(_) => {
            let needed = needed();
            let what = match versions.catalog.current().serving(projection) {
                Some(_) => format!("{projection} does not cover position {} yet", grouped(needed.get())),
                None => format!("no version of {projection} serves"),
            };
            Err(Error::TimedOut {
                what,
                waited: started.elapsed(),
                waiting_on: of_reader(versions, projection, needed),
            })
        }
    }
}

/// Returns what the serving version, or the first one that will serve, waits on before it covers `needed`.
fn of_reader(versions: &Versions, projection: &ProjectionName, needed: Position) -> Vec<WaitingOn> {
    let catalog = versions.catalog.current();
    let state = catalog.projections.get(projection);
    let Some(version) = state.and_then(|state| state.serving.or_else(|| state.flip_target())) else { return vec![] };
    let id = ViewId { projection: projection.clone(), version };
    let tokens = versions.seen(&id);
    let facts = versions.facts(&catalog, &id, &tokens).map(|facts| VersionFacts { needed: Some(needed), ..facts });
    facts.map(|facts| facts.reasons().of_reader()).unwrap_or_default()
}

/// Returns the serving version, as soon as it exists and is open.
async fn serving(versions: &Versions, projection: &ProjectionName) -> Result<(Arc<OpenVersion>, VersionCode), Error> {
    let mut catalog = versions.catalog.watch();
    let mut opened = versions.opened.subscribe();
    loop {
        let current = catalog.borrow_and_update().clone();
        opened.mark_unchanged();
        let carried = versions.carried();
        if let Some(version) = current.serving(projection) {
            let id = ViewId { projection: projection.clone(), version };
            let Some(code) = carried.iter().find(|code| code.is_of(projection, version)) else {
                return Err(Error::NotCarried { projection: projection.clone(), version: Some(version) });
            };
            let answers = |open: &Arc<OpenVersion>| open.carried.is_some() && open.parted().is_none();
            if let Some(open) = versions.open_version(&id).filter(answers) {
                return Ok((open, code.clone()));
            }
        } else if !carried.iter().any(|code| code.code.projection == *projection) {
            if current.projections.contains_key(projection) {
                return Err(Error::NotCarried { projection: projection.clone(), version: None });
            }
            let known = current.projections.keys().cloned().chain(carried.into_iter().map(|code| code.code.projection));
            return Err(Error::no_such_projection(projection, known));
        }
        tokio::select! {
            _ = catalog.changed() => {}
            _ = opened.changed() => {}
        }
    }
}

/// Returns the last requested replay in place.
fn last_replay(versions: &Versions, id: &ViewId) -> Option<PendingReplay> {
    versions.catalog.current().version(id).and_then(|state| state.last_replay)
}

/// Waits until the version covers `needed`, and returns true if it does. Returns false if another version serves, or if
/// the version was opened again because its processor had ended.
async fn covered(versions: &Versions, version: &OpenVersion, needed: Position) -> bool {
    let mut progress = version.progress.clone();
    let mut catalog = versions.catalog.watch();
    let mut opened = versions.opened.subscribe();
    let mut looks = BackOff::new(limits::QUERY_LOOK_FIRST, limits::QUERY_LOOK_MAX);
    // This is a point in time, so that this node's own commits do not delay the next look.
    let mut next = Instant::now() + looks.pause();
    loop {
        let shown = progress.borrow_and_update().shown(last_replay(versions, &version.id).as_ref());
        if shown.is_some_and(|shown| shown >= needed) {
            return true;
        }
        if catalog.borrow_and_update().serving(&version.id.projection) != Some(version.id.version) {
            return false;
        }
        opened.mark_unchanged();
        if versions.open_version(&version.id).is_none_or(|open| !std::ptr::eq(&*open, version)) {
            return false;
        }
        tokio::select! {
            // The progress of a version ends with its processor. The conductor replaces it.
            Ok(()) = progress.changed() => {}
            _ = opened.changed() => {}
            _ = catalog.changed() => {}
            // The progress of other members is visible only by looking. If the store does not answer, the look is
            // repeated.
            () = tokio::time::sleep_until(next), if versions.cluster.is_shared() => {
                drop(version.look().await);
                next = Instant::now() + looks.pause();
            }
        }
    }
}
