//! Rebuilds: keeps what runs on this node as the catalog says, and the catalog as the plan says.
//!
//! One task looks at the catalog, the tokens and the time, does what is missing and waits for a change.
//! It holds no state that matters: whatever it forgets it finds again. It never decides; the rules are
//! [`dacapo_model::rebuild::plan`] and the catalog's own.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::rebuild::{Code, Facts, plan};
use dacapo_model::{Catalog, CatalogCommand, Phase, Position, ProjectionName, Token, VersionState, ViewId};
use dacapo_store::{StoreError, Views};
use futures::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::catalog::{Asked, CatalogError};
use crate::core::{Core, OpenVersion};
use crate::flip;
use crate::processor::Wanted;
use crate::reactor::Voices;
use crate::world::Step;

/// How often to look while a version is being built or replayed, which gets ready without telling anyone.
const LOOK_BUILDING: Duration = Duration::from_millis(50);
/// How often to look otherwise: stand-by ends with time.
const LOOK_IDLE: Duration = Duration::from_millis(500);

/// Checks that the views are of this journal, before anything runs: one that covers more than there is, or that
/// belongs to a version that was never built, was made from a journal that is there no more. Followed, it would
/// silently lack whatever gets the positions that it covers already (I-3).
///
/// # Errors
/// [`StoreError::Corrupt`], which names the view and says what to do. A view that cannot be read is not an error here.
pub(crate) async fn check_views(views: &dyn Views, catalog: &Catalog, head: Position) -> Result<(), StoreError> {
    let other = |id: &ViewId, found: String| {
        let file = format!("{}/{}.db", id.projection, id.version);
        let advice = format!(
            "{found}, so it was made from another journal, or from this one before it was put back from a backup. Put \
             the journal back that it was made from, or remove the view (embedded: the files views/{file}*); it is \
             built again from the journal if it is still needed"
        );
        StoreError::corrupt(format!("the view {id}"), advice)
    };
    for id in views.list().await? {
        match catalog.version(&id).map(|state| state.phase) {
            None | Some(Phase::Scheduled) => {
                return Err(other(&id, format!("the journal, which ends at {head}, knows of no such view")));
            }
            Some(phase) if phase.applies() => {
                let Ok(Some(view)) = views.find(&id).await else { continue };
                let Ok(tokens) = view.tokens().await else { continue };
                let marks = tokens.iter().flat_map(|token| token.held_for.into_iter().chain([token.position]));
                if let Some(beyond) = marks.max().filter(|mark| *mark > head) {
                    return Err(other(&id, format!("it is at position {beyond}, and the journal ends at {head}")));
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Runs until it is stopped. Flips under way are left where they are; the next start takes them up. `looked` is
/// told once it has been through everything for the first time.
pub(crate) async fn conduct(core: Arc<Core>, mut stop: watch::Receiver<bool>, looked: oneshot::Sender<()>) {
    let mut looked = Some(looked);
    let mut catalog = core.catalog.watch();
    let mut opened = core.opened.subscribe();
    let mut flips = HashMap::new();
    loop {
        let gets_on = |state: &VersionState| state.phase == Phase::Initializing || state.replay.is_some();
        let building = catalog.borrow_and_update().versions().any(|(_, state)| gets_on(state));
        opened.mark_unchanged();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            done = AssertUnwindSafe(reconcile(&core, &mut flips)).catch_unwind() => match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the rebuild driver cannot go on for the moment"),
                // It holds no state that a panic could leave half changed, and what serves must not depend on it.
                Err(_) => tracing::error!("the rebuild driver met a bug in dacapo and begins anew"),
            },
        }
        if let Some(looked) = looked.take() {
            // Nobody waits for it only when the start was given up.
            looked.send(()).ok();
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
    // Looked at before the catalog is: every flip through here is known then.
    let head = core.head();
    core.catalog.refresh().await?;
    let mut tokens = BTreeMap::new();
    for (id, state) in core.catalog.current().versions() {
        // What is wrong with one view stops no other.
        if let (Some(open), Some(projection)) =
            (core.open_version(&id), core.catalog.current().projections.get(&id.projection))
        {
            open.hear(Voices::new(projection, head));
        }
        let attended = attend(core, &id, state).await;
        if let (Phase::Initializing, Err(CatalogError::Store(error))) = (state.phase, &attended) {
            give_up(core, &id, error).await?;
        }
        core.set_trouble(&id, attended.as_ref().err().map(ToString::to_string));
        tokens.extend(attended.ok().flatten().map(|tokens| (id, tokens)));
    }
    let carried: Vec<Code> = core.carried().into_iter().map(|carried| carried.code).collect();
    let facts = Facts { carried: &carried, tokens: &tokens, head: core.head(), now: core.world.clock.now() };
    for command in plan(&core.catalog.current(), &facts) {
        let ends_replay = matches!(command, CatalogCommand::EndReplay { .. });
        if ends_replay {
            core.world.probe.completed(Step::ReplayCovered);
        }
        match Arc::clone(&core.catalog).change(command, Asked::by_plan()).await {
            Ok(_) if ends_replay => core.world.probe.completed(Step::ReplayEnded),
            Ok(_) => {}
            // Somebody changed the catalog since it was looked at; the next look sees it.
            Err(CatalogError::Refused(refused)) => tracing::debug!(%refused, "planned on an older catalog"),
            Err(error) => return Err(error),
        }
    }
    for (projection, flip) in flips.extract_if(|_, flip| flip.is_finished()) {
        if let Err(error) = flip.await {
            tracing::error!(%projection, %error, "the driver of a flip ended by a bug in dacapo");
        }
    }
    for (projection, _) in core.catalog.current().projections.iter().filter(|(_, state)| state.flip.is_some()) {
        let drive = || tokio::spawn(flip::drive(Arc::clone(core), projection.clone()));
        flips.entry(projection.clone()).or_insert_with(drive);
    }
    Ok(())
}

/// Fails a version that cannot be built however often it is tried: its view is damaged or of another shape. A
/// later build takes its place.
async fn give_up(core: &Arc<Core>, id: &ViewId, error: &StoreError) -> Result<(), CatalogError> {
    if matches!(error, StoreError::Unavailable { .. }) {
        return Ok(());
    }
    tracing::warn!(view = %id, %error, "the version cannot be built");
    let fail = CatalogCommand::Fail { view: id.clone(), reason: error.to_string() };
    match Arc::clone(&core.catalog).change(fail, Asked::by_plan()).await {
        // Somebody moved it on meanwhile.
        Ok(_) | Err(CatalogError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Does for one version what its phase wants, and returns its tokens if its view is open.
async fn attend(core: &Arc<Core>, id: &ViewId, state: &VersionState) -> Result<Option<Vec<Token>>, CatalogError> {
    match state.phase {
        phase if phase.applies() => {
            open(core, id, state).await?;
            let Some(version) = core.open_version(id) else { return Ok(None) };
            version.want(Wanted::of(state));
            let tokens = version.view.tokens().await?;
            core.trails.look(id, &tokens, core.head());
            lift_stray(core, &version, &tokens).await?;
            return Ok(Some(tokens));
        }
        Phase::CleaningUp => clean_up(core, id).await?,
        Phase::Failed => stop(core, id).await,
        _ => {}
    }
    Ok(None)
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
    let _opening = core.opening.lock().await;
    let version = match carried {
        Some(carried) => {
            let view = core.views.open(id, carried.tables, state.segments).await?;
            OpenVersion::run(core, id.clone(), view, carried, Wanted::of(state))
        }
        None => match core.views.find(id).await? {
            Some(view) => OpenVersion::still(id.clone(), view, None),
            None => return Ok(()),
        },
    };
    insert(core, version).await;
    Ok(())
}

async fn insert(core: &Arc<Core>, version: OpenVersion) {
    let version = Arc::new(version);
    core.insert_open(Arc::clone(&version));
    version.deliver(core).await;
}

async fn stop(core: &Core, id: &ViewId) {
    core.trails.forget(id);
    if let Some(open) = core.remove_open(id) {
        open.stop().await;
    }
}

/// Drops the view (I-12): its processor stops, the effects that it owes are made, its epochs are revoked, then it goes.
async fn clean_up(core: &Arc<Core>, id: &ViewId) -> Result<(), CatalogError> {
    core.world.probe.completed(Step::CleaningUp);
    if owes(core, id).await? {
        return Ok(());
    }
    stop(core, id).await;
    match revoke(core, id).await {
        // What is damaged has no claim that could still write to it.
        Err(error @ (StoreError::Corrupt { .. } | StoreError::Invalid(_))) => {
            tracing::warn!(view = %id, %error, "a view is dropped that cannot be read");
        }
        revoked => revoked?,
    }
    core.views.drop_view(id).await?;
    core.world.probe.completed(Step::Dropped);
    Arc::clone(&core.catalog).change(CatalogCommand::FinishCleanUp(id.clone()), Asked::by_plan()).await?;
    Ok(())
}

/// Whether the version has yet to make effects of events that it speaks for. If so its view stays, without a processor.
async fn owes(core: &Arc<Core>, id: &ViewId) -> Result<bool, StoreError> {
    let catalog = core.catalog.current();
    let served = catalog.projections.get(&id.projection).map(|state| state.served.as_slice()).unwrap_or_default();
    // One that never served speaks for nothing. What another one speaks for, the delivery forgets.
    if !served.iter().any(|(_, version)| *version == id.version) {
        return Ok(false);
    }
    let found = match core.views.find(id).await {
        Ok(Some(view)) => view.outbox(0).await.map(|outbox| Some((view, outbox))),
        other => other.map(|_| None),
    };
    match found {
        Ok(Some((view, outbox))) if outbox.pending > 0 => {
            match core.open_version(id) {
                Some(open) => open.stop_applying().await,
                None => {
                    let version = OpenVersion::still(id.clone(), view, core.code_of(id));
                    version.outbox.send_replace(outbox);
                    insert(core, version).await;
                }
            }
            Ok(true)
        }
        Ok(_) | Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn revoke(core: &Core, id: &ViewId) -> Result<(), StoreError> {
    if let Some(view) = core.views.find(id).await? {
        view.claim().await?;
    }
    Ok(())
}

/// Lifts the hold of a flip that is over: whoever held died before it could lift. The catalog is looked at
/// after `tokens` were read, so it knows the request behind every mark among them.
async fn lift_stray(core: &Core, version: &OpenVersion, tokens: &[Token]) -> Result<(), StoreError> {
    let catalog = core.catalog.current();
    let id = &version.id;
    let flip = catalog.projections.get(&id.projection).and_then(|state| state.flip);
    let present = flip.filter(|flip| flip.from == Some(id.version)).map(|flip| flip.hold);
    let marks = tokens.iter().filter_map(|token| token.held_for);
    let stray = marks.filter(|mark| Some(*mark) != present && *mark <= catalog.position).max();
    match stray {
        Some(mark) => version.lift(mark).await,
        None => Ok(()),
    }
}
