//! One version whose view is open on this node.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use dacapo_model::{Parted, Position, Token, VersionId, VersionState, ViewId, WaitingOn};
use dacapo_store::{Outbox, StoreError, View as StoredView, Views};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Versions;
use crate::code::{Busy, SeedFrom, VersionCode, Voices};
use crate::limits;
use crate::processor::{self, Assignment, Beginning, Claims, Commands, Ended, Orders, Progress, Rows, Stored};
use crate::reads::Fence;
use crate::world::Left;

/// A version whose view is open on this node.
pub(crate) struct OpenVersion {
    pub(crate) id: ViewId,
    pub(crate) view: Arc<dyn StoredView>,
    /// Its code, if this node carries it. Then its processor runs here.
    pub(crate) carried: Option<VersionCode>,
    /// Its progress, by any member.
    pub(crate) progress: watch::Receiver<Progress>,
    seen: Arc<watch::Sender<Progress>>,
    /// The time at which its tokens were last read, for callers that wait for another member.
    looked: Mutex<Option<Instant>>,
    /// The time at which it was last compared with the journal.
    compared: Mutex<Instant>,
    /// Held by the driver that lets it meet another version, by a cap on its tokens.
    meeting: Arc<Mutex<()>>,
    pub(crate) commands: Commands,
    pub(crate) effects: Effects,
    busy: Arc<Busy>,
    /// The furthest position that a batch was seen at, and the beginning of that batch.
    reached: StdMutex<Option<(Instant, Position)>>,
    /// The run of its processor. A caller that stops it holds the lock until the run has ended.
    run: Mutex<Option<RunHandle>>,
}

/// The effects of a version, as its processor, its delivery and its status share them.
#[derive(Default)]
pub(crate) struct Effects {
    /// The assignment of effects to versions, for its processor.
    voices: watch::Sender<Voices>,
    /// The effects that are still to be made, as their delivery saw them last.
    pub(crate) outbox: watch::Sender<Outbox>,
    /// The version whose effects come before its own in their streams.
    pub(crate) before: watch::Sender<Option<VersionId>>,
    /// The delivery of its effects, if it makes any.
    delivery: Mutex<Option<(watch::Sender<bool>, JoinHandle<()>)>>,
}

struct RunHandle {
    stop: watch::Sender<bool>,
    run: Left<Ended>,
}

impl OpenVersion {
    /// Opens a version whose code is carried, and starts its processor. `is_corrected` is true if other code of the
    /// same version ran before on this node.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the system has no thread for it.
    pub(crate) fn run(
        versions: &Versions,
        id: ViewId,
        view: Arc<dyn StoredView>,
        carried: VersionCode,
        state: &VersionState,
        seed: Option<SeedFrom>,
        is_corrected: bool,
    ) -> Result<Self, StoreError> {
        let (stop, stopped) = watch::channel(false);
        let mut open = Self::still(id, view, Some(carried.clone()), Orders::of(state));
        let (code, options) = (carried.code.clone(), carried.options.clone());
        let assignment = Assignment {
            id: open.id.clone(),
            options,
            filter: Arc::new(carried.filter.clone()),
            fence: Fence::new(Arc::clone(&versions.catalog), open.id.clone(), code.segments, code.reads),
            journal: Arc::clone(&versions.journal),
            offload: versions.world.offload,
            segments: state.segments,
            claims: Claims(Arc::clone(&versions.cluster)),
            clock: Arc::clone(&versions.world.clock),
            steady: Arc::clone(&versions.steady),
            is_corrected,
            inbox: open.commands.inbox(stopped),
            progress: Arc::clone(&open.seen),
            probe: Arc::clone(&versions.world.probe),
        };
        let stored = Arc::new(Stored {
            id: open.id.clone(),
            view: Arc::clone(&open.view),
            segments: state.segments,
            carried,
            beginning: Beginning { began_at: state.began_at.unwrap_or_default(), seed },
            busy: Arc::clone(&open.busy),
            voices: open.effects.voices.subscribe(),
        });
        // Handlers compute, and SQLite waits for the disk. On a thread of their own they block nobody.
        let run = versions.world.offload.leave(&open.id.to_string(), processor::run::<Rows>(assignment, stored));
        let run = run.map_err(|error| StoreError::unavailable(format!("start a thread for {}", open.id), error))?;
        *open.run.get_mut() = Some(RunHandle { stop, run });
        Ok(open)
    }

