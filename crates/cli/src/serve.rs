//! `dacapo serve`.

use dacapo_server::{Access, Hosts, asked_to_end, bind, router};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Serve;
use crate::error::CliError;
use crate::local::{self, Missing};
use crate::output::Out;

/// Runs a node until Ctrl-C or SIGTERM, then lets go of everything in order.
pub(crate) async fn serve(out: &mut Out, args: Serve) -> Result<(), CliError> {
    let log = tracing_subscriber::fmt().with_max_level(args.log).with_writer(std::io::stderr).finish();
    log.try_init().map_err(CliError::new)?;
    let access = if args.allow_remote { Access::Remote } else { Access::Loopback };
    let hosts = Hosts::named(args.hosts.iter().map(String::as_str).chain(own_host(args.shared.address.as_deref())))?;
    // The address comes first: to open a large directory only to find the port taken helps nobody.
    let listener = bind(args.listen, access).await?;
    let at = format!("http://{}", listener.local_addr().map_err(CliError::new)?);
    let end = asked_to_end()?;
    let (opened, place) = match &args.shared.store {
        Some(url) => local::share(url, &args.shared, &at).await?,
        None => {
            let place = args.data.as_ref().map(|data| data.display().to_string());
            let place = place.unwrap_or_else(|| "memory: gone when it ends".to_owned());
            (local::open(args.data.as_deref(), Missing::Make).await?, place)
        }
    };
    out.line(format_args!("listening on {at}, data in {place}"))?;
    out.flush()?;
    let served = dacapo_server::serve(listener, router(opened.api, &hosts), end).await;
    opened.close.await;
    Ok(served?)
}

/// The host of the address at which others reach this node: what the operator says there is a name that was given.
fn own_host(address: Option<&str>) -> Option<&str> {
    let (_, rest) = address?.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // What has a second colon before the port is an IP address, which needs no word.
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    (!host.is_empty() && !host.starts_with('[')).then_some(host)
}
