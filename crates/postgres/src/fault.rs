//! What the driver says, as the three kinds of failure that a store tells apart.

use dacapo_store::StoreError;
use sqlx::postgres::PgDatabaseError;

/// The failure of `tried`.
pub(crate) fn fault(tried: &str, error: &sqlx::Error) -> StoreError {
    use sqlx::Error;
    match error {
        Error::Database(database) => of_server(tried, database.downcast_ref::<PgDatabaseError>()),
        Error::PoolTimedOut => StoreError::unavailable(
            tried,
            "no connection to the database within the time allowed: see whether it runs and lets more connect",
        ),
        Error::PoolClosed => StoreError::unavailable(tried, "the store is closed: open it again"),
        Error::ColumnDecode { .. } | Error::Decode(_) | Error::TypeNotFound { .. } | Error::ColumnNotFound(_) => {
            StoreError::corrupt(format!("what the database answered to {tried:?}"), error.to_string())
        }
        Error::Configuration(_) | Error::InvalidArgument(_) | Error::Encode(_) => {
            StoreError::Invalid(format!("cannot {tried}: {error}"))
        }
        other => StoreError::unavailable(tried, other),
    }
}

fn of_server(tried: &str, error: &PgDatabaseError) -> StoreError {
    let code = error.code();
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let found = format!("{}{hint} [SQLSTATE {code}]", error.message());
    match (&code[..2], code) {
        // Data or index corrupted.
        ("XX", "XX001" | "XX002") => StoreError::corrupt("the database", format!("cannot {tried}: {found}")),
        // The connection, the server's resources, its operator, other transactions, a server that only reads.
        ("08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX", _) => StoreError::unavailable(tried, found),
        // A password or a right that somebody may mend while this runs, and a database that is not there yet.
        ("28" | "3D", _) | (_, "42501") => StoreError::unavailable(tried, found),
        _ => StoreError::Invalid(format!("cannot {tried}: {found}")),
    }
}
