//! What a client is told when a request fails: a word for programs and a sentence for people.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dacapo::ErrorKind;
use serde_json::json;

/// The status of the answer, the word, the sentence.
pub(super) struct Failure(StatusCode, &'static str, String);

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, what: &str, account: &str) -> Self {
        Self(status, code, format!("{account} {what}"))
    }

    pub(super) fn no_account(account: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_account", "is not open", account)
    }
}

impl From<dacapo::Error> for Failure {
    fn from(error: dacapo::Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            ErrorKind::Refused => (StatusCode::CONFLICT, "refused"),
            // Another node may have the code, or this one later.
            ErrorKind::NotFound | ErrorKind::Unavailable | ErrorKind::Failed => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Self(status, code, error.to_string())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), "bad_body", rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), "bad_query", rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, code, message) = self;
        (status, Json(json!({ "code": code, "message": message }))).into_response()
    }
}
