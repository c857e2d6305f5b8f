//! The effects that a view still owes to the outside.

use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{
    BegunEffect, EffectLetter, EffectOutcome, EffectsClaim, PendingEffect, Position, StreamName, Timestamp,
    WhichLetters, Wish,
};

use crate::error::StoreError;

/// The effects that a view still owes to the outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// The number of effects that are still to be made.
    pub pending: u64,
    /// The number of effects that were set aside, in addition to these.
    pub aside: u64,
    /// The time of the next try.
    pub next_due: Option<Timestamp>,
    /// Some failing effects, in the order of their events.
    pub failing: Vec<PendingEffect>,
}

/// The effects of an outbox about which a decision is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhichEffects {
    /// The effects of these events.
    pub which: WhichLetters,
    /// No effect of an event after this position.
    pub through: Position,
    /// True to include those that were never tried. Otherwise only failed ones are included, whether they are set
    /// aside or not.
    pub untried: bool,
}

/// The effects of a view that are still to be made.
#[async_trait]
pub trait ViewOutbox: Send + Sync + 'static {
    /// Returns the effects that are due at `now`, the first of each stream at most, those that are due longest first.
    /// If no effect waits longer than `longest`, one that would be due later was tried by a node whose clock is
    /// ahead, and is due.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError>;

    /// Returns the position of the first effect of a stream after `after` that is still to be made.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn first_effect(&self, stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError>;

    /// Returns the state of the outbox as a whole, with at most `most` of the failing effects.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError>;

    /// Returns the effects whose number is above `after`, in the order of their numbers, at most `most`: the failed
    /// ones, set aside or not, and with `untried` all.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn effect_letters(&self, after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError>;

    /// Retries effects at once, including those that were set aside, which come before the waiting ones of their
    /// streams; or removes them, so that the next ones of their streams are due. Returns the number of effects.
    ///
    /// # Errors
    /// [`StoreError`] if the change cannot be written. Nothing of it is written then.
    async fn decide_effects(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError>;

    /// Returns the member that has the right to make the effects, and the epoch of that right.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn effects_claim(&self) -> Result<EffectsClaim, StoreError>;

    /// Replaces the claim that was `seen` by the one after it, under which alone effects are begun
    /// from then on. Returns false if the claim is another one by now.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    async fn claim_effects(&self, seen: EffectsClaim, next: EffectsClaim) -> Result<bool, StoreError>;

    /// Records, before they are tried, that effects are begun under a claim, in the order in which they are named.
    /// Returns those that are still to be made; `None` if this is not the claim of the view, and then none is begun
    /// (I-9).
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    async fn begin_effects(&self, claim: EffectsClaim, numbers: &[u64])
    -> Result<Option<Vec<BegunEffect>>, StoreError>;

    /// Records the results of tries under a claim, by the numbers of the effects. An effect that is done is removed,
    /// and the next one of its stream is due. If this is not the claim of the view any more, only what was begun under
    /// it, and not begun again since, has these results. Every other effect stays as it is: another try may be under
    /// way, or its number may mean another effect in a view that was restored or built again.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written. Nothing of it is written then.
    async fn settle_effects(&self, claim: EffectsClaim, settled: &[(u64, EffectOutcome)]) -> Result<(), StoreError>;
}
