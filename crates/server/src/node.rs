//! A node behind the API: converts forms by hand, calls the node, converts back. It decides nothing.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use dacapo::{
    AppendRefused, Cancel, Error, FlipReport, NoTimeLeft, Node, NotReady, RebuildOptions, ReplayFrom, Requested,
    StoreError,
};
use dacapo_api::{
    Api, ApiError, AppendRequest, AppendResponse, CleanUpRequest, CleanUpResponse, Event, FlipRequest, FlipResponse,
    FlipStatus, History, HistoryEntry, MemberStatus, NodeStatus, OnKnown, PhasesRequest, Problem, ProjectionStatus,
    ReadRequest, ReadResponse, RebuildRequest, RebuildResponse, Recorded, ReplayRequest, ReplayResponse, Scrubbed,
    SegmentStatus, Stall, Status, StreamSummary, StreamsRequest, StreamsResponse, SubscriberFailure, SubscriberStatus,
    TimeLeft, Verification, VerificationRequest, VerifyRequest, VerifyResponse, VersionStatus, Waiver, check_category,
    format_time, kind_of_flip, parse_event_id, parse_projection, parse_time, parse_version,
};
use dacapo_api::{
    CancelRequest, CancelResponse, LettersRequest, LettersResponse, PauseRequest, PauseResponse, SetAsideRequest,
    SetAsideResponse, SettleRequest, SettleResponse, name_of_cancel,
};
use dacapo_model::{CatalogEvent, FlipKind, Position, ProjectionName, StreamName, VersionId, ViewId, WaitingOn};
use dacapo_store::{Append, EventRef, StreamEvent};
use tokio::time::Instant;

use crate::in_time::{SETTLES, in_time};
use crate::letters::Settle;

/// Entries in an answer, unless the reader says otherwise.
pub(crate) const ANSWER_EVENTS: u32 = 1_000;

/// A node of this process, as the API sees it.
#[derive(Clone)]
pub struct NodeApi {
    node: Node,
    name: String,
    started: Instant,
}

impl NodeApi {
    /// The API of `node`, which calls itself `name`.
    pub fn new(node: Node, name: impl Into<String>) -> Self {
        Self { node, name: name.into(), started: Instant::now() }
    }

