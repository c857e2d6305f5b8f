//! Nodes whose code of one version does not read the same events: a rolling upgrade, and what comes of it halfway.

use std::collections::BTreeMap;

use dacapo::catalog::{CatalogRefused, CodeMismatch};
use dacapo::journal::Append;
use dacapo::status::{Status, VersionStatus, WaitingOn};
use dacapo::{Metadata, Node, Position, StartError};

use super::setup::{Shared, Tally, shares};
use crate::common::money::{Balances, New, Old, balance, balances, put};
use crate::common::{until, version};

fn account(number: i64) -> String {
    format!("account-{number}")
}

fn v1(status: &Status) -> Option<&VersionStatus> {
    let found = status.projections.iter().find(|found| found.name == balances())?;
    found.versions.iter().find(|found| found.version == version("v1.1"))
}

/// Whether the node says that its code does not read what the version reads.
fn says_so(status: &Status) -> bool {
    let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Reads { unlike: CodeMismatch::Missing(_), .. });
    v1(status).is_some_and(|found| found.waiting_on.iter().any(told))
}

async fn have(node: &Node, wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<String, usize> = wanted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    until(node, &format!("the segments are shared like {wanted:?}"), |status| {
        let of_balances = Status {
            projections: status.projections.iter().filter(|found| found.name == balances()).cloned().collect(),
            ..status.clone()
        };
        shares(&of_balances, version("v1.1")) == wanted
    })
    .await;
}

// I-3, I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_upgrade_passes_no_event_that_old_nodes_do_not_know() {
    let store = Shared::new();
    let one = store.node("one").projection(Balances::<Old>::default()).start().await.unwrap();
    let two = store.another().node("two").projection(Balances::<Old>::default()).start().await.unwrap();
    have(&one, &[("one", 2), ("two", 2)]).await;
    for number in 0..20 {
        put(&one, &account(number), Old::Deposited { amount: 10 }).await;
    }
    let new = store.another().node("new").projection(Balances::<New>::default()).start().await.unwrap();
    let mut last = Position::START;
    for number in 0..20 {
        put(&new, &account(number), New::Deposited { cents: 100 }).await;
        last = put(&new, &account(number), New::Withdrawn { amount: 3 }).await;
    }
    // Old nodes go on to write what they know, and to answer.
    last = put(&one, &account(0), Old::Deposited { amount: 5 }).await.max(last);
    for node in [&one, &two, &new] {
        for number in 0..20 {
            let expected = if number == 0 { 13 } else { 8 };
            assert_eq!(balance(node, &account(number), last).await, expected, "{}", account(number));
        }
    }
    have(&new, &[("new", 4)]).await;
    until(&one, "it says that it does not read all", says_so).await;
    one.shutdown().await;
    let third = store.another().node("third").projection(Balances::<New>::default()).start().await.unwrap();
    have(&third, &[("new", 2), ("third", 2)]).await;
    // One that begins again with the old program does not start.
    let error = store.another().node("one").projection(Balances::<Old>::default()).start().await.err().unwrap();
    let StartError::Code(CatalogRefused::Reads { unlike: CodeMismatch::Missing(types), .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(types, &["deposited-v2", "withdrawn"], "{error}");
    two.shutdown().await;
    third.shutdown().await;
    new.shutdown().await;
}

// I-3: what counts is where things are in the journal, not when a node hears of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_node_that_has_heard_of_nothing_does_not_pass_the_new_event() {
    let store = Shared::new();
    let late = store.another();
    let old = late.node("old").projection(Balances::<Old>::default()).start().await.unwrap();
    have(&old, &[("old", 4)]).await;
    let first = put(&old, "account-1", Old::Deposited { amount: 10 }).await;
    assert_eq!(balance(&old, "account-1", first).await, 10);
    late.hears.send_replace(false);
    let new = store.node("new").projection(Balances::<New>::default()).projection(Tally).start().await.unwrap();
    let withdrawn = put(&new, "account-1", New::Withdrawn { amount: 3 }).await;
    // Time for the old node to do wrong.
    new.read("tally", withdrawn).await.unwrap();
    let passed =
        |status: &Status| v1(status).is_some_and(|found| found.tokens.iter().any(|token| token.covers(withdrawn)));
    assert!(!passed(&new.status().await.unwrap()), "I-3: nobody who reads it has had it yet");
    late.hears.send_replace(true);
    have(&new, &[("new", 4)]).await;
    assert_eq!(balance(&new, "account-1", withdrawn).await, 7);
    old.shutdown().await;
    new.shutdown().await;
}

