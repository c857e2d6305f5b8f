//! The limits of the rules, which are public, and those of the drivers of a node.
//!
//! The endings of names mean what they mean there: `…_LOOK` is the time between two checks, `…_REST` the time for which
//! something rests, `…_PAUSE` a pause after a failure. A driver mostly waits for a change and is woken by it. Its checks
//! are for what other members do, which wakes nobody here.

use std::time::Duration;

pub use dacapo_model::limits::*;

// The catalog.

/// Shortest time between two reads of the catalog because the journal grows. Nodes follow each other's changes this fast
/// without reading the catalog for each append.
pub(crate) const CATALOG_FOLLOW_REST: Duration = Duration::from_millis(20);
/// Events of the catalog in one read. Most catalogs are read at once.
pub(crate) const CATALOG_READ_EVENTS: usize = 1_000;
/// Pause after the catalog could not be read. Each call that needs it reads it again before that.
pub(crate) const CATALOG_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Shortest time between two comparisons of a view with the journal. A view takes marks no more often than this, so each
/// mark is compared once.
pub(crate) const HISTORY_LOOK: Duration = MARK_TIME_MAX;

// The conductor.

/// Time between two rounds of the conductor while a version is built or replayed: it becomes ready without telling
/// anyone, and readers wait for it.
pub(crate) const CONDUCTOR_LOOK_BUILDING: Duration = Duration::from_millis(50);
/// Time between two rounds otherwise. It lifts the holds of processes that died, and ends a stand-by whose time is over.
pub(crate) const CONDUCTOR_LOOK: Duration = Duration::from_millis(500);
/// Pause before SQL from outside is pointed again to the version that serves. No flip waits for that.
pub(crate) const PUBLISH_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks whether SQL from outside still finds the version that serves: somebody may drop its names.
/// People notice that with their next query, and a look is one small query.
pub(crate) const PUBLISHED_LOOK: Duration = Duration::from_secs(10);
/// First pause before a version that was closed because its view is damaged is opened again. A fault of the moment is
/// over by then.
pub(crate) const REOPEN_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest such pause. An operator who has put the file back waits no longer than this.
pub(crate) const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest time for which revoking a claim waits for a transaction that has written. A handler that computes without end
/// may be in the middle of one, and everything else must not wait for it for ever.
pub(crate) const REVOKE_TIME_MAX: Duration = Duration::from_millis(500);

// Processors.

/// First pause after a failure of the store. A conflict or a lost connection is mostly over then.
pub(crate) const STORE_RETRY_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest such pause. A store that works again announces that to nobody, so this is short.
pub(crate) const STORE_RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time between two checks of a processor whose version is held, in case nobody tells it that the hold was lifted. It
/// is a small part of a hold, whose readers see nothing new.
pub(crate) const HOLD_LOOK: Duration = Duration::from_millis(20);
/// Time between two checks of a run's claims while several members share the version. It is a small part of a lease, so
/// that a free segment is claimed soon. Each check reads the tokens.
pub(crate) const CLAIMS_LOOK: Duration = Duration::from_millis(250);
/// Time between two such checks while a run waits until other members have released their segments, or until one of them
/// has finished with the view as a whole: nothing is applied meanwhile.
pub(crate) const CLAIMS_LOOK_WHOLE: Duration = Duration::from_millis(20);
/// Shortest rest of a version that may use only a share of the time. Shorter ones are added up, since a timer is no more
/// exact than this.
pub(crate) const THROTTLE_REST_MIN: Duration = Duration::from_millis(2);
/// Number of events in the first batch of a run. The time that an event takes is not known yet, so they are few. Later
/// batches follow the pace.
pub(crate) const BATCH_EVENTS_FIRST: usize = 1_000;
/// Fewest events that a batch is asked to have: with fewer, the commit costs more than the events.
pub(crate) const BATCH_EVENTS_MIN: usize = 64;

// Flips.

/// Time between two checks of the gate when nothing tells that something has changed. It is a small part of a hold, and
/// readers wait for the flip.
pub(crate) const FLIP_LOOK: Duration = Duration::from_millis(20);
/// Pause of a flip after a failure of the store, and the first one after a hold whose budget was used up. It is half of
/// the budget of a hold: a flip is waited for, and readers of the held version see new events in between.
pub(crate) const FLIP_PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest pause between two holds. A version that does not reach its position in so many tries must not hold the one
/// that serves more than a small share of the time.
pub(crate) const FLIP_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest time for which the report of a flip waits for the length of the hold, which ends after readers have moved.
/// It is twice the budget of a hold.
pub(crate) const HOLD_END_TIME_MAX: Duration = Duration::from_secs(1);
/// The same where another member may have held the version: then this node never learns it. So this is short.
pub(crate) const HOLD_END_TIME_MAX_SHARED: Duration = Duration::from_millis(100);

