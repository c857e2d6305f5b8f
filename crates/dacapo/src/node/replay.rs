//! Replays in place, as they are asked for and waited for. The processor carries them out, the catalog keeps them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::replay::progress;
use dacapo_model::{
    CatalogCommand, CatalogEvent, CatalogRefused, EventId, PendingReplay, Phase, Position, ProjectionName, Timestamp,
    VersionId, ViewId,
};

use super::Requested;
use crate::catalog::Request;
use crate::catalog::{self, Asked, CatalogError};
use crate::error::Error;
use crate::versions::Versions;

/// Where a replay in place begins. What is named is replayed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// With the first event there is.
    Start,
    /// With the event at this position.
    Position(Position),
    /// With the first event that was recorded at this time or later.
    Time(Timestamp),
    /// With this event.
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
    /// Of which version.
    pub view: ViewId,
    /// The position of the request, which names it.
    pub requested: Position,
    /// The events behind this position were replayed.
    pub after: Position,
    /// The position of the fact that it has ended.
    pub ended: Position,
}

/// Asks for a replay of `version`, or of the one that serves.
pub(crate) async fn request(
    versions: &Arc<Versions>,
    request: Request,
    projection: &ProjectionName,
    version: Option<VersionId>,
    from: ReplayFrom,
    asked: Asked,
) -> Result<Requested, Error> {
    let version = version.or_else(|| versions.catalog.current().serving(projection)).ok_or_else(|| {
        Error::NoTarget(format!("no version of {projection} serves, so there is none to replay: name one"))
    })?;
    let view = ViewId { projection: projection.clone(), version };
    let here = versions.code_of(&view).map(|carried| carried.options.in_place);
    let in_place = here.or_else(|| versions.cluster.code_of(&view)?.in_place);
    let in_place = in_place.ok_or_else(|| {
        let carried = versions.cluster.code_of_projection(projection).into_iter().collect();
        Error::NoSuchCode { projection: projection.clone(), code: version.code, carried }
    })?;
    let after = behind(versions, from).await?;
    let rows = in_place.rows(after).map_err(|why| Error::NotInPlace { view: view.clone(), why: why.to_owned() })?;
    if let Some(head) = versions.ends_at(after).await? {
        return Err(Error::NoTarget(format!("there is nothing to replay from {from} on: the journal ends at {head}")));
    }
    let command = CatalogCommand::RequestReplay { view: view.clone(), after, rows };
    match Arc::clone(&versions.catalog).change_for(request, command, asked).await {
        Ok(entries) => Ok(Requested { view, position: entries.first().map(|entry| entry.position) }),
        Err(CatalogError::Refused(CatalogRefused::ReplayUnderWay { .. })) => Err(under_way(versions, view).await),
        Err(error) => Err(error.into()),
    }
}

/// The position behind which the replay begins.
async fn behind(versions: &Versions, from: ReplayFrom) -> Result<Position, Error> {
    Ok(match from {
        ReplayFrom::Start => Position::START,
        ReplayFrom::Position(position) => Position::new(position.get().saturating_sub(1)),
        ReplayFrom::Time(time) => versions.journal.position_before(time).await?,
        ReplayFrom::Event(id) => {
            let found = versions.journal.position_of(id).await?;
            let position = found.ok_or_else(|| Error::NoTarget(format!("event {id} is not in the journal")))?;
            Position::new(position.get() - 1)
        }
    })
}

/// What is to be said of a replay that runs already.
async fn under_way(versions: &Versions, view: ViewId) -> Error {
    let pending = versions.catalog.current().version(&view).and_then(|state| state.replay);
    let Some(PendingReplay { requested, after, .. }) = pending else {
        return Error::NoTarget(format!("a replay of {view} ended this moment: ask again"));
    };
    let progress = far(versions, &view).await;
    Error::ReplayUnderWay { view, after, requested, progress }
}

/// What the replay of a version covers again, and where it ends; `None` where its view is not open.
async fn far(versions: &Versions, view: &ViewId) -> Option<(Position, Position)> {
    let pending = versions.catalog.current().version(view)?.replay?;
    let tokens = versions.tokens(view).await.ok()??;
    progress(&tokens, &pending)
}

/// Waits for the end of a replay.
pub(crate) async fn ended(versions: &Versions, requested: &Requested, within: Duration) -> Result<ReplayReport, Error> {
    let Requested { view, position } = requested;
    let mut catalog = versions.catalog.watch();
    let over = catalog.wait_for(|catalog| {
        let state = catalog.version(view);
        let gone = |phase| !matches!(phase, Phase::Serving | Phase::StandingBy);
        state.is_none_or(|state| state.replay.is_none_or(|it| Some(it.requested) != *position) || gone(state.phase))
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
        CatalogEvent::ReplayRequested { after, .. } if Some(entry.position) == *position => {
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
        return Err(Error::NoTarget(format!("the replay of {view} was cancelled by {by}")));
    }
    match (asked, end, position) {
        (Some(after), Some(ended), Some(requested)) => {
            Ok(ReplayReport { view: view.clone(), requested: *requested, after, ended })
        }
        (Some(_), None, _) => {
            Err(Error::NoTarget(format!("the replay of {view} will not end: the version is cleaned up")))
        }
        _ => Err(Error::NoTarget(format!("no such replay of {view} was asked for"))),
    }
}
