//! Requests without a version that are repeated under their idempotency keys, after the first has changed what a version
//! would be chosen from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::effects::{Acts, Effect, EffectTry};
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::{ExpectedRevision, HandlerError, Node, NodeBuilder, Options, Projection, Recorded, View};
use dacapo_api::{
    Api, ApiError, Asked, CleanUpRequest, PauseRequest, SetAsideRequest, SettleRequest, SettleResponse, VersionStatus,
};
use dacapo_model::ViewId;
use dacapo_postgres::testbed::Server;
use dacapo_server::NodeApi;
use serde::{Deserialize, Serialize};

use super::letters::Noted;

/// The longest that a test waits for something that must happen.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What follows from each event outside. Nobody takes it, so it always fails.
#[derive(Serialize, Deserialize)]
struct Unwanted;

impl Effect for Unwanted {
    const NAME: &'static str = "unwanted";
}

/// Refuses every event while it is told to.
struct Wary<const CODE: u32>(Arc<AtomicBool>);

impl<const CODE: u32> Acts<Unwanted> for Wary<CODE> {
    async fn act(&self, _: &Unwanted, _: &EffectTry) -> Result<(), HandlerError> {
        Err("nobody takes it".into())
    }
}

impl<const CODE: u32> Projection for Wary<CODE> {
    const NAME: &'static str = "wary";
    const VERSION: u32 = CODE;
    const TABLES: &'static [dacapo::Table] = &[];
    type Event = Noted;

    fn options(&self) -> Options {
        let retry = Retry { attempts: 1, first: Duration::from_millis(1), longest: Duration::from_millis(10) };
        let on_failure = OnFailure { serving: Policy::Halt, initializing: Policy::Halt };
        Options { retry, on_failure, ..Options::default() }
    }

    async fn apply(&self, _: &Recorded<'_, Noted>, view: &mut View) -> Result<(), HandlerError> {
        if self.0.load(Ordering::SeqCst) {
            return Err("it is wary".into());
        }
        Ok(view.emit(&Unwanted)?)
    }
}

/// A node with two versions: v2.1 serves, and v1.1 stands by.
struct Wariness {
    api: NodeApi,
    refuses: [Arc<AtomicBool>; 2],
}

impl Wariness {
    /// If it `owes`, v1.1 has an effect that fails.
    async fn start(builder: NodeBuilder, owes: bool) -> Self {
        let refuses: [Arc<AtomicBool>; 2] = Default::default();
        let first = Wary::<1>(refuses[0].clone()).acting::<Unwanted>();
        let node = builder.projection(first).start().await.unwrap();
        let started = Self { api: NodeApi::new(node.clone(), "node"), refuses };
        started.until("v1.1", |found| found.phase == "Serving").await;
        if owes {
            started.add().await;
            started.fails("v1.1").await;
        }
        node.add_projection(Wary::<2>(started.refuses[1].clone()).acting::<Unwanted>()).unwrap();
        started.until("v2.1", |found| found.phase == "Serving").await;
        started
    }

