//! The right to make the effects of a version, which one member has at a time.
//!
//! It is stored beside the effects, with an epoch. A member takes it once no other live member has it. It gives it back
//! when its turn is over and the results of its tries are recorded. A member without a lease has ended its tries, so
//! its right may be taken. If it continues nevertheless, such as after a pause, it begins nothing any more, since the
//! epoch has changed, and it records nothing about effects that another member has begun.

use std::time::Duration;

use dacapo_model::{EffectsClaim, Timestamp};
use dacapo_store::{StoreError, View as StoredView};
use tokio::time::Instant;

use crate::cluster::Cluster;

/// One member's part in the right.
#[derive(Default)]
pub(super) struct Right {
    /// The claim under which it has the right, or had it until its tries have ended.
    claim: Option<EffectsClaim>,
    /// True if another member has taken it.
    is_lost: bool,
    /// The claim of another live member for whose end it waits, and the time since when.
    waits: Option<(EffectsClaim, Instant)>,
}

impl Right {
    /// Returns the claim under which this member makes effects; `None` while it makes none.
    pub(super) fn claim(&self) -> Option<EffectsClaim> {
        self.claim
    }

    /// Records that another member has taken the right, so this one begins nothing more.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// Returns true if another member has taken it, and this one has not given up its tries yet.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Takes the right, if this member does not have it and can ([`EffectsClaim::may_be_taken`]).
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
        let lives = match seen.owner.filter(|owner| *owner != cluster.me()) {
            Some(owner) => cluster.lives(owner).await?,
            None => false,
        };
        let waited = if lives { self.waited(seen) } else { Duration::ZERO };
        if !seen.may_be_taken(cluster.me(), lives, waited, time_max) {
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

    /// Gives the right back, if this member still has it. Then another one may take it at once.
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
