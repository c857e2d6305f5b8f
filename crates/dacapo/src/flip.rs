//! Carries out flips: the driver around [`dacapo_model::flip::gate`].
//!
//! ```text
//!   1  FlipRequested at F          by the plan or by a caller
//!   2  b is verified, covers F     waited for
//!   3  hold a, W = highest of a    at most HOLD_TIME_MAX, then FlipPostponed, lift and again
//!   4  b covers max(F, W):         Flipped is appended, readers follow
//!   5  lift                        a stands by and goes on
//! ```
//!
//! All state is in the journal and in the token rows, so the next driver continues a flip that was interrupted at any
//! step. A pending request is driven again from the start. The conductor lifts a hold whose flip is over.
//!
//! A hold is lifted only once the journal says that nobody can confirm a flip on it any more: it has `Flipped`,
//! `FlipAborted`, `FlipCancelled` or `FlipPostponed`. So if the journal cannot be written, or an answer is lost, the old version stays
//! held. That harms nobody, since it continues to show what it showed. Nothing here writes rows or moves tokens.

use std::sync::Arc;
use std::time::Duration;

use dacapo_model::flip::{FlipFacts, From, Gate, gate};
use dacapo_model::{
    BackOff, Catalog, CatalogCommand, FlipKind, PendingFlip, Position, ProjectionName, Token, VersionId, ViewId,
    WaitingOn,
};
use dacapo_store::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::{CatalogError, RequestedBy};
use crate::history;
use crate::limits;
use crate::verify;
use crate::versions::{OpenVersion, Versions};
use crate::world::Step;

/// A flip that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlipReport {
    /// The version that serves since the flip.
    pub to: VersionId,
    /// The version that served before.
    pub from: Option<VersionId>,
    /// The direction.
    pub kind: FlipKind,
    /// The position of the flip.
    pub flipped: Position,
    /// The position that every segment of the new version covered.
    pub covers: Position,
    /// The time for which the old version's processors were held, if this node held them. Writers and readers are never
    /// held.
    pub pause: Option<Duration>,
}

struct Drive<'a> {
    versions: &'a Versions,
    projection: &'a ProjectionName,
    pending: PendingFlip,
    /// The version that will serve, once its view is open.
    to: Option<Arc<OpenVersion>>,
    /// The serving version, if there is one and its view is open.
    from: Option<Arc<OpenVersion>>,
    /// The head when the view of the serving version was found to be gone.
    gone_at: Option<Position>,
    held_since: Option<Instant>,
    covered: bool,
    /// The pauses after holds that used up their budget.
    pauses: BackOff,
}

enum Next {
    Again,
    Rest,
    Done,
}

/// Drives the pending flip of `projection` until it is done or given up.
pub(crate) async fn drive(versions: Arc<Versions>, projection: ProjectionName) {
    let mut catalog = versions.catalog.watch();
    let mut pauses = BackOff::new(limits::FLIP_PAUSE_FIRST, limits::FLIP_PAUSE_MAX);
    loop {
        let pending = catalog.borrow_and_update().projections.get(&projection).and_then(|state| state.flip);
        let Some(pending) = pending else { return };
        versions.world.probe.completed(Step::FlipRequested);
        let mut drive = Drive {
            versions: &versions,
            projection: &projection,
            pending,
            to: None,
            from: None,
            gone_at: None,
            held_since: None,
            covered: false,
            pauses,
        };
        if drive.run(&mut catalog).await {
            return;
        }
        pauses = drive.pauses;
    }
}

