//! Operations on versions.

use super::{Target, Who};
use crate::given;

#[derive(Debug, clap::Args)]
pub(crate) struct Rebuild {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The code version. Default: the newest that is carried
    #[arg(long, value_name = "N", value_parser = given::number::<u32>)]
    pub code: Option<u32>,
    /// Begin as a copy of the view that serves, as the code says, and read only later events
    #[arg(long)]
    pub from_copy: bool,
    /// Replace a version that is ready and only needs a flip
    #[arg(long)]
    pub discard: bool,
    /// Wait until the new version serves, or is ready and waits for the command `flip`
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
    /// The version to serve, such as v2.1. Default: the newest above the serving one
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
    /// The version, such as v1.1. Default: the one that serves
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

/// The beginning of a replay. The event that it names is replayed too.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ReplayFrom {
    /// Begin with the event at this position
    #[arg(long = "from", value_name = "POSITION", value_parser = given::number::<u64>)]
    pub position: Option<u64>,
    /// Begin with the first event recorded at this time or later, such as 2026-03-01T12:00:00Z
    #[arg(long = "from-time", value_name = "TIME", value_parser = given::time)]
    pub time: Option<String>,
    /// Begin with this event
    #[arg(long = "from-event", value_name = "UUID", value_parser = given::event_id)]
    pub event: Option<String>,
    /// Begin with the first event of the journal
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
    /// The change to cancel. Default: the only one that can be cancelled
    pub what: Option<CancelWhat>,
    /// The version, such as v2.1. Default: the only one for which it can be cancelled
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
    /// The version, such as v2.1. Default: the newest that is being built or was verified
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// Verify it again; until that is done the verdict does not count
    #[arg(long)]
    pub again: bool,
    /// Waive the verdict of a version that did not pass; --reason is kept with it
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
    /// The version, such as v1.1. Default: the only one there is
    #[arg(value_parser = given::version)]
    pub version: Option<String>,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}
