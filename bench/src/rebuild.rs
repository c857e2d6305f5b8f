//! A rebuild of the view of balances through the whole machinery, against loops written by hand.

use std::path::Path;
use std::time::Duration;

use dacapo::{Node, Options, Projection, ProjectionName, VersionCode, VersionId, limits};
use dacapo_example_bank::{BalanceOf, BalancesV1};
use hashbrown::HashMap;
use rusqlite::Connection;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::ledger::{Ledger, Memory};
use crate::pair::{Pair, a_second, in_turns};
use crate::report::Row;
use crate::scan::decode;

pub(crate) const NAMES: &[&str] = &["rebuild-bulk", "rebuild-upserts"];

/// The longest that one rebuild may take.
pub(crate) const REBUILD_TIME_MAX: Duration = Duration::from_secs(600);
/// Rows in one statement of the loop that writes in bulk.
pub(crate) const STATEMENT_ROWS: usize = 64;
/// Events that one transaction takes, at most, where both sides fold a batch before they write it.
pub(crate) const BATCH_EVENTS: usize = 262_144;
/// The same where the other side writes at once, so that only one of them has batches: the default.
pub(crate) const BATCH_EVENTS_UNSET: usize = limits::BATCH_EVENTS_MAX;

pub(crate) async fn rows(bench: &Bench, ledger: &Ledger, node: &Node) -> Done<Vec<Row>> {
    let mut rows = Vec::new();
    if bench.begins("rebuild-bulk") {
        let pair = against(bench, ledger, node, BATCH_EVENTS, bulk).await?;
        let says = "The speed of a complete rebuild, compared with a loop that was written for this one view and does nothing else.";
        let floor = "decode from memory, fold a batch into a map, upsert it in bulk";
        rows.push(row("rebuild-bulk", floor, pair, 0.5, says));
    }
    if bench.begins("rebuild-upserts") {
        let pair = against(bench, ledger, node, BATCH_EVENTS_UNSET, upserts).await?;
        let says = "The gain of the row cache over a handler that sends one statement per event.";
        let floor = "decode from memory, one prepared upsert per event";
        rows.push(row("rebuild-upserts", floor, pair, 5.0, says));
    }
    Ok(rows)
}

fn row(name: &'static str, floor: &'static str, pair: Pair, target: f64, says: &'static str) -> Row {
    Row { name, what: "rebuild of the view of balances", unit: "events/s", floor, ..Row::of(pair, target, says) }
}

async fn against(
    bench: &Bench,
    ledger: &Ledger,
    node: &Node,
    batch_events: usize,
    by_hand: fn(&Path, &Memory) -> Done,
) -> Done<Pair> {
    let events = ledger.memory.len();
    let code = balances_in(batch_events);
    let measured = async || Ok(a_second(events, rebuilt_by(node, &code).await?));
    let bare = async || {
        let place = bench.place()?;
        let begun = Instant::now();
        by_hand(&place.path().join("view.db"), &ledger.memory)?;
        Ok(a_second(events, begun.elapsed()))
    };
    in_turns(bench.sizes.repeats, measured, bare).await
}

/// The code of the view, whose old versions are cleaned up at once.
pub(crate) fn balances() -> VersionCode {
    balances_in(BATCH_EVENTS)
}

/// The same in batches of at most so many events.
pub(crate) fn balances_in(batch_events_max: usize) -> VersionCode {
    let options = Options { stand_by: Duration::ZERO, batch_events_max, ..Options::default() };
    BalancesV1 { options }.answering::<BalanceOf>().into()
}

/// Builds a new version of the view, and returns how long it took from asking to serving.
pub(crate) async fn rebuilt(node: &Node) -> Done<Duration> {
    rebuilt_by(node, &balances()).await
}

