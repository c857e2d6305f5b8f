//! The live queries that also go to a version that does not serve yet.

use std::any::{Any, TypeId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dacapo_model::{ViewId, limits};
use tokio::sync::mpsc;

use super::Subject;
use crate::code::{AnyQuery, Tally};

/// A live query that was recorded.
pub(crate) struct Noted {
    pub(crate) query: AnyQuery,
    pub(crate) of: TypeId,
}

/// The live queries that also go to a version that does not serve yet, and their results.
pub(crate) struct Shadowing {
    pub(crate) id: ViewId,
    /// The subject. Only findings about it count.
    pub(crate) subject: Subject,
    asked: AtomicU64,
    noted: mpsc::Sender<Noted>,
    found: Mutex<Found>,
}

#[derive(Clone, Default)]
struct Found {
    tally: Tally,
    /// The number of queries that were left out since there were too many at once.
    dropped: u64,
    /// The number of queries that were left out since the versions could not be asked.
    missed: u64,
    /// The last reason for that.
    why: String,
}

impl Shadowing {
    /// Returns a new one for this subject, and the queries that it records.
    pub(crate) fn new(id: ViewId, subject: Subject) -> (Self, mpsc::Receiver<Noted>) {
        let (noted, queries) = mpsc::channel(limits::SHADOWS_MAX);
        (Self { id, subject, asked: AtomicU64::new(0), noted, found: Mutex::default() }, queries)
    }

    /// Adds findings.
    pub(crate) fn add(&self, tally: Tally) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).tally.add(tally);
    }

    /// Adds to the number of queries that were left out since the versions could not be asked.
    pub(crate) fn missed(&self, count: u64, why: String) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        (found.missed, found.why) = (found.missed + count, why);
    }

    /// Records a live query, if it is part of the share.
    pub(crate) fn offer(&self, query: &(dyn Any + Send + Sync)) {
        let of = (*query).type_id();
        let Some(shadow) = self.subject.code.shadows.get(&of) else { return };
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        // The share is spread evenly, without chance: a query is recorded each time that another whole one is due.
        let share = self.subject.code.options.verify.shadow_share.clamp(0.0, 1.0);
        let due = |asked: u64| (asked as f64 * share) as u64;
        if due(asked + 1) == due(asked) {
            return;
        }
        let kept = self.noted.try_reserve().map(|place| place.send(Noted { query: shadow.copy(query), of }));
        if kept.is_err() {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).dropped += 1;
        }
    }

    /// Returns true if it is for this version.
    pub(crate) fn is_of(&self, id: &ViewId) -> bool {
        self.id == *id
    }

    /// Returns the findings so far.
    pub(crate) fn tally(&self) -> Tally {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Found { mut tally, dropped, missed, why } = found;
        if dropped > 0 {
            tally.note(format!("{dropped} live queries were left out, since there were too many at once"));
        }
        if missed > 0 {
            tally
                .note(format!("{missed} live queries were left out since versions could not be asked, at last: {why}"));
        }
        tally
    }
}
