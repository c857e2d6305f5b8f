//! Queries: answers from the serving version, from one state that covers what the asker has seen.
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
//! The serving version is looked up again *after* the state was opened: the old version moves on only
//! after readers were pointed to the new one, so a state opened while it still serves shows nothing that
//! the new one will lack (I-7).

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::planted::{self, Fault};
use dacapo_model::reasons::VersionFacts;
use dacapo_model::{BackOff, PendingReplay, Position, ProjectionName, VersionId, ViewId, WaitingOn};
use dacapo_store::{Health, StoreError};
use tokio::time::Instant;

use crate::code::{Query, VersionCode};
use crate::error::Error;
use crate::limits;
use crate::versions::{OpenVersion, Versions};
use crate::view::ReadView;

/// An answer, and what it is an answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<A> {
    /// The answer.
    pub value: A,
    /// The version that gave it.
    pub version: VersionId,
    /// Every event through here was taken into account. Ask [`after`](Ask::after) it to never go back,
    /// whichever node answers next.
    pub covers: Position,
}

/// A query that is about to be asked: `node.ask(query).after(position).await`.
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

    /// The answer shall cover `position`, such as that of an append whose effect must be seen.
    pub fn after(mut self, position: Position) -> Self {
        self.after = position;
        self
    }

    /// How long to wait for a version that serves and covers what is asked;
    /// [`limits::REQUEST_TIME_MAX`] unless set.
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

/// Opens one state of the version of `projection` that serves, which covers `after`.
pub(crate) async fn open(
    versions: &Versions,
    projection: &ProjectionName,
    after: Position,
    within: Duration,
) -> Result<Reading, Error> {
    let started = Instant::now();
    let needed = if planted::is(Fault::NoWait) { Position::START } else { after.max(versions.floor) };
    let mut obstacle = format!("no version of {projection} serves");
    let found = tokio::time::timeout(within, async {
        loop {
            if let Health::Parted(parted) = versions.journal.health() {
                return Err(StoreError::Parted(parted).into());
            }
            let (version, carried) = serving(versions, projection, &mut obstacle).await?;
            if !covered(versions, &version, needed, &mut obstacle).await {
                continue;
            }
            let reader = version.view.reader().await;
            // A flip that another node has made is in the store. One that is not there by now was not when the state
            // was opened.
            if versions.cluster.is_shared() && !planted::is(Fault::StaleReader) {
                versions.catalog.refresh().await?;
            }
            // I-7; one that serves no more may also be gone already.
            if versions.catalog.current().serving(projection) != Some(version.id.version) {
                continue;
            }
            // The catalog is looked at after the state was opened, so it knows the replay behind every mark in it.
            match ReadView::shown(reader?, last_replay(versions, &version.id).as_ref()) {
                Some(view) if view.covers() >= needed => {
                    return Ok(Reading { version: version.id.version, view, carried });
                }
                Some(view) => {
                    let ends = view.covers();
                    obstacle = format!("the view of {} ends at {ends}, before what was committed", version.id);
                }
                None => obstacle = replaying(&version),
            }
            tokio::time::sleep(limits::QUERY_LOOK_MAX).await;
        }
    });
    match found.await {
        Ok(reading) => reading,
        Err(_) if after > versions.head() => Err(Error::beyond_head(after, versions.head(), within)),
        Err(_) => {
            let waiting_on = of_reader(versions, projection, needed);
            Err(Error::TimedOut { what: obstacle, waited: started.elapsed(), waiting_on })
        }
    }
}

/// What the version that serves, or will be the first to, waits on before it covers `needed`.
fn of_reader(versions: &Versions, projection: &ProjectionName, needed: Position) -> Vec<WaitingOn> {
    let catalog = versions.catalog.current();
    let state = catalog.projections.get(projection);
    let Some(version) = state.and_then(|state| state.serving.or_else(|| state.flip_target())) else { return vec![] };
    let id = ViewId { projection: projection.clone(), version };
    let tokens = versions.seen(&id);
    let facts = versions.facts(&catalog, &id, &tokens).map(|facts| VersionFacts { needed: Some(needed), ..facts });
    facts.map(|facts| facts.reasons().of_reader()).unwrap_or_default()
}

/// The serving version, as soon as there is one and it is open.
async fn serving(
    versions: &Versions,
    projection: &ProjectionName,
    obstacle: &mut String,
) -> Result<(Arc<OpenVersion>, VersionCode), Error> {
    let mut catalog = versions.catalog.watch();
    let mut opened = versions.opened.subscribe();
    loop {
        let current = catalog.borrow_and_update().clone();
        opened.mark_unchanged();
        let carried = versions.carried();
        if let Some(version) = current.serving(projection) {
            let id = ViewId { projection: projection.clone(), version };
            *obstacle = format!("{id}, which serves, is not open on this node");
            let Some(code) = carried.iter().find(|code| code.is_of(projection, version)) else {
                return Err(Error::NotCarried { projection: projection.clone(), version: Some(version) });
            };
            if let Some(open) = versions.open_version(&id).filter(|open| open.carried.is_some()) {
                return Ok((open, code.clone()));
            }
        } else if !carried.iter().any(|code| code.code.projection == *projection) {
            if current.projections.contains_key(projection) {
                return Err(Error::NotCarried { projection: projection.clone(), version: None });
            }
            let known = current.projections.keys().cloned().chain(carried.into_iter().map(|code| code.code.projection));
            return Err(Error::NoSuchProjection { name: projection.clone(), known: known.collect() });
        }
        tokio::select! {
            _ = catalog.changed() => {}
            _ = opened.changed() => {}
        }
    }
}

/// The last replay in place that was asked for.
fn last_replay(versions: &Versions, id: &ViewId) -> Option<PendingReplay> {
    versions.catalog.current().version(id).and_then(|state| state.last_replay)
}

fn replaying(version: &OpenVersion) -> String {
    format!("{} is replayed in place, and what it showed is not there again yet", version.id)
}

/// Waits until the version covers `needed`, and tells whether it does; it does not if another one serves or it was
/// opened again, because its processor had ended.
async fn covered(versions: &Versions, version: &OpenVersion, needed: Position, obstacle: &mut String) -> bool {
    let mut progress = version.progress.clone();
    let mut catalog = versions.catalog.watch();
    let mut opened = versions.opened.subscribe();
    let mut looks = BackOff::new(limits::QUERY_LOOK_FIRST, limits::QUERY_LOOK_MAX);
    // A point in time: what this node itself commits must not put the next look off.
    let mut next = Instant::now() + looks.pause();
    loop {
        let shown = progress.borrow_and_update().shown(last_replay(versions, &version.id).as_ref());
        if shown.is_some_and(|shown| shown >= needed) {
            return true;
        }
        *obstacle = match shown {
            Some(_) => format!("{} does not cover position {needed} yet", version.id),
            None => replaying(version),
        };
        if catalog.borrow_and_update().serving(&version.id.projection) != Some(version.id.version) {
            return false;
        }
        opened.mark_unchanged();
        if versions.open_version(&version.id).is_none_or(|open| !std::ptr::eq(&*open, version)) {
            return false;
        }
        tokio::select! {
            // One whose processor has ended changes no more; the conductor puts another in its place.
            Ok(()) = progress.changed() => {}
            _ = opened.changed() => {}
            _ = catalog.changed() => {}
            // What other members do is only seen by looking. A store that cannot tell is looked at again.
            () = tokio::time::sleep_until(next), if versions.cluster.is_shared() => {
                drop(version.look().await);
                next = Instant::now() + looks.pause();
            }
        }
    }
}
