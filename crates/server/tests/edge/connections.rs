//! What callers may cost: connections, headers, bodies, and answers that nobody takes.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::get as route;
use dacapo_server::{APPEND_BODY_BYTES_MAX, Bounds, Hosts, router};
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::{Served, answer, get};

/// The largest head that is answered.
const HEAD_BYTES_MAX: usize = 64 << 10;

fn bounds(connections: usize) -> Bounds {
    Bounds { connections, reserve: 1, ..Bounds::default() }
}

#[tokio::test]
async fn connections_that_ask_nothing_make_room_for_one_that_asks() {
    let served = Served::start(bounds(4), |api| router(api, &Hosts::default())).await;
    let mut silent = Vec::new();
    for number in 0..60 {
        let text = if number % 2 == 0 { "" } else { "GET /v1/status HTTP/1.1\r\nHos" };
        silent.push(served.sends(text).await);
        let answer = served.answers(&get("/v1/status", "127.0.0.1")).await;
        assert_eq!(answer.status, 200, "{number}: {answer:?}");
    }
    // Each that had to leave was closed.
    for connection in silent.drain(..50) {
        assert_eq!(answer(connection).await.status, 0);
    }
}

#[tokio::test]
async fn probes_are_answered_while_every_connection_has_a_request_under_way() {
    let bounds = Bounds { closed_time: Duration::ZERO, ..bounds(3) };
    let served = Served::start(bounds, |api| router(api, &Hosts::default())).await;
    let mut waiting = Vec::new();
    for number in 1..=3 {
        waiting.push(served.sends(&get("/v1/events?wait_ms=60000", "127.0.0.1")).await);
        while served.fake.readers() < number {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(served.answers(&get("/livez", "127.0.0.1")).await.status, 200);
    assert_eq!(served.answers(&get("/readyz", "127.0.0.1")).await.status, 200);
    let busy = served.answers(&get("/v1/status", "127.0.0.1")).await;
    assert!(busy.status == 503 && busy.text.contains(r#""code":"busy""#), "{busy:?}");
    // None of those that wait was cut off.
    assert_eq!(served.fake.readers(), 3);
    drop(waiting.pop());
    while served.fake.readers() > 2 {
        tokio::task::yield_now().await;
    }
    let mut answered = served.answers(&get("/v1/status", "127.0.0.1")).await;
    while answered.status == 503 {
        answered = served.answers(&get("/v1/status", "127.0.0.1")).await;
    }
    assert_eq!(answered.status, 200);
}

#[tokio::test]
async fn headers_that_do_not_come_end_the_connection() {
    let header_time = Duration::from_millis(50);
    let bounds = Bounds { header_time, ..Bounds::default() };
    let served = Served::start(bounds, |api| router(api, &Hosts::default())).await;
    for text in ["", "GET /livez HT", "GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        // These come to an end, which they would not by themselves.
        assert_ne!(answer(served.sends(text).await).await.status, 200, "{text}");
    }
    // One that rests after an answer, too.
    let rested = answer(served.sends("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await).await;
    assert_eq!(rested.status, 200, "{rested:?}");
}

/// Tells when it is dropped.
struct Gone(mpsc::UnboundedSender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        // Nobody listens once the test has ended.
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let (tell, mut given_up) = mpsc::unbounded_channel();
    let endless = move || {
        let gone = Gone(tell.clone());
        async move {
            Body::from_stream(stream::repeat_with(move || {
                let Gone(_) = &gone;
                Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1 << 16]))
            }))
        }
    };
    let bounds = Bounds { write_time: Duration::from_millis(50), ..Bounds::default() };
    let served = Served::start(bounds, |_| axum::Router::new().route("/endless", route(endless))).await;
    let mut connection = served.sends(&get("/endless", "a")).await;
    let mut first = [0; 12];
    connection.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // The caller takes no more, and keeps the connection.
    given_up.recv().await.unwrap();
}

/// A route that says when it was asked, and answers when it is told to.
fn waits() -> (axum::Router, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let (tell, asked) = mpsc::unbounded_channel();
    let wait = move || {
        let tell = tell.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            tell.send(answer).unwrap();
            answered.await.unwrap();
            "done"
        }
    };
    (axum::Router::new().route("/waits", route(wait)), asked)
}

/// As `nc -N` and some checkers do.
#[tokio::test]
async fn a_caller_that_closes_its_side_after_its_request_gets_its_answer() {
    let (routes, mut asked) = waits();
    let served = Served::start(Bounds::default(), |api| router(api, &Hosts::default()).merge(routes)).await;
    for request in ["GET /waits HTTP/1.0\r\n\r\n", "GET /waits HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut connection = served.sends(request).await;
        let answers = asked.recv().await.unwrap();
        connection.shutdown().await.unwrap();
        // The server has seen the end of what is sent when it answers others.
        for _ in 0..10 {
            assert_eq!(served.answers(&get("/livez", "127.0.0.1")).await.status, 200);
        }
        answers.send(()).expect("the request is still under way");
        let answer = answer(connection).await;
        assert!(answer.status == 200 && answer.text.ends_with("done"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_request_whose_caller_has_closed_its_side_does_not_wait_for_ever() {
    let (routes, mut asked) = waits();
    let bounds = Bounds { closed_time: Duration::ZERO, ..Bounds::default() };
    let served = Served::start(bounds, |_| routes).await;
    let request = get("/waits", "a");
    // One that still listens is told so.
    let mut listens = served.sends(&request).await;
    let mut answers = asked.recv().await.unwrap();
    listens.shutdown().await.unwrap();
    answers.closed().await;
    let told = answer(listens).await;
    assert!(told.status == 503 && told.text.contains("keep the connection open"), "{told:?}");
    // One that is gone costs nothing any more.
    let gone = served.sends(&request).await;
    let mut answers = asked.recv().await.unwrap();
    drop(gone);
    answers.closed().await;
}

/// A body that ends before its length is not waited for.
#[tokio::test]
async fn a_request_that_ends_in_the_middle_is_no_request() {
    let served = Served::start(Bounds::default(), |api| router(api, &Hosts::default())).await;
    let head = "POST /v1/projections/b/flip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n";
    let mut connection = served.sends(&format!("{head}Content-Length: 100\r\n\r\n{{")).await;
    connection.shutdown().await.unwrap();
    let answer = answer(connection).await;
    assert!(matches!(answer.status, 0 | 400), "{answer:?}");
}

/// The bound is the same however the bytes arrive.
#[tokio::test]
async fn a_head_is_answered_up_to_its_bound_and_not_beyond() {
    let served = Served::start(Bounds::default(), |api| router(api, &Hosts::default())).await;
    let head = |bytes: usize, path: &str| {
        let text = |pad: usize| {
            let pad = "x".repeat(pad);
            format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nx-pad: {pad}\r\n\r\n")
        };
        let request = text(bytes - text(0).len());
        assert_eq!(request.len(), bytes);
        request
    };
    for path in ["/v1/status", "/livez"] {
        assert_eq!(served.answers(&head(HEAD_BYTES_MAX, path)).await.status, 200);
        for bytes in [HEAD_BYTES_MAX + 1, HEAD_BYTES_MAX + 2_000, 2 * HEAD_BYTES_MAX - 5_000] {
            let answer = served.answers(&head(bytes, path)).await;
            assert_eq!(answer.status, 431, "{bytes}: {answer:?}");
        }
    }
    let answer = served.answers(&head(HEAD_BYTES_MAX + 1, "/v1/status")).await;
    assert!(answer.text.contains("more than 65536 bytes"), "{answer:?}");
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_it_is_sent() {
    let served = Served::start(Bounds::default(), |api| router(api, &Hosts::default())).await;
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    for (path, max) in [("/v1/events", APPEND_BODY_BYTES_MAX), ("/v1/projections/b/flip", 64 << 10)] {
        let refused = served.answers(&head(path, max + 1)).await;
        assert!(refused.status == 413 && refused.text.contains(r#""code":"too_large""#), "{refused:?}");
    }
    // One that does not say how long it is.
    let chunk = format!("{:x}\r\n{}\r\n", 70_000, " ".repeat(70_000));
    let request = format!(
        "POST /v1/projections/b/flip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    assert_eq!(served.answers(&request).await.status, 413);
}
