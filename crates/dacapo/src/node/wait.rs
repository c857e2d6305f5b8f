//! The ends of requests: waits for them, and returns their results.

use std::time::Duration;

use dacapo_model::{CatalogEvent, PendingFlip, Phase, Position, ProjectionName, VersionId, ViewId};

use super::request::{Done, End};
use super::{Node, ProjectionHandle, VersionHandle};
use crate::catalog::{self, CatalogEntry};
use crate::error::{Error, NoTarget};
use crate::flip::FlipReport;
use crate::verify::{self, Verification};

impl ProjectionHandle {
    /// Returns the state of a verification: of the newest version that is being built, or else of the newest that was
    /// verified.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if there is no such version.
    pub fn verification(&self) -> Result<Verification, Error> {
        self.node.verification_of(&self.name, None)
    }
}

impl VersionHandle {
    /// Returns the state of the verification of this version.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if it was never verified and is not being built; [`Error::Catalog`] if there is no such
    /// version.
    pub fn verification(&self) -> Result<Verification, Error> {
        self.node.verification_of(&self.view.projection, Some(self.view.version))
    }

    /// Returns a future that waits until this version is verified, and returns the result.
    pub fn verified(&self) -> Done<Verification> {
        Done::new(&self.node, self.view.clone(), None)
    }
}

impl Node {
    /// Returns the state of a verification: of `version`, or of the newest version that is being built, or else of the
    /// newest that was verified.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if there is no such version.
    pub(super) fn verification_of(
        &self,
        projection: &ProjectionName,
        version: Option<VersionId>,
    ) -> Result<Verification, Error> {
        verify::verification(&self.versions, projection, version).ok_or_else(|| match version {
            Some(version) => match self.known_version(projection, version) {
                Err(error) => error,
                Ok(()) => NoTarget::NeverVerified(ViewId { projection: projection.clone(), version }).into(),
            },
            None => self.unknown_or(projection, || NoTarget::NothingVerified(projection.clone()).into()),
        })
    }
}

impl End for Verification {
    /// Waits for any verdict that counts, whichever request led to it.
    async fn reached(node: Node, view: ViewId, _: Option<Position>, within: Duration) -> Result<Self, Error> {
        let mut catalog = node.versions.catalog.watch();
        let verified = catalog.wait_for(|catalog| {
            catalog.version(&view).is_none_or(|state| match state.phase {
                Phase::Scheduled => false,
                _ => !state.is_unverified(),
            })
        });
        let in_time = tokio::time::timeout(within, verified).await.is_ok();
        let verification = node.verification_of(&view.projection, Some(view.version))?;
        if !in_time {
            let what = format!("{view} is not verified");
            let waiting_on = verification.waiting_on.into_iter().collect();
            return Err(Error::TimedOut { what, waited: within, waiting_on });
        }
        Ok(verification)
    }
}

impl End for FlipReport {
    async fn reached(node: Node, view: ViewId, requested: Option<Position>, within: Duration) -> Result<Self, Error> {
        let ViewId { projection, version: to } = &view;
        let mut catalog = node.versions.catalog.watch();
        let settled = catalog.wait_for(|catalog| {
            let pending = catalog.projections.get(projection).and_then(|state| state.flip);
            pending.is_none_or(|pending| pending.to != *to)
        });
        if tokio::time::timeout(within, settled).await.is_err() {
            let pending = catalog.borrow().projections.get(projection).and_then(|state| state.flip);
            let of = |pending: PendingFlip| node.versions.notes.flip_waiting_on(projection, pending.requested);
            let waiting_on = pending.map(of).unwrap_or_default();
            let what = format!("the flip of {projection} to {to} has not happened");
            return Err(Error::TimedOut { what, waited: within, waiting_on });
        }
        let history = catalog::history(&*node.versions.journal).await?;
        let asked_at = requested.unwrap_or_default();
        let later = history.into_iter().filter(|entry| entry.position > asked_at && *entry.event.view() == view);
        let settled = |entry: &CatalogEntry| {
            matches!(
                entry.event,
                CatalogEvent::Flipped { .. } | CatalogEvent::FlipAborted { .. } | CatalogEvent::FlipCancelled { .. }
            )
        };
        // The first event after a request settles it. Without a request, the last event explains the present state.
        let mut settled = later.filter(settled);
        let entry = if requested.is_some() { settled.next() } else { settled.last() };
        if let Some(CatalogEntry { event: CatalogEvent::FlipCancelled { .. }, asked, .. }) = &entry {
            let why = asked.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let reason = format!("{} cancelled it{why}", asked.actor);
            return Err(Error::FlipAborted { projection: projection.clone(), to: *to, reason });
        }
        match entry.map(|entry| (entry.event, entry.position)) {
            Some((CatalogEvent::Flipped { from, kind, covers, .. }, flipped)) => {
                let pause = node.versions.notes.flip_pause(projection, flipped, node.versions.cluster.is_alone()).await;
                Ok(FlipReport { to: *to, from, kind, flipped, covers, pause })
            }
            Some((CatalogEvent::FlipAborted { reason, .. }, _)) => {
                Err(Error::FlipAborted { projection: projection.clone(), to: *to, reason })
            }
            _ => Err(NoTarget::NoFlip(view).into()),
        }
    }
}

/// A version whose view is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanedUp {
    /// The version.
    pub view: ViewId,
}

impl End for CleanedUp {
    async fn reached(node: Node, view: ViewId, _: Option<Position>, within: Duration) -> Result<Self, Error> {
        let phase = |catalog: &dacapo_model::Catalog| catalog.version(&view).map(|state| state.phase);
        let mut catalog = node.versions.catalog.watch();
        let over = catalog.wait_for(|catalog| phase(catalog) != Some(Phase::CleaningUp));
        if tokio::time::timeout(within, over).await.is_err() {
            let what = format!("{view} is not cleaned up");
            let tokens = node.versions.tokens(&view).await.ok().flatten().unwrap_or_default();
            let catalog = node.versions.catalog.current();
            let facts = node.versions.facts(&catalog, &view, &tokens);
            let waiting_on = facts.map(|facts| facts.reasons().kept).unwrap_or_default();
            return Err(Error::TimedOut { what, waited: within, waiting_on });
        }
        let found = phase(&node.versions.catalog.current());
        match found {
            None | Some(Phase::Obsolete) => Ok(Self { view }),
            Some(_) => Err(NoTarget::CleanUpCancelled(view).into()),
        }
    }
}
