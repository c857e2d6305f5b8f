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

/// What to do about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make it.
    Make,
    /// Say so.
    Refuse,
}

/// Opens a node without projections of its own on the directory `data`, or in memory.
pub(crate) async fn open(data: Option<&Path>, missing: Missing) -> Result<Opened, ApiError> {
    let builder = Node::builder();
    let builder = match data {
        Some(data) if missing == Missing::Refuse && !data.join("format").exists() => {
            let problem = Problem::new("no_data", format!("{} holds no data of dacapo", data.display()));
            let problem = problem.tried(format!("open a node on {}", data.display()));
            return Err(problem
                .help("see whether the path is right; `serve` and `import` begin a new directory")
                .not_found());
        }
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
