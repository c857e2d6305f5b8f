//! What users notice while a view is rebuilt beside them: appends, reads, flips and the way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::catalog::{Catalog, Phase};
use dacapo::journal::{Append, OnKnown};
use dacapo::options::{FlipPolicy, WorkShare};
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{Node, Options, Projection, ProjectionName, VersionCode, ViewId};
use dacapo_example_bank::{BalanceOf, BalancesV1};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::floor;
use crate::ledger::{Maker, fill};
use crate::pair::{median, percentile};
use crate::rebuild::{BATCH_EVENTS, rebuilt_by};
use crate::report::Row;

const NAMES: &[&str] = &["serve", "flip-pause", "rollback"];
/// Tasks that append and tasks that read, each with a pause after every answer: a machine with room to spare.
const USERS: usize = 4;
const USER_PAUSE: Duration = Duration::from_millis(2);
/// The parts of the time that rebuilds work beside them.
const SHARES: [u8; 3] = [100, 50, 25];

/// Latencies in microseconds.
#[derive(Default)]
struct Latencies {
    appends: Vec<f64>,
    reads: Vec<f64>,
}

pub(crate) async fn rows(bench: &Bench) -> Done<Vec<Row>> {
    let mut rows = Vec::new();
    if !bench.wants_any(&[NAMES]) {
        return Ok(rows);
    }
    let place = bench.place()?;
    let store = Store::embedded(&place.path().join("data"), Arc::new(SystemClock))?;
    fill(&store.journal, bench.sizes.events, Maker::new(5, bench.sizes.accounts)).await?;
    let node = Node::builder().store(store).start().await?;
    node.add_projection(code(100)?)?;
    rebuilt_by(&node, &code(100)?).await?;
    if bench.begins("serve") {
        rows.extend(beside_rebuilds(bench, &node).await?);
    }
    if bench.wants_any(&[&NAMES[1..]]) {
        let flips = bench.place()?.path().join("flushes");
        rows.extend(flips_and_back(bench, &node, &flips).await?);
    }
    node.shutdown().await;
    Ok(rows)
}

fn code(percent: u8) -> Done<VersionCode> {
    let options = Options {
        stand_by: Duration::ZERO,
        batch_events_max: BATCH_EVENTS,
        rebuild_share: WorkShare::percent(percent)?,
        ..Options::default()
    };
    Ok(BalancesV1 { options }.answering::<BalanceOf>().into())
}

/// In turns: nothing is rebuilt, then one rebuild after the other with each share.
async fn beside_rebuilds(bench: &Bench, node: &Node) -> Done<Vec<Row>> {
    let mut alone = Vec::new();
    let mut beside: [Vec<Latencies>; SHARES.len()] = Default::default();
    for _ in 0..bench.sizes.repeats {
        let users = Users::begin(node, bench.sizes.accounts);
        tokio::time::sleep(bench.sizes.loop_time).await;
        alone.push(users.end().await?);
        for (share, found) in SHARES.iter().zip(&mut beside) {
            let (code, users, begun) = (code(*share)?, Users::begin(node, bench.sizes.accounts), Instant::now());
            while begun.elapsed() < bench.sizes.loop_time {
                rebuilt_by(node, &code).await?;
            }
            found.push(users.end().await?);
        }
    }
    let p99 =
        |turns: &[Latencies], of: Which| turns.iter().map(|turn| percentile(of(turn).clone(), 99)).collect::<Vec<_>>();
    let row = |name, what, floor, of: Which, turns: &[Latencies]| {
        let (bare, found) = (p99(&alone, of), p99(turns, of));
        Row {
            name,
            what,
            unit: "µs",
            measured: median(found.iter().copied()),
            floor,
            floor_measured: Some(median(bare.iter().copied())),
            ratio: Some(median(bare.iter().zip(&found).map(|(bare, found)| bare / found))),
            target: None,
            says: "The slowest hundredth of the requests of eight users, with continuous rebuilds and without.",
        }
    };
    let appends: Which = |found| &found.appends;
    let reads: Which = |found| &found.reads;
    let (quiet_append, quiet_read) = ("the same without a rebuild, p99", "the same without a rebuild, p99");
    Ok(vec![
        row("serve-append", "durable append beside a rebuild, p99", quiet_append, appends, &beside[0]),
        row("serve-read", "read beside a rebuild, p99", quiet_read, reads, &beside[0]),
        row("serve-append-50", "durable append beside a rebuild at 50 %, p99", quiet_append, appends, &beside[1]),
        row("serve-read-50", "read beside a rebuild at 50 %, p99", quiet_read, reads, &beside[1]),
        row("serve-append-25", "durable append beside a rebuild at 25 %, p99", quiet_append, appends, &beside[2]),
        row("serve-read-25", "read beside a rebuild at 25 %, p99", quiet_read, reads, &beside[2]),
    ])
}

/// The latencies of one kind of request.
type Which = fn(&Latencies) -> &Vec<f64>;

