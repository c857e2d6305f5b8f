//! Two versions at one identical position, without holding the one that serves.
//!
//! ```text
//!   cap the new one ──▶ H = head ──▶ a state of the serving one in which all tokens are at one P ≥ H
//!                                                        │
//!          compare ◀── lift the cap ◀── a state of the new one at P ◀── let the new one come to P
//! ```
//!
//! A processor looks at its cap before each batch and at the head before that. So a batch that knew nothing of the cap
//! ends at H at the latest, and no later one goes past the cap: whatever P ≥ H the serving version shows, the new one
//! comes to exactly P. Writers and the serving version go on all the while; only the new one rests for a moment.

use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{Position, Token, ViewId};
use dacapo_store::{StoreError, ViewReader};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use crate::core::{Core, OpenVersion};
use crate::verify::tally::cut;
use crate::view::ReadView;
use crate::world::Step;

/// Both versions, each in one state, at the same position.
pub(super) struct Met {
    pub(super) old: ReadView,
    pub(super) new: ReadView,
}

/// Why two versions are not at one position, in words.
pub(super) enum NotMet {
    /// Waiting any longer is no use: one that serves does not get on, or cannot be opened.
    Never(String),
    /// It is no use for the moment: one is being opened again, or the new one waits on something itself.
    Later(String),
}

impl NotMet {
    pub(super) fn into_why(self) -> String {
        match self {
            Self::Never(why) | Self::Later(why) => why,
        }
    }
}

/// How far a processor may go, for as long as this lives.
pub(crate) struct Cap {
    cap: watch::Sender<Option<Position>>,
    /// Only one at a time has a use for the cap.
    _meeting: OwnedMutexGuard<()>,
}

impl Cap {
    pub(crate) fn new(cap: watch::Sender<Option<Position>>, meeting: OwnedMutexGuard<()>) -> Self {
        Self { cap, _meeting: meeting }
    }

    fn set(&self, position: Position) {
        self.cap.send_replace(Some(position));
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        self.cap.send_replace(None);
    }
}

/// One state of each version at the same position; or why there is none.
pub(super) async fn meet(
    core: &Core,
    old: &ViewId,
    new: &ViewId,
    patience: Duration,
) -> Result<Result<Met, NotMet>, StoreError> {
    let (old, new) = match (open(core, old), open(core, new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
    };
    let cap = new.cap().await;
    // Nothing begins from here on, and what has begun ends at the head or before.
    cap.set(Position::START);
    let bound = core.head();
    cap.set(bound);
    let shown = match settled(core, &old, |at| at >= bound, patience).await? {
        Ok(shown) => shown,
        Err(why) => return Ok(Err(why)),
    };
    let at = shown.covers();
    cap.set(at);
    let built = match settled(core, &new, |position| position == at, patience).await? {
        Ok(built) => built,
        // It is verified once it gets on again, and not with less.
        Err(why) if !core.waiting_on(&new.id).is_empty() => return Ok(Err(NotMet::Later(why.into_why()))),
        Err(why) => return Ok(Err(why)),
    };
    core.world.probe.completed(Step::VersionsMet);
    drop(cap);
    Ok(Ok(Met { old: ReadView::new(shown), new: ReadView::new(built) }))
}

/// The version, if it is open with its code.
fn open(core: &Core, id: &ViewId) -> Result<Arc<OpenVersion>, NotMet> {
    let open = core.open_version(id).filter(|open| open.carried.is_some());
    open.ok_or_else(|| match core.trouble(id) {
        Some(trouble) => NotMet::Never(cut(format!("{} is not open on this node, it waits on {trouble}", id.version))),
        None => NotMet::Later(format!("{} is not open on this node for the moment", id.version)),
    })
}

/// The position of a state in which all tokens are at one, and none goes through past events again.
fn one_position(tokens: &[Token]) -> Option<Position> {
    let replays = |token: &Token| token.replay.is_some_and(|mark| !token.covers(mark.through));
    let first = tokens.first()?.position;
    tokens.iter().all(|token| token.position == first && !replays(token)).then_some(first)
}

/// A state in which all tokens are at one wanted position, as soon as there is one; or why there is none.
async fn settled(
    core: &Core,
    version: &Arc<OpenVersion>,
    wanted: impl Fn(Position) -> bool,
    patience: Duration,
) -> Result<Result<Box<dyn ViewReader>, NotMet>, StoreError> {
    let mut progress = version.progress.clone();
    let (mut lowest, mut since) = (Position::START, Instant::now());
    loop {
        let seen = progress.borrow_and_update().clone();
        if one_position(&seen.tokens).is_some_and(&wanted) {
            let reader = version.view.reader().await?;
            if one_position(reader.tokens()).is_some_and(&wanted) {
                return Ok(Ok(reader));
            }
        }
        if seen.covers() > lowest {
            (lowest, since) = (seen.covers(), Instant::now());
        }
        let left = patience.saturating_sub(since.elapsed());
        match if left.is_zero() { None } else { tokio::time::timeout(left, progress.changed()).await.ok() } {
            Some(Ok(())) => continue,
            // Other code takes its place, or it is opened again.
            Some(Err(_)) => {
                return Ok(Err(NotMet::Later(format!("the processor of {} has ended", version.id.version))));
            }
            None => {}
        }
        let reasons: Vec<String> = core.waiting_on(&version.id).iter().map(ToString::to_string).collect();
        let reasons = if reasons.is_empty() { "it does not say why".to_owned() } else { reasons.join("; ") };
        // Every segment that halts has a reason, and a report must fit an event.
        return Ok(Err(NotMet::Never(cut(format!(
            "{} did not come to one position within {} ms: {reasons}",
            version.id.version,
            patience.as_millis()
        )))));
    }
}
