//! Every limit of the rules, in one place. The other crates have a `limits.rs` of their own.
//!
//! The name of a bound ends with its unit, or with what is counted, then `MAX` or `MIN`. A value that bounds nothing has
//! neither: `LEASE_TIME` lasts that long, `HANDLER_TRIES` is a default, `HANDLER_TIME_SEEN` the point from which on
//! something is reported. Times have other endings as well: `…_LOOK` is the time between two checks, `…_REST` the time
//! for which something rests, `…_PAUSE_FIRST` and `…_PAUSE_MAX` the first and the longest pause of a
//! [`BackOff`](crate::BackOff). The relations on which correctness or a promise rests stand at the end. The compiler
//! checks them.

use std::time::Duration;

/// Longest stream name, in bytes. It fits the indexes of every store, and leaves room for a category and a long key.
pub const STREAM_NAME_BYTES_MAX: usize = 512;
/// Longest event type, in bytes. The form of a record keeps the length of the type in one byte.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;
/// Longest projection name, in bytes. With a version it names a file, a schema of a database and a thread. With the
/// schema `dacapo` and a version such as `v2.1` it fits the 63 bytes that PostgreSQL keeps of a name.
pub const PROJECTION_NAME_BYTES_MAX: usize = 48;
/// Largest payload of one event, in bytes. Larger things belong elsewhere, with a link in the event. A batch, an append
/// and an answer must hold at least one.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Largest metadata of one event as stored, in bytes. It is for identities and traces. Data of the event belongs in its
/// payload.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// Longest field `time` of an event's metadata that does not count towards [`METADATA_BYTES_MAX`], in bytes. Imports
/// add such a field, so that every event that any journal accepted can be imported. A time in text has about 30.
pub const METADATA_TIME_BYTES_MAX: usize = 64;
/// Most tags of one event. Each tag is stored with its event, and tags name the few entities that the event is about.
pub const TAGS_MAX: usize = 16;
/// Longest tag, in bytes. It is as long as the longest event type.
pub const TAG_BYTES_MAX: usize = 255;
/// Longest name of the requester of a change, in bytes. It is a name or an address, and every table of changes has it.
pub const ACTOR_BYTES_MAX: usize = 256;
/// Longest reason of a change, in bytes. It is a paragraph. Every node keeps the catalog in memory. More belongs
/// elsewhere, with a link in the reason.
pub const REASON_BYTES_MAX: usize = 4 << 10;
/// Longest idempotency key, in bytes. It is a UUID, or a name with one. Every node keeps all keys in memory.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Most events in one append. They fit one read of the journal.
pub const APPEND_EVENTS_MAX: usize = 10_000;
/// Most streams for which one append expects a revision. Each event may be of another stream.
pub const APPEND_EXPECTED_MAX: usize = APPEND_EVENTS_MAX;
/// Largest append as stored, in bytes. It is written and flushed as a whole, and the appends of others wait for that.
/// It has room for a few of the largest events.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// Most segments of a version. Each segment has a token row, which every hold, cap and claim visits. A cluster is meant
/// to have far fewer members.
pub const SEGMENTS_MAX: u16 = 1024;
/// Most events that one read returns. It bounds the memory of events that are small. [`BATCH_BYTES_MAX`] bounds that of
/// large ones.
pub const READ_EVENTS_MAX: usize = 65_536;
/// Most reads of the past at the same time on one node for subscriptions and for callers that wait for events. Other
/// such reads wait for their turn. Processors have their own reads. One that is slow does not stop the others, and
/// appends keep most of the disk.
pub const SCANS_MAX: usize = 2;
/// Most events that a processor applies in one batch. The time of a batch is what limits it. This only bounds its count
/// where events cost nothing.
pub const BATCH_EVENTS_MAX: usize = 1 << 20;
/// Most bytes of events that a processor reads at once. It has room for the largest event, and two such reads are in
/// memory: one is applied while the next is read.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Target time of a batch near the head, where readers wait for it. It is a fifth of a hold, in which the new version
/// may need one more batch.
pub const BATCH_TIME_TARGET: Duration = Duration::from_millis(100);
/// Target time of a batch further than [`READY_LAG_MAX`] from the head. Rows that change often are then written once
/// for many changes, and shorter batches would not answer anybody sooner. Such a batch can still be finished in
/// [`STOP_TIME_MAX`].
pub const BATCH_TIME_TARGET_FAR: Duration = Duration::from_secs(1);
/// Target time of a batch that far from the head in a version that answers nobody yet, while nobody waits for the end
/// of the batch. It is below half of the time after which a version counts as stalled.
pub const BATCH_TIME_TARGET_BUILD: Duration = Duration::from_secs(4);
/// Most bytes of unchanged rows that a view keeps in memory from batch to batch. This is the default of an option. Each
/// open version may take it.
pub const ROW_BYTES_MAX: usize = 64 << 20;
/// Most bytes of the values of a row in the columns of its key, or of one index: the size that every store can index.
/// A text or bytes count with their length, any other value as [`INDEX_VALUE_BYTES`].
pub const INDEX_BYTES_MAX: usize = 2_000;
/// Size in bytes that a value of a kind of fixed size counts in a key or an index. That of a UUID, the largest of them.
pub const INDEX_VALUE_BYTES: usize = 16;
/// Most columns of a key or an index. PostgreSQL has no more.
pub const INDEX_COLUMNS_MAX: usize = 32;
/// Most unique values that a view accepts before it has asked its store whether another row has them. They are in
/// memory until then, and are asked about together.
pub const UNIQUE_UNASKED_MAX: usize = 10_000;
/// Time for which a member counts as alive after it has renewed its lease. Segments of a dead member rest for this
/// long. A shorter one would end while a store that works is slow.
pub const LEASE_TIME: Duration = Duration::from_secs(3);
/// The number of renewals in the time of a lease. So a member keeps its lease if one renewal fails, and if it is late with
/// the next one.
pub const LEASE_RENEWALS: u32 = 3;
/// Longest time for which a segment may be unclaimed before every node reports it (I-10). Two lease times are enough
/// for another member to notice and to claim it.
pub const UNOWNED_TIME_MAX: Duration = Duration::from_secs(2 * LEASE_TIME.as_secs());
/// Longest time for which a flip may hold the old version's processors before it lifts the hold and tries again later.
/// Readers of the old version see nothing new for no longer than this. It is long enough for one more batch of the new
/// version and for the answers of a shared store.
pub const HOLD_TIME_MAX: Duration = Duration::from_millis(500);
/// Largest lag of the new version to the old one, in events, at which a flip holds the old one. What is left then fits
/// in the hold. It is half of [`READY_LAG_MAX`].
pub const HOLD_LAG_MAX: u64 = 5_000;
/// Longest time for which a processor that shall stop may finish its current batch before the batch is given up. A
/// batch near the head ends in much less. Orchestrators give a process several times as long.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// Time to wait beyond [`STOP_TIME_MAX`] for a processor that was told to give up its batch. One that still runs then
/// computes without end: its thread is abandoned, and its claim revoked. Giving up takes milliseconds where the handler
/// waits for something.
pub const STOP_MARGIN_MAX: Duration = Duration::from_secs(1);
/// Longest time of the shutdown of a node. A stage of it that is not done by then is left.
pub const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(6);
/// The part of that time in which the lease is given back, the journal closes and the subscribers get the rest.
pub const CLOSE_TIME: Duration = STOP_TIME_MAX;
/// Longest time in which a process that serves a node ends, from the request to end: `docker stop` and many supervisors
/// kill what has not ended after 10 s.
pub const END_TIME_MAX: Duration = Duration::from_secs(9);
/// Time for which a handler may be busy with one event before the status and the log report it. Most events take less
/// than a millisecond.
pub const HANDLER_TIME_SEEN: Duration = Duration::from_secs(2);
/// Default of the number of tries of an event that a handler refuses, before the policy decides. With the pauses below
/// they take about 50 seconds, in which a service that was restarted is back.
pub const HANDLER_TRIES: u32 = 10;
/// Default of the pause before the second try: a conflict or a lost connection is mostly over then.
pub const HANDLER_RETRY_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Default of the longest pause between two tries, and so of the time after which a segment that halts continues by
/// itself once the cause is gone.
pub const HANDLER_RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Most dead letters of a version. With more, the segment of the next one halts, whatever its policy: a handler that
/// refuses so much is wrong, and not everything that it refuses may be set aside.
pub const LETTERS_MAX: usize = 10_000;
/// Longest text of a handler's error that is kept, in bytes. It holds a chain of errors. Each letter keeps one, and a
/// version may have [`LETTERS_MAX`] of them.
pub const HANDLER_ERROR_BYTES_MAX: usize = 4 << 10;
/// Longest time for which a requested clean-up waits until the version has reached the events whose effects it must
/// emit. It is waited for within a call, so this is short; the clean-up can be requested again.
pub const SPEAK_TIME_MAX: Duration = Duration::from_secs(2);
/// Time between two checks during that wait. The caller waits for it.
pub const SPEAK_LOOK: Duration = Duration::from_millis(20);
/// Longest time for which a status waits for the store to report the versions, before it returns what was known before.
/// Probes and operators ask when something is wrong, and then an old answer is better than none.
pub const STATUS_TIME_MAX: Duration = Duration::from_secs(1);
/// Default of the longest time for which a request waits for a position, for a serving version or for an answer. Most
/// callers and proxies wait for at least this long.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// The time for which a node that answers requests looks for an answer: the rest of [`REQUEST_TIME_MAX`] is for the
/// way to the caller, so that anyone who waits that long has an answer.
pub const ANSWER_TIME_MAX: Duration = Duration::from_millis(9_500);
/// Most dead letters that are read at once. Each may have [`HANDLER_ERROR_BYTES_MAX`] of text, so this bounds the
/// memory.
pub const LETTERS_READ_MAX: usize = 1_000;
/// Largest effect as kept in an outbox, in bytes. It is a request to a service. Larger things belong elsewhere, with a
/// link in the effect.
pub const EFFECT_BYTES_MAX: usize = 1 << 20;
/// Most effects of a version that are set aside. With more, the stream of the next one halts. So many are a mistake of
/// the code or of the service, and not of the effects.
pub const EFFECT_LETTERS_MAX: u64 = 10_000;
/// Most effects of a version that a node makes at the same time, each of another stream. More would rather overload the
/// services that they call.
pub const EFFECTS_AT_ONCE_MAX: usize = 64;
/// Most effects that are due and looked at together. Of those that are due some wait for others, so more are looked at
/// than are made at the same time.
pub const EFFECTS_READ_MAX: usize = 256;
/// Most of the last events that a node keeps in memory for its subscriptions. A subscriber that is further from the
/// head reads the journal. They bridge the pause of a subscriber that is busy for a moment.
pub const TAIL_EVENTS_MAX: usize = 16_384;
/// Most bytes of those events. It has room for two of the largest events.
pub const TAIL_BYTES_MAX: usize = 16 << 20;
/// Age of the mark of a view's history from which a commit also writes a newer one, and the shortest time between two
/// comparisons of a view with the journal. A commit costs one row more for a mark, so most commits do without.
pub const MARK_TIME_MAX: Duration = Duration::from_secs(1);
/// Time in which a node checks all pages of its views, if that takes more than [`SCRUB_REST_MAX`] for each check.
/// Damage that nobody reads is found within a day, before the backups that lack it are gone.
pub const SCRUB_TIME: Duration = Duration::from_secs(86_400);
/// Pages of a view that a node checks at once, of 4 KiB each. They are one megabyte, which a disk reads in
/// milliseconds.
pub const SCRUB_PAGES_MAX: u64 = 256;
/// Shortest rest between two such checks, which limits their reads to 10 MiB a second. So even many large views leave
/// the disk to others.
pub const SCRUB_REST_MIN: Duration = Duration::from_millis(100);
/// Longest rest between two such checks. So small views are checked more often than once in [`SCRUB_TIME`].
pub const SCRUB_REST_MAX: Duration = Duration::from_secs(60);
/// Default of the rest between two checks of the rows of a version that serves. A check costs a part of a core for up
/// to [`SCRUB_ROWS_TIME_MAX`], and wrong rows are rare.
pub const SCRUB_ROWS_REST: Duration = Duration::from_secs(3_600);
/// Longest rest before the first of these checks. A node that has just started has other work, and one that restarts
/// often must check as well.
pub const SCRUB_ROWS_REST_FIRST: Duration = Duration::from_secs(60);
/// Shortest such rest, whatever the version sets. It keeps a check with the rest 0 from being a loop without a pause.
pub const SCRUB_ROWS_REST_MIN: Duration = Duration::from_millis(10);
/// Longest time of one check. It keeps one state of the view for no longer. A store cannot remove old rows while that
/// state is kept.
pub const SCRUB_ROWS_TIME_MAX: Duration = Duration::from_secs(60);
/// Share of the time of one core for which a check works, in percent. The rest of the core is for readers and
/// processors.
pub const SCRUB_ROWS_SHARE_PERCENT: u8 = 10;
/// Time for which it works before it rests for that. With its rest it is a fifth of a second, so the load is even.
pub const SCRUB_ROWS_WORK_MAX: Duration = Duration::from_millis(20);
/// Longest such rest, where a handler or a read took long. One slow read must not use up the time of the check.
pub const SCRUB_ROWS_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Largest lag, in events, at which a version still counts as caught up. Writers continue while it catches up, so its
/// lag is never zero for long.
pub const READY_LAG_MAX: u64 = 10_000;
/// Largest lead of the last event's recorded time over a node's clock that is not reported. Less is usual without harm:
/// clocks decide nothing but when something is due.
pub const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(60);
/// Time between two checks of the clock. A person acts on what it finds, so seconds do not matter.
pub const CLOCK_LOOK: Duration = Duration::from_secs(10);
/// Age at which a second counts 1/e as much in the pace of a version as the present one. A pace over a shorter time
/// jumps, and one over a longer time hides a change.
pub const PACE_TIME: Duration = Duration::from_secs(10);
/// Moves closer to each other than this are measured as one: a shorter time says more about the size of a batch than
/// about the pace.
pub const PACE_LOOK: Duration = Duration::from_millis(200);
/// Shortest time of measurement before the pace is shown. It is several measurements.
pub const PACE_TIME_MIN: Duration = Duration::from_secs(1);
/// Time for which more must have arrived than was covered, and age of the oldest event that is not covered, before a
/// version is reported as never catching up. A burst of appends is over by then.
pub const NEVER_TIME_MIN: Duration = Duration::from_secs(5);
/// Largest age of the oldest uncovered event at which a version near the head counts as following. It is several
/// batches near the head.
pub const FOLLOWING_AGE_MAX: Duration = Duration::from_secs(1);
/// Time without progress after which a version that has something to do is reported as stalled. A store that is slow
/// for a moment is no stall.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Most findings of one kind that a part of a verification keeps; it counts the others. A person sees the pattern in
/// them, and the largest report still fits an event.
pub const FINDINGS_MAX: usize = 10;
/// Longest text in a finding, such as a row, in bytes; a longer one is cut. It shows a whole row of most tables.
pub const FINDING_BYTES_MAX: usize = 1_024;
/// Most notes that a part of a verification keeps. The largest report still fits an event.
pub const NOTES_MAX: usize = 50;
/// Most rows that a verification reads from a view at once. It bounds the memory of rows that are small.
/// [`PAGE_BYTES_MAX`] bounds that of large ones.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Most bytes of rows in one page of a view. A page of one row may have more. Two versions have one page each in
/// memory.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Longest time for which two versions may make no progress towards one position at which they can be compared. A
/// version that makes none for so long waits for something, which the report then names.
pub const MEET_TIME_MAX: Duration = Duration::from_secs(10);
/// Default of the most events that a verification folds from the start, for a version that began as a copy. They are
/// meant to fit in the time below.
pub const FOLD_EVENTS_MAX: usize = 200_000;
/// Default of the longest time for which it folds. The flip of a version waits for it.
pub const FOLD_TIME_MAX: Duration = Duration::from_secs(30);
/// Most streams that it folds if there are more events than that. Each costs a search in the journal, and a mistake of
/// the code mostly shows in the first few.
pub const FOLD_STREAMS_MAX: u64 = 1_000;
/// Most bytes of their events that it keeps in memory. It is as much as a view may keep of its rows.
pub const FOLD_BYTES_MAX: usize = 64 << 20;
/// Most rows of one table that it then looks up one by one. Each of them costs up to three reads of single rows.
pub const FOLD_ROWS_MAX: u64 = 10_000;
/// Most live queries that wait to be put to a version that is being built. More are dropped. They are a sample, so a
/// lost one harms nothing, while memory must not grow.
pub const SHADOWS_MAX: usize = 256;

