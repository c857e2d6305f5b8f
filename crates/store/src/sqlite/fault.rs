//! SQLite's errors, told apart by what the caller can do about them.

use rusqlite::{Error, ErrorCode};

use crate::error::StoreError;

/// What `error`, met at `place` while doing what `tried` says, means to the caller.
pub(crate) fn fault(place: &str, tried: &str, error: &Error) -> StoreError {
    let found = error.to_string();
    let unavailable = |advice: &str| StoreError::unavailable(format!("{tried} in {place}"), format!("{found}{advice}"));
    let Error::SqliteFailure(failure, _) = error else {
        return match error {
            Error::SqlInputError { error: failure, .. } if failure.code == ErrorCode::DatabaseCorrupt => {
                corrupt(place, &found)
            }
            // Whatever else rusqlite itself refuses is about the statement or the types of its values.
            _ => StoreError::Invalid(format!("cannot {tried} in {place}: {found}")),
        };
    };
    match failure.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => corrupt(place, &found),
        ErrorCode::DiskFull => unavailable("; free some space on that disk, nothing was lost"),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            unavailable("; another process holds its write lock, look for one that has the file open")
        }
        ErrorCode::CannotOpen => unavailable("; is the file there, and may this process write to it and its folder?"),
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

fn corrupt(place: &str, found: &str) -> StoreError {
    StoreError::corrupt(
        place,
        format!(
            "{found}; everything in it comes from the journal: rebuild the projection and this version is cleaned up"
        ),
    )
}
