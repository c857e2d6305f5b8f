//! The edge of a node: who is answered, through which proxies, and what callers may cost.

mod connections;
mod hangs;
mod hosts;
mod keys;
mod letters;
mod proxies;
mod reads;

use std::sync::Arc;

use axum::Router;
use dacapo_api::fake::FakeApi;
use dacapo_server::{Access, Bounds, bind, serve_within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server in this process.
struct Served {
    fake: Arc<FakeApi>,
    address: String,
}

impl Served {
    /// Serves what `router` makes of an API in memory.
    async fn start(bounds: Bounds, router: impl FnOnce(Arc<FakeApi>) -> Router) -> Self {
        let fake = Arc::new(FakeApi::default());
        let listener = bind("127.0.0.1:0".parse().unwrap(), Access::Loopback).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(serve_within(listener, router(Arc::clone(&fake)), bounds, std::future::pending()));
        Self { fake, address }
    }

    /// A connection on which `text` was sent.
    async fn sends(&self, text: &str) -> TcpStream {
        sends(&self.address, text).await
    }

    /// The answer to a request that is sent as it stands, on a connection that ends with it.
    async fn answers(&self, request: &str) -> Answer {
        answer(self.sends(request).await).await
    }
}

async fn sends(address: &str, text: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

/// What came on a connection until its end.
async fn answer(mut connection: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // One that is reset has ended as well.
    let _ = connection.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, text }
}

/// An answer; its status is 0 when there is none.
#[derive(Debug)]
struct Answer {
    status: u16,
    text: String,
}

/// A request of HTTP/1.1 whose connection ends with the answer.
fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}
