//! The limits of this store. `dacapo_model::limits` explains the endings of names.

use std::time::Duration;

use dacapo_model::limits;

/// Most connections of a node for views, unless it is set otherwise. Those of the journal come on top. A few nodes stay
/// below the 100 that a server allows by default.
pub const CONNECTIONS_MAX: u32 = 16;
/// Longest time to try for a connection before a request fails. A server on the same network takes milliseconds, and
/// [`RETRY_TIME_MAX`] has room for another try.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The time for which a transaction may wait for its client's next statement: anyone who stops in the middle of one
/// holds up others no longer than this. It is less than a lease.
pub const IDLE_IN_TRANSACTION_TIME_MAX: Duration = Duration::from_secs(2);
/// The time for which a statement waits for a lock. It is short, so that a request, a handler or a node that waits for a
/// lock says so before it counts as slow, or the database as silent. What needs the lock tries again.
pub const LOCK_TIME_MAX: Duration = Duration::from_secs(1);
/// The same for the journal, where appends of all nodes take turns, and for transactions that write to a view: longer
/// than a holder that stopped can keep the lock, so that they only wait for it.
pub const WRITE_LOCK_TIME_MAX: Duration = Duration::from_secs(3);
/// The same where tables, views or indexes are made or dropped, which only one node does at a time. Longer than a holder
/// that stopped can keep a lock.
pub const MAKE_LOCK_TIME_MAX: Duration = Duration::from_secs(10);
/// The same for the renewal of a lease, and for a read of the leases of others. It is less than the wait for the answer,
/// so that the lock is named as the reason.
pub(crate) const LEASE_LOCK_TIME_MAX: Duration = Duration::from_millis(500);
/// The time for which the names that SQL from outside uses are waited for when they are moved, and so the longest that
/// a query waits for that. It is less than a hold. Without success the move is tried again.
pub const NAME_LOCK_TIME_MAX: Duration = Duration::from_millis(100);
/// The time for which the version that served is kept where it is until the new one covers what it has shown. It is
/// less than a hold, and mostly one batch is missing.
pub const NAME_COVER_TIME_MAX: Duration = Duration::from_millis(200);
/// The time between two checks of that. Queries wait meanwhile.
pub(crate) const NAME_COVER_LOOK: Duration = Duration::from_millis(5);
/// The time that a statement may take, unless a transaction sets it otherwise for itself. It is three times the wait
/// for a lock, so the rest is for work.
pub const STATEMENT_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time to wait for the answer to a statement: longer than the server lets it run, so that silence means that the
/// server or the network is gone.
pub const SILENCE_TIME_MAX: Duration = Duration::from_secs(40);
/// Most tries to lift a preset time limit that ends the statement which lifts it. Such a limit is a few milliseconds, and
/// one try in several is faster.
pub(crate) const TAKE_TIME_TRIES_MAX: u32 = 10;
/// Longest time to wait for the answer to the renewal of a lease, or to a read of the leases of others. The renewals of
/// a lease are this far apart.
pub const LEASE_CALL_TIME_MAX: Duration = Duration::from_secs(1);
/// The first pause after a failed try to reach the database. A connection that was lost is often back at once.
pub const BACK_OFF_PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest pause after a failed try to reach the database. A database that is back is noticed this soon.
pub const BACK_OFF_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The time for which an append or a read is tried again while the database cannot be reached. After that its caller is
/// told. A caller waits [`limits::ANSWER_TIME_MAX`], and must still get the reason.
pub const RETRY_TIME_MAX: Duration = Duration::from_secs(8);
/// The time that one call to the database may take at least, however late it was begun. A call that is given up earlier
/// would fail on a server that works and is slow.
pub const CALL_TIME_MIN: Duration = Duration::from_millis(1_500);
/// Most appends that wait to be written. They bound the memory, and as many fit one group.
pub const WAITING_APPENDS_MAX: usize = 4096;
/// Most events of one group, unless a single append has more. One statement writes them all, and the first append waits
/// for it.
pub const GROUP_EVENTS_MAX: usize = 4096;
/// From this many bytes of records on a group takes no more appends. More would take longer to send, and the first
/// append waits for it.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Number of turns that other tasks get before a group is written, while each turn brings appends to it. Appends of
/// tasks that are ready arrive in the first turns. More turns would only add to the wait.
pub const GATHER_TURNS_MAX: usize = 4;
/// Most marks of the journal's history that a node knows. They are some kilobytes. Of older ones fewer are kept.
pub const KNOWN_MARKS_MAX: usize = 512;
/// Most streams of which a node knows the last revision while nobody else appends. They are a few megabytes. A stream
/// that is not known costs one look.
pub const KNOWN_STREAMS_MAX: usize = 65_536;
/// Most connections that read the journal at once. Other reads wait for their turn, and the database has work for other
/// nodes as well.
pub const READERS_MAX: u32 = 4;
/// Fewest positions that one read looks at, if there are so many, whatever the number of events it may return. A look
/// that is too short costs more for its call than for its events.
pub const LOOK_EVENTS_MIN: usize = 16_384;
/// Below one wanted event in so many, the index of types is asked where the next ones are. Above it, reading the events
/// in between costs less than finding each by the index.
pub const SPARSE_RATIO: usize = 8;
/// Most positions that one read goes through by the index of types. They are counted, to see that none is missing, which
/// takes some 0.2 s for a million where the index alone tells.
pub const SPARSE_LOOK_EVENTS_MAX: u64 = 1 << 20;
/// Fewest positions that are read by `COPY`. With fewer a plain query is faster.
pub(crate) const COPY_EVENTS_MIN: u64 = 1_000;
/// Most events whose places are read at once. Each place has a few dozen bytes, and never a kilobyte. A read looks at
/// no fewer positions.
pub(crate) const PLACES_READ_MAX: u64 = 16_384;
/// Most rows in one statement of a bulk write. Larger statements are no faster, and take more memory on both sides.
pub(crate) const BLOCK_ROWS_MAX: usize = 10_000;
/// The number of positions that are counted with each look at the head, over and over through all of the journal. It is
/// a small read, each [`HEAD_LOOK`].
pub const SCRUB_EVENTS_MAX: u64 = 16_384;
/// The time between two looks at the head. Appends of other nodes are notified at once; the look is for lost
/// notifications. A version whose notifications are lost still follows.
pub const HEAD_LOOK: Duration = Duration::from_secs(1);
/// The time that the server keeps a listener that takes no notifications, where it can see that: over TCP. Its
/// connection is then made again. A shorter one would cut off a node that is only slow.
pub const LISTENER_STOPPED_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time to wait for the answer to a look at the head. It is several looks, so a slow server is no failure.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// From this time on a read that was given up counts as one that failed: nobody reads a row for so long.
pub(crate) const READ_TIME_LONG: Duration = Duration::from_secs(2);
/// Shortest time between two tries of a read that failed. Each question whether the view is well may cause one. Probes
/// may ask more often.
pub(crate) const FAILED_READ_LOOK: Duration = Duration::from_millis(500);
/// The time for which such a try waits for a lock: a table that is only locked is not damaged. A probe waits for the
/// answer.
pub(crate) const PROBE_LOCK_TIME_MAX: Duration = Duration::from_millis(50);
/// The time for which one state of a view is kept for a reader that does nothing with it. It blocks nobody, but the
/// database removes no old rows meanwhile. A fold of past events needs one for up to a minute.
pub(crate) const STATE_IDLE_TIME_MAX: Duration = Duration::from_secs(300);
/// The time within which the server notices that the client of a statement is gone. It is less than a lease.
pub(crate) const CLIENT_LOOK: Duration = Duration::from_secs(1);
/// The time for which the tables of a dropped view are waited for before anyone who still uses them is cut off. Queries
/// are mostly over by then.
pub(crate) const DROP_LOCK_TIME_MAX: Duration = Duration::from_secs(1);
/// The oldest server that is known to work, as `server_version_num` has it. Earlier ones do not notice that a client is
/// gone (`client_connection_check_interval`).
pub const SERVER_VERSION_MIN: i32 = 140_000;
/// Longest name of a schema, in bytes: PostgreSQL has 63, and names of views are put after it. The name of a view that
/// is too long ends with a hash. 21 bytes of it are still left to read then.
pub const SCHEMA_NAME_BYTES_MAX: usize = 24;

