//! What the drivers of a node have found of its versions, for each other and for whoever asks how they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use dacapo_model::reasons::Looking;
use dacapo_model::scrub::ScrubResult;
use dacapo_model::{BackOff, Position, ProjectionName, ProjectionState, Segment, Token, ViewId, WaitingOn, assign};
use dacapo_store::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::limits;

/// What was found.
#[derive(Default)]
pub(crate) struct Notes {
    /// Why views cannot be opened, read or dropped as their phases want.
    troubles: RwLock<BTreeMap<ViewId, WaitingOn>>,
    /// Versions that were closed since their views are damaged as a whole.
    resting: Mutex<BTreeMap<ViewId, Resting>>,
    /// What keeps the conductor from everything that it would do here.
    stuck: RwLock<Option<WaitingOn>>,
    /// Where the journal ended when views were closed.
    closed: RwLock<BTreeMap<ViewId, Position>>,
    published: RwLock<BTreeMap<ProjectionName, Published>>,
    flips: watch::Sender<HashMap<ProjectionName, FlipState>>,
    /// Segments that nobody live has.
    unowned: Mutex<BTreeMap<ViewId, Unowned>>,
    /// What the verifications under way are at.
    looking: RwLock<BTreeMap<ViewId, Looking>>,
    /// What the last look at the rows of versions that serve came to.
    scrubbed: RwLock<BTreeMap<ViewId, ScrubResult>>,
}

/// What is known about the flips of a projection beside the catalog.
#[derive(Clone, Debug, Default)]
struct FlipState {
    /// What the flip that was requested at this position waits on, as this node saw it last.
    waiting_on: (Position, Vec<WaitingOn>),
    /// The last one that this node carried out: its position, and for how long it held the old version.
    last: Option<(Position, Duration)>,
}

/// What this node knows of how SQL from outside follows a projection, since it drives what serves of it.
struct Published {
    /// The flip that it was tried to let it see.
    flip: Position,
    /// Why it does not see it yet.
    trouble: Option<String>,
}

/// Segments of a version that nobody live has, since a node noticed.
struct Unowned {
    /// The first of them.
    segment: Segment,
    segments: usize,
    since: Instant,
    /// Whether the alarm was raised.
    told: bool,
}

/// A version that was closed since nobody can be answered from its view.
struct Resting {
    /// What was found.
    error: StoreError,
    /// Before this it is not opened again.
    until: Instant,
    /// The pauses before it is opened again.
    pauses: BackOff,
}

impl Notes {
    /// Notes that a version was closed since its view is damaged as a whole. It is opened again after a pause, which is
    /// longer each time: somebody may put the file back.
    pub(crate) fn set_resting(&self, id: &ViewId, error: StoreError) {
        let mut all = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = BackOff::new(limits::REOPEN_PAUSE_FIRST, limits::REOPEN_PAUSE_MAX);
        let mut pauses = all.get(id).map_or(first, |before| before.pauses);
        all.insert(id.clone(), Resting { error, until: Instant::now() + pauses.pause(), pauses });
    }

