//! How long an append takes to be seen in a view that follows.

use dacapo::Node;
use dacapo::journal::{Append, OnKnown};
use dacapo_example_bank::BalanceOf;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::floor;
use crate::ledger::Maker;
use crate::pair::percentile;
use crate::rebuild::balances;
use crate::report::Row;

pub(crate) async fn rows(bench: &Bench) -> Done<Vec<Row>> {
    if !bench.begins("follow") {
        return Ok(Vec::new());
    }
    let place = bench.place()?;
    let node = Node::builder().data(place.path().join("data")).projection(balances()).start().await?;
    let mut maker = Maker::new(3, bench.sizes.accounts);
    let (mut seen, mut flushes) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.repeats {
        let turns = floor::flushes(&place.path().join("flushes"), bench.sizes.loop_time)?;
        flushes.extend(turns.iter().map(|turn| turn.as_secs_f64() * 1e6));
        for _ in 0..bench.sizes.followed / bench.sizes.repeats {
            seen.push(one(&node, &mut maker).await?);
        }
    }
    node.shutdown().await;
    let row = |name, what, floor, percent| {
        let (measured, floor_measured) = (percentile(seen.clone(), percent), percentile(flushes.clone(), percent));
        Row {
            name,
            what,
            unit: "µs",
            measured,
            floor,
            floor_measured: Some(floor_measured),
            ratio: Some(floor_measured / measured),
            target: None,
            says: "The time from the acknowledgement of an append to the answer of a query that demands it, beside one flush.",
        }
    };
    let p50 = row("follow-p50", "from acknowledgement to visible in the view, p50", "fdatasync of 4 KiB, p50", 50);
    let p99 = row("follow-p99", "from acknowledgement to visible in the view, p99", "fdatasync of 4 KiB, p99", 99);
    Ok(vec![p50, p99])
}

/// Appends an event and asks for the balance after it: microseconds between acknowledgement and answer.
async fn one(node: &Node, maker: &mut Maker) -> Done<f64> {
    let event = maker.event()?;
    let account = event.stream.as_str().to_owned();
    let append = Append { events: vec![event], expected: vec![], on_known: OnKnown::Recognise };
    let appended = node.append_batch(append).await?;
    let begun = Instant::now();
    let answered = node.ask(BalanceOf { account }).after(appended.position).await?;
    let elapsed = begun.elapsed();
    if answered.value.is_none() {
        return Err("an answer that covers an append lacks its account".into());
    }
    Ok(elapsed.as_secs_f64() * 1e6)
}
