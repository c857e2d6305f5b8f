//! The bank of the demo: accounts into which money is paid and from which it is drawn, and two versions of a view of
//! their balances. It is the demo's own: `examples/bank` shows how a service is written.

use dacapo::verify::{Assertion, Comparison, TableComparison};
use dacapo::{Answers, Event, HandlerError, Options, Projection, Query, ReadView, Recorded, Row, Table, View};

/// What happens to an account. Its stream is `account-<number>`.
#[derive(Clone, Debug, PartialEq, Eq, Event)]
pub(super) enum AccountEvent {
    /// The first event of every account.
    #[event(name = "account-opened")]
    Opened {
        /// Whose account it is.
        owner: String,
    },
    /// Money came in.
    #[event(name = "deposited")]
    Deposited {
        /// How much, in cents.
        amount: i64,
        /// What the payer wrote.
        #[serde(default)]
        note: String,
    },
    /// Money went out.
    #[event(name = "withdrawn")]
    Withdrawn {
        /// How much, in cents.
        amount: i64,
        /// What the payee reads.
        #[serde(default)]
        note: String,
    },
}

/// The balance of an account, for every version of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BalanceOf {
    /// The stream of the account.
    pub(super) account: String,
}

/// What is known about an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// In cents.
    pub(super) balance: i64,
    /// The number of events that the account has.
    pub(super) entries: i64,
}

impl Query for BalanceOf {
    const PROJECTION: &'static str = "balances";
    type Answer = Option<Balance>;
}

/// A row of version 1.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "accounts")]
pub(super) struct Account {
    /// The stream of the account.
    #[row(key)]
    pub(super) account: String,
    /// In cents.
    pub(super) balance: i64,
    /// The number of events that it has.
    pub(super) entries: i64,
}

/// Version 1: the balance of each account.
#[derive(Clone, Debug, Default)]
pub(super) struct BalancesV1 {
    /// How it is built and run.
    pub(super) options: Options,
}

impl Projection for BalancesV1 {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Account::TABLE];
    type Event = AccountEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
        let change = match &event.data {
            AccountEvent::Opened { .. } => 0,
            AccountEvent::Deposited { amount, .. } => *amount,
            AccountEvent::Withdrawn { amount, .. } => -amount,
        };
        let empty = || Account { account: event.stream.to_owned(), balance: 0, entries: 0 };
        let add = |account: &mut Account| {
            account.balance += change;
            account.entries += 1;
        };
        view.upsert(event.stream, empty, add).await?;
        Ok(())
    }
}

impl Answers<BalanceOf> for BalancesV1 {
    async fn answer(&self, query: &BalanceOf, view: &mut ReadView) -> Result<Option<Balance>, HandlerError> {
        let account = view.get::<Account>(query.account.as_str()).await?;
        Ok(account.map(|account| Balance { balance: account.balance, entries: account.entries }))
    }
}

/// A row of version 2: it knows the owner, tells money in from money out, and can be searched by owner.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "accounts")]
pub(super) struct AccountOfOwner {
    /// The stream of the account.
    #[row(key)]
    pub(super) account: String,
    /// Whose account it is.
    #[row(index)]
    pub(super) owner: String,
    /// All that came in, in cents.
    pub(super) deposited: i64,
    /// All that went out, in cents.
    pub(super) withdrawn: i64,
    /// The number of events that it has.
    pub(super) entries: i64,
}

/// Version 2: the accounts of each owner, with what came in and what went out.
#[derive(Clone, Debug, Default)]
pub(super) struct BalancesV2 {
    /// How it is built and run.
    pub(super) options: Options,
}

impl Projection for BalancesV2 {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 2;
    const TABLES: &'static [Table] = &[AccountOfOwner::TABLE];
    const ASSERTIONS: &'static [Assertion] = &[Assertion {
        name: "sums are of amounts, which are not below zero",
        sql: "SELECT account, deposited, withdrawn FROM accounts WHERE deposited < 0 OR withdrawn < 0",
    }];
    type Event = AccountEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
        let empty = || AccountOfOwner {
            account: event.stream.to_owned(),
            owner: String::new(),
            deposited: 0,
            withdrawn: 0,
            entries: 0,
        };
        let add = |account: &mut AccountOfOwner| {
            account.entries += 1;
            match &event.data {
                AccountEvent::Opened { owner } => account.owner.clone_from(owner),
                AccountEvent::Deposited { amount, .. } => account.deposited += amount,
                AccountEvent::Withdrawn { amount, .. } => account.withdrawn += amount,
            }
        };
        view.upsert(event.stream, empty, add).await?;
        Ok(())
    }

    /// Version 1 has one balance where this one has what came in and what went out: by columns only the entries
    /// could be compared.
    fn comparison(&self, _: u32) -> Comparison {
        Comparison::new().table(TableComparison::of("accounts").by(
            |old: Account| Balance { balance: old.balance, entries: old.entries },
            |new: AccountOfOwner| Balance { balance: new.deposited - new.withdrawn, entries: new.entries },
        ))
    }
}

impl Answers<BalanceOf> for BalancesV2 {
    async fn answer(&self, query: &BalanceOf, view: &mut ReadView) -> Result<Option<Balance>, HandlerError> {
        let account = view.get::<AccountOfOwner>(query.account.as_str()).await?;
        Ok(account.map(|account| Balance { balance: account.deposited - account.withdrawn, entries: account.entries }))
    }
}
