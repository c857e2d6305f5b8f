//! Opening a node in this process: the one place where that happens.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use dacapo::{Node, StartError};
use dacapo_api::{Api, ApiError, Problem};
use dacapo_server::NodeApi;

/// A node to talk to, and how to let go of it.
pub(crate) struct Opened {
    /// What it answers.
    pub api: Arc<dyn Api>,
    /// Lets go of it in order. A node in this process must be closed before the process ends.
    pub close: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Opens a node without projections of its own on the directory `data`, or in memory.
pub(crate) async fn open(data: Option<&Path>) -> Result<Opened, ApiError> {
    let builder = Node::builder();
    let builder = match data {
        Some(data) => builder.data(data),
        None => builder,
    };
    let node = builder.start().await.map_err(|error| not_started(data, &error))?;
    let api = Arc::new(NodeApi::new(node.clone(), "dacapo"));
    Ok(Opened { api, close: Box::pin(async move { node.shutdown().await }) })
}

fn not_started(data: Option<&Path>, error: &StartError) -> ApiError {
    let place = data.map_or("in memory".to_owned(), |data| format!("on {}", data.display()));
    let problem = Problem::new("cannot_start", format!("cannot open a node {place}: {error}"));
    let problem = problem.tried(format!("open a node {place}")).found(error);
    match error {
        StartError::Store(dacapo::StoreError::Corrupt { .. }) => {
            problem.help("restore the named file from a backup; nothing was changed").corrupt()
        }
        _ => problem.help("to talk to the process that has the directory, use --at with its address").unavailable(),
    }
}
