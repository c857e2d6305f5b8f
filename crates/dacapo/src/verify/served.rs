//! The background check of serving versions: their rows are compared with what their code makes of past events.
//!
//! ```text
//!   rest ──▶ wait while a version here has a large lag or is verified ──▶ state of the view ──▶ fold part ──▶ compare
//!    ▲                                                                                                           │
//!    └── the next part, or the same one as long as its rows are wrong ◀── the status and the log tell it ◀───────┘
//! ```
//!
//! It is the part `fold` of a verification, applied to the serving version, more slowly and again and again. The member
//! that drives a version does it for the cluster. It reads one state of the view and the journal, writes nothing, and
//! blocks nobody: either the rows or the code may be wrong, which an operator must decide. Only the result of the last
//! check is kept.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::scrub::{AfterCheck, ScrubResult, after_check, has_much_to_do, may_compare};
use dacapo_model::verify::{Outcome, Part, PartReport};
use dacapo_model::{Phase, Position, ViewId, WorkShare};
use dacapo_store::StoreError;
use futures::FutureExt;
use tokio::time::Instant;

use super::comparison;
use super::fold::{Fold, Folded, Pace, Take, fold};
use super::gather::gather_from;
use super::past::{counted, panicked, some, whole};
use crate::catalog::CatalogError;
use crate::code::{Pair, Pairs, Tally, VersionCode, pairs};
use crate::limits;
use crate::versions::{OpenVersion, Subject, Versions};
use crate::view::ReadView;

const SHARE: WorkShare = match WorkShare::percent(limits::SCRUB_ROWS_SHARE_PERCENT) {
    Ok(share) => share,
    Err(_) => panic!("the limit is a share"),
};

/// The next check of a version.
struct Turn {
    due: Instant,
    /// If the rows are checked in parts: the position after which the next streams begin.
    after: Position,
}

/// Runs until it is cancelled, which may happen at any time.
pub(crate) async fn scrub(versions: Arc<Versions>) {
    let mut turns = BTreeMap::<ViewId, Turn>::new();
    loop {
        let rests = rests(&versions);
        versions.notes.keep_scrubbed(|id| rests.contains_key(id));
        turns.retain(|id, _| rests.contains_key(id));
        for (id, rest) in &rests {
            turns.entry(id.clone()).or_insert_with(|| Turn::first(&versions, *rest));
        }
        let due = turns.iter_mut().min_by_key(|(_, turn)| turn.due);
        let due = due.filter(|(_, turn)| turn.due <= Instant::now() && !is_busy(&versions));
        let Some((id, turn)) = due else {
            tokio::time::sleep(
                rests.values().copied().min().unwrap_or(limits::SCRUB_ROWS_LOOK).min(limits::SCRUB_ROWS_LOOK),
            )
            .await;
            continue;
        };
        let began = Instant::now();
        tokio::select! {
            biased;
            () = until_busy(&versions) => tracing::debug!(view = %id, "a check of its rows is given up for other work"),
            () = turn.take(&versions, id) => {}
        }
        turn.due = Instant::now() + rests[id].max(began.elapsed());
    }
}

/// Returns the serving versions that this node must check, with the pause between two checks.
fn rests(versions: &Versions) -> BTreeMap<ViewId, Duration> {
    let catalog = versions.catalog.current();
    let serving = catalog.versions().filter(|(id, state)| state.phase == Phase::Serving && versions.cluster.drives(id));
    let rest = |id: ViewId| {
        let rest = versions.code_of(&id)?.options.scrub.rest?;
        Some((id, rest.max(limits::SCRUB_ROWS_REST_MIN)))
    };
    serving.filter_map(|(id, _)| rest(id)).collect()
}

/// Returns true if a version that is open here has much to do, or is being verified: that comes first.
fn is_busy(versions: &Versions) -> bool {
    versions
        .open_versions()
        .iter()
        .any(|open| is_far_behind(versions, open) || versions.notes.looking(&open.id).is_some())
}

/// Returns true if a version has much to do and makes progress.
fn is_far_behind(versions: &Versions, open: &OpenVersion) -> bool {
    let progress = open.progress.borrow();
    let lag = versions.head().since(progress.covers());
    open.carried.is_some() && !versions.is_paused(&open.id) && has_much_to_do(&progress.waiting_on, lag)
}

async fn until_busy(versions: &Versions) {
    while !is_busy(versions) {
        tokio::time::sleep(limits::SCRUB_ROWS_LOOK).await;
    }
}

impl Turn {
    /// Returns the turn of a version that was not checked here before. It begins at another place after each start, so
    /// that a node that restarts often checks all places as well.
    fn first(versions: &Versions, rest: Duration) -> Self {
        let (head, now) = (versions.head(), versions.world.clock.now());
        let after = Position::new(now.micros().unsigned_abs() % head.get().max(1));
        let due = Instant::now() + rest.min(limits::SCRUB_ROWS_REST_FIRST);
        Self { due, after }
    }

