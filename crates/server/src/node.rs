//! A node after the API: converts forms by hand, calls the node, converts back. It decides nothing.

mod errors;
mod operations;
mod status;

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use dacapo::operate::{FlipReport, ProjectionHandle, Requested, VersionHandle};
use dacapo::{Error, Node};
use dacapo_api::{
    Api, ApiError, AppendRequest, AppendResponse, CancelRequest, CancelResponse, CleanUpRequest, CleanUpResponse,
    Event, FlipRequest, FlipResponse, History, HistoryEntry, LettersRequest, LettersResponse, MemberStatus, NodeStatus,
    OnKnown, PauseRequest, PauseResponse, PhasesRequest, Problem, ReadRequest, ReadResponse, RebuildRequest,
    RebuildResponse, Recorded, ReplayRequest, ReplayResponse, SetAsideRequest, SetAsideResponse, SettleRequest,
    SettleResponse, Status, StreamSummary, StreamsRequest, StreamsResponse, Verification, VerificationRequest,
    VerifyRequest, VerifyResponse, check_category, kind_of_flip, name_of_cancel, parse_projection, parse_version,
};
use dacapo_model::{CatalogEvent, FlipKind, Position, ProjectionName, StreamName, ViewId, WaitingOn};
use dacapo_store::{Append, EventRef, StreamEvent};
use tokio::time::Instant;

use crate::in_time::{SETTLES, in_time};
use crate::letters::Settle;
use crate::limits::{ANSWER_ENTRIES, ANSWER_ENTRIES_MAX};

pub(crate) use errors::{refused, unavailable};
pub(crate) use operations::asked;
use operations::{flipped_form, parse_cancel, replay_from, requested_form, verification_form};
use status::{not_ready_form, projection_form, subscriber_form};

/// The API of a node in this process.
#[derive(Clone)]
pub struct NodeApi {
    node: Node,
    name: String,
    started: Instant,
}

impl NodeApi {
    /// Returns the API of `node`, under this `name`.
    pub fn new(node: Node, name: impl Into<String>) -> Self {
        Self { node, name: name.into(), started: Instant::now() }
    }

    /// Returns the node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    fn own_status(&self) -> NodeStatus {
        let head = self.node.head();
        let not_ready = self.node.not_ready();
        let mut warnings: Vec<_> = self.node.clock_behind().iter().map(ToString::to_string).collect();
        warnings.extend(self.node.journal().warnings());
        NodeStatus {
            name: self.name.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            store: self.node.store_description().to_owned(),
            head: head.get(),
            // I-1: positions are dense, so the last one is their number.
            events: head.get(),
            ready: not_ready.is_empty(),
            waiting_on: not_ready.iter().map(not_ready_form).collect(),
            warnings,
        }
    }
}

#[async_trait]
impl Api for NodeApi {
    async fn status(&self) -> Result<Status, ApiError> {
        in_time(None, async move { self.whole_status().await }).await
    }

    async fn readiness(&self) -> Result<NodeStatus, ApiError> {
        Ok(self.own_status())
    }

