//! The requests of operators. Each is a change of the catalog, which the conductors of all nodes carry out.

use std::collections::BTreeMap;
use std::sync::Arc;

use dacapo_model::rebuild::Code;
use dacapo_model::{
    CatalogCommand, CatalogEvent, CatalogRefused, CleanUpReason, FlipKind, Phase, ProjectionName, VersionId, ViewId,
    limits,
};

use super::request::{Done, Operation, Request, Requested};
use super::wait::CleanedUp;
use super::{Node, ProjectionHandle, VersionHandle, view_of};
use crate::catalog::{CatalogEntry, KeyedRequest, RequestedBy, Which};
use crate::error::{Error, NoTarget};
use crate::flip::FlipReport;
use crate::processor::Orders;
use crate::verify::Verification;

impl ProjectionHandle {
    /// Schedules a new build beside the serving version: of the newest code that a live node carries, or of
    /// [`code`](Request::code). It replaces a version that is being built. Any node accepts the request, even without
    /// the code. The build is done once the new version is verified.
    ///
    /// # Errors
    /// [`Error::NotCarried`] and [`Error::NoSuchCode`] if no live node carries the code. [`Error::WouldDiscard`] if it
    /// would replace a version that is ready for its flip; [`discard`](Request::discard) allows that.
    pub fn rebuild(&self) -> Request<Rebuild> {
        Request::new(&self.node, Rebuild::of(self.name.clone()))
    }

    /// Requests a flip to the newest version above the serving one. It happens as soon as that version covers
    /// everything that was ever shown. [`VersionHandle::flip`] names the version.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if there is no such version; [`Error::Catalog`] if the catalog refuses. The wait for its end
    /// returns [`Error::FlipAborted`] if the flip was given up.
    pub fn flip(&self) -> Request<Flip> {
        Request::new(&self.node, Flip { projection: self.name.clone(), to: None, kind: FlipKind::Flip })
    }

    /// Requests a rollback to the version below the serving one that served last. [`VersionHandle::rollback`] names the
    /// version.
    ///
    /// # Errors
    /// As [`flip`](Self::flip).
    pub fn rollback(&self) -> Request<Flip> {
        Request::new(&self.node, Flip { projection: self.name.clone(), to: None, kind: FlipKind::Rollback })
    }

    /// Requests another verification of the version that is being built. Until it is done, the earlier verdict does not
    /// count.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if there is no such version; [`Error::Catalog`] if it is not being built.
    pub fn verify_again(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::again(self.name.clone(), None))
    }

    /// Waives the verdict of the version that failed its verification, so that it may serve. The catalog keeps the
    /// requester and the reason.
    ///
    /// # Errors
    /// [`Error::NoReason`] without [`because`](Request::because); [`Error::NoTarget`] if there is no such version;
    /// [`Error::Catalog`] if there is no verdict to waive.
    pub fn waive(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::waived(self.name.clone(), None))
    }
}

impl VersionHandle {
    /// Requests a flip to this version, which is not below the serving one. It happens as soon as this version covers
    /// everything that was ever shown.
    ///
    /// # Errors
    /// As [`ProjectionHandle::flip`].
    pub fn flip(&self) -> Request<Flip> {
        self.moves(FlipKind::Flip)
    }

    /// Requests a rollback to this version, which is below the serving one.
    ///
    /// # Errors
    /// As [`ProjectionHandle::rollback`].
    pub fn rollback(&self) -> Request<Flip> {
        self.moves(FlipKind::Rollback)
    }

