//! Every call and every class of error through the real client, a loopback socket and the real router.

#[path = "round_trip/rights.rs"]
mod rights;
#[path = "round_trip/strict.rs"]
mod strict;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use dacapo_api::fake::{FakeApi, Fault, node_status};
use dacapo_api::{
    Api, ApiError, AppendRequest, Asked, CancelRequest, CleanUpRequest, ClientLimits, Expected, FlipRequest,
    FlipResponse, FlipStatus, HistoryEntry, HttpClient, Json, MemberStatus, Metadata, NewEvent, OnKnown, PartReport,
    PhasesRequest, Problem, ProjectionStatus, ReadRequest, RebuildRequest, ReplayRequest, RevisionDemand, ScrubResult,
    SegmentStatus, SetAsideRequest, SettleRequest, Stall, Status, StreamsRequest, SubscriberFailure, SubscriberStatus,
    TimeLeft, Verification, VerificationRequest, VerifyRequest, VersionStatus, WaitingOn,
};
use dacapo_server::{Access, Hosts, bind, router, serve};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Served {
    fake: Arc<FakeApi>,
    client: HttpClient,
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ApiError>>,
}

impl Served {
    async fn start() -> Self {
        Self::start_with(|api| router(api, &Hosts::default())).await
    }

    async fn start_with(app: impl FnOnce(Arc<FakeApi>) -> Router) -> Self {
        let fake = Arc::new(FakeApi::default());
        let listener = bind("127.0.0.1:0".parse().unwrap(), Access::Loopback).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { stopped.await.unwrap() };
        let serving = tokio::spawn(serve(listener, app(fake.clone()), shutdown));
        let client = HttpClient::new(&url, ClientLimits::default()).unwrap();
        Self { fake, client, url, stop, serving }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
    }

    async fn has_reader(&self) {
        while self.fake.readers() == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn http(&self) -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }
}

fn event(stream: &str, data: &str) -> NewEvent {
    NewEvent {
        stream: stream.to_owned(),
        id: None,
        event_type: "deposited".to_owned(),
        data: Json::parse(data).unwrap(),
        metadata: Metadata { actor: Some("ana".to_owned()), ..Metadata::default() },
        tags: vec!["branch:7".to_owned()],
    }
}

fn append(events: Vec<NewEvent>) -> AppendRequest {
    AppendRequest { events, expected: vec![], on_known: OnKnown::Recognise }
}

fn asked() -> Asked {
    Asked { actor: Some("ana".into()), reason: Some("new fees".into()), idempotency_key: Some("k-1".into()) }
}