    /// Opens a version to which no events are applied here, because its code is not carried or because it is being
    /// cleaned up. Its tokens can be seen and held, and its effects made.
    pub(crate) fn still(id: ViewId, view: Arc<dyn StoredView>, carried: Option<VersionCode>, orders: Orders) -> Self {
        let (seen, progress) = watch::channel(Progress::default());
        Self {
            id,
            view,
            carried,
            progress,
            seen: Arc::new(seen),
            looked: Mutex::default(),
            compared: Mutex::new(Instant::now()),
            meeting: Arc::default(),
            commands: Commands::new(orders),
            effects: Effects::default(),
            busy: Arc::default(),
            reached: StdMutex::default(),
            run: Mutex::default(),
        }
    }

    /// Keeps the delivery of its effects, which ends with it.
    pub(crate) async fn delivers(&self, stop: watch::Sender<bool>, run: JoinHandle<()>) {
        *self.effects.delivery.lock().await = Some((stop, run));
    }

    /// Returns true if its view was compared with the store and the journal a moment ago.
    pub(crate) async fn is_compared(&self) -> bool {
        self.compared.lock().await.elapsed() < limits::HISTORY_LOOK
    }

    /// Records that its view was compared just now.
    pub(crate) async fn compared(&self) {
        *self.compared.lock().await = Instant::now();
    }

    /// Passes the assignment of effects to the processor.
    pub(crate) fn hear(&self, voices: Voices) {
        self.effects.voices.send_replace(voices);
    }

