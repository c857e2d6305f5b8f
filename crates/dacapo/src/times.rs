//! Whether the times in the journal are ahead of this node's clock.
//!
//! Recorded times never decrease, so an event that was appended by a clock that is ahead gives its time to all later ones
//! until the clocks of those who append have come to it. That harms no order and no view, but every time that is read
//! from events is wrong meanwhile, and so is the age of what a version does not cover. Nothing can take it back; it is
//! told, so that the clocks are set right before it happens again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dacapo_model::{Position, Timestamp, limits};
use dacapo_store::{Clock, Filter, Journal, Limit, StoreError};
use tokio::sync::watch;

/// The journal's times are ahead of a node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBehind {
    /// By how much.
    pub by: Duration,
    /// The position of the last event that was looked at.
    pub position: Position,
    /// When it was recorded.
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
            "the clock of this node is {by} behind the time of the last event ({recorded}, position {position}): a \
             clock was ahead when that was appended, or this one is behind. What is appended gets that time until the \
             clock has come to it. Set the clocks of all nodes by one source of time (NTP), and do not trust the times \
             of events from there on"
        )
    }
}

/// The last event, as it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Times(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last: Option<(Position, Timestamp)>,
    told: bool,
}

impl Times {
    /// Whether its time is ahead of `now` by more than clocks differ.
    pub(crate) fn behind(&self, now: Timestamp) -> Option<ClockBehind> {
        let (position, recorded) = self.seen().last?;
        let by = recorded.since(now);
        (by > limits::CLOCK_BEHIND_MAX).then_some(ClockBehind { by, position, recorded })
    }

    /// Looks at the last event, unless that was done, and tells the log of what has changed.
    pub(crate) async fn look(&self, journal: &dyn Journal, clock: &dyn Clock) {
        let head = *journal.head().borrow();
        if head > self.seen().last.map_or(Position::START, |(position, _)| position) {
            match last_event(journal, head).await {
                Ok(Some(last)) => self.seen().last = Some(last),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the time of the last event cannot be looked at for the moment"),
            }
        }
        let behind = self.behind(clock.now());
        let told = std::mem::replace(&mut self.seen().told, behind.is_some());
        match behind {
            Some(behind) if !told => tracing::warn!("{behind}"),
            None if told => tracing::info!("the clock of this node has come to the time of the last event"),
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

/// Looks now and then, until the node ends.
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
            () = tokio::time::sleep(limits::CLOCK_LOOK_TIME) => {}
        }
        times.look(&*journal, &*clock).await;
    }
}
