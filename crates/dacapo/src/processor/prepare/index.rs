//! Builds the indexes that a view goes without while it replays: the stage Indexing, or before, for SQL of the handler.
//!
//! Which ones are missing is asked of the view each time, and each is committed by itself under the claim (I-4). So
//! whoever is killed, stopped, paused or out of room here goes on with the first that is missing.

use std::ops::ControlFlow::{Break, Continue};

use dacapo_model::WaitingOn;
use dacapo_store::{Commit, StoreError};

use crate::processor::batch::Committed;
use crate::processor::run::Run;
use crate::processor::{Next, unavailable};

impl Run<'_> {
    /// Takes back what a handler did that wants indexes, and builds them. Not as a part of its event, which may only
    /// take so long and is not done in parts.
    pub(in crate::processor) async fn index_first(&mut self) -> Result<Next, StoreError> {
        self.view.rollback().await.map_err(unavailable)?;
        self.build_indexes().await
    }

    /// Builds every index that is missing, unless the run ends meanwhile.
    pub(in crate::processor) async fn build_indexes(&mut self) -> Result<Next, StoreError> {
        let assignment = self.assignment;
        let tables = assignment.carried.tables;
        let mut built = 0;
        loop {
            let missing = assignment.view.missing_indexes(tables).await?;
            let Some((table, index)) = missing.first() else {
                self.view.indexed();
                self.index_at = None;
                self.report();
                return Ok(Continue(()));
            };
            let table = &tables[*table];
            let index = &table.indexes[*index];
            let name = format!("{}.{}", table.name, index.name);
            tracing::info!(view = %assignment.id, index = name, "an index is being built");
            let waiting = WaitingOn::Index { index: name, number: built + 1, of: built + missing.len() };
            assignment.progress.send_modify(|progress| {
                (progress.batch, progress.waiting_on) = (None, vec![waiting]);
            });
            match assignment.unless_called_off(self.view.index(table, index)).await {
                Continue(done) => done.map_err(unavailable)?,
                Break(end) => return Ok(Break(end)),
            }
            match self.land(&Commit::of(self.segments.still())).await? {
                Committed::Done => {
                    built += 1;
                    self.has_moved = true;
                }
                Committed::ApplyAgain | Committed::Capped(_) => {}
                Committed::Wrong(error) => return Err(unavailable(error)),
                Committed::Ended(ended) => return Ok(Break(Some(ended))),
            }
        }
    }
}