    /// Returns its stored tokens, and passes them to its watchers.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let tokens = self.view.tokens().await?;
        self.seen.send_if_modified(|progress| progress.see(&tokens));
        Ok(tokens)
    }

    /// Reads the progress of other members, if nobody has just done so.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let mut looked = self.looked.lock().await;
        if looked.is_none_or(|looked| looked.elapsed() >= limits::SEEN_AGE_MAX) {
            self.tokens().await?;
            *looked = Some(Instant::now());
        }
        Ok(())
    }

    /// Returns true if its processor should run but does not.
    pub(crate) fn has_ended(&self) -> bool {
        // A processor that is being stopped is not replaced yet.
        let Ok(run) = self.run.try_lock() else { return false };
        self.carried.is_some() && run.as_ref().is_none_or(|run| run.run.has_ended())
    }

    /// Returns the evidence of its processor that its view does not belong to the journal, if there is any. The conductor
    /// closes it then.
    pub(crate) fn parted(&self) -> Option<Parted> {
        self.progress.borrow().reasons().find_map(|reason| match reason {
            WaitingOn::Parted { parted } => Some(*parted),
            _ => None,
        })
    }

    /// Returns its position, including the events that the batch under way here has applied and not committed yet. All
    /// segments cover `covers`.
    pub(crate) fn reached(&self, covers: Position) -> Option<Position> {
        let (after, since) = self.progress.borrow().batch.filter(|(after, _)| *after == covers)?;
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        // Between two reads, and during the commit, the position stays the same.
        let known = reached.filter(|(batch, _)| *batch == since).map_or(after, |(_, known)| known);
        let at = self.busy.at().map_or(after, |at| Position::new(at.get() - 1));
        let furthest = known.max(at);
        *reached = Some((since, furthest));
        Some(furthest).filter(|furthest| *furthest > covers)
    }

    /// Returns the wait reasons of the processor, as it reports them or as it is observed.
    pub(crate) fn told(&self) -> Vec<WaitingOn> {
        let busy = self.busy.look(Instant::now()).map(|busied| {
            if busied.is_news {
                let (position, seconds) = (busied.position, busied.time.as_secs());
                tracing::warn!(view = %self.id, %position, seconds, "a handler has been busy with one event for long");
            }
            WaitingOn::Busy { position: busied.position, time: busied.time }
        });
        busy.into_iter().chain(self.progress.borrow().reasons().cloned()).collect()
    }

    /// Lets the processor finish its batch and the effects under way end, and waits for that. Stopping twice has the
    /// same effect as stopping once.
    pub(crate) async fn stop(&self) {
        let delivered = async {
            if let Some((stop, ended)) = self.effects.delivery.lock().await.take() {
                stop.send_replace(true);
                if let Err(error) = ended.await {
                    tracing::error!(view = %self.id, %error, "the delivery of effects ended by a bug in dacapo");
                }
            }
        };
        // Effects of the last batch wait in the outbox for the next delivery.
        tokio::join!(self.stop_applying(), delivered);
    }

    /// Returns true if it could make effects but does not.
    pub(crate) async fn is_silent(&self) -> bool {
        self.reacts() && self.effects.delivery.lock().await.is_none()
    }

    pub(crate) fn reacts(&self) -> bool {
        self.carried.as_ref().is_some_and(|carried| !carried.effect_names().is_empty())
    }

    /// Lets the processor finish its batch, and waits for that, but not for ever.
    pub(crate) async fn stop_applying(&self) {
        let mut running = self.run.lock().await;
        let Some(run) = &mut *running else { return };
        run.stop.send_replace(true);
        match tokio::time::timeout(limits::STOP_TIME_MAX + limits::STOP_MARGIN_MAX, run.run.ended()).await {
            // The next opening of the version reports where it parted.
            Ok(Some(Ended::Stopped | Ended::Parted)) => {}
            Ok(Some(Ended::GivenUp)) => {
                tracing::warn!(view = %self.id, "the handler did not return in time, its batch was given up");
            }
            Ok(Some(Ended::Fenced(refused))) => {
                tracing::warn!(view = %self.id, %refused, "the processor lost its claim")
            }
            Ok(None) => tracing::error!(view = %self.id, "the processor ended by a bug in dacapo"),
            Err(_) => self.leave_behind().await,
        }
        *running = None;
    }

    /// Abandons a processor whose handler computes without end and cannot be stopped. Its thread keeps running. Without
    /// its claim, nothing that it does lands any more (I-4).
    async fn leave_behind(&self) {
        let waiting = self.told();
        let busy = waiting.iter().find(|reason| matches!(reason, WaitingOn::Busy { .. })).map(ToString::to_string);
        let revoked = revoke_view(&*self.view).await;
        let revoked = revoked.as_ref().map_or_else(ToString::to_string, |()| "its claim is revoked".to_owned());
        let found = busy.unwrap_or_else(|| "its handler does not return".to_owned());
        tracing::error!(view = %self.id, found, revoked, "a processor cannot be stopped, and its thread is abandoned");
    }

    /// Returns the right to cap its tokens on this node, once nobody else has it.
    pub(crate) async fn meeting(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.meeting).lock_owned().await
    }

    /// Returns true if a driver on this node has the right to cap its tokens.
    pub(crate) fn is_meeting(&self) -> bool {
        self.meeting.try_lock().is_err()
    }

    /// Removes the cap of its tokens, and wakes the processor.
    pub(crate) async fn uncap(&self) -> Result<(), StoreError> {
        self.view.cap(None).await?;
        self.commands.lifted();
        Ok(())
    }

    /// Lifts the hold under `mark`, and wakes the processor.
    pub(crate) async fn lift(&self, mark: Position) -> Result<(), StoreError> {
        self.view.lift(mark).await?;
        self.commands.lifted();
        Ok(())
    }
}

/// Revokes every claim on the view of `id`, if it exists (I-4).
pub(crate) async fn revoke(views: &dyn Views, id: &ViewId) -> Result<(), StoreError> {
    match views.find(id).await? {
        Some(view) => revoke_view(&*view).await,
        None => Ok(()),
    }
}

async fn revoke_view(view: &dyn StoredView) -> Result<(), StoreError> {
    match tokio::time::timeout(limits::REVOKE_TIME_MAX, view.revoke()).await {
        Ok(revoked) => revoked,
        Err(_) => {
            let found = "its handler has written by SQL and does not return from its batch; end the process if it never \
                         does";
            Err(StoreError::unavailable("revoke the claim on the view", found))
        }
    }
}