    fn moves(&self, kind: FlipKind) -> Request<Flip> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Flip { projection, to: Some(version), kind })
    }

    /// Does the same as [`ProjectionHandle::verify_again`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::verify_again`].
    pub fn verify_again(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::again(self.view.projection.clone(), Some(self.view.version)))
    }

    /// Does the same as [`ProjectionHandle::waive`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::waive`].
    pub fn waive(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::waived(self.view.projection.clone(), Some(self.view.version)))
    }

    /// Drops the view of this version, which does not serve. This ends its stand-by, or gives up a rebuild. If the
    /// version must still emit effects for events that it has not reached, such as those that were appended during the
    /// flip, it waits up to [`limits::SPEAK_TIME_MAX`](crate::limits::SPEAK_TIME_MAX) for the version to reach them. It
    /// is done once the view is dropped.
    ///
    /// # Errors
    /// [`Error::Catalog`] if the catalog refuses.
    pub fn clean_up(&self) -> Request<CleanUp> {
        Request::new(&self.node, CleanUp(self.view.clone()))
    }

    /// Stops applying events to the view of this version, after the present batch, until it is resumed. A copy or an
    /// index under way is given up, and begun again on resume. The pause survives a restart.
    ///
    /// # Errors
    /// [`Error::Catalog`] if no events are applied to a version in its phase.
    pub fn pause(&self) -> Request<Order> {
        Request::new(&self.node, Order::new("pause", &self.view, CatalogCommand::Pause))
    }

    /// Applies events to the view of this version again. Immediately retries the event that its handler refused, and a
    /// failed copy or reset.
    ///
    /// # Errors
    /// [`Error::Catalog`] if no events are applied to a version in its phase.
    pub fn resume(&self) -> Request<Order> {
        Request::new(&self.node, Order::new("resume", &self.view, CatalogCommand::Resume))
    }
}

/// A new build; see [`ProjectionHandle::rebuild`](super::ProjectionHandle::rebuild).
pub struct Rebuild {
    projection: ProjectionName,
    code: Option<u32>,
    from_copy: bool,
    discard: bool,
}

impl Rebuild {
    fn of(projection: ProjectionName) -> Self {
        Self { projection, code: None, from_copy: false, discard: false }
    }
}

impl Request<Rebuild> {
    /// Builds this code version. Default: the newest one that a live node carries.
    pub fn code(mut self, code: impl Into<Option<u32>>) -> Self {
        self.operation.code = code.into();
        self
    }

    /// Begins as a copy of the serving view, in the way that its code declares
    /// ([`Options::seed`](crate::Options::seed)), and reads only later events. Default: it reads everything. The
    /// request is refused with [`Error::NoCopy`] if the copy could not be what the new code would have made of the same
    /// events.
    pub fn from_copy(mut self) -> Self {
        self.operation.from_copy = true;
        self
    }

    /// Allows it to replace a version that is ready for its flip. Default: not allowed.
    pub fn discard(mut self) -> Self {
        self.operation.discard = true;
        self
    }
}

/// A new build that was scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The new version, and the position of the request in the catalog.
    pub requested: Requested<Verification>,
    /// The versions that it replaces, which are cleaned up.
    pub discards: Vec<VersionId>,
}

impl Rebuilt {
    /// Returns the new version.
    pub fn view(&self) -> &ViewId {
        &self.requested.view
    }

    /// Returns a future that waits until the new version is verified.
    pub fn done(&self) -> Done<Verification> {
        self.requested.done()
    }
}

impl Operation for Rebuild {
    type Recorded = Rebuilt;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Rebuilt, Error> {
        let Self { projection, code, from_copy: seeded, discard } = self;
        let request = KeyedRequest::new("rebuild", &projection, code.map_or(Which::Any, Which::Code));
        let request = match (seeded, discard) {
            (false, false) => request,
            (true, false) => request.with("from a copy"),
            (false, true) => request.with("with discard"),
            (true, true) => request.with("from a copy, with discard"),
        };
        node.versions.catalog.refresh().await?;
        if let Some(entries) = node.versions.catalog.repeated(&by, &request).await? {
            return Ok(rebuilt(&node, &entries));
        }
        let built = node.code_to_build(&projection, code).await?;
        let catalog = node.versions.catalog.current();
        let ready = catalog.projections.get(&projection).and_then(|state| state.would_discard().next());
        if let Some(version) = ready.filter(|_| !discard) {
            return Err(Error::WouldDiscard { view: view_of(&projection, version) });
        }
        // A node without the code cannot know whether a copy could be correct. The node that builds it knows, and fails
        // the build.
        if let Some(carried) = node.versions.code_here(&projection, built.code).filter(|_| seeded) {
            let refused = |why| Error::NoCopy { projection: projection.clone(), why };
            node.versions.may_copy(&carried).map_err(refused)?;
        }
        let schedule = Code { seeded, ..built }.schedule();
        let entries = Arc::clone(&node.versions.catalog).change_for(request, schedule, by).await?;
        Ok(rebuilt(&node, &entries))
    }
}

