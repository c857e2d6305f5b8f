//! Brings two versions to one identical position, without holding the serving one.
//!
//! ```text
//!   cap the new one at the head H ──▶ a state of the serving one in which all tokens are at one P ≥ H
//!                                                        │
//!          compare ◀── lift the cap ◀── a state of the new one at P ◀── cap the new one at P
//! ```
//!
//! A cap is stored with the tokens, for every member that moves them: no commit goes past it. So for any position P ≥ H
//! that the serving version shows, the new one reaches exactly P. Writers and the serving version continue during that
//! time. Only the new version pauses for a moment.
//!
//! If several members have segments of the serving version, its segments are rarely all at one position while events
//! are appended. Then that version is capped as well, for no longer than a flip may hold it, and then left alone for
//! longer after each attempt without success.
//!
//! A cap only helps the two to meet. The two compared states have tokens that show their positions. So a cap harms
//! nobody if it is lifted too early, or if it is left by a process that died and lifted by the conductor. When members
//! join or leave, two of them may verify a version for a moment, and each lifts the caps of the other. A driver that
//! finds a version past the position that it waits for begins again.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::meet::{Meeting, is_apart, meeting};
use dacapo_model::{BackOff, Position, ViewId};
use dacapo_store::{StoreError, ViewReader};
use tokio::time::Instant;

use crate::code::cut;
use crate::limits;
use crate::versions::{OpenVersion, Versions};
use crate::view::ReadView;
use crate::world::Step;

/// Both versions, in one state each, at the same position.
pub(super) struct Met {
    pub(super) old: ReadView,
    pub(super) new: ReadView,
}

/// The reason why two versions are not at one position, in words.
pub(super) enum NotMet {
    /// A longer wait is of no use: the serving version makes no progress, or cannot be opened.
    Never(String),
    /// A wait is of no use now: a version is being opened again, or the new one itself waits on something.
    Later(String),
}

impl NotMet {
    pub(super) fn into_why(self) -> String {
        match self {
            Self::Never(why) | Self::Later(why) => why,
        }
    }
}

/// Returns one state of each version at the same position, or the reason why there is none.
pub(super) async fn meet(
    versions: &Versions,
    old: &ViewId,
    new: &ViewId,
    patience: Duration,
) -> Result<Result<Met, NotMet>, StoreError> {
    let (old, new) = match (open(versions, old), open(versions, new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
    };
    // If this future is dropped in between, a cap remains, and the conductor is woken afterwards.
    let _told = Told(versions);
    let _meeting = new.meeting().await;
    let met = capped(versions, &old, &new, patience).await;
    new.uncap().await?;
    if met.as_ref().is_ok_and(Result::is_ok) {
        versions.world.probe.completed(Step::VersionsMet);
    }
    met
}

/// Wakes the conductor when it is dropped.
struct Told<'a>(&'a Versions);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.opened.send_replace(());
    }
}

async fn capped(
    versions: &Versions,
    old: &Arc<OpenVersion>,
    new: &Arc<OpenVersion>,
    patience: Duration,
) -> Result<Result<Met, NotMet>, StoreError> {
    let bound = cap_near(versions, new).await?;
    let shown = match shown(versions, old, bound, patience).await? {
        Ok(shown) => shown,
        Err(why) => return Ok(Err(why)),
    };
    let at = shown.covers();
    new.view.cap(Some(at)).await?;
    let built = match settled(versions, new, at..=at, &mut Patience::new(patience)).await? {
        Ok(built) => built,
        // The version is verified completely once it makes progress again.
        Err(why) if !versions.kept(&new.id).is_empty() => return Ok(Err(NotMet::Later(why.into_why()))),
        Err(why) => return Ok(Err(why)),
    };
    Ok(Ok(Met { old: ReadView::new(shown), new: ReadView::new(built) }))
}

/// Returns the version, if it is open with its code.
fn open(versions: &Versions, id: &ViewId) -> Result<Arc<OpenVersion>, NotMet> {
    let open = versions.open_version(id).filter(|open| open.carried.is_some());
    open.ok_or_else(|| match versions.notes.trouble(id) {
        Some(trouble) => NotMet::Never(cut(format!("{} is not open on this node: it waits on {trouble}", id.version))),
        None => NotMet::Later(format!("{} is not open on this node now", id.version)),
    })
}

