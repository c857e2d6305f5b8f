//! The one form in which a request is declined, and its classes told apart by type.

use std::fmt;

use dacapo_model::{CatalogRefused, InvalidName, InvalidVersion};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What went wrong: what was tried, what was found, what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Why a call was declined, told apart by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// Things are not as the request demands; the caller can look again and ask anew. HTTP 409.
    Refused(Problem),
    /// What the request names does not exist. HTTP 404.
    NotFound(Problem),
    /// The request breaks a rule or a limit and never works as it is. HTTP 400, or what its code says
    /// in [`http_status`](Self::http_status).
    Invalid(Problem),
    /// It did not work this time; it may work later. HTTP 503.
    Unavailable(Problem),
    /// Bytes on disk or from the network are not what was written. HTTP 500.
    Corrupt(Problem),
}

impl ApiError {
    /// A refusal.
    pub fn refused(code: &str, message: impl ToString) -> Self {
        Self::Refused(Problem::new(code, message))
    }

    /// Something that does not exist.
    pub fn not_found(code: &str, message: impl ToString) -> Self {
        Self::NotFound(Problem::new(code, message))
    }

    /// A request that breaks a rule.
    pub fn invalid(code: &str, message: impl ToString) -> Self {
        Self::Invalid(Problem::new(code, message))
    }

    /// A passing failure: `tried` names the act, `found` what came back.
    pub fn unavailable(tried: impl ToString, found: impl ToString) -> Self {
        let (tried, found) = (tried.to_string(), found.to_string());
        Self::Unavailable(Problem::new("unavailable", format!("cannot {tried}: {found}")).tried(tried).found(found))
    }

    /// Wrong bytes: `place` names where, `found` what is wrong there.
    pub fn corrupt(place: impl ToString, found: impl ToString) -> Self {
        let (place, found) = (place.to_string(), found.to_string());
        Self::Corrupt(
            Problem::new("corrupt", format!("{place} is damaged: {found}")).found(found).field("place", place),
        )
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

    /// The same with its details changed.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Problem) -> Problem) -> Self {
        match self {
            Self::Refused(problem) => Self::Refused(change(problem)),
            Self::NotFound(problem) => Self::NotFound(change(problem)),
            Self::Invalid(problem) => Self::Invalid(change(problem)),
            Self::Unavailable(problem) => Self::Unavailable(change(problem)),
            Self::Corrupt(problem) => Self::Corrupt(change(problem)),
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
                "unprocessable" | "invalid_name" | "invalid_version" | "invalid_id" | "invalid_time" => 422,
                _ => 400,
            },
        }
    }

    /// The error that travelled under this HTTP status.
    pub fn from_http(status: u16, problem: Problem) -> Self {
        match status {
            409 => Self::Refused(problem),
            404 => Self::NotFound(problem),
            500 => Self::Corrupt(problem),
            408 | 429 | 501.. => Self::Unavailable(problem),
            _ => Self::Invalid(problem),
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
        Self::Invalid(problem.field("kind", error.kind).field("name", error.name).field("rule", error.rule))
    }
}

impl From<InvalidVersion> for ApiError {
    fn from(error: InvalidVersion) -> Self {
        Self::Invalid(Problem::new("invalid_version", &error).field("version", error.0))
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
                Self::NotFound(problem.field("version", view.version.to_string()).field("known", known))
            }
            CatalogRefused::WrongPhase { view, phase, asked } => {
                let problem = refused("wrong_phase").field("projection", view.projection.as_str());
                let problem = problem.field("version", view.version.to_string());
                Self::Refused(problem.field("phase", phase.as_str()).field("asked", asked))
            }
            CatalogRefused::FlipUnderWay { view } => {
                let problem = refused("flip_under_way").field("projection", view.projection.as_str());
                Self::Refused(problem.field("to", view.version.to_string()))
            }
            CatalogRefused::NoFlipUnderWay { projection } => {
                Self::Refused(refused("no_flip_under_way").field("projection", projection.as_str()))
            }
            CatalogRefused::NotCovered { requested, covers } => {
                let problem = refused("not_covered").field("requested", requested.get());
                Self::Refused(problem.field("covers", covers.get()))
            }
            CatalogRefused::Fingerprint { projection, code, recorded, declared } => {
                let problem = refused("fingerprint_changed").field("projection", projection.as_str());
                Self::Refused(problem.field("code", code).field("recorded", recorded).field("declared", declared))
            }
        }
    }
}
