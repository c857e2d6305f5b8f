//! Fills the bank: opens every account, then pays in and draws at random.

use super::bank::AccountEvent;
use crate::limits;
use dacapo::journal::{Append, OnKnown, StreamEvent, StreamName};
use dacapo::{Error, Metadata, Node};
use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;

use super::books::{Books, Page};

/// Returns a deposit that brings an event's payload to about 200 bytes, as real ones have.
pub(super) fn deposit(amount: i64) -> AccountEvent {
    AccountEvent::Deposited { amount, note: note(amount) }
}

/// Returns a withdrawal of the same size.
pub(super) fn withdrawal(amount: i64) -> AccountEvent {
    AccountEvent::Withdrawn { amount, note: note(amount) }
}

fn note(amount: i64) -> String {
    format!("standing order no. {amount:012}, monthly, reference 7F3A-{amount:08X}; {}", "as agreed ".repeat(10))
}

/// Appends `events` events over `accounts` accounts, and returns the books of them all.
pub(super) async fn fill(node: &Node, events: u64, accounts: u64, bar: &ProgressBar) -> Result<Books, Error> {
    let mut random = fastrand::Rng::with_seed(17);
    let mut books = Books::default();
    for number in 1..=accounts {
        books.pages.push(Page { account: format!("account-{number}"), balance: 0, entries: 1 });
    }
    // Accounts are opened before anything is paid in: two passes, each in any order.
    let opened = books.pages.iter().enumerate().map(|(number, page)| {
        let owner = format!("owner {}", number % 1_000);
        (page.account.clone(), AccountEvent::Opened { owner })
    });
    append_all(node, opened.collect::<Vec<_>>().into_iter(), bar).await?;
    let moved = (accounts..events).map(|_| {
        let amount = random.i64(1..100_000);
        let at = random.usize(..books.pages.len());
        let page = &mut books.pages[at];
        page.entries += 1;
        if page.entries.is_multiple_of(3) {
            page.balance -= amount;
            (page.account.clone(), withdrawal(amount))
        } else {
            page.balance += amount;
            (page.account.clone(), deposit(amount))
        }
    });
    append_all(node, moved, bar).await?;
    Ok(books)
}

async fn append_all(
    node: &Node,
    mut events: impl Iterator<Item = (String, AccountEvent)>,
    bar: &ProgressBar,
) -> Result<(), Error> {
    let batches = std::iter::from_fn(|| {
        let batch: Vec<_> = events.by_ref().take(limits::DEMO_BATCH_EVENTS).collect();
        (!batch.is_empty()).then_some(batch)
    });
    let appends = futures::stream::iter(batches).map(|batch| append(node, batch));
    appends
        .buffered(limits::DEMO_APPENDS_MAX)
        .try_for_each(|appended| {
            bar.inc(appended);
            std::future::ready(Ok(()))
        })
        .await
}

async fn append(node: &Node, batch: Vec<(String, AccountEvent)>) -> Result<u64, Error> {
    let count = batch.len() as u64;
    let mut events = Vec::with_capacity(batch.len());
    for (account, event) in batch {
        let stream = StreamName::new(account)?;
        events.push(StreamEvent { stream, event: node.new_event(&event, Metadata::default())? });
    }
    node.append_batch(Append { events, expected: vec![], on_known: OnKnown::Recognise }).await?;
    Ok(count)
}
