//! Nodes that serve the API, and what is done with one projection through them.

use std::sync::Arc;
use std::time::Duration;

use dacapo::{ExpectedRevision, Node, NodeBuilder, Position, VersionCode};
use dacapo_api::{
    Api, ApiError, ClientLimits, HistoryEntry, HttpClient, PhasesRequest, Status, Verification, VerificationRequest,
    VersionStatus,
};
use dacapo_postgres::Options;
use dacapo_server::{Access, Hosts, NodeApi, bind, router, serve};
use tokio::time::Instant;

use crate::code::{Happened, Total};

/// The longest that a test waits for something that must happen.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long to rest between two looks at what is waited for. All operations are looked at together, and each look asks for
/// the status of all.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked that something stays as it is.
const STAYS: usize = 3;

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} has not happened within {} s", WAIT_MAX.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends a request until a node takes it: one that cannot tell at the moment says so.
pub async fn taken<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, ApiError>) -> T {
    until(&format!("the answer to {what}"), async || match ask().await {
        Ok(answer) => Some(answer),
        Err(error) if error.is_transient() => None,
        Err(error) => panic!("{what}: {error:?}"),
    })
    .await
}

/// A node in this process, and a client of it.
pub struct Served {
    pub node: Node,
    pub url: String,
    pub api: HttpClient,
}

impl Served {
    pub async fn start(database: &str, name: &str, code: Vec<VersionCode>) -> Self {
        let seed = name.bytes().map(u64::from).sum();
        let store = dacapo_postgres::connect(database, Options { connections_max: 8, seed, ..Options::default() });
        let builder = Node::builder().store(store.await.unwrap()).name(name);
        let node = code.into_iter().fold(builder, NodeBuilder::projection).start().await.unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap(), Access::Loopback).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = router(Arc::new(NodeApi::new(node.clone(), name)), &Hosts::default());
        tokio::spawn(serve(listener, app, std::future::pending()));
        Self { node, api: client(&url), url }
    }

    /// What this node says of a projection.
    pub fn projection(&self, name: &'static str) -> Seen<'_> {
        Seen { name, at: self }
    }
}

pub fn client(url: &str) -> HttpClient {
    HttpClient::new(url, ClientLimits::default()).unwrap()
}

/// A projection, as a node that carries it sees it.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub name: &'static str,
    at: &'a Served,
}

impl Seen<'_> {
    /// Waits until the projection is like that.
    pub async fn until<T>(&self, what: &str, mut is: impl FnMut(&dacapo_api::ProjectionStatus) -> Option<T>) -> T {
        until(&format!("{}: {what}", self.name), async || {
            let status: Status = self.at.api.status().await.ok()?;
            is(status.projections.iter().find(|projection| projection.name == self.name)?)
        })
        .await
    }

    pub async fn until_version<T>(
        &self,
        version: &str,
        what: &str,
        mut is: impl FnMut(&VersionStatus) -> Option<T>,
    ) -> T {
        let what = format!("{version} {what}");
        self.until(&what, |seen| is(seen.versions.iter().find(|found| found.version == version)?)).await
    }

    pub async fn serves(&self, version: &str) {
        self.until(&format!("{version} serves"), |seen| (seen.serving.as_deref() == Some(version)).then_some(())).await;
    }

    pub async fn ready(&self, version: &str) {
        let is_ready = |found: &VersionStatus| (found.stage.as_deref() == Some("Ready")).then_some(());
        self.until_version(version, "is ready", is_ready).await;
    }

    pub async fn gone(&self, version: &str) {
        let is_gone = |seen: &dacapo_api::ProjectionStatus| {
            seen.versions.iter().all(|found| found.version != version).then_some(())
        };
        self.until(&format!("{version} is gone"), is_gone).await;
    }

    /// Adds to one of its streams.
    pub async fn add(&self, amount: i64) -> Position {
        let stream = format!("{}-1", self.name);
        self.at
            .node
            .append(stream.as_str(), ExpectedRevision::Any, [Happened::Added { amount }])
            .await
            .unwrap()
            .position
    }

    /// The sum of that stream in the version that serves, once that covers everything.
    pub async fn sum(&self) -> i64 {
        let head = self.at.node.head();
        until(&format!("a sum of {}", self.name), async || {
            let mut reading = self.at.node.read(self.name, head).await.ok()?;
            let total = reading.view.get::<Total>(format!("{}-1", self.name).as_str()).await.unwrap();
            Some(total.map_or(0, |total| total.sum))
        })
        .await
    }

    /// Waits until the sum of that stream is so.
    pub async fn until_sum(&self, wanted: i64) {
        until(&format!("{}: the sum is {wanted}", self.name), async || (self.sum().await == wanted).then_some(()))
            .await;
    }

    /// What happened to a version.
    async fn history(&self, version: &str) -> Vec<HistoryEntry> {
        let request = PhasesRequest { projection: Some(self.name.to_owned()), ..PhasesRequest::default() };
        let history = taken("phases", async || self.at.api.phases(request.clone()).await).await.history;
        history.into_iter().filter(|entry| entry.version == version).collect()
    }

    /// Waits until something happened to a version, and returns it in words.
    pub async fn happened(&self, version: &str, event: &str) -> String {
        until(&format!("{}: {event} of {version}", self.name), async || {
            self.history(version).await.into_iter().find(|entry| entry.event == event).map(|entry| entry.text)
        })
        .await
    }

    /// Waits for a verdict that counts and is as wanted.
    pub async fn verified(&self, version: &str, is_wanted: impl Fn(&Verification) -> bool) -> Verification {
        let request = VerificationRequest { version: Some(version.to_owned()), wait_ms: Some(1_000) };
        until(&format!("{}: {version} is verified", self.name), async || {
            let found = self.at.api.verification(self.name, request.clone()).await.ok()?;
            (found.verdict.is_some() && !found.again && is_wanted(&found)).then_some(found)
        })
        .await
    }

    /// Waits until `version` applies nothing any more, though another projection does.
    pub async fn stands_still(&self, version: &str, other: &Seen<'_>) {
        let covers = async || {
            let appended = self.add(0).await.get();
            other.until_version("v1.1", "covers it", |found| found.covers.filter(|covers| *covers >= appended)).await;
            let covers = self.until_version(version, "is there", |found| found.covers).await;
            (covers, appended)
        };
        until(&format!("{}: {version} stands still", self.name), async || {
            let (at, appended) = covers().await;
            for _ in 0..STAYS {
                if at >= appended || covers().await.0 != at {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
}