// Sizes.
const _: () = assert!(
    ACTOR_BYTES_MAX + REASON_BYTES_MAX + IDEMPOTENCY_KEY_BYTES_MAX < METADATA_BYTES_MAX / 2,
    "the metadata of a change has room for who requests it, and for the request"
);
const _: () = assert!(PAYLOAD_BYTES_MAX + METADATA_BYTES_MAX < APPEND_BYTES_MAX, "the largest event fits an append");
const _: () = assert!(PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX, "the largest event fits a batch");
const _: () = assert!(METADATA_TIME_BYTES_MAX < METADATA_BYTES_MAX, "the time of an import is a small part of it");
const _: () = assert!(
    // The bytes that PostgreSQL adds to each value and to all of them, and the bytes that fit in a third of its page.
    INDEX_BYTES_MAX + INDEX_COLUMNS_MAX * 11 + 16 <= 2_704 && INDEX_COLUMNS_MAX * INDEX_VALUE_BYTES <= INDEX_BYTES_MAX,
    "what is indexed fits every store"
);
const _: () = assert!(EFFECTS_AT_ONCE_MAX <= EFFECTS_READ_MAX, "what is made at the same time can be looked at");
const _: () = assert!(LETTERS_READ_MAX <= LETTERS_MAX, "no read of letters asks for more than a version may have");
const _: () = assert!(PAYLOAD_BYTES_MAX <= TAIL_BYTES_MAX, "the largest event fits the tail");
const _: () = assert!(TAIL_EVENTS_MAX <= READ_EVENTS_MAX, "the tail is never read with more than one read may have");
const _: () = assert!(APPEND_EVENTS_MAX <= READ_EVENTS_MAX, "one append can be read at once");
const _: () = assert!(
    5 * 7 * FINDINGS_MAX * (4 * FINDING_BYTES_MAX + 64) + 5 * NOTES_MAX * FINDING_BYTES_MAX < PAYLOAD_BYTES_MAX / 4,
    "the largest report fits an event"
);
const _: () = assert!(HOLD_LAG_MAX <= READY_LAG_MAX, "a version for which another one is held has caught up");

