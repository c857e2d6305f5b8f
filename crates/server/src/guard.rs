//! The guard of the operations while there is no authentication.
//!
//! A page in a browser can send requests to this machine. But it cannot choose the headers by which it is recognised:
//! a page of another site sends its `Origin` (CSRF), and a page whose own name was pointed at this machine sends that
//! name as `Host` (DNS rebinding). An address cannot be pointed anywhere, and neither can `localhost`, so these are
//! safe. Every other name must be one that the operator gave.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use dacapo_api::{ApiError, Problem};
use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::extract::Declined;

/// The places from which a server may be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// From this machine.
    #[default]
    Loopback,
    /// From anywhere. Everyone who can reach the port can do everything.
    Remote,
}

/// The host names for which the operations answer, beside addresses and `localhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(Named);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Those(Arc<[String]>),
    Any,
}

impl Default for Hosts {
    /// Addresses and `localhost` only.
    fn default() -> Self {
        Self(Named::Those(Arc::default()))
    }
}

impl Hosts {
    /// Returns these names too, such as the one by which a proxy or other machines reach the node. They have no port:
    /// every port is accepted.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if a name is not the name of a host.
    pub fn named(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, ApiError> {
        let names = names.into_iter().map(|name| match host_of(name.as_ref()) {
            Some((host, false)) => Ok(host),
            _ => {
                let message = format!("{:?} is not the name of a host", name.as_ref());
                Err(Problem::new("bad_host", message).help("give it without scheme, port and path").invalid())
            }
        });
        Ok(Self(Named::Those(names.collect::<Result<_, _>>()?)))
    }

    /// Returns a value that accepts every host, for an application that guards the operations itself.
    pub fn any() -> Self {
        Self(Named::Any)
    }

    fn allows(&self, target: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let Named::Those(names) = &self.0 else { return Ok(()) };
        let forbidden = |message: String, help: &str| Err(Problem::new("forbidden", message).help(help).invalid());
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let named = headers.get_all(header::HOST).iter().count();
        if named != 1 {
            let found = if named == 0 { "no host".to_owned() } else { format!("{named} hosts") };
            return forbidden(format!("the request names {found}"), "send the header Host once");
        }
        let host = text(header::HOST).unwrap_or_default();
        if !host_of(&host).is_some_and(|(name, _)| is_safe(&name) || names.contains(&name)) {
            let help = "use an IP address or localhost, or let the operator give this name to the node with --host";
            return forbidden(format!("this node does not serve its operations under the name {host:?}"), help);
        }
        // A proxy may check the one and route by the other.
        if let Some(asked) = target.authority().filter(|asked| !asked.as_str().eq_ignore_ascii_case(&host)) {
            let help = "name the same host in the target of the request and in the header Host";
            return forbidden(format!("the request is for {:?} but names the host {host:?}", asked.as_str()), help);
        }
        let origins = headers.get_all(header::ORIGIN).iter().count();
        if origins > 1 {
            return forbidden(format!("the request names {origins} origins"), "send the header Origin once at most");
        }
        let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
        if origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) != Some(host.as_str()) {
            let help = "web pages of other sites may not use this API; a proxy must pass on the header Host";
            return forbidden(format!("the request comes from a page of {origin:?}, the server is {host:?}"), help);
        }
        Ok(())
    }
}

/// Returns `router`, closed to requests that come from web pages of other sites, and to those that name a host which
/// is neither an address nor `localhost` nor among `hosts`.
///
/// The operations of [`router`](crate::router()) have this guard already. An application's own routes have it only if
/// the application adds it, since pages of other sites may be meant to use them.
pub fn guard(router: Router, hosts: &Hosts) -> Router {
    let hosts = hosts.clone();
    router.layer(middleware::from_fn(move |request: Request, next: Next| check(hosts.clone(), request, next)))
}

async fn check(hosts: Hosts, request: Request, next: Next) -> Response {
    match hosts.allows(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => Declined(error).into_response(),
    }
}