impl Drive<'_> {
    /// Runs until the flip is done, and returns true; or until the pending flip is another one.
    async fn run(&mut self, catalog: &mut watch::Receiver<Arc<Catalog>>) -> bool {
        loop {
            self.look();
            let rest = match self.step().await {
                Ok(Next::Done) => return true,
                Ok(Next::Again) => Duration::ZERO,
                Ok(Next::Rest) => limits::FLIP_LOOK,
                Err(error) => {
                    tracing::warn!(projection = %self.projection, %error, "the flip cannot continue now, and retries");
                    self.wait_on(vec![WaitingOn::Store { error: error.to_string() }]);
                    limits::FLIP_PAUSE_FIRST
                }
            };
            if !rest.is_zero() {
                self.pause(rest, catalog).await;
            }
            let still = catalog.borrow_and_update().projections.get(self.projection).and_then(|state| state.flip);
            if still != Some(self.pending) {
                self.let_go().await;
                return false;
            }
        }
    }

    /// Finds the versions that are open now. The conductor opens them, and may open them again.
    fn look(&mut self) {
        self.to = self.versions.open_version(&self.view(self.pending.to));
        self.from = self.pending.from.and_then(|from| self.versions.open_version(&self.view(from)));
    }

    fn wait_on(&self, waiting_on: Vec<WaitingOn>) {
        self.versions.notes.set_flip_waiting_on(self.projection, self.pending.requested, waiting_on);
    }

    async fn pause(&self, time: Duration, catalog: &mut watch::Receiver<Arc<Catalog>>) {
        let mut to = self.to.as_ref().map(|to| to.progress.clone());
        let progress = async {
            match &mut to {
                Some(to) => {
                    to.mark_unchanged();
                    to.changed().await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = catalog.changed() => {}
            // A processor that has ended reports no more changes. Then the time ends the wait.
            Ok(()) = progress => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    #[expect(clippy::expect_used, reason = "the gate holds only a version that is open")]
    async fn step(&mut self) -> Result<Next, CatalogError> {
        let PendingFlip { requested, hold, to, from, .. } = self.pending;
        let to_tokens = self.to_tokens().await;
        let from_tokens = match &self.from {
            Some(from) => from.tokens().await?,
            None => vec![],
        };
        // A closed version stays closed while the flip relies on it.
        let mut _opening = None;
        let from = match (&self.from, from) {
            (Some(from), _) => {
                Some(From::Open { tokens: &from_tokens, shown_before: self.versions.shown_before(&from.id) })
            }
            (None, None) => None,
            (None, Some(version)) => {
                _opening = Some(self.versions.opening.lock().await);
                if self.versions.open_version(&self.view(version)).is_some() {
                    return Ok(Next::Again);
                }
                match self.shown_elsewhere(version).await? {
                    Some(shown) => Some(From::Closed { shown }),
                    None => {
                        self.wait_on(vec![WaitingOn::Store {
                            error: format!("the serving version {version} cannot be opened"),
                        }]);
                        return Ok(Next::Rest);
                    }
                }
            }
        };
        let to_tokens = to_tokens.as_deref().map_err(Clone::clone);
        let halts = self.versions.kept(&self.view(to));
        let to_verified = self.to_verified();
        // This comes after the tokens were read, so that every event that they cover and that was set aside is known.
        let outdated = to_verified.is_ok() && self.is_outdated().await?;
        // The time of a hold that was found at the start, which a process that died has left, counts from then.
        let held = self.held_since.map(|since| since.elapsed()).unwrap_or_default();
        match gate(&FlipFacts { requested, hold, held, from, to, to_tokens, to_verified, outdated, halts: &halts }) {
            Gate::VerifyAgain => {
                let id = self.view(to);
                tracing::warn!(view = %id, "events were set aside since its verification passed: it is verified again");
                let again = CatalogCommand::RequestVerification(id);
                Arc::clone(&self.versions.catalog).change(again, RequestedBy::by_plan()).await?;
                Ok(Next::Again)
            }
            Gate::Wait(reasons) => {
                self.wait_on(reasons);
                Ok(Next::Rest)
            }
            Gate::Hold => {
                self.cover();
                let from = self.from.as_ref().expect("the gate holds only a version that is open");
                match tokio::time::timeout(limits::REQUEST_TIME_MAX, from.view.hold(hold)).await {
                    Ok(held) => drop(held?),
                    Err(_) => {
                        self.wait_on(from.told());
                        return Ok(Next::Rest);
                    }
                }
                // Until here the call waited for the batch that was being written, and blocked nobody.
                self.held_since = Some(Instant::now());
                self.versions.world.probe.completed(Step::FlipHeld);
                Ok(Next::Again)
            }
            Gate::Held(reasons) => {
                self.held_since.get_or_insert_with(Instant::now);
                self.wait_on(reasons);
                Ok(Next::Rest)
            }
            Gate::Postpone => {
                self.postpone().await?;
                Ok(Next::Again)
            }
            Gate::Flip { covers } => {
                self.cover();
                self.flip(covers).await?;
                Ok(Next::Done)
            }
        }
    }

    /// Returns the highest position that the serving version, which this node cannot open, may have shown; `None` if
    /// another node may show more of it at any time.
    async fn shown_elsewhere(&mut self, version: VersionId) -> Result<Option<Position>, StoreError> {
        let versions = self.versions;
        if versions.cluster.is_alone() {
            // This node has not shown it since the start, or since it was closed.
            return Ok(Some(versions.shown(&self.view(version))));
        }
        // A view that does not exist is open on no node, and everything that it showed was in the journal before it was
        // dropped. A view that does not belong to the journal counts as gone, since every node keeps it closed.
        let id = self.view(version);
        let has_parted = versions.catalog.current().version(&id).is_some_and(|state| state.parted.is_some());
        let is_gone = match versions.views.find(&id).await? {
            None => true,
            Some(_) if has_parted => true,
            Some(view) => match history::check(&*versions.journal, &*view).await {
                Err(StoreError::Parted(_)) => true,
                checked => checked.map(|_| false)?,
            },
        };
        self.gone_at = is_gone.then(|| self.gone_at.unwrap_or_else(|| versions.head()));
        Ok(self.gone_at)
    }

    /// Returns the tokens of the version that will serve, or the reason why nobody could be answered from it.
    async fn to_tokens(&self) -> Result<Vec<Token>, WaitingOn> {
        let (id, code) = (self.view(self.pending.to), WaitingOn::Code { version: self.pending.to });
        let open = self.to.as_ref().filter(|to| to.carried.is_some());
        self.versions.answers_from(&id, open.is_some())?;
        let tokens = open.ok_or(code)?.tokens().await;
        tokens.map_err(|error| WaitingOn::Store { error: error.to_string() })
    }

    /// Returns true if another verification of the version that will serve could have another verdict.
    async fn is_outdated(&self) -> Result<bool, StoreError> {
        let catalog = self.versions.catalog.current();
        match (&self.to, catalog.version(&self.view(self.pending.to))) {
            (Some(to), Some(state)) => verify::is_outdated(to, state).await,
            _ => Ok(false),
        }
    }

    /// Returns whether the verification of the version that will serve allows it, or what it waits on.
    fn to_verified(&self) -> Result<(), WaitingOn> {
        let (catalog, id) = (self.versions.catalog.current(), self.view(self.pending.to));
        let waiting = catalog.version(&id).and_then(|state| self.versions.unverified(&id, state));
        waiting.map_or(Ok(()), Err)
    }

    fn cover(&mut self) {
        if !std::mem::replace(&mut self.covered, true) {
            self.versions.world.probe.completed(Step::FlipCovered);
        }
    }

    /// Appends the event that is the flip.
    #[expect(clippy::expect_used, reason = "a confirmed flip is an entry")]
    async fn flip(&mut self, covers: Position) -> Result<(), CatalogError> {
        assert!(covers >= self.pending.requested, "I-6: the new version covers the request");
        self.versions.world.probe.completed(Step::FlipMeasured);
        let confirm = CatalogCommand::ConfirmFlip { view: self.view(self.pending.to), hold: self.pending.hold, covers };
        // This returns after the catalog shows the flip to every reader, so the old version is released later (I-7).
        let entries = match Arc::clone(&self.versions.catalog).change(confirm, RequestedBy::by_plan()).await {
            Ok(entries) => entries,
            // Another controller was first, which has the same effect. The catalog is up to date by now.
            Err(CatalogError::Refused(refused)) => {
                tracing::info!(projection = %self.projection, %refused, "the flip was settled elsewhere");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.versions.world.probe.completed(Step::Flipped);
        let pause = self.held_since.map(|since| since.elapsed()).unwrap_or_default();
        self.let_go().await;
        self.versions.world.probe.completed(Step::FlipLifted);
        let flipped = entries.last().expect("a confirmed flip is an entry").position;
        tracing::info!(
            projection = %self.projection, to = %self.pending.to, %covers, pause_ms = pause.as_millis(), "flipped"
        );
        self.versions.notes.set_flipped(self.projection, flipped, pause);
        Ok(())
    }

    /// Postpones the flip, since the hold has used up its budget: first the journal records it, then the hold is
    /// lifted.
    async fn postpone(&mut self) -> Result<(), CatalogError> {
        let postpone = CatalogCommand::PostponeFlip { view: self.view(self.pending.to), hold: self.pending.hold };
        match Arc::clone(&self.versions.catalog).change(postpone, RequestedBy::by_plan()).await {
            Ok(_) | Err(CatalogError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        self.let_go().await;
        let budget = limits::HOLD_TIME_MAX;
        self.wait_on(vec![WaitingOn::HoldBudget { budget }]);
        tokio::time::sleep(self.pauses.pause()).await;
        Ok(())
    }

    fn view(&self, version: VersionId) -> ViewId {
        ViewId { projection: self.projection.clone(), version }
    }

    /// Lifts the hold. If that fails, the conductor finds the stray hold and lifts it.
    async fn let_go(&mut self) {
        self.held_since = None;
        let Some(from) = &self.from else { return };
        if let Err(error) = from.lift(self.pending.hold).await {
            tracing::warn!(view = %from.id, %error, "the hold is not lifted yet");
        }
    }
}
