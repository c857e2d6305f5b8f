//! A node whose store does not answer says so in time, whatever it is asked for.

use std::sync::Arc;
use std::time::Duration;

use dacapo::Node;
use dacapo::catalog::Phase;
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo_api::operations::OPERATIONS;
use dacapo_api::{
    Api, ApiError, AppendRequest, CancelRequest, CleanUpRequest, FlipRequest, Json, LettersRequest, Metadata, NewEvent,
    OnKnown, PauseRequest, PhasesRequest, ReadRequest, RebuildRequest, ReplayRequest, SetAsideRequest, SettleRequest,
    StreamsRequest, VerificationRequest, VerifyRequest,
};
use dacapo_model::limits;
use dacapo_server::NodeApi;
use dacapo_testkit::{Fault, Faults};
use tokio::time::Instant;

use crate::letters::Notes;

fn appended() -> AppendRequest {
    let event = NewEvent {
        stream: "note-1".to_owned(),
        id: None,
        event_type: "noted".to_owned(),
        data: Json::parse("{}").unwrap(),
        metadata: Metadata::default(),
        tags: vec![],
    };
    AppendRequest { events: vec![event], expected: vec![], on_known: OnKnown::Recognise }
}

async fn call(api: &NodeApi, operation: &str) -> Result<(), ApiError> {
    let of = "notes";
    let version = Some("v1.1".to_owned());
    let verify = || VerifyRequest { version: version.clone(), ..VerifyRequest::default() };
    let settle = || SettleRequest { all: true, version: version.clone(), ..SettleRequest::default() };
    let set_aside = || SetAsideRequest { version: version.clone(), position: 1, ..SetAsideRequest::default() };
    let pause = || PauseRequest { version: version.clone(), ..PauseRequest::default() };
    let from_start = || ReplayRequest { from_start: true, ..ReplayRequest::default() };
    match operation {
        "status" => api.status().await.map(drop),
        "append" => api.append(appended()).await.map(drop),
        "read" => api.read(ReadRequest::default()).await.map(drop),
        "streams" => api.streams(StreamsRequest::default()).await.map(drop),
        "phases" => api.phases(PhasesRequest::default()).await.map(drop),
        "rebuild" => api.rebuild(of, RebuildRequest::default()).await.map(drop),
        "cancel" => api.cancel(of, CancelRequest::default()).await.map(drop),
        "flip" => api.flip(of, FlipRequest::default()).await.map(drop),
        "rollback" => api.rollback(of, FlipRequest::default()).await.map(drop),
        "replay" => api.replay(of, from_start()).await.map(drop),
        "verification" => api.verification(of, VerificationRequest::default()).await.map(drop),
        "verify" => api.verify(of, verify()).await.map(drop),
        "waive" => api.waive(of, verify()).await.map(drop),
        "clean_up" => api.clean_up(of, "v1.1", CleanUpRequest::default()).await.map(drop),
        "pause" => api.pause(of, pause()).await.map(drop),
        "resume" => api.resume(of, pause()).await.map(drop),
        "letters" => api.letters(of, LettersRequest::default()).await.map(drop),
        "retry_letters" => api.retry_letters(of, settle()).await.map(drop),
        "drop_letters" => api.drop_letters(of, settle()).await.map(drop),
        "set_aside" => api.set_aside(of, set_aside()).await.map(drop),
        other => panic!("no request for the operation {other}"),
    }
}

// I-11
#[tokio::test]
async fn every_operation_is_answered_in_time_by_a_node_whose_store_does_not_answer() {
    let (faults, store) = (Faults::default(), Store::memory(Arc::new(SystemClock)));
    let node = Node::builder().store(faults.over(&store)).projection(Notes::<1>).start().await.unwrap();
    let api = NodeApi::new(node.clone(), "test");
    api.append(appended()).await.unwrap();
    let serves = async {
        while node.status().await.unwrap().projections[0].versions[0].phase != Phase::Serving {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limits::REQUEST_TIME_MAX, serves).await.expect("it serves");
    faults.always(Fault::Waits, |_| true);
    // From here on nothing but a deadline ends a wait.
    tokio::time::pause();
    for operation in OPERATIONS {
        // The processor is waited for on top.
        let settles = matches!(operation.name, "retry_letters" | "drop_letters");
        let time_max = limits::REQUEST_TIME_MAX * if settles { 2 } else { 1 };
        let began = Instant::now();
        let answer = tokio::time::timeout(3 * time_max, call(&api, operation.name)).await;
        let time = began.elapsed();
        assert!(time < time_max, "{} took {time:?}: {answer:?}", operation.name);
        if let Ok(Err(error)) = answer
            && time > limits::STATUS_TIME_MAX
        {
            assert_eq!(error.http_status(), 503, "{}: {error}", operation.name);
        }
    }
    faults.heal();
    tokio::time::resume();
    node.shutdown().await;
}
