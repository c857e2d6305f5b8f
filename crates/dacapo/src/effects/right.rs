//! The right to make the effects of a version, which one member has at a time.
//!
//! It is kept beside the effects, with an epoch. A member takes it once nobody else who is alive has it, and gives it back
//! when its turn is over and what it has begun is recorded. Who has no lease any more has ended what it had begun, so its
//! right may be taken: whatever it does nevertheless, such as when it was paused, it begins nothing any more, since the
//! epoch is another one, and says nothing of what another member has begun.

use std::time::Duration;

use dacapo_model::{EffectsClaim, Timestamp, limits};
use dacapo_store::{StoreError, View as StoredView};
use tokio::time::Instant;

use crate::cluster::Cluster;

/// What one member has of it.
#[derive(Default)]
pub(super) struct Right {
    /// Under which it has the right, or had it until what it had begun has ended.
    claim: Option<EffectsClaim>,
    /// Whether another member has taken it.
    is_lost: bool,
    /// For which claim of another member that is alive it waits, and since when.
    waits: Option<(EffectsClaim, Instant)>,
}

impl Right {
    /// The claim under which this member makes effects; `None` while it makes none.
    pub(super) fn claim(&self) -> Option<EffectsClaim> {
        self.claim
    }

    /// Another member has taken it, so this one begins nothing more.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// Whether another member has taken it, and this one has not given up yet what it had begun.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Takes the right, if this member does not have it and can. One that is alive and does not give it back, since it
    /// cannot reach the store for that, has ended what it had begun after `time_max` and a lease.
    pub(super) async fn take(
        &mut self,
        view: &dyn StoredView,
        cluster: &Cluster,
        time_max: Duration,
        now: Timestamp,
    ) -> Result<Option<EffectsClaim>, StoreError> {
        if self.claim.is_some() {
            return Ok(self.claim);
        }
        let seen = view.effects_claim().await?;
        if let Some(owner) = seen.owner.filter(|owner| *owner != cluster.me())
            && cluster.lives(owner).await?
            && self.waited(seen) < time_max + limits::LEASE_TIME
        {
            return Ok(None);
        }
        let next = seen.taken(cluster.me(), now);
        self.claim = view.claim_effects(seen, next).await?.then_some(next);
        self.waits = None;
        Ok(self.claim)
    }

    /// Returns how long this member has waited for the owner of this claim.
    fn waited(&mut self, seen: EffectsClaim) -> Duration {
        let since = match self.waits {
            Some((claim, since)) if claim == seen => since,
            _ => Instant::now(),
        };
        self.waits = Some((seen, since));
        since.elapsed()
    }

    /// Gives the right back, if this member still has it: another one may take it at once.
    pub(super) async fn give_back(&mut self, view: &dyn StoredView) -> Result<(), StoreError> {
        self.waits = None;
        if let Some(claim) = self.claim {
            view.claim_effects(claim, claim.given_back()).await?;
            (self.claim, self.is_lost) = (None, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dacapo_model::MemberId;

    use super::*;

    // I-9
    #[tokio::test(start_paused = true)]
    async fn each_member_that_takes_the_right_has_the_whole_time_for_what_it_begins() {
        let mut right = Right::default();
        let first = EffectsClaim::default().taken(MemberId::from_bytes([1; 16]), Timestamp::from_micros(0));
        assert_eq!(right.waited(first), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(right.waited(first), Duration::from_secs(60));
        let second = first.given_back().taken(MemberId::from_bytes([2; 16]), Timestamp::from_micros(0));
        assert_eq!(right.waited(second), Duration::ZERO);
    }
}
