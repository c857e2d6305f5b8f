//! Views of which something was taken away or changed from outside.

use std::time::Duration;

use dacapo::catalog::{Phase, Stage};
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::status::{Status, WaitingOn};
use dacapo::store::StoreError;
use dacapo::{Error, Node, Options};
use dacapo_postgres::testbed::{Server, name_of};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::common::{
    TotalOf, TotalsV1, add, ask, carry_v1, check_serving, options, ready_and_flip, rows, totals, until, v1,
};
use crate::node;

const TAKE: &str = "CREATE TABLE public.kept AS SELECT * FROM dacapo_totals_v1_1._dacapo_tokens WHERE segment = 1;
                    DELETE FROM dacapo_totals_v1_1._dacapo_tokens WHERE segment = 1";
const PUT_BACK: &str =
    "INSERT INTO dacapo_totals_v1_1._dacapo_tokens SELECT * FROM public.kept; DROP TABLE public.kept";

fn damaged(reasons: &[WaitingOn]) -> bool {
    let names = |error: &str| error.contains("_dacapo_tokens") && error.contains("no token: 1");
    reasons.iter().any(|reason| matches!(reason, WaitingOn::Damaged { error } if names(error)))
}

fn reasons(status: &Status) -> &[WaitingOn] {
    &status.projections[0].versions[0].waiting_on
}

fn not_ready(node: &Node) -> Vec<WaitingOn> {
    node.not_ready().into_iter().map(|found| found.reason).collect()
}

/// The view is closed, and everybody is told.
async fn is_told(node: &Node) {
    until(node, "the status says so", |status| damaged(reasons(status))).await;
    until(node, "it is not ready", |_| damaged(&not_ready(node))).await;
    let asked = node.ask(TotalOf("ledger-0".into())).within(Duration::from_millis(20)).await;
    match asked {
        Err(Error::TimedOut { waiting_on, .. }) => assert!(damaged(&waiting_on), "{waiting_on:?}"),
        // It is not closed yet.
        Err(Error::Store(StoreError::Corrupt { .. })) => {}
        other => panic!("{other:?}"),
    }
}

async fn fill(node: &Node) {
    let mut last = Default::default();
    for number in 0..20 {
        last = add(node, &format!("ledger-{number}"), 1).await;
    }
    rows(node, last).await.unwrap();
}

