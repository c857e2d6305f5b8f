//! Who is answered: probes anyone, operations those who ask for a host that was named, routes of one's own as they say.

use axum::Router;
use axum::routing::{get as route, post};
use dacapo_server::{Bounds, Hosts, operations, probes, router};

use super::{Served, get};

#[tokio::test]
async fn probes_answer_anyone() {
    let served = Served::start(Bounds::default(), |api| router(api, &Hosts::default())).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(served.answers(&format!("GET {path} HTTP/1.0\r\n\r\n")).await.status, 200, "{path}");
        assert_eq!(served.answers(&get(path, "evil.example")).await.status, 200, "{path}");
        let request = get(path, "127.0.0.1").replace("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n");
        assert_eq!(served.answers(&request).await.status, 200, "{path}");
    }
    assert_eq!(served.answers("GET /v1/status HTTP/1.0\r\n\r\n").await.status, 403);
}

#[tokio::test]
async fn an_operation_is_asked_for_by_an_address_or_a_name_that_was_given() {
    let hosts = Hosts::named(["bank.example"]).unwrap();
    let served = Served::start(Bounds::default(), |api| router(api, &hosts)).await;
    for (host, status) in
        [("bank.example", 200), ("10.1.2.3:80", 200), ("localhost", 200), ("rebound.example", 403), ("", 403)]
    {
        let answer = served.answers(&get("/v1/status", host)).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text);
    }
}

/// On the wire: what a server makes of a target with a host in it is the library's to say.
#[tokio::test]
async fn who_names_two_hosts_or_two_origins_is_answered_under_none() {
    let served = Served::start(Bounds::default(), |api| router(api, &Hosts::default())).await;
    let named = get("/v1/status", "127.0.0.1");
    let own = "\r\nOrigin: http://127.0.0.1\r\n\r\n";
    assert_eq!(served.answers(&named.replace("\r\n\r\n", own)).await.status, 200);
    let two = "\r\nOrigin: http://127.0.0.1\r\nOrigin: http://evil.example\r\n\r\n";
    assert_eq!(served.answers(&named.replace("\r\n\r\n", two)).await.status, 403);
    assert_eq!(served.answers(&named.replace("/v1/status", "http://127.0.0.1/v1/status")).await.status, 200);
    assert_eq!(served.answers(&named.replace("/v1/status", "http://evil.example/v1/status")).await.status, 403);
}

#[tokio::test]
async fn routes_of_ones_own_are_not_guarded_and_know_paths_of_their_own() {
    let own = |api: std::sync::Arc<dacapo_api::fake::FakeApi>| {
        let own = Router::new().route("/accounts", post(|| async { "opened" })).fallback(|| async { "not here" });
        let beside = Router::new().route("/ask", route(|| async { "answer" }));
        own.merge(probes(api.clone())).merge(operations(api, &Hosts::default())).merge(beside)
    };
    let served = Served::start(Bounds::default(), own).await;
    let foreign = "Host: shop.example\r\nOrigin: https://shop.example:8443\r\nConnection: close\r\n";
    let answer = served.answers(&format!("POST /accounts HTTP/1.1\r\n{foreign}Content-Length: 0\r\n\r\n")).await;
    assert!(answer.status == 200 && answer.text.ends_with("opened"), "{answer:?}");
    let answer = served.answers("GET /ask HTTP/1.0\r\n\r\n").await;
    assert!(answer.status == 200 && answer.text.ends_with("answer"), "{answer:?}");
    let answer = served.answers(&format!("GET /v1/status HTTP/1.1\r\n{foreign}\r\n")).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let answer = served.answers("GET /elsewhere HTTP/1.0\r\n\r\n").await;
    assert!(answer.text.ends_with("not here"), "{answer:?}");
}
