//! The checks that a view belongs to this journal and reaches no further.

use std::sync::Arc;

use dacapo_model::views::FoundView;
use dacapo_model::{CatalogCommand, Parted, Phase, Position, VersionState, ViewId};
use dacapo_store::{Journal, Store, StoreError};

use super::retire::discard;
use crate::catalog::{CatalogError, CatalogLog, RequestedBy};
use crate::history::{self, Beyond};
use crate::versions::Versions;

/// Looks for views that reach beyond the journal, before anything runs. They were made from a history that does not
/// exist any more. If such a view followed the journal, it would silently lack the events that get the positions that
/// it covers already (I-3). So the catalog records that its version has parted, before the journal reaches those
/// positions. A view whose version is gone is dropped.
///
/// # Errors
/// [`CatalogError`] if the catalog cannot be changed. A view that cannot be read is not an error here.
pub(crate) async fn check_views(store: &Store, catalog: &Arc<CatalogLog>) -> Result<(), CatalogError> {
    let views = &*store.views;
    for id in views.list().await? {
        // The catalog is read after the view was seen, since another node may have made the view meanwhile.
        if catalog.current().version(&id).is_none_or(|state| state.phase == Phase::Scheduled) {
            catalog.refresh().await?;
        }
        let current = catalog.current();
        match current.found_view(&id) {
            FoundView::Unknown => {
                let advice = "remove it, or put the journal back that it was made from";
                tracing::warn!(view = %id, advice, "a view is there of which the journal knows nothing; it is left alone");
            }
            FoundView::MustMatch => {
                let Ok(Some(view)) = views.find(&id).await else { continue };
                // A view whose marks differ shows that itself at any time.
                if let Ok(Some(beyond)) = history::beyond(&*store.journal, &*view).await {
                    part(catalog, &id, beyond).await?;
                }
            }
            FoundView::IsDropped => discard(views, &current, &id).await?,
            FoundView::Stays => {}
        }
    }
    Ok(())
}

/// Checks that a view is of this journal and reaches no further. If it reaches further, the catalog records that its
/// version has parted, so that it stays so once the journal has grown past the view.
///
/// # Errors
/// [`StoreError::Parted`] if not; another error if something cannot be read, or if the catalog cannot be changed.
pub(super) async fn fits(
    journal: &dyn Journal,
    catalog: &Arc<CatalogLog>,
    id: &ViewId,
    view: &dyn dacapo_store::View,
) -> Result<(), CatalogError> {
    history::check(journal, view).await?;
    match history::beyond(journal, view).await? {
        None => Ok(()),
        Some(beyond) => {
            part(catalog, id, beyond).await?;
            Err(beyond.parted().into())
        }
    }
}

/// Records that a version has parted, since its view reaches beyond the journal.
pub(super) async fn part(catalog: &Arc<CatalogLog>, id: &ViewId, beyond: Beyond) -> Result<(), CatalogError> {
    let Beyond { same_through, differs_at } = beyond;
    tracing::error!(view = %id, %same_through, %differs_at, "the view reaches beyond the journal");
    let part = CatalogCommand::Part { view: id.clone(), same_through, differs_at };
    match Arc::clone(catalog).change(part, RequestedBy::by_plan()).await {
        // Another driver changed its phase meanwhile.
        Ok(_) | Err(CatalogError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that a view is of this journal.
pub(super) async fn belongs(
    journal: &dyn Journal,
    view: &dyn dacapo_store::View,
    state: &VersionState,
) -> Result<(), StoreError> {
    history::check(journal, view).await?;
    state.parted.map_or(Ok(()), |parted| Err(StoreError::Parted(parted)))
}

/// Checks that there is no view of a version that never began. Such a view would be of another history, in which the
/// version began.
pub(super) async fn unbegun(versions: &Versions, id: &ViewId) -> Result<(), StoreError> {
    let view = match versions.views.find(id).await {
        Ok(Some(view)) => view,
        // A view that cannot be read is not used either: the version fails once it has begun.
        Ok(None) | Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Another node may have begun the version before it made the view.
    versions.catalog.refresh().await?;
    if versions.catalog.current().version(id).is_none_or(|state| state.phase != Phase::Scheduled) {
        return Ok(());
    }
    history::check_opened(&*versions.journal, &*view).await?;
    let kept = view.history().await?.map(|history| history.marks).unwrap_or_default();
    let same_through = kept.last().map(|mark| mark.position).unwrap_or_default();
    let covered = view.tokens().await?.into_iter().map(|token| token.position);
    let differs_at = covered.fold(versions.head(), Position::max).next();
    Err(StoreError::Parted(Parted::History { same_through, differs_at }))
}
