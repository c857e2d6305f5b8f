//! Opening a node in this process: the one place where that happens.

use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use dacapo::store::StoreError;
use dacapo::{Node, NodeBuilder, StartError};
use dacapo_api::{Api, ApiError, Problem};
use dacapo_server::NodeApi;

use crate::database;
use crate::error::CliError;
use crate::serve::Shared;

/// A node to talk to, and the way to close it.
pub(crate) struct Opened {
    /// Its API.
    pub api: Arc<dyn Api>,
    /// Closes it in order. A node in this process must be closed before the process ends.
    pub close: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The reaction to a directory that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make it.
    Make,
    /// Report an error.
    Refuse,
}

/// Opens a node without projections of its own on the directory `data`, or in memory.
pub(crate) async fn open(data: Option<&Path>, missing: Missing) -> Result<Opened, ApiError> {
    if let Some(data) = data.filter(|_| missing == Missing::Refuse) {
        is_there(data)?;
    }
    Ok(opened(start(data).await?, "dacapo"))
}

/// Opens a node on the directory `data` that only looks: it changes nothing there and carries nothing on.
pub(crate) async fn look(data: &Path) -> Result<Opened, ApiError> {
    is_there(data)?;
    let node = Node::builder().data(data).looks().start().await.map_err(|error| not_started(&error))?;
    Ok(opened(node, "dacapo"))
}

/// Checks whether the directory holds data, or what is left of it. What cannot be looked at may be there.
pub(crate) fn is_there(data: &Path) -> Result<(), ApiError> {
    let tried = format!("open a node on {}", data.display());
    let exists = |name: &str| match data.join(name).try_exists() {
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
        found => found,
    };
    match exists("format").and_then(|format| Ok(format || exists("journal")?)) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let problem = Problem::new("no_data", format!("{} contains no data of dacapo", data.display()));
            let help = "check the path; `serve` and `import` make a new directory";
            Err(problem.tried(tried).help(help).not_found())
        }
        Err(error) => {
            let problem = Problem::new("unavailable", format!("cannot read the directory {}: {error}", data.display()));
            let help = "check that the user of this process may read and write the directory and its contents";
            Err(problem.tried(tried).found(error).help(help).unavailable())
        }
    }
}

/// Opens a node without projections of its own on the database at `url`, which it shares with others; it listens `at`
/// that address. Tells where the database is, too.
pub(crate) async fn share(url: &str, shared: &Shared, at: &str) -> Result<(Opened, String), CliError> {
    let store = database::open(url, shared).await?;
    let place = store.description.clone();
    let name = shared.name.as_deref().unwrap_or(at);
    let builder = Node::builder().store(store).name(name).address(shared.address.as_deref().unwrap_or(at));
    let node = builder.start().await.map_err(|error| not_started(&error))?;
    Ok((opened(node, name), place))
}

fn opened(node: Node, name: &str) -> Opened {
    let api = Arc::new(NodeApi::new(node.clone(), name));
    Opened { api, close: Box::pin(async move { node.shutdown().await }) }
}

/// Starts a node that carries nothing yet on the directory `data`, or in memory.
pub(crate) async fn start(data: Option<&Path>) -> Result<Node, ApiError> {
    let builder = Node::builder();
    let builder = data.into_iter().fold(builder, NodeBuilder::data);
    builder.start().await.map_err(|error| not_started(&error))
}

pub(crate) fn not_started(error: &StartError) -> ApiError {
    let problem = |message: String| Problem::new("cannot_start", message);
    match error {
        StartError::Store(StoreError::Unavailable { tried, found }) => {
            problem(format!("cannot {tried}")).found(found).unavailable()
        }
        StartError::Store(StoreError::Owned { tried, found }) => {
            let help = "to reach a running node, give its address with --at";
            problem(format!("cannot {tried}")).found(found).help(help).unavailable()
        }
        StartError::Store(StoreError::Corrupt { place, found }) => {
            let help = "restore the named file from a backup; nothing was changed";
            problem(format!("{place} is damaged")).found(found).help(help).corrupt()
        }
        error => problem(format!("cannot start a node: {error}")).unavailable(),
    }
}
