//! Events and streams.

use std::num::NonZeroU64;
use std::path::PathBuf;

use dacapo_api::RevisionDemand;

use super::{At, Target};
use crate::given;

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
    // Not the directory that other commands call so.
    #[arg(id = "payload", long = "data", value_name = "JSON", value_parser = given::json)]
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
