//! Requests for replays in place, and the wait for their ends. The processor carries them out, and the catalog records
//! them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::replay::progress;
use dacapo_model::{
    CatalogCommand, CatalogEvent, CatalogRefused, EventId, PendingReplay, Phase, Position, ProjectionName, Timestamp,
    VersionId, ViewId,
};

use super::request::{End, Operation, Request, Requested};
use super::{Node, ProjectionHandle, VersionHandle};
use crate::catalog::{self, CatalogError, KeyedRequest, RequestedBy};
use crate::error::{Error, NoTarget};
use crate::versions::Versions;

impl ProjectionHandle {
    /// Replays past events in place, in the view of the serving version. Its projection allows this in
    /// [`Options::in_place`](crate::Options::in_place), which also states the effect on readers.
    ///
    /// # Errors
    /// [`Error::NotInPlace`] if the projection does not allow it; [`Error::ReplayUnderWay`] while another replay runs,
    /// with its progress; [`Error::NoTarget`] if there is nothing to replay; [`Error::Catalog`] if the catalog refuses,
    /// such as during a flip.
    pub fn replay(&self, from: ReplayFrom) -> Request<Replay> {
        Request::new(&self.node, Replay { projection: self.name.clone(), version: None, from })
    }
}

impl VersionHandle {
    /// Does the same as [`ProjectionHandle::replay`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::replay`].
    pub fn replay(&self, from: ReplayFrom) -> Request<Replay> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Replay { projection, version: Some(version), from })
    }
}

/// The first event of a replay in place. It is replayed, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayFrom {
    /// The first event of the journal.
    Start,
    /// The event at this position.
    Position(Position),
    /// The first event that was recorded at this time or later.
    Time(Timestamp),
    /// The event with this id.
    Event(EventId),
}

impl fmt::Display for ReplayFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("the start"),
            Self::Position(position) => write!(f, "position {position}"),
            Self::Time(time) => match jiff::Timestamp::from_microsecond(time.micros()) {
                Ok(time) => write!(f, "{time}"),
                Err(_) => write!(f, "{} microseconds since 1970", time.micros()),
            },
            Self::Event(id) => write!(f, "event {id}"),
        }
    }
}

/// A replay in place that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayReport {
    /// The version.
    pub view: ViewId,
    /// The position of the request, which identifies it.
    pub requested: Position,
    /// The position after which events were replayed.
    pub after: Position,
    /// The position of the event that records the end.
    pub ended: Position,
}

/// A replay in place; see [`ProjectionHandle::replay`](super::ProjectionHandle::replay).
pub struct Replay {
    projection: ProjectionName,
    version: Option<VersionId>,
    from: ReplayFrom,
}

