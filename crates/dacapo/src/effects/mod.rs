//! Reactors: effects that follow from events outside of views, made at least once and by one voice.
//!
//! ```text
//!   event ──apply──▶ rows and outbox, in one transaction ──▶ delivery ──act──▶ the world outside
//!                                                              │  ▲                   │
//!               another version speaks for the event: forgotten ◀┘  └── tried again ◀── failed
//! ```
//!
//! A handler emits an effect as it changes rows, so the two are there together or not at all. One task a version and
//! node takes what is due from the outbox, asks whose voice speaks for the event ([`ProjectionState::voice`], I-9),
//! acts, and records what it came to. Between acting and recording a process may die; then it acts again, under the
//! same key. Effects of one stream are made one after the other, also where another version speaks for the earlier ones;
//! one that fails holds back only its stream, until it is set aside by [`EffectOptions::on_failure`] or dropped.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dacapo_model::planted::{self, Fault};
use dacapo_model::{
    NewEffect, PendingEffect, Position, ProjectionState, Settled, Timestamp, Token, VersionId, ViewId, Voice, limits,
};
use dacapo_store::{Outbox, StoreError, View as StoredView};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

pub use crate::code::Acts;
pub use crate::effect::{Effect, EffectOptions};
pub use dacapo_model::{EffectFailure, EffectKey, PastEffects};

use crate::catalog::CatalogError;
use crate::code::{VersionCode, shortened};
use crate::history;
use crate::panics::{chain, panic_text};
use crate::processor::Progress;
use crate::versions::{OpenVersion, Versions};

/// How often to look when nothing tells that something changed while effects are pending.
const LOOK: Duration = Duration::from_millis(250);
/// How long to rest after a failure of the store.
const REST: Duration = Duration::from_secs(1);
/// Failing effects that the status names.
const FAILING_TOLD: usize = 3;

