//! Every operation demands the right of its row, if the application says who calls.

use axum::Extension;
use dacapo_api::Problem;
use dacapo_api::operations::{OPERATIONS, Operation, Right, paths};
use dacapo_server::{Caller, Hosts, operations};

use super::{Served, full_status};

const RIGHTS: [Right; 3] = [Right::Read, Right::Append, Right::Operate];

/// A server whose application has recognised every caller as this one.
async fn served(caller: Caller) -> Served {
    Served::start_with(|api| operations(api, &Hosts::default()).layer(Extension(caller))).await
}

/// Sends an operation in the name of bob, and returns the status and the error, if there is one.
async fn send(served: &Served, operation: &Operation) -> (u16, Option<Problem>) {
    served.fake.script().statuses.push_back(full_status());
    let path = operation.path.replace("{projection}", "balances").replace("{version}", "v1.1");
    let request = served.http().request(operation.method.parse().unwrap(), format!("{}{path}", served.url));
    let request = match operation.right {
        Right::Operate => request.header("content-type", "application/json").body(r#"{"actor":"bob"}"#),
        Right::Append => request.header("content-type", "application/json").body(r#"{"events":[]}"#),
        _ => request,
    };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).ok())
}

#[tokio::test]
async fn a_caller_with_every_other_right_is_refused_and_one_with_exactly_this_right_is_not() {
    for operation in OPERATIONS {
        let name = Some("ana".to_owned());
        let others = RIGHTS.into_iter().filter(|right| *right != operation.right).collect();
        let without = served(Caller { name: name.clone(), rights: others }).await;
        let (status, problem) = send(&without, operation).await;
        let problem = problem.unwrap();
        assert_eq!((status, &*problem.code), (403, "forbidden"), "{}", operation.name);
        assert_eq!(problem.fields["operation"], operation.name);
        assert_eq!(problem.fields["right"], operation.right.as_str());
        assert!(problem.message.contains(operation.name) && problem.found.unwrap().contains("ana has only: "));
        assert!(problem.help.unwrap().contains(operation.right.as_str()), "{}", operation.name);
        without.stop().await;

        let with = served(Caller { name, rights: vec![operation.right] }).await;
        let (status, problem) = send(&with, operation).await;
        assert_ne!(status, 403, "{}: {problem:?}", operation.name);
        let asked = with.fake.script().asked.clone();
        // The caller that is known is the requester, whatever the request says.
        assert_eq!(asked.len(), usize::from(operation.right == Right::Operate), "{}: {problem:?}", operation.name);
        assert!(asked.iter().all(|call| call.to_string().contains(r#""actor":"ana""#)), "{asked:?}");
        with.stop().await;
    }
}

#[tokio::test]
async fn a_caller_without_a_name_has_the_name_in_its_request() {
    let flip = OPERATIONS.iter().find(|operation| operation.path == paths::flip).unwrap();
    let served = served(Caller { name: None, rights: vec![Right::Operate] }).await;
    assert_eq!(send(&served, flip).await.0, 200);
    assert_eq!(served.fake.script().asked[0]["request"]["actor"], "bob");
    served.stop().await;
}

#[tokio::test]
async fn the_right_is_demanded_before_the_body_is_read() {
    let served = served(Caller::default()).await;
    let append = served.http().post(format!("{}/v1/events", served.url)).body("no JSON").send().await.unwrap();
    assert_eq!(append.status().as_u16(), 403);
    served.stop().await;
}
