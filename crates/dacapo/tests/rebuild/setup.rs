//! A version that is held back while it is built.

use dacapo::Node;
use dacapo::catalog::Phase;

use crate::common::*;

/// A node on which version 1 serves one event, and the handler of version 2, which is built, waits at its gate.
pub(super) async fn held_back() -> (Node, TotalsV2) {
    let version_2 = v2();
    version_2.behaviour.gate.send_replace(false);
    let node = Node::builder().projection(carry_v1(v1())).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(carry_v2(version_2.clone())).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    (node, version_2)
}
