//! The limits of a client of the API. All are defaults of [`ClientLimits`](crate::ClientLimits).

use std::time::Duration;

use dacapo_model::limits;

/// Longest time for connecting: a node on the same network answers in milliseconds or not at all.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Longest time for a call, beside the time that the call asks the node to wait. A node answers within
/// [`limits::REQUEST_TIME_MAX`], and the rest is for connecting and for a large answer.
pub(crate) const CALL_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes: a status of many versions, or a history, with room to spare.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(
    CONNECT_TIME_MAX.as_millis() + limits::REQUEST_TIME_MAX.as_millis() < CALL_TIME_MAX.as_millis(),
    "a node that does not get the answer from its store can still say so"
);
const _: () = assert!(limits::APPEND_BYTES_MAX < ANSWER_BYTES_MAX, "the events of any append can be read back");
