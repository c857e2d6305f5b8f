//! From the command line to a node.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use dacapo_api::{Api, ClientLimits, HttpClient};

use crate::args::{At, Target};
use crate::error::CliError;
use crate::local::{self, Missing, Opened};

/// Calls `ask` with the node that the command line names, and lets go of the node whatever it answers. A
/// directory that is not there is an error: whoever looks at it has mistyped it.
pub(crate) async fn with<T, F>(target: &Target, ask: impl FnOnce(Arc<dyn Api>) -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    with_node(&target.at, target.data.as_deref(), Missing::Refuse, ask).await
}

/// The same, for a command that only looks: in a directory that it opens nothing is changed, and nothing carried on.
pub(crate) async fn look<T, F>(target: &Target, ask: impl FnOnce(Arc<dyn Api>) -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    match &target.data {
        Some(data) => asked(local::look(data).await?, ask).await,
        None => with(target, ask).await,
    }
}

/// The same, for a command that may begin a directory or whose `--data` is something else.
pub(crate) async fn with_node<T, F>(
    at: &At,
    data: Option<&Path>,
    missing: Missing,
    ask: impl FnOnce(Arc<dyn Api>) -> F,
) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    let opened = match data {
        Some(data) => local::open(Some(data), missing).await?,
        None => {
            let client = HttpClient::new(&at.url, ClientLimits::default())?;
            Opened { api: Arc::new(client), close: Box::pin(std::future::ready(())) }
        }
    };
    asked(opened, ask).await
}

async fn asked<T, F>(opened: Opened, ask: impl FnOnce(Arc<dyn Api>) -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    let answer = ask(opened.api).await;
    opened.close.await;
    answer
}
