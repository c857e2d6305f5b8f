//! Waits for what was asked for, and tells what came of it.

use std::time::Duration;

use dacapo_model::{CatalogEvent, PendingFlip, Phase, ProjectionName, VersionId, ViewId};

use super::{Node, ReplayReport, Requested, replay};
use crate::catalog::{self, CatalogEntry};
use crate::error::Error;
use crate::flip::FlipReport;
use crate::verify::{self, Verification};

impl Node {
    /// How the verification of a version stands: of `version`, or of the newest that is being built, or else of the
    /// newest that was verified.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version.
    pub fn verification(&self, projection: &ProjectionName, version: Option<VersionId>) -> Result<Verification, Error> {
        verify::verification(&self.versions, projection, version).ok_or_else(|| match version {
            Some(version) => match self.known_version(projection, version) {
                Err(error) => error,
                Ok(()) => Error::NoTarget(format!("{projection} {version} was never verified")),
            },
            None => self.unknown_or(projection, || {
                Error::NoTarget(format!("no version of {projection} is being built or was verified: ask for a rebuild"))
            }),
        })
    }

    /// Waits until a version is verified, for up to `within`, and tells what came of it.
    ///
    /// # Errors
    /// [`Error::TimedOut`], with what it waits on, when that has not happened by then. It goes on either way.
    pub async fn verified(&self, view: &ViewId, within: Duration) -> Result<Verification, Error> {
        let mut catalog = self.versions.catalog.watch();
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

    /// Waits for a requested flip or rollback to happen, for up to `within`.
    ///
    /// # Errors
    /// [`Error::FlipAborted`] when it was given up; [`Error::TimedOut`], with what it waits on, when it has
    /// not happened by then. It goes on either way.
    pub async fn flipped(&self, requested: &Requested, within: Duration) -> Result<FlipReport, Error> {
        let ViewId { projection, version: to } = &requested.view;
        let mut catalog = self.versions.catalog.watch();
        let settled = catalog.wait_for(|catalog| {
            let pending = catalog.projections.get(projection).and_then(|state| state.flip);
            pending.is_none_or(|pending| pending.to != *to)
        });
        if tokio::time::timeout(within, settled).await.is_err() {
            let pending = catalog.borrow().projections.get(projection).and_then(|state| state.flip);
            let of = |pending: PendingFlip| self.versions.notes.flip_waiting_on(projection, pending.requested);
            let waiting_on = pending.map(of).unwrap_or_default();
            let what = format!("the flip of {projection} to {to} has not happened");
            return Err(Error::TimedOut { what, waited: within, waiting_on });
        }
        let history = catalog::history(&*self.versions.journal).await?;
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
                let pause = self.versions.notes.flip_pause(projection, flipped, self.versions.cluster.is_alone()).await;
                Ok(FlipReport { to: *to, from, kind, flipped, covers, pause })
            }
            Some((CatalogEvent::FlipAborted { reason, .. }, _)) => {
                Err(Error::FlipAborted { projection: projection.clone(), to: *to, reason })
            }
            _ => Err(Error::NoTarget(format!("no flip of {projection} to {to} was asked for"))),
        }
    }

    /// Waits for the end of a replay that was asked for, for up to `within`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], with how far it is, when it has not ended by then. It goes on either way.
    pub async fn replayed(&self, requested: &Requested, within: Duration) -> Result<ReplayReport, Error> {
        replay::ended(&self.versions, requested, within).await
    }
}