/// A move of readers to another version: a flip, or a rollback.
pub struct Flip {
    projection: ProjectionName,
    to: Option<VersionId>,
    kind: FlipKind,
}

impl Operation for Flip {
    type Recorded = Requested<FlipReport>;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Self::Recorded, Error> {
        let act = match self.kind {
            FlipKind::Flip => "flip",
            FlipKind::Rollback => "rollback",
        };
        let request = KeyedRequest::new(act, &self.projection, self.to);
        node.request(request, by, |_| self.target(&node)).await
    }
}

impl Flip {
    /// Returns the version to which readers will move, and the command for the catalog.
    fn target(&self, node: &Node) -> Result<(ViewId, CatalogCommand), Error> {
        let Self { projection, to, kind } = self;
        let catalog = node.versions.catalog.current();
        let state = catalog.projections.get(projection);
        let found = match kind {
            FlipKind::Flip => to.or_else(|| state?.flip_target()),
            FlipKind::Rollback => to.or_else(|| state?.rollback_target()),
        };
        let to = found.ok_or_else(|| {
            let none = match kind {
                FlipKind::Flip => NoTarget::NothingToFlipTo(projection.clone()),
                FlipKind::Rollback => NoTarget::NothingToRollBackTo(projection.clone()),
            };
            node.unknown_or(projection, || none.into())
        })?;
        if *kind == FlipKind::Rollback {
            node.known_version(projection, to)?;
        }
        if let Some((state, serving)) = state.and_then(|state| Some((state, state.serving?)))
            && state.kind_of_flip(to) != *kind
        {
            node.known_version(projection, to)?;
            let other = match kind {
                FlipKind::Flip => NoTarget::NotLater { to, serving },
                FlipKind::Rollback => NoTarget::NotEarlier { to, serving },
            };
            return Err(other.into());
        }
        let view = view_of(projection, to);
        Ok((view.clone(), CatalogCommand::RequestFlip(view)))
    }
}

/// A change of a verdict: another verification, or a waiver.
pub struct Examine {
    projection: ProjectionName,
    version: Option<VersionId>,
    waives: bool,
}

impl Examine {
    fn again(projection: ProjectionName, version: Option<VersionId>) -> Self {
        Self { projection, version, waives: false }
    }

    fn waived(projection: ProjectionName, version: Option<VersionId>) -> Self {
        Self { projection, version, waives: true }
    }
}

impl Operation for Examine {
    type Recorded = Requested<Verification>;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Self::Recorded, Error> {
        let Self { projection, version, waives } = self;
        let request = KeyedRequest::new(if waives { "waive" } else { "verify" }, &projection, version);
        let find = |by: &RequestedBy| {
            let Verification { view, phase, .. } = node.verification_of(&projection, version)?;
            if version.is_none() && phase != Phase::Initializing {
                return Err(NoTarget::NothingBuilt(projection.clone()).into());
            }
            if !waives {
                return Ok((view.clone(), CatalogCommand::RequestVerification(view)));
            }
            let why = by.reason.clone().filter(|reason| !reason.trim().is_empty()).ok_or(Error::NoReason)?;
            Ok((view.clone(), CatalogCommand::Waive { view, by: by.actor.clone(), why }))
        };
        node.request(request, by, find).await.map_err(|error| match error {
            Error::Catalog(CatalogRefused::NotVerified { view, .. }) => {
                let waiting_on = node.versions.before_verdict(&view);
                Error::Catalog(CatalogRefused::NotVerified { view, waiting_on })
            }
            error => error,
        })
    }
}

/// The drop of a version's view; see [`VersionHandle::clean_up`](super::VersionHandle::clean_up).
pub struct CleanUp(ViewId);

