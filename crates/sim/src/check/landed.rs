//! I-4, I-6, I-12, replays and pauses: what landed on the disk, in order, held against the catalog as it was then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dacapo::ViewId;
use dacapo_model::TokenMove;
use dacapo_store::{Commit, Views};
use futures::FutureExt;

use super::catalog::{Following, Version};
use super::journal::Record;
use crate::disk::{Claim, Landed};
use crate::limits;
use crate::world::World;

/// The last replay that a segment has taken up: the position of its request, and where the segment was.
type Mark = (u64, u64);

pub fn text(view: &ViewId) -> Version {
    (view.projection.to_string(), view.version.to_string())
}

/// The writes that have landed so far.
struct History<'a> {
    world: &'a World,
    catalog: Following<'a>,
    now: Duration,
    epochs: BTreeMap<ViewId, Vec<u64>>,
    positions: BTreeMap<ViewId, BTreeMap<u16, u64>>,
    marks: BTreeMap<ViewId, BTreeMap<u16, Mark>>,
    /// When each segment took up its last replay.
    taken_up: BTreeMap<(ViewId, u16), Duration>,
    /// The highest position that each view has shown.
    shown: BTreeMap<ViewId, u64>,
    revoked: BTreeSet<ViewId>,
    /// Views that were made again by a node that has ended since, after their version was gone.
    orphans: BTreeSet<ViewId>,
    /// Since when the way to the disk is good of the nodes in these slots, of which it once was not; none while it is not.
    ways: BTreeMap<usize, Option<Duration>>,
    /// The tokens at each flip that the catalog is about to show.
    flips: BTreeMap<u64, BTreeMap<ViewId, Vec<u64>>>,
    paused_at: BTreeMap<Version, Duration>,
}

/// What landed, held against the history of versions as it was at that moment.
pub fn check(world: &World, records: &[Record]) {
    let mut history = History {
        world,
        catalog: Following::new(records),
        now: Duration::ZERO,
        epochs: BTreeMap::new(),
        positions: BTreeMap::new(),
        marks: BTreeMap::new(),
        taken_up: BTreeMap::new(),
        shown: BTreeMap::new(),
        revoked: BTreeSet::new(),
        orphans: BTreeSet::new(),
        ways: BTreeMap::new(),
        flips: BTreeMap::new(),
        paused_at: BTreeMap::new(),
    };
    for (now, landed) in world.disk.landed_at() {
        history.now = now;
        match &*landed {
            Landed::Appended { through } => history.appended(*through),
            Landed::Flipped { at, tokens, .. } => drop(history.flips.insert(*at, tokens.clone())),
            Landed::Made { view, run } => history.made(view, *run),
            Landed::Claimed { view, segments, epochs, claim, .. } => history.claimed(view, segments, epochs, *claim),
            Landed::Committed { slot, view, commit, .. } => history.committed(*slot, view, commit),
            Landed::Way { slot: Some(slot), good } => drop(history.ways.insert(*slot, good.then_some(now))),
            Landed::Dropped { view } => history.dropped(view),
            Landed::Wished { .. } | Landed::Copied { .. } | Landed::Attached { .. } => {}
            Landed::EffectsDropped { .. } | Landed::EffectsAside { .. } | Landed::Parted { .. } => {}
            // The checkers of I-10 look at these.
            Landed::Renewed { .. } | Landed::Left { .. } | Landed::Way { .. } => {}
        }
    }
    for fault in history.catalog.fold.faults() {
        world.violated(fault);
    }
    history.check_what_is_left();
    check_keys(world, records);
}

