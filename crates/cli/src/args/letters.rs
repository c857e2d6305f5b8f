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
    /// Drop events that were set aside: the view does without them
    Drop(SettleLetters),
    /// Set aside the event at which a segment halts, so that the segment continues
    #[command(mut_arg("reason", |arg| arg.required(true)))]
    SetAside(SetAside),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListLetters {
    /// The projection
    #[arg(required = true, value_parser = given::projection)]
    pub projection: Option<String>,
    /// The version, such as v1.1. Default: the only one that has any
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// List failed effects instead of events
    #[arg(long)]
    pub effects: bool,
    /// Only events after this position; for effects, only those after this number
    #[arg(long, value_name = "N", value_parser = given::number::<u64>)]
    pub after: Option<u64>,
    /// Most letters to list
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU32>)]
    pub limit: Option<NonZeroU32>,
    /// Print one JSON object a line
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
    /// The version, such as v1.1. Default: the only one that halts there
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
    /// The version, such as v1.1. Default: the only one that has any
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// The event at this position
    #[arg(long, value_name = "N", value_parser = given::within(1..=u64::MAX))]
    pub event: Option<u64>,
    /// The events of this stream
    #[arg(long, value_name = "STREAM", value_parser = given::stream)]
    pub stream: Option<String>,
    /// All events
    #[arg(long)]
    pub all: bool,
    /// Failed effects instead of events
    #[arg(long)]
    pub effects: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}
