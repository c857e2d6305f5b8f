//! Rebuilds, flips, replays, clean-ups, cancellations, and the history of changes: forms in, forms out.

use std::num::NonZeroU32;
use std::time::Duration;

use dacapo::Error;
use dacapo::operate::{Cancel, FlipReport, ReplayFrom, Requested};
use dacapo_api::{
    ApiError, CancelRequest, CancelResponse, CleanUpRequest, CleanUpResponse, FlipRequest, FlipResponse, History,
    HistoryEntry, PhasesRequest, Problem, RebuildRequest, RebuildResponse, ReplayRequest, ReplayResponse, kind_of_flip,
    name_of_cancel, parse_event_id, parse_projection, parse_time, parse_version,
};
use dacapo_model::{CatalogEvent, FlipKind, Position, ProjectionName, ViewId, WaitingOn};

use crate::in_time::in_time;
use crate::limits::{ANSWER_ENTRIES, ANSWER_ENTRIES_MAX};
use crate::node::{About, Operations, asked, refused};

impl Operations {
    pub(crate) async fn phases(&self, request: PhasesRequest) -> Result<History, ApiError> {
        in_time(None, async move {
            let projection = request.projection.as_deref().map(parse_projection).transpose()?;
            self.node().check_seen(Position::new(request.after)).await.map_err(refused)?;
            let history = self.node().history().await.map_err(refused)?;
            let wanted = |name: &ProjectionName| projection.as_ref().is_none_or(|wanted| wanted == name);
            if let Some(projection) = &projection
                && !history.iter().any(|entry| wanted(&entry.event.view().projection))
            {
                let message = format!("there is no projection {projection}");
                return Err(Problem::new("no_such_projection", message).help("`dacapo status` lists them").not_found());
            }
            let most = request.limit.map_or(ANSWER_ENTRIES, NonZeroU32::get).min(ANSWER_ENTRIES_MAX) as usize;
            let behind = history.iter().filter(|entry| entry.position.get() > request.after);
            let mut wanted = behind.filter(|entry| wanted(&entry.event.view().projection));
            let entries: Vec<HistoryEntry> = wanted
                .by_ref()
                .take(most)
                .map(|entry| {
                    let actor = Some(entry.asked.actor.clone()).filter(|actor| !actor.is_empty());
                    HistoryEntry::new(entry.position, entry.recorded, &entry.event, actor, entry.asked.reason.clone())
                })
                .collect();
            let more = wanted.next().is_some();
            let last = entries.last().map_or(request.after, |entry| entry.position);
            let through = if more { last } else { last.max(history.last().map_or(0, |entry| entry.position.get())) };
            Ok(History { history: entries, through, more })
        })
        .await
    }

    pub(crate) async fn rebuild(&self, projection: &str, request: RebuildRequest) -> Result<RebuildResponse, ApiError> {
        in_time(None, async move {
            let mut rebuild = self.projection(projection)?.rebuild().code(request.code);
            if request.from_copy {
                rebuild = rebuild.from_copy();
            }
            if request.discard {
                rebuild = rebuild.discard();
            }
            let rebuilt = rebuild.requested_by(asked(request.asked)).await.map_err(refused)?;
            let requested = rebuilt.requested;
            Ok(RebuildResponse {
                projection: requested.view.projection.to_string(),
                version: requested.view.version.to_string(),
                requested: requested.position.map(Position::get),
                discards: rebuilt.discards.iter().map(ToString::to_string).collect(),
            })
        })
        .await
    }

    pub(crate) async fn cancel(&self, projection: &str, request: CancelRequest) -> Result<CancelResponse, ApiError> {
        in_time(None, async move {
            let about = self.about(projection, request.version.as_deref())?;
            let what = request.what.as_deref().map(parse_cancel).transpose()?;
            let cancel = match &about {
                About::Version(version) => version.cancel(what),
                About::Projection(projection) => projection.cancel(what),
            };
            let cancelled = cancel.requested_by(asked(request.asked)).await.map_err(refused)?;
            let requested = cancelled.requested;
            Ok(CancelResponse {
                projection: requested.view.projection.to_string(),
                version: requested.view.version.to_string(),
                what: name_of_cancel(cancelled.what).to_owned(),
                requested: requested.position.map(Position::get),
            })
        })
        .await
    }

    pub(crate) async fn flip(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        in_time(request.wait_ms, async move { self.move_readers(projection, request, FlipKind::Flip).await }).await
    }

    pub(crate) async fn rollback(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        in_time(request.wait_ms, async move { self.move_readers(projection, request, FlipKind::Rollback).await }).await
    }

