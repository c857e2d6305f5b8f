//! I-4, I-5, I-6, I-12, replays and pauses: what landed on the disk, in order, held against the history of versions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dacapo::ViewId;
use dacapo_model::TokenMove;

use super::journal::Record;
use crate::disk::Landed;
use crate::world::World;

/// How long it may take until a node has noticed that a version is paused.
const NOTICED: Duration = Duration::from_secs(4);

/// A version as `(code, build)`.
type Number = (u64, u64);

fn number(text: &str) -> Number {
    let (code, build) = text.trim_start_matches('v').split_once('.').unwrap_or_default();
    (code.parse().unwrap_or_default(), build.parse().unwrap_or_default())
}

/// Whether version `one` is below `other`.
pub fn is_below(one: &str, other: &str) -> bool {
    number(one) < number(other)
}

fn text(view: &ViewId) -> (String, String) {
    (view.projection.to_string(), view.version.to_string())
}

/// The catalog, folded once more.
#[derive(Default)]
pub struct Fold {
    /// For each projection and version its phase.
    phases: BTreeMap<(String, String), &'static str>,
    policies: BTreeMap<(String, String), String>,
    serving: BTreeMap<String, String>,
    /// For each projection the flip under way: to which version, and the position of the request.
    flips: BTreeMap<String, (String, u64)>,
    /// The versions that may serve: found right, or answered for by somebody.
    approved: BTreeSet<(String, String)>,
    /// The replay in place of each version that has not ended.
    replays: BTreeMap<(String, String), Replay>,
    /// Every replay there was, by the position of its request.
    asked_replays: BTreeMap<u64, Replay>,
    paused: BTreeSet<(String, String)>,
    faults: Vec<String>,
}

/// A replay in place, as it was asked for.
#[derive(Clone, Copy)]
pub struct Replay {
    pub requested: u64,
    pub after: u64,
    /// Whether the rows go first.
    pub resets: bool,
}

