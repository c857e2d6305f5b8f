//! Rows that somebody changes by SQL while they are served.

use std::time::Duration;

use dacapo::Node;
use dacapo::options::Scrub;
use dacapo_postgres::testbed::{Server, name_of};

use crate::common::{TotalsV1, carry_v1, until, v1};
use crate::node;
use crate::tampered::{fill, is_told_and_healed, looked, pace, rows_reason};

/// Changes rows of version 1.1 over a connection of its own.
async fn change(server: &Server, url: &str, sql: &str) {
    let sql = sql.replace("UPDATE totals", "UPDATE dacapo_totals_v1_1.totals");
    server.run(name_of(url), &sql).await;
}

async fn started(url: &str, name: &str) -> Node {
    let version = TotalsV1 { options: pace(Scrub::default()), ..v1() };
    node(url, name).await.projection(carry_v1(version)).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_changed_in_the_database_is_told_until_it_is_right_or_built_anew() {
    let server = Server::shared();
    let url = server.database().await;
    let node = started(&url, "one").await;
    is_told_and_healed(&node, async |sql| change(&server, &url, sql).await).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_nodes_one_looks_at_the_rows_and_tells() {
    let server = Server::shared();
    let url = server.database().await;
    let mut nodes = [started(&url, "one").await, started(&url, "two").await];
    fill(&nodes[0]).await;
    change(&server, &url, "UPDATE totals SET sum = 77 WHERE ledger = 'ledger-3'").await;
    // Who does is known once each has heard of the other.
    let looks = async |node: &Node| node.status().await.unwrap().projections[0].versions[0].scrubbed.is_some();
    loop {
        let found = [looks(&nodes[0]).await, looks(&nodes[1]).await];
        if found == [false, true] {
            nodes.swap(0, 1);
        }
        if found[0] != found[1] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [driver, other] = nodes;
    until(&driver, "it is told", |status| rows_reason(status).is_some()).await;
    assert_eq!(rows_reason(&other.status().await.unwrap()), None, "who does not look knows nothing");
    driver.shutdown().await;
    until(&other, "the other one looks", |status| rows_reason(status).is_some()).await;
    looked(&other, |_| true).await;
    other.shutdown().await;
}
