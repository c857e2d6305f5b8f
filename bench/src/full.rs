//! Five million events: opening after a kill, and the memory of a rebuild. Each in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use dacapo::Node;
use dacapo::store::Store;
use dacapo::world::SystemClock;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::floor;
use crate::ledger::{Maker, fill};
use crate::rebuild::rebuilt;
use crate::report::Row;
use crate::say;

const OPEN_SECONDS_MAX: f64 = 2.0;
const MEMORY_MIB_MAX: f64 = 512.0;
/// What a child says once it has appended all that was asked.
const FILLED: &str = "filled";

/// What a child process does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Child {
    /// Append events, say so, and go on until killed.
    #[command(hide = true)]
    Append {
        /// Where.
        data: PathBuf,
        /// How many before it says so.
        events: usize,
        /// Over how many accounts.
        accounts: usize,
    },
    /// Build the view of balances once and print the most memory that was in use, in MiB.
    #[command(hide = true)]
    Rebuild {
        /// Of which journal.
        data: PathBuf,
    },
}

impl Child {
    pub(crate) async fn run(&self) -> Done {
        match self {
            Self::Append { data, events, accounts } => {
                let journal = Store::embedded(data, Arc::new(SystemClock))?.journal;
                fill(&journal, *events, Maker::new(21, *accounts)).await?;
                print(FILLED)?;
                for seed in 22.. {
                    fill(&journal, 1_000, Maker::new(seed, *accounts)).await?;
                }
                Ok(())
            }
            Self::Rebuild { data } => {
                let node = Node::builder().data(data).start().await?;
                rebuilt(&node).await?;
                node.shutdown().await;
                print(&peak_mib()?.to_string())
            }
        }
    }
}

fn print(line: &str) -> Done {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The most memory that this process ever had.
fn peak_mib() -> Done<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the system does not tell VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

pub(crate) async fn rows(bench: &Bench) -> Done<Vec<Row>> {
    let (opens, remembers) = (bench.wants("open"), bench.wants("memory"));
    if !bench.full || !(opens || remembers) {
        return Ok(Vec::new());
    }
    let place = bench.place()?;
    let data = place.path().join("data");
    say(&format!("filling a journal with {} events in a process that is killed", bench.sizes.full_events));
    append_and_kill(bench, &data).await?;
    let mut rows = Vec::new();
    // Also if it is not asked for: whoever opens it after the kill does the work that is measured here.
    let (warm, cold) = (open(&data).await?, open_cold(&data).await?);
    if opens {
        rows.push(open_row("open-killed", "opening a journal of 5,000,000 events after kill -9", warm));
        rows.push(open_row("open-cold", "the same journal, cold from the disk", cold));
    }
    if remembers {
        say("measuring memory");
        let measured = peak_of_rebuild(&data).await?;
        rows.push(Row {
            name: "memory",
            what: "peak memory of a rebuild over 5,000,000 events",
            unit: "MiB",
            measured,
            floor: "the limit, MiB",
            floor_measured: Some(MEMORY_MIB_MAX),
            ratio: Some(MEMORY_MIB_MAX / measured),
            target: Some(1.0),
            says: "The memory of a complete process that builds the view. It does not grow with the journal.",
        });
    }
    Ok(rows)
}

fn open_row(name: &'static str, what: &'static str, seconds: f64) -> Row {
    Row {
        name,
        what,
        unit: "s",
        measured: seconds,
        floor: "the limit, s",
        floor_measured: Some(OPEN_SECONDS_MAX),
        ratio: Some(OPEN_SECONDS_MAX / seconds),
        target: Some(1.0),
        says: "The time for which a restart delays appends. Opening reads the newest chunk and only checks the others.",
    }
}

async fn append_and_kill(bench: &Bench, data: &Path) -> Done {
    let (events, accounts) = (bench.sizes.full_events.to_string(), bench.sizes.accounts.to_string());
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("append").arg(data).args([events, accounts]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let out = child.stdout.take().ok_or("the child has no output")?;
    let said = BufReader::new(out).lines().next_line().await?;
    if said.as_deref() != Some(FILLED) {
        return Err("the child that fills the journal ended early".into());
    }
    // It goes on appending; let it be in the midst of that.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    child.kill().await?;
    Ok(())
}

async fn open(data: &Path) -> Done<f64> {
    let begun = Instant::now();
    let store = Store::embedded(data, Arc::new(SystemClock))?;
    let elapsed = begun.elapsed();
    store.journal.close().await;
    Ok(elapsed.as_secs_f64())
}

async fn open_cold(data: &Path) -> Done<f64> {
    floor::make_cold(&floor::files(&data.join("journal"), &[".log", ".idx"])?).await?;
    open(data).await
}

async fn peak_of_rebuild(data: &Path) -> Done<f64> {
    let output = Command::new(std::env::current_exe()?).arg("rebuild").arg(data).stderr(Stdio::inherit()).output();
    let output = output.await?;
    if !output.status.success() {
        return Err(format!("the child that rebuilds ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
