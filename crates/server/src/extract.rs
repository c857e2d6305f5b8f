//! Extractors that decline a request in the form of every other error.

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Request};
use axum::response::{IntoResponse, Response};
use dacapo_api::operations::{self, NoRequest};
use dacapo_api::{ApiError, Asked, Problem, strict};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use mime::{Mime, Name};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::limits::{SMALL_BODY_BYTES_MAX, WAIT_TIME_MAX};
use crate::rights::Caller;

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

/// Permits one large body to be parsed at a time.
static LARGE_BODIES: Semaphore = Semaphore::const_new(1);

/// The request of an operation: the parameters of a `GET`; otherwise a body of JSON, one object with known keys only,
/// together with the idempotency key from the header and the name of the [`Caller`], if it is known.
pub(crate) struct Asking<T>(pub T);

impl<S: Send + Sync, T: operations::Request> FromRequest<S> for Asking<T> {
    type Rejection = Declined;

    async fn from_request(request: Request, state: &S) -> Result<Self, Declined> {
        let mut asking: T = if request.method() == Method::GET || request.method() == Method::HEAD {
            takes_only_parameters(&request).map_err(Declined)?;
            parameters(request.uri().query())?
        } else {
            let header = key(request.headers()).map_err(Declined)?;
            let caller = request.extensions().get::<Caller>().and_then(|caller| caller.name.clone());
            let mut asking: T = read(request, state).await?;
            match asking.asked() {
                Some(asked) => {
                    // A caller that is known cannot speak for another one.
                    asked.actor = caller.or(asked.actor.take());
                    take_over(header, asked)
                }
                None => header.map_or(Ok(()), |_| Err(takes_no_key())),
            }
            .map_err(Declined)?;
            asking
        };
        if let Some(wait_ms) = asking.wait_ms() {
            *wait_ms = (*wait_ms).min(u64::try_from(WAIT_TIME_MAX.as_millis()).unwrap_or(u64::MAX));
        }
        Ok(Self(asking))
    }
}

/// Refuses parts of a request that would be ignored.
fn takes_only_parameters(request: &Request) -> Result<(), ApiError> {
    let problem = |message| Err(Problem::new("bad_request", message).help("send the request as parameters").invalid());
    if key(request.headers())?.is_some() {
        return problem("a GET changes nothing, so it does not accept the header Idempotency-Key");
    }
    if !request.body().is_end_stream() {
        return problem("a GET does not accept a body");
    }
    Ok(())
}

fn takes_no_key() -> ApiError {
    let problem = Problem::new("bad_request", "this request does not accept the header Idempotency-Key");
    problem.help("give each event an id: then a retry of the append is recognised").invalid()
}

async fn read<S: Send + Sync, T: DeserializeOwned + Send + 'static>(
    request: Request,
    state: &S,
) -> Result<T, Declined> {
    let NoRequest {} = parameters(request.uri().query())?;
    is_json(request.headers()).map_err(|found| {
        let problem = Problem::new("unsupported_media_type", format!("the body is not accepted: {found}"));
        Declined(problem.help("send JSON in UTF-8 as it is, with content-type: application/json").invalid())
    })?;
    let body = Bytes::from_request(request, state).await.map_err(|rejection| {
        let (code, help) = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "send less in one request"),
            _ => ("bad_request", "send the whole body"),
        };
        Declined(Problem::new(code, rejection.body_text()).help(help).invalid())
    })?;
    if body.len() <= SMALL_BODY_BYTES_MAX {
        return strict::from_json(&body).map_err(Declined);
    }
    // Parsing a large body takes long, and many times its memory: a body within the limits may have many small parts.
    let turn = LARGE_BODIES.acquire().await;
    let understand = move || {
        let understood = strict::from_json(&body);
        drop((body, turn));
        understood
    };
    match tokio::task::spawn_blocking(understand).await {
        Ok(understood) => understood.map_err(Declined),
        Err(error) => Err(Declined(ApiError::unavailable("parse the body", error))),
    }
}

/// Checks that the body is declared as JSON in UTF-8 without an encoding. Otherwise it returns the fault.
fn is_json(headers: &HeaderMap) -> Result<(), String> {
    let only = |name: &HeaderName| {
        let mut given = headers.get_all(name).iter();
        let first = given.next().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if given.next().is_some() { Err(format!("the header {name} occurs twice")) } else { Ok(first) }
    };
    let said = only(&CONTENT_TYPE)?.ok_or("the header content-type must say that it is JSON")?;
    let kind: Mime = said.parse().map_err(|_| format!("the content-type {said:?} is none"))?;
    if kind.type_() != mime::APPLICATION || (kind.subtype() != mime::JSON && kind.suffix() != Some(mime::JSON)) {
        return Err(format!("its content-type is {said:?}, not JSON"));
    }
    // As text, these names are compared without regard to case.
    let is_other = |charset: &Name<'_>| *charset != "utf-8" && *charset != "utf8";
    let charsets = kind.params().filter(|(name, _)| *name == "charset").map(|(_, charset)| charset);
    if let Some(charset) = charsets.into_iter().find(is_other) {
        return Err(format!("its charset is {:?}, not UTF-8", charset.as_str()));
    }
    match only(&CONTENT_ENCODING)? {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            Err(format!("its content-encoding is {encoding:?}, which is not supported here"))
        }
        _ => Ok(()),
    }
}

