//! Opening a node in this process: the one place where that happens.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use dacapo_api::{Api, ApiError, Problem};

/// A node to talk to, and how to let go of it.
pub(crate) struct Opened {
    /// What it answers.
    pub api: Arc<dyn Api>,
    /// Lets go of it in order. A node in this process must be closed before the process ends.
    pub close: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Opens a node on the directory `data`, or in memory.
pub(crate) async fn open(data: Option<&Path>) -> Result<Opened, ApiError> {
    let place = data.map_or("in memory".to_owned(), |data| format!("on {}", data.display()));
    let problem = Problem::new("no_local_node", "this build of dacapo cannot open a node of its own");
    let problem = problem.tried(format!("open a node {place}")).found("a build without the node");
    Err(problem.help("talk to a running node with --at URL").invalid())
}
