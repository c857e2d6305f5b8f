//! A view's records of events that were not applied.

use async_trait::async_trait;
use dacapo_model::{Letter, Position, Refusal, WhichLetters, Wish};

use crate::error::StoreError;

/// The refusals and the dead letters of a view.
#[async_trait]
pub trait ViewLetters: Send + Sync + 'static {
    /// Returns the refusals of the events that segments stop before, in the order of segments.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError>;

    /// Returns the dead letters of events after `after`, in order, at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError>;

    /// Records the decision about dead letters, replacing an earlier one, and returns the number of letters.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError>;

    /// Returns the events whose effects were never kept, among those that a replay in place is about to process
    /// again.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn unspoken(&self) -> Result<Vec<Position>, StoreError>;
}
