//! The only place where a run commits, and the only decision about the result of a commit.
//!
//! | result | what follows |
//! |---|---|
//! | done | The tokens have moved. |
//! | held | The run waits for the end of the hold and commits the same again. It makes lost changes again first. |
//! | capped | The transaction decides: a smaller one now, or nothing. |
//! | failed by a mistake | The transaction decides: another one now, or nothing. |
//! | failed by the store | A new run begins, after a while. |
//! | fenced | A new run begins, under a new claim. |

use std::future::{Future, ready};
use std::ops::ControlFlow::{Break, Continue};
use std::pin::{Pin, pin};
use std::sync::Arc;

use dacapo_model::{Position, WaitingOn};
use dacapo_store::{Commit, StoreError};
use tokio::sync::futures::Notified;

use super::run::Run;
use super::sink::Sink;
use super::{Ended, Next, unavailable};
use crate::landing::{Mistake, NotCommitted};
use crate::limits;

/// One transaction of a run on its sink: an action, and the commit that ends it.
pub(super) trait Transaction<S: Sink>: Send {
    /// Does the action, and returns the commit that belongs to it. `None` means that there is nothing to commit, and every
    /// change is rolled back. A run calls it again if its changes are lost.
    fn make(&mut self, run: &mut Run<'_, S>) -> impl Future<Output = Result<Next<Option<Commit>>, StoreError>> + Send;

    /// Handles a commit that would go further than `cap`. Returns true to do it again now.
    fn capped(&mut self, _run: &mut Run<'_, S>, _cap: Position) -> bool {
        true
    }

    /// Handles a refusal of the sink that a retry would not change. Returns true to do it again now, in another way.
    fn mistaken(
        &mut self,
        _run: &mut Run<'_, S>,
        error: S::Error,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        ready(Err(unavailable(error)))
    }
}

/// A commit that is known from the start.
pub(super) struct Record(pub(super) Commit);

impl<S: Sink> Transaction<S> for Record {
    async fn make(&mut self, _run: &mut Run<'_, S>) -> Result<Next<Option<Commit>>, StoreError> {
        Ok(Continue(Some(self.0.clone())))
    }

    fn capped(&mut self, _run: &mut Run<'_, S>, _cap: Position) -> bool {
        false
    }
}

impl<S: Sink> Run<'_, S> {
    /// Does the action and commits it. Waits for the end of a hold if there is one. Returns the commit; `None` if
    /// nothing was committed.
    pub(super) async fn land<D: Transaction<S>>(
        &mut self,
        transaction: &mut D,
    ) -> Result<Next<Option<Commit>>, StoreError> {
        loop {
            let commit = match transaction.make(self).await? {
                Continue(Some(commit)) => commit,
                other => return Ok(other),
            };
            self.segments.check(&commit.moves);
            let marked = self.marked;
            self.report_commit(true);
            let commit = self.with_mark(commit).await?;
            let is_made_again = loop {
                // The waiter is registered before the try, so that a hold that is lifted in between is not missed.
                let lifted = Arc::clone(&self.assignment.inbox.lifted);
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
                        self.bounds.cap = Some(cap);
                        break transaction.capped(self, cap);
                    }
                    Err(NotCommitted::Fenced(refused)) => return Ok(Break(Some(Ended::Fenced(refused)))),
                    Err(NotCommitted::Failed(error)) if error.is_passing() => return Err(unavailable(error)),
                    Err(NotCommitted::Failed(error)) => break transaction.mistaken(self, error).await?,
                }
            };
            self.marked = marked;
            self.report_commit(false);
            if !is_made_again {
                return Ok(Continue(None));
            }
        }
    }

    /// Records whether the store is asked to commit. Nobody is woken: only a caller that looks wants to know.
    fn report_commit(&self, commits: bool) {
        self.assignment.progress.send_if_modified(|progress| {
            progress.commits(commits);
            false
        });
    }

    /// Waits until the hold is lifted, or the next check is due, or for the stop.
    async fn stay_held(&mut self, held_for: Position, lifted: Pin<&mut Notified<'_>>) -> Next {
        self.assignment.progress.send_modify(|progress| progress.waiting_on = vec![WaitingOn::Hold { held_for }]);
        let mut stop = self.assignment.inbox.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Break(Some(Ended::Stopped)),
            () = lifted => Continue(()),
            () = tokio::time::sleep(limits::HOLD_LOOK) => Continue(()),
        }
    }
}
