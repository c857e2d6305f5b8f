//! A service on dacapo: accounts over HTTP, with the API of dacapo beside them, so that the command
//! line `dacapo` operates the same process.
//!
//! ```sh
//! cargo run -p dacapo-example-bank -- --data /tmp/bank --versions 1
//! curl -X PUT  http://127.0.0.1:8080/accounts/17 --json '{"owner":"ann"}'
//! curl         http://127.0.0.1:8080/accounts/17/deposits --json '{"amount":500}'
//! dacapo status --at http://127.0.0.1:8080
//! ```
//!
//! Several nodes share a database with `--store postgres://…` in place of `--data`.
//!
//! A new release of the service carries the version that serves and the next one: `--versions 1,2`. The
//! new version is built beside the old one, and `dacapo flip balances` moves the readers to it.

use std::process::ExitCode;

use clap::Parser;
use dacapo::NodeBuilder;
use dacapo_example_bank::service;

/// A bank: accounts over HTTP, on dacapo.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    #[command(flatten)]
    service: service::Settings,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let Args { service: args } = Args::parse();
    let carried: Vec<_> = args.carried().collect();
    match service::run(args, |builder| carried.into_iter().fold(builder, NodeBuilder::projection)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
