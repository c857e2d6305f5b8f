//! The progress of a view, the claims on it, and the history from which it is made.

use async_trait::async_trait;
use dacapo_model::{MemberId, Position, Token};

use super::ViewHistory;
use crate::error::StoreError;

/// The tokens of a view, and their history.
#[async_trait]
pub trait ViewTokens: Send + Sync + 'static {
    /// Returns every token, in the order of segments.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// Returns the history from which it is made, as far as commits have stated it; `None` if none has.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn history(&self) -> Result<Option<ViewHistory>, StoreError>;

    /// Claims segments for the member `by`, or releases them with `None`. Each segment whose token still has the
    /// epoch that was `seen` gets the next epoch and its new member, so that no commit of an earlier claim lands any
    /// more (I-4). Returns the tokens that were claimed, in the order of segments: of two callers that saw the same,
    /// one gets them. Positions, holds and caps stay.
    ///
    /// It waits for the end of a transaction that has written under the earlier claim.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written.
    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError>;

    /// Takes every segment from its member: no commit of an earlier claim lands any more (I-4).
    ///
    /// # Errors
    /// [`StoreError`] if the tokens cannot be written.
    async fn revoke(&self) -> Result<(), StoreError>;

    /// Marks every token as held under `mark`, if no later mark holds it, and returns the tokens as they are once all
    /// are marked: nothing moves from here until the mark is lifted. Marking twice has the same effect as marking
    /// once. It waits for the end of a transaction that has written, so the task with that transaction must not wait
    /// for this call.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written. None is marked then.
    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError>;

    /// Lifts the hold under `mark` or an earlier one. A later one stays.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written.
    async fn lift(&self, mark: Position) -> Result<(), StoreError>;

    /// Lets no token move past `at` until another cap, or none, replaces it. Returns the tokens as they are then.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written. The cap is then as it was.
    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError>;
}
