//! SQLite's errors, classified by what the caller can do about them.

use rusqlite::{Error, ErrorCode};

use crate::error::StoreError;
use crate::sqlite::pages::Damage;

/// Returns the meaning of `error`, which occurred at `place` during `tried`. `damage` is the page that it is about.
/// `unopened` is the advice if no more files can be opened.
pub(super) fn fault(
    place: &str,
    tried: &str,
    error: &Error,
    damage: Option<&Damage>,
    unopened: Option<&str>,
) -> StoreError {
    let found = error.to_string();
    let unavailable = |advice: &str| StoreError::unavailable(format!("{tried} in {place}"), format!("{found}{advice}"));
    if damage.is_some_and(|damage| damage.is_bare) {
        return StoreError::Invalid(format!(
            "the pages of {place} have no checksums: another build made it, or its first page is damaged. Use the build \
             that made it, or rebuild the projection with this one"
        ));
    }
    if let Some(damage) = damage {
        return corrupt(&damage.file, &format!("{damage}, which was found when it was tried to {tried}"));
    }
    let Error::SqliteFailure(failure, _) = error else {
        return match error {
            Error::SqlInputError { error: failure, .. } if failure.code == ErrorCode::DatabaseCorrupt => {
                corrupt(place, &found)
            }
            // Any other refusal of rusqlite itself is about the statement or the types of its values.
            _ => StoreError::Invalid(format!("cannot {tried} in {place}: {found}")),
        };
    };
    match failure.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => corrupt(place, &found),
        ErrorCode::DiskFull => unavailable("; free some space on that disk, nothing was lost"),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            unavailable("; another process holds its write lock, look for one that has the file open")
        }
        ErrorCode::CannotOpen => {
            let file = "check that the file exists, and that this process may write to it and its folder";
            unavailable(&format!("; {}", unopened.unwrap_or(file)))
        }
        ErrorCode::ReadOnly => unavailable("; this process may not write to the file or its folder"),
        ErrorCode::ConstraintViolation
        | ErrorCode::TypeMismatch
        | ErrorCode::ParameterOutOfRange
        | ErrorCode::TooBig
        | ErrorCode::AuthorizationForStatementDenied
        | ErrorCode::Unknown => StoreError::Invalid(format!("cannot {tried} in {place}: {found}")),
        _ => unavailable(""),
    }
}

/// Returns the error for damage of a view, with the remedy.
pub(crate) fn corrupt(place: &str, found: &str) -> StoreError {
    StoreError::corrupt(
        place,
        format!(
            "{found}; everything in it comes from the journal: rebuild the projection and this version is cleaned up"
        ),
    )
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_full_disk_is_unavailable_and_says_what_to_do() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (a BLOB); PRAGMA max_page_count = 2").unwrap();
        let error = connection.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err();
        let fault = fault("/views/balances/v1.1.db", "write to table t", &error, None, None);
        assert!(matches!(fault, StoreError::Unavailable { .. }));
        let text = fault.to_string();
        assert!(text.starts_with("cannot write to table t in /views/balances/v1.1.db: "), "{text}");
        assert!(text.contains("free some space"), "{text}");
    }
}
