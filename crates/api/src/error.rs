//! The one form of a declined request, and its classes as types.

use std::fmt;

use dacapo_model::{CatalogRefused, InvalidName, InvalidVersion};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A declined request: the attempt, the finding, and the advice what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The kind in snake_case, for programs: `wrong_revision`. Later releases may add codes.
    pub code: String,
    /// The problem in words, for people.
    pub message: String,
    /// The attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
    /// The finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The advice what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The facts for the code, such as `stream`, `expected` and `actual` of `wrong_revision`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

impl Problem {
    /// Returns a problem of the kind `code`, described by `message`.
    pub fn new(code: impl Into<String>, message: impl ToString) -> Self {
        let (code, message) = (code.into(), message.to_string());
        Self { code, message, tried: None, found: None, help: None, fields: Map::new() }
    }

    /// Adds the attempt.
    #[must_use]
    pub fn tried(mut self, tried: impl ToString) -> Self {
        self.tried = Some(tried.to_string());
        self
    }

    /// Adds the finding.
    #[must_use]
    pub fn found(mut self, found: impl ToString) -> Self {
        self.found = Some(found.to_string());
        self
    }

    /// Adds the advice what to do next.
    #[must_use]
    pub fn help(mut self, help: impl ToString) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Returns it as [`ApiError::Refused`].
    pub fn refused(self) -> ApiError {
        ApiError::Refused(Box::new(self))
    }

    /// Returns it as [`ApiError::NotFound`].
    pub fn not_found(self) -> ApiError {
        ApiError::NotFound(Box::new(self))
    }

    /// Returns it as [`ApiError::Invalid`].
    pub fn invalid(self) -> ApiError {
        ApiError::Invalid(Box::new(self))
    }

    /// Returns it as [`ApiError::Unavailable`].
    pub fn unavailable(self) -> ApiError {
        ApiError::Unavailable(Box::new(self))
    }

    /// Returns it as [`ApiError::Corrupt`].
    pub fn corrupt(self) -> ApiError {
        ApiError::Corrupt(Box::new(self))
    }
}

/// The reason why a call was declined, classified by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The present state does not allow the request. The caller can look again and decide again. HTTP 409.
    Refused(Box<Problem>),
    /// Something that the request names does not exist. HTTP 404.
    NotFound(Box<Problem>),
    /// The request breaks a rule or a limit and can never succeed as it is. HTTP 400, or the status for its code in
    /// [`http_status`](Self::http_status).
    Invalid(Box<Problem>),
    /// The request did not succeed this time, but may succeed later. HTTP 503.
    Unavailable(Box<Problem>),
    /// Bytes on disk or from the network are not the bytes that were written. HTTP 500.
    Corrupt(Box<Problem>),
}

impl ApiError {
    /// Returns a temporary failure. `tried` names the attempt, `found` the error.
    pub fn unavailable(tried: impl ToString, found: impl ToString) -> Self {
        let (tried, found) = (tried.to_string(), found.to_string());
        Problem::new("unavailable", format!("cannot {tried}: {found}")).tried(tried).found(found).unavailable()
    }

    /// Returns an error about wrong bytes. `place` names the place, `found` the fault.
    pub fn corrupt(place: impl ToString, found: impl ToString) -> Self {
        let (place, found) = (place.to_string(), found.to_string());
        let problem = Problem::new("corrupt", format!("{place} is damaged: {found}"));
        problem.found(found).field("place", place).corrupt()
    }

    /// Returns the details.
    pub fn problem(&self) -> &Problem {
        match self {
            Self::Refused(problem)
            | Self::NotFound(problem)
            | Self::Invalid(problem)
            | Self::Unavailable(problem)
            | Self::Corrupt(problem) => problem,
        }
    }

