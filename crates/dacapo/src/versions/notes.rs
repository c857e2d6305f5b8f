//! The findings of a node's drivers about its versions, for each other and for the status.

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

/// The findings.
#[derive(Default)]
pub(crate) struct Notes {
    /// The reasons why views cannot be opened, read or dropped as their phases require.
    troubles: RwLock<BTreeMap<ViewId, WaitingOn>>,
    /// The versions that were closed because their views are damaged as a whole.
    resting: Mutex<BTreeMap<ViewId, Resting>>,
    /// The reason why the conductor cannot work at all on this node.
    stuck: RwLock<Option<WaitingOn>>,
    /// The end of the journal when views were closed.
    closed: RwLock<BTreeMap<ViewId, Position>>,
    published: RwLock<BTreeMap<ProjectionName, Published>>,
    flips: watch::Sender<HashMap<ProjectionName, FlipState>>,
    /// The segments that no live member has.
    unowned: Mutex<BTreeMap<ViewId, Unowned>>,
    /// The progress of the verifications under way.
    looking: RwLock<BTreeMap<ViewId, Looking>>,
    /// The results of the last background checks of serving versions' rows.
    scrubbed: RwLock<BTreeMap<ViewId, ScrubResult>>,
}

/// The facts about the flips of a projection that are not in the catalog.
#[derive(Clone, Debug, Default)]
struct FlipState {
    /// The wait reasons of the flip that was requested at this position, as this node saw them last.
    waiting_on: (Position, Vec<WaitingOn>),
    /// The last flip that this node carried out: its position, and the time for which it held the old version.
    last: Option<(Position, Duration)>,
}

/// The state of the names under which SQL from outside finds a projection, on the node that drives its serving version.
struct Published {
    /// The flip that the names should show.
    flip: Position,
    /// The reason why they do not show it yet.
    trouble: Option<String>,
    /// The time of the look that found this.
    looked: Instant,
}

/// Segments of a version that no live member has, and the time since a node noticed.
struct Unowned {
    /// The first of them.
    segment: Segment,
    segments: usize,
    since: Instant,
    /// True if the alarm was raised.
    told: bool,
}

/// A version that was closed because nobody can be answered from its view.
struct Resting {
    /// The error.
    error: StoreError,
    /// It is not opened again before this time.
    until: Instant,
    /// The pauses before it is opened again.
    pauses: BackOff,
}

impl Notes {
    /// Records that a version was closed because its view is damaged as a whole. It is opened again after a pause,
    /// which grows each time, since an operator may restore the file.
    pub(crate) fn set_resting(&self, id: &ViewId, error: StoreError) {
        let mut all = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = BackOff::new(limits::REOPEN_PAUSE_FIRST, limits::REOPEN_PAUSE_MAX);
        let mut pauses = all.get(id).map_or(first, |before| before.pauses);
        all.insert(id.clone(), Resting { error, until: Instant::now() + pauses.pause(), pauses });
    }

