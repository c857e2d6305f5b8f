//! The check whether a version that stands by still has to reach events that it speaks for (I-9).

use dacapo_model::flip::still_reaches;
use dacapo_model::{Phase, Token, ViewId, covered};
use dacapo_store::{StoreError, View as StoredView};

use super::Versions;
use crate::code::VersionCode;

impl Versions {
    /// Returns true if a version still has to reach events that it speaks for (I-9): those that were appended during
    /// the flip away from it, and its lag. No other version makes their effects. Returns false if it halts or is
    /// paused, or if no node has its code.
    pub(crate) async fn is_speaking(
        &self,
        id: &ViewId,
        view: &dyn StoredView,
        tokens: &[Token],
    ) -> Result<bool, StoreError> {
        let reacts = |code: &VersionCode| code.code.projection == id.projection && !code.effect_names().is_empty();
        let catalog = self.catalog.current();
        let until = catalog.projections.get(&id.projection).and_then(|state| state.spoke_until(id.version));
        // A node that has just started knows no members yet, not even itself.
        let has_code = self.code_of(id).is_some() || self.cluster.has_code_of(id);
        let comes = has_code && self.carried().iter().any(reacts) && !self.is_paused(id);
        let Some(until) = until.filter(|_| comes) else { return Ok(false) };
        if covered(tokens) >= until {
            return Ok(false);
        }
        Ok(still_reaches(until, tokens, &view.refusals().await?))
    }

    /// Returns the same for a version that stands by. Returns true also if that is unknown.
    pub(crate) async fn stands_by_speaking(&self, id: &ViewId) -> bool {
        let looked = async {
            self.catalog.refresh().await?;
            let stands_by = self.catalog.current().version(id).is_some_and(|state| state.phase == Phase::StandingBy);
            let Some(open) = self.open_version(id).filter(|_| stands_by) else { return Ok(false) };
            self.is_speaking(id, &*open.view, &open.tokens().await?).await
        };
        looked.await.unwrap_or_else(|error: StoreError| matches!(error, StoreError::Unavailable { .. }))
    }
}