impl Operation for CleanUp {
    type Recorded = Requested<CleanedUp>;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Self::Recorded, Error> {
        let Self(view) = self;
        let spoken = async {
            while node.versions.stands_by_speaking(&view).await {
                tokio::time::sleep(limits::SPEAK_LOOK).await;
            }
        };
        if tokio::time::timeout(limits::SPEAK_TIME_MAX, spoken).await.is_err() {
            tracing::warn!(%view, "it is cleaned up early: events that it speaks for and has not reached get no effects");
        }
        let command = CatalogCommand::CleanUp { view: view.clone(), reason: CleanUpReason::Asked };
        node.order("clean-up", command, view, by).await
    }
}

/// A pause of a version, or its end.
pub struct Order {
    act: &'static str,
    view: ViewId,
    command: CatalogCommand,
}

impl Order {
    fn new(act: &'static str, view: &ViewId, command: impl FnOnce(ViewId) -> CatalogCommand) -> Self {
        Self { act, view: view.clone(), command: command(view.clone()) }
    }
}

impl Operation for Order {
    type Recorded = Requested;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Requested, Error> {
        node.order(self.act, self.command, self.view, by).await
    }
}

impl Node {
    /// Returns the code to build: of this number, or else the newest that a node carries. Code that this node does not
    /// carry is built as the catalog knows it from an earlier build. Code that nobody has built yet is scheduled by a
    /// node that carries it.
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

    /// Changes the catalog as `find` says, for the version that it finds. A request that was made before under the same
    /// key is not repeated.
    async fn request<E>(
        &self,
        request: KeyedRequest,
        by: RequestedBy,
        find: impl FnOnce(&RequestedBy) -> Result<(ViewId, CatalogCommand), Error>,
    ) -> Result<Requested<E>, Error> {
        if let Some(requested) = self.repeated(&by, &request).await? {
            return Ok(requested);
        }
        let (view, command) = find(&by)?;
        let entries = Arc::clone(&self.versions.catalog).change_for(request, command, by).await?;
        Ok(Requested::new(self, view, entries.first().map(|entry| entry.position)))
    }

    /// Returns the result of an earlier request under the same idempotency key.
    ///
    /// The next decision is based on the catalog as it is then, including changes by other nodes.
    pub(super) async fn repeated<E>(
        &self,
        by: &RequestedBy,
        request: &KeyedRequest,
    ) -> Result<Option<Requested<E>>, Error> {
        self.versions.catalog.refresh().await?;
        let entry = self.versions.catalog.repeated(by, request).await?.and_then(|entries| entries.into_iter().next());
        Ok(entry.map(|entry| Requested::of(self, &entry)))
    }

    async fn order<E>(
        &self,
        act: &'static str,
        command: CatalogCommand,
        view: ViewId,
        by: RequestedBy,
    ) -> Result<Requested<E>, Error> {
        let request = KeyedRequest::new(act, &view.projection, Which::Version(view.version));
        let requested = self.request(request, by, |_| Ok((view.clone(), command))).await?;
        self.pass_on_orders(&view);
        Ok(requested)
    }

    /// Passes the orders of the catalog to the processor of a version on this node. The conductor would do the same,
    /// but later.
    pub(super) fn pass_on_orders(&self, view: &ViewId) {
        if let (Some(open), Some(state)) =
            (self.versions.open_version(view), self.versions.catalog.current().version(view))
        {
            open.commands.order(Orders::of(state));
        }
    }
}

/// Returns what these entries scheduled.
#[expect(clippy::expect_used, reason = "a schedule that is accepted schedules a version")]
fn rebuilt(node: &Node, entries: &[CatalogEntry]) -> Rebuilt {
    let scheduled = entries.iter().find(|entry| matches!(entry.event, CatalogEvent::Scheduled { .. }));
    // A request under the key of another one gets the answer of that one.
    let first = scheduled.or(entries.first()).expect("a schedule that is accepted schedules a version");
    let cleaned = entries.iter().filter(|entry| matches!(entry.event, CatalogEvent::CleaningUp { .. }));
    let discards = cleaned.map(|entry| entry.event.view().version).collect();
    let requested = Requested::new(node, first.event.view().clone(), Some(first.position));
    Rebuilt { requested, discards }
}
