//! The arguments of the command line.

mod events;
mod letters;
mod node;
mod operate;

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand};

use crate::given;

pub(crate) use events::{Append, Import, Read, Streams};
pub(crate) use letters::{Letters, ListLetters, SetAside, Settle, SettleLetters};
pub(crate) use node::{Phases, Repair, Serve, Shared, Status};
pub(crate) use operate::{Cancel, CancelWhat, Cleanup, Flip, Pause, Rebuild, Replay, ReplayFrom, Verify};

/// Event sourcing with read models that are rebuilt without downtime.
#[derive(Debug, Parser)]
#[command(
    name = "dacapo",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not found, 5 unavailable, 6 not verified, \
                  7 damaged, 8 status shows that an operator is needed."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node and serve its HTTP API
    Serve(Serve),
    /// Show the whole path in one command: fill, rebuild under traffic, flip, roll back, clean up
    #[command(after_help = crate::demo::EXPLAINED)]
    Demo(crate::demo::DemoArgs),
    /// Import events from JSON lines, plain or gzip; a second import of the same changes nothing
    #[command(
        after_help = "The format is one JSON object a line with `stream`, `type` and `data`; see docs/import.md."
    )]
    Import(Import),
    /// Append one event to a stream
    Append(Append),
    /// Read events
    Read(Read),
    /// List streams
    Streams(Streams),
    /// Show the node, its projections, and the reasons that they wait on
    #[command(after_help = "It exits with 8 if something is blocked until an operator does something about it.")]
    Status(Status),
    /// Build a new version of a projection beside the serving one
    Rebuild(Rebuild),
    /// Move readers to another version
    Flip(Flip),
    /// Move readers back to the version that served before
    #[command(mut_arg("to", |arg| arg.help("Back to this version, such as v1.1. Default: the one that served last")))]
    Rollback(Flip),
    /// Replay past events through a version again, in its own view, if its projection supports it
    Replay(Replay),
    /// Drop the view of a version that does not serve
    Cleanup(Cleanup),
    /// Cancel a request that has not happened yet: a flip, a rebuild, a clean-up, a replay in place
    Cancel(Cancel),
    /// Stop applying events to a version until it is resumed
    Pause(Pause),
    /// Apply events to a version again, and retry at once what its handler refused
    #[command(mut_arg("version", |arg| arg.help("The version, such as v1.1; where absent, the one that is paused")))]
    Resume(Pause),
    /// List the events that a version has set aside, or effects that fail; retry or drop them
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Letters(Letters),
    /// Show the report on a version before readers move to it; verify it again, or waive the verdict
    #[command(after_help = "It exits with 6 if the version did not pass and nobody has waived the verdict.")]
    Verify(Verify),
    /// Show the changes of versions, with who requested each and why
    Phases(Phases),
    /// Show the damage of the journal in a directory and its possible repair; carry it out with --apply
    Repair(Repair),
}

impl Command {
    /// Returns true if the answer, and any error, is to be JSON.
    pub fn says_json(&self) -> bool {
        match self {
            Self::Serve(_) | Self::Demo(_) => false,
            Self::Repair(args) => args.json,
            Self::Import(args) => args.json,
            Self::Append(args) => args.json,
            Self::Read(args) => args.json,
            Self::Streams(args) => args.json,
            Self::Status(args) => args.json,
            Self::Rebuild(args) => args.who.json,
            Self::Flip(args) | Self::Rollback(args) => args.who.json,
            Self::Replay(args) => args.who.json,
            Self::Cleanup(args) => args.who.json,
            Self::Cancel(args) => args.who.json,
            Self::Pause(args) | Self::Resume(args) => args.who.json,
            Self::Letters(args) => match &args.settle {
                Some(Settle::Retry(args) | Settle::Drop(args)) => args.who.json,
                Some(Settle::SetAside(args)) => args.who.json,
                None => args.list.json,
            },
            Self::Verify(args) => args.who.json,
            Self::Phases(args) => args.json,
        }
    }
}

/// The node to talk to.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub at: At,
    /// Open this directory in this process instead; no other process may have it open
    #[arg(long = "data", visible_alias = "data-dir", value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// A running node.
#[derive(Debug, clap::Args)]
pub(crate) struct At {
    /// The address of a running node
    #[arg(
        long = "at",
        value_name = "URL",
        env = "DACAPO_AT",
        hide_env_values = true,
        default_value = "http://127.0.0.1:7373",
        value_parser = given::node
    )]
    pub url: String,
}

/// The caller of a change of the catalog, and the reason. Both are kept with the change.
#[derive(Debug, clap::Args)]
pub(crate) struct Who {
    /// The person or program that requests the change
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
    pub actor: Option<String>,
    /// The reason
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// An idempotency key: a second request under the same key is not carried out again
    #[arg(long = "key", value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub key: Option<String>,
    /// Print the answer, or the error, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_contradict_themselves_nowhere() {
        Args::command().debug_assert();
    }
}
