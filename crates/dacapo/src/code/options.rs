//! The options of a version.

use std::time::Duration;

use dacapo_model::assign::RowScope;
use dacapo_model::replay::InPlace;
use dacapo_model::{FlipPolicy, OnFailure, Retry, SegmentCount, WorkShare};

use super::{Scrub, Seed, Verify};
use crate::effect::EffectOptions;
use crate::limits;

/// The options of a version: how it is built and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of segments. Default: 1. A version with a unique index must have 1 segment, since only then is uniqueness
    /// guaranteed. The number is part of the version, as its tables are: another number needs another version number.
    ///
    /// Events of one stream are always in one segment and in order. A segment whose handler fails does not block the
    /// others. In a cluster the nodes share the segments.
    pub segments: SegmentCount,
    /// The events that may change a row. Default: events of one segment only, as for a row whose key is the stream's.
    /// Set [`RowScope::AcrossSegments`] if events of different segments change the same row, such as a total over all
    /// streams. Then one node at a time has all segments, since two nodes that change a row at once would lose the
    /// change of one of them.
    ///
    /// By default, an event of another segment that would change an existing row is refused
    /// ([`ViewError::Shared`](crate::rows::ViewError::Shared)).
    pub rows: RowScope,
    /// The flip policy of a new build. Default: it flips by itself, as soon as it is ready.
    pub flip: FlipPolicy,
    /// The time for which a version stands by after a flip, following and ready for a rollback, before it is cleaned
    /// up. While a node runs, a change of the clock makes no time pass; after a restart the clock counts. Default: one
    /// day.
    pub stand_by: Duration,
    /// The categories of the streams that it reads. Default: all. A category is the part of a stream's name before the
    /// first `-`, so it has no `-` itself. The categories are part of the version: other categories need another
    /// version number.
    pub categories: Option<Vec<String>>,
    /// The memory for rows in bytes. Default: 64 MiB.
    pub row_cache_bytes: usize,
    /// The most events in one batch. Default: [`limits::BATCH_EVENTS_MAX`](crate::limits::BATCH_EVENTS_MAX). Within this
    /// limit the size adapts to time: 100 ms near the head, one second far from it, and four seconds in a version that
    /// is being built, as long as nobody waits for its end.
    pub batch_events_max: usize,
    /// The kind of replay in place that it allows. Default: none.
    pub in_place: InPlace,
    /// The options of the effects that its handler emits.
    pub effects: EffectOptions,
    /// The way in which a build may begin as a copy of the serving view, so that it reads only later events. Default:
    /// no copy.
    pub seed: Seed,
    /// True to begin new code as a copy automatically, if that is possible. Default: false, it reads the past. A
    /// requested rebuild does what the request says.
    pub seed_new_code: bool,
    /// Share of time that a build may use while it is far from the head. It leaves the rest to the serving versions.
    /// Default: 100 %, which takes about one core.
    pub rebuild_share: WorkShare,
    /// True to build the indexes of the view, except unique ones, only at the end of the replay, since rows are written
    /// faster without them. Default: true.
    ///
    /// A handler that uses SQL may need the indexes, so it gets them first: its first statement is refused
    /// ([`ViewError::Unindexed`](crate::rows::ViewError::Unindexed)). Once the indexes are built, the handler gets its
    /// event again.
    pub index_last: bool,
    /// The number and times of retries of an event that the handler refuses, with an error, a panic, or by using more
    /// than `handler_time_max`. Default: 10 tries within about a minute. If events are set aside, fewer tries may be
    /// better, since the segment waits meanwhile. A failed reset or copy waits as long between two tries, and is
    /// retried without end.
    pub retry: Retry,
    /// The action for an event that is refused after all tries. Default: the segment halts before it.
    pub on_failure: OnFailure,
    /// True if the events of a stream must be applied in their order. Then later events wait for an earlier one that
    /// was set aside as a dead letter. Default: true.
    pub order_matters: bool,
    /// The longest time that the handler may wait in one event. After it the event counts as refused. Default: one
    /// minute. A handler that computes without waiting cannot be stopped; the status shows its event.
    pub handler_time_max: Duration,
    /// The verification that must succeed before readers move to it.
    pub verify: Verify,
    /// The background check of its rows while it serves: the rows are compared with what its code makes of its events.
    /// Default: [`Scrub::default`], one check each hour.
    pub scrub: Scrub,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segments: SegmentCount::ONE,
            rows: RowScope::default(),
            flip: FlipPolicy::WhenReady,
            stand_by: limits::STAND_BY_TIME,
            categories: None,
            row_cache_bytes: limits::ROW_BYTES_MAX,
            batch_events_max: limits::BATCH_EVENTS_MAX,
            in_place: InPlace::No,
            effects: EffectOptions::default(),
            seed: Seed::Never,
            seed_new_code: false,
            rebuild_share: WorkShare::ALL,
            index_last: true,
            retry: Retry::default(),
            on_failure: OnFailure::default(),
            order_matters: true,
            handler_time_max: limits::HANDLER_TIME_MAX,
            verify: Verify::default(),
            scrub: Scrub::default(),
        }
    }
}
