//! Work on a view as a whole, before a batch: a copy to start with, a replay in place, indexes, wishes.
//!
//! A run asks these steps in this order before each batch. Nearly always none of them has anything to do.
//!
//! ```text
//!   Wanted ──────▶ builds indexes, if what was tried last needs them
//!     ▼
//!   Copy ────────▶ fills a new view from another one
//!     ▼
//!   LeaveReplay ─▶ moves the tokens forward again, if a replay in place was cancelled
//!     ▼
//!   Whole ───────▶ waits for all segments, if events of several segments change a row
//!     ▼
//!   TakeUpReplay ▶ resets rows and moves the tokens back, if a replay in place was requested
//!     ▼
//!   Indexes ─────▶ builds the missing indexes, once the past is replayed
//!     ▼
//!   Wish ────────▶ retries or drops one letter
//!     ▼
//!   a batch
//! ```
//!
//! Why this order:
//!
//! - The copy comes before every step that needs rows.
//! - Each member leaves a replay for its own segments, so that step does not wait for the others.
//! - One member with all segments takes up a replay and builds indexes.
//! - One wish and one batch take turns, so that neither holds the other back.

mod index;
pub(super) mod replay;
pub(super) mod seed;

use std::ops::ControlFlow::{self, Break, Continue};

use dacapo_model::assign::RowScope;
use dacapo_store::StoreError;

use super::Next;
use super::rows::Rows;
use super::run::Run;

/// The next action of a run, after its sink is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// It takes the next batch, or waits for one.
    Ready,
    /// It takes the next batch. If there is none, it starts the next step without waiting: there may be more to
    /// prepare.
    Done,
    /// It starts the next step.
    Anew,
}

/// One kind of work on a view as a whole.
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

/// Takes the steps that are due, until one of them ends this step of the run.
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
            // Another member that still has a segment might change the same rows.
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

    /// Waits, and ends this step of the run.
    async fn wait_anew(&mut self) -> Result<Next<Prepared>, StoreError> {
        Ok(match self.wait().await {
            Continue(()) => Continue(Prepared::Anew),
            Break(end) => Break(end),
        })
    }
}
