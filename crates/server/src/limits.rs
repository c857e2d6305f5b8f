//! The limits that HTTP adds.

use std::time::Duration;

use dacapo_model::limits;

/// Largest body of an append, in bytes: what an append may have at most, and what JSON adds to it.
pub const APPEND_BODY_BYTES_MAX: usize = limits::APPEND_BYTES_MAX + (8 << 20);
/// Largest body of any other request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Most bytes of bodies that are taken in at the same time; whoever comes with more waits.
pub const BODIES_BYTES_MAX: usize = 128 << 20;
/// A body up to so many bytes is taken in whatever others take, and is understood where it arrives.
pub const SMALL_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a body may take to arrive, the time that it waits for others included.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a request may wait for events or for a flip; one that asks for longer is answered then.
pub const WAIT_TIME_MAX: Duration = Duration::from_secs(60);
/// How long requests under way may take to finish once the server shuts down.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Most connections, unless the system lets the process have less than twice as many files, the reserve included.
pub const CONNECTIONS_MAX: usize = 512;
/// Most connections on top of those, for probes only, while all others have a request under way.
pub const RESERVE_CONNECTIONS_MAX: usize = 16;
/// How long the headers of a request may take to arrive, which is also how long a connection may rest between two.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a caller may take nothing of its answer.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a connection that has to make room may take for the answer that it is in.
pub const LEAVE_TIME_MAX: Duration = Duration::from_secs(1);
/// How many files are kept back for connections that come when the process may open no more.
pub const SPARE_FILES: usize = 4;
/// How many files a process should be let have at least: those of a store, a few views and a few connections.
pub const FILES_MIN: usize = 64;
/// How long to rest before the next connection is taken when the system lets the process have no more.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often that is logged at most.
pub const ACCEPT_LOG_PAUSE: Duration = Duration::from_secs(10);

const _: () = assert!(SMALL_BODY_BYTES_MAX >= BODY_BYTES_MAX, "only appends wait for room");
const _: () = assert!(APPEND_BODY_BYTES_MAX <= BODIES_BYTES_MAX, "the largest append can be taken in");
