//! The facts of this node about a version, from which its wait reasons follow. [`VersionFacts`] has the rules.

use dacapo_model::reasons::VersionFacts;
use dacapo_model::{Catalog, Phase, Token, VersionState, ViewId, WaitingOn};

use super::Versions;

impl Versions {
    /// Returns the facts about a version that are known without asking its store; `None` if the version does not exist.
    /// `tokens` are its tokens as far as they were seen.
    pub(crate) fn facts<'a>(&self, catalog: &'a Catalog, id: &ViewId, tokens: &'a [Token]) -> Option<VersionFacts<'a>> {
        let projection = catalog.projections.get(&id.projection)?;
        let state = projection.versions.get(&id.version)?;
        let (open, carried) = (self.open_version(id), self.code_of(id));
        let health = open.as_ref().map(|open| open.view.health()).unwrap_or_default();
        let outbox = open.as_ref().map(|open| open.effects.outbox.borrow().clone()).unwrap_or_default();
        let failing = outbox.failing.iter().map(|effect| WaitingOn::Effect {
            position: effect.effect.position,
            stream: effect.effect.stream.clone(),
            attempts: effect.attempts,
            error: effect.error.clone().unwrap_or_default(),
        });
        // The member that drives it has the facts.
        let drives = self.cluster.drives(id);
        let stands_for = self.stands.stands_for(id, state);
        Some(VersionFacts {
            version: id.version,
            state,
            projection,
            head: self.head(),
            floor: self.floor_of(&id.projection, projection),
            tokens,
            me: Some(self.cluster.me()),
            carried: carried.is_some(),
            carried_elsewhere: self.cluster.has_code_of(id),
            acts: carried.as_ref().is_some_and(|it| !it.effect_names().is_empty()),
            open: open.is_some(),
            bare: false,
            told: open.as_ref().map(|open| open.told()).unwrap_or_default(),
            trouble: self.notes.trouble(id),
            stuck: self.notes.stuck(),
            unowned: self.notes.unowned(id),
            damaged: health.damaged,
            failing: health.failing,
            halts: vec![],
            unreadable: None,
            unlike: carried.as_ref().and_then(|it| state.unlike(it.code.segments, &it.code.reads)),
            looking: self.notes.looking(id),
            effects: failing.collect(),
            pending: outbox.pending,
            before: open.as_ref().and_then(|open| *open.effects.before.borrow()),
            unpublished: self.notes.unpublished(id, projection).filter(|_| drives),
            rows: self.notes.scrubbed(id).and_then(|scrubbed| scrubbed.waiting_on()),
            stand_by: carried.map(|carried| carried.options.stand_by.saturating_sub(stands_for)),
            needed: None,
        })
    }

    /// Returns the tokens of a version, as far as this node has seen them.
    pub(crate) fn seen(&self, id: &ViewId) -> Vec<Token> {
        self.open_version(id).map(|open| open.progress.borrow().tokens.clone()).unwrap_or_default()
    }

    /// Returns the reasons why events are not applied to a version, or readers cannot use its view.
    pub(crate) fn kept(&self, id: &ViewId) -> Vec<WaitingOn> {
        let (catalog, tokens) = (self.catalog.current(), self.seen(id));
        self.facts(&catalog, id, &tokens).map(|facts| facts.reasons().kept).unwrap_or_default()
    }

    /// Checks that readers could be answered from a version. `open`: its view is open here with its code.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn answers_from(&self, id: &ViewId, open: bool) -> Result<(), WaitingOn> {
        let (catalog, tokens) = (self.catalog.current(), self.seen(id));
        let facts = self.facts(&catalog, id, &tokens).map(|facts| VersionFacts { open, ..facts });
        facts.map_or(Ok(()), |facts| facts.answers())
    }

    /// Returns the known damage of a version's view, if there is any.
    pub(crate) fn damage(&self, id: &ViewId) -> Option<WaitingOn> {
        self.kept(id).into_iter().find(WaitingOn::is_damage)
    }

    /// Returns what a version that has caught up waits on before its verification lets it serve; `None` if it may
    /// serve.
    pub(crate) fn unverified(&self, id: &ViewId, state: &VersionState) -> Option<WaitingOn> {
        VersionFacts::verdict(id.version, state, self.notes.looking(id).as_ref())
    }

    /// Returns the reasons why a version that is being built has no verdict yet.
    pub(crate) fn before_verdict(&self, id: &ViewId) -> Vec<WaitingOn> {
        let (catalog, tokens) = (self.catalog.current(), self.seen(id));
        self.facts(&catalog, id, &tokens).map(|facts| facts.reasons().of_reader()).unwrap_or_default()
    }

    /// Returns true if a pause keeps events from the version's view.
    pub(crate) fn is_paused(&self, id: &ViewId) -> bool {
        let applies = |phase: Phase| phase.applies();
        self.catalog.current().version(id).is_some_and(|state| state.paused && applies(state.phase))
    }
}
