//! The facts about each version from the store, collected apart from those who ask for them.
//!
//! A status is made from known facts. For each version at most one look at the store is under way. A caller waits a
//! moment for it, for all versions at the same time, and then takes the result of an earlier look, with its age. So a
//! store that is away or slow costs a caller that moment once, and nothing while the look still hangs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dacapo_model::{Position, Refusal, Timestamp, Token, ViewId, WaitingOn, covered, limits};
use dacapo_store::{Filter, Limit, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{OpenVersion, Versions};
use crate::history;

/// The facts about a version from the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Its tokens; empty if this node has no view of it.
    pub tokens: Vec<Token>,
    /// The reason why its view could not be read.
    pub unreadable: Option<WaitingOn>,
    /// The number of its dead letters.
    pub letters: u64,
    /// The events that segments of other members stop before.
    pub halts: Vec<WaitingOn>,
    /// True if its view lacks an index.
    pub bare: bool,
    /// The time at which the first event that it does not cover was recorded.
    pub oldest: Option<Timestamp>,
}

/// Facts, and their age if they are not from a look that has just ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub facts: Facts,
    pub age: Option<Duration>,
}

#[derive(Clone)]
struct Found {
    facts: Facts,
    /// The time at which the look that found them began.
    began: Instant,
}

/// The known facts about one version.
struct Seen {
    found: watch::Sender<Option<Found>>,
    /// The time at which the look under way began.
    looking: Mutex<Option<Instant>>,
}

/// The known facts about every version.
#[derive(Default)]
pub(crate) struct Lookout(Mutex<HashMap<ViewId, Arc<Seen>>>);

impl Lookout {
    /// Forgets the versions that are not among these.
    pub(crate) fn keep(&self, ids: &[ViewId]) {
        self.all().retain(|id, _| ids.contains(id));
    }

    /// Returns the known facts about a version, after a moment for the store to answer.
    pub(crate) async fn look(&self, versions: &Arc<Versions>, id: &ViewId) -> Known {
        let seen = Arc::clone(
            self.all()
                .entry(id.clone())
                .or_insert_with(|| Arc::new(Seen { found: watch::Sender::new(None), looking: Mutex::default() })),
        );
        let asked = Instant::now();
        let mut found = seen.found.subscribe();
        loop {
            found.mark_unchanged();
            let began = seen.begin(versions, id, Instant::now());
            let told = tokio::time::timeout_at(began + limits::STATUS_TIME_MAX, found.changed()).await;
            // A look that began before this call does not count, but the next one does.
            if told.is_err() || began >= asked {
                break;
            }
        }
        let found = found.borrow().clone();
        match found {
            Some(Found { facts, began }) => Known { facts, age: (began < asked).then(|| began.elapsed()) },
            None => {
                let error = "it has not answered yet".to_owned();
                Known { facts: Facts { unreadable: Some(WaitingOn::Store { error }), ..Facts::default() }, age: None }
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ViewId, Arc<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Begins a look at the store if none is under way. Returns the time at which the present one began.
    fn begin(self: &Arc<Self>, versions: &Arc<Versions>, id: &ViewId, now: Instant) -> Instant {
        let mut looking = self.looking();
        if let Some(began) = *looking {
            return began;
        }
        *looking = Some(now);
        drop(looking);
        let (seen, versions, id) = (Arc::clone(self), Arc::clone(versions), id.clone());
        tokio::spawn(async move {
            let under_way = UnderWay(Arc::clone(&seen));
            let facts = gather(&versions, &id).await;
            // This comes before the report: a receiver may begin the next look.
            drop(under_way);
            seen.found.send_modify(|found| match (&mut *found, &facts.unreadable) {
                // The earlier facts stay the known ones.
                (Some(known), Some(error)) => known.facts.unreadable = Some(error.clone()),
                (found, _) => *found = Some(Found { facts, began: now }),
            });
        });
        now
    }

    fn looking(&self) -> MutexGuard<'_, Option<Instant>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look that has not ended yet, whatever its end will be.
struct UnderWay(Arc<Seen>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.looking() = None;
    }
}

async fn gather(versions: &Versions, id: &ViewId) -> Facts {
    let store = |error: StoreError| history::waiting_on(&error);
    let open = versions.open_version(id);
    let tokens = match versions.tokens(id).await {
        Ok(tokens) => tokens.unwrap_or_default(),
        Err(error) => return Facts { unreadable: Some(store(error)), ..Facts::default() },
    };
    let kept = async {
        let letters = match &open {
            Some(open) => letters(open).await?,
            None => 0,
        };
        Ok((letters, halts_elsewhere(versions, open.as_deref(), &tokens).await?))
    };
    // Facts that could not be read are not reported as missing (I-11).
    let (letters, halts) = match kept.await {
        Ok(kept) => kept,
        Err(error) => return Facts { tokens, unreadable: Some(store(error)), ..Facts::default() },
    };
    let (bare, unreadable) = match versions.is_bare(id).await {
        Ok(bare) => (bare, None),
        Err(error) => (true, Some(store(error))),
    };
    let covers = covered(&tokens);
    let oldest = if covers < versions.head() { first_behind(versions, covers).await } else { None };
    Facts { tokens, unreadable, letters, halts, bare, oldest }
}

/// Returns the events that segments of other members stop before, as the view keeps them.
async fn halts_elsewhere(
    versions: &Versions,
    open: Option<&OpenVersion>,
    tokens: &[Token],
) -> Result<Vec<WaitingOn>, StoreError> {
    let theirs = |refusal: &Refusal| {
        let token = tokens.iter().find(|token| token.segment == refusal.segment);
        token.is_some_and(|token| !is_ours(versions, token) && !token.covers(refusal.position))
    };
    let Some(open) = open.filter(|_| tokens.iter().any(|token| !is_ours(versions, token))) else {
        return Ok(vec![]);
    };
    let refusals = open.view.refusals().await?;
    Ok(refusals.into_iter().filter(theirs).map(|refusal| refusal.waiting_on()).collect())
}

pub(crate) fn is_ours(versions: &Versions, token: &Token) -> bool {
    token.claimed_by == Some(versions.cluster.me())
}

/// Returns the number of dead letters of a version. Its processor knows it after its claim; before, the view is asked.
async fn letters(open: &OpenVersion) -> Result<u64, StoreError> {
    let counted = open.progress.borrow().letters;
    if let Some(letters) = counted {
        return Ok(letters);
    }
    Ok(open.view.letters(Position::START, limits::LETTERS_MAX).await?.len() as u64)
}

/// Returns the time at which the first event after `covers` was recorded; `None` if there is none, or none that can be
/// read now.
async fn first_behind(versions: &Versions, covers: Position) -> Option<Timestamp> {
    match versions.journal.read(covers, &Filter::everything(), Limit { events: 1, bytes: 1 }).await {
        Ok(batch) => batch.iter().next().map(|event| event.recorded),
        Err(error) => {
            tracing::warn!(%covers, %error, "the event after what a version covers cannot be read");
            None
        }
    }
}
