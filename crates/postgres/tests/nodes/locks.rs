//! Locks that somebody else holds: the database is there, and says what it waits for.

use std::sync::Arc;

use dacapo_model::{ExpectedRevision, Position};
use dacapo_postgres::testbed::Server;
use dacapo_postgres::{Database, Options, PostgresMembers};
use dacapo_store::{Filter, Journal, Limit, Members};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::health::{failing, well};
use super::support::{append, node};

/// A session that holds what `sql` locks, and does nothing more.
async fn holder(url: &str, sql: &str) -> PgConnection {
    let mut holder = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {sql}"))).execute(&mut holder).await.unwrap();
    holder
}

#[track_caller]
fn check(error: &str) {
    assert!(error.contains("another session holds a lock") && error.contains("pg_stat_activity"), "{error}");
    for other in ["connect", "does not answer", "no answer"] {
        assert!(!error.contains(other), "{other}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_or_a_read_that_waits_for_a_lock_says_so() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    journal.append(append("a-1", ExpectedRevision::Any, [1])).await.unwrap();
    let table = holder(&url, "LOCK TABLE dacapo.events IN ACCESS EXCLUSIVE MODE").await;
    let everything = Filter::everything();
    let (appended, read) = tokio::join!(
        journal.append(append("a-1", ExpectedRevision::Any, [3])),
        journal.read(Position::START, &everything, Limit::events(1)),
    );
    let error = appended.unwrap_err().to_string();
    check(&error);
    assert!(error.contains("a lock on table events"), "{error}");
    check(&read.unwrap_err().to_string());
    failing(&journal, "another session holds a lock").await;
    table.close().await.unwrap();
    well(&journal).await;

    let row = holder(&url, "SELECT FROM dacapo.sequencer FOR UPDATE").await;
    let error = journal.append(append("a-1", ExpectedRevision::Any, [2])).await.unwrap_err().to_string();
    check(&error);
    assert!(error.contains("a lock on table sequencer"), "{error}");
    failing(&journal, "another session holds a lock on table sequencer").await;
    row.close().await.unwrap();
    well(&journal).await;
    journal.append(append("a-1", ExpectedRevision::Any, [3])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_waits_for_a_lock_says_so() {
    let server = Server::shared();
    let url = server.database().await;
    let database = Arc::new(Database::connect(&url, Options::default()).await.unwrap());
    let members = PostgresMembers::new(database);
    let table = holder(&url, "LOCK TABLE dacapo.members IN ACCESS EXCLUSIVE MODE").await;
    check(&members.live().await.unwrap_err().to_string());
    table.close().await.unwrap();
    assert!(members.live().await.unwrap().is_empty());
}
