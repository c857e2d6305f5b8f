//! Every limit, in one place. A name ends with the unit, then `MAX`.

use std::time::Duration;

/// Longest stream name, in bytes.
pub const STREAM_NAME_BYTES_MAX: usize = 512;
/// Longest event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;
/// Longest projection name, in bytes.
pub const PROJECTION_NAME_BYTES_MAX: usize = 48;
/// Largest payload of one event, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Largest metadata of one event as stored, in bytes.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// Longest field `time` of an event's metadata that does not count towards [`METADATA_BYTES_MAX`], in bytes. Imports
/// add such a field, so that every event that any journal accepted can be imported.
pub const METADATA_TIME_BYTES_MAX: usize = 64;
/// Most tags of one event.
pub const TAGS_MAX: usize = 16;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 255;
/// Most events in one append.
pub const APPEND_EVENTS_MAX: usize = 10_000;
/// Most streams for which one append expects a revision.
pub const APPEND_EXPECTED_MAX: usize = APPEND_EVENTS_MAX;
/// Largest append as stored, in bytes.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// Most segments of a version.
pub const SEGMENTS_MAX: u16 = 1024;
/// Most events that one read returns.
pub const READ_EVENTS_MAX: usize = 65_536;
/// Most reads of the past at the same time on one node for subscriptions and for callers that wait for events. Other
/// such reads wait for their turn. Processors have their own reads.
pub const SCANS_MAX: usize = 2;
/// Most events that a processor applies in one batch.
pub const BATCH_EVENTS_MAX: usize = 1 << 20;
/// Most bytes of events that a processor reads at once.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Target time of a batch near the head, where readers wait for it.
pub const BATCH_TIME_TARGET: Duration = Duration::from_millis(100);
/// Target time of a batch further than [`READY_LAG_MAX`] from the head. Rows that change often are then written once
/// for many changes, and shorter batches would not answer anybody sooner.
pub const BATCH_TIME_TARGET_FAR: Duration = Duration::from_secs(1);
/// Target time of a batch that far from the head in a version that answers nobody yet, while nobody waits for the end
/// of the batch.
pub const BATCH_TIME_TARGET_BUILD: Duration = Duration::from_secs(4);
/// Most bytes of unchanged rows that a view keeps in memory from batch to batch. This is the default of an option.
pub const ROW_BYTES_MAX: usize = 64 << 20;
/// Most bytes of the values of a row in the columns of its key, or of one index: the size that every store can index.
/// A text or bytes count with their length, any other value as [`INDEX_VALUE_BYTES`].
pub const INDEX_BYTES_MAX: usize = 2_000;
/// Size in bytes that a value of a kind of fixed size counts in a key or an index.
pub const INDEX_VALUE_BYTES: usize = 16;
/// Most columns of a key or an index.
pub const INDEX_COLUMNS_MAX: usize = 32;
/// Most unique values that a view accepts before it has asked its store whether another row has them.
pub const UNIQUE_UNASKED_MAX: usize = 10_000;
/// Time for which a member counts as alive after it has renewed its lease.
pub const LEASE_TIME: Duration = Duration::from_secs(3);
/// Longest time for which a segment may be unclaimed before every node reports it (I-10).
pub const UNOWNED_TIME_MAX: Duration = Duration::from_secs(2 * LEASE_TIME.as_secs());
/// Longest time for which a flip may hold the old version's appliers before it lifts the hold and tries again later.
pub const HOLD_TIME_MAX: Duration = Duration::from_millis(500);
/// Largest lag of the new version to the old one, in events, at which a flip holds the old one.
pub const HOLD_LAG_MAX: u64 = 5_000;
/// Longest time for which a processor that shall stop may finish its current batch before the batch is given up.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// Time to wait beyond [`STOP_TIME_MAX`] for a processor that was told to give up its batch. One that still runs then
/// computes without end: its thread is abandoned, and its claim revoked.
pub const STOP_MARGIN_MAX: Duration = Duration::from_secs(1);
/// Time for which a handler may be busy with one event before the status and the log report it.
pub const HANDLER_TIME_SEEN: Duration = Duration::from_secs(2);
/// Most dead letters of a version. With more, the segment of the next one halts, whatever its policy: a handler that
/// refuses so much is wrong, and not everything that it refuses may be set aside.
pub const LETTERS_MAX: usize = 10_000;
/// Longest text of a handler's error that is kept, in bytes.
pub const HANDLER_ERROR_BYTES_MAX: usize = 4 << 10;
/// Longest time for which a requested clean-up waits until the version has reached the events whose effects it must
/// emit.
pub const SPEAK_TIME_MAX: Duration = Duration::from_secs(2);
/// Time between two checks during that wait.
pub const SPEAK_LOOK: Duration = Duration::from_millis(20);
/// Longest time for which a status waits for the store to report the versions, before it returns what was known
/// before.
pub const STATUS_TIME_MAX: Duration = Duration::from_secs(1);
/// Default of the longest time for which a request waits for a position, for a serving version or for an answer.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// The time for which a node that answers requests looks for an answer: the rest of [`REQUEST_TIME_MAX`] is for the
/// way to the caller, so that anyone who waits that long has an answer.
pub const ANSWER_TIME_MAX: Duration = Duration::from_millis(9_500);
/// Most dead letters that are read at once.
pub const LETTERS_READ_MAX: usize = 1_000;
/// Largest effect as kept in an outbox, in bytes.
pub const EFFECT_BYTES_MAX: usize = 1 << 20;
/// Most effects of a version that are set aside. With more, the stream of the next one halts.
pub const EFFECT_LETTERS_MAX: u64 = 10_000;
/// Most effects of a version that a node makes at the same time, each of another stream.
pub const EFFECTS_AT_ONCE_MAX: usize = 64;
/// Most effects that are due and looked at together.
pub const EFFECTS_READ_MAX: usize = 256;
/// Most of the last events that a node keeps in memory for its subscriptions.
pub const TAIL_EVENTS_MAX: usize = 16_384;
/// Most bytes of those events.
pub const TAIL_BYTES_MAX: usize = 16 << 20;
/// Age of the mark of a view's history from which a commit also writes a newer one, and the shortest time between two
/// comparisons of a view with the journal.
pub const MARK_TIME_MAX: Duration = Duration::from_secs(1);
/// Time in which a node checks all pages of its views, if that takes more than [`SCRUB_REST_MAX`] for each check.
pub const SCRUB_TIME: Duration = Duration::from_secs(86_400);
/// Pages of a view that a node checks at once, of 4 KiB each.
pub const SCRUB_PAGES_MAX: u64 = 256;
/// Shortest rest between two such checks, which limits their reads to 10 MiB a second.
pub const SCRUB_REST_MIN: Duration = Duration::from_millis(100);
/// Longest rest between two such checks.
pub const SCRUB_REST_MAX: Duration = Duration::from_secs(60);
/// Default of the rest between two checks of the rows of a version that serves.
pub const SCRUB_ROWS_REST: Duration = Duration::from_secs(3_600);
/// Longest rest before the first of these checks.
pub const SCRUB_ROWS_REST_FIRST: Duration = Duration::from_secs(60);
/// Shortest such rest, whatever the version sets.
pub const SCRUB_ROWS_REST_MIN: Duration = Duration::from_millis(10);
/// Longest time of one check. It keeps one state of the view for no longer.
pub const SCRUB_ROWS_TIME_MAX: Duration = Duration::from_secs(60);
/// Share of the time of one core for which a check works, in percent.
pub const SCRUB_ROWS_SHARE_PERCENT: u8 = 10;
/// Time for which it works before it rests for that.
pub const SCRUB_ROWS_WORK_MAX: Duration = Duration::from_millis(20);
/// Longest such rest, where a handler or a read took long.
pub const SCRUB_ROWS_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Largest lag, in events, at which a version still counts as caught up.
pub const READY_LAG_MAX: u64 = 10_000;
/// Largest lead of the last event's recorded time over a node's clock that is not reported.
pub const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(60);
/// Time between two checks of the clock.
pub const CLOCK_LOOK_TIME: Duration = Duration::from_secs(10);
/// Age at which a second counts 1/e as much in the pace of a version as the present one.
pub const PACE_TIME: Duration = Duration::from_secs(10);
/// Shortest time of measurement before the pace is shown.
pub const PACE_TIME_MIN: Duration = Duration::from_secs(1);
/// Time for which more must have arrived than was covered, and age of the oldest event that is not covered, before a
/// version is reported as never catching up.
pub const NEVER_TIME_MIN: Duration = Duration::from_secs(5);
/// Largest age of the oldest uncovered event at which a version near the head counts as following.
pub const FOLLOWING_AGE_MAX: Duration = Duration::from_secs(1);
/// Time without progress after which a version that has something to do is reported as stalled.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Most findings of one kind that a part of a verification keeps; it counts the others.
pub const FINDINGS_MAX: usize = 10;
/// Longest text in a finding, such as a row, in bytes; a longer one is cut.
pub const FINDING_BYTES_MAX: usize = 1_024;
/// Most notes that a part of a verification keeps.
pub const NOTES_MAX: usize = 50;
/// Most rows that a verification reads from a view at once.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Most bytes of rows in one page of a view. A page of one row may have more.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Longest time for which two versions may make no progress towards one position at which they can be compared.
pub const MEET_TIME_MAX: Duration = Duration::from_secs(10);
/// Default of the most events that a verification folds from the start, for a version that began as a copy.
pub const FOLD_EVENTS_MAX: usize = 200_000;
/// Default of the longest time for which it folds.
pub const FOLD_TIME_MAX: Duration = Duration::from_secs(30);
/// Most streams that it folds if there are more events than that.
pub const FOLD_STREAMS_MAX: u64 = 1_000;
/// Most bytes of their events that it keeps in memory.
pub const FOLD_BYTES_MAX: usize = 64 << 20;
/// Most rows of one table that it then looks up one by one.
pub const FOLD_ROWS_MAX: u64 = 10_000;
/// Most live queries that wait to be put to a version that is being built. More are dropped.
pub const SHADOWS_MAX: usize = 256;