/// Builds a new version with this code of the view.
pub(crate) async fn rebuilt_by(node: &Node, code: &VersionCode) -> Done<Duration> {
    let projection = ProjectionName::new("balances")?;
    let mut catalog = node.catalog();
    let before = catalog.borrow().serving(&projection);
    let begun = Instant::now();
    node.add_projection(code.clone())?;
    match before {
        None => {}
        Some(_) => {
            node.projection(&projection)?.rebuild().await?;
        }
    }
    let serves = |serving: Option<VersionId>| serving.is_some() && serving != before;
    let done = catalog.wait_for(|catalog| serves(catalog.serving(&projection)));
    drop(tokio::time::timeout(REBUILD_TIME_MAX, done).await??);
    let elapsed = begun.elapsed();
    // The old version is dropped beside what is measured next, unless that waits.
    let alone = |catalog: &dacapo::catalog::Catalog| {
        catalog.versions().filter(|(view, state)| view.projection == projection && state.phase.has_view()).count() == 1
    };
    drop(tokio::time::timeout(REBUILD_TIME_MAX, catalog.wait_for(|catalog| alone(catalog))).await??);
    Ok(elapsed)
}

/// Makes the table as the view has it, with the same settings.
fn open(file: &Path) -> Done<Connection> {
    let connection = Connection::open(file)?;
    settings(&connection)?;
    connection.execute_batch(
        "CREATE TABLE accounts (account TEXT NOT NULL, balance INTEGER NOT NULL, entries INTEGER NOT NULL,
                                PRIMARY KEY (account)) STRICT, WITHOUT ROWID;
         CREATE TABLE token (position INTEGER NOT NULL) STRICT;
         INSERT INTO token VALUES (0);",
    )?;
    Ok(connection)
}

/// As the writer of a view has them.
pub(crate) fn settings(connection: &Connection) -> Done {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "wal_autocheckpoint", 8_192)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    Ok(())
}

fn upsert(rows: usize) -> String {
    let values = vec!["(?, ?, ?)"; rows].join(", ");
    format!(
        "INSERT INTO accounts (account, balance, entries) VALUES {values} ON CONFLICT (account) \
         DO UPDATE SET balance = balance + excluded.balance, entries = entries + excluded.entries"
    )
}

/// As few rows as there are accounts in a batch, many in a statement.
fn bulk(file: &Path, memory: &Memory) -> Done {
    let mut connection = open(file)?;
    let mut entries = memory.iter().peekable();
    let mut position = 0;
    while entries.peek().is_some() {
        let mut changes: HashMap<&str, (i64, i64)> = HashMap::new();
        for entry in entries.by_ref().take(BATCH_EVENTS) {
            let amount = decode(entry)?.amount;
            let change = changes.entry(entry.stream).or_default();
            change.0 += if entry.deposited { amount } else { -amount };
            change.1 += 1;
            position += 1;
        }
        let transaction = connection.transaction()?;
        let changes: Vec<_> = changes.into_iter().collect();
        for rows in changes.chunks(STATEMENT_ROWS) {
            let mut statement = transaction.prepare_cached(&upsert(rows.len()))?;
            for (at, (account, (balance, entries))) in rows.iter().enumerate() {
                statement.raw_bind_parameter(at * 3 + 1, account)?;
                statement.raw_bind_parameter(at * 3 + 2, balance)?;
                statement.raw_bind_parameter(at * 3 + 3, entries)?;
            }
            statement.raw_execute()?;
        }
        transaction.execute("UPDATE token SET position = ?", [position])?;
        transaction.commit()?;
    }
    Ok(())
}

/// A statement an event.
fn upserts(file: &Path, memory: &Memory) -> Done {
    let mut connection = open(file)?;
    let mut entries = memory.iter().peekable();
    let mut position = 0;
    while entries.peek().is_some() {
        let transaction = connection.transaction()?;
        let mut statement = transaction.prepare(&upsert(1))?;
        for entry in entries.by_ref().take(BATCH_EVENTS) {
            let amount = decode(entry)?.amount;
            statement.execute((entry.stream, if entry.deposited { amount } else { -amount }, 1))?;
            position += 1;
        }
        drop(statement);
        transaction.execute("UPDATE token SET position = ?", [position])?;
        transaction.commit()?;
    }
    Ok(())
}
