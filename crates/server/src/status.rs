//! The status of a node, as forms.

use dacapo::status::{NoTimeLeft, NotReady};
use dacapo_api::{
    ApiError, FlipStatus, MemberStatus, NodeStatus, ProjectionStatus, ScrubResult, SegmentStatus, Stall, Status,
    SubscriberFailure, SubscriberStatus, TimeLeft, VersionStatus, format_time,
};
use dacapo_model::Position;

use crate::in_time::in_time;
use crate::node::{Operations, refused};

impl Operations {
    pub(crate) async fn status(&self) -> Result<Status, ApiError> {
        in_time(None, async move { self.whole_status().await }).await
    }

    pub(crate) fn own_status(&self) -> NodeStatus {
        let head = self.node().head();
        let not_ready = self.node().not_ready();
        let mut warnings: Vec<_> = self.node().clock_behind().iter().map(ToString::to_string).collect();
        warnings.extend(self.node().journal().warnings());
        NodeStatus {
            name: self.name().to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.uptime().as_secs(),
            store: self.node().store_description().to_owned(),
            head: head.get(),
            // I-1: positions are dense, so the last one is their number.
            events: head.get(),
            ready: not_ready.is_empty(),
            waiting_on: not_ready.iter().map(not_ready_form).collect(),
            warnings,
        }
    }

    async fn whole_status(&self) -> Result<Status, ApiError> {
        let status = self.node().status().await.map_err(refused)?;
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
}

fn projection_form(projection: &dacapo::status::ProjectionStatus, head: Position) -> ProjectionStatus {
    ProjectionStatus {
        name: projection.name.to_string(),
        serving: projection.serving.map(|version| version.to_string()),
        flip: projection.flip.as_ref().map(|(flip, waiting_on)| FlipStatus::new(flip, waiting_on)),
        versions: projection.versions.iter().map(|version| version_form(version, head)).collect(),
    }
}

fn subscriber_form(subscriber: &dacapo::subscribe::SubscriberStatus) -> SubscriberStatus {
    let failure = |failure: &dacapo::subscribe::SubscriberFailure| SubscriberFailure {
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

fn version_form(version: &dacapo::status::VersionStatus, head: Position) -> VersionStatus {
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
        scrubbed: version.scrubbed.as_ref().map(ScrubResult::new),
        letters: version.letters,
        effects_aside: version.effects_aside,
        age_seconds: version.age.map(|age| age.as_secs_f64()),
        waiting_on: version.waiting_on.iter().map(Into::into).collect(),
    }
}

/// Returns the reason why the node is not ready, with its projection.
fn not_ready_form(found: &NotReady) -> dacapo_api::WaitingOn {
    let mut form = dacapo_api::WaitingOn::from(&found.reason);
    form.text = found.to_string();
    if let Some(projection) = &found.projection {
        form.fields.insert("projection".to_owned(), projection.as_str().into());
    }
    form
}