impl History<'_> {
    fn phase(&self, view: &ViewId) -> &'static str {
        let (projection, version) = text(view);
        self.catalog.fold.phase(&projection, &version)
    }

    fn appended(&mut self, through: u64) {
        while let Some(record) = self.catalog.next(through) {
            match record.event_type.as_str() {
                "flipped" => self.check_flip(record),
                "replay-ended" => self.check_replay_end(record),
                _ => {}
            }
            self.catalog.fold.add(record);
        }
        let paused = self.catalog.fold.paused();
        self.paused_at.retain(|view, _| paused.contains(view));
        for view in paused {
            self.paused_at.entry(view.clone()).or_insert(self.now);
        }
    }

    fn made(&mut self, view: &ViewId, run: u64) {
        self.positions.insert(view.clone(), BTreeMap::new());
        self.marks.remove(view);
        self.shown.remove(view);
        self.epochs.remove(view);
        // A node may make it again that has not followed the catalog yet; then it drops it again. It may be killed before
        // that, and the next start drops it.
        let phase = self.phase(view);
        if matches!(phase, "none" | "Scheduled") {
            self.world.violated(format!("I-12: the view {view} was made while its version was {phase}"));
        }
        if !self.world.goes_on(run) && matches!(phase, "CleaningUp" | "Obsolete") {
            self.orphans.insert(view.clone());
        }
    }

    fn claimed(&mut self, view: &ViewId, seen: &BTreeMap<usize, u64>, claimed: &[u64], claim: Claim) {
        if claim == Claim::Revoked && matches!(self.phase(view), "CleaningUp" | "Obsolete") {
            self.revoked.insert(view.clone());
        }
        if seen.is_empty() {
            // It claims nothing. The view may be another one of this name by now, made again while the node slept.
            return;
        }
        let none = vec![0; claimed.len()];
        let before = self.epochs.get(view).unwrap_or(&none);
        let expected = |segment: usize| before[segment] + u64::from(seen.contains_key(&segment));
        let as_seen = seen.iter().all(|(segment, epoch)| before[*segment] == *epoch);
        if !as_seen || (0..claimed.len()).any(|segment| claimed[segment] != expected(segment)) {
            self.world.violated(format!(
                "I-4: {view} was claimed {claim:?}, seen was {seen:?}, the epochs are {claimed:?} after {before:?}"
            ));
        }
        self.epochs.insert(view.clone(), claimed.to_vec());
    }

    fn committed(&mut self, slot: usize, view: &ViewId, commit: &Commit) {
        // One that cannot reach the disk can neither notice anything nor commit; what it was about to commit then may
        // still land.
        let good_since = self.ways.get(&slot).copied().unwrap_or(Some(Duration::ZERO));
        for moved in &commit.moves {
            let segment = moved.segment.get();
            let epoch = self.epochs.get(view).and_then(|epochs| epochs.get(usize::from(segment)));
            if epoch != Some(&moved.epoch.get()) {
                self.world.violated(format!(
                    "I-4: a commit to segment {segment} of {view} landed at epoch {}, claimed was {epoch:?}",
                    moved.epoch
                ));
            }
            let at = self.positions.entry(view.clone()).or_default().entry(segment).or_default();
            if *at != moved.from.get() {
                self.world.violated(format!(
                    "I-4: a commit to segment {segment} of {view} landed from {}, it was at {at}",
                    moved.from
                ));
            }
            *at = moved.to.get();
            self.check_mark(view, moved);
            if moved.to > moved.from
                && let Some(since) = self
                    .paused_at
                    .get(&text(view))
                    .zip(good_since)
                    .filter(|(since, good)| self.now > *(*since).max(good) + limits::NOTICED_TIME_MAX)
            {
                self.world.violated(format!(
                    "pause: {view} is paused since {:.1} s and was moved to {}",
                    since.0.as_secs_f64(),
                    moved.to
                ));
            }
            let shown = self.shown.entry(view.clone()).or_default();
            *shown = (*shown).max(moved.to.get());
        }
    }

    fn dropped(&mut self, view: &ViewId) {
        let phase = self.phase(view);
        if !matches!(phase, "CleaningUp" | "Obsolete") {
            self.world.violated(format!("I-12: the view {view} was dropped while its version was {phase}"));
        }
        if !self.revoked.remove(view) {
            self.world.violated(format!("I-12: the view {view} was dropped before its epochs were revoked"));
        }
    }

    /// A segment goes back once for each replay that was asked for, to where that begins, and marks where it was.
    fn check_mark(&mut self, view: &ViewId, moved: &TokenMove) {
        let gone = self.phase(view) == "CleaningUp";
        let mark = self.marks.entry(view.clone()).or_default().entry(moved.segment.get()).or_default();
        let new = moved.replay.map_or((0, 0), |new| (new.request.get(), new.through.get()));
        let (from, to) = (moved.from.get(), moved.to.get());
        if new == *mark {
            if to < from {
                let text = format!("segment {} of {view} went from {from} back to {to} again", moved.segment);
                self.world.violated(format!("replay: {text}"));
            }
            return;
        }
        let fold = &self.catalog.fold;
        let asked = fold.asked_replay(new.0);
        // A clean-up ends it in the catalog; who has not heard of that may still be in the reset, until it is revoked.
        let under_way = fold.replay(&text(view)).is_some_and(|replay| replay.requested == new.0);
        // So may one that has not heard that it was cancelled, which has ended it for the catalog before it began.
        let asked = asked.filter(|_| under_way || gone || fold.is_cancelled(new.0));
        let goes_back = asked.is_some_and(|asked| to == from.min(asked.after));
        if new.0 <= mark.0 || new.1 != from.max(mark.1) || !goes_back {
            self.world.violated(format!(
                "replay: segment {} of {view} took up {new:?} from {from} to {to}, before it was {mark:?}",
                moved.segment
            ));
        }
        *mark = new;
        self.taken_up.insert((view.clone(), moved.segment.get()), self.now);
    }

    /// A replay has ended when every segment has taken it up and is where it was.
    fn check_replay_end(&self, record: &Record) {
        let field = |name: &str| record.data[name].as_str().unwrap_or_default().to_owned();
        let of = (field("projection"), field("version"));
        let Some(replay) = self.catalog.fold.replay(&of) else { return };
        let Some((view, positions)) = self.positions.iter().find(|(view, _)| text(view) == of) else { return };
        for (segment, at) in positions {
            let mark = self.marks.get(view).and_then(|marks| marks.get(segment)).copied().unwrap_or_default();
            let cancelled = self.catalog.fold.is_cancelled(replay.requested);
            // Who has not heard of the cancellation may take it up after somebody saw that nobody had.
            let taken_up = self.taken_up.get(&(view.clone(), *segment));
            let unseen = cancelled && taken_up.is_some_and(|taken_up| self.now < *taken_up + limits::LOOKED_TIME_MAX);
            if (mark.0 != replay.requested && !cancelled) || (mark.0 == replay.requested && *at < mark.1 && !unseen) {
                self.world.violated(format!(
                    "replay: that of {view} which {} asked for was told to have ended at {}, segment {segment} is at \
                     {at} with {mark:?}",
                    replay.requested, record.position
                ));
            }
        }
    }

    /// I-6: when readers were moved, the tokens of the new version covered the request and all that was shown.
    fn check_flip(&mut self, record: &Record) {
        let Some((_, tokens)) = self.flips.pop_first() else { return };
        let field = |name: &str| record.data[name].as_str().unwrap_or_default().to_owned();
        let (projection, version, from) = (field("projection"), field("version"), field("from"));
        let of = |version: &str| (projection.clone(), version.to_owned());
        let view = tokens.keys().find(|view| text(view) == of(&version));
        let covers = view.and_then(|view| tokens[view].iter().min().copied()).unwrap_or_default();
        let requested = self.catalog.fold.pending_flip(&projection).map_or(0, |(_, requested)| requested);
        let shown = self.shown.iter().find(|(view, _)| text(view) == of(&from)).map_or(0, |(_, shown)| *shown);
        let claimed = record.data["covers"].as_u64().unwrap_or_default();
        if claimed < requested.max(shown) || covers < claimed {
            self.world.violated(format!(
                "I-6: flipped {projection} from {from} to {version} at {}: it covered {covers} (said {claimed}), asked \
                 for at {requested}, shown was {shown}",
                record.position
            ));
        }
    }

    /// I-12: no view is left whose version is gone.
    fn check_what_is_left(&self) {
        for view in self.world.disk.views.list().now_or_never().into_iter().flatten().flatten() {
            let phase = self.phase(&view);
            if matches!(phase, "none" | "Scheduled" | "Obsolete") && !self.orphans.contains(&view) {
                self.world.violated(format!("I-12: there is a view {view}, which is {phase}"));
            }
        }
    }
}

/// A request under one key was carried out once: all it led to came in one append.
fn check_keys(world: &World, records: &[Record]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for record in records.iter().filter(|record| record.stream == "$catalog") {
        let Some(key) = &record.key else { continue };
        if let Some(before) = last.insert(key, record.position)
            && before + 1 != record.position
        {
            world.violated(format!(
                "I-2: the request {key} was carried out at {before} and again at {}",
                record.position
            ));
        }
    }
}
