//! The cluster as this node sees it: its own lease, the other live members, and the time that all of them share.
//!
//! There are two clocks. [`SharedClock`] tells the time to people and in records, and may be set at any moment.
//! [`SteadyClock`] decides whether a time has passed, and is never set while the process runs.
//!
//! A separate task renews the lease, never one that runs handlers. The assignment of segments follows from the live
//! members (`dacapo_model::assign`), and each processor carries it out for itself. Nothing is decided here. A node
//! whose lease has ended continues until it is fenced (I-4), which costs nothing but its own time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use dacapo_model::{Member, MemberCode, MemberId, ProjectionName, Timestamp, ViewId, assign};
use dacapo_store::{Clock, Members, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits;

/// The clock that the nodes of a cluster share: the store's clock as of the last renewal of the lease, and the time that
/// has passed since. If the store has no clock, it is the node's own one.
pub(crate) struct SharedClock {
    own: Arc<dyn Clock>,
    /// The last time of the store, and the point at which it was that time.
    store: Mutex<Option<(Timestamp, std::time::Instant)>>,
}

impl SharedClock {
    pub(crate) fn new(own: Arc<dyn Clock>) -> Self {
        Self { own, store: Mutex::default() }
    }

    /// Sets it by the time of the store, which was read between two points of the own clock.
    fn set(&self, asked: std::time::Instant, store: Timestamp, answered: std::time::Instant) {
        let between = asked + answered.saturating_duration_since(asked) / 2;
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some((store, between));
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        match *self.store.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((time, at)) => time.plus(self.own.steady().saturating_duration_since(at)),
            None => self.own.now(),
        }
    }

    fn steady(&self) -> std::time::Instant {
        self.own.steady()
    }
}

/// The clock by which a node decides that a time has passed. It begins with the time of another clock and then only
/// counts on, however that clock is set. It may therefore differ from the times of events.
pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    first: (Timestamp, std::time::Instant),
}

impl SteadyClock {
    /// Returns a clock that begins with the present time of `clock`.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let first = (clock.now(), clock.steady());
        Self { clock, first }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let (time, at) = self.first;
        time.plus(self.steady().saturating_duration_since(at))
    }

    fn steady(&self) -> std::time::Instant {
        self.clock.steady()
    }
}

pub(crate) struct Cluster {
    members: Arc<dyn Members>,
    clock: Arc<SharedClock>,
    lease: Duration,
    /// True if other processes may use the store at the same time.
    shared: bool,
    /// The facts about this node that the other members get.
    me: watch::Sender<Member>,
    /// Every member that has a lease, as of the last renewal. Empty once this node's own lease has ended.
    live: watch::Sender<Vec<Member>>,
    /// The time at which this node's own lease ends, or has ended. It is never later than by the store's clock.
    leased_until: watch::Sender<Instant>,
    /// The reason why this node's own lease could not be renewed before it ended; `None` while it has one.
    lost: Mutex<Option<String>>,
}

/// The task that keeps the lease.
pub(crate) struct Keeper {
    cluster: Arc<Cluster>,
    me: watch::Receiver<Member>,
    leave: watch::Receiver<bool>,
}

impl Cluster {
    pub(crate) fn new(members: Arc<dyn Members>, clock: Arc<SharedClock>, shared: bool, me: Member) -> Self {
        let live = watch::Sender::default();
        let (me, leased_until) = (watch::Sender::new(me), watch::Sender::new(Instant::now()));
        Self { members, clock, lease: limits::LEASE_TIME, shared, me, live, leased_until, lost: Mutex::default() }
    }

    /// Returns the id of this node as a member.
    pub(crate) fn me(&self) -> MemberId {
        self.me.borrow().id
    }

    /// Returns the name of this node for people.
    pub(crate) fn name(&self) -> String {
        self.me.borrow().name.clone()
    }

    /// Returns the live members, as a watch.
    pub(crate) fn live(&self) -> watch::Receiver<Vec<Member>> {
        self.live.subscribe()
    }

