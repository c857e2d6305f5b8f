//! The drivers that run beside the conductor, at most one of a kind for each projection or version.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use dacapo_model::work::{Here, Work, WorkFacts, wanted};
use dacapo_model::{ProjectionName, ViewId};
use tokio::task::JoinHandle;

use super::observe::Observed;
use crate::flip;
use crate::limits;
use crate::verify;
use crate::versions::Versions;

/// The drivers that run. Work that is interrupted with them begins again.
#[derive(Default)]
pub(super) struct Tasks(BTreeMap<Work, JoinHandle<()>>);

impl Tasks {
    /// Starts the drivers that are wanted and do not run yet.
    pub(super) async fn tend(&mut self, versions: &Arc<Versions>, observed: &Observed) {
        self.clear().await;
        let catalog = versions.catalog.current();
        let here = catalog.versions().map(|(id, _)| (id.clone(), here(versions, &id))).collect();
        let Observed { tokens, bare, head, .. } = observed;
        for work in wanted(&catalog, &WorkFacts { here: &here, tokens, bare, head: *head }) {
            let versions = Arc::clone(versions);
            match work.clone() {
                Work::Flip(projection) => self.begin(work, || flip::drive(versions, projection)),
                Work::Publish(projection) => self.begin(work, || publish(versions, projection)),
                Work::Verify(id) => self.begin(work, || verify::drive(versions, id)),
                Work::Shadow(id) => self.begin(work, || verify::shadow(versions, id)),
                Work::Scrub => self.begin(work, || verify::scrub(versions)),
            }
        }
    }

    fn begin<F: Future<Output = ()> + Send + 'static>(&mut self, work: Work, run: impl FnOnce() -> F) {
        self.0.entry(work).or_insert_with(|| tokio::spawn(run()));
    }

    /// Removes the drivers that have ended.
    async fn clear(&mut self) {
        let ended: Vec<_> = self.0.extract_if(.., |_, task| task.is_finished()).collect();
        for (work, task) in ended {
            if let Err(error) = task.await {
                tracing::error!(?work, %error, "a task of the conductor ended by a bug in dacapo");
            }
        }
    }

    /// Ends all of them.
    pub(super) async fn end(self) {
        for task in self.0.into_values() {
            task.abort();
            // It was aborted or is done. In both cases it does nothing any more.
            drop(task.await);
        }
    }
}

/// Returns the facts about a version on this node.
fn here(versions: &Versions, id: &ViewId) -> Here {
    let open = versions.open_version(id);
    let running = open.as_ref().and_then(|open| open.carried.as_ref().map(|carried| (open, carried)));
    Here {
        carried: versions.code_of(id).is_some(),
        capable: versions.cluster.has_capable(id),
        drives: versions.cluster.drives(id),
        waits: running.map(|(open, _)| open.progress.borrow().reasons().next().is_some()),
        live_queries: running.is_some_and(|(_, carried)| verify::are_wanted(carried)),
        published: versions.notes.published(&id.projection),
    }
}

/// Lets SQL from outside find the version that serves since the last flip. After a failure it pauses, and the next round
/// retries. A view that is made again is not shown before readers would be answered from it (I-7).
async fn publish(versions: Arc<Versions>, projection: ProjectionName) {
    let catalog = versions.catalog.current();
    let last = catalog.projections.get(&projection).and_then(|state| state.served.last().copied());
    let Some((flip, version)) = last else { return };
    let serving = ViewId { projection, version };
    let open = versions.open_version(&serving);
    let covers = open.map(|open| open.progress.borrow().covers()).unwrap_or_default();
    if covers < versions.shown_before(&serving) {
        tokio::time::sleep(limits::PUBLISH_RETRY_PAUSE).await;
        return;
    }
    let published = versions.views.publish(&serving, flip).await;
    let failed = published.is_err();
    versions.notes.set_published(&serving, flip, published.err().map(|error| error.to_string()));
    if failed {
        tokio::time::sleep(limits::PUBLISH_RETRY_PAUSE).await;
    }
}
