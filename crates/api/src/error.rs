//! The one form in which a request is declined, and its classes told apart by type.

use std::fmt;

use dacapo_model::{CatalogRefused, InvalidName, InvalidVersion};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What went wrong: what was tried, what was found, what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The kind in snake_case, for programs: `wrong_revision`. Later releases may add codes.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// What was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The facts behind the code, such as `stream`, `expected` and `actual` of `wrong_revision`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

impl Problem {
    /// A problem of the kind `code`, described by `message`.
    pub fn new(code: impl Into<String>, message: impl ToString) -> Self {
        let (code, message) = (code.into(), message.to_string());
        Self { code, message, tried: None, found: None, help: None, fields: Map::new() }
    }

    /// The same, saying what was tried.
    #[must_use]
    pub fn tried(mut self, tried: impl ToString) -> Self {
        self.tried = Some(tried.to_string());
        self
    }

    /// The same, saying what was found.
    #[must_use]
    pub fn found(mut self, found: impl ToString) -> Self {
        self.found = Some(found.to_string());
        self
    }

    /// The same, saying what to do next.
    #[must_use]
    pub fn help(mut self, help: impl ToString) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// The same, with a fact for programs.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// As [`ApiError::Refused`].
    pub fn refused(self) -> ApiError {
        ApiError::Refused(Box::new(self))
    }

    /// As [`ApiError::NotFound`].
    pub fn not_found(self) -> ApiError {
        ApiError::NotFound(Box::new(self))
    }

    /// As [`ApiError::Invalid`].
    pub fn invalid(self) -> ApiError {
        ApiError::Invalid(Box::new(self))
    }

    /// As [`ApiError::Unavailable`].
    pub fn unavailable(self) -> ApiError {
        ApiError::Unavailable(Box::new(self))
    }

    /// As [`ApiError::Corrupt`].
    pub fn corrupt(self) -> ApiError {
        ApiError::Corrupt(Box::new(self))
    }
}

/// Why a call was declined, told apart by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// Things are not as the request demands; the caller can look again and ask anew. HTTP 409.
    Refused(Box<Problem>),
    /// What the request names does not exist. HTTP 404.
    NotFound(Box<Problem>),
    /// The request breaks a rule or a limit and never works as it is. HTTP 400, or what its code says
    /// in [`http_status`](Self::http_status).
    Invalid(Box<Problem>),
    /// It did not work this time; it may work later. HTTP 503.
    Unavailable(Box<Problem>),
    /// Bytes on disk or from the network are not what was written. HTTP 500.
    Corrupt(Box<Problem>),
}

impl ApiError {
    /// A passing failure: `tried` names the act, `found` what came back.
    pub fn unavailable(tried: impl ToString, found: impl ToString) -> Self {
        let (tried, found) = (tried.to_string(), found.to_string());
        Problem::new("unavailable", format!("cannot {tried}: {found}")).tried(tried).found(found).unavailable()
    }

    /// Wrong bytes: `place` names where, `found` what is wrong there.
    pub fn corrupt(place: impl ToString, found: impl ToString) -> Self {
        let (place, found) = (place.to_string(), found.to_string());
        let problem = Problem::new("corrupt", format!("{place} is damaged: {found}"));
        problem.found(found).field("place", place).corrupt()
    }

    /// The details.
    pub fn problem(&self) -> &Problem {
        match self {
            Self::Refused(problem)
            | Self::NotFound(problem)
            | Self::Invalid(problem)
            | Self::Unavailable(problem)
            | Self::Corrupt(problem) => problem,
        }
    }

    /// Whether the same request may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The HTTP status it travels under.
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

    /// The error that travelled under this HTTP status.
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
            CatalogRefused::NotVerified { view } => {
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
