//! The API over HTTP: one request for each call, no retries. Only the caller knows whether a retry is safe.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, Response, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Problem};
use crate::limits;
use crate::operations::{Request, given, path_to};
use crate::{Api, operations};

/// The limits of a client for each call.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Longest time for connecting.
    pub connect_time_max: Duration,
    /// Longest time for a call, beside the time that the call asks the node to wait.
    pub call_time_max: Duration,
    /// Largest answer that is read, in bytes.
    pub answer_bytes_max: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_time_max: limits::CONNECT_TIME_MAX,
            call_time_max: limits::CALL_TIME_MAX,
            answer_bytes_max: limits::ANSWER_BYTES_MAX,
        }
    }
}

/// A node at the other end of an HTTP connection.
#[derive(Clone, Debug)]
pub struct HttpClient {
    http: reqwest::Client,
    base: Url,
    limits: ClientLimits,
}

impl HttpClient {
    /// Returns a client of the node at `url`, such as `http://127.0.0.1:7373`. It does not connect yet.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if `url` is not an `http://` address.
    pub fn new(url: &str, limits: ClientLimits) -> Result<Self, ApiError> {
        let invalid = |found: String| {
            let shown = without_secrets(url);
            let problem = Problem::new("invalid_url", format!("{shown:?} is not the address of a node: {found}"));
            problem.help("write it like http://127.0.0.1:7373").invalid()
        };
        let base = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        if base.scheme() != "http" || base.host().is_none() {
            return Err(invalid("it does not begin with http:// and a host".into()));
        }
        if url.contains('@') || !base.username().is_empty() || base.password().is_some() {
            return Err(invalid("it has a user or a password, but a node needs none".into()));
        }
        if base.query().is_some() {
            return Err(invalid("it has a query (?), which would not be sent".into()));
        }
        if base.fragment().is_some() {
            return Err(invalid("it has a fragment (#), which would not be sent".into()));
        }
        // The user names the node. A proxy of the environment or a redirect must not stand in between.
        let http = reqwest::Client::builder()
            .connect_timeout(limits.connect_time_max)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ApiError::unavailable("set up an HTTP client", root_cause(&error)))?;
        Ok(Self { http, base, limits })
    }

    fn url(&self, path: &str, query: Option<&impl Serialize>) -> Result<Url, ApiError> {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        if let Some(query) = query {
            let query =
                serde_html_form::to_string(query).map_err(|error| Problem::new("bad_request", error).invalid())?;
            url.set_query((!query.is_empty()).then_some(&query));
        }
        Ok(url)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        mut request: impl Request,
    ) -> Result<T, ApiError> {
        let wait_ms = request.wait_ms().copied();
        if method == Method::GET {
            let url = self.url(path, Some(&request))?;
            return self.call(method, &url, self.http.get(url.clone()), wait_ms).await;
        }
        let url = self.url(path, None::<&()>)?;
        let body = serde_json::to_vec(&request).map_err(|error| Problem::new("bad_request", error).invalid())?;
        let built = self.http.post(url.clone()).header("content-type", "application/json").body(body);
        self.call(method, &url, built, wait_ms).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &Url,
        request: RequestBuilder,
        wait_ms: Option<u64>,
    ) -> Result<T, ApiError> {
        let tried = format!("{method} {url}");
        let time_max = self.limits.call_time_max.saturating_add(Duration::from_millis(wait_ms.unwrap_or(0)));
        let response = request.timeout(time_max).send().await.map_err(|error| self.unreachable(&tried, &error))?;
        let status = response.status();
        let body = self.body(&tried, response).await?;
        if !status.is_success() {
            return Err(declined(&tried, status.as_u16(), &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let problem =
                Problem::new("unexpected_answer", format!("the answer to {tried} is not understood: {error}"));
            let help =
                "check that the address is that of a dacapo node, and that client and node have compatible releases";
            problem.tried(&tried).found(beginning(&body)).help(help).corrupt()
        })
    }

    /// Returns the body, if it is not larger than allowed: an answer must not be able to fill the memory.
    async fn body(&self, tried: &str, mut response: Response) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(tried, &error))? {
            if body.len() + chunk.len() > self.limits.answer_bytes_max {
                let max = self.limits.answer_bytes_max;
                let problem = Problem::new("unexpected_answer", format!("the answer is larger than {max} bytes"));
                return Err(problem.tried(tried).corrupt());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, tried: &str, error: &reqwest::Error) -> ApiError {
        let found = root_cause(error);
        let base = self.base.as_str().trim_end_matches('/');
        let (message, help) = if no_more_files(error) {
            let help = "let this process have more files open (ulimit -n), or do less at once";
            ("no more files can be opened here, and so no connection".to_owned(), help)
        } else if error.is_connect() {
            let help = "start a node with `dacapo serve`, or name another one with --at or DACAPO_AT";
            (format!("no node answers at {base}"), help)
        } else if error.is_timeout() {
            (format!("the node at {base} did not answer in time"), "look at its log; ask again")
        } else {
            (format!("the connection to the node at {base} broke"), "look at its log; ask again")
        };
        let code = if error.is_connect() { "unreachable" } else { "no_answer" };
        Problem::new(code, message).tried(tried).found(found).help(help).unavailable()
    }
}

