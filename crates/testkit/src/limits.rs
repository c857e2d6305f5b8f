//! The limits of a case.

use std::time::Duration;

use dacapo::limits;

/// Longest time for which a case waits for what must happen. Nothing waits for so long unless it never happens.
pub(crate) const CASE_TIME_MAX: Duration = Duration::from_secs(30);
/// Time between two looks: most cases end after a few.
pub(crate) const CASE_LOOK: Duration = Duration::from_millis(1);
/// Most dead letters that a failed case shows. The first ones show the cause.
pub(crate) const LETTERS_MAX: usize = 100;

const _: () = assert!(
    limits::STALL_TIME_MAX.as_millis() < CASE_TIME_MAX.as_millis()
        && limits::REQUEST_TIME_MAX.as_millis() < CASE_TIME_MAX.as_millis(),
    "a case that fails can show the reason"
);
const _: () = assert!(LETTERS_MAX <= limits::LETTERS_READ_MAX, "they are read at once");
