//! People who query with plain SQL, under the names that stay the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dacapo_postgres::testbed::name_of;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::task::JoinHandle;

use crate::world::{World, until};

/// What the reader does: rows and what they cover, as of one moment.
const READ: &str = "SELECT serving.version, serving.covers,
                        (SELECT coalesce(sum(entries), 0)::bigint FROM dacapo_balances.accounts) AS entries
                    FROM dacapo_balances._dacapo_serving AS serving";

/// A reader with no rights but on those names.
pub struct Outside {
    task: JoinHandle<Vec<String>>,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

impl Outside {
    /// Begins to read, once the names are there.
    pub async fn start(world: &World) -> Self {
        let mut owner = world.connection().await;
        until("the names for SQL from outside are there", async || {
            let there = "SELECT FROM pg_namespace WHERE nspname = 'dacapo_balances'";
            sqlx::query(there).fetch_optional(&mut owner).await.unwrap().map(drop)
        })
        .await;
        // As docs/operating/postgresql.md has it.
        let role = format!("reporting_{}", name_of(&world.url));
        for sql in [
            format!("CREATE ROLE {role} LOGIN"),
            format!("GRANT USAGE ON SCHEMA dacapo_balances TO {role}"),
            format!("GRANT SELECT ON ALL TABLES IN SCHEMA dacapo_balances TO {role}"),
            format!("ALTER DEFAULT PRIVILEGES IN SCHEMA dacapo_balances GRANT SELECT ON TABLES TO {role}"),
        ] {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut owner).await.unwrap();
        }
        let url = world.server.url_of(&role, name_of(&world.url));
        let connection = PgConnection::connect(&url).await.unwrap();
        let (stop, reads): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let task = tokio::spawn(read(connection, Arc::clone(&stop), Arc::clone(&reads)));
        Self { task, stop, reads }
    }

    /// Ends it; the answer is which versions it was shown, one after the other.
    pub async fn stop(self) -> Vec<String> {
        let read = self.reads.load(Ordering::SeqCst);
        until("it reads on", async || (self.reads.load(Ordering::SeqCst) > read).then_some(())).await;
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }

    /// Waits until it is shown this version.
    pub async fn sees(&self, world: &World, version: &str) {
        let mut owner = world.connection().await;
        let what = format!("SQL from outside sees {version}");
        until(&what, async || {
            let shown = "SELECT version FROM dacapo_balances._dacapo_serving";
            let shown: String = sqlx::query_scalar(shown).fetch_one(&mut owner).await.unwrap();
            (shown == version).then_some(())
        })
        .await;
    }
}

async fn read(mut connection: PgConnection, stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) -> Vec<String> {
    let (mut versions, mut covered, mut known) = (Vec::<String>::new(), 0, 0);
    while !stop.load(Ordering::SeqCst) {
        let row = sqlx::query(READ).fetch_one(&mut connection).await.expect("no query from outside fails");
        let (version, covers, entries): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert!(covers >= covered && entries >= known, "I-7: {version} {covers} {entries} after {covered} {known}");
        (covered, known) = (covers, entries);
        if versions.last() != Some(&version) {
            versions.push(version);
        }
        reads.fetch_add(1, Ordering::SeqCst);
    }
    versions
}
