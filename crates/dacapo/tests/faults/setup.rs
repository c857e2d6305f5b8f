//! A second projection, a node with two versions on a store that fails, and catalog events that cannot be appended.

use std::path::Path;
use std::sync::Arc;

use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{HandlerError, Node, Projection, Recorded, Row, Table, View};
use dacapo_testkit::{Fault, Faults};

use crate::common::*;

/// A second projection, whose name comes behind that of the first.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "visits")]
struct Visit {
    #[row(key)]
    ledger: String,
}

pub(super) struct Visits;

impl Projection for Visits {
    const NAME: &'static str = "visits";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Visit::TABLE];
    type Event = LedgerEvent;

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        Ok(view.put(Visit { ledger: event.stream.to_owned() })?)
    }
}

pub(super) fn store(directory: &Path) -> Store {
    Store::embedded(directory, Arc::new(SystemClock)).unwrap()
}

/// The text of what a version waits on.
pub(super) async fn waiting(node: &Node, text: &str) -> String {
    let status = node.status().await.unwrap();
    let totals = status.projections.iter().find(|found| found.name == totals()).unwrap();
    let found = totals.versions.iter().find(|found| found.version == version(text)).unwrap();
    found.waiting_on.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A node on a store in `directory` that fails as `faults` says, whose version 1 serves and 2 is ready.
pub(super) async fn two_versions(directory: &Path, faults: &Faults) -> Node {
    let builder = Node::builder().store(faults.over(&store(directory)));
    Scenario::on(builder).serving(v1()).ready(v2()).start().await
}

/// Builds this code once more, in the place of whatever is ready.
pub(super) async fn rebuild(node: &Node, code: u32) {
    node.projection(totals()).unwrap().rebuild().code(code).discard().by("test").await.unwrap();
}

/// Lets every append of this catalog event fail.
pub(super) fn refuse(faults: &Faults, event_type: &'static str) {
    faults.always(Fault::Fails, move |call| call.appends(event_type));
}