// I-3, I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_nodes_that_are_left_alone_wait_for_code_that_reads_all() {
    let store = Shared::new();
    let old = store.node("old").projection(Balances::<Old>::default()).start().await.unwrap();
    have(&old, &[("old", 4)]).await;
    let new = store.another().node("new").projection(Balances::<New>::default()).start().await.unwrap();
    have(&new, &[("new", 4)]).await;
    let deposited = put(&old, "account-1", Old::Deposited { amount: 10 }).await;
    assert_eq!(balance(&old, "account-1", deposited).await, 10);
    new.shutdown().await;
    let withdrawn = put(&old, "account-1", New::Withdrawn { amount: 3 }).await;
    let status = until(&old, "it says that it does not read all", says_so).await;
    assert!(v1(&status).unwrap().tokens.iter().all(|token| !token.covers(withdrawn)));
    let again = store.another().node("again").projection(Balances::<New>::default()).start().await.unwrap();
    assert_eq!(balance(&old, "account-1", withdrawn).await, 7);
    again.shutdown().await;
    old.shutdown().await;
}

// I-3: nobody keeps others from appending between a look at the journal and what is recorded of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_comes_between_the_look_and_the_record_keeps_the_new_code_from_running() {
    let store = Shared::new();
    let old = store.node("old").projection(Balances::<Old>::default()).start().await.unwrap();
    put(&old, "account-1", Old::Deposited { amount: 10 }).await;
    let early = old.new_event(&New::Withdrawn { amount: 3 }, Metadata::default()).unwrap();
    let early = Append::to_stream("account-1".try_into().unwrap(), dacapo::ExpectedRevision::Any, vec![early]);
    let joining = Shared { early: std::sync::Arc::new(std::sync::Mutex::new(Some(early))), ..store.another() };
    let error = joining.node("new").projection(Balances::<New>::default()).start().await.err().unwrap();
    let StartError::Code(CatalogRefused::Reads { unlike: CodeMismatch::Added { event, .. }, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(event.as_ref().unwrap().0, "withdrawn", "{error}");
    let last = put(&old, "account-1", Old::Deposited { amount: 2 }).await;
    assert_eq!(balance(&old, "account-1", last).await, 12, "the old code goes on as it was");
    old.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_find_different_code_of_a_new_number_run_the_one_that_was_first() {
    let store = Shared::new();
    let (here, there) = (store.another(), store.another());
    let one = here.node("one").start().await.unwrap();
    let two = there.node("two").start().await.unwrap();
    // Neither knows of the other one's.
    here.hears.send_replace(false);
    there.hears.send_replace(false);
    one.add_projection(Balances::<Old>::default()).unwrap();
    two.add_projection(Balances::<New>::default()).unwrap();
    here.hears.send_replace(true);
    until(&one, "its code is scheduled", |status| v1(status).is_some()).await;
    there.hears.send_replace(true);
    have(&one, &[("one", 4)]).await;
    let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Reads { unlike: CodeMismatch::Added { .. }, .. });
    until(&two, "its code is another", |status| v1(status).is_some_and(|found| found.waiting_on.iter().any(told)))
        .await;
    let last = put(&two, "account-1", Old::Deposited { amount: 10 }).await;
    assert_eq!(balance(&two, "account-1", last).await, 10);
    have(&two, &[("one", 4)]).await;
    one.shutdown().await;
    two.shutdown().await;
}