/// Caps the version at the head, or at its furthest segment if that is later, and returns the position of the cap.
async fn cap_near(versions: &Versions, version: &OpenVersion) -> Result<Position, StoreError> {
    let mut bound = versions.head();
    loop {
        let tokens = version.view.cap(Some(bound)).await?;
        match tokens.iter().map(|token| token.position).max().filter(|position| *position > bound) {
            Some(beyond) => bound = beyond,
            None => return Ok(bound),
        }
    }
}

/// Returns a state of the serving version at one position, which is `bound` or later.
async fn shown(
    versions: &Versions,
    old: &Arc<OpenVersion>,
    bound: Position,
    patience: Duration,
) -> Result<Result<Box<dyn ViewReader>, NotMet>, StoreError> {
    let mut patience = Patience::new(patience);
    let mut pauses = BackOff::new(limits::HOLD_TIME_MAX, limits::MEET_PAUSE_MAX);
    loop {
        old.tokens().await?;
        // The decision uses the same tokens as the wait below, so that the two never disagree.
        let is_apart = is_apart(&old.progress.borrow().tokens);
        if is_apart {
            let at = cap_near(versions, old).await?;
            let shown = tokio::select! {
                biased;
                shown = settled(versions, old, at.max(bound)..=at, &mut patience) => Some(shown),
                () = tokio::time::sleep(limits::HOLD_TIME_MAX) => None,
            };
            old.uncap().await?;
            if let Some(shown) = shown {
                return shown;
            }
        }
        let left_alone = async {
            match is_apart {
                true => tokio::time::sleep(pauses.pause()).await,
                false => taken_apart(old).await,
            }
        };
        tokio::select! {
            biased;
            shown = settled(versions, old, bound.., &mut patience) => return shown,
            () = left_alone => {}
        }
    }
}

/// Waits until several members move the version.
async fn taken_apart(version: &OpenVersion) {
    let mut progress = version.progress.clone();
    if progress.wait_for(|seen| is_apart(&seen.tokens)).await.is_err() {
        // The version ends, which the caller that waits for it to settle notices.
        std::future::pending::<()>().await;
    }
}

/// The time to wait for a version that makes no progress.
struct Patience {
    longest: Duration,
    lowest: Position,
    since: Instant,
}

impl Patience {
    fn new(longest: Duration) -> Self {
        Self { longest, lowest: Position::START, since: Instant::now() }
    }

    /// Returns the remaining time, with the version at `lowest`.
    fn left(&mut self, lowest: Position) -> Duration {
        if lowest > self.lowest {
            (self.lowest, self.since) = (lowest, Instant::now());
        }
        self.longest.saturating_sub(self.since.elapsed())
    }
}

/// Returns a state in which all tokens are at one wanted position, as soon as there is one; or the reason why there is
/// none.
async fn settled(
    versions: &Versions,
    version: &Arc<OpenVersion>,
    wanted: impl RangeBounds<Position>,
    patience: &mut Patience,
) -> Result<Result<Box<dyn ViewReader>, NotMet>, StoreError> {
    let mut progress = version.progress.clone();
    loop {
        let seen = progress.borrow_and_update().clone();
        match meeting(&seen.tokens, &wanted) {
            Meeting::There => {
                let reader = version.view.reader().await?;
                if meeting(reader.tokens(), &wanted) == Meeting::There {
                    return Ok(Ok(reader));
                }
            }
            Meeting::Past => {
                let why = format!("{} continued: another node lifted its cap", version.id.version);
                return Ok(Err(NotMet::Later(why)));
            }
            Meeting::OnItsWay => {}
        }
        let left = patience.left(seen.covers());
        let is_open = versions.open_version(&version.id).is_some_and(|open| Arc::ptr_eq(&open, version));
        if !is_open || version.has_ended() {
            // Other code replaces it, or it is opened again.
            return Ok(Err(NotMet::Later(format!("the processor of {} has ended", version.id.version))));
        }
        if !left.is_zero() {
            // The progress of other members is seen only by looking.
            tokio::select! {
                Ok(()) = progress.changed() => {}
                () = tokio::time::sleep(left.min(limits::MEET_LOOK)) => version.look().await?,
            }
            continue;
        }
        let reasons: Vec<String> = versions.kept(&version.id).iter().map(ToString::to_string).collect();
        let reasons = if reasons.is_empty() { "it does not say why".to_owned() } else { reasons.join("; ") };
        // Every segment that halts has a reason, and a report must fit into an event.
        return Ok(Err(NotMet::Never(cut(format!(
            "{} did not reach one position within {} ms: {reasons}",
            version.id.version,
            patience.longest.as_millis()
        )))));
    }
}
