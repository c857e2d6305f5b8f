//! What the driver says, as the three kinds of failure that a store tells apart.

use dacapo_store::{StoreError, no_more_files};
use sqlx::postgres::PgDatabaseError;

/// Returns the failure of `tried`, which is a matter of this store alone.
pub(crate) fn fault(tried: &str, error: &sqlx::Error) -> StoreError {
    told(tried, error, of_own_code)
}

/// Returns the failure of `tried`, where a statement or the rows that it writes are the caller's.
pub(crate) fn fault_of_call(tried: &str, error: &sqlx::Error) -> StoreError {
    told(tried, error, of_code)
}

/// Returns the failure of `tried`, where the statement is one of this store, and no more than the rows that it writes
/// or the values that it asks for are the caller's.
pub(crate) fn fault_of_rows(tried: &str, error: &sqlx::Error) -> StoreError {
    told(tried, error, of_rows)
}

fn told(tried: &str, error: &sqlx::Error, whose: impl Fn(&str) -> Fault) -> StoreError {
    use sqlx::Error;
    match error {
        Error::Database(database) => of_server(tried, database.downcast_ref::<PgDatabaseError>(), whose),
        Error::PoolTimedOut => StoreError::unavailable(
            tried,
            "no connection to the database within the time allowed: either all connections of this node are in use, by \
             statements that take long or wait for a lock (pg_stat_activity shows them), or the database does not run or \
             accepts no more",
        ),
        Error::PoolClosed => StoreError::unavailable(tried, "the store is closed: open it again"),
        Error::ColumnDecode { .. } | Error::Decode(_) | Error::TypeNotFound { .. } | Error::ColumnNotFound(_) => {
            StoreError::corrupt(format!("what the database answered to {tried:?}"), error.to_string())
        }
        Error::Configuration(_) | Error::InvalidArgument(_) | Error::Encode(_) => {
            StoreError::Invalid(format!("cannot {tried}: {error}"))
        }
        Error::Io(io) => match no_more_files(io) {
            Some(advice) => StoreError::unavailable(tried, format!("{io}; {advice}")),
            None => StoreError::unavailable(tried, error),
        },
        other => StoreError::unavailable(tried, other),
    }
}

/// The side that caused the failure of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Of what was asked: it can never work.
    Caller,
    /// Of the server, its operator, the connection or other transactions: it may work later.
    Store,
    /// Of what is kept there, which is not as it was made.
    Damage,
}

/// By the code of the error, where the statement, or what it writes, is the caller's.
fn of_code(code: &str) -> Fault {
    match (class(code), code) {
        // Data or an index is corrupted.
        (_, "XX001" | "XX002") => Fault::Damage,
        // Rights, which somebody may give; statements that a connection has or has not prepared, which a pooler mixes up.
        (_, "42501" | "42P05") => Fault::Store,
        // Not supported; what a statement, its values and the constraints on them say; limits of the server.
        ("09" | "0A" | "20" | "21" | "22" | "23" | "24" | "2B" | "2D" | "2F" | "34" | "38" | "39", _) => Fault::Caller,
        ("3F" | "42" | "44" | "54" | "P0", _) => Fault::Caller,
        // The connection, passwords, transactions, resources, the operator, the configuration, and what else there may be.
        _ => Fault::Store,
    }
}

/// Returns the beginning of the code of an error.
fn class(code: &str) -> &str {
    code.get(..2).unwrap_or_default()
}

/// By the code, where the statement is one of this store. A caller can have given it no more than values.
fn of_own_code(code: &str) -> Fault {
    match (of_code(code), class(code)) {
        (Fault::Caller, "22" | "54") => Fault::Caller,
        // What must be unique is there already, or a constraint is not held.
        (Fault::Caller, "23") => Fault::Damage,
        // Tables or functions that cannot be found, a trigger that somebody put there.
        (Fault::Caller, _) => Fault::Store,
        (fault, _) => fault,
    }
}

/// By the code, where the statement is one of this store, and its rows are the caller's: what an index or a constraint
/// does not let in is theirs too. That a table, a column or a right is not there any more never is.
fn of_rows(code: &str) -> Fault {
    if class(code) == "23" { Fault::Caller } else { of_own_code(code) }
}

fn of_server(tried: &str, error: &PgDatabaseError, whose: impl Fn(&str) -> Fault) -> StoreError {
    let code = error.code();
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let found = format!("{}{hint} [SQLSTATE {code}]", error.message());
    match whose(code) {
        Fault::Damage => StoreError::corrupt("the database", format!("cannot {tried}: {found}")),
        Fault::Store => match advice(code, error.r#where()) {
            Some(advice) => StoreError::unavailable(tried, format!("{found}: {advice}")),
            None => StoreError::unavailable(tried, found),
        },
        Fault::Caller => StoreError::Invalid(format!("cannot {tried}: {found}")),
    }
}