fn full_status() -> Status {
    let waiting = |kind: &str, text: &str| {
        let text = format!(r#"{{"kind":"{kind}","text":"{text}","segment":2,"lag":48210}}"#);
        serde_json::from_str::<WaitingOn>(&text).unwrap()
    };
    let version = VersionStatus {
        version: "v2.1".into(),
        phase: "Initializing".into(),
        stage: Some("Replaying".into()),
        since: "2026-03-01T11:59:00Z".into(),
        reason: None,
        carried: true,
        segments: vec![SegmentStatus {
            segment: 2,
            position: 10,
            lag: 90,
            epoch: 3,
            claimed_by: Some("0badcafe".into()),
            held: false,
        }],
        covers: Some(10),
        lag: Some(90),
        rate: Some(212_000.5),
        lag_seconds: Some(12.5),
        arrivals: Some(3.0),
        time_left: Some(TimeLeft { seconds: 0.25, basis: "the last 10 s".into() }),
        no_time_left: Some("its pace is not known yet".into()),
        stall: Some(Stall {
            seconds: 7.0,
            text: "no progress for 7 s".into(),
            waiting_on: vec![waiting("store", "the store: full")],
        }),
        rollback_ready: false,
        rollback_not_ready: Some("it never served".into()),
        reached: Some(12),
        letters: 3,
        effects_aside: 2,
        age_seconds: Some(12.0),
        needs_somebody: Some(true),
        scrubbed: Some(ScrubResult {
            at: "2026-03-01T11:59:30Z".into(),
            position: 10,
            report: PartReport {
                part: "fold".into(),
                outcome: "passed".into(),
                why: None,
                looked_at: 7,
                wrong: BTreeMap::new(),
                wrong_text: vec![],
                findings: vec![],
                notes: vec![],
            },
        }),
        waiting_on: vec![waiting("segment", "segment 2 of v2.1 (lag 48,210)")],
    };
    let flip = FlipStatus {
        to: "v2.1".into(),
        from: Some("v1.1".into()),
        kind: "flip".into(),
        requested: 99,
        waiting_on: vec![waiting("quorum", "of a later release")],
    };
    let projection = ProjectionStatus {
        name: "balances".into(),
        serving: Some("v1.1".into()),
        flip: Some(flip),
        versions: vec![version],
    };
    let failure = SubscriberFailure { position: 88, error: "the client is gone".into() };
    let subscriber = SubscriberStatus {
        name: "push".into(),
        position: 90,
        lag: 10,
        failed: 2,
        last_failure: Some(failure),
        waiting_on: vec![],
    };
    let member = MemberStatus {
        id: "0badcafe".into(),
        name: "bank-1".into(),
        address: Some("http://10.0.0.7:7373".into()),
        ready: true,
        carries: vec!["balances v1".into(), "balances v2".into()],
    };
    Status { members: vec![member], projections: vec![projection], subscribers: vec![subscriber], ..node_status(100) }
}

#[tokio::test]
async fn status_round_trips() {
    let served = Served::start().await;
    served.fake.script().statuses.push_back(full_status());
    assert_eq!(served.client.status().await.unwrap(), full_status());
    served.stop().await;
}

#[tokio::test]
async fn events_are_appended_and_read_byte_for_byte() {
    let served = Served::start().await;
    let data = r#"{"amount" : 1.50, "note":"\u00e9", "amount":2}"#;
    let appended = served.client.append(append(vec![event("account-1", data), event("loan-1", "[]")])).await.unwrap();
    assert_eq!((appended.position, appended.revision, appended.written), (2, 1, 2));
    let read = served.client.read(ReadRequest::default()).await.unwrap();
    assert_eq!(read.events, served.fake.script().events);
    assert_eq!((read.events[0].data.as_str(), read.through, read.head), (data, 2, 2));
    let request = ReadRequest {
        after: 0,
        categories: vec!["account".into(), "a,b".into()],
        types: vec!["deposited".into(), "x&y=z".into()],
        limit: 1_u32.try_into().ok(),
        system: true,
        ..ReadRequest::default()
    };
    assert_eq!(served.client.read(request).await.unwrap().events.len(), 1);
    let request = ReadRequest { stream: Some("loan-1".into()), ..ReadRequest::default() };
    let read = served.client.read(request).await.unwrap();
    assert_eq!((read.events[0].position, read.through), (2, 1));
    served.stop().await;
}

#[tokio::test]
async fn a_reader_at_the_head_is_woken() {
    let served = Served::start().await;
    let client = served.client.clone();
    let reading =
        tokio::spawn(async move { client.read(ReadRequest { wait_ms: Some(20_000), ..Default::default() }).await });
    served.has_reader().await;
    served.client.append(append(vec![event("account-1", "{}")])).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap().events.len(), 1);
    served.stop().await;
}

#[tokio::test]
async fn streams_round_trip() {
    let served = Served::start().await;
    for stream in ["account-1", "account-2", "account-2", "loan-1"] {
        served.client.append(append(vec![event(stream, "{}")])).await.unwrap();
    }
    let request = StreamsRequest {
        category: Some("account".into()),
        after: Some("account-1".into()),
        limit: 5_u32.try_into().ok(),
    };
    let answer = served.client.streams(request).await.unwrap();
    assert_eq!((answer.streams.len(), answer.more), (1, false));
    let stream = &answer.streams[0];
    assert_eq!((stream.name.as_str(), stream.revision, stream.last), ("account-2", 2, 3));
    served.stop().await;
}

