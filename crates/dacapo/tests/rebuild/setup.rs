//! A version that is held back while it is built.

use dacapo::Node;

use crate::common::*;

/// A node on which version 1 serves one event, and the handler of version 2, which is built, waits at its gate.
pub(super) async fn held_back() -> (Node, TotalsV2) {
    let version_2 = v2().held();
    let node = Scenario::new().serving(v1()).added("ledger-1", 1).building(version_2.clone()).start().await;
    (node, version_2)
}