/// Returns the key in the header, which may occur once.
fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let invalid = |message: &str| Problem::new("bad_request", message).invalid();
    let mut given = headers.get_all(operations::IDEMPOTENCY_KEY).iter();
    let Some(header) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(invalid("the header Idempotency-Key occurs twice"));
    }
    let key = header.to_str().map_err(|_| invalid("the header Idempotency-Key is not plain text"))?;
    Ok(Some(key.to_owned()))
}

/// Takes over the key of the header. A key that contradicts the body's is reported as a mistake. So is an empty one:
/// it is often a variable that was not set, and all callers that forgot it would share it.
fn take_over(header: Option<String>, asked: &mut Asked) -> Result<(), ApiError> {
    let is_empty = |key: &Option<String>| key.as_ref().is_some_and(String::is_empty);
    if is_empty(&header) || is_empty(&asked.idempotency_key) {
        let problem = Problem::new("bad_request", "the idempotency key is empty");
        return Err(problem.help("omit it, or make one for each request, such as a UUID").invalid());
    }
    let Some(key) = header else { return Ok(()) };
    if asked.idempotency_key.as_ref().is_some_and(|own| *own != key) {
        let message = "the header Idempotency-Key and the body's idempotency_key differ: give only one of them";
        return Err(Problem::new("bad_request", message).invalid());
    }
    asked.idempotency_key = Some(key);
    Ok(())
}

/// Reads the parameters of a query. A parameter with several values is repeated.
fn parameters<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Declined> {
    strict::from_query(query.unwrap_or_default()).map_err(Declined)
}

/// The parts of a path that the caller names.
pub(crate) struct PathParts(Vec<(String, String)>);

impl PathParts {
    /// Returns the parts with these names.
    pub fn named<const N: usize>(&self, names: [&str; N]) -> [&str; N] {
        names.map(|name| self.0.iter().find(|(found, _)| found == name).map_or("", |(_, part)| part))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathParts {
    type Rejection = Declined;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Declined> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(parts)) => Ok(Self(parts)),
            Err(rejection) => Err(Declined(Problem::new("bad_request", rejection.body_text()).invalid())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use serde::Deserialize;
    use serde::de::{Deserializer, Error as _, IgnoredAny};
    use serde::ser::Serializer;

    use super::*;

    /// How often another task of the runtime must have its turn before a body is understood.
    const BEATS: usize = 100;
    static BEAT: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);

    struct Slow;

    impl<'de> Deserialize<'de> for Slow {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            IgnoredAny::deserialize(from)?;
            let Some(beat) = BEAT.lock().unwrap().take() else { return Ok(Self) };
            for _ in 0..BEATS {
                beat.recv_timeout(Duration::from_secs(20)).map_err(|_| D::Error::custom("the worker stands still"))?;
            }
            Ok(Self)
        }
    }

    impl Serialize for Slow {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_unit()
        }
    }

    impl operations::Request for Slow {}

    #[tokio::test(flavor = "current_thread")]
    async fn large_bodies_are_understood_one_after_the_other() {
        let text = format!("{{{}}}", " ".repeat(SMALL_BODY_BYTES_MAX));
        let request = Request::post("/").header("content-type", "application/json").body(text.into()).unwrap();
        let turn = LARGE_BODIES.acquire().await.unwrap();
        let mut understood = std::pin::pin!(Asking::<NoRequest>::from_request(request, &()));
        let others = async {
            for _ in 0..1_000 {
                tokio::task::spawn_blocking(|| {}).await.unwrap();
            }
        };
        tokio::select! {
            biased;
            _ = &mut understood => panic!("it is another one's turn"),
            () = others => {}
        }
        drop(turn);
        assert!(understood.await.is_ok());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_large_body_is_understood_beside_the_runtime() {
        let (beats, beat) = mpsc::channel();
        *BEAT.lock().unwrap() = Some(beat);
        let heart = tokio::spawn(async move {
            while beats.send(()).is_ok() {
                tokio::task::yield_now().await;
            }
        });
        let text = format!("{{{}}}", " ".repeat(SMALL_BODY_BYTES_MAX));
        let request = Request::post("/").header("content-type", "application/json").body(text.into()).unwrap();
        let understood = Asking::<Slow>::from_request(request, &()).await;
        assert!(understood.is_ok(), "{:?}", understood.err().map(|declined| declined.0));
        heart.await.unwrap();
    }
}