impl Fold {
    pub fn of(records: &[Record]) -> Self {
        let mut fold = Self::default();
        for record in records.iter().filter(|record| record.stream == "$catalog") {
            fold.add(record);
        }
        fold
    }

    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    fn add(&mut self, record: &Record) {
        let field = |name: &str| record.data[name].as_str().map(str::to_owned);
        let (Some(projection), Some(version)) = (field("projection"), field("version")) else {
            return self.fault(format!("I-5: the catalog at {} names no version", record.position));
        };
        let view = (projection.clone(), version.clone());
        let position = record.position;
        let enter = |fold: &mut Self, from: &[&str], phase: &'static str| {
            let before = fold.phases.insert(view.clone(), phase).unwrap_or("none");
            if !from.contains(&before) {
                fold.fault(format!("I-12: {projection} {version} became {phase} from {before} at {position}"));
            }
        };
        match record.event_type.as_str() {
            "version-scheduled" => {
                enter(self, &["none"], "Scheduled");
                self.policies.insert(view.clone(), field("flip").unwrap_or_default());
                let (code, build) = number(&version);
                let others = self.phases.keys().filter(|(of, other)| *of == projection && number(other).0 == code);
                let highest = others.filter(|(_, other)| *other != version).map(|(_, other)| number(other).1).max();
                if build != highest.unwrap_or_default() + 1 {
                    self.fault(format!("I-12: {projection} {version} was scheduled behind build {highest:?}"));
                }
            }
            "version-initializing" => enter(self, &["Scheduled"], "Initializing"),
            "flip-requested" => {
                if let Some((to, _)) = self.flips.insert(projection.clone(), (version, position)) {
                    self.fault(format!("I-5: a flip was asked for at {position} while one to {to} was under way"));
                }
            }
            "flip-postponed" => {}
            "flip-aborted" => drop(self.flips.remove(&projection)),
            "flipped" => {
                if self.phase(&projection, &version) == "Initializing" && !self.approved.contains(&view) {
                    self.fault(format!(
                        "I-6: flipped to {projection} {version} at {position} without a verdict for it"
                    ));
                }
                enter(self, &["Initializing", "StandingBy"], "Serving");
                if self.replays.contains_key(&view) {
                    self.fault(format!("replay: flipped to {projection} {version} at {position} while it replays"));
                }
                let from = field("from");
                let served = self.serving.insert(projection.clone(), version.clone());
                if served != from {
                    self.fault(format!("I-5: at {position} {from:?} stepped back, and {served:?} served"));
                }
                if let Some(from) = from {
                    self.phases.insert((projection.clone(), from), "StandingBy");
                }
                match self.flips.remove(&projection) {
                    Some((to, requested)) => {
                        let covers = record.data["covers"].as_u64().unwrap_or_default();
                        if to != version || covers < requested {
                            self.fault(format!(
                                "I-6: flipped to {version} covering {covers}, asked for was {to} at {requested}"
                            ));
                        }
                    }
                    None => self.fault(format!("I-6: flipped at {position} without a request")),
                }
            }
            "version-cleaning-up" => {
                enter(self, &["Scheduled", "Initializing", "StandingBy", "Failed"], "CleaningUp");
                self.replays.remove(&view);
                self.paused.remove(&view);
                if self.flips.get(&projection).is_some_and(|(to, _)| *to == version) {
                    self.fault(format!("I-12: {projection} {version} is cleaned up while a flip to it is under way"));
                }
            }
            "version-verified" if field("verdict").as_deref() == Some("Pass") => drop(self.approved.insert(view)),
            "version-verified" => drop(self.approved.remove(&view)),
            "verdict-waived" => drop(self.approved.insert(view)),
            "replay-requested" => {
                let phase = self.phase(&projection, &version);
                if !matches!(phase, "Serving" | "StandingBy") || self.flips.contains_key(&projection) {
                    self.fault(format!(
                        "replay: one of {projection} {version}, {phase}, was asked for at {position} during a flip or \
                         although it neither serves nor stands by"
                    ));
                }
                let after = record.data["after"].as_u64().unwrap_or_default();
                let replay = Replay { requested: position, after, resets: field("rows").as_deref() == Some("reset") };
                self.asked_replays.insert(position, replay);
                if let Some(before) = self.replays.insert(view, replay) {
                    self.fault(format!(
                        "replay: one was asked for at {position} while that of {} was under way",
                        before.requested
                    ));
                }
            }
            "replay-ended" => {
                let ended = self.replays.remove(&view);
                if ended.is_none() {
                    self.fault(format!("replay: the end of none of {projection} {version} was told at {position}"));
                }
            }
            "version-paused" => drop(self.paused.insert(view)),
            "version-resumed" => drop(self.paused.remove(&view)),
            "version-obsolete" => enter(self, &["CleaningUp"], "Obsolete"),
            "version-failed" => enter(self, &["Initializing"], "Failed"),
            _ => {}
        }
    }

    pub fn phase(&self, projection: &str, version: &str) -> &'static str {
        self.phases.get(&(projection.to_owned(), version.to_owned())).copied().unwrap_or("none")
    }

    /// The versions of a projection that are in this phase, the newest first.
    pub fn in_phase(&self, projection: &str, phase: &str) -> Vec<String> {
        let of = self.phases.iter().filter(|((of, _), found)| of == projection && **found == phase);
        let mut versions: Vec<String> = of.map(|((_, version), _)| version.clone()).collect();
        versions.sort_by_key(|version| std::cmp::Reverse(number(version)));
        versions
    }

    /// The versions that are paused.
    pub fn paused(self) -> Vec<(String, String)> {
        self.paused.into_iter().collect()
    }

    /// The replay in place that was asked for at this position.
    pub fn asked_replay(&self, requested: u64) -> Option<Replay> {
        self.asked_replays.get(&requested).copied()
    }

    /// What still has to happen by itself.
    pub fn unfinished(&self) -> Vec<String> {
        let flips =
            self.flips.iter().map(|(projection, (to, _))| format!("the flip of {projection} to {to} is under way"));
        let versions = self.phases.iter().filter_map(|(view @ (projection, version), phase)| {
            let waits = match *phase {
                "Scheduled" | "CleaningUp" => true,
                "Initializing" => {
                    !self.serving.contains_key(projection)
                        || self.policies.get(view).is_some_and(|flip| flip != "on-command")
                }
                _ => false,
            };
            waits.then(|| format!("{projection} {version} is {phase}"))
        });
        let replays = self.replays.iter().map(|((projection, version), replay)| {
            format!("the replay of {projection} {version} that {} asked for has not ended", replay.requested)
        });
        flips.chain(versions).chain(replays).collect()
    }
}

