//! Every limit, in one place: the unit, then `MAX` last.

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
/// Longest field `time` of an event's metadata that does not count towards [`METADATA_BYTES_MAX`], in bytes: imports add
/// such a field, and whatever was appended anywhere can be imported.
pub const METADATA_TIME_BYTES_MAX: usize = 64;
/// Most tags of one event.
pub const TAGS_MAX: usize = 16;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 255;
/// Most events in one append.
pub const APPEND_EVENTS_MAX: usize = 10_000;
/// Most streams of which one append demands a revision.
pub const APPEND_EXPECTED_MAX: usize = APPEND_EVENTS_MAX;
/// Largest append as stored, in bytes.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// Most segments of a version.
pub const SEGMENTS_MAX: u16 = 1024;
/// Most events that one read returns.
pub const READ_EVENTS_MAX: usize = 65_536;
/// Most reads of the past at the same time on one node for those who wait for events or subscribe; others wait for
/// their turn. Processors have their own.
pub const SCANS_MAX: usize = 2;
/// Most events that a processor applies in one batch.
pub const BATCH_EVENTS_MAX: usize = 1 << 20;
/// Most bytes of events that a processor reads at once.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// How long a batch of a processor should take near the head, where readers wait for it.
pub const BATCH_TIME_TARGET: Duration = Duration::from_millis(100);
/// How long a batch should take further than [`READY_LAG_MAX`] from the head: rows that change often are then
/// written once for many changes, and nobody can be answered any sooner by less.
pub const BATCH_TIME_TARGET_FAR: Duration = Duration::from_secs(1);
/// How long a batch should take so far from the head in a version that answers nobody yet, as long as nobody waits for
/// its end.
pub const BATCH_TIME_TARGET_BUILD: Duration = Duration::from_secs(4);
/// Most bytes of unchanged rows that a view keeps in memory from batch to batch, unless it is set otherwise.
pub const ROW_BYTES_MAX: usize = 64 << 20;
/// Most bytes of the values that a row has in the columns of its key, or of one index: what every store can index. A
/// text or bytes count as long as they are, and any other value as [`INDEX_VALUE_BYTES`].
pub const INDEX_BYTES_MAX: usize = 2_000;
/// What a value of a kind whose values are all of one size counts in a key or an index, in bytes.
pub const INDEX_VALUE_BYTES: usize = 16;
/// Most columns of a key or an index.
pub const INDEX_COLUMNS_MAX: usize = 32;
/// Most unique values that a view takes without having asked its store whether another row has them.
pub const UNIQUE_UNASKED_MAX: usize = 10_000;
/// How long a member counts as alive after it has renewed its lease.
pub const LEASE_TIME: Duration = Duration::from_secs(3);
/// How long a segment may be nobody's before every node says so (I-10).
pub const UNOWNED_TIME_MAX: Duration = Duration::from_secs(2 * LEASE_TIME.as_secs());
/// How long a flip may hold the old version's appliers before it lets go and tries again later.
pub const HOLD_TIME_MAX: Duration = Duration::from_millis(500);
/// Most events that the new version may be behind the old one when a flip holds the old one.
pub const HOLD_LAG_MAX: u64 = 5_000;
/// How long a processor that shall stop may take for the batch it is in, before that is given up.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to wait beyond [`STOP_TIME_MAX`] for a processor that was told to give up its batch. One that still runs
/// then computes without end; its thread is left behind, and its claim revoked.
pub const STOP_MARGIN_MAX: Duration = Duration::from_secs(1);
/// How long a handler may be busy with one event before the status and the log say so.
pub const HANDLER_TIME_SEEN: Duration = Duration::from_secs(2);
/// Most dead letters of a version. With more the segment of the next one halts, whatever its policy: a handler that
/// refuses so much is wrong, and what it refuses must not all be set aside.
pub const LETTERS_MAX: usize = 10_000;
/// Longest text that is kept of what a handler said, in bytes.
pub const HANDLER_ERROR_BYTES_MAX: usize = 4 << 10;
/// How long a clean-up that is asked for waits until the version has come to the events whose effects are its to make.
pub const SPEAK_TIME_MAX: Duration = Duration::from_secs(2);
/// How often it looks.
pub const SPEAK_LOOK: Duration = Duration::from_millis(20);
/// How long a status waits for the store to tell how versions are, before it tells what was known before.
pub const STATUS_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a request waits for a position, for a serving version or for an answer, unless it says otherwise.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a node that answers requests looks for an answer: the rest of [`REQUEST_TIME_MAX`] is for the way to the
/// caller, so that whoever waits that long has an answer.
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
/// Most bytes of those.
pub const TAIL_BYTES_MAX: usize = 16 << 20;
/// How old the mark of a view's history may be before a commit takes a newer one with it, and how often at most each view
/// is compared with the journal.
pub const MARK_TIME_MAX: Duration = Duration::from_secs(1);
/// In what time a node looks at all pages of its views, where that takes it more than [`SCRUB_REST_MAX`] for each look.
pub const SCRUB_TIME: Duration = Duration::from_secs(86_400);
/// Pages of a view that a node looks at in one go, of 4 KiB each.
pub const SCRUB_PAGES_MAX: u64 = 256;
/// The shortest rest between two such looks, which bounds what they read to 10 MiB a second.
pub const SCRUB_REST_MIN: Duration = Duration::from_millis(100);
/// The longest rest between two such looks.
pub const SCRUB_REST_MAX: Duration = Duration::from_secs(60);
/// How long a node rests between two looks at the rows of a version that serves, unless the version says otherwise.
pub const SCRUB_ROWS_REST: Duration = Duration::from_secs(3_600);
/// How long it rests before the first of them at most.
pub const SCRUB_ROWS_REST_FIRST: Duration = Duration::from_secs(60);
/// The shortest such rest, whatever the version says.
pub const SCRUB_ROWS_REST_MIN: Duration = Duration::from_millis(10);
/// How long a look may take; it keeps one state of the view for no longer.
pub const SCRUB_ROWS_TIME_MAX: Duration = Duration::from_secs(60);
/// How much of the time of one core a look works, in percent.
pub const SCRUB_ROWS_SHARE_PERCENT: u8 = 10;
/// How long it works before it rests for that.
pub const SCRUB_ROWS_WORK_MAX: Duration = Duration::from_millis(20);
/// The longest such rest, where a handler or a read took long.
pub const SCRUB_ROWS_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most events that a version may lag and still count as caught up.
pub const READY_LAG_MAX: u64 = 10_000;
/// How far the last event's recorded time may be ahead of a node's clock before that is told.
pub const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(60);
/// How often a node looks.
pub const CLOCK_LOOK_TIME: Duration = Duration::from_secs(10);
/// How long ago a second was of which the pace of a version counts only a part of e.
pub const PACE_TIME: Duration = Duration::from_secs(10);
/// How long it must have been measured before it is told.
pub const PACE_TIME_MIN: Duration = Duration::from_secs(1);
/// For how long more must have arrived than was covered, and how old the oldest event must be that is not covered, before
/// it is said that a version never catches up.
pub const NEVER_TIME_MIN: Duration = Duration::from_secs(5);
/// How old the oldest event may be that a version near the head does not cover, for it to count as following.
pub const FOLLOWING_AGE_MAX: Duration = Duration::from_secs(1);
/// How long a version that has something to do may stand still before it is told as stalled.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Most findings of one kind that a part of a verification keeps; it counts the others.
pub const FINDINGS_MAX: usize = 10;
/// Longest text in a finding, such as a row, in bytes; a longer one is cut.
pub const FINDING_BYTES_MAX: usize = 1_024;
/// Most notes that a part of a verification keeps.
pub const NOTES_MAX: usize = 50;
/// Most rows that a verification reads from a view at once.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Most bytes of rows that one page of a view has, unless its first row alone has more.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// How long two versions may make no progress towards one position at which they can be compared.
pub const MEET_TIME_MAX: Duration = Duration::from_secs(10);
/// Most events that a verification folds from the start, of a version that began as a copy, unless the version says
/// otherwise.
pub const FOLD_EVENTS_MAX: usize = 200_000;
/// How long it does so at most, unless the version says otherwise.
pub const FOLD_TIME_MAX: Duration = Duration::from_secs(30);
/// Most streams that it folds where there are more events than that.
pub const FOLD_STREAMS_MAX: u64 = 1_000;
/// Most bytes of their events that it keeps in memory.
pub const FOLD_BYTES_MAX: usize = 64 << 20;
/// Most rows of one table that it then looks up one by one.
pub const FOLD_ROWS_MAX: u64 = 10_000;
/// Most live queries that wait to be put to a version that is being built; more are dropped.
pub const SHADOWS_MAX: usize = 256;

const _: () = assert!(PAYLOAD_BYTES_MAX + METADATA_BYTES_MAX < APPEND_BYTES_MAX, "the largest event fits an append");
const _: () = assert!(PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX, "the largest event fits a batch");
const _: () = assert!(
    // What PostgreSQL adds to each value and to all of them, and what a third of its page holds.
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
