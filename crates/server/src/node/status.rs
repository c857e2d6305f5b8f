//! The status of a node, as forms.

use dacapo::status::{NoTimeLeft, NotReady};
use dacapo_api::{
    FlipStatus, ProjectionStatus, ScrubResult, SegmentStatus, Stall, SubscriberFailure, SubscriberStatus, TimeLeft,
    VersionStatus, format_time,
};
use dacapo_model::Position;

pub(super) fn projection_form(projection: &dacapo::status::ProjectionStatus, head: Position) -> ProjectionStatus {
    ProjectionStatus {
        name: projection.name.to_string(),
        serving: projection.serving.map(|version| version.to_string()),
        flip: projection.flip.as_ref().map(|(flip, waiting_on)| FlipStatus::new(flip, waiting_on)),
        versions: projection.versions.iter().map(|version| version_form(version, head)).collect(),
    }
}

pub(super) fn subscriber_form(subscriber: &dacapo::subscribe::SubscriberStatus) -> SubscriberStatus {
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
pub(super) fn not_ready_form(found: &NotReady) -> dacapo_api::WaitingOn {
    let mut form = dacapo_api::WaitingOn::from(&found.reason);
    form.text = found.to_string();
    if let Some(projection) = &found.projection {
        form.fields.insert("projection".to_owned(), projection.as_str().into());
    }
    form
}
