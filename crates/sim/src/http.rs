//! HTTP over the simulated network.

use std::io;
use std::net::SocketAddr;

use axum::serve::Listener;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use turmoil::net::{TcpListener, TcpStream};

/// The port of every node.
pub const PORT: u16 = 80;

/// A listener of the simulated network, for axum.
pub struct Listening(pub TcpListener);

impl Listener for Listening {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Ok(accepted) = self.0.accept().await {
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The answer: the status, and the body as JSON.
pub struct Response {
    pub status: u16,
    pub body: Value,
}

impl Response {
    pub fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// Returns true if the node says that it is not to be: trying again changes nothing.
    pub fn is_refused(&self) -> bool {
        (400..500).contains(&self.status)
    }

    pub fn number(&self, field: &str) -> u64 {
        self.body[field].as_u64().unwrap_or_default()
    }

    /// Returns the reason why not, in short.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("no code")
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// A text when the host cannot be reached or goes away before it has answered.
pub async fn call(host: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Response, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect((host, PORT)).await.map_err(|error| text(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    // It ends with the connection, and anyone who waits for the answer is told.
    let connection = tokio::spawn(async move { drop(connection.await) });
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = request.body(Full::new(body)).map_err(|error| text(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| text(&error))?.to_bytes();
        Ok(Response { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
    };
    let answered = answered.await;
    connection.abort();
    answered
}