/// Returns the host in the value of a `Host` header, in one spelling, and whether a port follows it.
fn host_of(text: &str) -> Option<(String, bool)> {
    let authority = text.parse::<Authority>().ok()?;
    let name = authority.host();
    // A server should ignore the text before an @, and no client sends it here.
    let is_plain = !text.contains('@') && !name.is_empty();
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    is_plain.then(|| (name, text.len() > authority.host().len()))
}

/// Returns true if nobody can point this host at another machine.
fn is_safe(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok()
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

    fn status(hosts: &Hosts, headers: &HeaderMap) -> u16 {
        hosts.allows(&Uri::from_static("/v1/status"), headers).map_or_else(|error| error.http_status(), |()| 200)
    }

    #[test]
    fn addresses_and_localhost_are_let_in_and_other_names_are_not() {
        let hosts = Hosts::default();
        for host in ["127.0.0.1:7373", "127.0.0.1", "localhost:80", "LOCALHOST", "[::1]:7373", "10.0.0.7", "localhost."]
        {
            assert_eq!(status(&hosts, &headers(host, None)), 200, "{host}");
        }
        let others =
            ["evil.example:7373", "127.0.0.1.evil.example", "localhost.evil.example", "", "a@127.0.0.1", "2130706433"];
        for host in others {
            assert_eq!(status(&hosts, &headers(host, None)), 403, "{host}");
        }
        assert_eq!(status(&hosts, &HeaderMap::new()), 403);
        let mut two = headers("127.0.0.1", None);
        two.append(header::HOST, "evil.example".parse().unwrap());
        assert_eq!(status(&hosts, &two), 403);
        let told = |headers| hosts.allows(&Uri::from_static("/"), headers).unwrap_err().to_string();
        assert_eq!(told(&two), "the request names 2 hosts");
        assert_eq!(told(&HeaderMap::new()), "the request names no host");
    }

    #[test]
    fn names_that_were_given_are_let_in() {
        let hosts = Hosts::named(["Node.internal", "bank.example."]).unwrap();
        for host in ["node.internal:7373", "NODE.internal", "bank.example", "127.0.0.1"] {
            assert_eq!(status(&hosts, &headers(host, None)), 200, "{host}");
        }
        assert_eq!(status(&hosts, &headers("evil.node.internal", None)), 403);
        assert_eq!(status(&Hosts::any(), &headers("evil.example", Some("http://evil.example"))), 200);
        for wrong in ["node.internal:7373", "http://node.internal", "node.internal/", "", "a@node"] {
            assert_eq!(Hosts::named([wrong]).unwrap_err().problem().code, "bad_host", "{wrong}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_not_let_in() {
        let own = headers("127.0.0.1:7373", Some("http://127.0.0.1:7373"));
        assert_eq!(status(&Hosts::default(), &own), 200);
        let hosts = Hosts::named(["evil.example"]).unwrap();
        for origin in ["http://evil.example", "http://127.0.0.1:8080", "null", "https://127.0.0.1:7373.evil.example"] {
            assert_eq!(status(&hosts, &headers("127.0.0.1:7373", Some(origin))), 403, "{origin}");
        }
    }

    #[test]
    fn a_second_origin_is_not_let_in() {
        for other in ["http://evil.example", "http://127.0.0.1:7373"] {
            let mut two = headers("127.0.0.1:7373", Some("http://127.0.0.1:7373"));
            two.append(header::ORIGIN, other.parse().unwrap());
            assert_eq!(status(&Hosts::default(), &two), 403, "{other}");
        }
    }

    #[test]
    fn a_target_that_names_another_host_is_not_let_in() {
        let hosts = Hosts::named(["bank.example"]).unwrap();
        let named = headers("bank.example:7373", None);
        for (target, is_let_in) in [
            ("http://bank.example:7373/v1/status", true),
            ("http://BANK.example:7373/v1/status", true),
            ("http://evil.example/v1/status", false),
            ("http://127.0.0.1:7373/v1/status", false),
            ("http://a@bank.example:7373/v1/status", false),
        ] {
            assert_eq!(hosts.allows(&Uri::from_static(target), &named).is_ok(), is_let_in, "{target}");
        }
    }
}
