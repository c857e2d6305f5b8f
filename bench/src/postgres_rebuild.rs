//! A rebuild of the view of balances in PostgreSQL, against loops written by hand.

use std::time::Duration;

use dacapo::Node;
use dacapo_postgres::Options;
use dacapo_postgres::testbed::is_installed;
use futures::TryStreamExt;
use hashbrown::HashMap;
use sqlx::{Connection, PgConnection, Row as _};
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::ledger::{Maker, fill};
use crate::pair::{a_second, in_turns};
use crate::postgres::Place;
use crate::rebuild::{BATCH_EVENTS, BATCH_EVENTS_UNSET, balances_in, rebuilt_by};
use crate::report::Row;
use crate::scan::Moved;

const NAMES: &[&str] = &["postgres-rebuild-bulk", "postgres-rebuild-upserts"];
/// Of how many events the loop is timed that sends a statement for each.
const UPSERTS_MAX: usize = 50_000;

const TABLE: &str = "DROP TABLE IF EXISTS by_hand; CREATE TABLE by_hand \
    (account text COLLATE \"C\" NOT NULL PRIMARY KEY, balance bigint NOT NULL, entries bigint NOT NULL)";
const UPSERT_ONE: &str = "INSERT INTO by_hand VALUES ($1, $2, 1) ON CONFLICT (account) DO UPDATE \
    SET balance = by_hand.balance + excluded.balance, entries = by_hand.entries + excluded.entries";
const UPSERT_MANY: &str = "INSERT INTO by_hand SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) \
    ON CONFLICT (account) DO UPDATE \
    SET balance = by_hand.balance + excluded.balance, entries = by_hand.entries + excluded.entries";

pub(crate) async fn rows(bench: &Bench) -> Done<Vec<Row>> {
    let mut rows = Vec::new();
    if !bench.wants_any(&[NAMES]) || !is_installed() {
        return Ok(rows);
    }
    let place = Place::new().await?;
    let events = bench.sizes.events;
    fill(&place.journal, events, Maker::new(17, bench.sizes.accounts)).await?;
    let mut connection = PgConnection::connect(&place.url).await?;
    sqlx::raw_sql("VACUUM ANALYZE dacapo.events").execute(&mut connection).await?;
    let node = Node::builder().store(dacapo_postgres::connect(&place.url, Options::default()).await?).start().await?;
    let measured = async |batch_events| Ok(a_second(events, rebuilt_by(&node, &balances_in(batch_events)).await?));
    let row = |name, floor, pair, target, says| Row {
        name,
        what: "PostgreSQL: rebuild of the view of balances",
        unit: "events/s",
        floor,
        ..Row::of(pair, target, says)
    };
    if bench.begins(NAMES[0]) {
        let by_hand = async || Ok(a_second(events, by_hand(&place.url, events, true).await?));
        let pair = in_turns(bench.sizes.repeats, async || measured(BATCH_EVENTS).await, by_hand).await?;
        let says =
            "What the machinery leaves of one loop that streams the events and upserts the sums of many at once.";
        let floor = "one streamed statement, decoded, folded per batch into a map, upserted from arrays";
        rows.push(row(NAMES[0], floor, pair, 0.4, says));
    }
    if bench.begins(NAMES[1]) {
        let some = events.min(UPSERTS_MAX);
        let by_hand = async || Ok(a_second(some, by_hand(&place.url, some, false).await?));
        let pair = in_turns(bench.sizes.repeats, async || measured(BATCH_EVENTS_UNSET).await, by_hand).await?;
        let says = "The gain of the row cache over a handler that sends one statement per event.";
        rows.push(row(NAMES[1], "the same, one prepared upsert per event", pair, 10.0, says));
    }
    node.shutdown().await;
    place.end().await;
    Ok(rows)
}

/// Folds the first `events` of the journal into a table: in bulk, or with a statement for each.
async fn by_hand(url: &str, events: usize, in_bulk: bool) -> Done<Duration> {
    let (mut from, mut to) = (PgConnection::connect(url).await?, PgConnection::connect(url).await?);
    sqlx::raw_sql(TABLE).execute(&mut to).await?;
    let begun = Instant::now();
    let mut rows =
        sqlx::query("SELECT stream, type, payload FROM dacapo.events WHERE position <= $1 ORDER BY position")
            .bind(i64::try_from(events)?)
            .fetch(&mut from);
    let mut changes: HashMap<String, (i64, i64)> = HashMap::new();
    let mut transaction = to.begin().await?;
    let (mut count, mut whole) = (0, false);
    while !whole {
        match rows.try_next().await? {
            Some(row) => {
                let (stream, event_type): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
                let Moved { amount, .. } = serde_json::from_slice(row.try_get(2)?)?;
                let amount = if event_type == "deposited" { amount } else { -amount };
                count += 1;
                if in_bulk {
                    let change = changes.entry_ref(stream).or_default();
                    *change = (change.0 + amount, change.1 + 1);
                } else {
                    sqlx::query(UPSERT_ONE).bind(stream).bind(amount).execute(&mut *transaction).await?;
                }
            }
            None => whole = true,
        }
        if whole || count % BATCH_EVENTS == 0 {
            let changes = std::mem::take(&mut changes);
            if !changes.is_empty() {
                let (accounts, sums): (Vec<String>, Vec<(i64, i64)>) = changes.into_iter().unzip();
                let (balances, entries): (Vec<i64>, Vec<i64>) = sums.into_iter().unzip();
                let upsert = sqlx::query(UPSERT_MANY).bind(accounts).bind(balances).bind(entries);
                upsert.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            transaction = to.begin().await?;
        }
    }
    transaction.rollback().await?;
    Ok(begun.elapsed())
}
