//! Extractors that decline in the form of every other error.

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Request};
use axum::response::{IntoResponse, Response};
use dacapo_api::{
    ApiError, Asked, CleanUpRequest, FlipRequest, PauseRequest, Problem, RebuildRequest, ReplayRequest, SettleRequest,
    VerifyRequest, paths,
};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An answer, or an error in its form.
pub(crate) struct Answer<T>(pub Result<T, ApiError>);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => Declined(error).into_response(),
        }
    }
}

/// An error on its way out.
pub(crate) struct Declined(pub ApiError);

impl IntoResponse for Declined {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0.problem())).into_response()
    }
}

/// A body of JSON.
pub(crate) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Declined;

    async fn from_request(request: Request, state: &S) -> Result<Self, Declined> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(Declined(of_body(&rejection))),
        }
    }
}

/// What asks for a change, and may say under which key.
pub(crate) trait Asks {
    fn asked(&mut self) -> &mut Asked;
}

macro_rules! asks {
    ($($request:ty),+ $(,)?) => {
        $(impl Asks for $request {
            fn asked(&mut self) -> &mut Asked {
                &mut self.asked
            }
        })+
    };
}

asks!(RebuildRequest, FlipRequest, ReplayRequest, CleanUpRequest, VerifyRequest, PauseRequest, SettleRequest);

/// A body of JSON that asks for a change, with the idempotency key from the header.
pub(crate) struct Keyed<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Asks> FromRequest<S> for Keyed<T> {
    type Rejection = Declined;

    async fn from_request(request: Request, state: &S) -> Result<Self, Declined> {
        let header = request.headers().get(paths::IDEMPOTENCY_KEY).cloned();
        let Body(mut body) = Body::<T>::from_request(request, state).await?;
        key(header.as_ref(), body.asked()).map_err(Declined)?;
        Ok(Self(body))
    }
}

/// Takes the key over. One that contradicts the body's is a mistake to be told.
fn key(header: Option<&HeaderValue>, asked: &mut Asked) -> Result<(), ApiError> {
    let Some(header) = header else { return Ok(()) };
    let invalid = |message: &str| Problem::new("bad_request", message).invalid();
    let key = header.to_str().map_err(|_| invalid("the header Idempotency-Key is not plain text"))?;
    if asked.idempotency_key.as_ref().is_some_and(|own| own != key) {
        return Err(invalid("the header Idempotency-Key and the body's idempotency_key differ: give one of them"));
    }
    asked.idempotency_key = Some(key.to_owned());
    Ok(())
}

fn of_body(rejection: &JsonRejection) -> ApiError {
    let (code, help) = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "send less in one request"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "set content-type: application/json"),
        StatusCode::UNPROCESSABLE_ENTITY => ("unprocessable", "see the form of this request in the API's reference"),
        _ => ("bad_request", "the body must be one JSON object"),
    };
    Problem::new(code, rejection.body_text()).help(help).invalid()
}

/// The parameters of a query; one that is many is repeated.
pub(crate) struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Declined;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Declined> {
        let query = parts.uri.query().unwrap_or_default();
        serde_html_form::from_str(query).map(Self).map_err(|error| {
            let message = format!("the query {query:?} is not understood: {error}");
            Declined(Problem::new("bad_request", message).invalid())
        })
    }
}

/// The parts of a path.
pub(crate) struct PathParts<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParts<T> {
    type Rejection = Declined;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Declined> {
        let found: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        match found {
            Ok(Path(parts)) => Ok(Self(parts)),
            Err(rejection) => Err(Declined(Problem::new("bad_request", rejection.body_text()).invalid())),
        }
    }
}
