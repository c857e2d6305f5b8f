//! `dacapo serve`.

use std::io::IsTerminal;

use dacapo_server::{Access, Hosts, asked_to_end, bind, router};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Serve;
use crate::error::CliError;
use crate::given::{has_password, host_of_address};
use crate::local::{self, Missing};
use crate::output::Out;

/// Runs a node until Ctrl-C or SIGTERM, then closes everything in order.
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
        .is_some_and(|url| has_password(url) && std::env::args().any(|arg| arg.contains(url)))
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
