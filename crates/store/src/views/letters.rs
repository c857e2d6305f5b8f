//! What a view keeps of events that were not applied.

use async_trait::async_trait;
use dacapo_model::{Letter, Position, Refusal, WhichLetters, Wish};

use crate::error::StoreError;

/// The refusals and the dead letters of a view.
#[async_trait]
pub trait ViewLetters: Send + Sync + 'static {
    /// What is kept of the events that segments stop before, in the order of segments.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError>;

    /// The dead letters of events behind `after`, in order, at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError>;

    /// Records what shall be done with dead letters, in place of an earlier wish, and returns how many there are.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError>;

    /// The events whose effects were never kept, of those that a replay in place is about to come past again.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn unspoken(&self) -> Result<Vec<Position>, StoreError>;
}
