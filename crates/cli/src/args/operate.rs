//! Operations on versions.

use super::{Target, Who};
use crate::given;

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
