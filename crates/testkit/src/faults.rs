//! A store that goes wrong when a test says so.

mod call;
mod journal;
mod views;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dacapo::store::{Store, StoreError};
use dacapo_store::Health;
use tokio::sync::watch;

pub use call::{Call, Fault};

use journal::FaultyJournal;
use views::FaultyViews;

/// Decides which calls to a store go wrong, and how. Clones decide together.
///
/// [`over`](Self::over) wraps any store, in memory, embedded or on PostgreSQL. The wrapper passes every call on until a
/// test plans otherwise.
///
/// The leases of nodes ([`Store::members`]) never go wrong.
///
/// ```
/// # use dacapo::{Answers, Event, HandlerError, Projection, Query, ReadView, Recorded, Row, Table, View};
/// # #[derive(Event)]
/// # enum AccountEvent {
/// #     #[event(name = "deposited")]
/// #     Deposited { amount: i64 },
/// # }
/// # #[derive(Clone, Row)]
/// # #[row(table = "accounts")]
/// # struct Account {
/// #     #[row(key)]
/// #     id: String,
/// #     balance: i64,
/// # }
/// # struct Balances;
/// # impl Projection for Balances {
/// #     const NAME: &'static str = "balances";
/// #     const VERSION: u32 = 1;
/// #     const TABLES: &'static [Table] = &[Account::TABLE];
/// #     type Event = AccountEvent;
/// #     async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
/// #         let AccountEvent::Deposited { amount } = event.data;
/// #         let none = || Account { id: event.stream.to_owned(), balance: 0 };
/// #         Ok(view.upsert(event.stream, none, |account: &mut Account| account.balance += amount).await?)
/// #     }
/// # }
/// # struct BalanceOf(&'static str);
/// # impl Query for BalanceOf {
/// #     const PROJECTION: &'static str = "balances";
/// #     type Answer = Option<i64>;
/// # }
/// # impl Answers<BalanceOf> for Balances {
/// #     async fn answer(&self, query: &BalanceOf, view: &mut ReadView) -> Result<Option<i64>, HandlerError> {
/// #         Ok(view.get::<Account>(query.0).await?.map(|account| account.balance))
/// #     }
/// # }
/// use std::sync::Arc;
///
/// use dacapo::store::Store;
/// use dacapo::world::SystemClock;
/// use dacapo::{ExpectedRevision, Node};
/// use dacapo_testkit::{Call, Fault, Faults, block_on};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// block_on(async {
///     let faults = Faults::default();
///     let store = faults.over(&Store::memory(Arc::new(SystemClock)));
///     let node = Node::builder().store(store).projection(Balances.answering::<BalanceOf>()).start().await?;
///
///     // The next three commits of rows land, but the node does not learn of it.
///     faults.next(3, Fault::LosesAnswer, |call| matches!(call, Call::Commit(_)));
///     let deposited = [AccountEvent::Deposited { amount: 5 }];
///     let appended = node.append("account-1", ExpectedRevision::Any, deposited).await?;
///     let answer = node.ask(BalanceOf("account-1")).after(appended.position).await?;
///     assert_eq!(answer.value, Some(5), "the deposit counts once");
/// #   node.shutdown().await;
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
    /// Told of each new plan.
    planned: watch::Sender<()>,
    /// The number of calls that the last plan made go wrong.
    count: watch::Sender<u64>,
    /// What the journal says of itself instead of what it is.
    health: Arc<Mutex<Option<Health>>>,
}

