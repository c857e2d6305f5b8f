//! What comes in from outside: the time, fresh ids, threads for work that may block, and a probe that watches the
//! steps of a flip.

use std::future::Future;
use std::sync::Arc;

use dacapo_model::EventId;
use dacapo_store::uuid_at;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use dacapo_store::{Clock, SystemClock};

/// Makes ids that nobody else makes.
pub trait Ids: Send + Sync + 'static {
    /// A fresh one.
    fn next(&self) -> EventId;
}

/// UUIDs of version 7: unique, and increasing within a process.
#[derive(Debug, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "the one place where ids come in")]
    fn next(&self) -> EventId {
        EventId::from_bytes(uuid_at(std::time::SystemTime::now()))
    }
}

/// A step of the life of a version that has just been completed. A process may be killed at any of them,
/// and the next one goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The version to be verified and the one that serves are at one position, in one state each.
    VersionsMet,
    /// A verification has looked at everything; its verdict is not in the journal yet.
    VersionExamined,
    /// The verdict is in the journal.
    VersionVerified,
    /// 1: `FlipRequested` is in the journal.
    FlipRequested,
    /// 2: the new version covers the request, and nearly all that the old one shows.
    FlipCovered,
    /// 3: every token of the old version is held.
    FlipHeld,
    /// 4: the new version covers all that was shown; `Flipped` is about to be appended.
    FlipMeasured,
    /// 4: `Flipped` is in the journal and readers follow.
    Flipped,
    /// 5: the hold is lifted.
    FlipLifted,
    /// `CleaningUp` is in the journal; nothing is dropped yet.
    CleaningUp,
    /// The view is dropped; `Obsolete` is not in the journal yet.
    Dropped,
    /// A replay in place has begun: the rows are reset and the tokens are back.
    ReplayBegun,
    /// Every segment is where it was; `ReplayEnded` is about to be appended.
    ReplayCovered,
    /// `ReplayEnded` is in the journal.
    ReplayEnded,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 14] = [
        Self::VersionsMet,
        Self::VersionExamined,
        Self::VersionVerified,
        Self::FlipRequested,
        Self::FlipCovered,
        Self::FlipHeld,
        Self::FlipMeasured,
        Self::Flipped,
        Self::FlipLifted,
        Self::CleaningUp,
        Self::Dropped,
        Self::ReplayBegun,
        Self::ReplayCovered,
        Self::ReplayEnded,
    ];

    /// Every step from a version that has caught up to the clean-up of the old one, in order.
    pub const FLIP: [Self; 11] = [
        Self::VersionsMet,
        Self::VersionExamined,
        Self::VersionVerified,
        Self::FlipRequested,
        Self::FlipCovered,
        Self::FlipHeld,
        Self::FlipMeasured,
        Self::Flipped,
        Self::FlipLifted,
        Self::CleaningUp,
        Self::Dropped,
    ];

    /// Every step of a replay in place, in order.
    pub const REPLAY: [Self; 3] = [Self::ReplayBegun, Self::ReplayCovered, Self::ReplayEnded];
}

/// Watches steps; tests kill the process from here.
pub trait Probe: Send + Sync + 'static {
    /// `step` has just been completed.
    fn completed(&self, step: Step);
}

/// Watches nothing.
#[derive(Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn completed(&self, _step: Step) {}
}

/// Where work is done that may hold up its thread: handlers compute, and stores wait for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// On threads of its own, where it holds up nobody.
    #[default]
    Threads,
    /// As a task beside the others: for a simulation, which runs on one thread, in one order.
    Inline,
}

impl Offload {
    pub(crate) fn begin<T: Send + 'static>(self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        match self {
            Self::Threads => {
                let runtime = Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(work))
            }
            Self::Inline => tokio::spawn(work),
        }
    }

    /// Begins work that may never end: neither the runtime's end nor the process's waits for it.
    ///
    /// # Errors
    /// What the system says when it has no thread for it.
    pub(crate) fn leave<T: Send + 'static>(
        self,
        name: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> std::io::Result<Left<T>> {
        let (ends, ended) = oneshot::channel();
        let (lives, alive) = watch::channel(());
        let work = async move {
            // Nobody listens to what was given up.
            ends.send(work.await).ok();
            drop(lives);
        };
        match self {
            Self::Threads => {
                // The runtime would wait for the end of a thread of its own.
                let runtime = Handle::current();
                std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(work)).map(drop)?;
            }
            Self::Inline => drop(tokio::spawn(work)),
        }
        Ok(Left { ended, alive })
    }
}

/// Work that is left to itself.
pub(crate) struct Left<T> {
    ended: oneshot::Receiver<T>,
    alive: watch::Receiver<()>,
}

impl<T> Left<T> {
    /// What it came to; `None` when it ended by a panic.
    pub(crate) async fn ended(&mut self) -> Option<T> {
        (&mut self.ended).await.ok()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.alive.has_changed().is_err()
    }
}

/// Everything that comes in from outside.
#[derive(Clone)]
pub struct World {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// Where work is done that may hold up its thread.
    pub offload: Offload,
    /// Who watches.
    pub probe: Arc<dyn Probe>,
}
