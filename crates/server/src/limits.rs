//! The limits that HTTP adds.

use std::time::Duration;

use dacapo_model::limits;

/// Largest body of an append, in bytes: the largest append, and room for what JSON adds to it.
pub const APPEND_BODY_BYTES_MAX: usize = limits::APPEND_BYTES_MAX + (8 << 20);
/// Largest body of any other request, in bytes. They have names, positions and a reason.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Most bytes of bodies that are read at the same time. A request with more waits. It is a few of the largest appends,
/// and bounds the memory of a node that many callers write to.
pub const BODIES_BYTES_MAX: usize = 128 << 20;
/// Largest body, in bytes, that is read without waiting for others, and parsed at once. All connections together have
/// 32 MiB of these.
pub const SMALL_BODY_BYTES_MAX: usize = 64 << 10;
/// Longest time for a body to arrive, including the time that it waits for others. The largest append then needs less
/// than one megabyte a second.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest time for which a request may wait for events or for a flip. A request that asks for longer is answered then.
/// Proxies often close a connection that is silent for longer.
pub const WAIT_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest time for which a reader may wait for events. It then calls again, so that a reader that is gone does not keep a
/// subscription for long.
pub(crate) const READ_WAIT_TIME_MAX: Duration = Duration::from_secs(30);
/// Most bytes of events in one answer. A longer one is cut, and the reader continues with the next call. An event that
/// is larger comes alone. It bounds the memory of an answer, and a reader has its first events soon.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Default of the number of entries in an answer. They are mostly below [`ANSWER_BYTES_MAX`].
pub(crate) const ANSWER_ENTRIES: u32 = 1_000;
/// Most entries in an answer, whatever is requested. Of events [`limits::READ_EVENTS_MAX`]. It bounds the memory of an
/// answer.
pub(crate) const ANSWER_ENTRIES_MAX: u32 = 10_000;
/// Default of the number of letters in an answer. A person reads no more at once.
pub(crate) const ANSWER_LETTERS: u32 = 100;
/// Longest time for requests under way to finish once the server shuts down. The node stops after this, and both must
/// end within [`limits::END_TIME_MAX`].
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);
/// Most connections. It is lower if the system allows the process fewer than twice as many files, including the
/// reserve. It bounds the memory of a node. A caller keeps its connection, so these are as many callers.
pub const CONNECTIONS_MAX: usize = 512;
/// Most additional connections, for probes only, while all others have a request under way. Few probes are under way at
/// the same time.
pub const RESERVE_CONNECTIONS_MAX: usize = 16;
/// Longest time for the headers of a request to arrive. It is also the longest rest of a connection between two
/// requests. Headers are a few packets. A caller that sends none keeps a place from others.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(15);
/// Longest time for which a caller may read nothing of its answer. A caller that is paused for a moment goes on, and
/// one that is gone frees its place.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time for an answer after the caller has closed its side of the connection. A request that does not ask for a
/// longer wait is answered by then; a caller that is gone costs nothing after that.
pub(crate) const CLOSED_TIME_MAX: Duration = limits::REQUEST_TIME_MAX;
/// Time between two checks whether a caller with a request under way has closed its side. A check is one call to the
/// system, and a caller that is gone frees its place this soon.
pub(crate) const LINE_LOOK: Duration = Duration::from_millis(250);
/// Largest head of a request, in bytes. Proxies add headers, but no more than that.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest time for a connection that has to make room to finish its present answer. Most answers take less, and
/// another caller waits for the place.
pub const LEAVE_TIME_MAX: Duration = Duration::from_secs(1);
/// Number of files that are kept in reserve for connections that arrive when the process may open no more. A connection
/// that gets one of them is taken in, and others can be closed for the next.
pub const SPARE_FILES: usize = 4;
/// Smallest number of files that a process needs: those of a store, a few views and a few connections.
pub const FILES_MIN: usize = 64;
/// Time to rest before the next connection is accepted when the system allows the process no more files. Files are
/// freed as requests end, and a loop without a pause would keep a core busy.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between two log lines about that. The lines say the same each time.
pub const ACCEPT_LOG_PAUSE: Duration = Duration::from_secs(10);

// Bodies.
const _: () = assert!(SMALL_BODY_BYTES_MAX >= BODY_BYTES_MAX, "only appends wait for room");
const _: () = assert!(APPEND_BODY_BYTES_MAX <= BODIES_BYTES_MAX, "the largest append can be taken in");
const _: () = assert!(
    HEADER_TIME_MAX.as_millis() <= BODY_TIME_MAX.as_millis(),
    "a caller has no less time for a body than for its headers"
);

// Answers.
const _: () = assert!(ANSWER_ENTRIES <= ANSWER_ENTRIES_MAX && ANSWER_ENTRIES as usize <= limits::READ_EVENTS_MAX);
const _: () = assert!(ANSWER_LETTERS as usize <= limits::LETTERS_READ_MAX, "the default is one read");
const _: () = assert!(
    READ_WAIT_TIME_MAX.as_millis() <= WAIT_TIME_MAX.as_millis(),
    "a reader waits no longer than any request may"
);
const _: () = assert!(
    limits::REQUEST_TIME_MAX.as_millis() <= WAIT_TIME_MAX.as_millis(),
    "a request may wait for as long as it does by default"
);

// Connections.
const _: () = assert!(
    LEAVE_TIME_MAX.as_millis() < DRAIN_TIME_MAX.as_millis(),
    "a connection that makes room has gone before the server has"
);
const _: () = assert!(
    DRAIN_TIME_MAX.as_millis() + limits::SHUTDOWN_TIME_MAX.as_millis() <= limits::END_TIME_MAX.as_millis(),
    "a process that serves a node ends before a supervisor kills it"
);
const _: () = assert!(
    limits::ANSWER_TIME_MAX.as_millis() <= CLOSED_TIME_MAX.as_millis(),
    "a caller that sends nothing after its request gets its answer"
);
const _: () = assert!(LINE_LOOK.as_millis() < CLOSED_TIME_MAX.as_millis(), "a caller that is gone is soon noticed");
const _: () = assert!(
    SPARE_FILES < FILES_MIN && RESERVE_CONNECTIONS_MAX < CONNECTIONS_MAX,
    "what is kept in reserve is the smaller part"
);
const _: () = assert!(ACCEPT_PAUSE.as_millis() < ACCEPT_LOG_PAUSE.as_millis(), "not every pause is logged");
