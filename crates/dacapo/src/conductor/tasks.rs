//! The drivers that run beside the conductor, at most one of a kind for each projection or version.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use dacapo_model::rebuild::wants_verification;
use dacapo_model::{Phase, Position, ProjectionName, ViewId};
use tokio::task::JoinHandle;

use super::observe::Observed;
use crate::flip;
use crate::limits;
use crate::verify;
use crate::versions::Versions;

/// The work of a driver, and its object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Flip(ProjectionName),
    /// Lets SQL from outside find the serving version. No flip waits for this.
    Publish(ProjectionName),
    Verify(ViewId),
    /// Puts live queries to a version that does not serve yet.
    Shadow(ViewId),
    /// Checks the rows of serving versions.
    Scrub,
}

/// The drivers that run. Work that is interrupted with them begins again.
#[derive(Default)]
pub(super) struct Tasks(BTreeMap<Work, JoinHandle<()>>);

impl Tasks {
    /// Starts the drivers that the catalog requires and that do not run yet.
    pub(super) async fn tend(&mut self, versions: &Arc<Versions>, observed: &Observed) {
        self.clear().await;
        self.begin(Work::Scrub, || verify::scrub(Arc::clone(versions)));
        let catalog = versions.catalog.current();
        for (projection, state) in &catalog.projections {
            let to = state.flip.map(|flip| ViewId { projection: projection.clone(), version: flip.to });
            // Any node may drive it, but only a node that carries the version can know whether it is ready.
            if to.is_none_or(|to| versions.code_of(&to).is_none() && versions.cluster.has_capable(&to)) {
                continue;
            }
            self.begin(Work::Flip(projection.clone()), || flip::drive(Arc::clone(versions), projection.clone()));
        }
        for (projection, state) in &catalog.projections {
            let Some((flip, version)) = state.served.last().copied() else { continue };
            let serving = ViewId { projection: projection.clone(), version };
            if versions.notes.is_published(projection, flip) || !versions.cluster.drives(&serving) {
                continue;
            }
            self.begin(Work::Publish(projection.clone()), || publish(Arc::clone(versions), serving, flip));
        }
        for (id, state) in catalog.versions() {
            let Some(tokens) = observed.tokens.get(&id).filter(|_| state.phase == Phase::Initializing) else {
                continue;
            };
            let verify = wants_verification(state, tokens, observed.bare.contains(&id), observed.head);
            self.examine(versions, &id, verify);
        }
    }

    /// Starts the verification of a version that is being built, and live queries to it, if they are wanted and it runs
    /// here.
    fn examine(&mut self, versions: &Arc<Versions>, id: &ViewId, verify: bool) {
        let Some(open) = versions.open_version(id) else { return };
        let Some(carried) = open.carried.clone().filter(|_| versions.cluster.drives(id)) else { return };
        // A version that halts or is paused would only be found unfinished. It reports its own wait reasons.
        if verify && !versions.is_paused(id) && open.progress.borrow().waiting_on.is_empty() {
            self.begin(Work::Verify(id.clone()), || verify::drive(Arc::clone(versions), id.clone()));
        }
        if verify::are_wanted(&carried) {
            self.begin(Work::Shadow(id.clone()), || verify::shadow(Arc::clone(versions), id.clone()));
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

/// Lets SQL from outside find the version that serves since the flip at `flip`. After a failure it pauses, and the next
/// round retries.
async fn publish(versions: Arc<Versions>, serving: ViewId, flip: Position) {
    let published = versions.views.publish(&serving, flip).await;
    let failed = published.is_err();
    versions.notes.set_published(&serving, flip, published.err().map(|error| error.to_string()));
    if failed {
        tokio::time::sleep(limits::PUBLISH_RETRY_PAUSE).await;
    }
}
