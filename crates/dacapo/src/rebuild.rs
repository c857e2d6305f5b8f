//! Rebuilds: keeps what runs on this node as the catalog says, and the catalog as the plan says.
//!
//! One task looks at the catalog, the tokens and the time, does what is missing and waits for a change.
//! It holds no state that matters: whatever it forgets it finds again. It never decides; the rules are
//! [`dacapo_model::rebuild::plan`] and the catalog's own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::rebuild::{Code, Facts, plan};
use dacapo_model::{Catalog, CatalogCommand, Phase, ProjectionName, Token, VersionState, ViewId};
use dacapo_store::StoreError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::catalog::{Asked, CatalogError};
use crate::core::{Core, OpenVersion};
use crate::flip;
use crate::world::Step;

/// How often to look while a version is being built, which becomes ready without telling anyone.
const LOOK_BUILDING: Duration = Duration::from_millis(50);
/// How often to look otherwise: stand-by ends with time.
const LOOK_IDLE: Duration = Duration::from_millis(500);

/// Runs until it is stopped. Flips under way are left where they are; the next start takes them up.
pub(crate) async fn conduct(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let mut catalog = core.catalog.watch();
    let mut opened = core.opened.subscribe();
    let mut flips = HashMap::new();
    loop {
        let building = catalog.borrow_and_update().versions().any(|(_, state)| state.phase == Phase::Initializing);
        opened.mark_unchanged();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            done = reconcile(&core, &mut flips) => {
                if let Err(error) = done {
                    tracing::warn!(%error, "the rebuild driver cannot go on for the moment");
                }
            }
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = catalog.changed() => {}
            _ = opened.changed() => {}
            () = tokio::time::sleep(if building { LOOK_BUILDING } else { LOOK_IDLE }) => {}
        }
    }
    for flip in flips.into_values() {
        flip.abort();
        // Aborted or done: either way it does nothing any more, which is what is waited for.
        drop(flip.await);
    }
}

async fn reconcile(core: &Arc<Core>, flips: &mut HashMap<ProjectionName, JoinHandle<()>>) -> Result<(), CatalogError> {
    let catalog = core.catalog.current();
    for (id, state) in catalog.versions() {
        match state.phase {
            phase if phase.applies() => open(core, &id, state).await?,
            Phase::CleaningUp => clean_up(core, &id).await?,
            Phase::Failed => stop(core, &id).await,
            _ => {}
        }
    }
    let tokens = tokens(core).await?;
    let catalog = core.catalog.current();
    lift_strays(core, &catalog, &tokens).await?;
    let carried: Vec<Code> = core.carried().into_iter().map(|carried| carried.code).collect();
    let facts = Facts { carried: &carried, tokens: &tokens, head: core.head(), now: core.world.clock.now() };
    for command in plan(&catalog, &facts) {
        match Arc::clone(&core.catalog).change(command, Asked::by_plan()).await {
            Ok(_) => {}
            // Somebody changed the catalog since it was looked at; the next look sees it.
            Err(CatalogError::Refused(refused)) => tracing::debug!(%refused, "planned on an older catalog"),
            Err(error) => return Err(error),
        }
    }
    flips.retain(|_, flip| !flip.is_finished());
    for (projection, _) in core.catalog.current().projections.iter().filter(|(_, state)| state.flip.is_some()) {
        let drive = || tokio::spawn(flip::drive(Arc::clone(core), projection.clone()));
        flips.entry(projection.clone()).or_insert_with(drive);
    }
    Ok(())
}

/// Opens the version, and runs its processor if the code is here.
async fn open(core: &Arc<Core>, id: &ViewId, state: &VersionState) -> Result<(), StoreError> {
    let carried = core.code_of(id);
    if let Some(open) = core.open_version(id) {
        let comes_alive = open.carried.is_none() && carried.is_some();
        if !comes_alive && !open.has_ended() {
            return Ok(());
        }
        open.stop().await;
    }
    let version = match carried {
        Some(carried) => {
            let view = core.views.open(id, carried.tables, state.segments).await?;
            OpenVersion::run(id.clone(), view, carried, Arc::clone(&core.journal))
        }
        None => match core.views.find(id).await? {
            Some(view) => OpenVersion::still(id.clone(), view),
            None => return Ok(()),
        },
    };
    core.insert_open(Arc::new(version));
    Ok(())
}

async fn stop(core: &Core, id: &ViewId) {
    if let Some(open) = core.remove_open(id) {
        open.stop().await;
    }
}

/// Drops the view (I-12): its processor stops, its epochs are revoked, then it goes.
async fn clean_up(core: &Arc<Core>, id: &ViewId) -> Result<(), CatalogError> {
    core.world.probe.completed(Step::CleaningUp);
    stop(core, id).await;
    if let Some(view) = core.views.find(id).await? {
        view.claim().await?;
    }
    core.views.drop_view(id).await?;
    core.world.probe.completed(Step::Dropped);
    Arc::clone(&core.catalog).change(CatalogCommand::FinishCleanUp(id.clone()), Asked::by_plan()).await?;
    Ok(())
}

async fn tokens(core: &Core) -> Result<BTreeMap<ViewId, Vec<Token>>, StoreError> {
    let mut tokens = BTreeMap::new();
    for version in core.open_versions() {
        tokens.insert(version.id.clone(), version.view.tokens().await?);
    }
    Ok(tokens)
}

/// Lifts holds of flips that are over: whoever held died before it could lift. `catalog` is as it was after
/// `tokens` were read, so it knows the request behind every mark among them.
async fn lift_strays(core: &Core, catalog: &Catalog, tokens: &BTreeMap<ViewId, Vec<Token>>) -> Result<(), StoreError> {
    for (id, tokens) in tokens {
        let flip = catalog.projections.get(&id.projection).and_then(|state| state.flip);
        let present = flip.filter(|flip| flip.from == Some(id.version)).map(|flip| flip.hold);
        let marks = tokens.iter().filter_map(|token| token.held_for);
        let stray = marks.filter(|mark| Some(*mark) != present && *mark <= catalog.position).max();
        if let (Some(mark), Some(version)) = (stray, core.open_version(id)) {
            version.lift(mark).await?;
        }
    }
    Ok(())
}
