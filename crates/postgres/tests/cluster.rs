//! Whole nodes on one database.

#[path = "../../dacapo/tests/common/mod.rs"]
mod common;
#[path = "cluster/copies.rs"]
mod copies;
#[path = "cluster/damage.rs"]
mod damage;
#[path = "cluster/gone.rs"]
mod gone;
#[path = "cluster/lost.rs"]
mod lost;
#[path = "../../dacapo/tests/common/lost_view.rs"]
mod lost_view;
#[path = "cluster/parted.rs"]
mod parted;
#[path = "cluster/scrub.rs"]
mod scrub;
#[path = "../../dacapo/tests/common/sums.rs"]
mod sums;
#[path = "../../dacapo/tests/common/tampered.rs"]
mod tampered;
#[path = "cluster/upgrade.rs"]
mod upgrade;

use dacapo::{Node, NodeBuilder};
use dacapo_postgres::Options;

/// A node with few connections, so that many can be on one server.
async fn node(url: &str, name: &str) -> NodeBuilder {
    node_in(url, "dacapo", name).await
}

/// One whose journal is in this schema.
async fn node_in(url: &str, schema: &str, name: &str) -> NodeBuilder {
    let seed = name.bytes().map(u64::from).sum();
    let options = Options { schema: schema.into(), connections_max: 6, seed };
    Node::builder().store(dacapo_postgres::connect(url, options).await.unwrap()).name(name)
}
