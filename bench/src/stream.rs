//! One stream whose events lie scattered over the whole journal: cached, and cold from the disk.

use std::sync::Arc;

use dacapo::Event;
use dacapo::journal::Revision;
use dacapo::store::{Journal, Store};
use dacapo::world::SystemClock;
use dacapo_example_bank::AccountEvent;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::floor;
use crate::ledger::{Ledger, Memory, account_name, whole_reads};
use crate::pair::{a_second, in_turns};
use crate::report::Row;
use crate::scan::decode;

pub(crate) const NAMES: &[&str] = &["stream-cached", "stream-cold"];

/// How often the short measurements are repeated within a turn.
const ROUNDS: usize = 50;

pub(crate) async fn rows(bench: &Bench, ledger: &Ledger) -> Done<Vec<Row>> {
    let mut rows = Vec::new();
    if !bench.wants_any(&[NAMES]) {
        return Ok(rows);
    }
    let stream = ledger.memory.of_stream(account_name(1)?.as_str())?;
    if bench.begins("stream-cached") {
        let journal = open(ledger)?;
        fold(&journal).await?;
        let measured = async || {
            let begun = Instant::now();
            for _ in 0..ROUNDS {
                fold(&journal).await?;
            }
            Ok(a_second(ROUNDS * stream.len(), begun.elapsed()))
        };
        let pair = in_turns(bench.sizes.repeats, measured, async || fold_memory(&stream)).await?;
        journal.close().await;
        let says = "The cost of finding the events of one aggregate among all others, if they were read before.";
        rows.push(Row {
            name: "stream-cached",
            what: "a stream of 1,000 scattered events, folded, cached",
            unit: "events/s",
            floor: "decode and fold them from memory",
            ..Row::of(pair, 0.3, says)
        });
    }
    if bench.begins("stream-cold") {
        rows.push(cold(bench, ledger, &stream).await?);
    }
    Ok(rows)
}

/// A journal that was just opened: its indexes are on the disk too.
async fn cold(bench: &Bench, ledger: &Ledger, stream: &Memory) -> Done<Row> {
    let all = floor::files(&ledger.journal_dir(), &[".log", ".idx"])?;
    let logs = floor::files(&ledger.journal_dir(), &[".log"])?;
    let mut random = fastrand::Rng::with_seed(9);
    let measured = async || {
        let journal = open(ledger)?;
        floor::make_cold(&all).await?;
        let begun = Instant::now();
        fold(&journal).await?;
        let elapsed = begun.elapsed();
        journal.close().await;
        Ok(a_second(stream.len(), elapsed))
    };
    let bare = async || {
        floor::make_cold(&all).await?;
        Ok(a_second(stream.len(), floor::read_pages(&logs, stream.len(), &mut random)?))
    };
    let pair = in_turns(bench.sizes.repeats, measured, bare).await?;
    let says = "The same, if nothing of the journal or its indexes is in memory: many reads run at once.";
    Ok(Row {
        name: "stream-cold",
        what: "the same, cold from the disk",
        unit: "events/s",
        floor: "as many reads of 4 KiB at random places, cold, one by one",
        ..Row::of(pair, 1.0 / 3.0, says)
    })
}

fn open(ledger: &Ledger) -> Done<Arc<dyn Journal>> {
    Ok(Store::embedded(&ledger.data, Arc::new(SystemClock))?.journal)
}

/// Reads the stream and folds it into a balance.
async fn fold(journal: &Arc<dyn Journal>) -> Done<i64> {
    let (stream, mut after, mut balance) = (account_name(1)?, Revision::START, 0);
    loop {
        let batch = journal.read_stream(&stream, after, whole_reads()).await?;
        for event in batch.iter() {
            match AccountEvent::decode(event.event_type, event.payload)? {
                Some(AccountEvent::Deposited { amount, .. }) => balance += amount,
                Some(AccountEvent::Withdrawn { amount, .. }) => balance -= amount,
                Some(AccountEvent::Opened { .. }) | None => {}
            }
            after = event.revision;
        }
        if batch.is_empty() {
            return Ok(std::hint::black_box(balance));
        }
    }
}

fn fold_memory(stream: &Memory) -> Done<f64> {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let mut balance = 0;
        for entry in stream.iter() {
            let moved = decode(entry)?;
            balance += if entry.deposited { moved.amount } else { -moved.amount };
        }
        std::hint::black_box(balance);
    }
    Ok(a_second(ROUNDS * stream.len(), begun.elapsed()))
}
