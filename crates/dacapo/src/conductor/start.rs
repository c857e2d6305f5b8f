//! Opens versions, and starts their processors and deliveries.

use std::sync::Arc;

use dacapo_model::{Phase, Token, VersionState, ViewId, copy};
use dacapo_store::StoreError;
use tokio::sync::watch;

use super::belongs::{belongs, fits, unbegun};
use crate::catalog::CatalogError;
use crate::code::{SeedFrom, VersionCode, check};
use crate::effects::Delivery;
use crate::history;
use crate::processor::Orders;
use crate::versions::{OpenVersion, Versions};

/// Opens every existing view, for a node that only looks: nothing changes, and nothing runs.
pub(crate) async fn look(versions: &Versions) {
    for (id, state) in versions.catalog.current().versions() {
        let looked = look_at(versions, &id, state).await;
        versions.notes.set_trouble(&id, looked.err().as_ref().map(history::waiting_on));
    }
}

async fn look_at(versions: &Versions, id: &ViewId, state: &VersionState) -> Result<(), StoreError> {
    let is_open = state.phase.applies() || state.phase == Phase::CleaningUp;
    if state.phase == Phase::Scheduled {
        return unbegun(versions, id).await;
    }
    let Some(view) = versions.views.find(id).await?.filter(|_| is_open) else { return Ok(()) };
    if state.phase.applies() {
        belongs(&*versions.journal, &*view, state).await?;
        if let Some(beyond) = history::beyond(&*versions.journal, &*view).await? {
            return Err(beyond.parted());
        }
    }
    let version = OpenVersion::still(id.clone(), view, None, Orders::of(state));
    version.tokens().await?;
    version.effects.outbox.send_replace(version.view.outbox(0).await?);
    versions.insert_open(Arc::new(version));
    Ok(())
}

/// Logs that a view that existed before is built again, and which effects are made again. The lists of pending effects
/// and of effects that were already made were lost with the view.
async fn tell_of_lost(
    versions: &Versions,
    id: &ViewId,
    state: &VersionState,
    carried: &VersionCode,
    view: &dyn dacapo_store::View,
) -> Result<(), StoreError> {
    let served = matches!(state.phase, Phase::Serving | Phase::StandingBy);
    // A version that has served has covered the flip to it.
    if !served || !view.tokens().await?.iter().all(Token::is_new) {
        return Ok(());
    }
    let catalog = versions.catalog.current();
    let projection = catalog.projections.get(&id.projection);
    let past = carried.options.effects.past;
    let from = projection.and_then(|projection| projection.speaks_from(id.version, past));
    match from.filter(|_| !carried.effect_names().is_empty()) {
        Some(from) => tracing::warn!(
            view = %id,
            from = from.get(),
            "its view was gone and is built again: the effects of events from position {from} on for which it speaks are \
             made again, under the same keys, also those that were dropped"
        ),
        None => tracing::warn!(view = %id, "its view was gone or empty, though it had served, and is built again"),
    }
    Ok(())
}

/// Opens the version, and runs its processor if the code is here.
pub(super) async fn open(versions: &Arc<Versions>, id: &ViewId, state: &VersionState) -> Result<(), CatalogError> {
    let carried = versions.code_of(id);
    let mut is_corrected = false;
    if let Some(open) = versions.open_version(id) {
        let is_other = is_other(&open, carried.as_ref());
        if !is_other && !open.has_ended() {
            return Ok(());
        }
        is_corrected = is_other && open.carried.is_some();
        open.stop().await;
    }
    let mut opening = versions.opening.lock().await;
    opening.insert(id.clone());
    let version = match carried {
        Some(carried) => {
            let view = versions.views.open(id, carried.tables, state.segments).await?;
            // It may have been cleaned up since the catalog was read.
            versions.catalog.refresh().await?;
            if !versions.catalog.current().version(id).is_some_and(|state| state.phase.applies()) {
                return Ok(());
            }
            history::check_opened(&*versions.journal, &*view).await?;
            fits(&*versions.journal, &versions.catalog, id, &*view).await?;
            // A view that lacks a token is not opened only to be closed again.
            view.tokens().await?;
            tell_of_lost(versions, id, state, &carried, &*view).await?;
            let seed = seed(versions, id, state, &carried, &*view).await?;
            OpenVersion::run(versions, id.clone(), view, carried, state, seed, is_corrected)?
        }
        None => match versions.views.find(id).await? {
            Some(view) => {
                history::check_opened(&*versions.journal, &*view).await?;
                fits(&*versions.journal, &versions.catalog, id, &*view).await?;
                view.tokens().await?;
                OpenVersion::still(id.clone(), view, None, Orders::of(state))
            }
            None => return Ok(()),
        },
    };
    if !version.reacts() {
        // No delivery runs for effects that earlier code of the version has left, so they are reported here.
        version.effects.outbox.send_replace(version.view.outbox(0).await?);
    }
    insert(versions, version).await;
    Ok(())
}

