//! Live traffic: clients that append and read without a pause and keep their own books.

use std::collections::HashMap;
use std::sync::Arc;

use super::bank::{Balance, BalanceOf};
use dacapo::journal::Revision;
use dacapo::{Answered, ExpectedRevision, Node, Position};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::books::{Books, Page};
use super::fill::{deposit, withdrawal};

/// The observations of clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Appends and reads.
    pub(super) requests: u64,
    /// Those that were not answered as they should be.
    pub(super) failed: u64,
    /// Events of their own that an answer lacked although it covers them.
    pub(super) lost: u64,
    /// Events that an answer counted more than once.
    pub(super) applied_twice: u64,
    /// Answers that were older than an earlier one to the same client.
    pub(super) time_travel: u64,
    /// The error of the first failed request.
    pub(super) first_failure: Option<String>,
    /// The time that appends took, in microseconds.
    pub(super) append_times: Vec<u32>,
    /// The time that reads took, in microseconds.
    pub(super) read_times: Vec<u32>,
}

/// Clients at work.
pub(super) struct Traffic {
    stop: watch::Sender<bool>,
    clients: JoinSet<(Books, Counted)>,
}

impl Traffic {
    pub(super) fn start(node: &Node, books: Vec<Books>, clients: u16) -> Self {
        let all: Arc<Vec<String>> =
            Arc::new(books.iter().flat_map(|books| books.pages.iter().map(|page| page.account.clone())).collect());
        let (stop, stopped) = watch::channel(false);
        let mut set = JoinSet::new();
        for (number, books) in books.into_iter().enumerate() {
            debug_assert!(number < usize::from(clients));
            let client = Client {
                node: node.clone(),
                books,
                all: Arc::clone(&all),
                random: fastrand::Rng::with_seed(number as u64),
                counted: Counted::default(),
                covers: Position::START,
                shown: HashMap::new(),
            };
            set.spawn(client.run(stopped.clone()));
        }
        Self { stop, clients: set }
    }

    /// Lets every client finish its request, and returns their books and what they saw.
    pub(super) async fn stop(self) -> (Vec<Books>, Counted) {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        let mut sum = Counted::default();
        for (books, counted) in self.clients.join_all().await {
            all.push(books);
            sum.requests += counted.requests;
            sum.failed += counted.failed;
            sum.lost += counted.lost;
            sum.applied_twice += counted.applied_twice;
            sum.time_travel += counted.time_travel;
            sum.first_failure = sum.first_failure.or(counted.first_failure);
            sum.append_times.extend(counted.append_times);
            sum.read_times.extend(counted.read_times);
        }
        (all, sum)
    }
}

struct Client {
    node: Node,
    books: Books,
    all: Arc<Vec<String>>,
    random: fastrand::Rng,
    counted: Counted,
    /// The most that any answer to this client covered: no later one may cover less (I-7).
    covers: Position,
    /// The number of entries that this client was shown of accounts that are not its own.
    shown: HashMap<usize, i64>,
}

impl Client {
    async fn run(mut self, stopped: watch::Receiver<bool>) -> (Books, Counted) {
        while !*stopped.borrow() {
            let at = self.random.usize(..self.books.pages.len());
            if let Some(position) = self.append(at).await {
                self.read_own(at, position).await;
            }
            self.read_other().await;
        }
        (self.books, self.counted)
    }

    /// Pays in or draws, and writes it into the books once it is acknowledged.
    async fn append(&mut self, at: usize) -> Option<Position> {
        let amount = self.random.i64(1..100_000);
        let page = &mut self.books.pages[at];
        let (event, change) = match self.random.bool() {
            true => (deposit(amount), amount),
            false => (withdrawal(amount), -amount),
        };
        let expected = ExpectedRevision::Exact(Revision::new(page.entries));
        let started = Instant::now();
        let appended = self.node.append(&page.account, expected, [event]).await;
        self.counted.append_times.push(micros(started));
        self.counted.requests += 1;
        match appended {
            Ok(appended) => {
                page.entries += 1;
                page.balance += change;
                Some(appended.position)
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// Reads an account of its own after what it appended: the answer must be what the books say.
    async fn read_own(&mut self, at: usize, position: Position) {
        let Some(answered) = self.ask(self.books.pages[at].account.clone(), position).await else { return };
        let Page { entries, balance, .. } = self.books.pages[at];
        let shown = answered.value.unwrap_or_default();
        if answered.covers < position {
            self.counted.time_travel += 1;
        }
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        self.counted.lost += (entries - shown.entries).max(0).unsigned_abs();
        self.counted.applied_twice += (shown.entries - entries).max(0).unsigned_abs();
        if shown.entries == entries && shown.balance != balance {
            // As many events, but not the same ones.
            self.counted.lost += 1;
        }
    }

    /// Reads somebody else's account without naming a position: it must not be older than before.
    async fn read_other(&mut self) {
        let at = self.random.usize(..self.all.len());
        let Some(answered) = self.ask(self.all[at].clone(), Position::START).await else { return };
        let entries = answered.value.unwrap_or_default().entries;
        let before = self.shown.insert(at, entries).unwrap_or_default();
        if entries < before {
            self.counted.time_travel += 1;
        }
    }

    async fn ask(&mut self, account: String, after: Position) -> Option<Answered<Option<Balance>>> {
        let started = Instant::now();
        let answered = self.node.ask(BalanceOf { account }).after(after).await;
        self.counted.read_times.push(micros(started));
        self.counted.requests += 1;
        match answered {
            Ok(answered) => {
                if answered.covers < self.covers {
                    self.counted.time_travel += 1;
                }
                self.covers = self.covers.max(answered.covers);
                Some(answered)
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    fn fail(&mut self, error: &dacapo::Error) {
        self.counted.failed += 1;
        self.counted.first_failure.get_or_insert_with(|| error.to_string());
    }
}

fn micros(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX)
}