// Leases. A dead member counts as alive until its lease ends. Another member notices that with its own next renewal, and
// may have a batch under way.
const _: () = assert!(LEASE_RENEWALS >= 3, "a lease outlasts one failed renewal and a late one");
const _: () = assert!(
    LEASE_TIME.as_millis() + LEASE_TIME.as_millis() / LEASE_RENEWALS as u128 + BATCH_TIME_TARGET_FAR.as_millis()
        < UNOWNED_TIME_MAX.as_millis(),
    "a segment of a dead member is claimed before nodes report that nobody has it (I-10)"
);
const _: () = assert!(
    UNOWNED_TIME_MAX.as_millis() < STALL_TIME_MAX.as_millis(),
    "a version without a member is reported as such, and not as stalled"
);

// Batches.
const _: () = assert!(
    BATCH_TIME_TARGET.as_millis() < BATCH_TIME_TARGET_FAR.as_millis()
        && BATCH_TIME_TARGET_FAR.as_millis() < BATCH_TIME_TARGET_BUILD.as_millis(),
    "the fewer wait for a batch, the longer it may be"
);
const _: () = assert!(
    STALL_TIME_MAX.as_millis() > 2 * BATCH_TIME_TARGET_BUILD.as_millis(),
    "a batch of the length that is aimed at is no stall"
);
const _: () = assert!(
    BATCH_TIME_TARGET.as_millis() < FOLLOWING_AGE_MAX.as_millis(),
    "a version that commits at the usual pace counts as following"
);
const _: () = assert!(
    BATCH_TIME_TARGET_FAR.as_millis() <= STOP_TIME_MAX.as_millis(),
    "a version that answers can finish its batch when it is stopped"
);
const _: () = assert!(
    SHUTDOWN_TIME_MAX.as_millis() < END_TIME_MAX.as_millis(),
    "a server has time to let requests finish before its node stops"
);
const _: () = assert!(
    BATCH_TIME_TARGET_FAR.as_millis() < HANDLER_TIME_SEEN.as_millis(),
    "a handler that is reported takes longer with one event than a batch should with all"
);
const _: () = assert!(
    HANDLER_TIME_SEEN.as_millis() < STALL_TIME_MAX.as_millis(),
    "a version that waits for a slow handler names it before it is reported as stalled"
);

