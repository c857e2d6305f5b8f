//! Reactors: effects that follow from events outside of views, made at least once and by one voice.
//!
//! ```text
//!   event ──apply──▶ rows and outbox, in one transaction ──▶ delivery ──act──▶ the world outside
//!                                                              │  ▲                   │
//!               another version speaks for the event: forgotten ◀┘  └── tried again ◀── failed
//! ```
//!
//! A handler emits an effect while it changes rows, so both are stored together or not at all. One task for each
//! version and node takes due effects from the outbox, asks which version speaks for the event
//! ([`ProjectionState::voice`], I-9), acts, and records the result. A process may die between acting and recording;
//! then the effect is made again, under the same key.
//!
//! Effects of one stream are made one after the other, even if another version speaks for the earlier ones. An effect
//! that fails blocks only its stream, until [`EffectOptions::on_failure`] sets it aside or it is dropped.

mod attempt;
mod right;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dacapo_model::reach::{has_reached, makes_progress};
use dacapo_model::{
    BegunEffect, EffectOutcome, EffectsClaim, NewEffect, PendingEffect, Position, ProjectionState, Timestamp, Token,
    VersionId, ViewId, Voice,
};
use dacapo_store::{Outbox, StoreError, View as StoredView};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

pub use crate::code::Acts;
pub use crate::effect::{Effect, EffectOptions};
pub use dacapo_model::{EffectFailure, EffectKey, EffectTry, Epoch, PastEffects};

use self::right::Right;
use crate::catalog::CatalogError;
use crate::code::VersionCode;
use crate::history;
use crate::limits;
use crate::processor::Progress;
use crate::versions::{OpenVersion, Versions};

/// The work of one version's delivery, and the means for it.
pub(crate) struct Delivery {
    /// This is weak, since the versions own the sender that stops this.
    pub(crate) versions: Weak<Versions>,
    pub(crate) id: ViewId,
    pub(crate) view: Arc<dyn StoredView>,
    pub(crate) carried: VersionCode,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) outbox: watch::Sender<Outbox>,
    /// The version whose effects come before its own.
    pub(crate) before: watch::Sender<Option<VersionId>>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Another version of the projection, as far as it is available here.
struct Other {
    id: ViewId,
    view: Arc<dyn StoredView>,
    open: Option<Arc<OpenVersion>>,
}

type Act = BoxFuture<'static, (u64, EffectOutcome)>;

/// The tries under way, and those whose results are not recorded yet.
#[derive(Default)]
struct UnderWay {
    acts: FuturesUnordered<Act>,
    busy: HashSet<u64>,
    settled: Vec<(u64, EffectOutcome)>,
    /// The last resumption that was taken into account.
    resumed_at: Option<Position>,
    /// The effects that were retried since that resumption; `None` once every failing effect was retried.
    retried: Option<HashSet<u64>>,
    /// The right under which this member makes the effects, while it does.
    right: Right,
}

impl UnderWay {
    fn is_empty(&self) -> bool {
        self.busy.is_empty() && self.settled.is_empty()
    }
}

