//! What can be asked on the command line.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand};
use dacapo_api::RevisionDemand;

use crate::given;

/// Event sourcing whose read models are rebuilt without downtime.
#[derive(Debug, Parser)]
#[command(
    name = "dacapo",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 asked wrongly, 3 refused, 4 not found, 5 unavailable, 6 not found right, \
                  7 damaged, 8 status shows what needs somebody."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node and serve its HTTP API
    Serve(Serve),
    /// See the whole path in one command: fill, rebuild under traffic, flip, roll back, clean up
    #[command(after_help = crate::demo::EXPLAINED)]
    Demo(crate::demo::DemoArgs),
    /// Import events from JSON lines, plain or gzip; doing so again changes nothing
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
    /// Show the node, its projections and what they wait on
    #[command(after_help = "It exits with 8 where something stays as it is until somebody does something about it.")]
    Status(Status),
    /// Build a new version of a projection beside the serving one
    Rebuild(Rebuild),
    /// Move readers to another version
    Flip(Flip),
    /// Move readers back to the version that served before
    #[command(mut_arg("to", |arg| arg.help("Back to this version, such as v1.1; to the one that served last when absent")))]
    Rollback(Flip),
    /// Let past events go through a version again, in its own view; its projection says whether they may
    Replay(Replay),
    /// Drop the view of a version that does not serve
    Cleanup(Cleanup),
    /// Give up what was asked for and has not happened: a flip, a rebuild, a clean-up, a replay in place
    Cancel(Cancel),
    /// Apply no more events to a version until it is resumed
    Pause(Pause),
    /// Apply events to a version again, and try at once what its handler refused
    #[command(mut_arg("version", |arg| arg.help("The version, such as v1.1; where absent, the one that is paused")))]
    Resume(Pause),
    /// List the events that a version has set aside, or effects that fail; retry them, or give them up
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Letters(Letters),
    /// Show what was found of a version before readers move to it; verify it again, or answer for it
    #[command(after_help = "It exits with 6 where the version was not found right and nobody answers for it.")]
    Verify(Verify),
    /// Show what happened to versions, who asked for it and why
    Phases(Phases),
    /// Show what is wrong with the journal in a directory and what can be done about it; do it with --apply
    Repair(Repair),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    /// The directory; no process may have it open
    #[arg(long = "data", visible_alias = "data-dir", value_name = "DIR")]
    pub data: PathBuf,
    /// Do what is shown without it. What is cut off is kept in a file beside
    #[arg(long)]
    pub apply: bool,
    /// Answer as JSON
    #[arg(long)]
    pub json: bool,
}

impl Command {
    /// Whether the answer is to be JSON, and so is the error.
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

/// Which node to talk to.
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

/// Who asks for a change of the catalog, and why. Both are kept with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Who {
    /// Who asks
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
    pub actor: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Ask under this key: what was asked under it before is not done again
    #[arg(long = "key", value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub key: Option<String>,
    /// The answer, or the error, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Keep everything in this directory; in memory only without it and without --store
    #[arg(long, value_name = "DIR", conflicts_with = "store")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub shared: Shared,
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7373")]
    pub listen: SocketAddr,
    /// Listen on an address that other machines can reach. There is no authentication: whoever reaches
    /// the port can do everything
    #[arg(long)]
    pub allow_remote: bool,
    /// Answer requests that ask for this host, as a proxy or other machines name the node; may be given several times.
    /// IP addresses, localhost and the host of --address are always answered
    #[arg(long = "host", value_name = "NAME", value_parser = given::host)]
    pub hosts: Vec<String>,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "DACAPO_LOG", hide_env_values = true, default_value = "info")]
    pub log: tracing::level_filters::LevelFilter,
}

