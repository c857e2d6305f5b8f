//! The conversion of requests to a node, and of its answers, from and to forms.

use dacapo::operate::{Cancel, FlipReport, ReplayFrom, Requested};
use dacapo_api::{
    ApiError, FlipResponse, Problem, ReplayRequest, Verification, VerifyResponse, Waiver, kind_of_flip, name_of_cancel,
    parse_event_id, parse_time,
};
use dacapo_model::Position;

pub(super) fn requested_form(requested: Requested<dacapo::verify::Verification>) -> VerifyResponse {
    VerifyResponse {
        projection: requested.view.projection.to_string(),
        version: requested.view.version.to_string(),
        requested: requested.position.map(Position::get),
    }
}

pub(super) fn verification_form(verification: &dacapo::verify::Verification) -> Verification {
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

pub(super) fn flipped_form(requested: &Requested<FlipReport>, report: FlipReport) -> FlipResponse {
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

pub(super) fn parse_cancel(what: &str) -> Result<Cancel, ApiError> {
    let all = [Cancel::Flip, Cancel::Rebuild, Cancel::CleanUp, Cancel::Replay];
    all.into_iter().find(|known| name_of_cancel(*known) == what).ok_or_else(|| {
        let problem = Problem::new("unprocessable", format!("{what:?} is not something that can be cancelled"));
        problem.help("name flip, rebuild, clean_up or replay").invalid()
    })
}

/// Returns the start of a replay. Exactly one of the fields must be given.
pub(super) fn replay_from(request: &ReplayRequest) -> Result<ReplayFrom, ApiError> {
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

pub(crate) fn asked(asked: dacapo_api::Asked) -> dacapo::catalog::RequestedBy {
    let dacapo_api::Asked { actor, reason, idempotency_key } = asked;
    dacapo::catalog::RequestedBy { actor: actor.unwrap_or_else(|| "api".to_owned()), reason, idempotency_key }
}
