//! The tail: the last events of the journal in memory, read once for all live subscriptions of this node.
//!
//! Nobody fills it ahead of time. The first subscription that needs the next events reads them, and others that need
//! the same events wait for this one read. So it costs nothing while nobody subscribes, and nothing must be stopped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dacapo_model::{Position, limits};
use dacapo_store::{EventBatch, Filter, Journal, Limit, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::world::Offload;

/// The limits of a tail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) events_max: usize,
    pub(crate) bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events_max: limits::TAIL_EVENTS_MAX, bytes_max: limits::TAIL_BYTES_MAX }
    }
}

pub(crate) struct Tail {
    journal: Arc<dyn Journal>,
    bounds: Bounds,
    offload: Offload,
    kept: Mutex<Kept>,
    /// Held by the subscription that reads for all.
    reading: tokio::sync::Mutex<()>,
    /// Held by subscriptions that read for themselves, far from the head.
    scans: Arc<Semaphore>,
}

/// Batches that follow each other without a gap.
#[derive(Default)]
struct Kept {
    /// The batches, each with the position after which it begins.
    batches: VecDeque<(Position, Arc<EventBatch>)>,
    /// The end of the last batch, or the position after which the next one will begin.
    through: Position,
    events: usize,
    bytes: usize,
}

impl Tail {
    pub(crate) fn new(journal: Arc<dyn Journal>, bounds: Bounds) -> Self {
        let (kept, reading) = (Mutex::default(), tokio::sync::Mutex::default());
        let scans = Arc::new(Semaphore::new(limits::SCANS_MAX));
        Self { journal, bounds, offload: Offload::default(), kept, reading, scans }
    }

    pub(crate) fn done_by(self, offload: Offload) -> Self {
        Self { offload, ..self }
    }

    pub(crate) fn offload(&self) -> Offload {
        self.offload
    }

    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// Returns the right to one read of events that are not kept, in the order of the requests. So readers of the past,
    /// however many, slow down others no more than a few would.
    pub(crate) async fn scan(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let scan = Arc::clone(&self.scans).acquire_owned().await;
        scan.map_err(|closed| StoreError::unavailable("read", closed))
    }

    /// Returns the same right, if nobody has to wait for it.
    pub(crate) fn scan_at_once(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.scans).try_acquire_owned().ok()
    }

    /// Returns true if a subscription at `position` reads for itself, since more events than the tail keeps follow it.
    pub(crate) fn is_far(&self, position: Position, head: Position) -> bool {
        head.since(position) > self.bounds.events_max as u64
    }

    /// Returns events after `after`, which is before `head`, and possibly some before it. They are the kept ones or,
    /// near the head, the next ones, read for all. Returns `None` if they are not kept any more, or not needed by
    /// others yet.
    pub(crate) async fn behind(&self, after: Position, head: Position) -> Result<Option<Arc<EventBatch>>, StoreError> {
        if let Some(batch) = self.kept().behind(after) {
            return Ok(Some(batch));
        }
        if self.is_far(after, head) || after < self.kept().through {
            return Ok(None);
        }
        let _reading = self.reading.lock().await;
        loop {
            let from = {
                let mut kept = self.kept();
                if let Some(batch) = kept.behind(after) {
                    return Ok(Some(batch));
                }
                if after < kept.through {
                    return Ok(None);
                }
                if self.is_far(kept.through, head) {
                    *kept = Kept { through: after, ..Kept::default() };
                }
                kept.through
            };
            let limit = Limit { events: self.bounds.events_max, bytes: self.bounds.bytes_max };
            let batch = self.journal.read(from, &Filter::everything(), limit).await?;
            assert!(batch.through > from, "a read below the head gets on");
            self.kept().push(from, batch, self.bounds);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in between can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Returns the batch that has the event after `after`.
    fn behind(&self, after: Position) -> Option<Arc<EventBatch>> {
        let at = self.batches.partition_point(|(_, batch)| batch.through <= after);
        self.batches.get(at).filter(|(begins, _)| *begins <= after).map(|(_, batch)| Arc::clone(batch))
    }

    /// Adds a batch after the others, and removes the first ones above the limits.
    fn push(&mut self, after: Position, batch: EventBatch, bounds: Bounds) {
        (self.events, self.bytes) = (self.events + batch.len(), self.bytes + batch.bytes());
        self.through = batch.through;
        self.batches.push_back((after, Arc::new(batch)));
        // The last one stays, so that a reader makes progress.
        while self.batches.len() > 1 && (self.events > bounds.events_max || self.bytes > bounds.bytes_max) {
            if let Some((_, first)) = self.batches.pop_front() {
                (self.events, self.bytes) = (self.events - first.len(), self.bytes - first.bytes());
            }
        }
    }
}
