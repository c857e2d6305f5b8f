//! `dacapo serve`.

use dacapo_server::{Access, asked_to_end, bind, router};
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
    let served = dacapo_server::serve(listener, router(opened.api), access, end).await;
    opened.close.await;
    Ok(served?)
}
