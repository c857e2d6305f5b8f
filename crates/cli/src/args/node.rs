//! The arguments of a node and of its status.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Target;
use crate::{given, limits};

#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    /// The directory; no process may have it open
    #[arg(long = "data", visible_alias = "data-dir", value_name = "DIR")]
    pub data: PathBuf,
    /// Carry out the repair. Anything that is cut off is kept in a file beside it
    #[arg(long)]
    pub apply: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Keep everything in this directory. Default without --store: keep it in memory only
    #[arg(long, value_name = "DIR", conflicts_with = "store")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub shared: Shared,
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7373")]
    pub listen: SocketAddr,
    /// Listen on an address that other machines can reach. There is no authentication: everyone who reaches the port
    /// can do everything
    #[arg(long)]
    pub allow_remote: bool,
    /// Answer requests for this host, as a proxy or other machines name the node; may be given several times.
    /// Requests for IP addresses, localhost and the host of --address are always answered
    #[arg(long = "host", value_name = "NAME", value_parser = given::host)]
    pub hosts: Vec<String>,
    /// The level of the log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "DACAPO_LOG", hide_env_values = true, default_value = "info")]
    pub log: tracing::level_filters::LevelFilter,
}

/// A node that shares a database with others.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// Keep everything in this PostgreSQL database (14 or later), which other nodes share:
    /// postgres://user@host:5432/name. Of several hosts the one that takes writes is used. If it contains a password,
    /// set DACAPO_STORE instead: other users of the machine can see a command line
    #[arg(long, value_name = "URL", env = "DACAPO_STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// The schema of the journal in that database; it is made if it does not exist
    #[arg(long, value_name = "NAME", env = "DACAPO_SCHEMA", default_value = "dacapo")]
    pub schema: String,
    /// Most connections for views; the journal, the lease and the listeners have their own
    #[arg(
        long,
        value_name = "N",
        default_value_t = limits::CONNECTIONS_MAX,
        value_parser = given::number::<u32>
    )]
    pub connections: u32,
    /// The name of this node for people. Default: the address it listens on
    #[arg(long, value_name = "NAME", env = "DACAPO_NAME")]
    pub name: Option<String>,
    /// The address of this node for other nodes, such as http://10.0.0.7:7373. Default: the address it listens on
    #[arg(long, value_name = "URL", env = "DACAPO_ADDRESS", value_parser = given::address)]
    pub address: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Show it again every second, until Ctrl-C
    #[arg(long, short, conflicts_with = "json")]
    pub watch: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Phases {
    /// Only this projection
    #[arg(value_parser = given::projection)]
    pub projection: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}