    /// Returns true if other processes may use the store at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Returns the reason why this node has no lease, if it has none.
    pub(crate) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if no other member is alive.
    pub(crate) fn is_alone(&self) -> bool {
        let me = self.me();
        self.live.borrow().iter().all(|member| member.id == me)
    }

    /// Returns true if others may rely on this node to be alive: it has a lease, or no other node can exist.
    pub(crate) fn has_lease(&self) -> bool {
        !self.shared || Instant::now() < *self.leased_until.borrow()
    }

    /// Ends once this node has no lease. It reads the clock each time it is polled, since a timer may be late after a
    /// pause of the process.
    pub(crate) fn lease_ends(&self) -> impl Future<Output = ()> + Send + use<> {
        let (shared, mut leased_until) = (self.shared, self.leased_until.subscribe());
        let lease = leased_until.clone();
        let mut timer = Box::pin(async move {
            loop {
                let until = *leased_until.borrow_and_update();
                tokio::select! {
                    biased;
                    // An error means that the node is gone, and its lease was given back.
                    renewed = leased_until.changed() => if renewed.is_err() { return },
                    () = tokio::time::sleep_until(until), if shared => return,
                }
            }
        });
        std::future::poll_fn(move |context| match shared && Instant::now() >= *lease.borrow() {
            true => Poll::Ready(()),
            false => timer.as_mut().poll(context),
        })
    }

    /// Returns true if a member is alive now.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub(crate) async fn lives(&self, id: MemberId) -> Result<bool, StoreError> {
        Ok(self.members.live().await?.iter().any(|member| member.id == id))
    }

    /// Returns true if this node drives the version.
    pub(crate) fn drives(&self, view: &ViewId) -> bool {
        assign::driver(view, &self.live.borrow()) == Some(self.me())
    }

    /// Returns true if a live member can get segments of the version.
    pub(crate) fn has_capable(&self, view: &ViewId) -> bool {
        self.live.borrow().iter().any(|member| member.is_capable(view))
    }

    /// Returns true if a live member can get segments of the version now, or once it is ready.
    pub(crate) fn has_code_of(&self, view: &ViewId) -> bool {
        self.live.borrow().iter().any(|member| member.has_code_of(view))
    }

    /// Returns the code of a version in the form that a live member carries.
    pub(crate) fn code_of(&self, view: &ViewId) -> Option<MemberCode> {
        self.live.borrow().iter().find_map(|member| member.code_of(view).cloned())
    }

    /// Returns the numbers of a projection's code that live members carry.
    pub(crate) fn code_of_projection(&self, projection: &ProjectionName) -> BTreeSet<u32> {
        let live = self.live.borrow();
        let all = live.iter().flat_map(|member| &member.carries).map(|carried| &carried.id);
        all.filter(|id| id.projection == *projection).map(|id| id.code).collect()
    }

    /// Reports to the other members the code for which this node may get work.
    pub(crate) fn carries(&self, carries: Vec<MemberCode>) {
        self.me.send_if_modified(|me| {
            let changed = me.carries != carries;
            me.carries = carries;
            changed
        });
    }

    /// Reports to the other members whether this node may get work.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.me.send_if_modified(|me| std::mem::replace(&mut me.ready, ready) != ready);
    }

    /// Takes the first lease.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub(crate) async fn join(self: &Arc<Self>, leave: watch::Receiver<bool>) -> Result<Keeper, StoreError> {
        let mut me = self.me.subscribe();
        me.mark_unchanged();
        self.renew().await?;
        Ok(Keeper { cluster: Arc::clone(self), me, leave })
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let me = self.me.borrow().clone();
        let (asked, began) = (self.clock.steady(), Instant::now());
        if let Some(store) = self.members.now().await? {
            self.clock.set(asked, store, self.clock.steady());
        }
        let live = self.members.renew(&me, self.lease).await?;
        self.leased_until.send_replace(began + self.lease);
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.see(live);
        Ok(())
    }

    /// Reads the live members now. A member that is not known may have joined since the last renewal.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let (live, me) = (self.members.live().await?, self.me());
        // A node without a lease takes nothing.
        self.see(if live.iter().any(|member| member.id == me) { live } else { vec![] });
        Ok(())
    }

    fn see(&self, live: Vec<Member>) {
        self.live.send_if_modified(|known| {
            let changed = *known != live;
            *known = live;
            changed
        });
    }
}

