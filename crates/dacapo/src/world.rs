//! The parts that come in from outside: the time, new ids, threads for work that may block, and a probe that watches
//! the steps of a flip.

use std::future::Future;
use std::sync::Arc;

use dacapo_model::EventId;
use dacapo_store::uuid_at;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use dacapo_store::{Clock, SystemClock};

/// A source of unique ids.
pub trait Ids: Send + Sync + 'static {
    /// Returns a new id.
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

/// A completed step in the life of a version. A process may be killed after any of them, and the next one continues
/// from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The version that is verified and the serving one are at one position, in one state each.
    VersionsMet,
    /// A verification has checked everything. Its verdict is not in the journal yet.
    VersionExamined,
    /// The verdict is in the journal.
    VersionVerified,
    /// 1: `FlipRequested` is in the journal.
    FlipRequested,
    /// 2: the new version covers the request, and nearly everything that the old one shows.
    FlipCovered,
    /// 3: every token of the old version is held.
    FlipHeld,
    /// 4: the new version covers everything that was shown. `Flipped` is about to be appended.
    FlipMeasured,
    /// 4: `Flipped` is in the journal and readers follow.
    Flipped,
    /// 5: the hold is lifted.
    FlipLifted,
    /// `CleaningUp` is in the journal. Nothing is dropped yet.
    CleaningUp,
    /// The view is dropped. `Obsolete` is not in the journal yet.
    Dropped,
    /// A replay in place has begun: the rows are reset and the tokens have moved back.
    ReplayBegun,
    /// Every segment has reached its former place. `ReplayEnded` is about to be appended.
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

/// Watches steps. Tests kill the process from here.
pub trait Probe: Send + Sync + 'static {
    /// Notes that `step` has just been completed.
    fn completed(&self, step: Step);
}

/// Watches nothing.
#[derive(Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn completed(&self, _step: Step) {}
}

/// The place for work that may block its thread: handlers compute, and stores wait for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// On threads of its own, where it blocks nobody.
    #[default]
    Threads,
    /// As a task beside the others, for a simulation that runs on one thread, in one order.
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

    /// Begins work that may never end. Neither the end of the runtime nor that of the process waits for it.
    ///
    /// # Errors
    /// The error of the system if it has no thread for it.
    pub(crate) fn leave<T: Send + 'static>(
        self,
        name: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> std::io::Result<Left<T>> {
        let (ends, ended) = oneshot::channel();
        let (lives, alive) = watch::channel(());
        let work = async move {
            // Nobody waits for work that was given up.
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

/// Work that nobody has to wait for.
pub(crate) struct Left<T> {
    ended: oneshot::Receiver<T>,
    alive: watch::Receiver<()>,
}

impl<T> Left<T> {
    /// Returns its result; `None` if it ended by a panic.
    pub(crate) async fn ended(&mut self) -> Option<T> {
        (&mut self.ended).await.ok()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.alive.has_changed().is_err()
    }
}

/// The parts that come in from outside.
#[derive(Clone)]
pub struct World {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The source of ids.
    pub ids: Arc<dyn Ids>,
    /// The place for work that may block its thread.
    pub offload: Offload,
    /// The probe.
    pub probe: Arc<dyn Probe>,
}