// Leases. A claim changes hands in the transaction of another node, so what a dead node left must be gone by then.
const _: () = assert!(
    IDLE_IN_TRANSACTION_TIME_MAX.as_millis() < limits::LEASE_TIME.as_millis(),
    "the locks of a node that stopped are gone before its lease is"
);
const _: () = assert!(
    CLIENT_LOOK.as_millis() < limits::LEASE_TIME.as_millis(),
    "a statement of a node that died ends before its lease does"
);
const _: () = assert!(
    limits::LEASE_RENEWALS as u128 * LEASE_CALL_TIME_MAX.as_millis() <= limits::LEASE_TIME.as_millis(),
    "a renewal without an answer is given up before the next one is due"
);
const _: () = assert!(
    HEAD_LOOK.as_millis() <= limits::FOLLOWING_AGE_MAX.as_millis(),
    "a version follows even if every notification is lost"
);

// Locks and statements: each limit outlasts what it waits for.
const _: () = assert!(
    MAKE_LOCK_TIME_MAX.as_millis() >= 2 * IDLE_IN_TRANSACTION_TIME_MAX.as_millis()
        && WRITE_LOCK_TIME_MAX.as_millis() > IDLE_IN_TRANSACTION_TIME_MAX.as_millis(),
    "a waiter for a lock outlasts a holder that stopped"
);
const _: () = assert!(
    STATEMENT_TIME_MAX.as_millis() >= 2 * MAKE_LOCK_TIME_MAX.as_millis(),
    "a statement that got its lock late has time to do something"
);
const _: () = assert!(
    // Whoever waits for a row waits twice: for its turn among those that wait, and for the holder.
    2 * WRITE_LOCK_TIME_MAX.as_millis() < RETRY_TIME_MAX.as_millis()
        && WRITE_LOCK_TIME_MAX.as_millis() < HEAD_TIME_MAX.as_millis()
        && LOCK_TIME_MAX.as_millis() < READ_TIME_LONG.as_millis()
        && LOCK_TIME_MAX.as_millis() < limits::HANDLER_TIME_SEEN.as_millis()
        && LEASE_LOCK_TIME_MAX.as_millis() < LEASE_CALL_TIME_MAX.as_millis(),
    "whatever waits for a lock is told so by the server, and not given up as silent or slow"
);
const _: () = assert!(
    SILENCE_TIME_MAX.as_millis() > STATEMENT_TIME_MAX.as_millis(),
    "the server gives up before its client does"
);
const _: () = assert!(
    DROP_LOCK_TIME_MAX.as_millis() < MAKE_LOCK_TIME_MAX.as_millis(),
    "readers are cut off before the drop of their view would fail"
);
const _: () = assert!(
    NAME_LOCK_TIME_MAX.as_millis() < limits::HOLD_TIME_MAX.as_millis()
        && NAME_COVER_TIME_MAX.as_millis() < limits::HOLD_TIME_MAX.as_millis(),
    "SQL from outside waits for a flip no longer than the processors may"
);
const _: () =
    assert!(NAME_COVER_LOOK.as_millis() < NAME_COVER_TIME_MAX.as_millis(), "there are several checks in that time");
