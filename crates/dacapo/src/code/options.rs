//! How a version is built and run.

use std::time::Duration;

use dacapo_model::assign::RowScope;
use dacapo_model::replay::InPlace;
use dacapo_model::{FlipPolicy, OnFailure, Retry, SegmentCount, WorkShare};

use super::{Scrub, Seed, Verify};
use crate::effect::EffectOptions;
use crate::limits;

/// How a version is built and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Into how many segments it is cut, part of the version as its tables are: another number needs another version number. Events of one stream are always in one segment and in
    /// order; a segment whose handler fails does not hold the others back, and in a cluster the nodes share them. 1
    /// unless set, and in a version with a unique index, of which more can be promised nowhere.
    pub segments: SegmentCount,
    /// Whether events of different segments change the same row, such as a total over all streams. Where they do, one
    /// node at a time has all segments, since a row that two nodes change at once would lose what one of them did. A row
    /// is changed by events of one segment only, unless set, such as one whose key is the stream's; an event of another
    /// segment that would change it, as long as it is there, is refused ([`ViewError::Shared`](crate::rows::ViewError::Shared)).
    pub rows: RowScope,
    /// When a new build flips. By itself as soon as it is ready, unless set.
    pub flip: FlipPolicy,
    /// How long a version stands by after a flip, following and ready for a rollback, before it is
    /// cleaned up. One day unless set.
    pub stand_by: Duration,
    /// Only streams of these categories; all unless set. A category is what comes before the first `-` of a stream's name, so
    /// it has no `-` itself. Part of the version: other categories need another version number.
    pub categories: Option<Vec<String>>,
    /// What the rows in memory may take, in bytes. 64 MiB unless set.
    pub row_cache_bytes: usize,
    /// Most events in one batch. Below that it adapts to time: 100 ms near the head, a second far from it, and four
    /// seconds in a version that is being built, as long as nobody waits for its end.
    pub batch_events_max: usize,
    /// Whether past events may go through it again in place. They may not, unless set.
    pub in_place: InPlace,
    /// How the effects are made that its handler emits.
    pub effects: EffectOptions,
    /// How a build may begin as a copy of the view that serves, so that it reads only what came after. Not at all unless
    /// set.
    pub seed: Seed,
    /// Whether new code does so by itself, where that is possible; it reads the past, unless set. A rebuild that is asked
    /// for does as it is asked.
    pub seed_new_code: bool,
    /// How much of the time a new build works while it is far from the head; the rest it leaves to those that serve. All
    /// of it unless set: it takes one versions, and a little of another.
    pub rebuild_share: WorkShare,
    /// Whether the view goes without its indexes while it replays the past, unique ones aside, and gets them at the end:
    /// rows are written faster so. It does, unless set otherwise. A handler that uses SQL, which may need them, gets
    /// them first: its first statement is refused ([`ViewError::Unindexed`](crate::rows::ViewError::Unindexed)), and once they
    /// are built it gets its event again.
    pub index_last: bool,
    /// How often and when an event is tried again that the handler refuses: an error, a panic, or more than
    /// `handler_time_max`. 10 times within about a minute unless set; whoever sets events aside may want fewer, since
    /// the segment waits meanwhile. A reset or a copy that fails waits as long between two tries, which never end.
    pub retry: Retry,
    /// What to do with an event that was refused so often. The segment halts before it, unless set.
    pub on_failure: OnFailure,
    /// Whether the events of a stream must be applied in their order, so that later ones wait behind one that was
    /// set aside as a dead letter. True unless set.
    pub order_matters: bool,
    /// How long the handler may wait for something in one event; then it counts as having refused it. One minute
    /// unless set. A handler that computes without ever waiting cannot be stopped; the status says where it is.
    pub handler_time_max: Duration,
    /// What must be verified of it before readers move to it.
    pub verify: Verify,
    /// How its rows are compared with what its code makes of its events while it serves. Default: [`Scrub::default`], a
    /// look an hour.
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
