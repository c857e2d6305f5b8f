//! Cancellations of requests that are not carried out yet: a flip, a rebuild, a clean-up, a replay in place.
//!
//! A cancellation is a change of the catalog. It is decided on the same state as the request that it cancels, so one of
//! the two comes first. A driver that later confirms a flip, drops a view or starts a replay finds it cancelled. A
//! cancellation that comes later is refused as too late. Nothing here stops anything: the drivers stop when they learn
//! of it.

use std::sync::Arc;

use dacapo_model::{Cancel, CatalogEvent, CatalogRefused, ProjectionName, VersionId, ViewId};

use super::request::{Operation, Request, Requested};
use super::{Node, ProjectionHandle, VersionHandle};
use crate::catalog::{CatalogEntry, KeyedRequest, RequestedBy};
use crate::error::{Error, NoTarget};

impl ProjectionHandle {
    /// Cancels a request that is not carried out yet. `None` cancels the only such request, of the only version that
    /// has one.
    ///
    /// - A flip can be cancelled until it is confirmed, including one that would happen automatically once the version
    ///   is ready. From then on the version flips only on request.
    /// - A rebuild can be cancelled until the version serves. Its view is dropped.
    /// - A clean-up can be cancelled until the drop of the view begins. A version that stood by stands by again. A
    ///   version that was being built continues, except if another one has replaced it.
    /// - A replay that keeps its rows can be cancelled until it has ended; its tokens return to the positions before the
    ///   replay. A replay that resets its rows can be cancelled until it has begun.
    ///
    /// # Errors
    /// [`Error::Catalog`] if it is too late; [`Error::NoTarget`] if there is nothing to cancel, or more than one
    /// request.
    pub fn cancel(&self, what: impl Into<Option<Cancel>>) -> Request<Cancellation> {
        Request::new(&self.node, Cancellation { projection: self.name.clone(), version: None, what: what.into() })
    }
}

impl VersionHandle {
    /// Does the same as [`ProjectionHandle::cancel`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::cancel`].
    pub fn cancel(&self, what: impl Into<Option<Cancel>>) -> Request<Cancellation> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Cancellation { projection, version: Some(version), what: what.into() })
    }
}

/// A request that was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// The kind of request.
    pub what: Cancel,
    /// The version, and the position in the catalog; no position if the request was cancelled already.
    pub requested: Requested,
}

/// A cancellation; see [`ProjectionHandle::cancel`](super::ProjectionHandle::cancel).
pub struct Cancellation {
    projection: ProjectionName,
    version: Option<VersionId>,
    what: Option<Cancel>,
}

impl Operation for Cancellation {
    type Recorded = Cancelled;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Cancelled, Error> {
        node.cancel(&self.projection, self.what, self.version, by).await
    }
}

impl Node {
    async fn cancel(
        &self,
        projection: &ProjectionName,
        what: Option<Cancel>,
        version: Option<VersionId>,
        asked: RequestedBy,
    ) -> Result<Cancelled, Error> {
        self.versions.catalog.refresh().await?;
        // If the kind is not named, it is the one that was found the first time.
        let before = match &asked.idempotency_key {
            Some(key) => self.versions.catalog.under_key(key).await?.and_then(|entries| cancelled(self, &entries)),
            None => None,
        };
        let what = what.or(before.map(|before| before.what));
        let request = |what: Option<Cancel>| {
            let request = KeyedRequest::new("cancel", projection, version);
            what.map_or(request.clone(), |what| request.with(format_args!("({what} it)")))
        };
        let repeated = self.versions.catalog.repeated(&asked, &request(what)).await?;
        if let Some(entries) = repeated {
            let nothing = entries.iter().find(|entry| entry.is_nothing()).zip(what);
            let nothing = nothing.map(|(entry, what)| Cancelled { what, requested: Requested::of(self, entry) });
            if let Some(cancelled) = cancelled(self, &entries).or(nothing) {
                return Ok(cancelled);
            }
        }
        let (what, version) = self.to_cancel(projection, what, version)?;
        let request = request(Some(what));
        let view = ViewId { projection: projection.clone(), version };
        if what == Cancel::Replay {
            self.check_replay(&view).await?;
        }
        let entries = Arc::clone(&self.versions.catalog).change_for(request, what.of(view.clone()), asked).await?;
        self.pass_on_orders(&view);
        let position = entries.first().map(|entry| entry.position);
        Ok(Cancelled { what, requested: Requested::new(self, view, position) })
    }

    fn to_cancel(
        &self,
        projection: &ProjectionName,
        what: Option<Cancel>,
        version: Option<VersionId>,
    ) -> Result<(Cancel, VersionId), Error> {
        let catalog = self.versions.catalog.current();
        let state = catalog.projections.get(projection);
        let none = || Error::from(NoTarget::NothingToCancel { projection: projection.clone(), what });
        let state = state.ok_or_else(|| self.unknown_or(projection, none))?;
        version.map_or(Ok(()), |version| self.known_version(projection, version))?;
        let wanted = |(is, of): &(Cancel, VersionId)| {
            what.is_none_or(|what| what == *is) && version.is_none_or(|version| version == *of)
        };
        let found: Vec<_> = state.cancellable().into_iter().filter(wanted).collect();
        // If it is too late, the catalog says so about the version that it is too late for.
        match (&found[..], what, version.or_else(|| state.too_late_for(what))) {
            ([only], ..) => Ok(*only),
            // The catalog gives the reason.
            ([], Some(what), Some(version)) => Ok((what, version)),
            ([], ..) => Err(none()),
            (several, ..) => {
                Err(NoTarget::WhichToCancel { projection: projection.clone(), of: several.to_vec() }.into())
            }
        }
    }

    /// Checks that a replay can still be cancelled.
    async fn check_replay(&self, view: &ViewId) -> Result<(), Error> {
        let replay = self.versions.catalog.current().version(view).and_then(|state| state.replay);
        let Some(replay) = replay.filter(|replay| !replay.cancelled) else { return Ok(()) };
        let tokens = self.versions.tokens(view).await?.unwrap_or_default();
        let too_late = |found| CatalogRefused::TooLate { view: view.clone(), what: "the replay of", found };
        Ok(replay.may_be_cancelled(&tokens).map_err(too_late)?)
    }
}

/// Returns what these entries cancelled.
fn cancelled(node: &Node, entries: &[CatalogEntry]) -> Option<Cancelled> {
    let (first, last) = (entries.first()?, entries.last()?);
    let what = match last.event {
        CatalogEvent::FlipCancelled { .. } => Cancel::Flip,
        CatalogEvent::CleanUpCancelled { .. } => Cancel::CleanUp,
        CatalogEvent::ReplayCancelled { .. } => Cancel::Replay,
        CatalogEvent::CleaningUp { .. } => Cancel::Rebuild,
        _ => return None,
    };
    let requested = Requested::new(node, last.event.view().clone(), Some(first.position));
    Some(Cancelled { what, requested })
}
