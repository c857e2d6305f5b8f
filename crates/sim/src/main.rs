//! dacapo in a simulated world: its own code on simulated time, network and disk, with faults from a seed, and
//! checkers that know what must hold.
//!
//! ```text
//!   clients, operator ──HTTP over a simulated network──▶ node: the product's own code ──▶ disk (outlives crashes)
//!          │ keep books                                    ▲ crashes, restarts, take-overs     │ keeps a log
//!          ▼                                               │                                   ▼
//!       books ───────────────────────▶ checkers ◀──────────┴────── journal, views, log ────────┘
//! ```
//!
//! One process runs one seed, since what makes it deterministic can be set up once: everything runs on one thread;
//! time is simulated; anyone who asks the operating system for random bytes gets those of the seed.

mod books;
mod check;
mod clients;
mod disk;
mod effects;
mod http;
mod ledger;
mod limits;
mod node;
mod operator;
mod run;
mod trouble;
mod upgrade;
mod world;

use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::world::locked;

/// Runs dacapo in a simulated world and checks what came of it.
#[derive(Parser)]
struct Args {
    /// The seed from which everything follows.
    #[arg(long)]
    seed: u64,
    /// Print all that happened, with its simulated times.
    #[arg(long)]
    trace: bool,
    /// Print the log of the nodes.
    #[arg(long)]
    log: bool,
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn main() -> ExitCode {
    let args = Args::parse();
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(args.seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    fastrand::seed(args.seed);
    if args.log {
        tracing_subscriber::fmt().without_time().with_ansi(false).init();
    }
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("without a message");
        if !message.starts_with(trouble::PLANNED) {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            locked(&PANICS).push(format!("a panic at {place}: {message}"));
        }
    }));
    let world = run::run(args.seed);
    for panic in std::mem::take(&mut *locked(&PANICS)) {
        world.violated(panic);
    }
    let (lines, hash) = world.trace();
    if args.trace {
        for line in &lines {
            println!("{line}");
        }
    }
    let violations = world.violations();
    let books = locked(&world.books);
    println!(
        "seed {} trace {hash:016x} appends {} answers {} lines {} violations {}",
        args.seed,
        books.appends.len(),
        books.seen.len(),
        lines.len(),
        violations.len()
    );
    // The first ones of each kind: many of one must not hide another.
    let mut told = std::collections::BTreeMap::<&str, usize>::new();
    for violation in &violations {
        let kind = violation.split_once(':').map_or("", |(kind, _)| kind);
        let told = told.entry(kind).or_default();
        *told += 1;
        if *told <= limits::TOLD_EACH_MAX {
            println!("  {violation}");
        }
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