    /// The node behind it.
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
        let status = self.node.status().await.map_err(refused)?;
        let mut projections: Vec<_> =
            status.projections.iter().map(|projection| projection_form(projection, status.head)).collect();
        if status.members.is_empty() {
            // Who has a segment says something only where there are others.
            let versions = projections.iter_mut().flat_map(|projection| &mut projection.versions);
            versions.flat_map(|version| &mut version.segments).for_each(|segment| segment.owner = None);
        }
        let members = status.members.iter().map(MemberStatus::new).collect();
        let subscribers = status.subscribers.iter().map(subscriber_form);
        Ok(Status { node: self.own_status(), members, projections, subscribers: subscribers.collect() })
    }

    async fn readiness(&self) -> Result<NodeStatus, ApiError> {
        Ok(self.own_status())
    }

    async fn append(&self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
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

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, ApiError> {
        in_time(request.wait_ms, async move { self.read_patiently(request).await }).await
    }

    async fn streams(&self, request: StreamsRequest) -> Result<StreamsResponse, ApiError> {
        in_time(None, async move {
            let most = request.limit.map_or(ANSWER_EVENTS, NonZeroU32::get).min(10_000) as usize;
            let after = request.after.map(StreamName::try_from).transpose()?;
            request.category.as_deref().map(check_category).transpose()?;
            let journal = self.node.journal();
            // One more than asked for tells whether more follow.
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
            let projection = parse_projection(projection)?;
            let how = RebuildOptions { code: request.code, from_copy: request.from_copy, discard: request.discard };
            let rebuilt = self.node.rebuild_with(&projection, how, asked(request.asked)).await.map_err(refused)?;
            let requested = rebuilt.requested;
            Ok(RebuildResponse {
                projection: projection.to_string(),
                version: requested.view.version.to_string(),
                requested: requested.position.unwrap_or_default().get(),
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
            let projection = parse_projection(projection)?;
            let version = request.version.as_deref().map(parse_version).transpose()?;
            let from = replay_from(&request)?;
            let requested =
                self.node.replay(&projection, version, from, asked(request.asked)).await.map_err(refused)?;
            let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
            let (position, waiting_on) = match self.node.replayed(&requested, wait).await {
                Ok(report) => (Some(report.ended.get()), vec![]),
                Err(Error::TimedOut { waiting_on, .. }) => (None, waiting_on),
                Err(error) => return Err(refused(error)),
            };
            Ok(ReplayResponse {
                projection: projection.to_string(),
                version: requested.view.version.to_string(),
                requested: requested.position.unwrap_or_default().get(),
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
            let requested = self.node.clean_up(&view, asked(request.asked)).await.map_err(refused)?;
            Ok(CleanUpResponse {
                projection: view.projection.to_string(),
                version: view.version.to_string(),
                requested: requested.position.unwrap_or_default().get(),
            })
        })
        .await
    }

    async fn verification(&self, projection: &str, request: VerificationRequest) -> Result<Verification, ApiError> {
        in_time(request.wait_ms, async move {
            let projection = parse_projection(projection)?;
            let version = request.version.as_deref().map(parse_version).transpose()?;
            let now = self.node.verification(&projection, version).map_err(refused)?;
            let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
            match self.node.verified(&now.view, wait).await {
                Ok(verified) => Ok(verification_form(&verified)),
                // How it stands is an answer as well.
                Err(Error::TimedOut { .. }) => {
                    let now = self.node.verification(&projection, Some(now.view.version)).map_err(refused)?;
                    Ok(verification_form(&now))
                }
                Err(error) => Err(refused(error)),
            }
        })
        .await
    }

    async fn verify(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        in_time(None, async move {
            let (projection, version) = of_version(projection, request.version.as_deref())?;
            let requested = self.node.verify_again(&projection, version, asked(request.asked)).await;
            Ok(requested_form(requested.map_err(refused)?))
        })
        .await
    }

    async fn waive(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        in_time(None, async move {
            let (projection, version) = of_version(projection, request.version.as_deref())?;
            let requested = self.node.waive(&projection, version, asked(request.asked)).await;
            Ok(requested_form(requested.map_err(refused)?))
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
            let projection = parse_projection(projection)?;
            let version = request.version.as_deref().map(parse_version).transpose()?;
            let what = request.what.as_deref().map(parse_cancel).transpose()?;
            let cancelled =
                self.node.cancel(&projection, what, version, asked(request.asked)).await.map_err(refused)?;
            let requested = cancelled.requested;
            Ok(CancelResponse {
                projection: projection.to_string(),
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
            let most = request.limit.map_or(ANSWER_EVENTS, NonZeroU32::get).min(10_000) as usize;
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

impl NodeApi {
    async fn move_readers(
        &self,
        projection: &str,
        request: FlipRequest,
        kind: FlipKind,
    ) -> Result<FlipResponse, ApiError> {
        let projection = parse_projection(projection)?;
        let to = request.to.as_deref().map(parse_version).transpose()?;
        let asked = asked(request.asked);
        let requested = match kind {
            FlipKind::Flip => self.node.flip(&projection, to, asked).await,
            FlipKind::Rollback => self.node.rollback(&projection, to, asked).await,
        };
        let requested = requested.map_err(refused)?;
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
        match self.node.flipped(&requested, wait).await {
            Ok(report) => Ok(flipped_form(&requested, report)),
            Err(Error::TimedOut { waiting_on, .. }) => self.waiting_form(&requested, waiting_on).await,
            Err(error) => Err(refused(error)),
        }
    }

    /// The answer while the flip has not happened.
    async fn waiting_form(&self, requested: &Requested, waiting_on: Vec<WaitingOn>) -> Result<FlipResponse, ApiError> {
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

fn of_version(projection: &str, version: Option<&str>) -> Result<(ProjectionName, Option<VersionId>), ApiError> {
    Ok((parse_projection(projection)?, version.map(parse_version).transpose()?))
}

fn requested_form(requested: Requested) -> VerifyResponse {
    VerifyResponse {
        projection: requested.view.projection.to_string(),
        version: requested.view.version.to_string(),
        requested: requested.position.map(Position::get),
    }
}

fn verification_form(verification: &dacapo::verify::Verification) -> Verification {
    let verified = verification.verified.as_ref();
    let waived = verified.and_then(|verified| verified.waived.clone());
    let verdict = verified.map(|verified| if verified.waived.is_some() { "Waived" } else { verified.verdict.as_str() });
    Verification {
        projection: verification.view.projection.to_string(),
        version: verification.view.version.to_string(),
        phase: verification.phase.to_string(),
        verdict: verdict.map(str::to_owned),
        position: verified.map(|verified| verified.position.get()),
        waived: waived.map(|(by, why)| Waiver { by, why }),
        again: verification.again,
        report: verified.map(|verified| (&*verified.report).into()),
        live: verification.live.as_ref().map(Into::into),
        waiting_on: verification.waiting_on.as_ref().map(Into::into),
        halts: verification.halts,
    }
}

fn flipped_form(requested: &Requested, report: FlipReport) -> FlipResponse {
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
        let problem = Problem::new("unprocessable", format!("{what:?} is nothing that can be cancelled"));
        problem.help("name flip, rebuild, clean_up or replay").invalid()
    })
}

/// Where a replay begins: just one way to say so must be there.
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
            let message = "a replay begins in one place: give just one of from, from_time, from_event and from_start";
            Err(Problem::new("unprocessable", message).invalid())
        }
    }
}

pub(crate) fn asked(asked: dacapo_api::Asked) -> dacapo::Asked {
    let dacapo_api::Asked { actor, reason, idempotency_key } = asked;
    dacapo::Asked { actor: actor.unwrap_or_else(|| "api".to_owned()), reason, idempotency_key }
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

fn projection_form(projection: &dacapo::ProjectionStatus, head: Position) -> ProjectionStatus {
    ProjectionStatus {
        name: projection.name.to_string(),
        serving: projection.serving.map(|version| version.to_string()),
        flip: projection.flip.as_ref().map(|(flip, waiting_on)| FlipStatus::new(flip, waiting_on)),
        versions: projection.versions.iter().map(|version| version_form(version, head)).collect(),
    }
}

fn subscriber_form(subscriber: &dacapo::SubscriberStatus) -> SubscriberStatus {
    let failure = |failure: &dacapo::SubscriberFailure| SubscriberFailure {
        position: failure.position.get(),
        error: failure.error.clone(),
    };
    SubscriberStatus {
        name: subscriber.name.to_owned(),
        position: subscriber.position.get(),
        lag: subscriber.lag,
        failed: subscriber.failed,
        last_failure: subscriber.last_failure.as_ref().map(failure),
        waiting_on: subscriber.waiting_on.iter().map(Into::into).collect(),
    }
}

fn version_form(version: &dacapo::VersionStatus, head: Position) -> VersionStatus {
    let has_view = !version.tokens.is_empty();
    let is_behind = has_view && version.lag > 0;
    let no_time_left = version.time_left.as_ref().and_then(|left| left.as_ref().err());
    VersionStatus {
        version: version.version.to_string(),
        phase: version.phase.to_string(),
        stage: version.stage.map(|stage| stage.to_string()),
        since: format_time(version.since),
        reason: version.reason.clone(),
        carried: version.carried,
        segments: version.tokens.iter().map(|token| SegmentStatus::new(token, head)).collect(),
        covers: has_view.then(|| version.covers.get()),
        lag: (has_view && version.phase.applies()).then_some(version.lag),
        lag_seconds: is_behind.then_some(version.lag_time.as_secs_f64()),
        rate: version.rate,
        arrivals: version.arrivals,
        time_left: version.time_left.as_ref().and_then(|left| left.as_ref().ok()).map(TimeLeft::new),
        no_time_left: no_time_left.filter(|why| **why != NoTimeLeft::Following).map(ToString::to_string),
        stall: version.stall.as_ref().map(Stall::new),
        rollback_ready: matches!(version.rollback_ready, Some(Ok(()))),
        rollback_not_ready: match &version.rollback_ready {
            Some(Err(reason)) => Some(reason.to_string()),
            _ => None,
        },
        reached: version.reached.map(Position::get),
        needs_somebody: version.needs_somebody,
        scrubbed: version.scrubbed.as_ref().map(Scrubbed::new),
        letters: version.letters,
        effects_aside: version.effects_aside,
        age_seconds: version.age.map(|age| age.as_secs_f64()),
        waiting_on: version.waiting_on.iter().map(Into::into).collect(),
    }
}

/// Why the node is not ready, with the projection that it is about.
fn not_ready_form(found: &NotReady) -> dacapo_api::WaitingOn {
    let mut form = dacapo_api::WaitingOn::from(&found.reason);
    form.text = found.to_string();
    if let Some(projection) = &found.projection {
        form.fields.insert("projection".to_owned(), projection.as_str().into());
    }
    form
}

pub(crate) fn unavailable(error: StoreError) -> ApiError {
    let message = error.to_string();
    match error {
        StoreError::Unavailable { tried, found } | StoreError::Owned { tried, found } => {
            Problem::new("unavailable", message).tried(tried).found(found).unavailable()
        }
        StoreError::Corrupt { place, found } => {
            Problem::new("corrupt", message).found(found).field("place", place).corrupt()
        }
        StoreError::Invalid(_) => Problem::new("invalid", message).invalid(),
        StoreError::Parted(parted) => {
            let problem = Problem::new("parted", message).found(parted);
            problem.help("put the right journal back, or rebuild what was made from the other one").unavailable()
        }
        StoreError::BeyondHead { after, head } => {
            Problem::new("beyond_head", message).field("after", after.get()).field("head", head.get()).refused()
        }
        StoreError::BeyondStream { stream, after, last } => {
            let problem = Problem::new("beyond_stream", message).field("stream", stream.as_str());
            problem.field("after", after.get()).field("last", last.get()).refused()
        }
    }
}

pub(crate) fn refused(error: Error) -> ApiError {
    let message = error.to_string();
    match error {
        Error::Name(invalid) => invalid.into(),
        Error::Catalog(refused) => refused.into(),
        Error::Store(error) => unavailable(error),
        Error::KeyReused(reused) => {
            let dacapo::KeyReused { key, before, now } = reused;
            let problem = Problem::new("key_reused", message).field("idempotency_key", key);
            problem.field("before", before).field("now", now).invalid()
        }
        Error::Append(refused) => append_refused(refused, message),
        Error::Event(_) => Problem::new("invalid_event", message).invalid(),
        Error::SystemStream(_) => Problem::new("system_stream", message).invalid(),
        Error::NotInPlace { view, .. } => {
            let problem = Problem::new("not_in_place", message).field("projection", view.projection.as_str());
            problem.field("version", view.version.to_string()).refused()
        }
        Error::ReplayUnderWay { view, after, requested, progress } => {
            let problem = Problem::new("replay_under_way", message).field("projection", view.projection.as_str());
            let problem = problem.field("version", view.version.to_string()).field("after", after.get());
            let problem = problem.field("requested", requested.get());
            match progress {
                Some((at, through)) => problem.field("at", at.get()).field("through", through.get()).refused(),
                None => problem.refused(),
            }
        }
        Error::Carry(_) => Problem::new("not_carried_so", message).refused(),
        Error::NoReason => Problem::new("no_reason", message).invalid(),
        Error::NoCopy { why, .. } => Problem::new("no_copy", message).found(why).refused(),
        Error::NoTarget(_) => Problem::new("no_target", message).refused(),
        Error::NoSuchProjection { name, known } => {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            let found = if known.is_empty() { "there are none yet".to_owned() } else { known.join(", ") };
            let problem = Problem::new("no_such_projection", format!("there is no projection {name}"));
            problem.found(found).help("`dacapo status` lists them").field("known", known).not_found()
        }
        Error::NotCarried { .. } => Problem::new("not_carried", message).not_found(),
        Error::NoAnswer { .. } => Problem::new("no_answer", message).not_found(),
        Error::Behind { view, position, first, stream } => {
            let problem = Problem::new("behind_another", message).field("version", view.version.to_string());
            let problem = problem.field("position", position.get()).field("first", first.get());
            problem.field("stream", stream.as_str()).refused()
        }
        Error::NotHalted { view, event, halts } => {
            let problem = Problem::new("not_halted", message).field("version", view.version.to_string());
            let halts: Vec<u64> = halts.iter().map(|position| position.get()).collect();
            problem.field("position", event.get()).field("halts", halts).refused()
        }
        Error::WouldDiscard { view } => {
            let problem = Problem::new("would_discard", message).field("version", view.version.to_string());
            let help = format!("`dacapo flip {}` moves readers to it, `--discard` discards it", view.projection);
            problem.help(help).refused()
        }
        Error::NoSuchCode { code, carried, .. } => {
            let problem = Problem::new("not_carried", message).field("code", code).field("carried", carried);
            problem.help("ask a node whose program has it, or name a version that is carried").not_found()
        }
        Error::FlipAborted { .. } => Problem::new("flip_aborted", message).refused(),
        Error::TimedOut { .. } => Problem::new("timed_out", message).unavailable(),
        Error::View(_) => Problem::new("view_unreadable", message).unavailable(),
        Error::Answer(_) => Problem::new("query_failed", message).unavailable(),
    }
}

fn append_refused(refused: AppendRefused, message: String) -> ApiError {
    match refused {
        AppendRefused::WrongRevision { stream, expected, actual } => Problem::new("wrong_revision", message)
            .field("stream", stream.as_str())
            .field("expected", expected.to_string())
            .field("actual", actual.get())
            .refused(),
        AppendRefused::IdTaken { id, position } => {
            Problem::new("id_taken", message).field("id", id.to_string()).field("position", position.get()).refused()
        }
        AppendRefused::IdTwice { id, first, second } => Problem::new("id_twice", message)
            .field("id", id.to_string())
            .field("at", [first, second].map(|event| format!("events[{event}]")))
            .invalid(),
        AppendRefused::PartlyKnown { known, position, unknown } => Problem::new("partly_known", message)
            .field("known", known.to_string())
            .field("position", position.get())
            .field("unknown", unknown.to_string())
            .refused(),
        AppendRefused::Limit { what, actual, max } => {
            Problem::new("too_large", message).field("what", what).field("actual", actual).field("max", max).invalid()
        }
        AppendRefused::Empty => Problem::new("empty", message).invalid(),
    }
}