impl Keeper {
    /// Renews the lease until the node leaves or is dropped, and then gives it back.
    pub(crate) async fn run(mut self) {
        let cluster = &self.cluster;
        let (every, mut renewed) = (cluster.lease / limits::LEASE_RENEWALS, Instant::now());
        loop {
            tokio::select! {
                biased;
                _ = self.leave.wait_for(|leave| *leave) => break,
                changed = self.me.changed() => drop(changed),
                () = tokio::time::sleep(every) => {}
            }
            let began = Instant::now();
            let error = match tokio::time::timeout(cluster.lease, cluster.renew()).await {
                Ok(Ok(())) => {
                    renewed = began;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("the store did not answer within {} ms", cluster.lease.as_millis()),
            };
            tracing::warn!(error, "the lease of this node is not renewed");
            if renewed.elapsed() >= cluster.lease {
                *cluster.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                cluster.live.send_if_modified(|live| !std::mem::take(live).is_empty());
            }
        }
        if let Err(error) = cluster.members.leave(cluster.me()).await {
            tracing::warn!(%error, "the lease of this node is not given back; it ends by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use dacapo_store::{Store, SystemClock};
    use futures::FutureExt;

    use super::*;

    /// A clock that was set by so many microseconds.
    #[derive(Default)]
    struct Set(AtomicI64);

    impl Clock for Set {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(SystemClock.now().micros() + self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_clock_that_is_set_moves_neither_the_shared_time_of_a_store_nor_decisions() {
        let (own, hour) = (Arc::new(Set::default()), Duration::from_secs(3_600));
        let (shared, alone) = (SharedClock::new(Arc::clone(&own) as _), SharedClock::new(Arc::clone(&own) as _));
        let (shared, alone) = (Arc::new(shared), Arc::new(alone));
        let store = Timestamp::from_micros(7_000_000);
        shared.set(own.steady(), store, own.steady());
        let steady = [&shared, &alone].map(|clock| SteadyClock::new(Arc::clone(clock) as _));
        let before = steady.each_ref().map(Clock::now);
        for by in [2 * 86_400_000_000, -2 * 86_400_000_000_i64] {
            own.0.store(by, Ordering::Relaxed);
            assert!(shared.now() >= store && shared.now().since(store) < hour, "by {by}");
            for (clock, before) in steady.iter().zip(before) {
                assert!(clock.now() >= before && clock.now().since(before) < hour, "by {by}");
            }
        }
        // Times for people follow the clock where the store has none, and the store's clock where it has one.
        assert!(before[1].since(alone.now()) > hour);
        shared.set(own.steady(), store.plus(2 * hour), own.steady());
        assert!(shared.now() >= store.plus(2 * hour) && steady[0].now().since(before[0]) < hour);
    }

    // I-9
    /// Nothing runs the timers between the end of a pause and the next look.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a process that is paused runs nothing at all")]
    async fn a_lease_that_ended_in_a_pause_has_ended_at_the_next_look() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::memory(Arc::clone(&clock));
        let id = MemberId::from_bytes([1; 16]);
        let me = Member { id, name: String::new(), address: None, carries: vec![], ready: false };
        let cluster = Cluster::new(store.members, Arc::new(SharedClock::new(clock)), true, me);
        let cluster = Cluster { lease: Duration::from_millis(200), ..cluster };
        cluster.renew().await.unwrap();
        let mut ends = Box::pin(cluster.lease_ends());
        assert!(ends.as_mut().now_or_never().is_none(), "it has a lease");
        std::thread::sleep(cluster.lease);
        assert!(ends.as_mut().now_or_never().is_some());
    }
}
