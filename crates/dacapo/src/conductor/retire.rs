//! Closes versions, and drops their views once they are gone (I-12).

use std::sync::Arc;

use dacapo_model::{Catalog, CatalogCommand, ViewId};
use dacapo_store::{Outbox, StoreError, View, Views};

use super::start::{insert, is_other};
use crate::catalog::{CatalogError, RequestedBy};
use crate::history;
use crate::processor::Orders;
use crate::versions::{self, OpenVersion, Versions};
use crate::world::Step;

/// Closes the versions that another node has cleaned up before this one knew of it, and drops their views again. If a
/// view was opened meanwhile, it may have been made after the other node had dropped it, and nobody else would drop it
/// (I-12).
pub(super) async fn let_go(versions: &Versions) {
    let catalog = versions.catalog.current();
    let gone: Vec<_> = versions.opening.lock().await.iter().filter(|id| catalog.is_gone(id)).cloned().collect();
    for id in gone {
        stop(versions, &id).await;
        let dropped = discard(&*versions.views, &catalog, &id).await;
        versions.notes.set_trouble(&id, dropped.as_ref().err().map(history::waiting_on));
        if dropped.is_ok() {
            versions.opening.lock().await.remove(&id);
        }
    }
}

pub(super) async fn stop(versions: &Versions, id: &ViewId) {
    versions.trails.forget(id);
    if let Some(open) = versions.remove_open(id) {
        open.stop().await;
    }
}

/// Closes a version from which nobody may be answered any more.
pub(super) async fn close(versions: &Versions, id: &ViewId) {
    if versions.open_version(id).is_some() {
        stop(versions, id).await;
        versions.closed(id);
    }
}

/// Drops the view of a version that is being cleaned up, once its processor has stopped and its pending effects are
/// made.
pub(super) async fn clean_up(versions: &Arc<Versions>, id: &ViewId) -> Result<(), CatalogError> {
    versions.world.probe.completed(Step::CleaningUp);
    if let Some(owed) = owed(versions, id).await? {
        deliver_rest(versions, id, owed).await;
        return Ok(());
    }
    stop(versions, id).await;
    revoke(&*versions.views, id).await?;
    // From here on nobody adds effects. A batch that was under way may have added some.
    if let Some(owed) = owed(versions, id).await? {
        deliver_rest(versions, id, owed).await;
        return Ok(());
    }
    // From here on the clean-up cannot be cancelled. Until here it may have been.
    match Arc::clone(&versions.catalog).change(CatalogCommand::BeginDrop(id.clone()), RequestedBy::by_plan()).await {
        Ok(_) => {}
        Err(CatalogError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    discard(&*versions.views, &versions.catalog.current(), id).await?;
    versions.world.probe.completed(Step::Dropped);
    match Arc::clone(&versions.catalog).change(CatalogCommand::FinishCleanUp(id.clone()), RequestedBy::by_plan()).await
    {
        // Another member was first.
        Ok(_) | Err(CatalogError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Drops the view (I-12): first its epochs are revoked, then it is removed. `catalog` shows that this cannot be undone
/// any more.
pub(super) async fn discard(views: &dyn Views, catalog: &Catalog, id: &ViewId) -> Result<(), StoreError> {
    assert!(catalog.may_drop(id), "I-12: the catalog keeps {id}, so its view stays");
    revoke(views, id).await?;
    views.drop_view(id).await
}

/// Revokes the epochs of a view that will be dropped.
async fn revoke(views: &dyn Views, id: &ViewId) -> Result<(), StoreError> {
    match versions::revoke(views, id).await {
        // A damaged view has no claim that could still write to it.
        Err(error @ (StoreError::Corrupt { .. } | StoreError::Invalid(_))) => {
            tracing::warn!(view = %id, %error, "a view is dropped that cannot be read");
            Ok(())
        }
        revoked => revoked,
    }
}

/// The effects that a version still has to make, and the view that keeps them.
struct Owed {
    view: Arc<dyn View>,
    outbox: Outbox,
}

/// Returns the effects that a version still has to make before its view is dropped. A view that cannot be read has none.
async fn owed(versions: &Versions, id: &ViewId) -> Result<Option<Owed>, StoreError> {
    let catalog = versions.catalog.current();
    // A version that never served speaks for nothing. The delivery forgets effects for which another one speaks.
    if !catalog.projections.get(&id.projection).is_some_and(|state| state.has_served(id.version)) {
        return Ok(None);
    }
    let found = match versions.views.find(id).await {
        Ok(Some(view)) => view.outbox(0).await.map(|outbox| Some(Owed { view, outbox })),
        other => other.map(|_| None),
    };
    match found {
        Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => Ok(None),
        found => Ok(found?.filter(|owed| owed.outbox.pending > 0)),
    }
}

/// Lets the delivery of a version make its last effects, without a processor.
async fn deliver_rest(versions: &Arc<Versions>, id: &ViewId, owed: Owed) {
    let Owed { view, outbox } = owed;
    let carried = versions.code_of(id);
    match versions.open_version(id) {
        Some(open) if is_other(&open, carried.as_ref()) || open.is_silent().await => open.stop().await,
        Some(open) => {
            open.stop_applying().await;
            if !open.reacts() {
                // No delivery runs, so the pending effects are reported here.
                open.effects.outbox.send_replace(outbox);
            }
            return;
        }
        None => {}
    }
    let catalog = versions.catalog.current();
    let Some(state) = catalog.version(id) else { return };
    versions.opening.lock().await.insert(id.clone());
    let version = OpenVersion::still(id.clone(), view, carried, Orders::of(state));
    version.effects.outbox.send_replace(outbox);
    insert(versions, version).await;
}