    /// Why a version is not opened again yet, if it is not.
    pub(crate) fn resting(&self, id: &ViewId) -> Option<StoreError> {
        let all = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).filter(|resting| Instant::now() < resting.until).map(|resting| resting.error.clone())
    }

    /// Notes that a version is well, or gone.
    pub(crate) fn end_rest(&self, id: &ViewId) {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Why the view cannot be opened, read or dropped as the phase of its version wants.
    pub(crate) fn trouble(&self, id: &ViewId) -> Option<WaitingOn> {
        let troubles = self.troubles.read().unwrap_or_else(PoisonError::into_inner);
        troubles.get(id).cloned()
    }

    /// Remembers what is wrong with a view, if anything; what is new of it is logged.
    pub(crate) fn set_trouble(&self, id: &ViewId, trouble: Option<WaitingOn>) {
        let mut troubles = self.troubles.write().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(id) == trouble.as_ref() {
            return;
        }
        match trouble {
            Some(waiting_on) => {
                tracing::warn!(view = %id, %waiting_on, "the conductor cannot go on with a view for the moment");
                troubles.insert(id.clone(), waiting_on);
            }
            None => {
                tracing::info!(view = %id, "the conductor goes on with a view");
                troubles.remove(id);
            }
        }
    }

    /// Remembers whether SQL from outside sees by now that `serving` serves, by the flip at `flip`; what is new of that is
    /// logged.
    pub(crate) fn set_published(&self, serving: &ViewId, flip: Position, trouble: Option<String>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let before = published.insert(serving.projection.clone(), Published { flip, trouble: trouble.clone() });
        let before = before.filter(|before| before.flip == flip).and_then(|before| before.trouble);
        match trouble {
            Some(error) if before.as_ref() != Some(&error) => {
                tracing::warn!(view = %serving, error, "SQL from outside does not see yet what serves");
            }
            None if before.is_some() => tracing::info!(view = %serving, "SQL from outside sees what serves"),
            _ => {}
        }
    }

    /// Whether SQL from outside has seen the flip at `flip`, as far as this node knows.
    pub(crate) fn is_published(&self, projection: &ProjectionName, flip: Position) -> bool {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        published.get(projection).is_some_and(|found| found.flip >= flip && found.trouble.is_none())
    }

    /// Why SQL from outside does not see yet that this version serves, if this node has tried to let it. It keeps nobody
    /// from anything else.
    pub(crate) fn unpublished(&self, id: &ViewId, projection: &ProjectionState) -> Option<WaitingOn> {
        let (flip, _) = projection.served.last().filter(|(_, version)| *version == id.version)?;
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let found = published.get(&id.projection).filter(|found| found.flip == *flip)?;
        found.trouble.clone().map(|error| WaitingOn::Store { error })
    }

    /// Notes which segments of the version nobody live has, and raises the alarm when that lasts (I-10). Where no member
    /// could take them, that is what the version waits on.
    pub(crate) fn watch_claims(&self, id: &ViewId, tokens: &[Token], cluster: &Cluster) {
        let unowned = assign::unowned(tokens, &cluster.live().borrow());
        let capable = cluster.has_capable(id);
        let mut all = self.unowned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = unowned.first().copied().filter(|_| capable) else {
            if all.remove(id).is_some_and(|before| before.told) {
                tracing::info!(view = %id, "every segment is a member's again");
            }
            return;
        };
        let now = Instant::now();
        let fresh = Unowned { segment, segments: 0, since: now, told: false };
        let found = all.entry(id.clone()).or_insert(fresh);
        (found.segment, found.segments) = (segment, unowned.len());
        if !found.told && found.since.elapsed() >= limits::UNOWNED_TIME_MAX {
            found.told = true;
            tracing::error!(view = %id, %segment, segments = unowned.len(), "segments have been nobody's for too long");
        }
    }

    pub(super) fn unowned(&self, id: &ViewId) -> Option<WaitingOn> {
        let all = self.unowned.lock().unwrap_or_else(PoisonError::into_inner);
        let Unowned { segment, segments, since, .. } = *all.get(id).filter(|found| found.told)?;
        Some(WaitingOn::Unowned { segment, segments, since: since.elapsed() })
    }

    /// What a flip waits on, as far as this node has seen. What another one waited on, which was cancelled, replaced or
    /// carried out elsewhere since, says nothing of it.
    pub(crate) fn flip_waiting_on(&self, projection: &ProjectionName, requested: Position) -> Vec<WaitingOn> {
        let flips = self.flips.borrow();
        let told = flips.get(projection).map(|state| &state.waiting_on);
        told.filter(|(of, _)| *of == requested).map(|(_, waiting_on)| waiting_on.clone()).unwrap_or_default()
    }

    pub(crate) fn set_flip_waiting_on(&self, projection: &ProjectionName, requested: Position, on: Vec<WaitingOn>) {
        self.flips.send_modify(|flips| flips.entry(projection.clone()).or_default().waiting_on = (requested, on));
    }

    /// This node has carried out the flip at `flipped`, and held the old version for so long.
    pub(crate) fn set_flipped(&self, projection: &ProjectionName, flipped: Position, pause: Duration) {
        let state = FlipState { waiting_on: Default::default(), last: Some((flipped, pause)) };
        self.flips.send_modify(|flips| drop(flips.insert(projection.clone(), state)));
    }

    /// Notes what keeps the conductor from everything that it would do, if anything does.
    pub(crate) fn set_stuck(&self, reason: Option<WaitingOn>) {
        *self.stuck.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// What keeps the conductor from everything that it would do here. It is told wherever nothing else is known.
    pub(crate) fn stuck(&self) -> Option<WaitingOn> {
        self.stuck.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For how long the flip at `flipped` held the old version; `None` when another node or run did it. A node that is
    /// `alone` has done it itself.
    pub(crate) async fn flip_pause(
        &self,
        projection: &ProjectionName,
        flipped: Position,
        alone: bool,
    ) -> Option<Duration> {
        let mut flips = self.flips.subscribe();
        let last = |flips: &HashMap<ProjectionName, FlipState>| flips.get(projection).and_then(|state| state.last);
        // Readers follow a little before the hold is lifted and measured.
        let known = flips.wait_for(|flips| last(flips).is_some_and(|(position, _)| position >= flipped));
        let wait = if alone { limits::HOLD_END_TIME_MAX } else { limits::HOLD_END_TIME_MAX_SHARED };
        let known = tokio::time::timeout(wait, known).await.ok()?.ok()?;
        last(&known).filter(|(position, _)| *position == flipped).map(|(_, pause)| pause)
    }

    /// What the verification of a version is at, if one is under way here.
    pub(crate) fn looking(&self, id: &ViewId) -> Option<Looking> {
        self.looking.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn set_looking(&self, id: &ViewId, looking: Option<Looking>) {
        let mut all = self.looking.write().unwrap_or_else(PoisonError::into_inner);
        match looking {
            Some(looking) => all.insert(id.clone(), looking),
            None => all.remove(id),
        };
    }

    /// What the last look at the rows of a version that serves came to.
    pub(crate) fn scrubbed(&self, id: &ViewId) -> Option<ScrubResult> {
        self.scrubbed.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Notes what a look at the rows of a version came to; what is new of what is wrong is logged.
    pub(crate) fn set_scrubbed(&self, id: &ViewId, now: ScrubResult) {
        let wrong = |scrubbed: &ScrubResult| scrubbed.report.findings.clone();
        let (reason, found, position) = (now.waiting_on(), wrong(&now), now.position);
        let before = self.scrubbed.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), now);
        let before = before.map(|before| wrong(&before)).unwrap_or_default();
        match reason {
            // A text from a row is a field as it is, which the log escapes.
            Some(reason) if found != before => {
                let waiting_on = reason.to_string();
                tracing::error!(view = %id, waiting_on, "rows of a version that serves are not what its code makes");
            }
            None if !before.is_empty() => tracing::info!(view = %id, %position, "the rows that were wrong are right"),
            _ => {}
        }
    }

    /// Forgets what was found of versions that are not among these.
    pub(crate) fn keep_scrubbed(&self, keep: impl Fn(&ViewId) -> bool) {
        self.scrubbed.write().unwrap_or_else(PoisonError::into_inner).retain(|id, _| keep(id));
    }

    /// Notes where the journal ended when the view of a version was closed.
    pub(super) fn closed(&self, id: &ViewId, head: Position) {
        self.closed.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), head);
    }

    /// Where the journal ended when the view of a version was closed last.
    pub(super) fn closed_at(&self, id: &ViewId) -> Option<Position> {
        self.closed.read().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_is_not_told_what_another_one_waited_on() {
        let (notes, projection) = (Notes::default(), ProjectionName::new("totals").unwrap());
        let waiting_on = vec![WaitingOn::Store { error: "full".into() }];
        notes.set_flip_waiting_on(&projection, Position::new(7), waiting_on.clone());
        assert_eq!(notes.flip_waiting_on(&projection, Position::new(7)), waiting_on);
        // That one was cancelled, and somebody asked for another one, which nobody has looked at here.
        assert_eq!(notes.flip_waiting_on(&projection, Position::new(9)), []);
        notes.set_flipped(&projection, Position::new(8), Duration::ZERO);
        assert_eq!(notes.flip_waiting_on(&projection, Position::new(7)), []);
    }
}