/// What landed, held against the history of versions as it was at that moment.
pub fn check(world: &World, records: &[Record]) {
    let mut fold = Fold::default();
    let mut known = 0;
    let mut epochs: BTreeMap<ViewId, Vec<u64>> = BTreeMap::new();
    let mut positions: BTreeMap<ViewId, BTreeMap<u16, u64>> = BTreeMap::new();
    let mut shown: BTreeMap<ViewId, u64> = BTreeMap::new();
    let mut revoked: BTreeSet<ViewId> = BTreeSet::new();
    let mut orphans: BTreeSet<ViewId> = BTreeSet::new();
    let mut flips = BTreeMap::new();
    let mut marks: BTreeMap<ViewId, BTreeMap<u16, Mark>> = BTreeMap::new();
    let mut paused_at: BTreeMap<(String, String), Duration> = BTreeMap::new();
    for (now, landed) in world.disk.landed_at() {
        match landed {
            Landed::Appended { through } => {
                while known < through as usize && known < records.len() {
                    let record = &records[known];
                    known += 1;
                    if record.stream == "$catalog" {
                        if record.event_type == "flipped" {
                            check_flip(world, &fold, record, &mut flips, &shown);
                        }
                        if record.event_type == "replay-ended" {
                            check_replay_end(world, &fold, record, &positions, &marks);
                        }
                        fold.add(record);
                    }
                }
                paused_at.retain(|view, _| fold.paused.contains(view));
                for view in &fold.paused {
                    paused_at.entry(view.clone()).or_insert(now);
                }
            }
            Landed::Flipped { at, tokens } => drop(flips.insert(at, tokens)),
            Landed::Made { view, lingering } => {
                let (projection, version) = text(&view);
                positions.insert(view.clone(), BTreeMap::new());
                marks.remove(&view);
                shown.remove(&view);
                epochs.remove(&view);
                // A node may make it again that has not followed the catalog yet; then it drops it again. One that
                // lingered may be killed before that, and the next start drops it.
                let phase = fold.phase(&projection, &version);
                if lingering {
                    orphans.insert(view.clone());
                }
                if matches!(phase, "none" | "Scheduled") {
                    world.violated(format!("I-12: the view {view} was made while its version was {phase}"));
                }
            }
            Landed::Claimed { view, epochs: claimed } => {
                let (projection, version) = text(&view);
                if matches!(fold.phase(&projection, &version), "CleaningUp" | "Obsolete") {
                    revoked.insert(view.clone());
                }
                if let Some(before) = epochs.get(&view)
                    && before.iter().zip(&claimed).any(|(before, now)| now <= before)
                {
                    world.violated(format!("I-4: {view} was claimed at {claimed:?} behind {before:?}"));
                }
                epochs.insert(view, claimed);
            }
            Landed::Committed { view, commit } => {
                for moved in &commit.moves {
                    let segment = moved.segment.get();
                    let epoch = epochs.get(&view).and_then(|epochs| epochs.get(usize::from(segment)));
                    if epoch != Some(&moved.epoch.get()) {
                        world.violated(format!(
                            "I-4: a commit to segment {segment} of {view} landed at epoch {}, claimed was {epoch:?}",
                            moved.epoch
                        ));
                    }
                    let at = positions.entry(view.clone()).or_default().entry(segment).or_default();
                    if *at != moved.from.get() {
                        world.violated(format!(
                            "I-4: a commit to segment {segment} of {view} landed from {}, it was at {at}",
                            moved.from
                        ));
                    }
                    let mark = marks.entry(view.clone()).or_default().entry(segment).or_default();
                    check_mark(world, &fold, &view, moved, mark);
                    if moved.to > moved.from
                        && let Some(since) = paused_at.get(&text(&view)).filter(|since| now > **since + NOTICED)
                    {
                        world.violated(format!(
                            "pause: {view} is paused since {:.1} s and was moved to {}",
                            since.as_secs_f64(),
                            moved.to
                        ));
                    }
                    *at = moved.to.get();
                    let shown = shown.entry(view.clone()).or_default();
                    *shown = (*shown).max(moved.to.get());
                }
            }
            Landed::Dropped { view } => {
                let (projection, version) = text(&view);
                let phase = fold.phase(&projection, &version);
                if !matches!(phase, "CleaningUp" | "Obsolete") {
                    world.violated(format!("I-12: the view {view} was dropped while its version was {phase}"));
                }
                if !revoked.remove(&view) {
                    world.violated(format!("I-12: the view {view} was dropped before its epochs were revoked"));
                }
            }
        }
    }
    for fault in &fold.faults {
        world.violated(fault);
    }
    check_keys(world, records);
    for view in
        futures::FutureExt::now_or_never(dacapo_store::Views::list(&*world.disk.views)).into_iter().flatten().flatten()
    {
        let (projection, version) = text(&view);
        let gone = matches!(fold.phase(&projection, &version), "none" | "Scheduled" | "Obsolete");
        if gone && !orphans.contains(&view) {
            world.violated(format!("I-12: there is a view {view}, which is {}", fold.phase(&projection, &version)));
        }
    }
}

