//! A node of the service for tests with real processes: its handlers can wait, it can end itself at a step, and its
//! clock can be wrong.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use dacapo::journal::Timestamp;
use dacapo::verify::{Assertion, Comparison};
use dacapo::world::{Clock, Probe, Step, SystemClock};
use dacapo::{Answers, HandlerError, NodeBuilder, Options, Projection, ReadView, Recorded, Table, VersionCode, View};
use dacapo_example_bank::{AccountEvent, Balance, BalanceOf, BalancesV1, BalancesV2, service};
use rustix::process::{Signal, getpid, kill_process};

/// The note of a deposit at which handlers wait.
const WAITS: &str = "wait";

/// The service, with trouble.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    service: service::Settings,
    /// By how many seconds its clock is wrong
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    off: i64,
    /// How long its handlers wait at a deposit with the note `wait`, in milliseconds
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// A file: when it names the step that was just completed, the node that gets to remove it ends as by kill -9
    #[arg(long, value_name = "FILE")]
    ends: Option<PathBuf>,
}

struct Off(i64);

impl Clock for Off {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().micros() + self.0 * 1_000_000)
    }
}

/// Ends the process at the step that the file names, and no other process with it.
struct Ends(Option<PathBuf>);

impl Probe for Ends {
    fn completed(&self, step: Step) {
        let Some(file) = &self.0 else { return };
        let is_named = std::fs::read_to_string(file).is_ok_and(|named| named == format!("{step:?}"));
        if is_named && std::fs::remove_file(file).is_ok() {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
    }
}

/// A version whose handler waits at some events.
struct Waits<P> {
    inner: P,
    time: Duration,
}

impl<P: Projection<Event = AccountEvent>> Projection for Waits<P> {
    const NAME: &'static str = P::NAME;
    const VERSION: u32 = P::VERSION;
    const TABLES: &'static [Table] = P::TABLES;
    const ASSERTIONS: &'static [Assertion] = P::ASSERTIONS;
    type Event = AccountEvent;

    fn options(&self) -> Options {
        self.inner.options()
    }

    async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
        if matches!(&event.data, AccountEvent::Deposited { note, .. } if note == WAITS) && !self.time.is_zero() {
            tracing::info!("the handler of version {} waits at event {}", P::VERSION, event.position);
            tokio::time::sleep(self.time).await;
        }
        self.inner.apply(event, view).await
    }

    fn comparison(&self, old: u32) -> Comparison {
        self.inner.comparison(old)
    }
}

impl<P: Answers<BalanceOf> + Projection<Event = AccountEvent>> Answers<BalanceOf> for Waits<P> {
    async fn answer(&self, query: &BalanceOf, view: &mut ReadView) -> Result<Option<Balance>, HandlerError> {
        self.inner.answer(query, view).await
    }
}

fn carried(version: u32, options: Options, time: Duration) -> VersionCode {
    match version {
        1 => Waits { inner: BalancesV1 { options }, time }.answering::<BalanceOf>().into(),
        _ => Waits { inner: BalancesV2 { options }, time }.answering::<BalanceOf>().into(),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let Args { service: args, off, wait, ends } = Args::parse();
    let wait = Duration::from_millis(wait);
    let carried: Vec<_> = args.versions.iter().map(|version| carried(*version, args.options(), wait)).collect();
    let with_trouble = |builder: NodeBuilder| {
        let builder = builder.clock(Arc::new(Off(off))).probe(Arc::new(Ends(ends)));
        carried.into_iter().fold(builder, NodeBuilder::projection)
    };
    match service::run(args, with_trouble).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
