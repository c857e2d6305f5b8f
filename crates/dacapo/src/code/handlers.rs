//! The way of a batch through the handler of a projection with erased types, and the cause of a failure.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::task::Poll;
use std::time::Duration;

use dacapo_model::{Position, Segment, SegmentCount};
use dacapo_store::EventBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Aside, Assertion, Busy, Checks, Comparison, Failure, FailureCause, HandlerError, Projection, Recorded, Speaks,
};
use crate::event;
use crate::panics::{chain, panic_text};
use crate::view::{ReadView, View, ViewError};

/// A batch of events, and how far each segment may go in it.
pub(crate) struct Work<'a> {
    pub(crate) batch: &'a EventBatch,
    /// The first of its events to handle, counted from 0.
    pub(crate) from: usize,
    pub(crate) segments: SegmentCount,
    /// For each segment the last position to apply. A segment that takes no part has its own token here, or a lower
    /// position.
    pub(crate) through: &'a [Position],
    /// For each segment the last position that is a replay.
    pub(crate) past: &'a [Position],
    /// The events for which effects are kept, if there can be any.
    pub(crate) speaks: Option<&'a Speaks>,
    /// For each segment the number of events that it has handled. This batch is added to it.
    pub(crate) applied: &'a mut [u64],
    /// The events that are set aside instead.
    pub(crate) aside: &'a mut Aside,
    /// The mark of the event that the handler is working on.
    pub(crate) busy: &'a Busy,
    /// The longest time that the handler may wait in one event.
    pub(crate) time_max: Duration,
    /// The time at which the rest of the batch is left for later.
    pub(crate) until: Instant,
}

/// The erased form of a projection.
pub(crate) trait Handlers: Send + Sync {
    fn assertions(&self) -> &'static [Assertion];

    fn check<'a>(&'a self, view: &'a mut ReadView, checks: &'a mut Checks) -> BoxFuture<'a, Result<(), HandlerError>>;

    fn comparison(&self, old: u32) -> Comparison;

    /// Applies a batch, event by event, until it is done or an event fails. If the time was too short for all of it,
    /// returns the place in it of the last event that was handled. At least one event is always handled.
    fn apply<'a>(&'a self, work: Work<'a>, view: &'a mut View) -> BoxFuture<'a, Result<Option<usize>, Failure>>;

    /// Removes what the events after `after` made.
    fn reset<'a>(&'a self, view: &'a mut View, after: Position) -> BoxFuture<'a, Result<(), FailureCause>>;

    /// Fills an empty view from that of another version.
    fn migrate<'a>(&'a self, source: &'a mut ReadView, view: &'a mut View) -> BoxFuture<'a, Result<(), HandlerError>>;
}

/// The place of the handler in a batch.
struct Current {
    segment: Segment,
    index: usize,
    /// The number of changes that the view had seen before the event.
    changes: u64,
}

impl<P: Projection> Handlers for P {
    fn assertions(&self) -> &'static [Assertion] {
        P::ASSERTIONS
    }

    fn check<'a>(&'a self, view: &'a mut ReadView, checks: &'a mut Checks) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(Projection::check(self, view, checks))
    }

    fn comparison(&self, old: u32) -> Comparison {
        Projection::comparison(self, old)
    }

    fn migrate<'a>(&'a self, source: &'a mut ReadView, view: &'a mut View) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(Projection::migrate(self, source, view))
    }

    #[expect(clippy::expect_used, reason = "only the handling of an event can fail")]
    fn apply<'a>(&'a self, work: Work<'a>, view: &'a mut View) -> BoxFuture<'a, Result<Option<usize>, Failure>> {
        Box::pin(async move {
            let (busy, mut current) = (work.busy, None);
            let run = AssertUnwindSafe(apply_all(self, work, view, &mut current)).catch_unwind().await;
            busy.rests();
            let cause = match run {
                Ok(Ok(last)) => return Ok(last),
                Ok(Err(cause)) => cause,
                Err(panic) => FailureCause::Handler(format!("it panicked: {}", panic_text(&*panic))),
            };
            let Current { segment, index, changes } = current.expect("only the handling of an event can fail");
            Err(Failure { segment, index, changed: view.changes() != changes, cause })
        })
    }

    fn reset<'a>(&'a self, view: &'a mut View, after: Position) -> BoxFuture<'a, Result<(), FailureCause>> {
        let reset = async move { Projection::reset(self, view, after).await };
        Box::pin(AssertUnwindSafe(reset).catch_unwind().map(|run| match run {
            Ok(done) => done.map_err(of),
            Err(panic) => Err(FailureCause::Handler(format!("it panicked: {}", panic_text(&*panic)))),
        }))
    }
}

async fn apply_all<P: Projection>(
    projection: &P,
    work: Work<'_>,
    view: &mut View,
    current: &mut Option<Current>,
) -> Result<Option<usize>, FailureCause> {
    for index in work.from..work.batch.len() {
        let place = work.batch.get(index);
        let segment = work.segments.segment_of(place.stream);
        let at = usize::from(segment.get());
        if place.position > work.through[at] {
            continue;
        }
        *current = Some(Current { segment, index, changes: view.changes() });
        if !work.aside.takes(segment, &place).map_err(FailureCause::NoRoom)? {
            work.busy.begins(place.position);
            view.write_for(segment, place.position);
            if let Some(data) = event::read::<P::Event>(&place).map_err(of)? {
                let replay = place.position <= work.past[at];
                if let Some(speaks) = work.speaks {
                    view.begin_event(&place, segment, speaks.is_silent(segment, place.position));
                }
                let event = Recorded::new(data, place).of_past(replay);
                in_time(projection.apply(&event, view), work.time_max).await?;
                view.end_event().map_err(|error| of(error.into()))?;
            }
        }
        work.applied[at] += 1;
        if index + 1 < work.batch.len() && (view.should_ask() || Instant::now() >= work.until) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Returns the result of a handler, if it finishes in time. It nearly always finishes at once, and then no timer is
/// set.
async fn in_time(
    applying: impl Future<Output = Result<(), HandlerError>>,
    time_max: Duration,
) -> Result<(), FailureCause> {
    let mut applying = std::pin::pin!(applying);
    if let Poll::Ready(applied) = futures::poll!(applying.as_mut()) {
        return applied.map_err(of);
    }
    match tokio::time::timeout(time_max, applying).await {
        Ok(applied) => applied.map_err(of),
        Err(_) => {
            let waited = time_max.as_secs_f64();
            Err(FailureCause::Handler(format!("it did not return within {waited} s (`handler_time_max`)")))
        }
    }
}

/// Returns the cause of an error. The handler may have wrapped the error of the view in its own.
fn of(error: HandlerError) -> FailureCause {
    let causes = std::iter::successors(Some(&*error as &(dyn std::error::Error + 'static)), |cause| cause.source());
    match causes.filter_map(|cause| cause.downcast_ref::<ViewError>()).find(|error| error.is_passing()) {
        Some(error) => FailureCause::Store(error.clone()),
        None => FailureCause::Handler(chain(&*error)),
    }
}
