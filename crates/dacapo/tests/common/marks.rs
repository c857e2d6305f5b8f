//! A projection whose versions show that the conductor of a node has made a round.

use dacapo::catalog::Phase;
use dacapo::{HandlerError, Node, Projection, Recorded, Row, Table, View, ViewId};

use crate::common::*;

#[derive(Clone, Row)]
#[row(table = "marks")]
struct Mark {
    #[row(key)]
    name: String,
}

/// Version `N` of a projection that shows nothing.
struct Marks<const N: u32>;

impl<const N: u32> Projection for Marks<N> {
    const NAME: &'static str = "marks";
    const VERSION: u32 = N;
    const TABLES: &'static [Table] = &[Mark::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, _: &Recorded<'_, LedgerEvent>, _: &mut View) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Waits until the conductor of this node has carried out a whole plan since the call: only that schedules the new
/// version `N`, and only a later plan begins it. No other node may carry it.
pub async fn planned<const N: u32>(node: &Node) {
    node.add_projection(Marks::<N>).unwrap();
    let id = ViewId { projection: "marks".parse().unwrap(), version: version(&format!("v{N}.1")) };
    let mut catalog = node.catalog();
    let begun = catalog.wait_for(|catalog| catalog.version(&id).is_some_and(|state| state.phase != Phase::Scheduled));
    tokio::time::timeout(WAIT_MAX, begun).await.expect("the conductor makes rounds").unwrap();
}
