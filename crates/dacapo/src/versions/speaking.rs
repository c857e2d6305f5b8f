//! The facts about a version that stands by and may still have to reach events that it speaks for (I-9).
//! [`dacapo_model::reach`] has the rules.

use dacapo_model::reach::still_reaches;
use dacapo_model::{Phase, Token, ViewId};
use dacapo_store::{StoreError, View as StoredView};

use super::Versions;
use crate::code::VersionCode;

impl Versions {
    /// Returns true if a version that stands by still has to reach events that it speaks for (I-9): those that were
    /// appended during the flip away from it, and its lag.
    pub(crate) async fn is_speaking(
        &self,
        id: &ViewId,
        view: &dyn StoredView,
        tokens: &[Token],
    ) -> Result<bool, StoreError> {
        let reacts = |code: &VersionCode| code.code.projection == id.projection && !code.effect_names().is_empty();
        let reacts = self.carried().iter().any(reacts);
        // A node that has just started knows no members yet, not even itself.
        let has_code = self.code_of(id).is_some() || self.cluster.has_code_of(id);
        let catalog = self.catalog.current();
        let projection = catalog.projections.get(&id.projection);
        let until = projection.and_then(|projection| projection.must_reach(id.version, reacts, has_code));
        // Most have reached it, and the segments that halt are not read then.
        let Some(until) = until.filter(|until| still_reaches(*until, tokens, &[])) else { return Ok(false) };
        Ok(still_reaches(until, tokens, &view.refusals().await?))
    }

    /// Returns the same for a version of which nothing is known yet.
    pub(crate) async fn stands_by_speaking(&self, id: &ViewId) -> bool {
        let looked = async {
            self.catalog.refresh().await?;
            let stands_by = self.catalog.current().version(id).is_some_and(|state| state.phase == Phase::StandingBy);
            let Some(open) = self.open_version(id).filter(|_| stands_by) else { return Ok(false) };
            self.is_speaking(id, &*open.view, &open.tokens().await?).await
        };
        looked.await.unwrap_or_else(|error| may_speak(&error))
    }
}

/// Returns true if a version may still have to reach events that it speaks for, although a look at it failed: its
/// progress is unknown, and will be known again.
pub(crate) fn may_speak(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { .. })
}
