//! What is done to a view as a whole before a batch: a copy to begin with, a replay in place, indexes, wishes.
//!
//! The steps are asked in this order before each batch. Nearly always none has anything to do.
//!
//! ```text
//!   Wanted ──────▶ indexes that the last thing done could not do without
//!     ▼
//!   Copy ────────▶ the view begins as a copy of another one
//!     ▼
//!   LeaveReplay ─▶ a replay in place was cancelled: the tokens go to where they were
//!     ▼
//!   Whole ───────▶ waits until every segment is here, where rows are changed by events of several
//!     ▼
//!   TakeUpReplay ▶ a replay in place begins: rows are reset, the tokens go back
//!     ▼
//!   Indexes ─────▶ the past is covered: the view gets the indexes that it went without
//!     ▼
//!   Wish ────────▶ one letter is tried again or given up
//!     ▼
//!   a batch
//! ```
//!
//! The copy comes before everything that needs rows. A replay is left before it is waited for other segments, since those
//! who have them leave it too; it is taken up, and indexes are built, by one member that has every segment. A wish comes
//! last, one before each batch, so that neither holds the other back.

mod index;
pub(super) mod replay;
pub(super) mod seed;

use std::ops::ControlFlow::{self, Break, Continue};

use dacapo_model::assign::RowScope;
use dacapo_store::StoreError;

use super::Next;
use super::rows::Rows;
use super::run::Run;

/// What a run does after its sink is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// The next batch, if there is one.
    Ready,
    /// The same; if there is none, it looks at everything anew instead of waiting, since there may be more to prepare.
    Done,
    /// It looks at everything anew.
    Anew,
}

/// One thing that may be done to a view as a whole.
#[derive(Clone, Copy)]
enum Step {
    Wanted,
    Copy,
    LeaveReplay,
    Whole,
    TakeUpReplay,
    Indexes,
    Wish,
}

/// The order of the steps.
const STEPS: [Step; 7] =
    [Step::Wanted, Step::Copy, Step::LeaveReplay, Step::Whole, Step::TakeUpReplay, Step::Indexes, Step::Wish];

/// Takes the steps that are due, until one says that the run is to look at everything anew.
pub(super) async fn prepare(run: &mut Run<'_, Rows>) -> Result<Next<Prepared>, StoreError> {
    let mut prepared = Prepared::Ready;
    for step in STEPS {
        match run.take_step(step).await? {
            ControlFlow::Continue(Prepared::Ready) => {}
            ControlFlow::Continue(Prepared::Done) => prepared = Prepared::Done,
            other => return Ok(other),
        }
    }
    Ok(Continue(prepared))
}

impl Run<'_, Rows> {
    async fn take_step(&mut self, step: Step) -> Result<Next<Prepared>, StoreError> {
        match step {
            Step::Wanted if self.sink.wants_indexes => self.build_indexes().await,
            Step::Copy => self.begin_as_copy().await,
            Step::LeaveReplay => self.leave_replay().await,
            // Whoever still has one of the others might change the same rows.
            Step::Whole if !self.is_whole() && self.sink.stored.carried.options.rows == RowScope::AcrossSegments => {
                self.wait_anew().await
            }
            Step::TakeUpReplay if self.is_whole() => self.take_up_if_due().await,
            Step::Indexes if self.is_whole() && self.covers_indexes() => self.build_indexes().await,
            Step::Wish => self.carry_out_wish().await,
            Step::Wanted | Step::Whole | Step::TakeUpReplay | Step::Indexes => Ok(Continue(Prepared::Ready)),
        }
    }

    fn is_whole(&self) -> bool {
        self.segments.is_whole()
    }

    fn covers_indexes(&self) -> bool {
        self.sink.index_at.is_some_and(|at| self.segments.covers() >= at)
    }

    /// Waits for whatever may change, and looks at everything anew then.
    async fn wait_anew(&mut self) -> Result<Next<Prepared>, StoreError> {
        Ok(match self.wait().await {
            Continue(()) => Continue(Prepared::Anew),
            Break(end) => Break(end),
        })
    }
}
