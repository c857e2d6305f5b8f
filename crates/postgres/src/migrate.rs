//! The tables, brought to the form that this program knows.
//!
//! Each step is applied in a transaction of its own, together with the note that it was. Nodes that start at once take
//! turns at an advisory lock, which its connection gives up however it ends.

use dacapo_store::StoreError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr};

use crate::fault::fault;
use crate::limits;
use crate::quote::quoted;

/// The steps in order. One that was released never changes: add another.
const STEPS: &[(&str, &str)] = &[
    ("journal", include_str!("../migrations/0001_journal.sql")),
    ("members", include_str!("../migrations/0002_members.sql")),
    ("published", include_str!("../migrations/0003_published.sql")),
    ("in_place", include_str!("../migrations/0004_in_place.sql")),
    ("probe", include_str!("../migrations/0005_probe.sql")),
];

/// Brings `schema` to the form of the last step. The connection must be closed afterwards.
pub(crate) async fn migrate(connection: &mut PgConnection, schema: &str) -> Result<(), StoreError> {
    let tried = "make the tables";
    let failed = |error: sqlx::Error| fault(tried, &error);
    let wait = format!("SET lock_timeout = {}", limits::MAKE_LOCK_TIME_MAX.as_millis());
    sqlx::raw_sql(AssertSqlSafe(wait)).execute(&mut *connection).await.map_err(failed)?;
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
        let create = format!("CREATE SCHEMA {}", quoted(schema));
        sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await.map_err(failed)?;
    }
    check_free(connection, schema).await?;
    migrator().run_direct(None, connection, false).await.map_err(|error| of_step(schema, error))
}

/// Refuses a schema that is something else, before anything is made in it. What a step makes is there together with the
/// note of it, so tables without that note are somebody else's.
async fn check_free(connection: &mut PgConnection, schema: &str) -> Result<(), StoreError> {
    let names = "SELECT relname::text FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
                 AND relname IN ('_dacapo_view', '_dacapo_serving', 'migrations', 'events', 'sequencer', 'members', 'published',
                   'probe')
                 ORDER BY relname";
    let failed = |error: sqlx::Error| fault("look what is in the schema", &error);
    let names: Vec<String> =
        sqlx::query_scalar(names).bind(schema).fetch_all(&mut *connection).await.map_err(failed)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let refused = |found: String| {
        Err(StoreError::Invalid(format!("the schema {schema} cannot have the journal: {found}: choose another schema")))
    };
    if has("_dacapo_view") {
        return refused("it is the view of a version, and is dropped when that is cleaned up".to_owned());
    }
    if has("_dacapo_serving") {
        return refused("it has the names under which SQL from outside finds a projection".to_owned());
    }
    let Some(first) = names.first() else { return Ok(()) };
    let columns =
        "SELECT count(*) FROM pg_attribute WHERE attnum > 0 AND attname IN ('version', 'checksum', 'execution_time')
                   AND attrelid = to_regclass($1)";
    let table = format!("{}.migrations", quoted(schema));
    let columns: i64 = sqlx::query_scalar(columns).bind(&table).fetch_one(&mut *connection).await.map_err(failed)?;
    let noted = format!("SELECT EXISTS (SELECT FROM {table} WHERE version = 1 AND description = 'journal')");
    let noted = match columns {
        3 => sqlx::query_scalar(AssertSqlSafe(noted)).fetch_one(connection).await.map_err(failed)?,
        _ => false,
    };
    // Nobody came further than to make the table of the notes.
    let is_begun = columns == 3 && names.len() == 1;
    if noted || is_begun { Ok(()) } else { refused(format!("it has a table {first} of something else")) }
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
