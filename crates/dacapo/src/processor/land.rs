//! The one place where a run commits, and where it is decided what follows from what the commit came to.
//!
//! ```text
//!   make ──▶ commit ──┬─ done ──────────────────────────▶ the tokens have moved
//!    ▲                ├─ held ─▶ wait for the lift ─┬────▶ commit the same
//!    │                │                            └─ what was made is gone ─┐
//!    │                ├─ capped ─▶ what the deed says: no further, or not now │
//!    │                ├─ a mistake ─▶ what the deed says: otherwise, or not   │
//!    │                ├─ fenced ─▶ the run ends                              │
//!    └────────────────┴──────────────────────────────────────────────────────┘
//!                     the store fails ─▶ the run begins anew, after a while
//! ```

use std::future::{Future, ready};
use std::ops::ControlFlow::{Break, Continue};
use std::pin::{Pin, pin};
use std::sync::Arc;

use dacapo_model::{Position, WaitingOn};
use dacapo_store::{Commit, StoreError};
use tokio::sync::futures::Notified;

use super::run::Run;
use super::sink::Sink;
use super::{Ended, HOLD_LOOK, Next, unavailable};
use crate::landing::{Mistake, NotCommitted};

/// Something that a run does to its sink in one transaction.
pub(super) trait Deed<S: Sink>: Send {
    /// Does it, and returns what is to be committed with it; `None` when nothing is, after all, and whatever was done is
    /// taken back. It is called again where what was done is gone.
    fn make(&mut self, run: &mut Run<'_, S>) -> impl Future<Output = Result<Next<Option<Commit>>, StoreError>> + Send;

    /// It goes further than through `cap`. Tells whether it is to be made again.
    fn capped(&mut self, _run: &mut Run<'_, S>, _cap: Position) -> bool {
        true
    }

    /// The sink does not take it, however often it is tried. Tells whether it is to be made again, otherwise now.
    fn mistaken(
        &mut self,
        _run: &mut Run<'_, S>,
        error: S::Error,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        ready(Err(unavailable(error)))
    }
}

/// Nothing but a commit that is known before: what its sink has to write is in it.
pub(super) struct Record(pub(super) Commit);

impl<S: Sink> Deed<S> for Record {
    async fn make(&mut self, _run: &mut Run<'_, S>) -> Result<Next<Option<Commit>>, StoreError> {
        Ok(Continue(Some(self.0.clone())))
    }

    fn capped(&mut self, _run: &mut Run<'_, S>, _cap: Position) -> bool {
        false
    }
}

impl<S: Sink> Run<'_, S> {
    /// Does something and commits it, waiting for the end of a hold if there is one. Returns what was committed; `None`
    /// when nothing was.
    pub(super) async fn land<D: Deed<S>>(&mut self, deed: &mut D) -> Result<Next<Option<Commit>>, StoreError> {
        loop {
            let commit = match deed.make(self).await? {
                Continue(Some(commit)) => commit,
                other => return Ok(other),
            };
            let marked = self.marked;
            let commit = self.with_mark(commit).await?;
            let is_made_again = loop {
                // RequestedBy for before trying, so that a hold lifted in between is not missed.
                let lifted = Arc::clone(&self.assignment.lifted);
                let mut lifted = pin!(lifted.notified());
                lifted.as_mut().enable();
                match self.sink.commit(&commit).await {
                    Ok(()) => {
                        self.segments.committed(&commit.moves);
                        return Ok(Continue(Some(commit)));
                    }
                    Err(NotCommitted::Held { held_for, must_reapply }) => {
                        if let Break(end) = self.stay_held(held_for, lifted).await {
                            return Ok(Break(end));
                        }
                        if must_reapply {
                            break true;
                        }
                    }
                    Err(NotCommitted::Capped(cap)) => {
                        self.cap = Some(cap);
                        break deed.capped(self, cap);
                    }
                    Err(NotCommitted::Fenced(refused)) => return Ok(Break(Some(Ended::Fenced(refused)))),
                    Err(NotCommitted::Failed(error)) if error.is_passing() => return Err(unavailable(error)),
                    Err(NotCommitted::Failed(error)) => break deed.mistaken(self, error).await?,
                }
            };
            self.marked = marked;
            if !is_made_again {
                return Ok(Continue(None));
            }
        }
    }

    /// Waits until the hold is lifted, or should be looked at again; or for the stop.
    async fn stay_held(&mut self, held_for: Position, lifted: Pin<&mut Notified<'_>>) -> Next {
        self.assignment.progress.send_modify(|progress| progress.waiting_on = vec![WaitingOn::Hold { held_for }]);
        let mut stop = self.assignment.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Break(Some(Ended::Stopped)),
            () = lifted => Continue(()),
            () = tokio::time::sleep(HOLD_LOOK) => Continue(()),
        }
    }
}