type Plan = Box<dyn FnMut(&Call<'_>) -> Option<Fault> + Send>;

impl Default for Faults {
    fn default() -> Self {
        let (planned, count) = (watch::Sender::new(()), watch::Sender::new(0));
        Self { plan: Arc::new(Mutex::new(Box::new(|_| None))), planned, count, health: Arc::default() }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Faults {
    /// Returns `store` with calls that go wrong as this decides.
    pub fn over(&self, store: &Store) -> Store {
        Store {
            journal: Arc::new(FaultyJournal { inner: Arc::clone(&store.journal), faults: self.clone() }),
            views: Arc::new(FaultyViews { inner: Arc::clone(&store.views), faults: self.clone() }),
            ..store.clone()
        }
    }

    /// Replaces the plan: from now on `plan` decides about each call before it is done, and about those that wait
    /// ([`Fault::Waits`]). The count begins at 0 again.
    ///
    /// One call after the other is decided, so a plan must neither block nor change itself. A plan that panics is a bug
    /// in the store, for those who want to test that.
    pub fn plan(&self, plan: impl FnMut(&Call<'_>) -> Option<Fault> + Send + 'static) {
        let mut current = self.current();
        *current = Box::new(plan);
        // Together with the plan: no call that the one before it picked is counted any more.
        self.count.send_replace(0);
        self.planned.send_replace(());
    }

    /// Plans that each call that `which` picks goes wrong, until another plan or [`heal`](Self::heal).
    pub fn always(&self, fault: Fault, mut which: impl FnMut(&Call<'_>) -> bool + Send + 'static) {
        self.plan(move |call| which(call).then_some(fault));
    }

    /// Plans that the first `times` calls that `which` picks go wrong.
    pub fn next(&self, times: u64, fault: Fault, mut which: impl FnMut(&Call<'_>) -> bool + Send + 'static) {
        let mut left = times;
        self.plan(move |call| {
            let meets = left > 0 && which(call);
            left -= u64::from(meets);
            meets.then_some(fault)
        });
    }

    /// Ends all faults: calls that wait are done, and the journal reports its own health. The count stays.
    pub fn heal(&self) {
        self.report_health(None);
        *self.current() = Box::new(|_| None);
        self.planned.send_replace(());
    }

    /// Returns the number of calls that the last plan made go wrong.
    pub fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Waits until the last plan has made a call go wrong.
    pub async fn met(&self) {
        let mut count = self.count.subscribe();
        // The sender is here, so this ends with a call.
        let _ = count.wait_for(|count| *count > 0).await;
    }

    /// Lets the journal report this as its health, or its own for `None`.
    pub fn report_health(&self, health: impl Into<Option<Health>>) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health.into();
    }

    /// The plan. One that has panicked is as good as any: the next call asks it again.
    fn current(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong with a call that cannot wait.
    fn of(&self, call: &Call<'_>) -> Option<Fault> {
        let mut plan = self.current();
        let fault = plan(call);
        if fault.is_some() {
            self.count.send_modify(|count| *count += 1);
        }
        fault
    }

    /// What goes wrong with a call, once no plan lets it wait any more.
    async fn of_in_time(&self, call: &Call<'_>) -> Option<Fault> {
        let mut planned = self.planned.subscribe();
        loop {
            match self.of(call) {
                // The sender is here.
                Some(Fault::Waits) => drop(planned.changed().await),
                fault => return fault,
            }
        }
    }

    /// Does a call as the plan says.
    async fn meet<T, E: From<StoreError>>(
        &self,
        call: Call<'_>,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let fault = self.of_in_time(&call).await;
        act_with(fault, &call, act).await
    }
}

/// Does a call with what goes wrong with it.
async fn act_with<T, E: From<StoreError>>(
    fault: Option<Fault>,
    call: &Call<'_>,
    act: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let unavailable = || StoreError::unavailable(call.tried(), REASON);
    match fault {
        None | Some(Fault::Stale | Fault::Waits) => act.await,
        Some(Fault::Fails) => Err(unavailable().into()),
        Some(Fault::LosesAnswer) => act.await.and_then(|_| Err(unavailable().into())),
        Some(Fault::Damaged) => Err(StoreError::corrupt(call.place(), REASON).into()),
    }
}

/// The reason in every error that is planned.
const REASON: &str = "a fault of the test";
