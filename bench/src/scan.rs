//! Scans: the whole journal, raw and decoded.

use std::sync::Arc;

use dacapo::journal::{EventBatch, Filter};
use dacapo::store::Journal;
use dacapo::subscribe::Subscription;
use dacapo::{Event, Position};
use dacapo_example_bank::AccountEvent;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::floor;
use crate::ledger::{Entry, Ledger, Memory, whole_reads};
use crate::pair::{a_second, in_turns};
use crate::report::Row;

pub(crate) const NAMES: &[&str] = &["scan-raw", "scan-decoded"];

/// A payload as a program reads it that has nothing but serde_json.
#[derive(serde::Deserialize)]
pub(crate) struct Moved {
    pub(crate) amount: i64,
    #[serde(default)]
    pub(crate) note: String,
}

/// The payload of an event in memory, decoded.
pub(crate) fn decode(entry: Entry<'_>) -> Done<Moved> {
    Ok(serde_json::from_slice(entry.payload)?)
}

pub(crate) async fn rows(bench: &Bench, ledger: &Ledger) -> Done<Vec<Row>> {
    let mut rows = Vec::new();
    let journal = &ledger.store.journal;
    if bench.begins("scan-raw") {
        let files = floor::files(&ledger.journal_dir(), &[".log"])?;
        let measured = async || scan_raw(journal).await;
        let bare = async || Ok(a_second(ledger.memory.len(), floor::read_and_checksum(&files)?));
        let pair = in_turns(bench.sizes.repeats, measured, bare).await?;
        let says = "The cost of finding, verifying and showing each record, beside reading its bytes.";
        rows.push(Row {
            name: "scan-raw",
            what: "scan of the whole journal, raw",
            unit: "events/s",
            floor: "read the same files from the page cache, CRC-32C over all",
            ..Row::of(pair, 0.3, says)
        });
    }
    if bench.begins("scan-decoded") {
        let measured = async || scan_decoded(journal).await;
        let bare = async || decode_memory(&ledger.memory);
        let pair = in_turns(bench.sizes.repeats, measured, bare).await?;
        let says = "The share of serde_json's speed that remains when the feed decodes from the journal into the derived enum.";
        rows.push(Row {
            name: "scan-decoded",
            what: "the feed over the whole journal, decoded",
            unit: "events/s",
            floor: "serde_json over the same payloads in memory",
            ..Row::of(pair, 0.7, says)
        });
    }
    Ok(rows)
}

/// Reads everything and looks at each event; events a second.
async fn scan_raw(journal: &Arc<dyn Journal>) -> Done<f64> {
    let head = *journal.head().borrow();
    let (mut after, mut count, mut bytes) = (Position::START, 0, 0);
    let begun = Instant::now();
    while after < head {
        let batch = journal.read(after, &Filter::everything(), whole_reads()).await?;
        bytes += batch.iter().map(|event| event.payload.len()).sum::<usize>();
        count += batch.len();
        after = batch.through;
    }
    std::hint::black_box(bytes);
    Ok(a_second(count, begun.elapsed()))
}

/// Follows the journal to the head and decodes each event; events a second.
pub(crate) async fn scan_decoded(journal: &Arc<dyn Journal>) -> Done<f64> {
    let head = *journal.head().borrow();
    let (mut count, mut sum) = (0, 0);
    let begun = Instant::now();
    let mut subscription = Subscription::new(Arc::clone(journal), Position::START, Filter::everything()).await?;
    while subscription.position() < head {
        let Some(batch) = subscription.next().await? else { return Err("the journal was closed".into()) };
        sum += decode_all(&batch)?;
        count += batch.len();
    }
    std::hint::black_box(sum);
    Ok(a_second(count, begun.elapsed()))
}

fn decode_all(batch: &EventBatch) -> Done<usize> {
    let mut sum = 0;
    for event in batch.iter() {
        let decoded = AccountEvent::decode(event.event_type, event.payload)?;
        if let Some(AccountEvent::Deposited { note, .. } | AccountEvent::Withdrawn { note, .. }) = decoded {
            sum += note.len();
        }
    }
    Ok(sum)
}

fn decode_memory(memory: &Memory) -> Done<f64> {
    let begun = Instant::now();
    let mut sum = 0;
    for entry in memory.iter() {
        let moved = decode(entry)?;
        sum += moved.note.len() + moved.amount as usize;
    }
    std::hint::black_box(sum);
    Ok(a_second(memory.len(), begun.elapsed()))
}
