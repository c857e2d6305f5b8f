//! How far a view is, who may take it further, and of what history it is made.

use async_trait::async_trait;
use dacapo_model::{MemberId, Position, Token};

use super::ViewHistory;
use crate::error::StoreError;

/// The tokens of a view, and the history that they are of.
#[async_trait]
pub trait ViewTokens: Send + Sync + 'static {
    /// Every token, in the order of segments.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// The history that it is made of, as far as commits have said; `None` when none has.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn history(&self) -> Result<Option<ViewHistory>, StoreError>;

    /// Claims segments for the member `by`, or for nobody: each whose token still has the epoch that was `seen` gets the
    /// next one and its new owner, so that no commit of an earlier claim lands any more (I-4). Returns the tokens that
    /// were claimed, in the order of segments: of two that saw the same, one gets them. Positions, holds and caps stay.
    ///
    /// It waits for the end of a transaction that has written under the earlier claim.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written.
    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError>;

    /// Takes every segment from whoever has it: no commit of an earlier claim lands any more (I-4).
    ///
    /// # Errors
    /// [`StoreError`] when the tokens cannot be written.
    async fn revoke(&self) -> Result<(), StoreError>;

    /// Marks every token as held under `mark`, unless a later mark holds it, and returns the tokens as they
    /// are once all are marked: nothing moves from here until the mark is lifted. Marking twice is marking once.
    /// It waits for the end of a transaction that has written; the task that has one must not wait for it.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written; then none is marked.
    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError>;

    /// Lifts the hold under `mark` or an earlier one; a later one stays.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written.
    async fn lift(&self, mark: Position) -> Result<(), StoreError>;

    /// Lets no token move past `at` until another cap, or none, takes its place, and returns the tokens as they are then.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written; then the cap is what it was.
    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError>;
}
