//! The check whether the times in the journal are ahead of this node's clock.
//!
//! Recorded times never decrease. So an event that was appended with a clock that is ahead gives its time to all later
//! events, until the clocks of all writers have reached it. That harms no order and no view. But meanwhile every time
//! that is read from events is wrong, and so is the age of what a version does not cover. Nothing can undo it. It is
//! reported, so that the clocks are corrected before it happens again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dacapo_model::{Position, Timestamp, limits};
use dacapo_store::{Clock, Filter, Journal, Limit, StoreError};
use tokio::sync::watch;

/// The journal's times are ahead of a node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBehind {
    /// The difference.
    pub by: Duration,
    /// The position of the last event that was read.
    pub position: Position,
    /// The time at which it was recorded.
    pub recorded: Timestamp,
}

impl fmt::Display for ClockBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, position, recorded } = self;
        let recorded = match jiff::Timestamp::from_microsecond(recorded.micros()) {
            Ok(time) => time.to_string(),
            Err(_) => format!("{} µs", recorded.micros()),
        };
        let by = match by.as_secs() {
            seconds @ 0..7_200 => format!("{} min", seconds / 60),
            seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
            seconds => format!("{} days", seconds / 86_400),
        };
        write!(
            f,
            "the last event ({recorded}, position {position}) has a time {by} after that of this node's clock: a \
             clock was ahead when it was appended, or this one is slow. New events get that time until this clock \
             has reached it. Set the clocks of all nodes by one source of time (NTP), and do not trust the times \
             of events from there on"
        )
    }
}

/// The last event that was read.
#[derive(Debug, Default)]
pub(crate) struct Times(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last: Option<(Position, Timestamp)>,
    told: bool,
}

impl Times {
    /// Returns the difference if its time is ahead of `now` by more than clocks usually differ.
    pub(crate) fn behind(&self, now: Timestamp) -> Option<ClockBehind> {
        let (position, recorded) = self.seen().last?;
        let by = recorded.since(now);
        (by > limits::CLOCK_BEHIND_MAX).then_some(ClockBehind { by, position, recorded })
    }

    /// Reads the last event, if that was not done yet, and logs changes.
    pub(crate) async fn look(&self, journal: &dyn Journal, clock: &dyn Clock) {
        let head = *journal.head().borrow();
        if head > self.seen().last.map_or(Position::START, |(position, _)| position) {
            match last_event(journal, head).await {
                Ok(Some(last)) => self.seen().last = Some(last),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the time of the last event cannot be read now"),
            }
        }
        let behind = self.behind(clock.now());
        let told = std::mem::replace(&mut self.seen().told, behind.is_some());
        match behind {
            Some(behind) if !told => tracing::warn!("{behind}"),
            None if told => tracing::info!("the clock of this node has reached the time of the last event"),
            _ => {}
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn last_event(journal: &dyn Journal, head: Position) -> Result<Option<(Position, Timestamp)>, StoreError> {
    let before = Position::new(head.get().saturating_sub(1));
    let batch = journal.read(before, &Filter::everything(), Limit { events: 1, bytes: 1 }).await?;
    Ok(batch.iter().next_back().map(|event| (event.position, event.recorded)))
}

/// Checks from time to time, until the node ends.
pub(crate) async fn watch(
    times: Arc<Times>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(limits::CLOCK_LOOK) => {}
        }
        times.look(&*journal, &*clock).await;
    }
}
