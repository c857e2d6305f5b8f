//! Who may ask, while there is no authentication.
//!
//! A page in a browser can send requests to this machine. What it cannot do is choose the headers by
//! which it is told apart: a page of another site sends its `Origin` (CSRF), and a page whose own name
//! was pointed at this machine sends that name as `Host` (DNS rebinding).

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use dacapo_api::{ApiError, Problem};
use http::uri::Authority;
use http::{HeaderMap, header};

use crate::extract::Declined;

/// From where a server may be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// From this machine, under one of its loopback names.
    #[default]
    Loopback,
    /// From anywhere. Whoever can reach the port can do everything.
    Remote,
}

/// `router`, closed to requests that come from web pages of other sites and, with [`Access::Loopback`],
/// to those that do not name this machine as their host.
pub fn guard(router: Router, access: Access) -> Router {
    router.layer(middleware::from_fn(move |request: Request, next: Next| check(access, request, next)))
}

async fn check(access: Access, request: Request, next: Next) -> Response {
    match allowed(access, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => Declined(error).into_response(),
    }
}

fn allowed(access: Access, headers: &HeaderMap) -> Result<(), ApiError> {
    let forbidden = |message: String, help: &str| Err(Problem::new("forbidden", message).help(help).invalid());
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = text(header::HOST).unwrap_or_default();
    if access == Access::Loopback && !is_loopback_name(&host) {
        let help = "ask for 127.0.0.1, [::1] or localhost; to be reached under other names, serve with --allow-remote";
        return forbidden(format!("this server is reached from its own machine only, not as {host:?}"), help);
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    if origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) != Some(host.as_str()) {
        let help = "web pages of other sites may not use this API";
        return forbidden(format!("the request comes from a page of {origin:?}, the server is {host:?}"), help);
    }
    Ok(())
}

/// Whether the value of a `Host` header names this machine's loopback.
fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn loopback_names_are_let_in_and_others_are_not() {
        for host in ["127.0.0.1:7373", "127.0.0.1", "localhost:80", "LOCALHOST", "[::1]:7373", "127.8.9.1"] {
            assert!(allowed(Access::Loopback, &headers(host, None)).is_ok(), "{host}");
        }
        for host in ["evil.example:7373", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", ""] {
            let error = allowed(Access::Loopback, &headers(host, None)).unwrap_err();
            assert_eq!(error.http_status(), 403, "{host}");
        }
        assert!(allowed(Access::Loopback, &HeaderMap::new()).is_err());
        assert!(allowed(Access::Remote, &headers("node.internal", None)).is_ok());
    }

    #[test]
    fn pages_of_other_sites_are_not_let_in() {
        let own = headers("127.0.0.1:7373", Some("http://127.0.0.1:7373"));
        assert!(allowed(Access::Loopback, &own).is_ok());
        for origin in ["http://evil.example", "http://127.0.0.1:8080", "null", "https://127.0.0.1:7373.evil.example"] {
            for access in [Access::Loopback, Access::Remote] {
                let error = allowed(access, &headers("127.0.0.1:7373", Some(origin))).unwrap_err();
                assert_eq!(error.http_status(), 403, "{origin}");
            }
        }
    }
}
