//! Balances that two releases of a program make, which do not read the same events.

use std::marker::PhantomData;

use dacapo::options::SegmentCount;
use dacapo::{
    Event, ExpectedRevision, HandlerError, Node, Options, Position, Projection, ProjectionName, Recorded, Row, Table,
    View,
};

/// What the first release knows.
#[derive(Debug, Event)]
pub enum Old {
    Deposited { amount: i64 },
}

/// What the second one knows: another event, and another form of the one there was.
#[derive(Debug, Event)]
pub enum New {
    #[event(name = "deposited-v2", upcast(from = "deposited", with = in_cents))]
    Deposited {
        cents: i64,
    },
    Withdrawn {
        amount: i64,
    },
}

#[derive(serde::Deserialize)]
pub struct Whole {
    amount: i64,
}

fn in_cents(old: Whole) -> New {
    New::Deposited { cents: old.amount * 100 }
}

/// What an event does to a balance.
pub trait Money: Event {
    fn change(&self) -> i64;
}

impl Money for Old {
    fn change(&self) -> i64 {
        let Self::Deposited { amount } = self;
        *amount
    }
}

impl Money for New {
    fn change(&self) -> i64 {
        match self {
            Self::Deposited { cents } => *cents / 100,
            Self::Withdrawn { amount } => -*amount,
        }
    }
}

#[derive(Clone, Debug, Row)]
#[row(table = "balances")]
pub struct Balance {
    #[row(key)]
    pub account: String,
    pub balance: i64,
}

/// Code number `VERSION` that reads `E`.
pub struct Balances<E, const VERSION: u32 = 1> {
    pub options: Options,
    reads: PhantomData<fn(E)>,
}

impl<E, const VERSION: u32> Default for Balances<E, VERSION> {
    fn default() -> Self {
        Self::with(Options { segments: SegmentCount::new(4).unwrap(), ..Options::default() })
    }
}

impl<E, const VERSION: u32> Balances<E, VERSION> {
    pub fn with(options: Options) -> Self {
        Self { options, reads: PhantomData }
    }
}

impl<E: Money, const VERSION: u32> Projection for Balances<E, VERSION> {
    const NAME: &'static str = "balances";
    const VERSION: u32 = VERSION;
    const TABLES: &'static [Table] = &[Balance::TABLE];
    type Event = E;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, E>, view: &mut View) -> Result<(), HandlerError> {
        let none = || Balance { account: event.stream.to_owned(), balance: 0 };
        Ok(view.upsert(event.stream, none, |row| row.balance += event.data.change()).await?)
    }
}

pub async fn put(node: &Node, account: &str, event: impl Event) -> Position {
    node.append(account, ExpectedRevision::Any, [event]).await.unwrap().position
}

pub async fn balance(node: &Node, account: &str, after: Position) -> i64 {
    let mut reading = node.read(balances().as_str(), after).await.unwrap();
    reading.view.get::<Balance>(account).await.unwrap().map_or(0, |row| row.balance)
}

pub fn balances() -> ProjectionName {
    ProjectionName::new("balances").unwrap()
}
