//! The segments of a run: those of this member according to [`assign::next`], from the list of live members.
//!
//! A run claims segments when it begins. From time to time, between batches, it checks whether its claims are still
//! right. If not, a new run begins: it releases the segments of other members, claims its own, and forgets every row in
//! memory, since others may write them from then on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::assign::{self, ClaimAction, RowScope, Spread};
use dacapo_model::{Member, MemberId, Segment, Token};
use dacapo_store::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Assignment;
use super::run::Run;
use super::sink::Sink;
use crate::cluster::Cluster;
use crate::limits;

/// The cluster in which segments are claimed.
#[derive(Clone)]
pub(crate) struct Claims(pub(crate) Arc<Cluster>);

/// The times of a run's last and next check of its claims.
pub(super) struct ClaimLook {
    live: watch::Receiver<Vec<Member>>,
    looked: Instant,
    every: Duration,
}

impl ClaimLook {
    /// Returns the time until the next check if no news arrives; `None` if no other member could have changed anything.
    pub(super) fn due_in(&self, me: MemberId) -> Option<Duration> {
        let is_alone = self.live.borrow().iter().all(|member| member.id == me);
        (!is_alone).then(|| self.every.saturating_sub(self.looked.elapsed()))
    }

    /// Returns true if members have joined or left since the last check.
    pub(super) fn is_told(&self) -> bool {
        self.live.has_changed().unwrap_or(false)
    }

    /// Wakes when members join or leave.
    pub(super) async fn changed(&self) {
        // It waits on a clone, since the receiver that the check reads must stay as it is.
        if self.live.clone().changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Assignment {
    /// Records tokens for all watchers of the progress.
    pub(super) fn see(&self, tokens: &[Token]) {
        self.progress.send_if_modified(|progress| progress.see(tokens));
    }

    /// Returns the time between checks under this assignment of segments.
    fn look_every(&self, spread: Spread) -> Duration {
        let passes = self.options.rows == RowScope::OfOneSegment;
        if spread == Spread::Whole && passes { limits::CLAIMS_LOOK_WHOLE } else { limits::CLAIMS_LOOK }
    }

    /// Releases the segments of other members, and claims those of this one.
    pub(super) async fn claim<S: Sink>(
        &self,
        sink: &mut S,
        seen: &[Token],
    ) -> Result<(Vec<Token>, ClaimLook), StoreError> {
        let cluster = &self.claims.0;
        let (me, mut live, spread) = (cluster.me(), cluster.live(), sink.spread(seen, &self.inbox.orders.borrow()));
        let mut actions = assign::next(&self.id, seen, &live.borrow_and_update(), me, spread);
        let takes = |action: &ClaimAction| {
            matches!(action, ClaimAction::Claim(segment)
                if seen.iter().any(|token| token.segment == *segment && token.claimed_by.is_some()))
        };
        // Nothing is taken from a member that has just joined.
        if actions.iter().any(takes) {
            cluster.look().await?;
            actions = assign::next(&self.id, seen, &live.borrow_and_update(), me, spread);
        }
        let (mut ours, mut released) = (BTreeSet::<Segment>::new(), BTreeSet::new());
        ours.extend(seen.iter().filter(|token| token.claimed_by == Some(me)).map(|token| token.segment));
        for action in actions {
            match action {
                ClaimAction::Claim(segment) => drop(ours.insert(segment)),
                ClaimAction::Release(segment) => {
                    ours.remove(&segment);
                    released.insert(segment);
                }
            }
        }
        let of = |segments: &BTreeSet<Segment>| -> Vec<Token> {
            seen.iter().filter(|token| segments.contains(&token.segment)).copied().collect()
        };
        if !released.is_empty() {
            self.see(&sink.claim(None, &of(&released)).await?);
        }
        let claimed = match ours.is_empty() {
            true => vec![],
            false => sink.claim(Some(me), &of(&ours)).await?,
        };
        self.see(&claimed);
        if !claimed.is_empty() || !released.is_empty() {
            tracing::debug!(view = %self.id, claimed = claimed.len(), released = released.len(), "segments are claimed");
        }
        Ok((claimed, ClaimLook { live, looked: Instant::now(), every: self.look_every(spread) }))
    }
}

impl<S: Sink> Run<'_, S> {
    /// Returns true if the claims of this run are wrong, or not its own any more. It checks only if it is time to.
    pub(super) async fn has_other_claims(&mut self) -> Result<bool, StoreError> {
        let me = self.assignment.claims.0.me();
        if !self.claims.is_told() && self.claims.due_in(me).is_none_or(|due| !due.is_zero()) {
            return Ok(false);
        }
        let seen = self.sink.tokens().await?;
        self.assignment.see(&seen);
        if self.sink.look().await? {
            return Ok(true);
        }
        let spread = self.sink.spread(&seen, &self.assignment.inbox.orders.borrow());
        (self.claims.looked, self.claims.every) = (Instant::now(), self.assignment.look_every(spread));
        let actions = assign::next(&self.assignment.id, &seen, &self.claims.live.borrow_and_update(), me, spread);
        // Nobody else moves a token under this run's claim. If it is elsewhere, the store has lost a commit.
        let place = |token: &Token| (token.segment, token.epoch, token.position, token.replay);
        let is_ours = |held: &Token| seen.iter().any(|token| place(token) == place(held));
        Ok(!actions.is_empty() || !self.segments.tokens().iter().all(is_ours))
    }
}