    /// Returns true if the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Returns the HTTP status of the error.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Refused(_) => 409,
            Self::NotFound(_) => 404,
            Self::Unavailable(_) => 503,
            Self::Corrupt(_) => 500,
            Self::Invalid(problem) => match problem.code.as_str() {
                "forbidden" => 403,
                "method_not_allowed" => 405,
                "too_large" => 413,
                "unsupported_media_type" => 415,
                "unprocessable" | "unknown_key" | "doubled_key" | "key_reused" | "invalid_name" | "invalid_version"
                | "invalid_id" | "invalid_time" => 422,
                _ => 400,
            },
        }
    }

    /// Returns the error for this HTTP status.
    pub fn from_http(status: u16, problem: Problem) -> Self {
        match status {
            409 => problem.refused(),
            404 => problem.not_found(),
            500 => problem.corrupt(),
            408 | 429 | 501.. => problem.unavailable(),
            _ => problem.invalid(),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem().message)
    }
}

impl std::error::Error for ApiError {}

impl From<InvalidName> for ApiError {
    fn from(error: InvalidName) -> Self {
        let problem = Problem::new("invalid_name", &error);
        problem.field("kind", error.kind).field("name", error.name).field("rule", error.rule).invalid()
    }
}

impl From<InvalidVersion> for ApiError {
    fn from(error: InvalidVersion) -> Self {
        Problem::new("invalid_version", &error).field("version", error.0).invalid()
    }
}

impl From<CatalogRefused> for ApiError {
    fn from(error: CatalogRefused) -> Self {
        let message = error.to_string();
        let refused = |code: &str| Problem::new(code, &message);
        match error {
            CatalogRefused::NoSuchVersion { view, known } => {
                let known: Vec<Value> = known.iter().map(|version| version.to_string().into()).collect();
                let problem = refused("no_such_version").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).field("known", known).not_found()
            }
            CatalogRefused::WrongPhase { view, phase, asked } => {
                let problem = refused("wrong_phase").field("projection", view.projection.as_str());
                let problem = problem.field("version", view.version.to_string());
                let problem = problem.field("phase", phase.as_str()).field("asked", asked);
                problem.help(format!("`dacapo status` tells the phases of {}", view.projection)).refused()
            }
            CatalogRefused::FlipUnderWay { view } => {
                let problem = refused("flip_under_way").field("projection", view.projection.as_str());
                problem.field("to", view.version.to_string()).refused()
            }
            CatalogRefused::NoFlipUnderWay { projection } => {
                refused("no_flip_under_way").field("projection", projection.as_str()).refused()
            }
            CatalogRefused::ReplayUnderWay { view, after, requested } => {
                let problem = refused("replay_under_way").field("projection", view.projection.as_str());
                let problem = problem.field("version", view.version.to_string());
                problem.field("after", after.get()).field("requested", requested.get()).refused()
            }
            CatalogRefused::NoReplayUnderWay { view } => {
                let problem = refused("no_replay_under_way").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).refused()
            }
            CatalogRefused::TooLate { view, found, .. } => {
                let problem = refused("too_late").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).field("found", found).refused()
            }
            CatalogRefused::NotRestored { view } => {
                let problem = refused("not_restored").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).refused()
            }
            CatalogRefused::NotVerified { view, .. } => {
                let problem = refused("not_verified").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).refused()
            }
            CatalogRefused::NothingToWaive { view } => {
                let problem = refused("nothing_to_waive").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).refused()
            }
            CatalogRefused::NoVerdict { view } => {
                let problem = refused("no_verdict").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).refused()
            }
            CatalogRefused::VerificationOutdated { view } => {
                let problem = refused("verification_outdated").field("projection", view.projection.as_str());
                problem.field("version", view.version.to_string()).refused()
            }
            CatalogRefused::NothingToCopy { projection } => {
                refused("nothing_to_copy").field("projection", projection.as_str()).refused()
            }
            CatalogRefused::NotCovered { requested, covers } => {
                let problem = refused("not_covered").field("requested", requested.get());
                problem.field("covers", covers.get()).refused()
            }
            CatalogRefused::Reads { projection, code, unlike } => {
                let problem = refused("reads_changed").field("projection", projection.as_str());
                problem.field("code", code).field("unlike", unlike.to_string()).refused()
            }
            CatalogRefused::Fingerprint { projection, code, recorded, declared } => {
                let problem = refused("fingerprint_changed").field("projection", projection.as_str());
                problem.field("code", code).field("recorded", recorded).field("declared", declared).refused()
            }
            // What a later release refuses has its reason in the message.
            _ => refused("refused").refused(),
        }
    }
}