/// Those who append and read during the whole run.
struct Users {
    stop: Arc<AtomicBool>,
    appending: Vec<JoinHandle<Done<Vec<f64>>>>,
    reading: Vec<JoinHandle<Done<Vec<f64>>>>,
}

impl Users {
    fn begin(node: &Node, accounts: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let appending = (0..USERS as u64).map(|seed| {
            let (node, stop, mut maker) = (node.clone(), Arc::clone(&stop), Maker::new(seed, accounts));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let events = vec![maker.event()?];
                    let begun = Instant::now();
                    node.append_batch(Append { events, expected: vec![], on_known: OnKnown::Recognise }).await?;
                    took.push(begun.elapsed().as_secs_f64() * 1e6);
                    tokio::time::sleep(USER_PAUSE).await;
                }
                Done::Ok(took)
            })
        });
        let reading = (0..USERS as u64).map(|seed| {
            let (node, stop, mut maker) = (node.clone(), Arc::clone(&stop), Maker::new(100 + seed, accounts));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let account = maker.event()?.stream.as_str().to_owned();
                    let begun = Instant::now();
                    node.ask(BalanceOf { account }).await?;
                    took.push(begun.elapsed().as_secs_f64() * 1e6);
                    tokio::time::sleep(USER_PAUSE).await;
                }
                Done::Ok(took)
            })
        });
        Self { appending: appending.collect(), reading: reading.collect(), stop }
    }

    async fn end(self) -> Done<Latencies> {
        self.stop.store(true, Ordering::Relaxed);
        let mut found = Latencies::default();
        for task in self.appending {
            found.appends.extend(task.await??);
        }
        for task in self.reading {
            found.reads.extend(task.await??);
        }
        Ok(found)
    }
}

/// Back and forth between two versions while users append and read.
async fn flips_and_back(bench: &Bench, node: &Node, flushes: &std::path::Path) -> Done<Vec<Row>> {
    let projection = ProjectionName::new("balances")?;
    let options = Options { flip: FlipPolicy::OnCommand, stand_by: Duration::from_secs(3_600), ..Options::default() };
    node.add_projection(BalancesV1 { options }.answering::<BalanceOf>())?;
    let old = node.catalog().borrow().serving(&projection).ok_or("a version serves")?;
    let new = node.projection(&projection)?.rebuild().await?.view().version;
    // What has not begun cannot be flipped to.
    let begun = |catalog: &Catalog| {
        let view = ViewId { projection: projection.clone(), version: new };
        catalog.version(&view).is_some_and(|state| state.phase == Phase::Initializing)
    };
    node.catalog().wait_for(|catalog| begun(catalog)).await?;
    let users = Users::begin(node, bench.sizes.accounts);
    let (mut pauses, mut back) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.repeats * 4 {
        let requested = node.projection(&projection)?.version(new).flip().await?;
        let report = requested.done().within(crate::rebuild::REBUILD_TIME_MAX).await?;
        pauses.extend(report.pause.map(|pause| pause.as_secs_f64() * 1e6));
        let begun = Instant::now();
        let requested = node.projection(&projection)?.version(old).rollback().await?;
        let report = requested.done().within(crate::rebuild::REBUILD_TIME_MAX).await?;
        back.push(begun.elapsed().as_secs_f64() * 1e6);
        pauses.extend(report.pause.map(|pause| pause.as_secs_f64() * 1e6));
    }
    users.end().await?;
    std::fs::create_dir_all(flushes.parent().ok_or("a place has a parent")?)?;
    let turns = floor::flushes(flushes, bench.sizes.loop_time)?;
    let flush = median(turns.iter().map(|turn| turn.as_secs_f64() * 1e6));
    let row = |name, what, measured: f64, floor, bare: f64, says| Row {
        name,
        what,
        unit: "µs",
        measured,
        floor,
        floor_measured: Some(bare),
        ratio: Some(bare / measured),
        target: None,
        says,
    };
    let says = "The time for which the processors of the old version stand still at a flip, with eight users. Nobody else stands still.";
    let back_says = "The time from the rollback command to the first answer of the old version, with eight users.";
    Ok(vec![
        row(
            "flip-pause",
            "pause of a flip, p50",
            percentile(pauses.clone(), 50),
            "fdatasync of 4 KiB, twice",
            flush * 2.0,
            says,
        ),
        row(
            "flip-pause-p99",
            "pause of a flip, p99",
            percentile(pauses, 99),
            "fdatasync of 4 KiB, twice",
            flush * 2.0,
            says,
        ),
        row(
            "rollback",
            "rollback, p50",
            percentile(back.clone(), 50),
            "fdatasync of 4 KiB, three times",
            flush * 3.0,
            back_says,
        ),
        row(
            "rollback-p99",
            "rollback, p99",
            percentile(back, 99),
            "fdatasync of 4 KiB, three times",
            flush * 3.0,
            back_says,
        ),
    ])
}
