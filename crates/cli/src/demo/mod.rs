//! `dacapo demo`: the whole path in one process, under traffic, and an account of it at the end.
//!
//! ```text
//!   fill ─▶ version 1 serves ─▶ clients begin ─▶ rebuild version 2 ─▶ flip ─▶ roll back ─▶ flip ─▶ clean up ─▶ audit
//!                               └──────────── append and read, and keep their own books ────────────────────┘
//! ```
//!
//! What it reports of losses is found without the machinery that it reports on: every client knows what
//! it appended and was shown, and at the end every balance is compared with a plain fold of the journal.

mod audit;
mod bank;
mod books;
mod fill;
mod report;
mod run;
mod traffic;

use std::net::SocketAddr;
use std::path::PathBuf;

use dacapo_api::{ApiError, Problem};
use dacapo_server::asked_to_end;

use crate::error::CliError;
use crate::given;
use crate::numbers::counted;
use crate::output::Out;
use report::Summary;
use run::Demo;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The number of events that the bank is filled with
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = given::within(1..=u64::MAX))]
    events: u64,
    /// Over how many accounts
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = given::within(1..=u64::MAX))]
    accounts: u64,
    /// Number of clients that append and read meanwhile, each as fast as it gets answers
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = given::within(1_u16..=1024))]
    clients: u16,
    /// Keep everything in this directory, which must be new or empty; in a temporary one when absent
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Stay up at the end, to look around with `dacapo status`, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// The address at which `dacapo status` finds the demo while it runs. Default: 127.0.0.1:7373, or another
    /// port if that one is taken
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// The text of `--help` below the options.
pub(crate) const EXPLAINED: &str = "\
A bank is filled with events, and version 1 of a view of its balances serves. Then clients append and read \
without a pause while version 2, of another shape, is built from the past, flipped to, rolled back from, \
flipped to again, and version 1 is cleaned up.

Every client keeps its own books, and at the end every balance is compared with a plain fold of the journal. \
The exit code is 1 if a request failed, an event was lost or applied twice, or a reader was sent back in time.";

/// Runs the demo; what is not as it must be at its end is an error.
pub(crate) async fn demo(out: &mut Out, args: DemoArgs) -> Result<(), CliError> {
    if args.events < args.accounts {
        let (events, accounts) = (counted(args.events, "event"), counted(args.accounts, "account"));
        let problem = Problem::new("usage", format!("{events} cannot open {accounts}"));
        return Err(problem.help("raise --events or lower --accounts").into());
    }
    args.data.as_deref().map(run::is_new_or_empty).transpose()?;
    let mut end = std::pin::pin!(asked_to_end()?);
    let temporary = args.data.is_none().then(tempfile::tempdir).transpose();
    let temporary = temporary.map_err(|error| ApiError::unavailable("make a temporary directory", error))?;
    let directory = args.data.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path));
    #[expect(clippy::expect_used, reason = "one of the two is there")]
    let directory = directory.expect("without --data there is a temporary directory");

    let demo = Demo::start(&args, directory).await?;
    let ran = tokio::select! {
        ran = demo.run() => ran.map_err(CliError::from),
        () = &mut end => Err(broken_off()),
    };
    let told = ran.and_then(|summary| tell(out, &summary, args.json).map(|()| summary));
    if args.keep && told.is_ok() {
        run::say(&format!("it stays up until Ctrl-C: dacapo status --at http://{}", demo.address()));
        end.await;
    }
    let ended = demo.end().await;
    if args.data.is_some() {
        run::say(&format!("the data is kept in {}", directory.display()));
    }
    let summary = told?;
    ended?;
    if summary.is_good() { Ok(()) } else { Err(report::fault(&summary).into()) }
}

fn tell(out: &mut Out, summary: &Summary, json: bool) -> Result<(), CliError> {
    if json {
        out.json(&report::form(summary))?
    } else {
        out.text(&report::table(summary))?
    }
    out.flush()
}

fn broken_off() -> CliError {
    let problem = Problem::new("broken_off", "the demo was ended before its audit, so it shows nothing");
    problem.help("run it again; --events makes it shorter").into()
}
