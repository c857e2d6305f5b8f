//! The handles with which operators name a projection or a version. Each operation is a method of one of the two, beside
//! what the operation does: in `operate.rs`, `letters.rs`, `replay.rs`, `cancel.rs` and `wait.rs`.

use dacapo_model::{ProjectionName, VersionId, ViewId};

use super::{Node, view_of};

/// A projection on a node. Each operation says which version it is about, such as the serving one. Clones are the same
/// projection.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn flip(node: dacapo::Node) -> Result<(), dacapo::Error> {
/// let balances = node.projection("balances")?;
/// let flip = balances.flip().by("ana").because("new indexes").await?;
/// let report = flip.done().within(Duration::from_secs(30)).await?;
/// println!("{} serves since position {}", report.to, report.flipped);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ProjectionHandle {
    pub(super) node: Node,
    pub(super) name: ProjectionName,
}

/// One version of a projection on a node. Clones are the same version.
#[derive(Clone)]
pub struct VersionHandle {
    pub(super) node: Node,
    pub(super) view: ViewId,
}

impl ProjectionHandle {
    /// Returns its name.
    pub fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// Returns one version of it.
    pub fn version(&self, version: VersionId) -> VersionHandle {
        self.node.version(view_of(&self.name, version))
    }
}

impl VersionHandle {
    /// Returns the projection and the number of this version.
    pub fn view(&self) -> &ViewId {
        &self.view
    }
}