// Verifications.

/// Time between two checks whether enough answers were compared. Answers arrive as readers ask, so nobody notices a
/// shorter one.
pub(crate) const VERIFY_LOOK: Duration = Duration::from_millis(250);
/// First pause of a verification after a failure of the store. A failure of the moment is over by then.
pub(crate) const VERIFY_RETRY_PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest such pause: a verification begins from the start each time, so it is not tried often.
pub(crate) const VERIFY_RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Most types of events that a note about events which the code does not read names. They are enough to see what the
/// code has forgotten, and the note stays one line.
pub(crate) const UNREAD_TYPES_MAX: usize = 5;
/// Events in one read that searches for those that begin a stream: few, since most of them are not needed further.
pub(crate) const GATHER_READ_EVENTS: usize = 1_000;
/// Time between two checks of where other members have taken a version that is to meet another one. The serving version
/// may be capped meanwhile, for [`HOLD_TIME_MAX`] at most.
pub(crate) const MEET_LOOK: Duration = Duration::from_millis(20);
/// Longest time for which the serving version is left alone after it was capped without success. The first one is as
/// long as the cap was, so the version is capped at most half of the time.
pub(crate) const MEET_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Time for which two versions are left alone each time they met for live queries. A few meetings a second are enough
/// for a sample, and each of them pauses the new version.
pub(crate) const SHADOW_REST: Duration = Duration::from_millis(100);
/// Longest time for which they may make no progress towards one position before the queries of that time are dropped.
/// Nobody waits for those.
pub(crate) const SHADOW_MEET_TIME_MAX: Duration = Duration::from_secs(1);

// Background checks.

/// Time between two checks of pages in the first pass, while the number of pages is unknown. One megabyte a second
/// disturbs nobody.
pub(crate) const SCRUB_REST_FIRST: Duration = Duration::from_secs(1);
/// Time between two checks whether a batch is still being written, which a check of pages waits for. A batch far from
/// the head takes about as long.
pub(crate) const SCRUB_BUSY_LOOK: Duration = Duration::from_secs(1);
/// Time between two checks which rows are due, and whether the node has become busy. A check may be late, and each look
/// costs little.
pub(crate) const SCRUB_ROWS_LOOK: Duration = Duration::from_secs(1);

// Effects.

/// Time between two checks of an outbox that is not empty, when nothing tells that something has changed. Effects that
/// another member has stored are noticed this soon.
pub(crate) const EFFECTS_LOOK: Duration = Duration::from_millis(250);
/// Time between two checks of a member that does not make the effects of a version, whether it is to. Its turn comes
/// only when a member joins or leaves, which mostly wakes it.
pub(crate) const EFFECTS_LOOK_IDLE: Duration = Duration::from_millis(500);
/// Pause after a failure of the store. A store that is back is used again this soon.
pub(crate) const EFFECTS_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Most failing effects that the status names. They show what is wrong, and the status stays short.
pub(crate) const EFFECTS_FAILING_MAX: usize = 3;
/// Default of the longest time of one try of an effect. A service that works answers in less, and the later effects of
/// the stream wait for it.
pub(crate) const EFFECT_TIME_MAX: Duration = Duration::from_secs(30);
/// Default of the first pause between two tries of an effect. A failure of the moment is over by then.
pub(crate) const EFFECT_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Default of the longest such pause: long enough to spare a service that is down, short enough that nobody has to
/// intervene when it is back.
pub(crate) const EFFECT_PAUSE_MAX: Duration = Duration::from_secs(300);

// Readers.

