//! Removes marks that interrupted drivers have left on tokens.

use dacapo_model::flip::stray_hold;
use dacapo_model::meet::{Verifier, is_stray_cap};
use dacapo_model::{Token, ViewId};
use dacapo_store::StoreError;

use crate::versions::{OpenVersion, Versions};

/// Removes the cap of a verification that is over: it was interrupted, or its node died.
pub(super) async fn uncap_stray(
    versions: &Versions,
    version: &OpenVersion,
    tokens: &[Token],
) -> Result<(), StoreError> {
    let catalog = versions.catalog.current();
    let verifier = |built| {
        let id = ViewId { version: built, ..version.id.clone() };
        match versions.cluster.has_capable(&id) {
            false => Verifier::Nobody,
            true if !versions.cluster.drives(&id) => Verifier::Another,
            true => Verifier::Here { meets: versions.open_version(&id).is_some_and(|open| open.is_meeting()) },
        }
    };
    let Some(projection) = catalog.projections.get(&version.id.projection) else { return Ok(()) };
    if is_stray_cap(tokens, projection, verifier) { version.uncap().await } else { Ok(()) }
}

/// Lifts the hold of a flip that is over: its driver died before it could lift the hold. The catalog is read after
/// `tokens`, so it knows the request of every mark among them.
pub(super) async fn lift_stray(versions: &Versions, version: &OpenVersion, tokens: &[Token]) -> Result<(), StoreError> {
    let catalog = versions.catalog.current();
    let id = &version.id;
    let present = catalog.projections.get(&id.projection).and_then(|state| state.hold_on(id.version));
    match stray_hold(tokens, present, catalog.position) {
        Some(mark) => version.lift(mark).await,
        None => Ok(()),
    }
}
