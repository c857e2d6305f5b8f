//! The tables, brought to the form that this program knows.
//!
//! Each step is applied in a transaction of its own, together with the note that it was. Nodes that start at once take
//! turns at an advisory lock, which its connection gives up however it ends.

use dacapo_store::StoreError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr};

use crate::fault::fault;

/// The steps in order. One that was released never changes: add another.
const STEPS: &[(&str, &str)] = &[
    ("journal", include_str!("../migrations/0001_journal.sql")),
    ("members", include_str!("../migrations/0002_members.sql")),
    ("published", include_str!("../migrations/0003_published.sql")),
    ("in_place", include_str!("../migrations/0004_in_place.sql")),
];

/// Brings `schema` to the form of the last step. The connection must be closed afterwards.
pub(crate) async fn migrate(connection: &mut PgConnection, schema: &str) -> Result<(), StoreError> {
    let tried = "make the tables";
    let failed = |error: sqlx::Error| fault(tried, &error);
    sqlx::query("SELECT pg_advisory_lock(hashtextextended('dacapo ' || $1, 0))")
        .bind(schema)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    // Asked before, because making one that is there demands the right to make one.
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if !there {
        // The name was checked when the options were.
        let create = format!("CREATE SCHEMA {schema}");
        sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await.map_err(failed)?;
    }
    migrator().run_direct(None, connection, false).await.map_err(|error| of_step(schema, error))
}

fn migrator() -> Migrator {
    let step = |(number, (name, sql)): (i64, &(&'static str, &'static str))| {
        Migration::new(number, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations((1..).zip(STEPS).map(step).collect());
    migrator.dangerous_set_table_name("migrations");
    // A lock of this schema alone is held.
    migrator.set_locking(false);
    migrator
}

fn of_step(schema: &str, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => fault("make the tables", &error),
        MigrateError::VersionMissing(found) => StoreError::Invalid(format!(
            "the tables in schema {schema} are of form {found}, this program knows forms up to {}: \
             run a release that knows that form",
            STEPS.len()
        )),
        MigrateError::VersionMismatch(step) => StoreError::corrupt(
            format!("the schema {schema}"),
            format!("step {step} of its tables was made by another program: restore its table migrations"),
        ),
        other => StoreError::unavailable("make the tables", other),
    }
}
