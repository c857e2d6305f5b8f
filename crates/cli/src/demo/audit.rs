//! The audit: every balance in the view against a plain fold of the journal, and the journal against
//! the clients' books. It uses none of the machinery that it checks but reading.

use std::collections::HashMap;

use super::bank::{AccountEvent, AccountOfOwner};
use dacapo::journal::{Filter, Limit};
use dacapo::{Error, Event, Node, Position};
use indicatif::ProgressBar;

use super::books::Books;

/// The findings of the audit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) events: u64,
    pub(super) accounts: u64,
    pub(super) lost: u64,
    pub(super) applied_twice: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    balance: i64,
    entries: i64,
}

pub(super) async fn audit(node: &Node, books: &[Books], bar: &ProgressBar) -> Result<Found, Error> {
    let head = node.head();
    let mut reading = node.read("balances", head).await?;
    let journal = fold(node, head, bar).await?;
    let mut found = Found { accounts: journal.len() as u64, ..Found::default() };
    found.events = journal.values().map(|sum| sum.entries.unsigned_abs()).sum();

    let mut rows = 0;
    for row in reading.view.rows::<AccountOfOwner>().load().await? {
        rows += 1;
        let shown = Sum { balance: row.deposited - row.withdrawn, entries: row.entries };
        compare(journal.get(&row.account).copied().unwrap_or_default(), shown, &mut found);
    }
    // Accounts of which the view has no row at all.
    found.lost += (journal.len() as u64).saturating_sub(rows);

    for page in books.iter().flat_map(|books| &books.pages) {
        let acknowledged = Sum { balance: page.balance, entries: i64::try_from(page.entries).unwrap_or(i64::MAX) };
        compare(acknowledged, journal.get(&page.account).copied().unwrap_or_default(), &mut found);
    }
    Ok(found)
}

fn compare(truth: Sum, shown: Sum, found: &mut Found) {
    found.lost += (truth.entries - shown.entries).max(0).unsigned_abs();
    found.applied_twice += (shown.entries - truth.entries).max(0).unsigned_abs();
    if truth.entries == shown.entries && truth.balance != shown.balance {
        found.lost += 1;
    }
}

async fn fold(node: &Node, head: Position, bar: &ProgressBar) -> Result<HashMap<String, Sum>, Error> {
    let mut sums: HashMap<String, Sum> = HashMap::new();
    let mut after = Position::START;
    while after < head {
        let batch = node.journal().read(after, &Filter::default(), Limit::events(20_000)).await?;
        for event in batch.iter() {
            let Some(data) = AccountEvent::decode(event.event_type, event.payload)? else { continue };
            let sum = match sums.get_mut(event.stream) {
                Some(sum) => sum,
                None => sums.entry(event.stream.to_owned()).or_default(),
            };
            sum.entries += 1;
            sum.balance += match data {
                AccountEvent::Opened { .. } => 0,
                AccountEvent::Deposited { amount, .. } => amount,
                AccountEvent::Withdrawn { amount, .. } => -amount,
            };
        }
        after = batch.through;
        bar.set_position(after.get());
    }
    Ok(sums)
}
