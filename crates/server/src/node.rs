//! A node after the API. Each operation is a method of [`Operations`], in the file of its topic: it converts forms by
//! hand, calls the node, and converts back. It decides nothing.

mod errors;

use std::convert::identity;
use std::time::Duration;

use async_trait::async_trait;
use dacapo::Node;
use dacapo::operate::{ProjectionHandle, VersionHandle};
use dacapo_api::{Api, ApiError, NodeStatus, parse_projection, parse_version};
use tokio::time::Instant;

pub(crate) use errors::{refused, unavailable};

/// The API of a node in this process.
#[derive(Clone)]
pub struct NodeApi(Operations);

/// The operations of a node, each under the name of its row. It does not implement [`Api`], so that a row without a
/// method here does not compile.
#[derive(Clone)]
pub(crate) struct Operations {
    node: Node,
    name: String,
    started: Instant,
}

impl NodeApi {
    /// Returns the API of `node`, under this `name`.
    pub fn new(node: Node, name: impl Into<String>) -> Self {
        Self(Operations { node, name: name.into(), started: Instant::now() })
    }

    /// Returns the node.
    pub fn node(&self) -> &Node {
        self.0.node()
    }
}

/// What a request is about: a version, or a projection whose version the node finds.
pub(crate) enum About {
    Projection(ProjectionHandle),
    Version(VersionHandle),
}

impl Operations {
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn projection(&self, name: &str) -> Result<ProjectionHandle, ApiError> {
        self.node.projection(parse_projection(name)?).map_err(refused)
    }

    pub(crate) fn about(&self, projection: &str, version: Option<&str>) -> Result<About, ApiError> {
        let projection = self.projection(projection)?;
        Ok(match version.map(parse_version).transpose()? {
            Some(version) => About::Version(projection.version(version)),
            None => About::Projection(projection),
        })
    }
}

pub(crate) fn asked(asked: dacapo_api::Asked) -> dacapo::catalog::RequestedBy {
    let dacapo_api::Asked { actor, reason, idempotency_key } = asked;
    dacapo::catalog::RequestedBy { actor: actor.unwrap_or_else(|| "api".to_owned()), reason, idempotency_key }
}

macro_rules! api {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        #[async_trait]
        impl Api for NodeApi {
            $(
                async fn $name(
                    &self,
                    $($part: &str,)*
                    $(request: dacapo_api::$request,)?
                ) -> Result<dacapo_api::$response, ApiError> {
                    self.0.$name($($part,)* $(identity::<dacapo_api::$request>(request))?).await
                }
            )*

            async fn readiness(&self) -> Result<NodeStatus, ApiError> {
                Ok(self.0.own_status())
            }
        }
    };
}

dacapo_api::operations!(api);
