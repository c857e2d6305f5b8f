//! The event that a handler is working on, seen from outside of its thread.
//!
//! A handler that computes without end can be neither stopped nor asked. So the thread that runs it leaves a mark
//! before each event. A watcher that finds the same mark again knows that the handler is busy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dacapo_model::{Position, limits};
use tokio::time::Instant;

/// The marks of a processor's handler, and the observations of its watchers.
#[derive(Default)]
pub(crate) struct Busy {
    /// The event that is being handled; 0 for none.
    position: AtomicU64,
    /// The number of events that were begun.
    begun: AtomicU64,
    seen: Mutex<Option<Seen>>,
}

/// A mark, and the time at which it was first seen.
#[derive(Clone, Copy)]
struct Seen {
    begun: u64,
    since: Instant,
    told: bool,
}

/// A handler that has been busy with one event for long enough to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busied {
    pub(crate) position: Position,
    pub(crate) time: Duration,
    /// True if it was not reported before.
    pub(crate) is_news: bool,
}

impl Busy {
    /// Records that the handler gets the event at `position`. Only one thread at a time calls this.
    pub(crate) fn begins(&self, position: Position) {
        self.begun.store(self.begun.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.position.store(position.get(), Ordering::Relaxed);
    }

    /// Returns the event that is being handled, if there is one. Everything before it in the batch was applied.
    pub(crate) fn at(&self) -> Option<Position> {
        let position = self.position.load(Ordering::Relaxed);
        (position > 0).then(|| Position::new(position))
    }

    /// Records that the handler has returned.
    pub(crate) fn rests(&self) {
        self.position.store(0, Ordering::Relaxed);
    }

    /// Returns the event that the handler is busy with, if it was seen there for [`limits::HANDLER_TIME_SEEN`]. The
    /// time counts from the first look, so this must be called from time to time.
    pub(crate) fn look(&self, now: Instant) -> Option<Busied> {
        let (begun, position) = (self.begun.load(Ordering::Relaxed), self.position.load(Ordering::Relaxed));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if position == 0 {
            *seen = None;
            return None;
        }
        let same = seen.filter(|seen| seen.begun == begun);
        let mut found = same.unwrap_or(Seen { begun, since: now, told: false });
        let time = now.duration_since(found.since);
        let long = time >= limits::HANDLER_TIME_SEEN;
        let is_news = long && !found.told;
        found.told |= long;
        *seen = Some(found);
        long.then_some(Busied { position: Position::new(position), time, is_news })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_seen_where_it_stays_and_told_of_once() {
        let (busy, start) = (Busy::default(), Instant::now());
        let later = |times: u32| start + limits::HANDLER_TIME_SEEN * times;
        assert_eq!(busy.look(start), None);
        busy.begins(Position::new(7));
        assert_eq!(busy.look(start), None);
        let (position, time) = (Position::new(7), limits::HANDLER_TIME_SEEN);
        assert_eq!(busy.look(later(1)), Some(Busied { position, time, is_news: true }));
        assert_eq!(busy.look(later(2)), Some(Busied { position, time: time * 2, is_news: false }));
        // The same event again is another try.
        busy.begins(position);
        assert_eq!(busy.look(later(3)), None);
        assert!(busy.look(later(4)).is_some_and(|busied| busied.is_news));
        busy.rests();
        assert_eq!(busy.look(later(9)), None);
    }
}