const _: () = assert!(
    limits::SCRUB_ROWS_TIME_MAX.as_millis() < STATE_IDLE_TIME_MAX.as_millis()
        && limits::FOLD_TIME_MAX.as_millis() < STATE_IDLE_TIME_MAX.as_millis(),
    "a fold of past events does not lose the state with which it is compared"
);

// Failures.
const _: () = assert!(
    BACK_OFF_PAUSE_FIRST.as_millis() < BACK_OFF_PAUSE_MAX.as_millis()
        && 2 * BACK_OFF_PAUSE_MAX.as_millis() < RETRY_TIME_MAX.as_millis(),
    "the pauses grow, and an append is tried again also after the longest ones"
);
const _: () = assert!(
    CONNECT_TIME_MAX.as_millis() < RETRY_TIME_MAX.as_millis(),
    "a request outlasts one attempt to connect that gets no answer"
);
const _: () = assert!(
    RETRY_TIME_MAX.as_millis() + CALL_TIME_MIN.as_millis() <= limits::ANSWER_TIME_MAX.as_millis(),
    "a waiter for an append is told why it failed before the request's own time is over"
);
const _: () = assert!(
    READ_TIME_LONG.as_millis() < limits::ANSWER_TIME_MAX.as_millis(),
    "a read that is given up with its request counts as one that failed"
);
const _: () = assert!(
    PROBE_LOCK_TIME_MAX.as_millis() < FAILED_READ_LOOK.as_millis(),
    "a try of what failed has ended before the next one is due"
);

// Appends and reads.
const _: () = assert!(
    GROUP_BYTES_MAX <= limits::APPEND_BYTES_MAX,
    "a group of small appends is not larger than one append may be"
);
const _: () = assert!(
    LOOK_EVENTS_MIN <= limits::READ_EVENTS_MAX && LOOK_EVENTS_MIN as u64 <= SPARSE_LOOK_EVENTS_MAX,
    "a read by the index of types goes no less far than one without it"
);
