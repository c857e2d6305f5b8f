//! Whether a version that stands by is on its way to events that it speaks for (I-9).

use dacapo_model::flip::still_reaches;
use dacapo_model::{Phase, Token, ViewId, covered};
use dacapo_store::{StoreError, View as StoredView};

use super::Versions;
use crate::code::VersionCode;

impl Versions {
    /// Whether a version is on its way to events that it speaks for (I-9): whatever was appended while the flip away from
    /// it was under way, and what it lags. Nobody else makes their effects. One that halts or is paused is on no way, and
    /// neither is one whose code is nowhere.
    pub(crate) async fn is_speaking(
        &self,
        id: &ViewId,
        view: &dyn StoredView,
        tokens: &[Token],
    ) -> Result<bool, StoreError> {
        let reacts = |code: &VersionCode| code.code.projection == id.projection && !code.effect_names().is_empty();
        let catalog = self.catalog.current();
        let until = catalog.projections.get(&id.projection).and_then(|state| state.spoke_until(id.version));
        // A node that has just started knows of no member yet, not even of itself.
        let has_code = self.code_of(id).is_some() || self.cluster.has_code_of(id);
        let comes = has_code && self.carried().iter().any(reacts) && !self.is_paused(id);
        let Some(until) = until.filter(|_| comes) else { return Ok(false) };
        if covered(tokens) >= until {
            return Ok(false);
        }
        Ok(still_reaches(until, tokens, &view.refusals().await?))
    }

    /// The same of a version that stands by, also while that cannot be told.
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
