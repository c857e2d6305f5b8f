//! The conductor: keeps what runs on this node as the catalog says, and the catalog as the plan says.
//!
//! ```text
//!   catalog, tokens, time ──▶ observe: each version as its phase wants ──▶ plan ──▶ changes of the catalog
//!            ▲                  start ◀─┴─▶ retire, strays                              │
//!            └───────────────────────── tasks: flips, verifications ◀───────────────────┘
//! ```
//!
//! One task looks at the catalog, the tokens and the time, does what is missing and waits for a change. It holds no
//! state that matters: it finds again everything that it forgets. It never decides. The rules are
//! [`dacapo_model::rebuild::plan`] for the catalog, [`dacapo_model::work::wanted`] for the tasks,
//! [`dacapo_model::views`] for views as a whole, and those of the catalog.

mod belongs;
mod observe;
mod retire;
mod start;
mod strays;
mod tasks;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use dacapo_model::rebuild::{Code, Facts, plan};
use dacapo_model::{CatalogCommand, Phase, VersionState, WaitingOn};
use dacapo_store::{Health, StoreError};
use futures::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::catalog::{CatalogError, RequestedBy};
use crate::code::VersionCode;
use crate::limits;
use crate::reads;
use crate::versions::Versions;
use crate::world::Step;
use observe::{Observed, observe, trouble};
use retire::{let_go, stop};
use tasks::Tasks;

pub(crate) use belongs::check_views;
pub(crate) use start::look;

/// Runs until it is stopped. Flips under way are left as they are, and the next start continues them. `looked` is sent
/// once it has completed its first round.
pub(crate) async fn conduct(versions: Arc<Versions>, mut stop: watch::Receiver<bool>, looked: oneshot::Sender<()>) {
    let mut looked = Some(looked);
    let mut catalog = versions.catalog.watch();
    let mut opened = versions.opened.subscribe();
    let mut tasks = Tasks::default();
    loop {
        let gets_on = |state: &VersionState| state.phase == Phase::Initializing || state.replay.is_some();
        let building = catalog.borrow_and_update().versions().any(|(_, state)| gets_on(state));
        opened.mark_unchanged();
        let began = Instant::now();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            done = AssertUnwindSafe(reconcile(&versions, &mut tasks)).catch_unwind() => match done {
                // Once the history has parted, nothing is done any more.
                Ok(Ok(())) => versions.notes.set_stuck(match versions.journal.health() {
                    Health::Parted(parted) => Some(WaitingOn::JournalParted { parted }),
                    Health::Well | Health::Failing(_) | Health::Damaged(_) => None,
                }),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the conductor cannot continue now, and retries");
                    versions.notes.set_stuck(Some(trouble(&error)));
                }
                // The conductor holds no state that a panic could leave half changed, and serving must not depend on
                // it.
                Err(_) => tracing::error!("the conductor met a bug in dacapo and begins again"),
            },
        }
        if let Some(looked) = looked.take() {
            // The receiver is gone only if the start was given up.
            looked.send(()).ok();
        }
        // With many versions a round takes long. It gets no more than a third of the time.
        let rest = (2 * began.elapsed()).clamp(limits::CONDUCTOR_LOOK_BUILDING, limits::CONDUCTOR_LOOK);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = catalog.changed() => {}
            _ = opened.changed() => {}
            () = tokio::time::sleep(if building { rest } else { limits::CONDUCTOR_LOOK }) => {}
        }
    }
    tasks.end().await;
}

async fn reconcile(versions: &Arc<Versions>, tasks: &mut Tasks) -> Result<(), CatalogError> {
    if let Health::Parted(parted) = versions.journal.health() {
        // The catalog belongs to a history that is gone.
        for open in versions.open_versions() {
            stop(versions, &open.id).await;
            versions.notes.set_trouble(&open.id, Some(WaitingOn::JournalParted { parted }));
        }
        return Ok(());
    }
    // The head is read before the catalog, so that every flip through it is known.
    let head = versions.head();
    versions.catalog.refresh().await?;
    decide_reads(versions).await?;
    versions.tell_carried();
    let_go(versions).await;
    let observed = observe(versions, head).await?;
    follow_plan(versions, &observed).await?;
    tasks.tend(versions, &observed).await;
    Ok(())
}

/// Changes the catalog as the plan says.
async fn follow_plan(versions: &Arc<Versions>, observed: &Observed) -> Result<(), CatalogError> {
    let carried: Vec<Code> = versions.carried().into_iter().map(|carried| code(versions, carried)).collect();
    let Observed { head, tokens, bare, speaking, may_begin } = observed;
    let (head, catalog) = (*head, versions.catalog.current());
    let stood = &versions.stands.look(&catalog);
    let facts = Facts { carried: &carried, tokens, bare, speaking, may_begin, head, stood };
    for command in plan(&catalog, &facts) {
        let ends_replay = matches!(command, CatalogCommand::EndReplay { .. });
        if ends_replay {
            versions.world.probe.completed(Step::ReplayCovered);
        }
        match Arc::clone(&versions.catalog).change(command, RequestedBy::by_plan()).await {
            Ok(_) if ends_replay => versions.world.probe.completed(Step::ReplayEnded),
            Ok(_) => {}
            // The catalog has changed since it was observed. The next round sees the change.
            Err(CatalogError::Refused(refused)) => tracing::debug!(%refused, "planned on an older catalog"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the facts about the code that the rules need. It begins as a copy automatically only if it could.
fn code(versions: &Versions, carried: VersionCode) -> Code {
    let seeded = carried.options.seed_new_code && versions.may_copy(&carried).is_ok();
    Code { seeded, ..carried.code }
}

/// Decides what code of a newer release may read, in case the node that announced it is gone.
async fn decide_reads(versions: &Versions) -> Result<(), StoreError> {
    for (view, state) in versions.catalog.current().announced() {
        if let Some(announced) = &state.announced {
            reads::settle(&versions.journal, &versions.catalog, view, announced, state.reads.as_ref()).await?;
        }
    }
    Ok(())
}
