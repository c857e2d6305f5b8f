//! Views whose schemas are dropped or changed by hand under running nodes.

use std::time::Duration;

use dacapo::{Node, Position};
use dacapo_postgres::testbed::{Server, name_of};
use sqlx::{Connection, PgConnection};

use crate::common::{TotalsV1, WAIT_MAX, add, ask, carry_v1, until, v1};
use crate::lost_view::{has_parted, is_made_again};
use crate::node;

/// Nodes that know each other.
async fn started(url: &str, version: &TotalsV1) -> [Node; 2] {
    let start = async |name| node(url, name).await.projection(carry_v1(version.clone())).start().await.unwrap();
    let nodes = [start("one").await, start("two").await];
    for node in &nodes {
        until(node, "they know each other", |status| status.members.len() == 2).await;
    }
    nodes
}

// I-6, I-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_schema_is_dropped_while_it_serves_is_made_again_without_a_restart() {
    let server = Server::shared();
    let url = server.database().await;
    let version_1 = v1();
    let nodes = started(&url, &version_1).await;
    let drop = async || server.run(name_of(&url), "DROP SCHEMA dacapo_totals_v1_1 CASCADE").await;
    is_made_again(&nodes, &version_1, drop).await;
    for node in nodes {
        node.shutdown().await;
    }
}

// I-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_tokens_are_moved_beyond_the_journal_while_it_serves_has_parted_for_good() {
    let server = Server::shared();
    let url = server.database().await;
    let nodes = started(&url, &v1()).await;
    let beyond = "UPDATE dacapo_totals_v1_1._dacapo_tokens SET position = position + 60";
    has_parted(&nodes, async || server.run(name_of(&url), beyond).await).await;
    for node in nodes {
        node.shutdown().await;
    }
}

/// Waits until SQL from outside finds the version that serves, which covers `through`.
async fn until_published(url: &str, through: Position) {
    let mut outside = PgConnection::connect(url).await.unwrap();
    let looking = async {
        loop {
            let sql = "SELECT covers FROM dacapo_totals._dacapo_serving, (SELECT count(*) FROM dacapo_totals.totals) AS all_rows";
            let covers = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut outside).await;
            if let Ok(covers) = covers {
                return Position::new(covers.unsigned_abs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let covers = tokio::time::timeout(WAIT_MAX, looking).await.expect("the names are made");
    assert!(covers >= through, "I-7: {covers}");
}

// I-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_for_sql_from_outside_that_are_dropped_are_made_again_without_a_restart() {
    let server = Server::shared();
    let url = server.database().await;
    let node = node(&url, "one").await.projection(carry_v1(v1())).start().await.unwrap();
    let last = add(&node, "ledger-1", 1).await;
    ask(&node, "ledger-1", last).await;
    until_published(&url, Position::START).await;
    for dropped in ["VIEW dacapo_totals.totals", "SCHEMA dacapo_totals CASCADE", "SCHEMA dacapo_totals_v1_1 CASCADE"] {
        server.run(name_of(&url), &format!("DROP {dropped}")).await;
        until_published(&url, last).await;
    }
    node.shutdown().await;
}
