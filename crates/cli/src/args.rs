//! The commands, topic by topic, and what several of them have in common. A topic of several commands lists them in its
//! own file. The arguments of a command are beside it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::error::CliError;
use crate::output::Out;
use crate::{demo, events, given, import_command, letters, operate, phases, repair, serve, status, verify};

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
    Serve(serve::Serve),
    /// Show the whole path in one command: fill, rebuild under traffic, flip, roll back, clean up
    #[command(after_help = demo::EXPLAINED)]
    Demo(demo::DemoArgs),
    /// Import events from JSON lines, plain or gzip; a second import of the same changes nothing
    #[command(
        after_help = "The format is one JSON object a line with `stream`, `type` and `data`; see docs/import.md."
    )]
    Import(import_command::Import),
    #[command(flatten)]
    Events(events::Command),
    /// Show the node, its projections, and the reasons that they wait on
    #[command(after_help = "It exits with 8 if something is blocked until an operator does something about it.")]
    Status(status::Args),
    #[command(flatten)]
    Operate(operate::Command),
    #[command(flatten)]
    Letters(letters::Command),
    /// Show the report on a version before readers move to it; verify it again, or waive the verdict
    #[command(after_help = "It exits with 6 if the version did not pass and nobody has waived the verdict.")]
    Verify(verify::Args),
    /// Show the changes of versions, with who requested each and why
    #[command(after_help = "It shows a request about letters, and not its outcome: `dacapo letters` lists what was \
                            refused again, with the number of tries.")]
    Phases(phases::Phases),
    /// Show the damage of the journal in a directory and its possible repair; carry it out with --apply
    Repair(repair::Args),
}

impl Command {
    /// Returns true if the answer, and any error, is to be JSON.
    pub fn says_json(&self) -> bool {
        match self {
            Self::Serve(_) | Self::Demo(_) => false,
            Self::Repair(args) => args.json,
            Self::Import(args) => args.json,
            Self::Events(command) => command.says_json(),
            Self::Status(args) => args.json,
            Self::Operate(command) => command.says_json(),
            Self::Letters(command) => command.says_json(),
            Self::Verify(args) => args.who.json,
            Self::Phases(args) => args.json,
        }
    }

    /// Carries it out.
    pub async fn run(self) -> Result<(), CliError> {
        let out = &mut Out::stdout();
        match self {
            Self::Serve(args) => serve::serve(out, args).await,
            Self::Demo(args) => demo::demo(out, args).await,
            Self::Import(args) => import_command::import(out, args).await,
            Self::Events(command) => command.run(out).await,
            Self::Status(args) => status::status(out, args).await,
            Self::Operate(command) => command.run(out).await,
            Self::Letters(command) => command.run(out).await,
            Self::Verify(args) => verify::verify(out, args).await,
            Self::Phases(args) => phases::phases(out, args).await,
            Self::Repair(args) => repair::repair(out, &args),
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
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, value_parser = given::actor)]
    pub actor: Option<String>,
    /// The reason
    #[arg(long, value_name = "TEXT", value_parser = given::reason)]
    pub reason: Option<String>,
    /// An idempotency key: a second request under the same key is not carried out again
    #[arg(long = "key", value_name = "KEY", value_parser = given::key)]
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

    fn check_versions(command: &clap::Command, commands: &mut Vec<String>) {
        for arg in command.get_arguments() {
            let names = arg.get_value_names().unwrap_or_default();
            if names.iter().any(|name| name == "VERSION") || arg.get_id() == "version" {
                assert_eq!(arg.get_long(), Some("version"), "{}: {arg}", command.get_name());
                commands.push(command.get_name().to_owned());
            }
        }
        command.get_subcommands().for_each(|command| check_versions(command, commands));
    }

    #[test]
    fn each_command_takes_the_version_of_a_projection_in_one_way() {
        let mut commands = vec![];
        check_versions(&Args::command(), &mut commands);
        let all = [
            "flip",
            "rollback",
            "replay",
            "cleanup",
            "cancel",
            "pause",
            "resume",
            "letters",
            "retry",
            "drop",
            "set-aside",
            "verify",
        ];
        assert_eq!(commands, all);
        // The earlier spellings of two of them.
        for line in ["flip balances --to v2.1", "rollback balances --to v1.1", "replay balances --of v1.1 --from 1"] {
            Args::try_parse_from(["dacapo"].into_iter().chain(line.split(' '))).unwrap();
        }
    }
}