// Flips. While the old version is held its readers see nothing new.
const _: () = assert!(
    BATCH_TIME_TARGET.as_millis() < HOLD_TIME_MAX.as_millis(),
    "the new version has time for a batch during a hold"
);
const _: () = assert!(
    HOLD_TIME_MAX.as_millis() < FOLLOWING_AGE_MAX.as_millis(),
    "a version that was held for as long as allowed still counts as following"
);

// Answers. A caller gets one, or the reason why there is none, in the time that it waits.
const _: () = assert!(ANSWER_TIME_MAX.as_millis() < REQUEST_TIME_MAX.as_millis(), "an answer has time for the way");
const _: () = assert!(
    SPEAK_TIME_MAX.as_millis() < ANSWER_TIME_MAX.as_millis(),
    "a clean-up that waits for effects is answered in time"
);
const _: () = assert!(SPEAK_LOOK.as_millis() < SPEAK_TIME_MAX.as_millis(), "that wait has several checks");
const _: () = assert!(
    STATUS_TIME_MAX.as_millis() < ANSWER_TIME_MAX.as_millis(),
    "a status is answered while the store is silent"
);
const _: () = assert!(
    HANDLER_RETRY_PAUSE_FIRST.as_millis() <= HANDLER_RETRY_PAUSE_MAX.as_millis(),
    "the pauses between two tries grow"
);