    async fn take(&mut self, versions: &Versions, id: &ViewId) {
        let (now, next) = match look(versions, id, self.after).await {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => {
                // Other users of the view or the journal report the error.
                tracing::debug!(view = %id, %error, "the rows of a version cannot be checked now");
                return;
            }
        };
        let was_wrong = versions.notes.scrubbed(id).is_some_and(|before| before.waiting_on().is_some());
        match after_check(&now.report.outcome, was_wrong) {
            AfterCheck::Forget => return,
            AfterCheck::Again => {}
            AfterCheck::GoOn => self.after = next,
        }
        versions.notes.set_scrubbed(id, now);
    }
}

/// Compares some rows of a version with what its code makes of their events, and returns the place where the next check
/// begins. Nothing is reported if it does not serve here any more, or serves with other code.
async fn look(
    versions: &Versions,
    id: &ViewId,
    after: Position,
) -> Result<Option<(ScrubResult, Position)>, CatalogError> {
    let now = || Subject::of(versions, id, |state| state.phase == Phase::Serving);
    let (Some(subject), Some(open)) = (now(), versions.open_version(id)) else { return Ok(None) };
    let mut view = ReadView::new(open.view.reader().await?);
    // The catalog is read after the view, so it has every change that was made to the view.
    versions.catalog.refresh().await?;
    let (report, next) = compare(versions, id, &subject.code, &mut view, after).await?;
    let scrubbed = ScrubResult { at: versions.world.clock.now(), position: view.covers(), report };
    Ok(now().filter(|now| now.is(&subject)).map(|_| (scrubbed, next)))
}

async fn compare(
    versions: &Versions,
    id: &ViewId,
    carried: &VersionCode,
    view: &mut ReadView,
    after: Position,
) -> Result<(PartReport, Position), StoreError> {
    let not_done = |why: String| Ok((PartReport::not_done(Part::Fold, why), after));
    let catalog = versions.catalog.current();
    let Some(projection) = catalog.projections.get(&id.projection) else { return not_done("it is gone".to_owned()) };
    let leaves_out = carried.options.verify.without.contains(&Part::Fold);
    if let Err(why) = may_compare(projection, id.version, carried.code.segments, &carried.code.reads, leaves_out) {
        return not_done(why);
    }
    let Ok(comparison) = comparison(carried, carried.code.code, Part::Fold) else {
        return not_done("the comparison of the code panics".to_owned());
    };
    let Pairs { pairs, notes, .. } = pairs(carried.tables, carried.tables, &comparison);
    let pace = Pace { time_max: limits::SCRUB_ROWS_TIME_MAX, bound: "limits::SCRUB_ROWS_TIME_MAX", share: SHARE };
    let what = Fold::of(versions, id, carried, view, pace).await?;
    let mut tally = Tally::default();
    let (done, next) = part(what, carried, &pairs, view, after, &mut tally).await?;
    notes.into_iter().for_each(|note| tally.note(note));
    let mut report = tally.report(Part::Fold);
    if let Err(why) = done {
        report.outcome = Outcome::NotDone { why };
    }
    Ok((report, next))
}

/// Folds a part of the events and compares the rows that are made of it. The inner error is the reason if it does not.
async fn part(
    what: Fold,
    carried: &VersionCode,
    pairs: &[Pair],
    view: &mut ReadView,
    after: Position,
    tally: &mut Tally,
) -> Result<(Result<(), String>, Position), StoreError> {
    let scrub = carried.options.scrub;
    let done = match what.last().get() <= scrub.events_max as u64 {
        true => whole(what, pairs, view, tally, |_| {}).await?,
        false if scrub.rows_of_one_stream => return streams(what, scrub.events_max, pairs, view, after, tally).await,
        false => Err(format!(
            "there are more events than are folded (`Scrub::events_max`, {}), and nothing says that the rows of some \
             streams are of them alone (`Scrub::rows_of_one_stream`)",
            scrub.events_max
        )),
    };
    Ok((done, after))
}

/// Compares the rows of the streams that begin after `after`, and returns the position after which the next ones begin.
async fn streams(
    what: Fold,
    events_max: usize,
    pairs: &[Pair],
    view: &mut ReadView,
    after: Position,
    tally: &mut Tally,
) -> Result<(Result<(), String>, Position), StoreError> {
    // To gather and to fold share the time.
    let pace = Pace { time_max: what.pace.time_max / 2, bound: "half of limits::SCRUB_ROWS_TIME_MAX", ..what.pace };
    let what = Fold { pace, ..what };
    let (gathered, next) = gather_from(what.wanted(events_max), after).await?;
    let streams = gathered.streams;
    let Folded { mut reader, events } = match fold(what, Take::Gathered(Arc::new(gathered))).await? {
        Ok(folded) => folded,
        Err(why) => return Ok((Err(why), next)),
    };
    for pair in pairs {
        let compared = some(pair, &mut *reader, view.reader(), None, tally, |_| {});
        match AssertUnwindSafe(compared).catch_unwind().await {
            Ok(compared) => drop(compared?),
            Err(panic) => panicked(pair, &*panic, tally),
        }
    }
    let streams = counted(streams, "stream");
    tally.note(format!("compared with {} of {streams} that begin after position {after}", counted(events, "event")));
    Ok((Ok(()), next))
}
