//! Events and effects that are set aside.

use std::num::NonZeroU32;

use clap::Subcommand;

use super::{Target, Who};
use crate::given;

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