/// The last replay that a segment has taken up: the position of its request, and where the segment was.
type Mark = (u64, u64);

/// A segment goes back once for each replay that was asked for, to where that begins, and marks where it was.
fn check_mark(world: &World, fold: &Fold, view: &ViewId, moved: &TokenMove, mark: &mut Mark) {
    let new = moved.replay.map_or((0, 0), |new| (new.request.get(), new.through.get()));
    let (from, to) = (moved.from.get(), moved.to.get());
    if new == *mark {
        if to < from {
            world.violated(format!("replay: segment {} of {view} went from {from} back to {to} again", moved.segment));
        }
        return;
    }
    let asked = fold.asked_replay(new.0).filter(|_| {
        let (projection, version) = text(view);
        fold.replays.get(&(projection, version)).is_some_and(|replay| replay.requested == new.0)
    });
    let goes_back = asked.is_some_and(|asked| to == from.min(asked.after));
    if new.0 <= mark.0 || new.1 != from.max(mark.1) || !goes_back {
        world.violated(format!(
            "replay: segment {} of {view} took up {new:?} from {from} to {to}, before it was {mark:?}",
            moved.segment
        ));
    }
    *mark = new;
}

/// A replay has ended when every segment has taken it up and is where it was.
fn check_replay_end(
    world: &World,
    fold: &Fold,
    record: &Record,
    positions: &BTreeMap<ViewId, BTreeMap<u16, u64>>,
    marks: &BTreeMap<ViewId, BTreeMap<u16, Mark>>,
) {
    let field = |name: &str| record.data[name].as_str().unwrap_or_default().to_owned();
    let of = (field("projection"), field("version"));
    let Some(replay) = fold.replays.get(&of) else { return };
    let Some((view, positions)) = positions.iter().find(|(view, _)| text(view) == of) else { return };
    for (segment, at) in positions {
        let mark = marks.get(view).and_then(|marks| marks.get(segment)).copied().unwrap_or_default();
        if mark.0 != replay.requested || *at < mark.1 {
            world.violated(format!(
                "replay: that of {view} which {} asked for was told to have ended at {}, segment {segment} is at {at} \
                 with {mark:?}",
                replay.requested, record.position
            ));
        }
    }
}

/// I-6: when readers were moved, the tokens of the new version covered the request and all that was shown.
fn check_flip(
    world: &World,
    fold: &Fold,
    record: &Record,
    flips: &mut BTreeMap<u64, BTreeMap<ViewId, Vec<u64>>>,
    shown: &BTreeMap<ViewId, u64>,
) {
    let Some((_, tokens)) = flips.pop_first() else { return };
    let field = |name: &str| record.data[name].as_str().unwrap_or_default().to_owned();
    let (projection, version, from) = (field("projection"), field("version"), field("from"));
    let view = tokens.keys().find(|view| text(view) == (projection.clone(), version.clone()));
    let covers = view.and_then(|view| tokens[view].iter().min().copied()).unwrap_or_default();
    let requested = fold.flips.get(&projection).map_or(0, |(_, requested)| *requested);
    let shown =
        shown.iter().find(|(view, _)| text(view) == (projection.clone(), from.clone())).map_or(0, |(_, shown)| *shown);
    let claimed = record.data["covers"].as_u64().unwrap_or_default();
    if claimed < requested.max(shown) || covers < claimed {
        world.violated(format!(
            "I-6: flipped {projection} from {from} to {version} at {}: it covered {covers} (said {claimed}), asked for at \
             {requested}, shown was {shown}",
            record.position
        ));
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