/// Where to see who waits for whom.
const LOCKS: &str = "SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity WHERE wait_event_type = 'Lock' shows \
                     who waits for whom, and pg_locks what is locked";

/// Returns the meaning of a code that says too little by itself, and what to do. `context` is where in a function, or at
/// which row, the server was.
fn advice(code: &str, context: Option<&str>) -> Option<String> {
    let table = context.and_then(table_in).map(|table| format!(" on table {table}")).unwrap_or_default();
    Some(match code {
        "3F000" | "42P01" | "42883" | "42703" | "42704" => {
            "it was dropped or renamed, or this user may not use the schema any more (GRANT USAGE ON SCHEMA)".to_owned()
        }
        "55P03" => format!(
            "the database answers, but another session holds a lock{table}, and the statement waits for it: {LOCKS}"
        ),
        "57014" => format!(
            "the database answers, but the statement was ended{table}: at its time limit, because it waits for a lock or the \
             server is busy, or by somebody (pg_cancel_backend): {LOCKS}"
        ),
        _ => return None,
    })
}

/// Returns the table that the server was at, from the context of an error: that of a row, or that of a statement within a
/// function. The words around it depend on the server's language.
fn table_in(context: &str) -> Option<&str> {
    let statement = || {
        let (at, word) =
            [" FROM ", " INTO ", "UPDATE "].iter().filter_map(|word| Some((context.find(word)?, word))).min()?;
        context[at + word.len()..].split([' ', '(', '"', ';', '\n']).next()
    };
    let is_statement = context.contains("SELECT ") || context.contains("INSERT ") || context.contains("UPDATE ");
    let table = if is_statement { statement() } else { context.split('"').nth(1) };
    table.filter(|table| !table.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_with_its_table_where_the_server_says_it() {
        for (context, table) in [
            (Some("while locking tuple (0,1) in relation \"sequencer\""), " on table sequencer,"),
            (Some("beim Sperren von Tupel »(0,1)« in Relation \"sequencer\""), " on table sequencer,"),
            (
                Some("SQL statement \"SELECT FROM sequencer FOR UPDATE\"\nPL/pgSQL function append(bigint)"),
                " on table sequencer,",
            ),
            (Some("SQL statement \"INSERT INTO events (position) SELECT 1 FROM x\""), " on table events,"),
            (Some("PL/pgSQL function append(bigint) line 7"), "holds a lock,"),
            (None, "holds a lock,"),
        ] {
            let told = advice("55P03", context).unwrap();
            assert!(told.contains(table) && told.contains("pg_stat_activity"), "{context:?}: {told}");
        }
        assert!(advice("57014", None).unwrap().contains("pg_cancel_backend"));
        assert_eq!(advice("53100", None), None);
    }

    #[test]
    fn failures_are_told_apart_by_whose_fault_they_are() {
        use Fault::{Caller, Damage, Store};
        for (code, of_call, own, rows) in [
            ("08006", Store, Store, Store),
            ("22021", Caller, Caller, Caller),
            ("23505", Caller, Damage, Caller),
            ("25006", Store, Store, Store),
            ("25001", Store, Store, Store),
            ("26000", Store, Store, Store),
            ("28P01", Store, Store, Store),
            ("3D000", Store, Store, Store),
            ("3F000", Caller, Store, Store),
            ("40001", Store, Store, Store),
            ("40P01", Store, Store, Store),
            ("42501", Store, Store, Store),
            ("42601", Caller, Store, Store),
            ("42703", Caller, Store, Store),
            ("42883", Caller, Store, Store),
            ("42P01", Caller, Store, Store),
            ("42P05", Store, Store, Store),
            ("53100", Store, Store, Store),
            ("54000", Caller, Caller, Caller),
            ("55P03", Store, Store, Store),
            ("57014", Store, Store, Store),
            ("57P01", Store, Store, Store),
            ("58030", Store, Store, Store),
            ("F0000", Store, Store, Store),
            ("P0001", Caller, Store, Store),
            ("XX000", Store, Store, Store),
            ("XX001", Damage, Damage, Damage),
            ("XX002", Damage, Damage, Damage),
            ("", Store, Store, Store),
        ] {
            assert_eq!((of_code(code), of_own_code(code), of_rows(code)), (of_call, own, rows), "{code}");
        }
    }
}
