//! The connection from the command line to a node.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use dacapo_api::{Api, ClientLimits, HttpClient};

use crate::args::{At, Target};
use crate::error::CliError;
use crate::local::{self, Missing, Opened};

/// Calls `ask` with the node that the command line names, and closes the node whatever it answers. A directory that
/// does not exist is an error: its name was mistyped.
pub(crate) async fn with<T, F>(target: &Target, ask: impl FnOnce(Arc<dyn Api>) -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    with_node(&target.at, target.data.as_deref(), Missing::Refuse, ask).await
}

/// Does the same for a command that only looks: it changes nothing in a directory, and continues no work there.
pub(crate) async fn look<T, F>(target: &Target, ask: impl FnOnce(Arc<dyn Api>) -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    match &target.data {
        Some(data) => asked(local::look(data).await?, ask).await,
        None => with(target, ask).await,
    }
}

/// Does the same for a command that may make a directory, or whose `--data` means something else.
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