    async fn until(&self, version: &str, is: impl Fn(&VersionStatus) -> bool) {
        let waits = async {
            loop {
                let status = self.api.status().await.unwrap();
                let mut versions = status.projections.iter().flat_map(|found| &found.versions);
                if versions.any(|found| found.version == version && is(found)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, waits).await.expect("it becomes so");
    }

    /// Waits until an effect of this version fails.
    async fn fails(&self, version: &str) {
        self.until(version, |found| found.waiting_on.iter().any(|reason| reason.kind == "effect")).await;
    }

    /// Adds an event, and returns its position.
    async fn add(&self) -> u64 {
        let added = self.api.node().append("wary-1", ExpectedRevision::Any, [Noted::Noted {}]).await.unwrap();
        added.position.get()
    }

    /// Adds an event at which the version of this code halts, and returns its position.
    async fn halts(&self, code: usize) -> u64 {
        self.refuses[code - 1].store(true, Ordering::SeqCst);
        let position = self.add().await;
        self.until(&format!("v{code}.1"), |found| found.waiting_on.iter().any(|reason| reason.kind == "handler")).await;
        position
    }

    async fn set_aside(&self, request: &SetAsideRequest, code: usize) -> dacapo_api::SetAsideResponse {
        let answer = self.api.set_aside("wary", request.clone()).await.unwrap();
        self.until(&format!("v{code}.1"), |found| found.letters == 1).await;
        self.refuses[code - 1].store(false, Ordering::SeqCst);
        answer
    }
}

fn under(key: &str) -> Asked {
    Asked { idempotency_key: Some(key.to_owned()), ..Asked::default() }
}

fn order(version: Option<&str>, key: &str) -> PauseRequest {
    PauseRequest { version: version.map(str::to_owned), asked: under(key) }
}

fn all(effects: bool, key: &str) -> SettleRequest {
    SettleRequest { all: true, effects, asked: under(key), ..SettleRequest::default() }
}

/// What a repetition of a request about letters is answered.
fn again(first: &SettleResponse) -> SettleResponse {
    assert!(first.requested.is_some(), "{first:?}");
    SettleResponse { letters: None, ..first.clone() }
}

async fn each_request_means_the_version_of_the_first(builder: NodeBuilder) {
    let wary = Wariness::start(builder, false).await;
    let api = &wary.api;

    let paused = api.pause("wary", order(Some("v2.1"), "pause")).await.unwrap();
    assert_eq!((paused.version.as_str(), paused.requested.is_some()), ("v2.1", true));
    assert_eq!(api.pause("wary", order(None, "pause")).await.unwrap(), paused, "and not v1.1, which is not paused");
    let resumed = api.resume("wary", order(None, "resume")).await.unwrap();
    assert_eq!((resumed.version.as_str(), resumed.requested.is_some()), ("v2.1", true));
    assert_eq!(api.resume("wary", order(None, "resume")).await.unwrap(), resumed, "although none is paused by now");
    for error in [
        api.resume("wary", order(None, "pause")).await.unwrap_err(),
        api.pause("wary", order(Some("v1.1"), "pause")).await.unwrap_err(),
        api.drop_letters("wary", all(false, "pause")).await.unwrap_err(),
    ] {
        assert_eq!((error.problem().code.as_str(), error.http_status()), ("key_reused", 422), "{error}");
    }

    let position = wary.halts(2).await;
    let request = SetAsideRequest { version: None, position, asked: under("set aside") };
    let aside = wary.set_aside(&request, 2).await;
    assert_eq!((aside.version.as_str(), aside.requested.is_some()), ("v2.1", true));
    assert_eq!(api.set_aside("wary", request).await.unwrap(), aside, "although nothing halts by now");

    let dropped = api.drop_letters("wary", all(false, "drop")).await.unwrap();
    assert_eq!((dropped.version.as_str(), dropped.letters), ("v2.1", Some(1)));
    wary.until("v2.1", |found| found.letters == 0).await;
    let position = wary.halts(1).await;
    wary.set_aside(&SetAsideRequest { position, ..SetAsideRequest::default() }, 1).await;
    assert_eq!(api.drop_letters("wary", all(false, "drop")).await.unwrap(), again(&dropped), "v1.1 has letters by now");
    wary.until("v1.1", |found| found.letters == 1).await;

    let retried = api.retry_letters("wary", all(false, "retry")).await.unwrap();
    assert_eq!((retried.version.as_str(), retried.letters), ("v1.1", Some(1)));
    wary.until("v1.1", |found| found.letters == 0).await;
    assert_eq!(api.retry_letters("wary", all(false, "retry")).await.unwrap(), again(&retried), "it has none by now");
    wary.fails("v2.1").await;
    let effects = api.drop_letters("wary", all(true, "effects")).await.unwrap();
    assert_eq!((effects.version.as_str(), effects.letters), ("v2.1", Some(1)));

    // The versions of the first requests are gone, or are the only ones.
    let asked = under("clean up");
    let cleaned = api.clean_up("wary", "v1.1", CleanUpRequest { asked: asked.clone() }).await.unwrap();
    assert!(cleaned.requested.is_some());
    assert_eq!(api.clean_up("wary", "v1.1", CleanUpRequest { asked }).await.unwrap(), cleaned);
    assert_eq!(api.retry_letters("wary", all(false, "retry")).await.unwrap(), again(&retried));
    assert_eq!(api.drop_letters("wary", all(true, "effects")).await.unwrap(), again(&effects));
    let paused = api.pause("wary", order(None, "pause the rest")).await.unwrap();
    assert_eq!(api.pause("wary", order(None, "pause the rest")).await.unwrap(), paused);
    let another: Result<_, ApiError> = api.pause("wary", order(None, "pause once more")).await;
    assert_eq!(another.unwrap().requested, None, "it is paused already");
    api.node().shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_version_is_repeated_under_its_key_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    each_request_means_the_version_of_the_first(Node::builder().data(directory.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_version_is_repeated_under_its_key_in_a_database() {
    let server = Server::shared();
    let url = server.database().await;
    let store = dacapo_postgres::connect(&url, dacapo_postgres::Options::default()).await.unwrap();
    each_request_means_the_version_of_the_first(Node::builder().store(store)).await;
}

/// A clean-up that is under way is no new request, under whichever key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_that_is_under_way_is_answered_without_a_position() {
    let wary = Wariness::start(Node::builder(), true).await;
    let clean_up = |asked| wary.api.clean_up("wary", "v1.1", CleanUpRequest { asked });
    let first = clean_up(under("first")).await.unwrap();
    assert!(first.requested.is_some());
    for asked in [Asked::default(), under("second"), under("second")] {
        assert_eq!(clean_up(asked).await.unwrap().requested, None);
    }
    assert_eq!(clean_up(under("first")).await.unwrap(), first);
    // It waits for what the version owes.
    let drop_effects = || wary.api.drop_letters("wary", all(true, "drop"));
    let dropped = drop_effects().await.unwrap();
    assert_eq!((dropped.version.as_str(), dropped.letters), ("v1.1", Some(1)));
    let gone =
        wary.api.node().version(ViewId { projection: "wary".parse().unwrap(), version: "v1.1".parse().unwrap() });
    gone.clean_up().under_key("first").await.unwrap().done().within(WAIT_MAX).await.unwrap();
    assert_eq!(drop_effects().await.unwrap(), again(&dropped));
    assert_eq!(clean_up(under("first")).await.unwrap(), first);
    wary.api.node().shutdown().await;
}
