//! Removes marks that interrupted drivers have left on tokens.

use dacapo_model::flip::stray_hold;
use dacapo_model::{Phase, Token, VersionState, ViewId};
use dacapo_store::StoreError;

use crate::versions::{OpenVersion, Versions};

/// Removes the cap of a verification that is over: it was interrupted, or its node died. While a version of the
/// projection is being built, the member that verifies it knows whether the cap is needed.
pub(super) async fn uncap_stray(
    versions: &Versions,
    version: &OpenVersion,
    tokens: &[Token],
) -> Result<(), StoreError> {
    if tokens.iter().all(|token| token.cap.is_none()) {
        return Ok(());
    }
    let catalog = versions.catalog.current();
    let projection = &version.id.projection;
    let mut built = catalog.versions().filter(|(id, state)| {
        id.projection == *projection && state.phase == Phase::Initializing && versions.cluster.has_capable(id)
    });
    let meets = |id: &ViewId| versions.open_version(id).is_some_and(|open| open.is_meeting());
    let is_stray = |(id, _): (ViewId, &VersionState)| versions.cluster.drives(&id) && !meets(&id);
    if built.all(is_stray) {
        version.uncap().await?;
    }
    Ok(())
}

/// Lifts the hold of a flip that is over: its driver died before it could lift the hold. The catalog is read after
/// `tokens`, so it knows the request of every mark among them.
pub(super) async fn lift_stray(versions: &Versions, version: &OpenVersion, tokens: &[Token]) -> Result<(), StoreError> {
    let catalog = versions.catalog.current();
    let id = &version.id;
    let flip = catalog.projections.get(&id.projection).and_then(|state| state.flip);
    let present = flip.filter(|flip| flip.from == Some(id.version)).map(|flip| flip.hold);
    match stray_hold(tokens, present, catalog.position) {
        Some(mark) => version.lift(mark).await,
        None => Ok(()),
    }
}
