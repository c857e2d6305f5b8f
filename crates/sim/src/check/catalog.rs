//! I-4, I-5, I-6, I-12: what landed on the disk, in order, held against the history of versions.

use std::collections::{BTreeMap, BTreeSet};

use dacapo::ViewId;

use super::journal::Record;
use crate::disk::Landed;
use crate::world::World;

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
    faults: Vec<String>,
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
                if self.flips.get(&projection).is_some_and(|(to, _)| *to == version) {
                    self.fault(format!("I-12: {projection} {version} is cleaned up while a flip to it is under way"));
                }
            }
            "version-verified" if field("verdict").as_deref() == Some("Pass") => drop(self.approved.insert(view)),
            "version-verified" => drop(self.approved.remove(&view)),
            "verdict-waived" => drop(self.approved.insert(view)),
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
        flips.chain(versions).collect()
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
    for landed in world.disk.landed() {
        match landed {
            Landed::Appended { through } => {
                while known < through as usize && known < records.len() {
                    let record = &records[known];
                    known += 1;
                    if record.stream == "$catalog" {
                        if record.event_type == "flipped" {
                            check_flip(world, &fold, record, &mut flips, &shown);
                        }
                        fold.add(record);
                    }
                }
            }
            Landed::Flipped { at, tokens } => drop(flips.insert(at, tokens)),
            Landed::Made { view, lingering } => {
                let (projection, version) = text(&view);
                positions.insert(view.clone(), BTreeMap::new());
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
    if covers < requested.max(shown) || covers < claimed {
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
