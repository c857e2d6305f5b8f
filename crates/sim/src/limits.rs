//! The times and counts of the simulated world. Where a checker allows the nodes a time, it follows from their limits.

use std::time::Duration;

use dacapo::limits;

// The world.

/// The length of one step of the simulation, and so the shortest time that it tells apart. It is small beside each
/// limit of the nodes, and each step costs real time.
pub const TICK: Duration = Duration::from_millis(2);
/// Number of clients that append and query. Enough to be concurrent in one stream, and few enough for a short history.
pub const CLIENTS: usize = 4;
/// The number of streams. Few, so that clients meet in them.
pub const LEDGERS: usize = 7;
/// The time after the storm until everything must have come right. A handler's retries are up to 30 s apart.
pub const CALM_MAX: Duration = Duration::from_secs(90);
/// The time for which a node that did not start rests before it is started again. It is short beside a storm, so that a
/// node tries several times.
pub const START_REST: Duration = Duration::from_millis(200);
/// The time for which the disk keeps a transaction for a node that it does not hear of. Half of a lease: a transaction
/// of a node that is gone ends before its lease does.
pub const SILENCE_TIME_MAX: Duration = Duration::from_millis(1_500);
/// A try of an effect that takes longer has failed. It is short, so that tries that are cut off happen often.
pub const EFFECT_TIME_MAX: Duration = Duration::from_secs(1);
/// Most violations of one invariant that are printed. The first ones show the cause, and a seed is run again anyway.
pub const TOLD_EACH_MAX: usize = 5;

// Clients.

/// The time for which a query waits inside the node. It is short, so that queries end by it during faults.
pub const QUERY_TIME_MAX: Duration = Duration::from_millis(1_500);
/// The time for which a client waits for an answer. It is a little more than a node may take.
pub const CLIENT_TIME_MAX: Duration = Duration::from_secs(2);
/// Most tries of a client for a call without an answer. Together they outlast most faults of a storm.
pub const CLIENT_TRIES_MAX: usize = 6;

// Checkers.

/// The time between two checks of who has which segment. It is less than the time between two renewals.
pub const CLAIMS_LOOK: Duration = Duration::from_millis(250);
/// The time that beyond its time something may take to be noticed: leases are looked at when they are renewed, a
/// handler may keep a batch, and a call may be tried again.
pub const CLAIMS_SLACK: Duration = Duration::from_secs(3);
/// The time for which a version may stand still without a reason before that is a fault: a member that died counts as
/// alive for a lease, and until the others renew theirs nobody can know why nothing is done.
pub const SILENT_TIME_MAX: Duration = Duration::from_millis(4_500);
/// The time for which one that nobody has begun to build may: a member that was to begin it may be cut off for two lease
/// times.
pub const SILENT_SCHEDULED_TIME_MAX: Duration = Duration::from_secs(limits::UNOWNED_TIME_MAX.as_secs() + 1);
/// The time for which a version may not move before it counts as stopped for the order of effects. A node looks at tokens
/// now and then, so what has not moved for it may have moved a little before.
pub const STILL_TIME_MAX: Duration = Duration::from_secs(limits::STALL_TIME_MAX.as_secs() - 1);
/// The time between a look of a node and what it does by it: it may be paused in between, and a try of an effect takes
/// its time.
pub const LOOKED_TIME_MAX: Duration = Duration::from_secs(15);
/// The time, once all ways are good, until every node has noticed a change in the catalog or in the journal, and until
/// the last answer from before has arrived.
pub const NOTICED_TIME_MAX: Duration = Duration::from_secs(4);

const _: () = assert!(
    QUERY_TIME_MAX.as_millis() < CLIENT_TIME_MAX.as_millis(),
    "a client hears the reason of a node that has no answer"
);
const _: () = assert!(
    2 * TICK.as_millis() <= limits::SPEAK_LOOK.as_millis()
        && 10 * TICK.as_millis() < limits::BATCH_TIME_TARGET.as_millis(),
    "the simulation tells apart what the nodes do one after the other"
);
const _: () = assert!(
    CLAIMS_LOOK.as_millis() < limits::LEASE_TIME.as_millis() / limits::LEASE_RENEWALS as u128,
    "the checker sees each renewal"
);
const _: () = assert!(
    CLAIMS_SLACK.as_millis()
        > limits::LEASE_TIME.as_millis() / limits::LEASE_RENEWALS as u128 + SILENCE_TIME_MAX.as_millis(),
    "a renewal is due, and the disk ends a transaction that was in its way, within the time that is allowed"
);
const _: () = assert!(
    SILENT_TIME_MAX.as_millis()
        > limits::LEASE_TIME.as_millis() + limits::LEASE_TIME.as_millis() / limits::LEASE_RENEWALS as u128,
    "a lease has ended and another one was renewed before silence is a fault"
);
const _: () = assert!(
    SILENT_SCHEDULED_TIME_MAX.as_millis() > limits::UNOWNED_TIME_MAX.as_millis(),
    "a version that nobody has begun to build has the time that every segment has (I-10)"
);
const _: () = assert!(
    NOTICED_TIME_MAX.as_millis() > limits::MARK_TIME_MAX.as_millis() + CLIENT_TIME_MAX.as_millis(),
    "a view was compared, and an answer from before has arrived or was given up"
);
const _: () = assert!(
    LOOKED_TIME_MAX.as_millis() > limits::STALL_TIME_MAX.as_millis() + EFFECT_TIME_MAX.as_millis(),
    "a node that was paused after it looked is excused until it can be told from one that has stopped"
);
const _: () = assert!(
    CALM_MAX.as_millis() >= 3 * limits::HANDLER_RETRY_PAUSE_MAX.as_millis(),
    "an event that a handler refused in the storm is tried again in the calm"
);
