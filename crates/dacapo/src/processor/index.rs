//! Builds the indexes that a view goes without while it replays: the stage Indexing.
//!
//! Which ones are missing is asked of the view each time, and each is committed by itself under the claim (I-4). So
//! whoever is killed, stopped or out of room here goes on with the first that is missing.

use dacapo_model::WaitingOn;
use dacapo_store::{Commit, StoreError};

use super::{Committed, Ended, Run, unavailable};

impl Run<'_> {
    /// Builds every index that is missing, or tells how the run ended meanwhile.
    pub(super) async fn build_indexes(&mut self) -> Result<Option<Ended>, StoreError> {
        let assignment = self.assignment;
        let tables = assignment.carried.tables;
        let mut built = 0;
        loop {
            let missing = assignment.view.missing_indexes(tables).await?;
            let Some((table, index)) = missing.first() else {
                self.index_at = None;
                self.report();
                return Ok(None);
            };
            let table = &tables[*table];
            let index = &table.indexes[*index];
            let name = format!("{}.{}", table.name, index.name);
            tracing::info!(view = %assignment.id, index = name, "an index is being built");
            let waiting = WaitingOn::Index { index: name, number: built + 1, of: built + missing.len() };
            assignment.progress.send_modify(|progress| progress.waiting_on = vec![waiting]);
            let mut stop = assignment.stop.clone();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(Some(Ended::Stopped)),
                done = self.view.index(table, index) => done.map_err(unavailable)?,
            }
            match self.land(&Commit::of(self.segments.still())).await? {
                Committed::Done => {
                    built += 1;
                    self.has_moved = true;
                }
                Committed::ApplyAgain | Committed::Capped(_) => {}
                Committed::Wrong(error) => return Err(unavailable(error)),
                Committed::Stopped => return Ok(Some(Ended::Stopped)),
                Committed::Fenced(refused) => return Ok(Some(Ended::Fenced(refused))),
            }
        }
    }
}
