//! A database that took over and has every event, but not the last commits of a view.

use std::time::Duration;

use dacapo::Error;
use dacapo::store::StoreError;
use dacapo_postgres::testbed::{Server, name_of};

use crate::common::{TotalOf, WAIT_MAX, add, ask, carry_v1, check_serving, v1};
use crate::node;

const TABLES: [&str; 2] = ["_dacapo_tokens", "totals"];
/// The time after which a processor at rest has recorded its mark, so that no commit of its own finds the loss.
const AT_REST: Duration = Duration::from_millis(2_500);

fn keep(table: &str) -> String {
    format!("CREATE TABLE public.kept{table} AS SELECT * FROM dacapo_totals_v1_1.{table}")
}

fn put_back(table: &str) -> String {
    format!(
        "DELETE FROM dacapo_totals_v1_1.{table}; INSERT INTO dacapo_totals_v1_1.{table} SELECT * FROM public.kept{table}"
    )
}

// I-3, I-7, I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_lost_its_last_commit_sends_no_reader_back_and_gets_it_again_without_another_event() {
    let server = Server::shared();
    let url = server.database().await;
    let one = node(&url, "one").await.projection(carry_v1(v1())).start().await.unwrap();
    let two = node(&url, "two").await.projection(carry_v1(v1())).start().await.unwrap();
    let before = add(&one, "ledger-0", 5).await;
    for node in [&one, &two] {
        assert_eq!(ask(node, "ledger-0", before).await, (5, 1));
    }
    tokio::time::sleep(AT_REST).await;
    let sql: Vec<String> = TABLES.iter().map(|table| keep(table)).collect();
    server.run(name_of(&url), &sql.join("; ")).await;
    let last = add(&one, "ledger-0", 100).await;
    for node in [&one, &two] {
        assert_eq!(ask(node, "ledger-0", last).await, (105, 2));
    }
    tokio::time::sleep(AT_REST).await;

    let sql: Vec<String> = TABLES.iter().map(|table| put_back(table)).collect();
    server.run(name_of(&url), &format!("BEGIN; {}; COMMIT", sql.join("; "))).await;
    for node in [&one, &two] {
        let healed = async {
            loop {
                let asked = node.ask(TotalOf("ledger-0".into())).within(Duration::from_millis(100)).await;
                match asked {
                    Ok(answered) => {
                        assert!(answered.covers >= last && answered.value == (105, 2), "I-7: {answered:?}");
                        return;
                    }
                    Err(Error::TimedOut { .. } | Error::Store(StoreError::Unavailable { .. })) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, healed).await.expect("what was lost is applied again");
    }
    check_serving(&one).await;
    for node in [one, two] {
        node.shutdown().await;
    }
}
