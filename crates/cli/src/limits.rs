//! The limits of the command line.

use std::time::Duration;

use dacapo_model::limits;

/// Pause between two calls while a command waits. A node that answers at once must not be asked in a loop. A person
/// notices no shorter one.
pub(crate) const POLL_PAUSE: Duration = Duration::from_millis(250);
/// Time for which each of these calls waits inside the node, in milliseconds. Its answer has the reasons, so a person sees
/// new ones after this time.
pub(crate) const WAIT_MS: u64 = 1_000;
/// The same for the first call of a flip: a flip that is possible has happened by then, and otherwise the reasons are
/// shown soon.
pub(crate) const WAIT_FIRST_MS: u64 = 250;
/// Most calls in a row that may fail while a command waits: a node may be restarted meanwhile. With the pauses they
/// take 15 seconds.
pub(crate) const CALLS_FAILED_MAX: u32 = 60;
/// Pause between two looks of `dacapo status --watch`. A person reads no faster.
pub(crate) const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Default of the most connections of a node for views.
#[cfg(feature = "postgres")]
pub(crate) use dacapo_postgres::limits::CONNECTIONS_MAX;
/// The same without PostgreSQL. Only the help shows it: there is no database to connect to.
#[cfg(not(feature = "postgres"))]
pub(crate) const CONNECTIONS_MAX: u32 = 16;

/// Most events that one call reads. A node returns as many without being asked for a number.
pub(crate) const PAGE_EVENTS: u32 = 1_000;
/// Time for which a call of a follower waits for events inside the node. It is the longest for which a node lets a
/// reader wait, so a follower without news calls as rarely as it can.
pub(crate) const FOLLOW_WAIT: Duration = Duration::from_secs(30);
/// Pause of a follower after a failed call. A node that was restarted is found within this time, and one that is away
/// is not called in a loop.
pub(crate) const FOLLOW_PAUSE: Duration = Duration::from_secs(1);
/// Most failed calls of a follower before it gives up: about a minute. A node that is restarted is back by then.
pub(crate) const FOLLOW_TRIES_MAX: u32 = 60;
/// Most characters of a payload on a terminal. That is about one screen of 25 lines with 80 characters.
pub(crate) const DATA_CHARS_MAX: usize = 2_000;
/// Most characters of an error, a payload, a reason or the name of a requester in a table. That is a few lines, so a table stays readable.
pub(crate) const CELL_CHARS_MAX: usize = 500;

/// Longest line of an import, in bytes: the largest payload, as JSON and as a text of JSON, in which each byte may take
/// two, and everything beside it.
pub const LINE_BYTES_MAX: usize = 3 * limits::PAYLOAD_BYTES_MAX + (1 << 20);
/// Default of the most lines in one append of an import. The lines share one flush, and few are sent again if the
/// append fails.
pub(crate) const IMPORT_LINES_MAX: usize = 2_000;
/// Default of the most bytes of lines in one append of an import. It is a small part of the largest append, so that the
/// appends of others wait little.
pub(crate) const IMPORT_BYTES_MAX: usize = 4 << 20;
/// Default of the time for which one append of an import is tried again: a node that was restarted is back by then.
pub(crate) const IMPORT_TIME_MAX: Duration = Duration::from_secs(60);
/// Default of the first pause between two tries. A connection that was lost is mostly back by then.
pub(crate) const IMPORT_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between two tries. An import goes on this soon after its node is back.
pub(crate) const IMPORT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The time for which the demo's clients continue between two moves of readers, so that each version really serves.
pub(crate) const DEMO_SERVE_TIME: Duration = Duration::from_millis(1_500);
/// Pause between two looks of a bar of the demo at the version that it shows. At 40 looks a second the bar moves
/// evenly.
pub(crate) const DEMO_LOOK: Duration = Duration::from_millis(25);
/// Longest time of one step in the life of a version before the demo gives up. It may be asked for very many events.
pub(crate) const DEMO_STEP_TIME_MAX: Duration = Duration::from_secs(4 * 60 * 60);
/// Events in one append of the demo. They share one flush, and are few enough for a bar that moves evenly.
pub(crate) const DEMO_BATCH_EVENTS: usize = 1_000;
/// Appends of the demo under way at once: one is encoded while another is flushed.
pub(crate) const DEMO_APPENDS_MAX: usize = 4;

const _: () = assert!(
    POLL_PAUSE.as_millis() * CALLS_FAILED_MAX as u128 > limits::UNOWNED_TIME_MAX.as_millis(),
    "a command outlasts the restart of a node whose segments another one takes over meanwhile"
);
const _: () = assert!(WAIT_FIRST_MS <= WAIT_MS && WAIT_MS as u128 <= dacapo_server::WAIT_TIME_MAX.as_millis());
const _: () = assert!(
    FOLLOW_WAIT.as_millis() <= dacapo_server::WAIT_TIME_MAX.as_millis(),
    "a node waits for as long as a follower asks it to"
);
const _: () = assert!(PAGE_EVENTS as usize <= limits::READ_EVENTS_MAX, "a page is one read");
const _: () =
    assert!(limits::PAYLOAD_BYTES_MAX + limits::METADATA_BYTES_MAX < LINE_BYTES_MAX, "every event can be imported");
const _: () = assert!(IMPORT_LINES_MAX <= limits::APPEND_EVENTS_MAX, "a batch is one append");
const _: () = assert!(IMPORT_BYTES_MAX <= dacapo_server::APPEND_BODY_BYTES_MAX, "a batch is one request");
const _: () = assert!(LINE_BYTES_MAX <= dacapo_server::APPEND_BODY_BYTES_MAX, "the longest line is one request");
const _: () = assert!(
    IMPORT_PAUSE_FIRST.as_millis() < IMPORT_PAUSE_MAX.as_millis()
        && IMPORT_PAUSE_MAX.as_millis() < IMPORT_TIME_MAX.as_millis(),
    "the pauses of an import grow, and it tries again after the longest one"
);
const _: () = assert!(DEMO_BATCH_EVENTS <= limits::APPEND_EVENTS_MAX);
