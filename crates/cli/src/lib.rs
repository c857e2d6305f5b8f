//! The command line of dacapo.
//!
//! Every command but `serve` talks to a node through [`dacapo_api::Api`], over HTTP or to one that is
//! opened in this process. This crate owns words, tables and exit codes; it decides nothing. The
//! importer, [`import`], is usable by itself.

#![warn(clippy::unwrap_used, clippy::expect_used)]

mod args;
mod connect;
mod database;
mod demo;
mod effects;
mod error;
mod events;
mod exit;
mod given;
pub mod import;
mod import_command;
mod letters;
mod limits;
mod local;
mod numbers;
mod operate;
mod output;
mod phases;
mod progress;
mod repair;
mod serve;
mod shown;
mod status;
mod verify;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::args::Args;
use crate::error::CliError;

/// Runs the command line of this process: 0 when it did what was asked, 2 when it was asked wrongly, and a number that
/// says why when it could not; see `docs/exit-codes.md`.
pub fn main() -> ExitCode {
    let mut commands = given::without_empty_variables(Args::command());
    let found = commands.try_get_matches_from_mut(std::env::args_os());
    let found = found.and_then(|found| given::check_used(&mut commands, &found).map(|()| found));
    let args = found.and_then(|found| Args::from_arg_matches(&found));
    let args = args.unwrap_or_else(|error| given::escaped(given::with_variable(error)).exit());
    let json = args.command.says_json();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return error::report(&CliError::new(format!("cannot start: {error}")), json),
    };
    let done = runtime.block_on(args.command.run());
    // A thread that reads standard input cannot be stopped, and must not keep the process from ending.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error::report(&error, json),
    }
}
