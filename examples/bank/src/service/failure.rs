//! What a client is told when a request fails: a word for programs and a sentence for people.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dacapo::ErrorKind;
use dacapo::store::StoreError;
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

/// Returns true if the store, or a view, does not belong to the journal, or is not the one that the node has read.
fn is_parted(error: &dacapo::Error) -> bool {
    matches!(error, dacapo::Error::Store(StoreError::Parted(_) | StoreError::JournalParted(_)))
}

impl From<dacapo::Error> for Failure {
    fn from(error: dacapo::Error) -> Self {
        let (status, code) = match error.kind() {
            // Nobody's request is at fault, and another node may answer.
            _ if is_parted(&error) => (StatusCode::SERVICE_UNAVAILABLE, "parted"),
            ErrorKind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "damaged"),
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

#[cfg(test)]
mod tests {
    use dacapo::Position;
    use dacapo::status::Parted;

    use super::*;

    #[test]
    fn what_the_store_cannot_do_is_no_fault_of_the_service() {
        let parted = Parted::History { same_through: Position::new(4), differs_at: Position::new(5) };
        let told = |error: StoreError| {
            let Failure(status, code, message) = dacapo::Error::Store(error).into();
            (status.as_u16(), code, message)
        };
        let (status, code, message) = told(StoreError::JournalParted(parted));
        assert_eq!((status, code), (503, "parted"));
        assert!(message.contains("differ from position 5 on"), "{message}");
        assert_eq!(told(StoreError::Parted(parted)).0, 503);
        assert_eq!(told(StoreError::unavailable("append", "the disk is full")).0, 503);
        assert_eq!(told(StoreError::corrupt("chunk 7", "a bit")).0, 500, "as the API says");
    }
}
