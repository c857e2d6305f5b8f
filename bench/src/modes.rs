//! Rebuilds in each way there is, of a view with two indexes: one on a column that stays, one on a column that every
//! event changes.

use std::path::Path;
use std::time::Duration;

use dacapo::options::{Seed, SegmentCount, WorkShare};
use dacapo::{
    HandlerError, Node, Options, Projection, ProjectionName, Recorded, Row as ViewRow, Table, VersionCode, VersionId,
    View,
};
use dacapo_example_bank::AccountEvent;
use hashbrown::HashMap;
use rusqlite::Connection;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::ledger::{Ledger, Memory};
use crate::pair::{a_second, in_turns};
use crate::rebuild::{BATCH_EVENTS, REBUILD_TIME_MAX, STATEMENT_ROWS, settings};
use crate::report::Row;
use crate::scan::decode;

pub(crate) const NAMES: &[&str] = &["mode-plain", "mode-index-last", "mode-segments", "mode-throttled", "mode-copy"];

/// The part of the time that the throttled rebuild works.
const SHARE_PERCENT: u8 = 50;

#[derive(Clone, Debug, ViewRow)]
#[row(table = "accounts")]
struct Account {
    #[row(key)]
    account: String,
    #[row(index)]
    owner: i64,
    #[row(index)]
    balance: i64,
    entries: i64,
}

/// Apart by whether it has segments, since their number is part of a version.
struct Indexed<const SEGMENTS: bool>(Options);

/// Ten accounts have one owner.
fn owner_of(account: &str) -> i64 {
    account.bytes().filter(u8::is_ascii_digit).fold(0, |number, digit| number * 10 + i64::from(digit - b'0')) / 10
}

impl<const SEGMENTS: bool> Projection for Indexed<SEGMENTS> {
    const NAME: &'static str = if SEGMENTS { "indexed-segments" } else { "indexed" };
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Account::TABLE];
    type Event = AccountEvent;

    fn options(&self) -> Options {
        self.0.clone()
    }

    async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
        let change = match &event.data {
            AccountEvent::Opened { .. } => 0,
            AccountEvent::Deposited { amount, .. } => *amount,
            AccountEvent::Withdrawn { amount, .. } => -amount,
        };
        let account = event.stream;
        let empty = || Account { account: account.to_owned(), owner: owner_of(account), balance: 0, entries: 0 };
        let add = |row: &mut Account| {
            row.balance += change;
            row.entries += 1;
        };
        Ok(view.upsert(account, empty, add).await?)
    }
}

pub(crate) async fn rows(bench: &Bench, ledger: &Ledger, node: &Node) -> Done<Vec<Row>> {
    let plain = Options {
        stand_by: Duration::ZERO,
        batch_events_max: BATCH_EVENTS,
        index_last: false,
        seed: Seed::Columns,
        ..Options::default()
    };
    let last = Options { index_last: true, ..plain.clone() };
    let modes = [
        (
            "mode-plain",
            "rebuild with its indexes from the start",
            plain,
            0.5,
            "The cost of indexes while rows are written.",
        ),
        (
            "mode-index-last",
            "rebuild, indexes last",
            last.clone(),
            0.5,
            "The same with the stage Indexing, which is the default.",
        ),
        (
            "mode-segments",
            "rebuild in four segments, indexes last",
            Options { segments: SegmentCount::new(4)?, ..last.clone() },
            0.5,
            "Segments help with handlers that refuse events. A view has one writer, so segments neither gain nor cost speed.",
        ),
        (
            "mode-throttled",
            "rebuild that runs half of the time",
            Options { rebuild_share: WorkShare::percent(SHARE_PERCENT)?, ..last.clone() },
            0.25,
            "The expected result is half of the row with indexes last.",
        ),
    ];
    let mut rows = Vec::new();
    let events = ledger.memory.len();
    for (name, what, options, target, says) in modes {
        if !bench.begins(name) {
            continue;
        }
        let measured = async || {
            let time = match options.segments {
                SegmentCount::ONE => rebuilt::<false>(node, &options, false).await?,
                _ => rebuilt::<true>(node, &options, false).await?,
            };
            Ok(a_second(events, time))
        };
        let bare = async || {
            let place = bench.place()?;
            let begun = Instant::now();
            by_hand(&place.path().join("view.db"), &ledger.memory)?;
            Ok(a_second(events, begun.elapsed()))
        };
        let pair = in_turns(bench.sizes.repeats, measured, bare).await?;
        let floor = "decode from memory, fold a batch into a map, upsert it in bulk, create the indexes";
        rows.push(Row { name, what, unit: "events/s", floor, ..Row::of(pair, target, says) });
    }
    if bench.begins("mode-copy") {
        let place = bench.place()?;
        let source = place.path().join("source.db");
        by_hand(&source, &ledger.memory)?;
        // Something has to serve that it can be a copy of.
        rebuilt::<false>(node, &last, false).await?;
        let measured = async || Ok(a_second(events, rebuilt::<false>(node, &last, true).await?));
        let bare = async || {
            let place = bench.place()?;
            let begun = Instant::now();
            copied_by_hand(&place.path().join("view.db"), &source)?;
            Ok(a_second(events, begun.elapsed()))
        };
        let pair = in_turns(bench.sizes.repeats, measured, bare).await?;
        rows.push(Row {
            name: "mode-copy",
            what: "rebuild that begins as a copy",
            unit: "events/s",
            floor: "INSERT … SELECT from one file into another, create the indexes",
            ..Row::of(pair, 0.3, "The events are those of the copied rows; none is read. The time includes the flip.")
        });
    }
    Ok(rows)
}

