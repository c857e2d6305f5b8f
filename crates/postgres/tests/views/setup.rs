//! A database that nodes share, with a view of notes.

use std::sync::Arc;

use dacapo_model::{ProjectionName, SegmentCount, Token, TokenMove, TokenRefused, VersionId, ViewId};
use dacapo_postgres::testbed::Server;
use dacapo_postgres::{Database, Options, PostgresViews};
use dacapo_store::{
    Column, ColumnKind, CommitError, Index, StoreError, Table, Value, View, ViewWriter, Views, of_none,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

pub(super) const fn column(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind, optional: false }
}

pub(super) const NOTES: Table = Table {
    name: "notes",
    columns: &[column("id", ColumnKind::Integer), column("text", ColumnKind::Text)],
    key: &[0],
    indexes: &[Index { name: "text", columns: &[1], unique: false }],
};

pub(super) fn id(code: u32) -> ViewId {
    ViewId { projection: ProjectionName::new("notes").unwrap(), version: VersionId { code, build: 1 } }
}

pub(super) fn note(id: i64, text: &str) -> Vec<Value> {
    vec![Value::Integer(id), Value::Text(text.into())]
}

/// A database that nodes share.
pub(super) struct World {
    pub(super) server: Arc<Server>,
    pub(super) url: String,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::on(Server::shared()).await
    }

    pub(super) async fn on(server: Arc<Server>) -> Self {
        let url = server.database().await;
        Self { server, url }
    }

    pub(super) async fn views_alone(self) -> (PostgresViews, Arc<Server>) {
        (self.node().await, self.server)
    }

    /// The views as a node has them.
    pub(super) async fn node(&self) -> PostgresViews {
        node(&self.url, "dacapo").await
    }

    /// The view of the notes as a node has it.
    pub(super) async fn view(&self) -> Arc<dyn View> {
        self.node().await.open(&id(1), &[NOTES], SegmentCount::ONE).await.unwrap()
    }

    pub(super) async fn raw(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Waits until as many statements as that, of those like `pattern`, wait for a lock, or run if `waits` is not set.
    pub(super) async fn until_under_way(&self, pattern: &str, waits: bool, count: i64) {
        let mut raw = self.raw().await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1
                   AND pid <> pg_backend_pid() AND datname = current_database() AND ($2 = (wait_event_type IS NOT DISTINCT FROM 'Lock') OR NOT $2)";
        loop {
            let query = sqlx::query_scalar::<_, i64>(sql).bind(pattern).bind(waits);
            if query.fetch_one(&mut raw).await.unwrap() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

pub(super) async fn node(url: &str, schema: &str) -> PostgresViews {
    let options = Options { schema: schema.into(), ..Options::default() };
    PostgresViews::new(Arc::new(Database::connect(url, options).await.unwrap()))
}

pub(super) async fn run(raw: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(raw).await.unwrap();
}

pub(super) async fn put(writer: &mut dyn ViewWriter, rows: &[Vec<Value>]) -> Result<(), StoreError> {
    writer.put(&NOTES, &mut of_none(rows.iter().cloned())).await
}

pub(super) async fn texts(view: &dyn View) -> Vec<Value> {
    let rows = view.reader().await.unwrap().select(&NOTES, &[], 100).await.unwrap();
    rows.into_iter().map(|mut row| row.remove(1)).collect()
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.into())
}

pub(super) fn step(token: &Token) -> TokenMove {
    token.step(token.position.next(), 1)
}

pub(super) fn is_fenced(result: &Result<(), CommitError>) -> bool {
    matches!(result, Err(CommitError::Refused(TokenRefused::Fenced { .. })))
}

pub(super) fn is_unavailable<T, E: Into<CommitError>>(result: Result<T, E>) -> bool {
    matches!(result.map_err(Into::into), Err(CommitError::Store(StoreError::Unavailable { .. })))
}

pub(super) fn invalid<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Invalid(why)) => why,
        Err(other) => panic!("expected to be told what is invalid, got {other}"),
        Ok(_) => panic!("expected to be told what is invalid"),
    }
}
