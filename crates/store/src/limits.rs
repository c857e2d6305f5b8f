//! The limits of the embedded store, those of the rules aside. The endings of names are explained in
//! `dacapo_model::limits`. Sizes that a disk form fixes stand beside the form.

use std::num::NonZeroUsize;
use std::time::Duration;

use dacapo_model::limits;

// The journal.

/// Most appends that wait to be written. A further one waits for room. As many can go in one group. It bounds the
/// memory.
pub(crate) const WAITING_APPENDS_MAX: usize = 4_096;
/// Most appends in one group, which is flushed as a whole. The whole queue can share a flush.
pub(crate) const GROUP_APPENDS_MAX: usize = 4_096;
/// From this many bytes on a group takes no more appends: more would hardly make the flush cheaper, and the first append
/// waits for all of it.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Most sealed chunks that wait for their index. With more, appends wait: otherwise memory would grow. One is indexed
/// while the next is filled, which takes longer.
pub(crate) const SEALED_CHUNKS_MAX: usize = 1;
/// Largest chunk, in bytes, before its last group. A place in a chunk has 32 bits. This is a quarter of what they
/// reach, which leaves room for the last group.
pub(crate) const CHUNK_BYTES_MAX: u64 = 1 << 30;
/// Default of the size of a chunk, in bytes, from which on it is sealed. The index of the last chunk is in memory, so
/// this bounds it.
pub(crate) const CHUNK_BYTES: u64 = 64 << 20;
/// Default of the time between two flushes of the notes about acknowledged events. After a power cut the journal is
/// read from the last of these. So that is a fraction of a second of appends.
pub(crate) const COMMITS_FLUSH_REST: Duration = Duration::from_millis(200);
/// Default of the most bytes of indexes in memory. It is as much as a view may keep of its rows.
pub(crate) const INDEX_CACHE_BYTES_MAX: usize = 64 << 20;
/// Largest distance to the head, in events, at which a read is done by the caller. What is so near is in the page cache of
/// the system, and takes less time than another thread.
pub(crate) const NEAR_EVENTS_MAX: u64 = 64;
/// Most files of chunks that are open at the same time. Systems often allow a process 1,024 files, and views and
/// connections need some of them.
pub(crate) const OPEN_FILES_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Most streams whose last revision is in memory. They are some ten megabytes. A stream that is not known costs a look
/// into the index.
pub(crate) const KNOWN_STREAMS_MAX: NonZeroUsize = NonZeroUsize::new(131_072).unwrap();
/// Most events whose place is in memory because a reader stopped there. A place that is not known costs a look into the
/// index.
pub(crate) const KNOWN_PLACES_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

// Views.

/// Longest time for which a statement waits for another process. Within a process nobody waits here. Another process is
/// a tool that reads or copies the view, and a transaction of it is short.
pub(crate) const BUSY_TIME_MAX: Duration = Duration::from_secs(5);
/// Most statements that a connection keeps prepared. A view has a few for each table.
pub(crate) const STATEMENTS_MAX: usize = 128;
/// Most failed reads of a view that are remembered, to try them again. Damage in more places is shown by these as well.
pub(crate) const FAILED_READS_MAX: usize = 64;
/// Most idle connections for readers that a view keeps. Each has a cache of its own. A reader without one opens a
/// connection.
pub(crate) const IDLE_READERS_MAX: usize = 8;
/// Pages of 4 KiB in the WAL before they are moved into the file. Pages that change often are then moved once for many
/// commits. They are 32 MiB.
pub(crate) const CHECKPOINT_PAGES: i64 = 8_192;
/// Page cache of the connection that writes. SQLite takes a negative number as KiB. It is 64 MiB: pages of a batch stay
/// in memory until its commit.
pub(crate) const WRITER_CACHE_KIB: i64 = -65_536;
/// Page cache of a connection that reads, in the same unit. It is 8 MiB, since a view may have many readers.
pub(crate) const READER_CACHE_KIB: i64 = -8_192;
/// Most bytes of WAL that stay allocated between checkpoints. It is twice as much as a checkpoint lets the WAL grow.
pub(crate) const WAL_BYTES_MAX: i64 = 64 << 20;

const _: () = assert!(GROUP_APPENDS_MAX <= WAITING_APPENDS_MAX, "a group can be as large as the queue lets it be");
const _: () = assert!(
    CHUNK_BYTES_MAX + (GROUP_BYTES_MAX + limits::APPEND_BYTES_MAX) as u64 <= u32::MAX as u64,
    "every place in the largest chunk fits 32 bits: its last group may be full except for one byte, and then get an append"
);
const _: () = assert!(CHUNK_BYTES <= CHUNK_BYTES_MAX, "the default is allowed");
const _: () = assert!(
    CHUNK_BYTES >= (GROUP_BYTES_MAX + limits::APPEND_BYTES_MAX) as u64,
    "not every large group makes a chunk of its own"
);
const _: () = assert!(
    BUSY_TIME_MAX.as_millis() < limits::ANSWER_TIME_MAX.as_millis(),
    "a caller learns that another process locks the view before its own time is over"
);
const _: () =
    assert!(CHECKPOINT_PAGES * 4_096 <= WAL_BYTES_MAX, "the WAL is not cut and made longer again with each checkpoint");
