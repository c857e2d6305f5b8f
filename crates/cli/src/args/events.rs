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
    /// Skip bad lines, and write them to this file with their numbers and the errors
    #[arg(long, value_name = "FILE")]
    pub skip_bad: Option<PathBuf>,
    /// Print the result, or the error, as one JSON object
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
    /// The event's payload. Default: read from standard input
    // Here `--data` is not the directory, as it is in other commands.
    #[arg(id = "payload", long = "data", value_name = "JSON", value_parser = given::json)]
    pub data: Option<String>,
    /// The last revision that the stream must have: any, no-stream, exists or a number
    #[arg(long, value_name = "REVISION", default_value = "any", value_parser = demand)]
    pub expect: RevisionDemand,
    /// The event's id; a second append of the same id writes nothing
    #[arg(long, value_name = "UUID", value_parser = given::event_id)]
    pub id: Option<String>,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// The person or program that appends; kept in the event's metadata
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// Open this directory in this process instead; no other process may have it open
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print the answer, or the error, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    /// Only events after this position or, with --stream, after this revision
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = given::number::<u64>)]
    pub after: u64,
    /// Only events of this stream
    #[arg(long, conflicts_with_all = ["categories", "system"], value_parser = given::stream)]
    pub stream: Option<String>,
    /// Only streams of this category, such as `account` of account-17; may be given several times
    #[arg(long = "category", value_name = "CATEGORY", conflicts_with = "system", value_parser = given::category)]
    pub categories: Vec<String>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = given::event_type)]
    pub types: Vec<String>,
    /// Most events to read
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU64>)]
    pub limit: Option<NonZeroU64>,
    /// Include dacapo's own events
    #[arg(long)]
    pub system: bool,
    /// Wait for more events at the end
    #[arg(long, short)]
    pub follow: bool,
    /// Print one JSON object a line, as `import` reads them
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Streams {
    /// Only streams of this category
    #[arg(long, value_parser = given::category)]
    pub category: Option<String>,
    /// Only streams after this name
    #[arg(long, value_name = "NAME", value_parser = given::stream)]
    pub after: Option<String>,
    /// Most streams to list
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU64>)]
    pub limit: Option<NonZeroU64>,
    /// Print one JSON object a line
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