// I-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_lacks_the_token_of_a_segment_shows_nothing_until_it_is_put_back_or_rebuilt() {
    let server = Server::shared();
    let url = server.database().await;
    let node = node(&url, "one").await.projection(carry_v1(v1())).start().await.unwrap();
    fill(&node).await;
    server.run(name_of(&url), TAKE).await;
    for number in 0..20 {
        add(&node, &format!("ledger-{number}"), 1).await;
    }
    is_told(&node).await;
    server.run(name_of(&url), PUT_BACK).await;
    until(&node, "it is ready again", |_| node.not_ready().is_empty()).await;
    fill(&node).await;
    check_serving(&node).await;

    server.run(name_of(&url), TAKE).await;
    is_told(&node).await;
    node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready_and_flip(&node, "v1.2").await;
    check_serving(&node).await;
    until(&node, "it is ready again", |_| node.not_ready().is_empty()).await;
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_says_twice_what_it_is_is_told_under_the_name_of_that_table() {
    let server = Server::shared();
    let url = server.database().await;
    let node = node(&url, "one").await.projection(carry_v1(v1())).start().await.unwrap();
    fill(&node).await;
    let table = "dacapo_totals_v1_1._dacapo_view";
    server.run(name_of(&url), &format!("INSERT INTO {table} SELECT * FROM {table}")).await;
    let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Damaged { error } if error.contains("it has 2"));
    let status = until(&node, "the status says so", |status| reasons(status).iter().any(told)).await;
    let WaitingOn::Damaged { error } = reasons(&status).iter().find(|reason| told(reason)).unwrap() else { return };
    assert!(error.contains("_dacapo_view") && !error.contains("_dacapo_tokens"), "{error}");
    server.run(name_of(&url), &format!("DELETE FROM {table} WHERE ctid = (SELECT max(ctid) FROM {table})")).await;
    until(&node, "it is ready again", |_| node.not_ready().is_empty()).await;
    fill(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

// I-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_lost_the_token_of_a_segment_while_it_was_built_fails() {
    let server = Server::shared();
    let url = server.database().await;
    let node = node(&url, "one").await.projection(carry_v1(v1())).start().await.unwrap();
    fill(&node).await;
    node.projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    let built = |status: &Status| status.projections[0].versions.iter().any(|found| found.stage == Some(Stage::Ready));
    until(&node, "it is built", built).await;
    server.run(name_of(&url), "DELETE FROM dacapo_totals_v1_2._dacapo_tokens WHERE segment = 1").await;
    let failed = |status: &Status| status.projections[0].versions.iter().any(|found| found.phase == Phase::Failed);
    until(&node, "it failed", failed).await;
    fill(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

// I-11
/// Somebody holds the table of a view, or its tokens: the node says what it waits for, and blames no handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_whose_table_somebody_locks_waits_on_that_lock() {
    let server = Server::shared();
    let url = server.database().await;
    let node = node(&url, "one").await.projection(carry_v1(v1())).start().await.unwrap();
    fill(&node).await;
    for (number, table) in ["totals", "_dacapo_tokens"].into_iter().enumerate() {
        let mut holder = PgConnection::connect(&url).await.unwrap();
        let lock = format!("BEGIN; LOCK TABLE dacapo_totals_v1_1.{table} IN ACCESS EXCLUSIVE MODE");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut holder).await.unwrap();
        add(&node, &format!("new-{number}"), 10).await;
        let is_lock = |reason: &WaitingOn| {
            let told = |error: &str| error.contains("another session holds a lock") && !error.contains("connect to");
            matches!(reason, WaitingOn::Store { error } if told(error))
        };
        let is_told = |status: &Status| {
            let busy = |reason: &WaitingOn| matches!(reason, WaitingOn::Busy { .. });
            assert!(!reasons(status).iter().any(busy), "{table}: {:?}", reasons(status));
            reasons(status).iter().any(is_lock)
        };
        until(&node, "it waits on the lock", is_told).await;
        let error = node.ask(TotalOf("ledger-0".into())).await.unwrap_err().to_string();
        assert!(error.contains("another session holds a lock"), "{table}: {error}");
        until(&node, "it says so", |_| not_ready(&node).iter().any(is_lock)).await;
        holder.close().await.unwrap();
        until(&node, "it is ready again", |_| node.not_ready().is_empty()).await;
    }
    fill(&node).await;
    check_serving(&node).await;
    node.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_from_the_store_is_not_the_mistake_of_an_event() {
    let server = Server::shared();
    let url = server.database().await;
    let user = format!("user_{}", name_of(&url));
    let grant = format!("CREATE ROLE {user} LOGIN; GRANT CREATE ON DATABASE {} TO {user}", name_of(&url));
    server.run(name_of(&url), &grant).await;
    let on_failure = OnFailure { serving: Policy::Skip, initializing: Policy::Halt };
    let retry = Retry { attempts: 2, first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    let options = Options { on_failure, retry, ..options() };
    let version = || carry_v1(TotalsV1 { options: options.clone(), behaviour: Default::default() });
    let url_of_user = server.url_of(&user, name_of(&url));
    let totals = "ALTER TABLE dacapo_totals_v1_1.totals";
    for (number, (broken, mended)) in [
        ("OWNER TO owner".to_owned(), format!("OWNER TO {user}")),
        ("RENAME sum TO total".into(), "RENAME total TO sum".into()),
        ("RENAME TO others".into(), "RENAME TO totals".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let node = node(&url_of_user, "one").await.projection(version()).start().await.unwrap();
        fill(&node).await;
        server.run(name_of(&url), &format!("{totals} {broken}")).await;
        add(&node, &format!("new-{number}"), 10).await;
        let is_store = |reason: &WaitingOn| matches!(reason, WaitingOn::Store { .. });
        let is_told = |status: &Status| {
            assert_eq!(status.projections[0].versions[0].letters, 0, "{broken}: {:?}", reasons(status));
            reasons(status).iter().any(is_store)
        };
        until(&node, "the store cannot do it", is_told).await;
        assert!(not_ready(&node).iter().any(is_store), "{broken}");
        let totals = if broken.ends_with("others") { totals.replace(".totals", ".others") } else { totals.to_owned() };
        server.run(name_of(&url), &format!("{totals} {mended}")).await;
        until(&node, "it is ready again", |_| node.not_ready().is_empty()).await;
        fill(&node).await;
        check_serving(&node).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_read_what_it_is_asked_for_is_not_ready_until_it_can() {
    let server = Server::shared();
    let url = server.database().await;
    let node = node(&url, "one").await.projection(carry_v1(v1())).start().await.unwrap();
    fill(&node).await;
    server.run(name_of(&url), "ALTER TABLE dacapo_totals_v1_1.totals RENAME sum TO total").await;
    let asked = node.ask(TotalOf("ledger-0".into())).await;
    assert!(asked.is_err(), "{asked:?}");
    let told = not_ready(&node);
    assert!(
        told.iter().any(|reason| matches!(reason, WaitingOn::Store { error } if error.contains("sum"))),
        "{told:?}"
    );
    server.run(name_of(&url), "ALTER TABLE dacapo_totals_v1_1.totals RENAME total TO sum").await;
    // Nobody asks, since it is not ready.
    until(&node, "it is ready again", |_| node.not_ready().is_empty()).await;
    assert_eq!(ask(&node, "ledger-0", Default::default()).await.0, 1);
    node.shutdown().await;
}