    pub(crate) async fn replay(&self, projection: &str, request: ReplayRequest) -> Result<ReplayResponse, ApiError> {
        in_time(request.wait_ms, async move {
            let about = self.about(projection, request.version.as_deref())?;
            let from = replay_from(&request)?;
            let replay = match &about {
                About::Version(version) => version.replay(from),
                About::Projection(projection) => projection.replay(from),
            };
            let requested = replay.requested_by(asked(request.asked)).await.map_err(refused)?;
            let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
            let (position, waiting_on) = match requested.done().within(wait).await {
                Ok(report) => (Some(report.ended.get()), vec![]),
                Err(Error::TimedOut { waiting_on, .. }) => (None, waiting_on),
                Err(error) => return Err(refused(error)),
            };
            Ok(ReplayResponse {
                projection: requested.view.projection.to_string(),
                version: requested.view.version.to_string(),
                requested: requested.position.map(Position::get),
                ended: position.is_some(),
                position,
                waiting_on: waiting_on.iter().map(Into::into).collect(),
            })
        })
        .await
    }

    pub(crate) async fn clean_up(
        &self,
        projection: &str,
        version: &str,
        request: CleanUpRequest,
    ) -> Result<CleanUpResponse, ApiError> {
        in_time(None, async move {
            let view = ViewId { projection: parse_projection(projection)?, version: parse_version(version)? };
            let version = self.node().version(view.clone());
            let requested = version.clean_up().requested_by(asked(request.asked)).await.map_err(refused)?;
            Ok(CleanUpResponse {
                projection: view.projection.to_string(),
                version: view.version.to_string(),
                requested: requested.position.map(Position::get),
            })
        })
        .await
    }

    async fn move_readers(
        &self,
        projection: &str,
        request: FlipRequest,
        kind: FlipKind,
    ) -> Result<FlipResponse, ApiError> {
        let flip = match (self.about(projection, request.to.as_deref())?, kind) {
            (About::Version(to), FlipKind::Flip) => to.flip(),
            (About::Version(to), FlipKind::Rollback) => to.rollback(),
            (About::Projection(projection), FlipKind::Flip) => projection.flip(),
            (About::Projection(projection), FlipKind::Rollback) => projection.rollback(),
        };
        let requested = flip.requested_by(asked(request.asked)).await.map_err(refused)?;
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
        match requested.done().within(wait).await {
            Ok(report) => Ok(flipped_form(&requested, report)),
            Err(Error::TimedOut { waiting_on, .. }) => self.waiting_form(&requested, waiting_on).await,
            Err(error) => Err(refused(error)),
        }
    }

    /// Returns the answer while the flip has not happened.
    async fn waiting_form(
        &self,
        requested: &Requested<FlipReport>,
        waiting_on: Vec<WaitingOn>,
    ) -> Result<FlipResponse, ApiError> {
        let history = self.node().history().await.map_err(refused)?;
        let request = history.iter().rev().find_map(|entry| match &entry.event {
            CatalogEvent::FlipRequested { view, from, kind } if *view == requested.view => {
                Some((entry.position, *from, *kind))
            }
            _ => None,
        });
        let (position, from, kind) = request.unwrap_or((Position::START, None, FlipKind::Flip));
        Ok(FlipResponse {
            projection: requested.view.projection.to_string(),
            kind: kind_of_flip(kind).to_owned(),
            from: from.map(|from| from.to_string()),
            to: requested.view.version.to_string(),
            requested: position.get(),
            flipped: false,
            position: None,
            covers: None,
            pause_ms: None,
            waiting_on: waiting_on.iter().map(Into::into).collect(),
        })
    }
}

fn flipped_form(requested: &Requested<FlipReport>, report: FlipReport) -> FlipResponse {
    FlipResponse {
        projection: requested.view.projection.to_string(),
        kind: kind_of_flip(report.kind).to_owned(),
        from: report.from.map(|from| from.to_string()),
        to: report.to.to_string(),
        requested: requested.position.unwrap_or(report.flipped).get(),
        flipped: true,
        position: Some(report.flipped.get()),
        covers: Some(report.covers.get()),
        pause_ms: report.pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
        waiting_on: vec![],
    }
}

fn parse_cancel(what: &str) -> Result<Cancel, ApiError> {
    let all = [Cancel::Flip, Cancel::Rebuild, Cancel::CleanUp, Cancel::Replay];
    all.into_iter().find(|known| name_of_cancel(*known) == what).ok_or_else(|| {
        let problem = Problem::new("unprocessable", format!("{what:?} is not something that can be cancelled"));
        problem.help("name flip, rebuild, clean_up or replay").invalid()
    })
}

/// Returns the start of a replay. Exactly one of the fields must be given.
fn replay_from(request: &ReplayRequest) -> Result<ReplayFrom, ApiError> {
    let ReplayRequest { from, from_time, from_event, from_start, .. } = request;
    let ways = [
        from.map(|position| Ok(ReplayFrom::Position(Position::new(position)))),
        from_time.as_deref().map(|time| parse_time(time).map(ReplayFrom::Time)),
        from_event.as_deref().map(|id| parse_event_id(id).map(ReplayFrom::Event)),
        from_start.then_some(Ok(ReplayFrom::Start)),
    ];
    let mut given = ways.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(from), None) => from,
        _ => {
            let message =
                "a replay begins in one place: give exactly one of from, from_time, from_event and from_start";
            Err(Problem::new("unprocessable", message).invalid())
        }
    }
}
