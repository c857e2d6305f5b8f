//! Speed, as ratios to floors measured in the same run.
//!
//! A figure in events a second says as much about the machine as about the program. So everything here is
//! measured in turns with a *floor*: the same bytes moved, or the same payloads decoded, by the shortest loop
//! that does nothing else. The median of the ratios is what a row says; see `docs/performance.md`.
//!
//! ```text
//!   appends.rs  scan.rs  rebuild.rs  modes.rs  pages.rs  stream.rs  follow.rs  serving.rs  full.rs  postgres.rs    what is measured
//!        └─────────┴─────────┴──────────┼──────────┴──────────┴──────────┴─────────┴──────────┘
//!                 pair.rs: in turns, medians        ledger.rs: the events      floor.rs: the bare disk
//!                              └──▶ report.rs: the table, JSON, docs/performance.md
//! ```

mod appends;
mod bench;
mod cluster;
mod floor;
mod follow;
mod full;
mod ledger;
mod machine;
mod modes;
mod pages;
mod pair;
mod postgres;
mod postgres_rebuild;
mod rebuild;
mod report;
mod scan;
mod serving;
mod stream;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dacapo::Node;

use bench::{Bench, Done};
use report::Row;

/// Measures dacapo against floors of the same run and prints one table of ratios.
#[derive(Debug, Parser)]
struct Args {
    /// Only the rows whose names begin with this; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Small sizes: whether it runs is what is checked, the figures say little.
    #[arg(long)]
    quick: bool,
    /// Also the rows over five million events, which take about 2 GB of disk.
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Print the rows as JSON.
    #[arg(long)]
    json: bool,
    /// Put the table into this document, between its marks.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "docs/performance.md")]
    write: Option<PathBuf>,
    /// The date in the document; today unless given.
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<String>,
    /// Where to keep the data meanwhile; in the build's directory unless given.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// What a child process of this program is to do.
    #[command(subcommand)]
    child: Option<full::Child>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Done {
    if let Some(child) = &args.child {
        return child.run().await;
    }
    let bench = Bench::new(args.quick, args.full, args.only.clone(), &args.dir)?;
    let load = machine::load()?;
    let rows = measure(&bench).await?;
    if rows.is_empty() {
        let known = "their names are below the table of docs/performance.md; some need --full, some PostgreSQL";
        return Err(format!("no row was measured, none begins with {}: {known}", args.only.join(" or ")).into());
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
    } else {
        writeln!(out, "{}", report::table(&rows))?;
    }
    if let Some(document) = &args.write {
        let machine = machine::facts(bench.dir.path(), args.date, load)?;
        report::write(document, &machine, &rows)?;
    }
    Ok(())
}

async fn measure(bench: &Bench) -> Done<Vec<Row>> {
    let mut rows = appends::rows(bench).await?;
    if bench.wants_any(&[scan::NAMES, rebuild::NAMES, modes::NAMES, stream::NAMES]) {
        let ledger = ledger::Ledger::fill(bench).await?;
        rows.extend(scan::rows(bench, &ledger).await?);
        let node = Node::builder().store(ledger.store.clone()).start().await?;
        rows.extend(rebuild::rows(bench, &ledger, &node).await?);
        rows.extend(modes::rows(bench, &ledger, &node).await?);
        // It closes the journal, which is opened again from here on.
        node.shutdown().await;
        rows.extend(stream::rows(bench, &ledger).await?);
    }
    rows.extend(pages::rows(bench).await?);
    rows.extend(follow::rows(bench).await?);
    rows.extend(serving::rows(bench).await?);
    rows.extend(full::rows(bench).await?);
    rows.extend(postgres::rows(bench).await?);
    rows.extend(postgres_rebuild::rows(bench).await?);
    rows.extend(cluster::rows(bench).await?);
    Ok(rows)
}

/// Prints the progress.
fn say(text: &str) {
    // Nobody may be listening, and the table is what counts.
    writeln!(std::io::stderr(), "{text}").unwrap_or_default();
}
