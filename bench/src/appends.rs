//! Appends: one appender, many, and batches, against the bare disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dacapo::journal::{Append, OnKnown};
use dacapo::store::{Journal, Store};
use dacapo::world::SystemClock;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::floor;
use crate::ledger::Maker;
use crate::pair::{a_second, in_turns};
use crate::report::Row;

/// Appenders that append one event at a time, all at once.
pub(crate) const APPENDERS: usize = 64;
/// Events in one batch.
pub(crate) const BATCH_EVENTS: usize = 1_000;

pub(crate) async fn rows(bench: &Bench) -> Done<Vec<Row>> {
    let mut rows = Vec::new();
    if bench.begins("append-one") {
        rows.push(singles(bench, 1).await?);
    }
    if bench.begins("append-64") {
        rows.push(singles(bench, APPENDERS).await?);
    }
    if bench.begins("append-batches") {
        rows.push(batches(bench).await?);
    }
    Ok(rows)
}

async fn singles(bench: &Bench, appenders: usize) -> Done<Row> {
    let place = bench.place()?;
    let (file, time) = (place.path().join("flushes"), bench.sizes.loop_time);
    let journal = journal(place.path())?;
    let measured = async || append_for(&journal, appenders, bench.sizes.streams, time).await;
    let flushes = async || {
        let turns = floor::flushes(&file, time)?;
        Ok(a_second(turns.len(), turns.iter().sum()))
    };
    let pair = in_turns(bench.sizes.repeats, measured, flushes).await?;
    journal.close().await;
    let (name, what, target, says) = if appenders == 1 {
        let says = "The share of the disk's own speed that remains for a caller that waits for each append.";
        ("append-one", "durable append, one appender", 0.6, says)
    } else {
        let says = "Concurrent appends share a flush. The ratio is the effective number of appends per flush.";
        ("append-64", "durable append, 64 appenders, one event each", 8.0, says)
    };
    Ok(Row { name, what, unit: "events/s", floor: "append 4 KiB, fdatasync, again", ..Row::of(pair, target, says) })
}

/// Lets `appenders` append for `time`, each waiting for its own appends; events a second.
pub(crate) async fn append_for(
    journal: &Arc<dyn Journal>,
    appenders: usize,
    streams: usize,
    time: Duration,
) -> Done<f64> {
    let begun = Instant::now();
    let tasks = (0..appenders).map(|seed| {
        let journal = Arc::clone(journal);
        let mut maker = Maker::new(seed as u64, streams);
        tokio::spawn(async move {
            let mut count = 0;
            while begun.elapsed() < time {
                let events = vec![maker.event()?];
                journal.append(Append { events, expected: vec![], on_known: OnKnown::Recognise }).await?;
                count += 1;
            }
            Done::Ok(count)
        })
    });
    let mut count = 0;
    for task in tasks.collect::<Vec<_>>() {
        count += task.await??;
    }
    Ok(a_second(count, begun.elapsed()))
}

async fn batches(bench: &Bench) -> Done<Row> {
    let place = bench.place()?;
    let file = place.path().join("blocks");
    let journal = journal(place.path())?;
    let mut maker = Maker::new(1, bench.sizes.streams);
    let mut batch = || -> Done<Append> {
        let events = (0..BATCH_EVENTS).map(|_| maker.event()).collect::<Done<_>>()?;
        Ok(Append { events, expected: vec![], on_known: OnKnown::Recognise })
    };
    // The names of streams have their lengths, so batches are not all alike.
    let sizes = (0..bench.sizes.batches).map(|_| Ok(batch()?.check()?)).collect::<Done<Vec<_>>>()?;
    let measured = async || {
        let (mut bytes, mut time) = (0, Duration::ZERO);
        for _ in 0..bench.sizes.batches {
            // Made just before, as an application does, and not timed.
            let batch = batch()?;
            bytes += batch.check()?;
            let begun = Instant::now();
            journal.append(batch).await?;
            time += begun.elapsed();
        }
        Ok(a_second(bytes, time) / 1e6)
    };
    let bare = async || Ok(a_second(sizes.iter().sum(), floor::write_blocks(&file, &sizes)?) / 1e6);
    let pair = in_turns(bench.sizes.repeats, measured, bare).await?;
    journal.close().await;
    let says = "The share of the disk's speed that admission, encoding, checksums and indexing leave for bulk loads.";
    Ok(Row {
        name: "append-batches",
        what: "batches of 1,000 events, each durable",
        unit: "MB/s",
        floor: "write the same bytes, one fdatasync per batch",
        ..Row::of(pair, 0.5, says)
    })
}

fn journal(dir: &Path) -> Done<Arc<dyn Journal>> {
    Ok(Store::embedded(&dir.join("data"), Arc::new(SystemClock))?.journal)
}