impl Delivery {
    /// Runs until it is stopped. Tries under way then have [`limits::STOP_TIME_MAX`].
    pub(crate) async fn run(mut self) {
        let mut under_way = UnderWay::default();
        let mut stop = self.stop.clone();
        while let Some(versions) = self.versions.upgrade() {
            let mut catalog = versions.catalog.watch();
            let mut live = versions.cluster.live();
            catalog.mark_unchanged();
            live.mark_unchanged();
            self.progress.mark_unchanged();
            let rest = match self.take_turn(&versions, &mut under_way).await {
                Ok(rest) => rest,
                Err(error) => {
                    tracing::warn!(view = %self.id, %error, "effects cannot be made now, and are retried");
                    limits::EFFECTS_RETRY_PAUSE
                }
            };
            drop(versions);
            tokio::select! {
                biased;
                // An error means that the sender of the stop is gone, which counts as a stop.
                _ = stop.wait_for(|stop| *stop) => break,
                Some(done) = under_way.acts.next(), if !under_way.acts.is_empty() => under_way.settled.push(done),
                Ok(()) = self.progress.changed() => {}
                Ok(()) = catalog.changed() => {}
                Ok(()) = live.changed() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
        let rest = async {
            while let Some(done) = under_way.acts.next().await {
                under_way.settled.push(done);
            }
        };
        if tokio::time::timeout(limits::STOP_TIME_MAX, rest).await.is_err() {
            tracing::warn!(view = %self.id, "effects did not end in time; they are made again at the next start");
        }
        // No try continues once another member may begin.
        drop(std::mem::take(&mut under_way.acts));
        let Some(claim) = under_way.right.claim() else { return };
        if let Err(error) = self.view.settle_effects(claim, &under_way.settled).await {
            tracing::warn!(view = %self.id, %error, "the results of effects are not recorded; they are made again");
        }
        if let Err(error) = under_way.right.give_back(&*self.view).await {
            tracing::warn!(view = %self.id, %error, "the right to make effects is not given back; it ends with the lease");
        }
    }

    /// Continues with the effects if it is this member's turn. Otherwise ends what it has begun.
    async fn take_turn(&self, versions: &Arc<Versions>, under_way: &mut UnderWay) -> Result<Duration, CatalogError> {
        if versions.cluster.drives(&self.id) && versions.cluster.has_lease() && !under_way.right.is_lost() {
            let time_max = self.carried.options.effects.time_max;
            let taken =
                under_way.right.take(&*self.view, &versions.cluster, time_max, versions.world.clock.now()).await?;
            let Some(claim) = taken else { return Ok(limits::EFFECTS_LOOK) };
            return self.look(versions, under_way, claim).await;
        }
        // Once the results of this member's turn are recorded, no other member makes those effects again.
        self.settle_ended(under_way).await?;
        if under_way.is_empty() {
            under_way.right.give_back(&*self.view).await?;
        }
        Ok(if under_way.is_empty() { limits::EFFECTS_LOOK_IDLE } else { limits::EFFECTS_LOOK })
    }

    /// Records ended tries, begins due effects, and returns how long to wait if nothing happens.
    async fn look(
        &self,
        versions: &Arc<Versions>,
        under_way: &mut UnderWay,
        claim: EffectsClaim,
    ) -> Result<Duration, CatalogError> {
        // This comes first, since an effect that is done makes the next one of its stream due.
        self.settle_ended(under_way).await?;
        // The head is read before the catalog, so that every flip through it is known.
        let head = versions.head();
        versions.catalog.refresh().await?;
        let catalog = versions.catalog.current();
        let Some(projection) = catalog.projections.get(&self.id.projection) else {
            return Ok(limits::EFFECTS_RETRY_PAUSE);
        };
        let now = versions.steady.now();
        let (longest, most) =
            (self.carried.options.effects.retry_longest, limits::EFFECTS_READ_MAX + under_way.busy.len());
        self.heed(projection, under_way);
        // After a resumption, effects that wait for their next try are retried at once.
        let through = if under_way.retried.is_some() { Timestamp::from_micros(i64::MAX) } else { now };
        let mut due = match versions.is_paused(&self.id) {
            true => vec![],
            false => self.view.effects_due(through, longest, most).await?,
        };
        let is_due = |it: &PendingEffect| it.is_due(now, longest);
        if let Some(retried) = &under_way.retried {
            due.retain(|it| is_due(it) || !retried.contains(&it.number));
            if due.iter().all(is_due) {
                under_way.retried = None;
            }
        }
        let (mut silent, mut before, mut to_begin) = (0, None, vec![]);
        for pending in due {
            let NewEffect { position, .. } = pending.effect;
            if under_way.busy.contains(&pending.number) || position > head {
                continue;
            }
            match projection.voice(position, self.carried.options.effects.past) {
                Voice::Of(version) if version == self.id.version => {
                    let room = under_way.acts.len() + to_begin.len() < limits::EFFECTS_AT_ONCE_MAX;
                    let first = match room {
                        true => self.comes_before(versions, projection, &pending).await?,
                        false => None,
                    };
                    before = before.or(first);
                    if room && first.is_none() {
                        to_begin.push(pending);
                    }
                }
                // The voice is not known yet.
                Voice::First => {}
                Voice::Of(_) | Voice::Nobody => {
                    under_way.settled.push((pending.number, EffectOutcome::Done));
                    silent += 1;
                }
            }
        }
        self.settle(under_way).await?;
        // A result that is not recorded because the right is lost would be found again, without a rest.
        if silent > 0 || !to_begin.is_empty() {
            self.begin(versions, under_way, claim, to_begin).await?;
        }
        self.before.send_replace(before);
        let outbox = self.view.outbox(limits::EFFECTS_FAILING_MAX).await?;
        let next_due = outbox.next_due.map(|due| due.since(now));
        // An operator may retry an effect that was set aside.
        let pending = outbox.pending + outbox.aside > 0;
        self.outbox.send_replace(outbox);
        Ok(match next_due {
            _ if silent > 0 => Duration::ZERO,
            Some(next) if next.is_zero() => limits::EFFECTS_LOOK,
            Some(next) => next.min(limits::EFFECTS_LOOK),
            None if pending => limits::EFFECTS_LOOK,
            None => limits::REQUEST_TIME_MAX,
        })
    }

    /// Begins the due effects, after it is recorded that they are begun under this member's right (I-9). If there are
    /// none, it only checks that right.
    async fn begin(
        &self,
        versions: &Arc<Versions>,
        under_way: &mut UnderWay,
        claim: EffectsClaim,
        pending: Vec<PendingEffect>,
    ) -> Result<(), StoreError> {
        let numbers: Vec<u64> = pending.iter().map(|it| it.number).collect();
        let Some(begun) = self.view.begin_effects(claim, &numbers).await? else {
            tracing::warn!(view = %self.id, epoch = %claim.epoch, "another node makes the effects now, so this one begins none");
            under_way.right.lose();
            return Ok(());
        };
        let mut pending: HashMap<u64, PendingEffect> = pending.into_iter().map(|it| (it.number, it)).collect();
        for BegunEffect { number, before } in begun {
            let Some(pending) = pending.remove(&number) else { continue };
            assert!(under_way.busy.insert(number), "I-9: effect {number} is under way once");
            under_way.retried.iter_mut().for_each(|retried| retried.extend([number]));
            under_way.acts.push(self.act(versions, claim.epoch, pending, before));
        }
        Ok(())
    }

    /// Records the tries that have ended by now.
    async fn settle_ended(&self, under_way: &mut UnderWay) -> Result<(), StoreError> {
        while let Some(Some(done)) = under_way.acts.next().now_or_never() {
            under_way.settled.push(done);
        }
        self.settle(under_way).await
    }

    /// Records the results of ended tries. Until that has succeeded, these effects are not tried again.
    async fn settle(&self, under_way: &mut UnderWay) -> Result<(), StoreError> {
        if let Some(claim) = under_way.right.claim()
            && !under_way.settled.is_empty()
        {
            self.view.settle_effects(claim, &under_way.settled).await?;
            for (number, _) in under_way.settled.drain(..) {
                under_way.busy.remove(&number);
            }
        }
        Ok(())
    }

    /// Takes a resumption into account.
    fn heed(&self, projection: &ProjectionState, under_way: &mut UnderWay) {
        let resumed_at = projection.versions.get(&self.id.version).and_then(|state| state.resumed_at);
        if resumed_at > under_way.resumed_at {
            (under_way.resumed_at, under_way.retried) = (resumed_at, Some(HashSet::new()));
        }
    }

    /// Returns the version that still has to make an earlier effect of the same stream, if there is one, or may still
    /// get one.
    async fn comes_before(
        &self,
        versions: &Versions,
        projection: &ProjectionState,
        pending: &PendingEffect,
    ) -> Result<Option<VersionId>, StoreError> {
        let others = projection.versions.iter().filter(|(version, _)| **version != self.id.version);
        for version in others.filter(|(_, state)| state.phase.has_view()).map(|(version, _)| *version) {
            let Some(other) = self.other(versions, projection, version, pending).await? else { continue };
            // This comes first: effects that it reaches meanwhile are then in its outbox.
            if self.is_on_its_way(versions, projection, &other, pending).await? {
                return Ok(Some(version));
            }
            if self.owes_earlier(projection, version, &other, pending).await? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Returns true if the outbox of another version has an effect of the same stream that comes before `pending` and
    /// that is that version's to make. Effects there that are not its to make, and that were not removed yet, may come
    /// before it.
    async fn owes_earlier(
        &self,
        projection: &ProjectionState,
        version: VersionId,
        other: &Other,
        pending: &PendingEffect,
    ) -> Result<bool, StoreError> {
        let NewEffect { position, stream, .. } = &pending.effect;
        let mut after = Position::START;
        while let Some(earlier) = other.view.first_effect(stream, after).await?.filter(|found| *found < *position) {
            if projection.voice(earlier, self.carried.options.effects.past) == Voice::Of(version) {
                return Ok(true);
            }
            after = earlier;
        }
        Ok(false)
    }

    /// Returns another version, whose effects may come first. A version that is not open here may be open on other
    /// nodes, or may be opened or closed just now: even then its pending effects are in its view. A view that does not
    /// belong to the journal, or that cannot be read as it is, is not waited for.
    async fn other(
        &self,
        versions: &Versions,
        projection: &ProjectionState,
        version: VersionId,
        pending: &PendingEffect,
    ) -> Result<Option<Other>, StoreError> {
        let id = ViewId { projection: self.id.projection.clone(), version };
        if let Some(open) = versions.open_version(&id) {
            return Ok(Some(Other { id, view: Arc::clone(&open.view), open: Some(open) }));
        }
        let has_parted = projection.versions.get(&version).is_some_and(|state| state.parted.is_some());
        if has_parted || projection.spoke_before(version, pending.effect.position).is_none() {
            return Ok(None);
        }
        let found = async {
            let Some(view) = versions.views.find(&id).await? else { return Ok(None) };
            history::check_opened(&*versions.journal, &*view).await?;
            Ok(Some(Other { id, view, open: None }))
        };
        match found.await {
            Err(StoreError::Parted(_) | StoreError::Corrupt { .. } | StoreError::Invalid(_)) => Ok(None),
            found => found,
        }
    }

    /// Returns true if another version that spoke before `pending` has not yet reached some of those events in the
    /// segment of its stream, and makes progress. A version that halts there, is paused, makes no progress, or whose
    /// code no node has, is not waited for, since that could take for ever.
    async fn is_on_its_way(
        &self,
        versions: &Versions,
        projection: &ProjectionState,
        other: &Other,
        pending: &PendingEffect,
    ) -> Result<bool, StoreError> {
        let NewEffect { position, stream, .. } = &pending.effect;
        let until = projection.comes_until(other.id.version, *position);
        let (Some(until), Some(state)) = (until, projection.versions.get(&other.id.version)) else { return Ok(false) };
        let segment = state.segments.segment_of(stream.as_str());
        let has_come = |tokens: &[Token]| has_reached(until, segment, tokens);
        if other.open.as_ref().is_some_and(|open| has_come(&open.progress.borrow().tokens)) {
            return Ok(false);
        }
        // Another member may have moved its tokens.
        let tokens = match &other.open {
            Some(open) => {
                open.look().await?;
                open.progress.borrow().tokens.clone()
            }
            None => other.view.tokens().await?,
        };
        let has_code = versions.code_of(&other.id).is_some() || versions.cluster.has_code_of(&other.id);
        if has_come(&tokens) || state.paused || !has_code {
            return Ok(false);
        }
        let refusals = other.view.refusals().await?;
        let reached = other.open.as_ref().and_then(|open| open.reached(open.progress.borrow().covers()));
        let still = versions.trails.look(&other.id, &tokens, reached, versions.head()).still(versions.trails.now());
        Ok(makes_progress(segment, &refusals, still))
    }
}