/// What the delivery of one version works on and with.
pub(crate) struct Delivery {
    /// Weak, since the versions have whoever stops this.
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

/// Another version of the projection, as far as it is to be had here.
struct Other {
    id: ViewId,
    view: Arc<dyn StoredView>,
    open: Option<Arc<OpenVersion>>,
}

type Act = BoxFuture<'static, (u64, Settled)>;

/// The tries under way, and those whose outcome is not recorded yet.
#[derive(Default)]
struct UnderWay {
    acts: FuturesUnordered<Act>,
    busy: HashSet<u64>,
    settled: Vec<(u64, Settled)>,
    /// The last resumption that was heeded.
    resumed_at: Option<Position>,
    /// Since that one, until everything that fails was tried at once: what was.
    retried: Option<HashSet<u64>>,
    turn: Turn,
}

/// One member makes the effects of a version. The one before it may still be at it: it sees that it is not its turn any
/// more when it looks at the members, which it does before its lease ends, or it has no lease any more. So a member whose
/// turn has come waits for as long as a lease, unless it is alone. One that was paused may wake up later, and one effect
/// may take longer than that: such effects are made twice, under the same keys.
#[derive(Default)]
struct Turn {
    /// When this member may begin.
    begins: Option<Instant>,
}

impl Turn {
    fn has_come(&mut self, versions: &Versions, id: &ViewId) -> bool {
        if !versions.cluster.drives(id) {
            self.begins = None;
            return false;
        }
        let wait = if versions.cluster.is_alone() { Duration::ZERO } else { limits::LEASE_TIME };
        let begins = self.begins.get_or_insert_with(|| Instant::now() + wait);
        Instant::now() >= *begins
    }
}

/// How often one that does not make the effects looks whether it is to.
const LOOK_IDLE: Duration = Duration::from_millis(500);

impl Delivery {
    /// Runs until it is stopped; tries under way then have [`limits::STOP_TIME_MAX`].
    pub(crate) async fn run(mut self) {
        let mut under_way = UnderWay::default();
        let mut stop = self.stop.clone();
        while let Some(versions) = self.versions.upgrade() {
            let mut catalog = versions.catalog.watch();
            catalog.mark_unchanged();
            self.progress.mark_unchanged();
            let is_its_turn = under_way.turn.has_come(&versions, &self.id);
            let look = async {
                if is_its_turn {
                    return self.look(&versions, &mut under_way).await;
                }
                // What was begun while it was this member's turn is not made by another one once that is recorded.
                self.settle_ended(&mut under_way).await?;
                Ok(LOOK_IDLE)
            };
            let rest = match look.await {
                Ok(rest) => rest,
                Err(error) => {
                    tracing::warn!(view = %self.id, %error, "effects cannot be made for the moment");
                    REST
                }
            };
            drop(versions);
            tokio::select! {
                biased;
                // An error means that whoever could stop this is gone, which is a stop.
                _ = stop.wait_for(|stop| *stop) => break,
                Some(done) = under_way.acts.next(), if !under_way.acts.is_empty() => under_way.settled.push(done),
                Ok(()) = self.progress.changed() => {}
                Ok(()) = catalog.changed() => {}
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
        if let Err(error) = self.view.settle_effects(&under_way.settled).await {
            tracing::warn!(view = %self.id, %error, "what effects came to is not recorded; they are made again");
        }
    }

    /// Records what has ended, begins what is due, and tells how long to rest unless something happens.
    async fn look(&self, versions: &Arc<Versions>, under_way: &mut UnderWay) -> Result<Duration, CatalogError> {
        // First, since what goes makes the next one of its stream due.
        self.settle_ended(under_way).await?;
        // Looked at before the catalog is: every flip through here is known then.
        let head = versions.head();
        versions.catalog.refresh().await?;
        let catalog = versions.catalog.current();
        let Some(projection) = catalog.projections.get(&self.id.projection) else { return Ok(REST) };
        let now = versions.world.clock.now();
        let (longest, most) =
            (self.carried.options.effects.retry_longest, limits::EFFECTS_READ_MAX + under_way.busy.len());
        self.heed(projection, under_way);
        // What waits for its next try is tried at once after a resumption.
        let through = if under_way.retried.is_some() { Timestamp::from_micros(i64::MAX) } else { now };
        let mut due = match versions.is_paused(&self.id) {
            true => vec![],
            false => self.view.effects_due(through, longest, most).await?,
        };
        let is_due = |it: &PendingEffect| it.due <= now || it.due > now.plus(longest);
        if let Some(retried) = &under_way.retried {
            due.retain(|it| is_due(it) || !retried.contains(&it.number));
            if due.iter().all(is_due) {
                under_way.retried = None;
            }
        }
        let (mut silent, mut before) = (0, None);
        for pending in due {
            let NewEffect { position, .. } = pending.effect;
            if under_way.busy.contains(&pending.number) || position > head {
                continue;
            }
            match projection.voice(position, self.carried.options.effects.past) {
                Voice::Of(version) if version == self.id.version || planted::is(Fault::EveryVoice) => {
                    let room = under_way.acts.len() < limits::EFFECTS_AT_ONCE_MAX;
                    let first = match room && !planted::is(Fault::AnyOrder) {
                        true => self.comes_before(versions, projection, &pending).await?,
                        false => None,
                    };
                    before = before.or(first);
                    if room && first.is_none() {
                        under_way.busy.insert(pending.number);
                        under_way.retried.iter_mut().for_each(|retried| retried.extend([pending.number]));
                        under_way.acts.push(self.act(versions, pending));
                    }
                }
                // Nobody knows yet.
                Voice::First => {}
                Voice::Of(_) | Voice::Nobody => {
                    under_way.settled.push((pending.number, Settled::Done));
                    silent += 1;
                }
            }
        }
        self.settle(under_way).await?;
        self.before.send_replace(before);
        let outbox = self.view.outbox(FAILING_TOLD).await?;
        let next_due = outbox.next_due.map(|due| due.since(now));
        // Somebody may have something tried that was set aside.
        let pending = outbox.pending + outbox.aside > 0;
        self.outbox.send_replace(outbox);
        Ok(match next_due {
            _ if silent > 0 => Duration::ZERO,
            Some(next) if next.is_zero() => LOOK,
            Some(next) => next.min(LOOK),
            None if pending => LOOK,
            None => limits::REQUEST_TIME_MAX,
        })
    }

    /// Records the tries that have ended by now.
    async fn settle_ended(&self, under_way: &mut UnderWay) -> Result<(), StoreError> {
        while let Some(Some(done)) = under_way.acts.next().now_or_never() {
            under_way.settled.push(done);
        }
        self.settle(under_way).await
    }

    /// Records what has ended. Until that has worked it is not tried again.
    async fn settle(&self, under_way: &mut UnderWay) -> Result<(), StoreError> {
        if !under_way.settled.is_empty() {
            self.view.settle_effects(&under_way.settled).await?;
            for (number, _) in under_way.settled.drain(..) {
                under_way.busy.remove(&number);
            }
        }
        Ok(())
    }

    /// Takes note of a resumption.
    fn heed(&self, projection: &ProjectionState, under_way: &mut UnderWay) {
        let resumed_at = projection.versions.get(&self.id.version).and_then(|state| state.resumed_at);
        if resumed_at > under_way.resumed_at {
            (under_way.resumed_at, under_way.retried) = (resumed_at, Some(HashSet::new()));
        }
    }

    /// The version, if there is one, that has yet to make an earlier effect of the same stream, as far as that is known
    /// or can come to be.
    async fn comes_before(
        &self,
        versions: &Versions,
        projection: &ProjectionState,
        pending: &PendingEffect,
    ) -> Result<Option<VersionId>, StoreError> {
        let others = projection.versions.iter().filter(|(version, _)| **version != self.id.version);
        for version in others.filter(|(_, state)| state.phase.has_view()).map(|(version, _)| *version) {
            let Some(other) = self.other(versions, projection, version, pending).await? else { continue };
            // First, since what it comes past meanwhile is in its outbox then.
            if self.is_on_its_way(versions, projection, &other, pending).await? {
                return Ok(Some(version));
            }
            if self.owes_earlier(projection, version, &other, pending).await? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Whether an effect of the same stream that comes before `pending` is in the outbox of another version, and that
    /// version's to make. What is silent there, and was not removed yet, may lie before it.
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

    /// Another version, whose effects may come first. One that is not open here may be so on other nodes, may be opened
    /// next or closed just now: what it owes is in its view all the same. Nothing that does not belong to the journal, or
    /// cannot be read as it is, is waited for.
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
            history::check(&*versions.journal, &*view).await?;
            Ok(Some(Other { id, view, open: None }))
        };
        match found.await {
            Err(StoreError::Parted(_) | StoreError::Corrupt { .. } | StoreError::Invalid(_)) => Ok(None),
            found => found,
        }
    }

    /// Whether another version that spoke before `pending` has yet to come past some of that in the segment of its
    /// stream, and gets on. One that halts there, is paused, stands still, or whose code is nowhere is not waited for: it
    /// might be for ever.
    async fn is_on_its_way(
        &self,
        versions: &Versions,
        projection: &ProjectionState,
        other: &Other,
        pending: &PendingEffect,
    ) -> Result<bool, StoreError> {
        let NewEffect { position, stream, .. } = &pending.effect;
        let Some(until) = projection.spoke_before(other.id.version, *position) else { return Ok(false) };
        let Some(state) = projection.versions.get(&other.id.version).filter(|state| state.phase.applies()) else {
            return Ok(false);
        };
        let segment = state.segments.segment_of(stream.as_str());
        let has_come = |tokens: &[Token]| tokens.iter().any(|token| token.segment == segment && token.shown() >= until);
        if other.open.as_ref().is_some_and(|open| has_come(&open.progress.borrow().tokens)) {
            return Ok(false);
        }
        // Another member may have taken it there.
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
        let halts = other.view.refusals().await?.iter().any(|refusal| refusal.segment == segment);
        let reached = other.open.as_ref().and_then(|open| open.reached(open.progress.borrow().covers()));
        let still = versions.trails.look(&other.id, &tokens, reached, versions.head()).still(versions.trails.now());
        Ok(!halts && still < limits::STALL_TIME_MAX)
    }

    /// One try.
    fn act(&self, versions: &Versions, pending: PendingEffect) -> Act {
        let PendingEffect { number, effect, attempts, .. } = pending;
        let aside = self.outbox.borrow().aside;
        let projection = self.id.projection.clone();
        let key = EffectKey { projection, position: effect.position, ordinal: effect.ordinal };
        let (act, options) = (self.carried.act_on(&effect.name), self.carried.options.effects);
        let (clock, view) = (Arc::clone(&versions.world.clock), self.id.clone());
        Box::pin(async move {
            let made = async {
                let act = act.ok_or_else(|| format!("this program has nothing that acts on {:?}", effect.name))?;
                act.act(&effect.payload, &key).await
            };
            let made = tokio::time::timeout(options.time_max, AssertUnwindSafe(made).catch_unwind()).await;
            let error = match made {
                Ok(Ok(Ok(()))) => return (number, Settled::Done),
                Ok(Ok(Err(error))) => chain(&*error),
                Ok(Err(panic)) => format!("it panicked: {}", panic_text(&*panic)),
                Err(_) => format!("it took longer than {} ms", options.time_max.as_millis()),
            };
            let attempts = attempts + 1;
            if options.on_failure.sets_aside(attempts, aside) {
                tracing::error!(%view, effect = %key, name = effect.name, attempts, error, "an effect is set aside");
                return (number, Settled::SetAside { error: shortened(error), at: clock.now() });
            }
            tracing::warn!(%view, effect = %key, name = effect.name, attempts, error, "an effect fails");
            let error = shortened(error);
            let due: Timestamp = clock.now().plus(options.back_off(attempts));
            (number, Settled::Failed { error, due })
        })
    }
}
