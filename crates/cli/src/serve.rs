//! `dacapo serve`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use dacapo_server::{Access, Hosts, asked_to_end, bind, router};
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::CliError;
use crate::given::{has_password, host_of_address};
use crate::local::{self, Missing};
use crate::output::Out;
use crate::{given, limits};

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

/// Runs a node until Ctrl-C, SIGTERM or SIGHUP, then closes everything in order.
pub(crate) async fn serve(out: &mut Out, args: Serve) -> Result<(), CliError> {
    // Colours are for a person who has not refused them (no-color.org).
    let no_colours = std::env::var_os("NO_COLOR").is_some_and(|word| !word.is_empty());
    let colours = std::io::stderr().is_terminal() && !no_colours;
    let log = tracing_subscriber::fmt().with_max_level(args.log).with_writer(std::io::stderr).with_ansi(colours);
    let log = log.finish();
    log.try_init().map_err(CliError::new)?;
    if args
        .shared
        .store
        .as_deref()
        .is_some_and(|url| has_password(url) && std::env::args_os().any(|arg| arg.to_string_lossy().contains(url)))
    {
        tracing::warn!(
            "the password of the database is on the command line, where everyone who lists processes sees it: set \
            DACAPO_STORE instead of --store"
        );
    }
    let access = if args.allow_remote { Access::Remote } else { Access::Loopback };
    // The host of the address for other nodes is a name that the operator gave.
    let own = args.shared.address.as_deref().and_then(host_of_address);
    let hosts = Hosts::named(args.hosts.iter().chain(&own))?;
    // The address is bound first: opening a large directory only to find the port taken helps nobody.
    let listener = bind(args.listen, access).await?;
    let at = format!("http://{}", listener.local_addr().map_err(CliError::new)?);
    let end = asked_to_end()?;
    let (opened, place) = match &args.shared.store {
        Some(url) => local::share(url, &args.shared, &at).await?,
        None => {
            let place = args.data.as_ref().map(|data| data.display().to_string());
            let place = place.unwrap_or_else(|| "memory: lost when it ends".to_owned());
            (local::open(args.data.as_deref(), Missing::Make).await?, place)
        }
    };
    out.line(format_args!("listening on {at}, data in {place}"))?;
    out.flush()?;
    let served = dacapo_server::serve(listener, router(opened.api, &hosts), end).await;
    opened.close.await;
    Ok(served?)
}