#[tokio::test]
async fn operations_round_trip_with_actor_reason_and_key() {
    let served = Served::start().await;
    served.fake.script().statuses.push_back(full_status());
    let (client, projection) = (&served.client, "balances");
    let rebuild = RebuildRequest { code: Some(3), from_copy: true, discard: true, asked: asked() };
    let rebuilt = client.rebuild(projection, rebuild).await.unwrap();
    assert_eq!((rebuilt.version.as_str(), rebuilt.requested), ("v3.1", Some(1)));
    let waiting = FlipResponse {
        projection: projection.into(),
        kind: "flip".into(),
        from: None,
        to: "v3.1".into(),
        requested: 8,
        flipped: false,
        position: None,
        covers: None,
        pause_ms: None,
        waiting_on: full_status().projections[0].versions[0].waiting_on.clone(),
    };
    served.fake.script().flips.push_back(waiting.clone());
    let request = FlipRequest { to: Some("v3.1".into()), wait_ms: Some(50), asked: asked() };
    assert_eq!(client.flip(projection, request.clone()).await.unwrap(), waiting);
    assert!(client.rollback(projection, FlipRequest { asked: asked(), ..request }).await.unwrap().flipped);
    let cleaned = client.clean_up(projection, "v1.1", CleanUpRequest { asked: asked() }).await.unwrap();
    assert_eq!((cleaned.projection.as_str(), cleaned.version.as_str()), (projection, "v1.1"));
    let from_event = Some("01919c4e-a730-7abc-8001-020304050607".to_owned());
    let request = ReplayRequest { from_event, wait_ms: Some(50), asked: asked(), ..ReplayRequest::default() };
    let replayed = client.replay(projection, request).await.unwrap();
    assert_eq!((replayed.version.as_str(), replayed.ended, replayed.position), ("v1.1", true, Some(2)));
    let (what, version) = (Some("clean_up".to_owned()), Some("v1.1".to_owned()));
    let cancelled = client.cancel(projection, CancelRequest { what, version, asked: asked() }).await.unwrap();
    assert_eq!((cancelled.what.as_str(), cancelled.version.as_str()), ("clean_up", "v1.1"));
    let request = SetAsideRequest { version: None, position: 17, asked: asked() };
    assert_eq!(client.set_aside(projection, request).await.unwrap().position, 17);
    let request = SettleRequest { all: true, effects: true, asked: asked(), ..SettleRequest::default() };
    client.drop_letters(projection, request).await.unwrap();
    let calls: Vec<_> = served.fake.script().asked.clone();
    assert_eq!(calls.len(), 8);
    assert_eq!(calls[7]["request"]["effects"], true);
    assert!(calls.iter().all(|call| call.to_string().contains(r#""actor":"ana""#)), "{calls:?}");
    assert!(calls.iter().all(|call| call.to_string().contains(r#""idempotency_key":"k-1""#)), "{calls:?}");
    served.stop().await;
}

#[tokio::test]
async fn verifications_round_trip() {
    let served = Served::start().await;
    let (client, projection) = (&served.client, "balances");
    let request = VerificationRequest { version: Some("v2.1".into()), wait_ms: Some(10) };
    let none = client.verification(projection, request.clone()).await.unwrap_err();
    assert!(matches!(&none, ApiError::Refused(problem) if problem.code == "no_target"), "{none}");
    let verification: Verification = serde_json::from_str(
        r#"{"projection":"balances","version":"v2.1","phase":"Initializing","verdict":"Waived","position":99,"again":true,
            "waived":{"by":"ana","why":"new fees"},
            "report":{"at":90,"against":"v1.1","required":["counts"],"summary":"rows: 1 row differs","parts":[
              {"part":"rows","outcome":"failed","looked_at":7,"wrong":{"differs":1},"wrong_text":["1 row differs"],
               "findings":[{"kind":"differs","place":"accounts","key":"a-1","old":"balance 5","new":"balance 6"}],
               "notes":["column accounts.owner is new"]}]}}"#,
    )
    .unwrap();
    served.fake.script().statuses.push_back(full_status());
    served.fake.script().verifications.push_back(verification.clone());
    assert_eq!(client.verification(projection, request).await.unwrap(), verification);

    let request = VerifyRequest { version: None, asked: asked() };
    assert_eq!(client.verify(projection, request.clone()).await.unwrap().version, "v2.1");
    let request = VerifyRequest { version: Some("v2.2".into()), ..request };
    assert_eq!(client.waive(projection, request.clone()).await.unwrap().version, "v2.2");
    let missing = client.waive("balance", request).await.unwrap_err();
    assert!(matches!(missing, ApiError::NotFound(_)), "{missing}");
    let calls: Vec<_> = served.fake.script().asked.clone();
    assert_eq!([&calls[0]["call"], &calls[1]["call"]], ["verify", "waive"]);
    assert!(calls.iter().all(|call| call["request"]["idempotency_key"] == "k-1"), "{calls:?}");
    served.stop().await;
}

#[tokio::test]
async fn phases_round_trip() {
    let served = Served::start().await;
    let entry: HistoryEntry = serde_json::from_str(
        r#"{"position":4,"time":"2026-03-01T12:00:00Z","projection":"balances","version":"v1.1",
            "event":"flipped","text":"v1.1 serves","actor":"ana","reason":"r","covers":3}"#,
    )
    .unwrap();
    served.fake.script().history.push(entry.clone());
    let request = PhasesRequest { projection: Some("balances".into()), after: 1, limit: 10_u32.try_into().ok() };
    let answer = served.client.phases(request).await.unwrap();
    assert_eq!((answer.history, answer.through, answer.more), (vec![entry], 4, false));
    served.stop().await;
}

#[tokio::test]
async fn every_class_of_error_round_trips() {
    let served = Served::start().await;
    let problem = || Problem::new("some_code", "m").tried("t").found("f").help("h").field("actual", 7);
    for error in [problem().refused(), problem().invalid(), problem().unavailable(), problem().corrupt()] {
        served.fake.script().faults.push_back(Fault::Before(error.clone()));
        let answer = served.client.append(append(vec![event("account-1", "{}")])).await;
        assert_eq!(answer.unwrap_err(), error);
    }
    let demand = Expected { stream: "account-1".into(), revision: RevisionDemand::Exact(4) };
    let request = AppendRequest { expected: vec![demand], ..append(vec![event("account-1", "{}")]) };
    let ApiError::Refused(problem) = served.client.append(request).await.unwrap_err() else { panic!("a refusal") };
    assert_eq!((problem.code.as_str(), problem.fields["expected"].as_u64()), ("wrong_revision", Some(4)));
    let error = served.client.flip("nothing", FlipRequest::default()).await.unwrap_err();
    assert!(matches!(&error, ApiError::NotFound(problem) if problem.code == "no_such_projection"), "{error:?}");
    served.stop().await;
}

#[tokio::test]
async fn nobody_at_the_address_is_told_with_the_address() {
    let listener = bind("127.0.0.1:0".parse().unwrap(), Access::Loopback).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = HttpClient::new(&url, ClientLimits::default()).unwrap();
    let error = client.status().await.unwrap_err();
    let problem = error.problem();
    assert!(error.is_transient() && problem.code == "unreachable", "{error:?}");
    assert!(problem.tried.as_ref().unwrap().contains(&url), "{problem:?}");
    assert!(problem.found.as_ref().unwrap().contains("refused"), "{problem:?}");
    assert!(problem.help.as_ref().unwrap().contains("dacapo serve"), "{problem:?}");
}

#[tokio::test]
async fn what_is_no_request_is_declined_in_the_form_of_errors() {
    let served = Served::start().await;
    let (http, url) = (served.http(), &served.url);
    let json = |request: reqwest::RequestBuilder| request.header("content-type", "application/json");
    let events = format!("{url}/v1/events");
    let cases = [
        (json(http.post(&events)).body("{"), 400, "bad_request"),
        (json(http.post(&events)).body(r#"{"events":1}"#), 422, "unprocessable"),
        (http.post(&events).body("{}"), 415, "unsupported_media_type"),
        (json(http.post(format!("{url}/v1/projections/b/flip"))).body(vec![b' '; 70_000]), 413, "too_large"),
        (http.get(format!("{events}?after=x")), 422, "unprocessable"),
        (http.get(format!("{events}?affter=1")), 422, "unknown_key"),
        (http.delete(&events), 405, "method_not_allowed"),
        (http.get(format!("{url}/v1/nothing")), 404, "no_such_path"),
        (http.get(format!("{url}/v1/status")).header("host", "evil.example"), 403, "forbidden"),
        (http.get(format!("{url}/v1/status")).header("origin", "http://evil.example"), 403, "forbidden"),
    ];
    for (request, status, code) in cases {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{code}");
        let problem: Problem = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!((problem.code.as_str(), problem.message.is_empty()), (code, false));
    }
    served.stop().await;
}

#[tokio::test]
async fn the_key_may_stand_in_the_header() {
    let served = Served::start().await;
    served.fake.script().statuses.push_back(full_status());
    let post = |body: &'static str| {
        let request = served.http().post(format!("{}/v1/projections/balances/flip", served.url));
        request.header("content-type", "application/json").header("idempotency-key", "k-9").body(body).send()
    };
    assert_eq!(post("{}").await.unwrap().status().as_u16(), 200);
    assert_eq!(served.fake.script().asked[0]["request"]["idempotency_key"], "k-9");
    assert_eq!(post(r#"{"idempotency_key":"k-8"}"#).await.unwrap().status().as_u16(), 400);
    served.stop().await;
}

#[tokio::test]
async fn probes_follow_the_status() {
    let served = Served::start().await;
    let probe = async |path: &str| {
        let answer = served.http().get(format!("{}{path}", served.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(probe("/livez").await.0, 200);
    assert_eq!(probe("/readyz").await.0, 200);
    let mut status = full_status();
    status.node.ready = false;
    status.node.waiting_on = status.projections[0].versions[0].waiting_on.clone();
    served.fake.script().statuses.push_back(status);
    let (code, body) = probe("/readyz").await;
    assert!(code == 503 && body.contains("(lag 48,210)"), "{code} {body}");
    assert_eq!(probe("/livez").await.0, 200);
    served.stop().await;
}

#[tokio::test]
async fn an_address_others_can_reach_needs_the_word() {
    let error = bind("0.0.0.0:0".parse().unwrap(), Access::Loopback).await.unwrap_err();
    assert!(error.problem().help.as_ref().unwrap().contains("--allow-remote"), "{error:?}");
    assert!(bind("0.0.0.0:0".parse().unwrap(), Access::Remote).await.is_ok());
}

#[tokio::test]
async fn shutdown_lets_a_request_under_way_finish() {
    let served = Served::start().await;
    let client = served.client.clone();
    let reading =
        tokio::spawn(async move { client.read(ReadRequest { wait_ms: Some(300), ..Default::default() }).await });
    served.has_reader().await;
    served.stop().await;
    assert!(reading.await.unwrap().unwrap().events.is_empty());
}