const _: () = assert!(PAYLOAD_BYTES_MAX + METADATA_BYTES_MAX < APPEND_BYTES_MAX, "the largest event fits an append");
const _: () = assert!(PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX, "the largest event fits a batch");
const _: () = assert!(
    // The bytes that PostgreSQL adds to each value and to all of them, and the bytes that fit in a third of its page.
    INDEX_BYTES_MAX + INDEX_COLUMNS_MAX * 11 + 16 <= 2_704 && INDEX_COLUMNS_MAX * INDEX_VALUE_BYTES <= INDEX_BYTES_MAX,
    "what is indexed fits every store"
);
const _: () = assert!(ANSWER_TIME_MAX.as_millis() < REQUEST_TIME_MAX.as_millis(), "an answer has time for the way");
const _: () = assert!(SCRUB_ROWS_REST_MIN.as_millis() <= SCRUB_ROWS_REST_FIRST.as_millis(), "the first look comes");
const _: () = assert!(EFFECTS_AT_ONCE_MAX <= EFFECTS_READ_MAX, "what is made at the same time can be looked at");
const _: () = assert!(PAYLOAD_BYTES_MAX <= TAIL_BYTES_MAX, "the largest event fits the tail");
const _: () = assert!(TAIL_EVENTS_MAX <= READ_EVENTS_MAX, "the tail is never read with more than one read may have");
const _: () = assert!(APPEND_EVENTS_MAX <= READ_EVENTS_MAX, "one append can be read at once");
const _: () = assert!(
    STALL_TIME_MAX.as_millis() > 2 * BATCH_TIME_TARGET_BUILD.as_millis(),
    "a batch of the length that is aimed at is no stall"
);
const _: () = assert!(
    5 * 7 * FINDINGS_MAX * (4 * FINDING_BYTES_MAX + 64) + 5 * NOTES_MAX * FINDING_BYTES_MAX < PAYLOAD_BYTES_MAX / 4,
    "the largest report fits an event"
);