impl Operation for Replay {
    type Recorded = Requested<ReplayReport>;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Self::Recorded, Error> {
        let Self { projection, version, from } = self;
        let request = KeyedRequest::new("replay", &projection, version).with(format_args!("from {from}"));
        if let Some(requested) = node.repeated(&by, &request).await? {
            return Ok(requested);
        }
        let versions = &node.versions;
        let serving = version.or_else(|| versions.catalog.current().serving(&projection));
        let known = versions.catalog.current().projections.contains_key(&projection);
        let Some(version) = serving.filter(|_| known) else {
            let none = || NoTarget::NothingToReplay(projection.clone()).into();
            return Err(if known { none() } else { node.unknown_or(&projection, none) });
        };
        let view = ViewId { projection, version };
        let command = to_replay(versions, &view, from).await?;
        match Arc::clone(&versions.catalog).change_for(request, command, by).await {
            Ok(entries) => Ok(Requested::new(&node, view, entries.first().map(|entry| entry.position))),
            Err(CatalogError::Refused(CatalogRefused::ReplayUnderWay { .. })) => Err(under_way(versions, view).await),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the command for the catalog to replay a version.
async fn to_replay(versions: &Versions, view: &ViewId, from: ReplayFrom) -> Result<CatalogCommand, Error> {
    let here = versions.code_of(view).map(|carried| carried.options.in_place);
    let in_place = here.or_else(|| versions.cluster.code_of(view)?.in_place);
    let in_place = in_place.ok_or_else(|| {
        let carried = versions.cluster.code_of_projection(&view.projection).into_iter().collect();
        Error::NoSuchCode { projection: view.projection.clone(), code: view.version.code, carried }
    })?;
    let after = behind(versions, from).await?;
    let rows = in_place.rows(after).map_err(|why| Error::NotInPlace { view: view.clone(), why: why.to_owned() })?;
    if let Some(head) = versions.ends_at(after).await? {
        return Err(NoTarget::NothingAfter { from: from.to_string(), head }.into());
    }
    Ok(CatalogCommand::RequestReplay { view: view.clone(), after, rows })
}

/// Returns the position after which the replay begins.
async fn behind(versions: &Versions, from: ReplayFrom) -> Result<Position, Error> {
    Ok(match from {
        ReplayFrom::Start => Position::START,
        ReplayFrom::Position(position) => Position::new(position.get().saturating_sub(1)),
        ReplayFrom::Time(time) => versions.journal.position_before(time).await?,
        ReplayFrom::Event(id) => {
            let found = versions.journal.position_of(id).await?;
            let position = found.ok_or(NoTarget::NoSuchEvent(id))?;
            Position::new(position.get() - 1)
        }
    })
}

/// Returns the error about a replay that runs already.
async fn under_way(versions: &Versions, view: ViewId) -> Error {
    let pending = versions.catalog.current().version(&view).and_then(|state| state.replay);
    let Some(PendingReplay { requested, after, .. }) = pending else {
        return NoTarget::ReplayEndedNow(view).into();
    };
    let progress = far(versions, &view).await;
    Error::ReplayUnderWay { view, after, requested, progress }
}

/// Returns the position that the replay of a version covers, and the position where it ends; `None` if its view is not
/// open.
async fn far(versions: &Versions, view: &ViewId) -> Option<(Position, Position)> {
    let pending = versions.catalog.current().version(view)?.replay?;
    let tokens = versions.tokens(view).await.ok()??;
    progress(&tokens, &pending)
}

impl End for ReplayReport {
    async fn reached(node: Node, view: ViewId, requested: Option<Position>, within: Duration) -> Result<Self, Error> {
        ended(&node.versions, &view, requested, within).await
    }
}

/// Waits for the end of a replay that was requested at `position`.
async fn ended(
    versions: &Versions,
    view: &ViewId,
    position: Option<Position>,
    within: Duration,
) -> Result<ReplayReport, Error> {
    let mut catalog = versions.catalog.watch();
    let over = catalog.wait_for(|catalog| {
        let state = catalog.version(view);
        let gone = |phase| !matches!(phase, Phase::Serving | Phase::StandingBy);
        state.is_none_or(|state| state.replay.is_none_or(|it| Some(it.requested) != position) || gone(state.phase))
    });
    if tokio::time::timeout(within, over).await.is_err() {
        let tokens = versions.tokens(view).await.ok().flatten().unwrap_or_default();
        let catalog = versions.catalog.current();
        let what = format!("the replay of {view} has not ended");
        let facts = versions.facts(&catalog, view, &tokens);
        let waiting_on = facts.map(|facts| facts.reasons().kept).unwrap_or_default();
        return Err(Error::TimedOut { what, waited: within, waiting_on });
    }
    let history = catalog::history(&*versions.journal).await?;
    let mut of_view = history.into_iter().filter(|entry| entry.event.view() == view);
    let (mut asked, mut cancelled) = (None, None);
    let end = of_view.find_map(|entry| match entry.event {
        CatalogEvent::ReplayRequested { after, .. } if Some(entry.position) == position => {
            asked = Some(after);
            None
        }
        CatalogEvent::ReplayCancelled { .. } if asked.is_some() => {
            cancelled = Some(entry.asked.actor);
            None
        }
        CatalogEvent::ReplayEnded { .. } if asked.is_some() => Some(entry.position),
        _ => None,
    });
    if let Some(by) = cancelled.filter(|_| end.is_some()) {
        return Err(NoTarget::ReplayCancelled { view: view.clone(), by }.into());
    }
    match (asked, end, position) {
        (Some(after), Some(ended), Some(requested)) => Ok(ReplayReport { view: view.clone(), requested, after, ended }),
        (Some(_), None, _) => Err(NoTarget::ReplayGone(view.clone()).into()),
        _ => Err(NoTarget::NoReplay(view.clone()).into()),
    }
}
