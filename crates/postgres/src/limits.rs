//! Every limit of this store, in one place: the unit, then `MAX` last.

use std::time::Duration;

use dacapo_model::limits;

/// Most connections of a node for views, unless it is set otherwise. Those of the journal come on top.
pub const CONNECTIONS_MAX: u32 = 16;
/// Longest time to try for a connection before a request fails.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The time for which a transaction may wait for its client's next statement: anyone who stops in the middle of one
/// holds up others no longer than this.
pub const IDLE_IN_TRANSACTION_TIME_MAX: Duration = Duration::from_secs(2);
/// The time for which a statement waits for a lock. Longer than a holder that stopped can keep it.
pub const LOCK_TIME_MAX: Duration = Duration::from_secs(10);
/// The time for which the names that SQL from outside uses are waited for when they are moved, and so the longest
/// that a query waits for that.
pub const NAME_LOCK_TIME_MAX: Duration = Duration::from_millis(100);
/// The time for which the version that served is kept where it is until the new one covers what it has shown.
pub const NAME_COVER_TIME_MAX: Duration = Duration::from_millis(200);
/// The time between two checks of that.
pub(crate) const NAME_COVER_PAUSE: Duration = Duration::from_millis(5);
/// The time that a statement may take, unless a transaction sets it otherwise for itself.
pub const STATEMENT_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time to wait for the answer to a statement: longer than the server lets it run, so that silence means that the
/// server or the network is gone.
pub const SILENCE_TIME_MAX: Duration = Duration::from_secs(40);
/// Longest time to wait for the answer to the renewal of a lease, or to a read of the leases of others.
pub const LEASE_CALL_TIME_MAX: Duration = Duration::from_secs(1);
/// The first pause after a failed try to reach the database.
pub const BACK_OFF_TIME_MIN: Duration = Duration::from_millis(20);
/// The longest pause after a failed try to reach the database.
pub const BACK_OFF_TIME_MAX: Duration = Duration::from_secs(2);
/// The time for which an append or a read is tried again while the database cannot be reached. After that its caller
/// is told.
pub const RETRY_TIME_MAX: Duration = Duration::from_secs(8);
/// The time that one call to the database may take at least, however late it was begun.
pub const CALL_TIME_MIN: Duration = Duration::from_millis(1_500);
/// Most appends that wait to be written.
pub const WAITING_APPENDS_MAX: usize = 4096;
/// Most events of one group, unless a single append has more.
pub const GROUP_EVENTS_MAX: usize = 4096;
/// From this many bytes of records on a group takes no more appends.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Number of turns that other tasks get before a group is written, while each turn brings appends to it.
pub const GATHER_TURNS_MAX: usize = 4;
/// Most marks of the journal's history that a node knows.
pub const KNOWN_MARKS_MAX: usize = 512;
/// Most streams of which a node knows the last revision while nobody else appends.
pub const KNOWN_STREAMS_MAX: usize = 65_536;
/// Most connections that read the journal at once.
pub const READERS_MAX: u32 = 4;
/// Fewest positions that one read looks at, if there are so many, whatever the number of events it may return.
pub const LOOK_EVENTS_MIN: usize = 16_384;
/// Below one wanted event in so many, the index of types is asked where the next ones are.
pub const SPARSE_RATIO: usize = 8;
/// Most positions that one read goes through by the index of types. They are counted, to see that none is missing, which
/// takes some 0.2 s for a million where the index alone tells.
pub const SPARSE_LOOK_EVENTS_MAX: u64 = 1 << 20;
/// The number of positions that are counted with each look at the head, over and over through all of the journal.
pub const SCRUB_EVENTS_MAX: u64 = 16_384;
/// The time between two polls of the head. Appends of other nodes are notified at once; the poll is for lost notifications.
pub const HEAD_POLL_TIME: Duration = Duration::from_secs(1);
/// The time that the server keeps a listener that takes no notifications, where it can see that: over TCP.
pub const LISTENER_STOPPED_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time to wait for the answer to a poll of the head.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// The oldest server that is known to work, as `server_version_num` has it.
pub const SERVER_VERSION_MIN: i32 = 140_000;
/// Longest name of a schema, in bytes: PostgreSQL has 63, and names of views are put after it.
pub const SCHEMA_NAME_BYTES_MAX: usize = 24;

const _: () = assert!(
    IDLE_IN_TRANSACTION_TIME_MAX.as_millis() < limits::LEASE_TIME.as_millis(),
    "the locks of a node that stopped are gone before its lease is"
);
const _: () = assert!(
    3 * LEASE_CALL_TIME_MAX.as_millis() <= limits::LEASE_TIME.as_millis(),
    "a renewal that is lost can be made up for"
);
const _: () = assert!(
    LOCK_TIME_MAX.as_millis() >= 2 * IDLE_IN_TRANSACTION_TIME_MAX.as_millis(),
    "a waiter for a lock outlasts a holder that stopped"
);
const _: () = assert!(
    STATEMENT_TIME_MAX.as_millis() >= 2 * LOCK_TIME_MAX.as_millis(),
    "a statement that got its lock late has time to do something"
);
const _: () = assert!(
    SILENCE_TIME_MAX.as_millis() > STATEMENT_TIME_MAX.as_millis(),
    "the server gives up before its client does"
);
const _: () = assert!(BACK_OFF_TIME_MIN.as_millis() < BACK_OFF_TIME_MAX.as_millis());
const _: () = assert!(
    RETRY_TIME_MAX.as_millis() + CALL_TIME_MIN.as_millis() <= limits::ANSWER_TIME_MAX.as_millis(),
    "a waiter for an append is told why it failed before the request's own time is over"
);
