//! Given, when, then: tests of projections, in milliseconds and without files.
//!
//! A [`Case`] starts a real node on the store in memory, appends the events that a test gives it, and hands back the
//! rows, the effects and the answers that came of them. The processor, the row cache, the outbox and the delivery of
//! effects are those that run in production, so a row or an effect is here what it is there. The clock stands still
//! unless a test sets it, and ids are counted, so that each run does the same.
//!
//! ```
//! # use dacapo::{Answers, Event, HandlerError, Projection, Query, ReadView, Recorded, Row, Table, View};
//! # use dacapo::effects::Effect;
//! # use serde::{Deserialize, Serialize};
//! use dacapo_testkit::{Case, block_on};
//!
//! # #[derive(Clone, Debug, Event)]
//! # enum AccountEvent {
//! #     #[event(name = "deposited")]
//! #     Deposited { amount: i64 },
//! #     #[event(name = "withdrawn")]
//! #     Withdrawn { amount: i64 },
//! # }
//! # use AccountEvent::{Deposited, Withdrawn};
//! # #[derive(Clone, Debug, Row)]
//! # #[row(table = "accounts")]
//! # struct Account {
//! #     #[row(key)]
//! #     id: String,
//! #     balance: i64,
//! # }
//! # #[derive(Serialize, Deserialize)]
//! # struct Overdrawn { account: String }
//! # impl Effect for Overdrawn { const NAME: &'static str = "overdrawn"; }
//! # struct Balances;
//! # impl Projection for Balances {
//! #     const NAME: &'static str = "balances";
//! #     const VERSION: u32 = 1;
//! #     const TABLES: &'static [Table] = &[Account::TABLE];
//! #     type Event = AccountEvent;
//! #     async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
//! #         let change = match event.data { Deposited { amount } => amount, Withdrawn { amount } => -amount };
//! #         let before = view.get::<Account>(event.stream).await?.map_or(0, |account| account.balance);
//! #         if before >= 0 && before + change < 0 {
//! #             view.emit(&Overdrawn { account: event.stream.to_owned() })?;
//! #         }
//! #         view.put(Account { id: event.stream.to_owned(), balance: before + change })?;
//! #         Ok(())
//! #     }
//! # }
//! # struct BalanceOf(&'static str);
//! # impl Query for BalanceOf {
//! #     const PROJECTION: &'static str = "balances";
//! #     type Answer = Option<i64>;
//! # }
//! # impl Answers<BalanceOf> for Balances {
//! #     async fn answer(&self, query: &BalanceOf, view: &mut ReadView) -> Result<Option<i64>, HandlerError> {
//! #         Ok(view.get::<Account>(query.0).await?.map(|account| account.balance))
//! #     }
//! # }
//! block_on(async {
//!     let then = Case::of(Balances)
//!         .answering::<BalanceOf>()
//!         .effects::<Overdrawn>()
//!         .given("account-1", [Deposited { amount: 50 }])
//!         .when("account-1", [Withdrawn { amount: 58 }])
//!         .run()
//!         .await;
//!     then.rows([Account { id: "account-1".into(), balance: -8 }]).await;
//!     then.answer(BalanceOf("account-1"), Some(-8)).await;
//!     then.effects([Overdrawn { account: "account-1".into() }]);
//! });
//! ```
//!
//! [`Faults`] makes a store fail, lose answers or wait when a test says so.
//!
//! What the kit checks, it checks with a panic that shows what differs. It is for tests and has no place in a service.

#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing-projections.md")]
struct TestingProjections;

mod case;
mod clock;
mod diff;
mod faults;
mod limits;
mod outcome;
mod watched;

pub use case::Case;
pub use clock::ManualClock;
pub use faults::{Call, Fault, Faults};
pub use outcome::Outcome;

/// Runs an async test in a plain `#[test]`, on this thread.
///
/// # Panics
/// If it is called inside a runtime.
#[expect(clippy::expect_used, reason = "it is for tests")]
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime on this thread starts").block_on(test)
}
