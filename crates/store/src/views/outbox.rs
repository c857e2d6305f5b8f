//! What a view still owes to the world outside.

use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{
    BegunEffect, EffectLetter, EffectsClaim, Epoch, MemberId, PendingEffect, Position, Settled, StreamName, Timestamp,
    WhichLetters, Wish,
};

use crate::error::StoreError;

/// What a view still owes to the world outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// How many effects are still to be made.
    pub pending: u64,
    /// How many were set aside beside these.
    pub aside: u64,
    /// When the next one is to be tried.
    pub next_due: Option<Timestamp>,
    /// Some that were tried in vain, in the order of their events.
    pub failing: Vec<PendingEffect>,
}

/// Which effects of an outbox something is decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhichEffects {
    /// Those of these events.
    pub which: WhichLetters,
    /// Of no event behind this position.
    pub through: Position,
    /// Also those that were never tried. Otherwise those that were tried in vain, whether they are set aside or not.
    pub untried: bool,
}

/// The effects of a view that are still to be made.
#[async_trait]
pub trait ViewOutbox: Send + Sync + 'static {
    /// The effects that are due at `now`, the first of each stream at most, those that are due longest first. Where none is
    /// made to wait longer than `longest`, one that would be due later was tried by a node whose clock is ahead, and is due.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError>;

    /// The position of the first effect of a stream after `after` that is still to be made.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn first_effect(&self, stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError>;

    /// What is in the outbox as a whole, with at most `most` of those that fail.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError>;

    /// The effects whose number is above `after`, in the order of their numbers, at most `most`: those that were tried in
    /// vain, set aside or not, and with `untried` all.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn effect_letters(&self, after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError>;

    /// Lets effects be tried at once, those that were set aside too, which come before what waits in their streams; or
    /// takes them away, so that the next ones of their streams are due. Returns how many there are.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written; then nothing of it is.
    async fn decide_effects(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError>;

    /// Who has the right to make the effects.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn effects_claim(&self) -> Result<EffectsClaim, StoreError>;

    /// Gives the right to make the effects to the member `by`, or to nobody, if its epoch is still the one that was `seen`.
    /// Returns the new epoch: nothing is begun under an earlier one any more. `None` when somebody else was first.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn claim_effects(&self, by: Option<MemberId>, seen: Epoch) -> Result<Option<Epoch>, StoreError>;

    /// Records, before they are tried, that effects are begun under a claim, in the order in which they are named. Returns
    /// those that are still to be made; `None` when somebody else has the right, or nobody, and then none is begun (I-9). A
    /// database that lost its last commits may give an epoch twice, so the member counts as well.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn begin_effects(&self, claim: EffectsClaim, numbers: &[u64])
    -> Result<Option<Vec<BegunEffect>>, StoreError>;

    /// Records what tries under an epoch came to, by the numbers of the effects. What is done goes, and the next one of its
    /// stream is due. What was begun under a later epoch stays as it is: that try is under way, and tells what it came to.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written; then nothing of it is.
    async fn settle_effects(&self, epoch: Epoch, settled: &[(u64, Settled)]) -> Result<(), StoreError>;
}
