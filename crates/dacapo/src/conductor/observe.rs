//! Observes every version, and does for it what its phase requires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dacapo_model::views::{Consequences, ViewFault, consequences};
use dacapo_model::{CatalogCommand, Parted, Phase, Position, Token, VersionState, ViewId, WaitingOn, covered};
use dacapo_store::StoreError;

use super::belongs::{fits, part, unbegun};
use super::retire::{clean_up, close, stop};
use super::start::open;
use super::strays::{lift_stray, uncap_stray};
use crate::catalog::{CatalogError, RequestedBy};
use crate::code::Voices;
use crate::history::{self, Beyond};
use crate::processor::Orders;
use crate::versions::{Versions, may_speak};

/// The observations of all versions.
#[derive(Default)]
pub(super) struct Observed {
    /// The head after all versions were observed.
    pub(super) head: Position,
    /// The tokens of the versions that are open here.
    pub(super) tokens: BTreeMap<ViewId, Vec<Token>>,
    /// The versions that lack indexes, while they are being built.
    pub(super) bare: BTreeSet<ViewId>,
    /// The versions that stand by and still have to reach events that they speak for.
    pub(super) speaking: BTreeSet<ViewId>,
    /// The versions that may begin: no view of another history has their name.
    pub(super) may_begin: BTreeSet<ViewId>,
}

/// Observes every version. The catalog is known through `head`.
pub(super) async fn observe(versions: &Arc<Versions>, head: Position) -> Result<Observed, CatalogError> {
    let mut observed = Observed::default();
    for (id, state) in versions.catalog.current().versions() {
        // A problem of one view stops no other.
        if let (Some(open), Some(projection)) =
            (versions.open_version(&id), versions.catalog.current().projections.get(&id.projection))
        {
            open.hear(Voices::new(projection, head));
        }
        let attended = attend(versions, &id, state).await;
        // First, so that nobody finds it closed without a reason.
        versions.notes.set_trouble(&id, attended.as_ref().err().map(trouble));
        shut(versions, &id, state, &attended).await?;
        if let Err(CatalogError::Store(error)) = &attended {
            observed.speaking.extend(may_speak(error).then(|| id.clone()));
        }
        observed.may_begin.extend((state.phase == Phase::Scheduled && attended.is_ok()).then(|| id.clone()));
        if let Some(found) = attended.ok().flatten() {
            observed.bare.extend(found.bare.then(|| id.clone()));
            observed.speaking.extend(found.speaking.then(|| id.clone()));
            observed.tokens.insert(id, found.tokens);
        }
    }
    observed.head = versions.head();
    Ok(observed)
}

/// Carries out the consequences of a look at a version's view ([`consequences`]).
async fn shut(
    versions: &Arc<Versions>,
    id: &ViewId,
    state: &VersionState,
    attended: &Result<Option<Found>, CatalogError>,
) -> Result<(), CatalogError> {
    let fault = match attended {
        Err(CatalogError::Store(error)) => Some(error),
        Ok(_) | Err(_) => None,
    };
    let damage = versions.open_version(id).and_then(|open| open.view.health().damaged);
    let Consequences { closes, rests, fails } = consequences(state.phase, fault.map(kind), damage.is_some());
    if let Some(fault) = fault.filter(|_| rests) {
        versions.notes.set_resting(id, fault.clone());
    }
    if closes {
        if let Some(StoreError::Parted(Parted::History { differs_at, .. })) = fault
            && versions.open_version(id).is_some()
            && versions.catalog.current().serving(&id.projection) == Some(id.version)
        {
            versions.takes_back(&id.projection, *differs_at);
        }
        close(versions, id).await;
    }
    if attended.is_ok() {
        versions.notes.end_rest(id);
    }
    let damage = damage.map(|error| StoreError::corrupt(format!("the view {id}"), error));
    match damage.as_ref().or(fault).filter(|_| fails) {
        Some(error) => give_up(versions, id, error).await,
        None => Ok(()),
    }
}