// The clock.
const _: () = assert!(
    CLOCK_LOOK.as_millis() < CLOCK_BEHIND_MAX.as_millis(),
    "a clock that loses time is noticed while it has lost little"
);

// Pace and remaining time.
const _: () = assert!(
    PACE_LOOK.as_millis() < PACE_TIME_MIN.as_millis() && PACE_TIME_MIN.as_millis() < PACE_TIME.as_millis(),
    "a pace that is shown comes from several measurements"
);
const _: () = assert!(
    NEVER_TIME_MIN.as_millis() > PACE_TIME_MIN.as_millis()
        && NEVER_TIME_MIN.as_millis() > FOLLOWING_AGE_MAX.as_millis(),
    "a version is reported as never catching up only once its pace is known and it does not follow"
);

// Background checks.
const _: () = assert!(SCRUB_REST_MIN.as_millis() <= SCRUB_REST_MAX.as_millis(), "there is a rest between the two");
const _: () = assert!(SCRUB_REST_MAX.as_millis() < SCRUB_TIME.as_millis(), "a pass has more than one check");
const _: () = assert!(SCRUB_ROWS_REST_MIN.as_millis() <= SCRUB_ROWS_REST_FIRST.as_millis(), "the first check comes");
const _: () = assert!(
    SCRUB_ROWS_REST_FIRST.as_millis() <= SCRUB_ROWS_REST.as_millis(),
    "the first check after a start comes no later than the others"
);
const _: () = assert!(
    SCRUB_ROWS_TIME_MAX.as_millis() < SCRUB_ROWS_REST.as_millis(),
    "a version is not checked all of the time, which would keep an old state of its view"
);
const _: () = assert!(
    SCRUB_ROWS_WORK_MAX.as_millis() * (100 - SCRUB_ROWS_SHARE_PERCENT as u128)
        <= SCRUB_ROWS_PAUSE_MAX.as_millis() * SCRUB_ROWS_SHARE_PERCENT as u128,
    "the longest rest is long enough to keep to the share"
);
