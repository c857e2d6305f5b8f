//! The events that segments stop before, and the times of their retries.
//!
//! These are the records of the view: a refusal counts once it is committed, and the next member that claims the
//! segments continues with it. Due times are of the [`SteadyClock`](crate::cluster::SteadyClock), as times of day, since
//! they outlive the process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dacapo_model::{Position, Refusal, Retry, Segment, Timestamp, Token, WaitingOn, limits};

pub(super) struct Refusals {
    kept: BTreeMap<Segment, Refusal>,
    /// The segments that halt only because no more events may be set aside.
    no_room: BTreeSet<Segment>,
    retry: Retry,
}

impl Refusals {
    /// Returns the refusals that the view keeps.
    pub(super) fn new(kept: impl IntoIterator<Item = Refusal>, retry: Retry) -> Self {
        let kept = kept.into_iter().map(|refusal| (refusal.segment, refusal)).collect();
        Self { kept, no_room: BTreeSet::new(), retry }
    }

    /// Forgets the refusals of other segments.
    pub(super) fn only(&mut self, ours: impl Fn(Segment) -> bool) {
        self.kept.retain(|segment, _| ours(*segment));
    }

    pub(super) fn get(&self, segment: Segment) -> Option<&Refusal> {
        self.kept.get(&segment)
    }

    /// Records a refusal, replacing an earlier one of its segment. With `no_room`, the event would be set aside if that
    /// were possible.
    pub(super) fn put(&mut self, refusal: Refusal, no_room: bool) {
        if no_room {
            self.no_room.insert(refusal.segment);
        } else {
            self.no_room.remove(&refusal.segment);
        }
        self.kept.insert(refusal.segment, refusal);
    }

    /// Returns true if the segment halts now.
    pub(super) fn halts(&self, segment: Segment, now: Timestamp) -> bool {
        self.get(segment).is_some_and(|refusal| !refusal.is_due(now, self.retry.longest))
    }

    /// Returns the time until the next try of a halting segment. A try that is due already waits for something else.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        let halting = self.kept.values().filter(|refusal| !refusal.is_due(now, self.retry.longest));
        halting.map(|refusal| refusal.due.since(now)).min()
    }

    /// Makes the tries of all halting segments due.
    pub(super) fn try_now(&mut self, now: Timestamp) {
        self.kept.values_mut().for_each(|refusal| refusal.due = refusal.due.min(now));
    }

    /// Makes the tries of segments that halt before one of these events due.
    pub(super) fn try_these(&mut self, events: &BTreeSet<Position>, now: Timestamp) {
        let these = self.kept.values_mut().filter(|refusal| events.contains(&refusal.position));
        these.for_each(|refusal| refusal.due = refusal.due.min(now));
    }

    /// Makes the tries of segments that halt for lack of room due, since there is room for more letters.
    pub(super) fn made_room(&mut self, now: Timestamp) {
        for segment in std::mem::take(&mut self.no_room) {
            if let Some(refusal) = self.kept.get_mut(&segment) {
                refusal.due = refusal.due.min(now);
            }
        }
    }

    /// Removes the refusal of an event that the moved token covers.
    pub(super) fn moved(&mut self, token: &Token) {
        if self.get(token.segment).is_some_and(|refusal| token.covers(refusal.position)) {
            self.kept.remove(&token.segment);
            self.no_room.remove(&token.segment);
        }
    }

    /// Returns the wait reasons of the version that follow from the refusals.
    pub(super) fn reasons(&self) -> Vec<WaitingOn> {
        let waiting = |refusal: &Refusal| {
            let Refusal { segment, position, .. } = *refusal;
            if !self.no_room.contains(&segment) {
                return refusal.waiting_on();
            }
            WaitingOn::Letters { segment, position, letters: limits::LETTERS_MAX, error: refusal.error.clone() }
        };
        self.kept.values().map(waiting).collect()
    }
}