/// Returns an address as it may be shown: without anything that could be a user and a password, and without a query
/// or a fragment. Of an address that is not well formed it leaves out too much rather than too little.
pub fn without_secrets(url: &str) -> Cow<'_, str> {
    let with_scheme = url.split_once("://").filter(|(scheme, _)| !scheme.contains('@'));
    let (scheme, rest) = with_scheme.unwrap_or(("", url));
    let whole = match rest.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("…@{host}")),
        None => Cow::Borrowed(rest),
    };
    let end = whole.find(['?', '#']).map(|at| at + 1);
    if matches!(whole, Cow::Borrowed(_)) && end.is_none_or(|end| end == whole.len()) {
        return Cow::Borrowed(url);
    }
    let shown = end.map_or_else(|| whole.to_string(), |end| format!("{}…", &whole[..end]));
    if scheme.is_empty() { Cow::Owned(shown) } else { Cow::Owned(format!("{scheme}://{shown}")) }
}

/// Returns the error in an answer that is no success. A proxy may have answered in a form of its own.
fn declined(tried: &str, status: u16, body: &[u8]) -> ApiError {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return ApiError::from_http(status, problem);
    }
    let problem = Problem::new("unexpected_answer", format!("{tried} was answered with HTTP {status}"));
    let problem = problem.tried(tried).found(beginning(body)).help("check that the address is that of a dacapo node");
    if status >= 500 { problem.unavailable() } else { problem.invalid() }
}

/// Returns as much of a body as helps in a message.
fn beginning(body: &[u8]) -> String {
    if body.is_empty() {
        return "an empty answer".into();
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("an answer that begins with {text:?}")
}

/// Returns true if the system lets this process open no more files: EMFILE or ENFILE, which are 24 and 23 on every
/// Unix.
fn no_more_files(error: &(dyn std::error::Error + 'static)) -> bool {
    let io =
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref::<io::Error>());
    cfg!(unix) && io.and_then(io::Error::raw_os_error).is_some_and(|code| matches!(code, 23 | 24))
}

/// Returns the innermost error: the message of the system.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

macro_rules! client {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        #[async_trait]
        impl Api for HttpClient {
            $(
                async fn $name(
                    &self,
                    $($part: &str,)*
                    $(request: crate::$request,)?
                ) -> Result<crate::$response, ApiError> {
                    let path = path_to($path, &[$((stringify!($part), $part)),*])?;
                    self.send(Method::$method, &path, given!($(request as $request)?)).await
                }
            )*
        }
    };
}

operations!(client);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReadRequest;
    use crate::operations::paths;

    #[test]
    fn a_query_repeats_what_is_many() {
        let client = HttpClient::new("http://127.0.0.1:7373/", ClientLimits::default()).unwrap();
        let request = ReadRequest {
            categories: vec!["a,b".into(), "c".into()],
            limit: 5_u32.try_into().ok(),
            ..ReadRequest::default()
        };
        let url = client.url(paths::read, Some(&request)).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:7373/v1/events?after=0&categories=a%2Cb&categories=c&limit=5");
        let read: ReadRequest = serde_html_form::from_str(url.query().unwrap()).unwrap();
        assert_eq!(read, request);
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let error = HttpClient::new("127.0.0.1:7373", ClientLimits::default()).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:7373"), "{error}");
    }

    #[test]
    fn an_address_with_a_secret_or_a_query_is_refused_and_not_shown() {
        for url in [
            "http://me:s3cret@host",
            "http://s3cret@host:7373/",
            "http://:s3cret@host",
            "http://me:s3cret@host:99999",
            "http://me:s3/cret@host",
            "http://me:s3?cret@host",
            "https://me:s3cret@host",
            "me:s3cret@host",
            "http://host/?key=s3cret",
            "http://host/#s3cret",
            "http://host:x/?s3cret",
            "http://@host",
        ] {
            let error = HttpClient::new(url, ClientLimits::default()).unwrap_err();
            let text = serde_json::to_string(error.problem()).unwrap();
            assert!(!text.contains("s3") && !text.contains("cret") && text.contains("host"), "{url}: {text}");
        }
        for (url, why) in [
            ("http://me:s3cret@host", "a user or a password"),
            ("http://host/?y", "a query"),
            ("http://host/?", "a query"),
            ("http://host/#y", "a fragment"),
        ] {
            let error = HttpClient::new(url, ClientLimits::default()).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
        for url in ["http://host", "http://host:7373/", "http://host/proxied/here"] {
            HttpClient::new(url, ClientLimits::default()).unwrap();
            assert_eq!(without_secrets(url), url);
        }
    }

    #[test]
    fn an_answer_in_another_form_keeps_its_class() {
        let unavailable = declined("GET http://n/", 502, b"<html>bad gateway</html>");
        assert!(unavailable.is_transient() && unavailable.problem().found.as_ref().unwrap().contains("bad gateway"));
        assert!(matches!(declined("GET http://n/", 404, b""), ApiError::Invalid(_)));
        let body = serde_json::to_vec(&Problem::new("no_such_version", "there is no such version")).unwrap();
        assert!(matches!(declined("GET http://n/", 404, &body), ApiError::NotFound(_)));
    }
}