    /// Returns the reason why a version is not opened again yet, if there is one.
    pub(crate) fn resting(&self, id: &ViewId) -> Option<StoreError> {
        let all = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).filter(|resting| Instant::now() < resting.until).map(|resting| resting.error.clone())
    }

    /// Records that a version is healthy, or gone.
    pub(crate) fn end_rest(&self, id: &ViewId) {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Returns the reason why the view cannot be opened, read or dropped as the phase of its version requires.
    pub(crate) fn trouble(&self, id: &ViewId) -> Option<WaitingOn> {
        let troubles = self.troubles.read().unwrap_or_else(PoisonError::into_inner);
        troubles.get(id).cloned()
    }

    /// Records the problem of a view, if there is one. News is logged.
    pub(crate) fn set_trouble(&self, id: &ViewId, trouble: Option<WaitingOn>) {
        let mut troubles = self.troubles.write().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(id) == trouble.as_ref() {
            return;
        }
        match trouble {
            Some(waiting_on) => {
                tracing::warn!(view = %id, %waiting_on, "the conductor cannot work on a view now, and retries");
                troubles.insert(id.clone(), waiting_on);
            }
            None => {
                tracing::info!(view = %id, "the conductor works on a view again");
                troubles.remove(id);
            }
        }
    }

    /// Records whether SQL from outside sees that `serving` serves, since the flip at `flip`. News is logged.
    pub(crate) fn set_published(&self, serving: &ViewId, flip: Position, trouble: Option<String>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let before = published
            .insert(serving.projection.clone(), Published { flip, trouble: trouble.clone(), looked: Instant::now() });
        let before = before.filter(|before| before.flip == flip).and_then(|before| before.trouble);
        match trouble {
            Some(error) if before.as_ref() != Some(&error) => {
                tracing::warn!(view = %serving, error, "SQL from outside does not see the serving version yet");
            }
            None if before.is_some() => tracing::info!(view = %serving, "SQL from outside sees the serving version"),
            _ => {}
        }
    }

    /// Returns the last flip that SQL from outside sees, as far as this node knows. It is known for a while: somebody may
    /// drop the names.
    pub(crate) fn published(&self, projection: &ProjectionName) -> Option<Position> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let found = published.get(projection).filter(|found| found.trouble.is_none())?;
        (found.looked.elapsed() < limits::PUBLISHED_LOOK).then_some(found.flip)
    }

    /// Returns the reason why SQL from outside does not see yet that this version serves, if this node has tried to
    /// publish it. It blocks nothing else.
    pub(crate) fn unpublished(&self, id: &ViewId, projection: &ProjectionState) -> Option<WaitingOn> {
        let (flip, _) = projection.served.last().filter(|(_, version)| *version == id.version)?;
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let found = published.get(&id.projection).filter(|found| found.flip == *flip)?;
        found.trouble.clone().map(|error| WaitingOn::Store { error })
    }

    /// Records which segments of the version no live member has, and raises the alarm if that lasts (I-10). If no
    /// member could take them, the version waits on that.
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
            tracing::error!(view = %id, %segment, segments = unowned.len(), "segments had no live member for too long");
        }
    }

    pub(super) fn unowned(&self, id: &ViewId) -> Option<WaitingOn> {
        let all = self.unowned.lock().unwrap_or_else(PoisonError::into_inner);
        let Unowned { segment, segments, since, .. } = *all.get(id).filter(|found| found.told)?;
        Some(WaitingOn::Unowned { segment, segments, since: since.elapsed() })
    }

    /// Returns the wait reasons of a flip, as far as this node has seen. Those of another flip, which was cancelled,
    /// replaced or carried out elsewhere since, do not count.
    pub(crate) fn flip_waiting_on(&self, projection: &ProjectionName, requested: Position) -> Vec<WaitingOn> {
        let flips = self.flips.borrow();
        let told = flips.get(projection).map(|state| &state.waiting_on);
        told.filter(|(of, _)| *of == requested).map(|(_, waiting_on)| waiting_on.clone()).unwrap_or_default()
    }

    pub(crate) fn set_flip_waiting_on(&self, projection: &ProjectionName, requested: Position, on: Vec<WaitingOn>) {
        self.flips.send_modify(|flips| flips.entry(projection.clone()).or_default().waiting_on = (requested, on));
    }

    /// Records that this node has carried out the flip at `flipped`, and how long it held the old version.
    pub(crate) fn set_flipped(&self, projection: &ProjectionName, flipped: Position, pause: Duration) {
        let state = FlipState { waiting_on: Default::default(), last: Some((flipped, pause)) };
        self.flips.send_modify(|flips| drop(flips.insert(projection.clone(), state)));
    }

    /// Records the reason why the conductor cannot work at all, if there is one.
    pub(crate) fn set_stuck(&self, reason: Option<WaitingOn>) {
        *self.stuck.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Returns the reason why the conductor cannot work at all on this node. It is reported if no other reason is
    /// known.
    pub(crate) fn stuck(&self) -> Option<WaitingOn> {
        self.stuck.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns for how long the flip at `flipped` held the old version; `None` if another node or run carried it out. A
    /// node that is `alone` has carried it out itself.
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

    /// Returns the progress of a version's verification, if one is under way here.
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

    /// Returns the result of the last background check of a serving version's rows.
    pub(crate) fn scrubbed(&self, id: &ViewId) -> Option<ScrubResult> {
        self.scrubbed.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Records the result of a background check of a version's rows. New faults are logged.
    pub(crate) fn set_scrubbed(&self, id: &ViewId, now: ScrubResult) {
        let wrong = |scrubbed: &ScrubResult| scrubbed.report.findings.clone();
        let (reason, found, position) = (now.waiting_on(), wrong(&now), now.position);
        let before = self.scrubbed.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), now);
        let before = before.map(|before| wrong(&before)).unwrap_or_default();
        match reason {
            // A text from a row is passed as a field, which the log escapes.
            Some(reason) if found != before => {
                let waiting_on = reason.to_string();
                tracing::error!(view = %id, waiting_on, "rows of a serving version are not what its code makes");
            }
            None if !before.is_empty() => tracing::info!(view = %id, %position, "the rows that were wrong are right"),
            _ => {}
        }
    }

    /// Forgets the findings about versions that are not among these.
    pub(crate) fn keep_scrubbed(&self, keep: impl Fn(&ViewId) -> bool) {
        self.scrubbed.write().unwrap_or_else(PoisonError::into_inner).retain(|id, _| keep(id));
    }

    /// Records the end of the journal when the view of a version was closed.
    pub(super) fn closed(&self, id: &ViewId, head: Position) {
        self.closed.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), head);
    }

    /// Returns the end of the journal when the view of a version was last closed.
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
