//! A node with the views of loan applications, beside others on one database.
//!
//! ```sh
//! cargo run -p dacapo-example-loans -- --store postgres://me@localhost/loans
//! dacapo import loan-applications.jsonl.gz --at http://127.0.0.1:7373
//! ```

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use dacapo::options::{RowScope, SegmentCount};
use dacapo::{Node, Options};
use dacapo_example_loans::{LoansV1, LoansV2};
use dacapo_server::{Access, Hosts, NodeApi};

/// Loan applications, on dacapo.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// The PostgreSQL database, which nodes share: postgres://user@host/name
    #[arg(long, value_name = "URL", env = "DACAPO_STORE", hide_env_values = true)]
    store: String,
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7373")]
    listen: SocketAddr,
    /// The versions of the views that this release carries
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2",
          value_parser = clap::value_parser!(u32).range(1..=2))]
    versions: Vec<u32>,
    /// Into how many segments a new build is cut
    #[arg(long, value_name = "N", default_value_t = 4)]
    segments: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let end = dacapo_server::asked_to_end()?;
    let listener = dacapo_server::bind(args.listen, Access::Loopback).await?;
    let at = format!("http://{}", listener.local_addr()?);
    let seed = RandomState::new().hash_one("pauses");
    let store = dacapo_postgres::connect(&args.store, dacapo_postgres::Options { seed, ..Default::default() }).await?;
    // Totals by state are over all applications.
    let options =
        Options { segments: SegmentCount::new(args.segments)?, rows: RowScope::AcrossSegments, ..Options::default() };
    let mut builder = Node::builder().store(store).name(&at).address(&at);
    for version in args.versions {
        let options = options.clone();
        builder = if version == 1 {
            builder.projection(LoansV1 { options })
        } else {
            builder.projection(LoansV2 { options })
        };
    }
    let node = builder.start().await?;
    let app = dacapo_server::router(Arc::new(NodeApi::new(node.clone(), at.clone())), &Hosts::default());
    tracing::info!("listening on {at}");
    let served = dacapo_server::serve(listener, app, end).await;
    node.shutdown().await;
    Ok(served?)
}