/// Builds a new version and returns how long it took from asking to serving.
async fn rebuilt<const SEGMENTS: bool>(node: &Node, options: &Options, from_copy: bool) -> Done<Duration> {
    let projection = ProjectionName::new(Indexed::<SEGMENTS>::NAME)?;
    let mut catalog = node.catalog();
    let before = catalog.borrow().serving(&projection);
    let begun = Instant::now();
    node.add_projection(VersionCode::new(Indexed::<SEGMENTS>(options.clone())))?;
    match (before, from_copy) {
        (None, _) => {}
        (Some(_), false) => drop(node.projection(&projection)?.rebuild().await?),
        (Some(_), true) => drop(node.projection(&projection)?.rebuild().from_copy().await?),
    }
    let serves = |serving: Option<VersionId>| serving.is_some() && serving != before;
    let done = catalog.wait_for(|catalog| serves(catalog.serving(&projection)));
    drop(tokio::time::timeout(REBUILD_TIME_MAX, done).await??);
    let elapsed = begun.elapsed();
    let alone = |catalog: &dacapo::catalog::Catalog| {
        catalog.versions().filter(|(view, state)| view.projection == projection && state.phase.has_view()).count() == 1
    };
    drop(tokio::time::timeout(REBUILD_TIME_MAX, catalog.wait_for(|catalog| alone(catalog))).await??);
    Ok(elapsed)
}

const TABLE: &str = "CREATE TABLE accounts (account TEXT NOT NULL, owner INTEGER NOT NULL, balance INTEGER NOT NULL,
                                            entries INTEGER NOT NULL, PRIMARY KEY (account)) STRICT, WITHOUT ROWID;
                     CREATE TABLE token (position INTEGER NOT NULL) STRICT;
                     INSERT INTO token VALUES (0);";
const INDEXES: &str = "CREATE INDEX owner ON accounts (owner); CREATE INDEX balance ON accounts (balance);";

fn upsert(rows: usize) -> String {
    let values = vec!["(?, ?, ?, ?)"; rows].join(", ");
    format!(
        "INSERT INTO accounts VALUES {values} ON CONFLICT (account) \
         DO UPDATE SET balance = balance + excluded.balance, entries = entries + excluded.entries"
    )
}

/// As few rows as there are accounts in a batch, many in a statement; the indexes at the end.
fn by_hand(file: &Path, memory: &Memory) -> Done {
    let mut connection = Connection::open(file)?;
    settings(&connection)?;
    connection.execute_batch(TABLE)?;
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
                statement.raw_bind_parameter(at * 4 + 1, account)?;
                statement.raw_bind_parameter(at * 4 + 2, owner_of(account))?;
                statement.raw_bind_parameter(at * 4 + 3, balance)?;
                statement.raw_bind_parameter(at * 4 + 4, entries)?;
            }
            statement.raw_execute()?;
        }
        transaction.execute("UPDATE token SET position = ?", [position])?;
        transaction.commit()?;
    }
    connection.execute_batch(INDEXES)?;
    Ok(())
}

fn copied_by_hand(file: &Path, source: &Path) -> Done {
    let mut connection = Connection::open(file)?;
    settings(&connection)?;
    connection.execute_batch(TABLE)?;
    connection.execute("ATTACH ?1 AS source", [source.to_string_lossy()])?;
    let transaction = connection.transaction()?;
    transaction.execute_batch("INSERT INTO accounts SELECT * FROM source.accounts")?;
    transaction.execute_batch(INDEXES)?;
    transaction.commit()?;
    Ok(())
}