/// Returns true if this node now carries other code than that with which the open version runs.
pub(super) fn is_other(open: &OpenVersion, carried: Option<&VersionCode>) -> bool {
    match (&open.carried, carried) {
        (Some(open), Some(carried)) => !Arc::ptr_eq(&open.handlers, &carried.handlers),
        (None, carried) => carried.is_some(),
        (Some(_), None) => false,
    }
}

pub(super) async fn insert(versions: &Arc<Versions>, version: OpenVersion) {
    let version = Arc::new(version);
    versions.insert_open(Arc::clone(&version));
    // A wish that was recorded just before has notified only the version that this one replaces.
    version.commands.wished();
    deliver(versions, &version).await;
}

/// Starts the delivery of its effects, if it makes any and its code is here.
async fn deliver(versions: &Arc<Versions>, open: &OpenVersion) {
    let Some(carried) = open.carried.clone().filter(|_| open.reacts()) else { return };
    let (stop, stopped) = watch::channel(false);
    let delivery = Delivery {
        versions: Arc::downgrade(versions),
        id: open.id.clone(),
        view: Arc::clone(&open.view),
        carried,
        progress: open.progress.clone(),
        outbox: open.effects.outbox.clone(),
        before: open.effects.before.clone(),
        stop: stopped,
    };
    open.delivers(stop, tokio::spawn(delivery.run())).await;
}

/// Returns the view from which the version begins as a copy, if it should and has not begun.
///
/// # Errors
/// [`StoreError::Invalid`] if that copy cannot be correct, or if that view does not exist any more.
async fn seed(
    versions: &Versions,
    id: &ViewId,
    state: &VersionState,
    carried: &VersionCode,
    view: &dyn dacapo_store::View,
) -> Result<Option<SeedFrom>, StoreError> {
    // For most versions the tokens do not matter, and are not read.
    if state.seed.is_none() || state.phase != Phase::Initializing {
        return Ok(None);
    }
    let tokens = view.tokens().await?;
    let catalog = versions.catalog.current();
    let projection = &catalog.projections[&id.projection];
    let source = copy::source(id, projection, state, &tokens).map_err(StoreError::Invalid)?;
    let Some(source) = source else { return Ok(None) };
    let segments = projection.versions[&source].segments;
    let source = ViewId { version: source, ..id.clone() };
    let refused =
        |why: String| StoreError::Invalid(format!("{id} cannot begin as a copy of {}: {why}", source.version));
    let code = versions.code_of(&source);
    check(carried, state.segments, source.version, segments, code.as_ref()).map_err(refused)?;
    let view = match versions.open_version(&source) {
        Some(open) => Arc::clone(&open.view),
        None => {
            let gone = || refused("its view is gone: rebuild the projection once more".to_owned());
            versions.views.find(&source).await?.ok_or_else(gone)?
        }
    };
    belongs(&*versions.journal, &*view, &projection.versions[&source.version]).await.map_err(|error| match error {
        StoreError::Parted(parted) => refused(parted.to_string()),
        error => error,
    })?;
    Ok(code.map(|code| SeedFrom { id: source.clone(), view, tables: code.tables }))
}
