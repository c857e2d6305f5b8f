//! The limits that HTTP adds.

use std::time::Duration;

use dacapo_model::limits;

/// Largest body of an append, in bytes. JSON takes more room than records, above all for small events.
pub const APPEND_BODY_BYTES_MAX: usize = 64 << 20;
/// Largest body of any other request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a request may wait for events or for a flip; one that asks for longer is answered then.
pub const WAIT_TIME_MAX: Duration = Duration::from_secs(60);
/// How long requests under way may take to finish once the server shuts down.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(limits::APPEND_BYTES_MAX < APPEND_BODY_BYTES_MAX, "the largest append fits a body");