fn kind(error: &StoreError) -> ViewFault {
    match error {
        StoreError::Unavailable { .. } => ViewFault::Unavailable,
        StoreError::Parted(_) => ViewFault::Parted,
        StoreError::Corrupt { .. } => ViewFault::Corrupt,
        // No other error passes.
        _ => ViewFault::Unfit,
    }
}

/// Returns the wait reason of a version whose phase could not be carried out.
pub(super) fn trouble(error: &CatalogError) -> WaitingOn {
    match error {
        CatalogError::Store(error) => history::waiting_on(error),
        error => WaitingOn::Store { error: error.to_string() },
    }
}

/// Fails a version that can never be built, for this reason.
async fn give_up(versions: &Arc<Versions>, id: &ViewId, error: &StoreError) -> Result<(), CatalogError> {
    tracing::warn!(view = %id, %error, "the version cannot be built");
    let fail = CatalogCommand::Fail { view: id.clone(), reason: error.to_string() };
    match Arc::clone(&versions.catalog).change(fail, RequestedBy::by_plan()).await {
        // Another driver changed its phase meanwhile.
        Ok(_) | Err(CatalogError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The facts about a view that the rules need.
struct Found {
    tokens: Vec<Token>,
    /// True if it lacks indexes, while it is being built.
    bare: bool,
    /// True if it stands by and still has to reach events that it speaks for.
    speaking: bool,
}

/// Compares the open view of a version with the store and the journal, if that was not done a moment ago. A version whose
/// view is gone is closed, and opened again as at a start.
async fn compare(versions: &Arc<Versions>, id: &ViewId) -> Result<(), CatalogError> {
    let Some(version) = versions.open_version(id) else { return Ok(()) };
    let parted = version.parted();
    if version.is_compared().await && parted.is_none() {
        return Ok(());
    }
    if versions.views.is_gone(id).await? {
        tracing::warn!(view = %id, "its view is gone: the version is closed, and opened again as at a start");
        close(versions, id).await;
        return Ok(());
    }
    fits(&*versions.journal, &versions.catalog, id, &*version.view).await?;
    if let Some(Parted::History { same_through, differs_at }) = parted {
        // The journal has grown past the tokens since its processor looked.
        let beyond = Beyond { same_through, differs_at };
        part(&versions.catalog, id, beyond).await?;
        return Err(beyond.parted().into());
    }
    version.compared().await;
    Ok(())
}

/// Does for one version what its phase requires, and returns the facts about its view if it is open.
async fn attend(versions: &Arc<Versions>, id: &ViewId, state: &VersionState) -> Result<Option<Found>, CatalogError> {
    match state.phase {
        phase if phase.applies() => {
            if let Some(parted) = state.parted {
                return Err(StoreError::Parted(parted).into());
            }
            if let Some(damage) = versions.notes.resting(id) {
                return Err(damage.into());
            }
            compare(versions, id).await?;
            open(versions, id, state).await?;
            let Some(version) = versions.open_version(id) else { return Ok(None) };
            version.commands.order(Orders::of(state));
            // This look from time to time detects and logs a handler that does not return.
            drop(version.told());
            let tokens = version.tokens().await?;
            versions.notes.watch_claims(id, &tokens, &versions.cluster);
            let share = version.carried.as_ref().map(|carried| carried.options.rebuild_share).unwrap_or_default();
            version.commands.work(share.in_phase(state.phase));
            let covers = covered(&tokens);
            versions.trails.look(id, &tokens, version.reached(covers), versions.head());
            lift_stray(versions, &version, &tokens).await?;
            uncap_stray(versions, &version, &tokens).await?;
            let bare = state.phase == Phase::Initializing && versions.is_bare(id).await?;
            let speaking =
                state.phase == Phase::StandingBy && versions.is_speaking(id, &*version.view, &tokens).await?;
            return Ok(Some(Found { tokens, bare, speaking }));
        }
        Phase::Scheduled => unbegun(versions, id).await?,
        Phase::CleaningUp => clean_up(versions, id).await?,
        Phase::Failed => stop(versions, id).await,
        _ => {}
    }
    Ok(None)
}
