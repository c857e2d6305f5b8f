//! Builds the indexes that a view lacks while it replays the past: in the stage Indexing, or earlier for SQL of the
//! handler.
//!
//! The view is asked each time which indexes are missing. Each is committed separately under the claim (I-4). So after
//! a kill, a stop, a pause or a full disk the work continues with the first missing one.
//!
//! The changes of a handler that needs indexes are rolled back first. The indexes are not built as a part of its event,
//! which has a time limit and cannot be divided.

use std::ops::ControlFlow::{Break, Continue};

use dacapo_model::WaitingOn;
use dacapo_store::{Commit, Index, StoreError, Table};

use super::Prepared;
use crate::processor::land::Transaction;
use crate::processor::rows::Rows;
use crate::processor::run::Run;
use crate::processor::{Next, unavailable};

/// One index is built.
struct Build {
    table: &'static Table,
    index: &'static Index,
}

impl Transaction<Rows> for Build {
    async fn make(&mut self, run: &mut Run<'_, Rows>) -> Result<Next<Option<Commit>>, StoreError> {
        let assignment = run.assignment;
        match assignment.unless_called_off(run.sink.view.index(self.table, self.index)).await {
            Continue(done) => done.map_err(unavailable)?,
            Break(end) => return Ok(Break(end)),
        }
        Ok(Continue(Some(Commit::of(run.segments.still()))))
    }
}

impl Run<'_, Rows> {
    /// Builds every missing index, if the run does not end meanwhile.
    pub(super) async fn build_indexes(&mut self) -> Result<Next<Prepared>, StoreError> {
        let assignment = self.assignment;
        let tables = self.sink.stored.carried.tables;
        let mut built = 0;
        loop {
            let missing = self.sink.stored.view.missing_indexes(tables).await?;
            let Some((table, index)) = missing.first() else {
                self.sink.view.indexed();
                (self.sink.index_at, self.sink.wants_indexes) = (None, false);
                self.report();
                return Ok(Continue(Prepared::Ready));
            };
            let table = &tables[*table];
            let index = &table.indexes[*index];
            let name = format!("{}.{}", table.name, index.name);
            tracing::info!(view = %assignment.id, index = name, "an index is being built");
            let waiting = WaitingOn::Index { index: name, number: built + 1, of: built + missing.len() };
            assignment.progress.send_modify(|progress| {
                (progress.batch, progress.waiting_on) = (None, vec![waiting]);
            });
            match self.land(&mut Build { table, index }).await? {
                Break(end) => return Ok(Break(end)),
                Continue(Some(_)) => {
                    built += 1;
                    self.moves_on();
                }
                Continue(None) => {}
            }
        }
    }
}
