//! What operators ask for: each is a change of the catalog, which the conductors of all nodes carry out.

use std::collections::BTreeMap;
use std::sync::Arc;

use dacapo_model::rebuild::Code;
use dacapo_model::{CatalogCommand, CatalogEvent, CleanUpReason, ProjectionName, VersionId, ViewId, limits};

use super::{Node, ReplayFrom, Requested, replay, view_of};
use crate::catalog::{Asked, CatalogEntry, Request, Which};
use crate::error::Error;
use crate::processor::Orders;

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

impl Node {
    /// Schedules a new build of a projection beside the serving version: of the newest code that a live node carries, or
    /// of `code`. It takes the place of a version that is being built. Any node can be asked, also one without code.
    ///
    /// # Errors
    /// [`Error::NotCarried`] and [`Error::NoSuchCode`] when no live node carries it. [`Error::WouldDiscard`] where it
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
        self.versions.catalog.refresh().await?;
        if let Some(entries) = self.versions.catalog.repeated(&asked, &request).await? {
            return Ok(rebuilt(&entries));
        }
        let built = self.code_to_build(projection, code).await?;
        let catalog = self.versions.catalog.current();
        let ready = catalog.projections.get(projection).and_then(|state| state.would_discard().next());
        if let Some(version) = ready.filter(|_| !discard) {
            return Err(Error::WouldDiscard { view: view_of(projection, version) });
        }
        // A node without the code cannot tell whether a copy could be right; the one that builds it can, and fails it.
        if let Some(carried) = self.versions.code_here(projection, built.code).filter(|_| seeded) {
            let refused = |why| Error::NoCopy { projection: projection.clone(), why };
            self.versions.may_copy(&carried).map_err(refused)?;
        }
        let schedule = Code { seeded, ..built }.schedule();
        let entries = Arc::clone(&self.versions.catalog).change_for(request, schedule, asked).await?;
        Ok(rebuilt(&entries))
    }

    /// The code to build: of this number, or else the newest that some node carries. What this node does not carry itself
    /// is built as the catalog knows it from an earlier build; code that nobody has built yet is scheduled by the node
    /// that brings it.
    async fn code_to_build(&self, projection: &ProjectionName, code: Option<u32>) -> Result<Code, Error> {
        if self.versions.cluster.is_shared() {
            self.versions.cluster.look().await?;
        }
        let here = self.versions.carried().into_iter().filter(|carried| carried.code.projection == *projection);
        let mut known: BTreeMap<u32, Code> = BTreeMap::new();
        let catalog = self.versions.catalog.current();
        for live in self.versions.cluster.code_of_projection(projection) {
            let earlier = catalog.newest_build(projection, live).and_then(|(_, state)| state.code(projection, live));
            known.extend(earlier.map(|earlier| (live, earlier)));
        }
        known.extend(here.map(|carried| (carried.code.code, carried.code)));
        let found = match code {
            Some(code) => known.remove(&code),
            None => known.pop_last().map(|(_, newest)| newest),
        };
        found.ok_or_else(|| {
            let missing = || match code {
                Some(code) => {
                    Error::NoSuchCode { projection: projection.clone(), code, carried: known.into_keys().collect() }
                }
                None => Error::NotCarried { projection: projection.clone(), version: None },
            };
            self.unknown_or(projection, missing)
        })
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
            let catalog = self.versions.catalog.current();
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
            let catalog = self.versions.catalog.current();
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
    pub(super) async fn request(
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
        let entries = Arc::clone(&self.versions.catalog).change_for(request, command, asked).await?;
        let position = entries.first().map(|entry| entry.position);
        Ok(Requested { view: view_of(projection, version), position })
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

    /// What a request led to that was made before under the same idempotency key.
    ///
    /// Whatever is decided next is decided on what is known then: also of what other nodes have changed.
    pub(super) async fn repeated(&self, asked: &Asked, request: &Request) -> Result<Option<Requested>, Error> {
        self.versions.catalog.refresh().await?;
        let entry =
            self.versions.catalog.repeated(asked, request).await?.and_then(|entries| entries.into_iter().next());
        Ok(entry.map(|entry| Requested::of(&entry)))
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
        if !self.versions.catalog.current().projections.contains_key(projection) {
            let none = || Error::NoTarget(format!("no version of {projection} serves, so there is none to replay"));
            return Err(self.unknown_or(projection, none));
        }
        replay::request(&self.versions, request, projection, version, from, asked).await
    }

    /// Drops the view of a version that does not serve: ends its stand-by, or gives up a rebuild. One that is on its way to
    /// events whose effects are its to make, such as those that were appended during the flip, is waited for, for up to
    /// [`limits::SPEAK_TIME_MAX`].
    ///
    /// # Errors
    /// [`Error::Catalog`] when the catalog declines.
    pub async fn clean_up(&self, view: &ViewId, asked: Asked) -> Result<Requested, Error> {
        let spoken = async {
            while self.versions.stands_by_speaking(view).await {
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
        // The conductor would tell it as well, but only when it comes around.
        if let (Some(open), Some(state)) =
            (self.versions.open_version(view), self.versions.catalog.current().version(view))
        {
            open.order(Orders::of(state));
        }
        Ok(requested)
    }
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