    async fn append(&self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
        in_time(None, async move { self.append_events(request).await }).await
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, ApiError> {
        in_time(request.wait_ms, async move { self.read_patiently(request).await }).await
    }

    async fn streams(&self, request: StreamsRequest) -> Result<StreamsResponse, ApiError> {
        in_time(None, async move {
            let most = request.limit.map_or(ANSWER_ENTRIES, NonZeroU32::get).min(ANSWER_ENTRIES_MAX) as usize;
            let after = request.after.map(StreamName::try_from).transpose()?;
            request.category.as_deref().map(check_category).transpose()?;
            let journal = self.node.journal();
            // One more than requested shows whether more follow.
            let found = journal.streams(request.category.as_deref(), after.as_ref(), most + 1).await;
            let mut found = found.map_err(unavailable)?;
            let more = found.len() > most;
            found.truncate(most);
            let streams = found.into_iter().map(|stream| StreamSummary {
                name: stream.name.to_string(),
                revision: stream.revision.get(),
                last: stream.last.get(),
            });
            Ok(StreamsResponse { streams: streams.collect(), more })
        })
        .await
    }

    async fn rebuild(&self, projection: &str, request: RebuildRequest) -> Result<RebuildResponse, ApiError> {
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

    async fn flip(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        in_time(request.wait_ms, async move { self.move_readers(projection, request, FlipKind::Flip).await }).await
    }

    async fn rollback(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        in_time(request.wait_ms, async move { self.move_readers(projection, request, FlipKind::Rollback).await }).await
    }

    async fn replay(&self, projection: &str, request: ReplayRequest) -> Result<ReplayResponse, ApiError> {
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

    async fn clean_up(
        &self,
        projection: &str,
        version: &str,
        request: CleanUpRequest,
    ) -> Result<CleanUpResponse, ApiError> {
        in_time(None, async move {
            let view = ViewId { projection: parse_projection(projection)?, version: parse_version(version)? };
            let version = self.node.version(view.clone());
            let requested = version.clean_up().requested_by(asked(request.asked)).await.map_err(refused)?;
            Ok(CleanUpResponse {
                projection: view.projection.to_string(),
                version: view.version.to_string(),
                requested: requested.position.map(Position::get),
            })
        })
        .await
    }

    async fn verification(&self, projection: &str, request: VerificationRequest) -> Result<Verification, ApiError> {
        in_time(request.wait_ms, async move {
            let now = match self.about(projection, request.version.as_deref())? {
                About::Version(version) => version.verification(),
                About::Projection(projection) => projection.verification(),
            };
            let version = self.node.version(now.map_err(refused)?.view);
            let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
            match version.verified().within(wait).await {
                Ok(verified) => Ok(verification_form(&verified)),
                // A state without a verdict is an answer as well.
                Err(Error::TimedOut { .. }) => {
                    let now = version.verification().map_err(refused)?;
                    Ok(verification_form(&now))
                }
                Err(error) => Err(refused(error)),
            }
        })
        .await
    }

    async fn verify(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        in_time(None, async move {
            let verify = match self.about(projection, request.version.as_deref())? {
                About::Version(version) => version.verify_again(),
                About::Projection(projection) => projection.verify_again(),
            };
            Ok(requested_form(verify.requested_by(asked(request.asked)).await.map_err(refused)?))
        })
        .await
    }

    async fn waive(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        in_time(None, async move {
            let waive = match self.about(projection, request.version.as_deref())? {
                About::Version(version) => version.waive(),
                About::Projection(projection) => projection.waive(),
            };
            Ok(requested_form(waive.requested_by(asked(request.asked)).await.map_err(refused)?))
        })
        .await
    }

    async fn pause(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError> {
        in_time(None, async move { self.order(projection, request, true).await }).await
    }

    async fn resume(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError> {
        in_time(None, async move { self.order(projection, request, false).await }).await
    }

    async fn letters(&self, projection: &str, request: LettersRequest) -> Result<LettersResponse, ApiError> {
        in_time(None, async move { self.list_letters(projection, request).await }).await
    }

    async fn retry_letters(&self, projection: &str, request: SettleRequest) -> Result<SettleResponse, ApiError> {
        in_time(SETTLES, async move { self.settle_letters(projection, request, Settle::Retry).await }).await
    }

    async fn drop_letters(&self, projection: &str, request: SettleRequest) -> Result<SettleResponse, ApiError> {
        in_time(SETTLES, async move { self.settle_letters(projection, request, Settle::Drop).await }).await
    }

    async fn set_aside(&self, projection: &str, request: SetAsideRequest) -> Result<SetAsideResponse, ApiError> {
        in_time(None, async move { self.set_event_aside(projection, request).await }).await
    }

    async fn cancel(&self, projection: &str, request: CancelRequest) -> Result<CancelResponse, ApiError> {
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

    async fn phases(&self, request: PhasesRequest) -> Result<History, ApiError> {
        in_time(None, async move {
            let projection = request.projection.as_deref().map(parse_projection).transpose()?;
            self.node.check_seen(Position::new(request.after)).await.map_err(refused)?;
            let history = self.node.history().await.map_err(refused)?;
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
}

/// What a request is about: a version, or a projection whose version the node finds.
enum About {
    Projection(ProjectionHandle),
    Version(VersionHandle),
}

impl NodeApi {
    async fn whole_status(&self) -> Result<Status, ApiError> {
        let status = self.node.status().await.map_err(refused)?;
        let mut projections: Vec<_> =
            status.projections.iter().map(|projection| projection_form(projection, status.head)).collect();
        if status.members.is_empty() {
            // Who has a segment says something only where there are others.
            let versions = projections.iter_mut().flat_map(|projection| &mut projection.versions);
            versions.flat_map(|version| &mut version.segments).for_each(|segment| segment.claimed_by = None);
        }
        let members = status.members.iter().map(MemberStatus::new).collect();
        let subscribers = status.subscribers.iter().map(subscriber_form);
        Ok(Status { node: self.own_status(), members, projections, subscribers: subscribers.collect() })
    }

    async fn append_events(&self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
        let mut events = Vec::with_capacity(request.events.len());
        for event in request.events {
            let (stream, event) = event.into_model(|| self.node.new_id())?;
            events.push(StreamEvent { stream, event });
        }
        let expected = request.expected.into_iter().map(dacapo_api::Expected::into_model).collect::<Result<_, _>>()?;
        let on_known = match request.on_known {
            OnKnown::Recognise => dacapo_store::OnKnown::Recognise,
            OnKnown::Skip => dacapo_store::OnKnown::Skip,
        };
        let appended = self.node.append_batch(Append { events, expected, on_known }).await.map_err(refused)?;
        Ok(AppendResponse {
            position: appended.position.get(),
            revision: appended.revision.get(),
            written: appended.written as u64,
        })
    }

    fn projection(&self, name: &str) -> Result<ProjectionHandle, ApiError> {
        self.node.projection(parse_projection(name)?).map_err(refused)
    }

    fn about(&self, projection: &str, version: Option<&str>) -> Result<About, ApiError> {
        let projection = self.projection(projection)?;
        Ok(match version.map(parse_version).transpose()? {
            Some(version) => About::Version(projection.version(version)),
            None => About::Projection(projection),
        })
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
        let history = self.node.history().await.map_err(refused)?;
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

pub(crate) fn event_form(event: &EventRef<'_>) -> Result<Event, ApiError> {
    let (metadata, tags) = event.extra().map_err(unavailable)?;
    let recorded = Recorded {
        position: event.position,
        revision: event.revision,
        id: event.id,
        recorded: event.recorded,
        stream: event.stream,
        event_type: event.event_type,
        payload: event.payload,
    };
    Event::from_recorded(recorded, metadata, tags)
}
