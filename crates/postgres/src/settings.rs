//! The settings that every connection has, set and then read back.
//!
//! What a server, a database, a user or a pooler between presets says how texts are read, how values are written, how
//! long somebody waits and when a commit is durable. So nothing is assumed: whatever comes first on a connection, all of
//! these are set on it, unless they are right already, and then read back in another statement.

use std::time::Duration;

use dacapo_store::StoreError;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::limits;
use crate::quote::literal;

/// What parses texts, writes values, isolates and keeps, the same on every server there is: as PostgreSQL has it unless
/// it is set otherwise, except for the time zone.
const FIXED: &[(&str, &str)] = &[
    // How statements are read.
    ("standard_conforming_strings", "on"),
    ("backslash_quote", "safe_encoding"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    ("quote_all_identifiers", "off"),
    ("xmloption", "content"),
    ("xmlbinary", "base64"),
    // How values are read and written.
    ("client_encoding", "UTF8"),
    ("bytea_output", "hex"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("timezone_abbreviations", "Default"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    // What a transaction sees, and whether it may write.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    // Rows that a policy would hide are an error, not missing.
    ("row_security", "off"),
    ("session_replication_role", "origin"),
    // Damage is an error, not an empty page.
    ("zero_damaged_pages", "off"),
    ("ignore_checksum_failure", "off"),
    // What statements answer, and that an error leaves the connection as it is.
    ("gin_fuzzy_search_limit", "0"),
    ("exit_on_error", "off"),
    // A connection waits for its next use as long as it may be.
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    // Every statement here is short: compiling one takes longer than it saves.
    ("jit", "off"),
];

/// A setting of which the server tells nothing on a local socket.
pub(crate) const TCP_USER_TIMEOUT: &str = "tcp_user_timeout";

/// Settings of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Settings(Vec<(String, String)>);

impl Settings {
    /// Returns those of each connection to the tables in `schema`.
    pub(crate) fn new(schema: &str, application_name: &str) -> Self {
        let mut settings = Self(FIXED.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        settings.set("search_path", &format!("{schema}, pg_temp"));
        settings.set("application_name", application_name);
        settings.set("idle_in_transaction_session_timeout", &shown(limits::IDLE_IN_TRANSACTION_TIME_MAX));
        settings.set("lock_timeout", &shown(limits::LOCK_TIME_MAX));
        settings.set("statement_timeout", &shown(limits::STATEMENT_TIME_MAX));
        settings
    }

    /// The same, and one more.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.into(), value.into()));
    }

    /// Sets them on a connection, and reads them back.
    ///
    /// # Errors
    /// [`sqlx::Error::Configuration`], which names the setting, when one is not as it must be.
    pub(crate) async fn apply(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // A pooler may hand on what another client left: prepared statements, temporary tables, locks.
        sqlx::raw_sql("DISCARD ALL").execute(&mut *connection).await?;
        // What was preset is back.
        take_time(connection).await?;
        sqlx::raw_sql(AssertSqlSafe(self.apply_sql())).execute(&mut *connection).await?;
        let row = sqlx::raw_sql(AssertSqlSafe(self.read_sql())).fetch_one(connection).await?;
        for (index, (name, value)) in self.0.iter().enumerate() {
            let found: Option<String> = row.try_get(index)?;
            // One that this server does not know does nothing there.
            if name != TCP_USER_TIMEOUT
                && let Some(found) = found
                && found != *value
            {
                return Err(wrong(name, &found, value));
            }
        }
        let durable: String = row.try_get(self.0.len())?;
        // I-2
        if durable == "off" { Err(wrong("synchronous_commit", &durable, "on")) } else { Ok(()) }
    }

    /// One that is right is not touched, since some take rights to set.
    fn apply_sql(&self) -> String {
        let each = self.0.iter().map(|(name, value)| {
            let (name, value) = (literal(name), literal(value));
            format!("CASE WHEN current_setting({name}, true) <> {value} THEN set_config({name}, {value}, false) END")
        });
        // I-2
        // What waits for stand-bys, or not, is the operator's to say; that it waits for the disk is not.
        let durable = "CASE current_setting('synchronous_commit') WHEN 'off' \
                       THEN set_config('synchronous_commit', 'on', false) END";
        format!("SELECT {}, {durable}", each.collect::<Vec<_>>().join(", "))
    }

    fn read_sql(&self) -> String {
        let each = self.0.iter().map(|(name, _)| format!("current_setting({}, true)", literal(name)));
        format!("SELECT {}, current_setting('synchronous_commit')", each.collect::<Vec<_>>().join(", "))
    }
}

/// Lets what follows on a connection take its time, until [`Settings::apply`] sets the limits: what is preset may end the
/// very statements that would set them. Each of these here takes microseconds, so a few tries find the time for it.
pub(crate) async fn take_time(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // By its number, since a server that does not know a setting refuses to set it.
    let transaction = connection.server_version_num().is_some_and(|version| version >= 170_000);
    let transaction = if transaction { "SET transaction_timeout = 0;" } else { "" };
    let sql = format!("SET statement_timeout = 0; SET idle_session_timeout = 0; {transaction} SET lock_timeout = 0");
    let mut tries = 1;
    loop {
        match sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *connection).await {
            Err(sqlx::Error::Database(error))
                if error.code().as_deref() == Some("57014") && tries < limits::TAKE_TIME_TRIES_MAX =>
            {
                tries += 1;
            }
            done => return done.map(drop),
        }
    }
}

fn wrong(name: &str, found: &str, wanted: &str) -> sqlx::Error {
    sqlx::Error::Configuration(
        format!(
            "the setting {name} is {found:?} on this connection, and not {wanted:?} as it was set: if a pooler is \
             between, it must pool sessions; otherwise see who sets it (ALTER ROLE, ALTER DATABASE, postgresql.conf)"
        )
        .into(),
    )
}

/// Returns a time as PostgreSQL shows it: in the largest unit that has no rest.
pub(crate) fn shown(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0 => "0".to_owned(),
        _ if millis.is_multiple_of(60_000) => format!("{}min", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// Refuses a pooler that lends a server's connection for each transaction or statement: settings, locks and notifications of a
/// connection would be those of somebody else.
///
/// One connection leaves a mark; another one that is in a transaction has the same server's connection if it finds the
/// mark there, or the first one has lost its own if it does not.
pub(crate) async fn check_sessions(one: &mut PgConnection, other: &mut PgConnection) -> Result<(), StoreError> {
    const READ: &str = "current_setting('dacapo.session', true)";
    let fault = |error: sqlx::Error| crate::fault::fault("see whether connections are kept apart", &error);
    // With other clients about, one look may find nothing.
    for _ in 0..3 {
        let set = "SELECT set_config('dacapo.session', gen_random_uuid()::text, false)";
        let mark: String =
            sqlx::raw_sql(set).fetch_one(&mut *one).await.and_then(|row| row.try_get(0)).map_err(fault)?;
        let read = async |connection: &mut PgConnection, sql: String| -> Result<bool, StoreError> {
            let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await.map_err(fault)?;
            let found: Option<String> =
                rows.last().and_then(|row| row.try_get(0).transpose()).transpose().map_err(fault)?;
            Ok(found.as_ref() == Some(&mark))
        };
        let shared = match sqlx::raw_sql("BEGIN").execute(&mut *other).await {
            Ok(_) => read(other, format!("SELECT {READ}")).await?,
            // One that lends connections for each statement knows no transactions.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("08P01") => true,
            Err(error) => return Err(fault(error)),
        };
        // What is left of the transaction ends with its connection.
        let kept = !shared && read(one, format!("SELECT {READ}")).await?;
        if kept {
            sqlx::raw_sql("ROLLBACK").execute(&mut *other).await.map_err(fault)?;
        } else {
            return Err(StoreError::Invalid(
                "the pooler before the database lends connections for less than a session, so settings, locks and \
                 notifications of one would be those of another: let it pool sessions (pool_mode = session in PgBouncer)"
                    .into(),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_the_server_shows_them() {
        for (millis, expected) in [(0, "0"), (1, "1ms"), (1_500, "1500ms"), (30_000, "30s"), (120_000, "2min")] {
            assert_eq!(shown(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn the_last_of_a_name_holds() {
        let mut settings = Settings::new("dacapo", "dacapo");
        settings.set("jit", "on");
        let jit: Vec<_> = settings.0.iter().filter(|(name, _)| name == "jit").collect();
        assert_eq!(jit, [&("jit".to_owned(), "on".to_owned())]);
    }
}
