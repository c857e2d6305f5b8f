//! Dead letters, pauses and resumptions: the choice of the version; forms in, forms out.

use std::num::NonZeroU32;

use dacapo::Position;
use dacapo::catalog::Phase;
use dacapo::journal::StreamName;
use dacapo::operate::WhichLetters;
use dacapo::status::{ProjectionStatus, VersionStatus};
use dacapo_api::{
    ApiError, EffectLetter, Letter, LettersRequest, LettersResponse, PauseRequest, PauseResponse, Problem,
    SetAsideRequest, SetAsideResponse, SettleRequest, SettleResponse, parse_projection, parse_version,
};
use dacapo_model::{ProjectionName, VersionId, ViewId, WaitingOn};

use crate::events::event_form;
use crate::in_time::{SETTLES, in_time};
use crate::limits::ANSWER_LETTERS;
use crate::node::{Operations, asked, refused};

/// The action on dead letters.
enum Settle {
    Retry,
    Drop,
}

impl Operations {
    pub(crate) async fn pause(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError> {
        in_time(None, async move { self.order(projection, request, true).await }).await
    }

    pub(crate) async fn resume(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError> {
        in_time(None, async move { self.order(projection, request, false).await }).await
    }

    pub(crate) async fn letters(&self, projection: &str, request: LettersRequest) -> Result<LettersResponse, ApiError> {
        in_time(None, async move { self.list_letters(projection, request).await }).await
    }

    pub(crate) async fn retry_letters(
        &self,
        projection: &str,
        request: SettleRequest,
    ) -> Result<SettleResponse, ApiError> {
        in_time(SETTLES, async move { self.settle_letters(projection, request, Settle::Retry).await }).await
    }

    pub(crate) async fn drop_letters(
        &self,
        projection: &str,
        request: SettleRequest,
    ) -> Result<SettleResponse, ApiError> {
        in_time(SETTLES, async move { self.settle_letters(projection, request, Settle::Drop).await }).await
    }

    pub(crate) async fn set_aside(
        &self,
        projection: &str,
        request: SetAsideRequest,
    ) -> Result<SetAsideResponse, ApiError> {
        in_time(None, async move { self.set_event_aside(projection, request).await }).await
    }

    async fn order(&self, projection: &str, request: PauseRequest, pause: bool) -> Result<PauseResponse, ApiError> {
        let paused = |version: &VersionStatus| version.waiting_on.contains(&WaitingOn::Paused);
        let may = |version: &VersionStatus| version.phase.applies();
        // It is meant for a version that it changes, if there is one.
        let rather = |version: &VersionStatus| paused(version) != pause;
        let key = request.asked.idempotency_key.as_deref();
        let view = self.which(projection, request.version, key, |found| only(found, may, rather)).await?;
        let version = self.node().version(view.clone());
        let order = if pause { version.pause() } else { version.resume() };
        let ordered = order.requested_by(asked(request.asked)).await;
        let requested = ordered.map_err(refused)?.position.map(Position::get);
        Ok(PauseResponse { projection: view.projection.to_string(), version: view.version.to_string(), requested })
    }

    async fn list_letters(&self, projection: &str, request: LettersRequest) -> Result<LettersResponse, ApiError> {
        let view = self.which(projection, request.version, None, |found| with_some(found, request.effects)).await?;
        let most = request.limit.map_or(ANSWER_LETTERS, NonZeroU32::get) as usize;
        let most = most.min(dacapo_model::limits::LETTERS_READ_MAX);
        if request.effects {
            return self.list_effects(view, request.after, most).await;
        }
        // One more than requested shows whether more follow.
        let found =
            self.node().version(view.clone()).letters().after(Position::new(request.after)).limit(most + 1).await;
        let mut found = found.map_err(refused)?;
        let more = found.len() > most;
        found.truncate(most);
        let letters = found.iter().map(|found| Ok(Letter::new(&found.letter, event_form(&found.event())?)));
        let letters = letters.collect::<Result<_, ApiError>>()?;
        Ok(LettersResponse {
            projection: view.projection.to_string(),
            version: view.version.to_string(),
            letters,
            effects: vec![],
            more,
        })
    }

    async fn list_effects(&self, view: ViewId, after: u64, most: usize) -> Result<LettersResponse, ApiError> {
        // One more than requested shows whether more follow.
        let found = self.node().version(view.clone()).effect_letters().after(after).limit(most + 1).await;
        let mut found = found.map_err(refused)?;
        let more = found.len() > most;
        found.truncate(most);
        Ok(LettersResponse {
            projection: view.projection.to_string(),
            version: view.version.to_string(),
            letters: vec![],
            effects: found.iter().map(|letter| EffectLetter::new(&view.projection, letter)).collect(),
            more,
        })
    }

    async fn set_event_aside(&self, projection: &str, request: SetAsideRequest) -> Result<SetAsideResponse, ApiError> {
        if request.position == 0 {
            let problem = Problem::new("bad_request", "it is not clear which event is meant");
            return Err(problem.help("name one by its position").invalid());
        }
        let event = Position::new(request.position);
        self.node().check_seen(event).await.map_err(refused)?;
        let applies = |version: &VersionStatus| version.phase.applies();
        let halts = |version: &VersionStatus| {
            let there =
                |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { position, .. } if *position == event);
            version.waiting_on.iter().any(there)
        };
        let key = request.asked.idempotency_key.as_deref();
        let view = self.which(projection, request.version, key, |found| only(found, applies, halts)).await?;
        let set_aside = self.node().version(view.clone()).set_aside(event);
        let requested = set_aside.requested_by(asked(request.asked)).await.map_err(refused)?;
        Ok(SetAsideResponse {
            projection: view.projection.to_string(),
            version: view.version.to_string(),
            position: event.get(),
            requested: requested.position.map(Position::get),
        })
    }

    async fn settle_letters(
        &self,
        projection: &str,
        request: SettleRequest,
        settle: Settle,
    ) -> Result<SettleResponse, ApiError> {
        let which = match (request.position, request.stream, request.all) {
            (Some(position), None, false) => WhichLetters::One(Position::new(position)),
            (None, Some(stream), false) => WhichLetters::Stream(StreamName::try_from(stream)?),
            (None, None, true) => WhichLetters::All,
            _ => {
                let problem = Problem::new("bad_request", "it is not clear which dead letters are meant");
                return Err(problem.help("name one event by its position, or a stream, or all").invalid());
            }
        };
        let key = request.asked.idempotency_key.as_deref();
        let view = self.which(projection, request.version, key, |found| with_some(found, request.effects)).await?;
        let version = self.node().version(view.clone());
        let settle = match (settle, request.effects) {
            (Settle::Retry, false) => version.retry_letters(which),
            (Settle::Drop, false) => version.drop_letters(which),
            (Settle::Retry, true) => version.retry_effects(which),
            (Settle::Drop, true) => version.drop_effects(which),
        };
        let settled = settle.requested_by(asked(request.asked)).await.map_err(refused)?;
        Ok(SettleResponse {
            projection: view.projection.to_string(),
            version: view.version.to_string(),
            letters: settled.letters,
            requested: settled.requested.position.map(Position::get),
        })
    }

    /// Returns the named version. If none is named, it returns the one that was chosen for the first request under this
    /// idempotency key, or else the one that `choose` finds.
    async fn which(
        &self,
        projection: &str,
        version: Option<String>,
        key: Option<&str>,
        choose: impl FnOnce(&ProjectionStatus) -> Result<VersionId, ApiError>,
    ) -> Result<ViewId, ApiError> {
        let projection: ProjectionName = parse_projection(projection)?;
        if let Some(version) = version {
            return Ok(ViewId { projection, version: parse_version(&version)? });
        }
        // The status comes before the key. So what a first request under the key has changed is never in a status from
        // which its repetition chooses.
        let status = self.node().status().await.map_err(refused)?;
        if let Some(key) = key
            && let Some(first) = self.node().version_under_key(key).await.map_err(refused)?
        {
            // The key of another projection is refused with the request.
            return Ok(ViewId { projection, version: first.version });
        }
        let Some(found) = status.projections.iter().find(|found| found.name == projection) else {
            let problem = Problem::new("no_such_projection", format!("there is no projection {projection}"));
            return Err(problem.help("`dacapo status` lists them").not_found());
        };
        let version = choose(found)?;
        Ok(ViewId { projection, version })
    }
}

/// Returns the only version that has letters of this kind. If none has any, it returns the one that serves.
fn with_some(found: &ProjectionStatus, effects: bool) -> Result<VersionId, ApiError> {
    // A version that is cleaned up may still owe effects.
    let may = |version: &VersionStatus| version.phase.applies() || effects && version.phase == Phase::CleaningUp;
    let fails = |reason: &WaitingOn| matches!(reason, WaitingOn::Effect { .. } | WaitingOn::Effects { .. });
    let some = |version: &VersionStatus| match effects {
        true => version.effects_aside > 0 || version.waiting_on.iter().any(fails),
        false => version.letters > 0,
    };
    if !found.versions.iter().any(|version| may(version) && some(version)) {
        let newest = || found.versions.iter().rev().find(|version| may(version)).map(|found| found.version);
        if let Some(version) = found.serving.or_else(newest) {
            return Ok(version);
        }
    }
    only(found, may, some)
}

/// Returns the only version for which the request is possible (`may`) and likely (`rather`). A wrong guess here would
/// change another version.
fn only(
    found: &ProjectionStatus,
    may: impl Fn(&VersionStatus) -> bool,
    rather: impl Fn(&VersionStatus) -> bool,
) -> Result<VersionId, ApiError> {
    let candidates: Vec<_> = found.versions.iter().filter(|version| may(version)).collect();
    let better: Vec<_> = candidates.iter().copied().filter(|version| rather(version)).collect();
    match if better.is_empty() { &candidates[..] } else { &better[..] } {
        [only] => Ok(only.version),
        several => {
            let names: Vec<_> = several.iter().map(|version| version.version.to_string()).collect();
            let message = format!("it is not clear which version of {} is meant", found.name);
            let found = if names.is_empty() { "there is no candidate".to_owned() } else { names.join(", ") };
            Err(Problem::new("which_version", message).found(found).help("name the version").refused())
        }
    }
}