/// A node that shares a database with others.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// Keep everything in this PostgreSQL database (14 or later), which other nodes share:
    /// postgres://user@host:5432/name; of several hosts the one that takes writes is used. With a password
    /// in it, set DACAPO_STORE instead: what is on a command line can be seen
    #[arg(long, value_name = "URL", env = "DACAPO_STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// The schema of the journal in that database; it is made if it is not there
    #[arg(long, value_name = "NAME", env = "DACAPO_SCHEMA", default_value = "dacapo")]
    pub schema: String,
    /// Most connections for views; the journal, the lease and what listens have their own
    #[arg(
        long,
        value_name = "N",
        default_value_t = dacapo_postgres::limits::CONNECTIONS_MAX,
        value_parser = given::number::<u32>
    )]
    pub connections: u32,
    /// What people call this node; the address it listens on when absent
    #[arg(long, value_name = "NAME", env = "DACAPO_NAME")]
    pub name: Option<String>,
    /// Where others reach this node, such as http://10.0.0.7:7373; the address it listens on when absent
    #[arg(long, value_name = "URL", env = "DACAPO_ADDRESS", value_parser = given::address)]
    pub address: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The file, plain or gzip; - is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Go on behind bad lines, and write them to this file with their numbers and what is wrong
    #[arg(long, value_name = "FILE")]
    pub skip_bad: Option<PathBuf>,
    /// What was done, or the error, as one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Append {
    /// The stream
    #[arg(value_parser = given::stream)]
    pub stream: String,
    /// The type of the event
    #[arg(long = "type", value_name = "TYPE", value_parser = given::event_type)]
    pub event_type: String,
    /// The event's payload; read from standard input when absent
    #[arg(long, value_name = "JSON", value_parser = given::json)]
    pub data: Option<String>,
    /// What the stream's last revision must be: any, no-stream, exists or a number
    #[arg(long, value_name = "REVISION", default_value = "any", value_parser = demand)]
    pub expect: RevisionDemand,
    /// The event's id; appending the same id again writes nothing
    #[arg(long, value_name = "UUID", value_parser = given::event_id)]
    pub id: Option<String>,
    /// A label; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Who asks; kept in the event's metadata
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// Open this directory in this process instead; no other process may have it open
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The answer, or the error, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    /// Only what is after this position or, with --stream, after this revision
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = given::number::<u64>)]
    pub after: u64,
    /// Only of this stream
    #[arg(long, conflicts_with_all = ["categories", "system"], value_parser = given::stream)]
    pub stream: Option<String>,
    /// Only of streams of this category, such as `account` of account-17; may be given several times
    #[arg(long = "category", value_name = "CATEGORY", conflicts_with = "system", value_parser = given::category)]
    pub categories: Vec<String>,
    /// Only of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = given::event_type)]
    pub types: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU64>)]
    pub limit: Option<NonZeroU64>,
    /// With dacapo's own events
    #[arg(long)]
    pub system: bool,
    /// Wait for more at the end
    #[arg(long, short)]
    pub follow: bool,
    /// One JSON object a line, as `import` takes them
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Streams {
    /// Only of this category
    #[arg(long, value_parser = given::category)]
    pub category: Option<String>,
    /// Only what is after this name
    #[arg(long, value_name = "NAME", value_parser = given::stream)]
    pub after: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU64>)]
    pub limit: Option<NonZeroU64>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Show it anew every second, until Ctrl-C
    #[arg(long, short, conflicts_with = "json")]
    pub watch: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rebuild {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// Of this code version; the newest that is carried when absent
    #[arg(long, value_name = "N", value_parser = given::number::<u32>)]
    pub code: Option<u32>,
    /// Begin as a copy of the view that serves, as the code says, and read only what came after
    #[arg(long)]
    pub from_copy: bool,
    /// Take the place of a version that is ready and only has to be flipped to
    #[arg(long)]
    pub discard: bool,
    /// Wait until the new version serves, or is ready and waits for the command to flip
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Flip {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// To this version, such as v2.1; to the newest above the serving one when absent
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub to: Option<String>,
    /// Wait until it has happened
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    #[command(flatten)]
    pub from: ReplayFrom,
    /// Of this version, such as v1.1; of the one that serves when absent
    #[arg(long = "of", value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// Wait for its end
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

/// Where a replay begins. What is named is replayed too.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ReplayFrom {
    /// With the event at this position
    #[arg(long = "from", value_name = "POSITION", value_parser = given::number::<u64>)]
    pub position: Option<u64>,
    /// With the first event recorded at this time or later, such as 2026-03-01T12:00:00Z
    #[arg(long = "from-time", value_name = "TIME", value_parser = given::time)]
    pub time: Option<String>,
    /// With this event
    #[arg(long = "from-event", value_name = "UUID", value_parser = given::event_id)]
    pub event: Option<String>,
    /// With the first event there is
    #[arg(long = "from-start")]
    pub start: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cleanup {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version, such as v1.1
    #[arg(value_parser = given::version)]
    pub version: String,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// What; the only thing that it could be when absent
    pub what: Option<CancelWhat>,
    /// Of this version, such as v2.1; of the only one that it could be when absent
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum CancelWhat {
    /// The requested flip
    Flip,
    /// The building of a version that has not served; its view is dropped
    Rebuild,
    /// The clean-up of a version whose view is not being dropped yet
    Cleanup,
    /// The replay in place
    Replay,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// Of this version, such as v2.1; of the newest that is being built or was verified when absent
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// Verify it again; until that is done the verdict does not count
    #[arg(long)]
    pub again: bool,
    /// Answer for it although it was not found right; --reason is kept with it
    #[arg(long, requires = "reason", conflicts_with = "again")]
    pub waive: bool,
    /// Wait until it is verified
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version, such as v1.1; where absent, the only one there is
    #[arg(value_parser = given::version)]
    pub version: Option<String>,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Letters {
    #[command(subcommand)]
    pub settle: Option<Settle>,
    #[command(flatten)]
    pub list: ListLetters,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Settle {
    /// Hand events that were set aside to the handler again, in the order of their streams
    Retry(SettleLetters),
    /// Give up events that were set aside: the view goes without them
    Drop(SettleLetters),
    /// Set the event aside at which a segment halts, so that it goes on
    #[command(mut_arg("reason", |arg| arg.required(true)))]
    SetAside(SetAside),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListLetters {
    /// The projection
    #[arg(required = true, value_parser = given::projection)]
    pub projection: Option<String>,
    /// Of this version, such as v1.1; where absent, of the only one that has any
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// Effects that were tried in vain, in place of events
    #[arg(long)]
    pub effects: bool,
    /// Only those of events behind this position; of effects, those after this number
    #[arg(long, value_name = "N", value_parser = given::number::<u64>)]
    pub after: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU32>)]
    pub limit: Option<NonZeroU32>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetAside {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// In this version, such as v1.1; where absent, in the only one that halts there
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// The event at this position
    #[arg(long, value_name = "N", value_parser = given::within(1..=u64::MAX))]
    pub event: u64,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["event", "stream", "all"])))]
pub(crate) struct SettleLetters {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// Of this version, such as v1.1; where absent, of the only one that has any
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// The event at this position
    #[arg(long, value_name = "N", value_parser = given::within(1..=u64::MAX))]
    pub event: Option<u64>,
    /// Those of this stream
    #[arg(long, value_name = "STREAM", value_parser = given::stream)]
    pub stream: Option<String>,
    /// All
    #[arg(long)]
    pub all: bool,
    /// Effects that were tried in vain, in place of events
    #[arg(long)]
    pub effects: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Phases {
    /// Only of this projection
    #[arg(value_parser = given::projection)]
    pub projection: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

fn demand(text: &str) -> Result<RevisionDemand, String> {
    match text {
        "any" => Ok(RevisionDemand::Any),
        "no-stream" => Ok(RevisionDemand::NoStream),
        "exists" => Ok(RevisionDemand::Exists),
        number => match given::number(number) {
            Ok(revision) => Ok(RevisionDemand::Exact(revision)),
            Err(_) => Err("write any, no-stream, exists or a number".to_owned()),
        },
    }
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