/// Time before a query looks for the first time at what another member does. What was appended just now is mostly applied
/// within a few of these.
pub(crate) const QUERY_LOOK_FIRST: Duration = Duration::from_millis(1);
/// Longest time between two such looks. It is also the rest before a view is opened again that lacked what its processor
/// has committed.
pub(crate) const QUERY_LOOK_MAX: Duration = Duration::from_millis(20);
/// Largest age of what is known of the tokens of other members, for a caller that waits for them. Many that wait at the
/// same time then read them once.
pub(crate) const SEEN_AGE_MAX: Duration = Duration::from_millis(2);
/// First pause of a subscriber after the journal could not be read. A conflict or a lost connection is mostly over
/// then.
pub(crate) const SUBSCRIBER_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest such pause. A subscriber continues this soon after the journal can be read again.
pub(crate) const SUBSCRIBER_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Default of the longest time that a handler may take for one event. Only a handler that hangs takes so long, and its
/// segment waits for it.
pub(crate) const HANDLER_TIME_MAX: Duration = Duration::from_secs(60);
/// Default of the time for which a version stands by: a mistake in the new one is mostly found within a day.
pub(crate) const STAND_BY_TIME: Duration = Duration::from_secs(24 * 60 * 60);

// The relations on which correctness or a promise rests.

/// Whether pauses that double begin below their longest one.
const fn grows(first: Duration, max: Duration) -> bool {
    first.as_nanos() < max.as_nanos()
}

const _: () = assert!(grows(STORE_RETRY_PAUSE_FIRST, STORE_RETRY_PAUSE_MAX), "the pauses of a processor grow");
const _: () = assert!(grows(REOPEN_PAUSE_FIRST, REOPEN_PAUSE_MAX), "the pauses before a view is opened again grow");
const _: () = assert!(grows(FLIP_PAUSE_FIRST, FLIP_PAUSE_MAX), "the pauses between holds grow");
const _: () = assert!(grows(VERIFY_RETRY_PAUSE_FIRST, VERIFY_RETRY_PAUSE_MAX), "the pauses of a verification grow");
const _: () = assert!(grows(HOLD_TIME_MAX, MEET_PAUSE_MAX), "the pauses between caps grow");
const _: () = assert!(grows(EFFECT_PAUSE_FIRST, EFFECT_PAUSE_MAX), "the pauses between tries of an effect grow");
const _: () = assert!(grows(QUERY_LOOK_FIRST, QUERY_LOOK_MAX), "a query looks less often the longer it waits");
const _: () = assert!(grows(SUBSCRIBER_PAUSE_FIRST, SUBSCRIBER_PAUSE_MAX), "the pauses of a subscriber grow");
const _: () = assert!(
    BATCH_EVENTS_MIN <= BATCH_EVENTS_FIRST && BATCH_EVENTS_FIRST <= BATCH_EVENTS_MAX,
    "the first batch may become both smaller and larger"
);

const _: () = assert!(
    LEASE_TIME.as_millis()
        + LEASE_TIME.as_millis() / LEASE_RENEWALS as u128
        + CLAIMS_LOOK.as_millis()
        + BATCH_TIME_TARGET_FAR.as_millis()
        <= UNOWNED_TIME_MAX.as_millis(),
    "a member takes over within two lease times, even if nothing tells it that another one is gone (I-10)"
);
const _: () = assert!(
    CLAIMS_LOOK_WHOLE.as_millis() <= CLAIMS_LOOK.as_millis(),
    "a run that can do nothing else checks its claims more often"
);
const _: () = assert!(
    STORE_RETRY_PAUSE_MAX.as_millis() <= LEASE_TIME.as_millis() / LEASE_RENEWALS as u128,
    "a processor tries the store again as soon as the lease that needs the same store is renewed"
);
const _: () = assert!(
    STORE_RETRY_PAUSE_MAX.as_millis() < STALL_TIME_MAX.as_millis(),
    "a version whose store works again continues before it could be reported as stalled"
);
const _: () = assert!(
    THROTTLE_REST_MIN.as_millis() < BATCH_TIME_TARGET.as_millis(),
    "a version that rests does so within a batch, and not after it"
);

// The budget of a hold pays for every step below, in this order: the processor of the new version notices, commits, and
// the gate is asked once more.
const _: () = assert!(
    HOLD_LOOK.as_millis() + BATCH_TIME_TARGET.as_millis() + 2 * FLIP_LOOK.as_millis() < HOLD_TIME_MAX.as_millis(),
    "a flip whose new version needs one batch more succeeds in its first hold"
);
const _: () = assert!(
    CATALOG_FOLLOW_REST.as_millis() < HOLD_TIME_MAX.as_millis(),
    "the other nodes follow a flip in less than the time of a hold"
);
const _: () = assert!(
    CONDUCTOR_LOOK.as_millis() <= HOLD_TIME_MAX.as_millis(),
    "a hold that a dead process left is lifted within the time of another one, once its flip is over"
);
const _: () = assert!(
    PUBLISH_RETRY_PAUSE.as_millis() < PUBLISHED_LOOK.as_millis(),
    "a publication that failed is tried again sooner than one that stands is looked at"
);
const _: () = assert!(
    CONDUCTOR_LOOK_BUILDING.as_millis() < CONDUCTOR_LOOK.as_millis(),
    "the conductor looks more often while there is something to become ready"
);
const _: () = assert!(
    HOLD_TIME_MAX.as_millis() <= HOLD_END_TIME_MAX.as_millis(),
    "a report of a flip that waits for the end of the hold gets it"
);
const _: () = assert!(
    HOLD_END_TIME_MAX_SHARED.as_millis() < HOLD_END_TIME_MAX.as_millis()
        && HOLD_END_TIME_MAX.as_millis() < ANSWER_TIME_MAX.as_millis(),
    "a caller that asked for the flip has its answer in time"
);
const _: () = assert!(
    4 * HOLD_LOOK.as_millis() < HOLD_TIME_MAX.as_millis() && 4 * MEET_LOOK.as_millis() < HOLD_TIME_MAX.as_millis(),
    "what waits for a held or capped version looks several times before that ends"
);
const _: () = assert!(
    MEET_PAUSE_MAX.as_millis() <= MEET_TIME_MAX.as_millis(),
    "a version is not left alone for longer than it may make no progress"
);
const _: () = assert!(
    SHADOW_MEET_TIME_MAX.as_millis() <= MEET_TIME_MAX.as_millis(),
    "live queries wait no longer for two versions to meet than a verification does"
);

// A reader waits in looks, and each of them must see what is new.
const _: () = assert!(
    SEEN_AGE_MAX.as_millis() < QUERY_LOOK_MAX.as_millis() && SEEN_AGE_MAX.as_millis() < MEET_LOOK.as_millis(),
    "a look at the usual interval reads the tokens again"
);
const _: () = assert!(
    QUERY_LOOK_MAX.as_millis() < BATCH_TIME_TARGET.as_millis(),
    "a look adds less to the wait of a reader than the batch that it waits for"
);

const _: () = assert!(
    REVOKE_TIME_MAX.as_millis() < STOP_MARGIN_MAX.as_millis(),
    "an abandoned processor loses its claim in less time than it was given to end"
);
const _: () = assert!(
    STOP_TIME_MAX.as_millis() + STOP_MARGIN_MAX.as_millis() + REVOKE_TIME_MAX.as_millis() + CLOSE_TIME.as_millis()
        <= SHUTDOWN_TIME_MAX.as_millis(),
    "a node that stops abandons a processor, revokes its claim and still has time to close"
);
const _: () = assert!(
    EFFECTS_LOOK.as_millis() < EFFECTS_LOOK_IDLE.as_millis() && EFFECTS_LOOK_IDLE.as_millis() < LEASE_TIME.as_millis(),
    "a member begins to make the effects of one that died within one lease time more"
);
const _: () = assert!(
    EFFECT_TIME_MAX.as_millis() <= EFFECT_PAUSE_MAX.as_millis(),
    "an effect that fails does not keep its service busy all of the time"
);
const _: () = assert!(
    CATALOG_READ_EVENTS <= READ_EVENTS_MAX && GATHER_READ_EVENTS <= READ_EVENTS_MAX,
    "each of these reads is one read of the journal"
);
const _: () = assert!(
    HANDLER_TIME_SEEN.as_millis() < HANDLER_TIME_MAX.as_millis(),
    "a slow handler is reported long before its event is refused"
);
const _: () = assert!(
    SCRUB_REST_MIN.as_millis() <= SCRUB_REST_FIRST.as_millis()
        && SCRUB_REST_FIRST.as_millis() <= SCRUB_REST_MAX.as_millis(),
    "the first pass reads no faster than a later one may, and no slower"
);
const _: () = assert!(
    SCRUB_BUSY_LOOK.as_millis() < SCRUB_REST_MAX.as_millis(),
    "a check of pages waits for a batch at most for the longest rest, in several looks"
);
const _: () = assert!(
    SCRUB_ROWS_LOOK.as_millis() < SCRUB_ROWS_TIME_MAX.as_millis(),
    "a check of rows ends soon after the node has become busy"
);
