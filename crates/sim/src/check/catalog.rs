//! I-5, I-6, I-12: the catalog, folded once more, with what in it must not be.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::Record;
use crate::world::World;

/// A projection and one of its versions.
pub type Version = (String, String);

/// A version as `(code, build)`.
type Number = (u64, u64);

fn number(text: &str) -> Number {
    let (code, build) = text.trim_start_matches('v').split_once('.').unwrap_or_default();
    (code.parse().unwrap_or_default(), build.parse().unwrap_or_default())
}

/// Returns the code version of a version.
pub fn code_of(version: &str) -> u32 {
    u32::try_from(number(version).0).expect("code versions are small numbers")
}

/// Returns true if version `one` is below `other`.
pub fn is_below(one: &str, other: &str) -> bool {
    number(one) < number(other)
}

/// The catalog, folded once more.
#[derive(Default)]
pub struct Fold {
    /// For each projection and version its phase.
    phases: BTreeMap<Version, &'static str>,
    policies: BTreeMap<Version, String>,
    serving: BTreeMap<String, String>,
    /// For each projection the flip under way: to which version, and the position of the request.
    flips: BTreeMap<String, (String, u64)>,
    verdicts: BTreeMap<Version, Verdict>,
    /// Of each version that begins as a copy, what of.
    seeds: BTreeMap<Version, String>,
    /// The replay in place of each version that has not ended.
    replays: BTreeMap<Version, Replay>,
    /// Every replay there was, by the position of its request.
    asked_replays: BTreeMap<u64, Replay>,
    paused: BTreeSet<Version>,
    /// Events that somebody wanted set aside.
    set_aside: BTreeSet<(Version, u64)>,
    /// What was under way in a version when its clean-up was asked for.
    shelved: BTreeMap<Version, Shelved>,
    /// Replays that somebody cancelled, by the positions of their requests.
    cancelled_replays: BTreeSet<u64>,
    faults: Vec<String>,
}

/// The result of the verification of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    /// Somebody answers for it.
    Waived,
}

/// What was under way in a version when its clean-up was asked for.
struct Shelved {
    phase: &'static str,
    replay: Option<Replay>,
    paused: bool,
}

/// A replay in place, as it was asked for.
#[derive(Clone, Copy)]
pub struct Replay {
    pub requested: u64,
    pub after: u64,
    /// True if the rows go first.
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

    pub fn add(&mut self, record: &Record) {
        let field = |name: &str| record.data[name].as_str().map(str::to_owned);
        let (Some(projection), Some(version)) = (field("projection"), field("version")) else {
            return self.fault(format!("I-5: the catalog at {} names no version", record.position));
        };
        let view = (projection, version);
        match record.event_type.as_str() {
            "version-scheduled" => self.schedule(record, view),
            "version-initializing" => self.enter(record, &view, &["Scheduled"], "Initializing"),
            "version-cleaning-up" => self.clean_up(record, &view),
            "version-obsolete" => self.enter(record, &view, &["CleaningUp"], "Obsolete"),
            "version-failed" => self.enter(record, &view, &["Initializing"], "Failed"),
            "flip-requested" => self.request_flip(record, view),
            "flip-aborted" => drop(self.flips.remove(&view.0)),
            "flip-cancelled" => self.cancel_flip(view),
            "event-set-aside" => drop(self.set_aside.insert((view, record.data["event"].as_u64().unwrap_or_default()))),
            "clean-up-cancelled" => self.restore(record, &view),
            "replay-cancelled" => self.cancel_replay(record, &view),
            "flipped" => self.flip(record, view),
            "version-verified" => self.verify(view, field("verdict").as_deref() == Some("Pass")),
            "verification-requested" => drop(self.verdicts.remove(&view)),
            "verdict-waived" => drop(self.verdicts.insert(view, Verdict::Waived)),
            "replay-requested" => self.request_replay(record, view),
            "replay-ended" => self.end_replay(record, &view),
            "version-paused" => drop(self.paused.insert(view)),
            "version-resumed" => drop(self.paused.remove(&view)),
            _ => {}
        }
    }

    fn enter(&mut self, record: &Record, view: &Version, from: &[&str], phase: &'static str) {
        let before = self.phases.insert(view.clone(), phase).unwrap_or("none");
        if !from.contains(&before) {
            let ((projection, version), position) = (view, record.position);
            self.fault(format!("I-12: {projection} {version} became {phase} from {before} at {position}"));
        }
    }

    fn schedule(&mut self, record: &Record, view: Version) {
        self.enter(record, &view, &["none"], "Scheduled");
        self.policies.insert(view.clone(), record.data["flip"].as_str().unwrap_or_default().to_owned());
        if let Some(seed) = record.data["seed"].as_str() {
            self.seeds.insert(view.clone(), seed.to_owned());
        }
        let (projection, version) = view;
        let (code, build) = number(&version);
        let others = self.phases.keys().filter(|(of, other)| *of == projection && number(other).0 == code);
        let highest = others.filter(|(_, other)| *other != version).map(|(_, other)| number(other).1).max();
        if build != highest.unwrap_or_default() + 1 {
            self.fault(format!("I-12: {projection} {version} was scheduled after build {highest:?}"));
        }
    }

    fn clean_up(&mut self, record: &Record, view: &Version) {
        let phase = self.phase(&view.0, &view.1);
        self.enter(record, view, &["Scheduled", "Initializing", "StandingBy", "Failed"], "CleaningUp");
        let (replay, paused) = (self.replays.remove(view), self.paused.remove(view));
        self.shelved.insert(view.clone(), Shelved { phase, replay, paused });
        let (projection, version) = view;
        if self.flips.get(projection).is_some_and(|(to, _)| to == version) {
            self.fault(format!("I-12: {projection} {version} is cleaned up while a flip to it is under way"));
        }
    }

    /// A clean-up was cancelled: the version is as it was before. One that was being built flips on command only.
    fn restore(&mut self, record: &Record, view: &Version) {
        let Some(Shelved { phase, replay, paused }) = self.shelved.remove(view) else {
            return self.fault(format!("I-12: a clean-up of {} {} was cancelled, and there was none", view.0, view.1));
        };
        self.enter(record, view, &["CleaningUp"], phase);
        self.replays.extend(replay.map(|replay| (view.clone(), replay)));
        self.paused.extend(paused.then(|| view.clone()));
        if matches!(phase, "Scheduled" | "Initializing") {
            self.policies.insert(view.clone(), "on-command".to_owned());
            let other = |((of, other), phase): (&Version, &&str)| {
                *of == view.0 && *other != view.1 && matches!(*phase, "Scheduled" | "Initializing")
            };
            if self.phases.iter().any(other) {
                self.fault(format!("I-12: {} {} is built on beside another one", view.0, view.1));
            }
        }
    }

    /// The version flips on command only from here on.
    fn cancel_flip(&mut self, view: Version) {
        let under_way = self.flips.get(&view.0).is_some_and(|(to, _)| *to == view.1);
        if under_way {
            self.flips.remove(&view.0);
        } else if !matches!(self.phase(&view.0, &view.1), "Scheduled" | "Initializing") {
            self.fault(format!("I-5: a flip to {} {} was cancelled, and none was under way", view.0, view.1));
        }
        self.policies.insert(view, "on-command".to_owned());
    }

    fn cancel_replay(&mut self, record: &Record, view: &Version) {
        let Some(replay) = self.replays.get(view) else {
            let ((projection, version), position) = (view, record.position);
            return self.fault(format!("replay: none of {projection} {version} was cancelled at {position}"));
        };
        self.cancelled_replays.insert(replay.requested);
    }

    /// Returns true if somebody cancelled the replay that was asked for there.
    pub fn is_cancelled(&self, requested: u64) -> bool {
        self.cancelled_replays.contains(&requested)
    }

    /// Returns true if somebody wanted an event set aside in a version.
    pub fn is_set_aside(&self, view: &Version, event: u64) -> bool {
        self.set_aside.contains(&(view.clone(), event))
    }

    fn request_flip(&mut self, record: &Record, (projection, version): Version) {
        let position = record.position;
        if let Some((to, _)) = self.flips.insert(projection, (version, position)) {
            self.fault(format!("I-5: a flip was asked for at {position} while one to {to} was under way"));
        }
    }

    fn flip(&mut self, record: &Record, view: Version) {
        let position = record.position;
        let (projection, version) = view.clone();
        if self.phase(&projection, &version) == "Initializing" && !self.is_approved(&view) {
            self.fault(format!("I-6: flipped to {projection} {version} at {position} without a verdict for it"));
        }
        self.enter(record, &view, &["Initializing", "StandingBy"], "Serving");
        if self.replays.contains_key(&view) {
            self.fault(format!("replay: flipped to {projection} {version} at {position} while it replays"));
        }
        let from = record.data["from"].as_str().map(str::to_owned);
        let served = self.serving.insert(projection.clone(), version.clone());
        if served != from {
            self.fault(format!("I-5: at {position} {from:?} stepped back, and {served:?} served"));
        }
        if let Some(from) = from {
            self.phases.insert((projection.clone(), from), "StandingBy");
        }
        let Some((to, requested)) = self.flips.remove(&projection) else {
            return self.fault(format!("I-6: flipped at {position} without a request"));
        };
        let covers = record.data["covers"].as_u64().unwrap_or_default();
        if to != version || covers < requested {
            self.fault(format!("I-6: flipped to {version} covering {covers}, asked for was {to} at {requested}"));
        }
    }

    fn verify(&mut self, view: Version, passed: bool) {
        self.verdicts.insert(view, if passed { Verdict::Pass } else { Verdict::Fail });
    }

    fn request_replay(&mut self, record: &Record, view: Version) {
        let ((projection, version), position) = (&view, record.position);
        let phase = self.phase(projection, version);
        if !matches!(phase, "Serving" | "StandingBy") || self.flips.contains_key(projection) {
            self.fault(format!(
                "replay: one of {projection} {version}, {phase}, was asked for at {position} during a flip or \
                 although it neither serves nor stands by"
            ));
        }
        let after = record.data["after"].as_u64().unwrap_or_default();
        let resets = record.data["rows"].as_str() == Some("reset");
        let replay = Replay { requested: position, after, resets };
        self.asked_replays.insert(position, replay);
        if let Some(before) = self.replays.insert(view, replay) {
            self.fault(format!(
                "replay: one was asked for at {position} while that of {} was under way",
                before.requested
            ));
        }
    }

    fn end_replay(&mut self, record: &Record, view: &Version) {
        if self.replays.remove(view).is_none() {
            let ((projection, version), position) = (view, record.position);
            self.fault(format!("replay: the end of none of {projection} {version} was told at {position}"));
        }
    }

    /// Returns true if a version may serve that has not served yet: found right, or answered for by somebody.
    fn is_approved(&self, view: &Version) -> bool {
        self.verdicts.get(view).is_some_and(|verdict| *verdict != Verdict::Fail)
    }

    /// Returns the last verdict on a version, unless another one was asked for since.
    pub fn verdict(&self, view: &Version) -> Option<Verdict> {
        self.verdicts.get(view).copied()
    }

    /// Returns the versions that are being built and were not found right.
    pub fn not_found_right(&self) -> Vec<Version> {
        let wrong = self.verdicts.iter().filter(|(_, verdict)| **verdict == Verdict::Fail);
        let built = wrong.filter(|((projection, version), _)| self.phase(projection, version) == "Initializing");
        built.map(|(view, _)| view.clone()).collect()
    }

    /// Returns true if a version is being built that is to begin as a copy of this one.
    pub fn is_copied(&self, view: &Version) -> bool {
        let mut of = self.seeds.iter().filter(|((projection, _), seed)| (projection, *seed) == (&view.0, &view.1));
        of.any(|((projection, version), _)| self.phase(projection, version) == "Initializing")
    }

    /// Returns the version of a projection that serves.
    pub fn serving(&self, projection: &str) -> Option<&str> {
        self.serving.get(projection).map(String::as_str)
    }

    /// Returns the flip of a projection under way: to which version, and the position of the request.
    pub fn pending_flip(&self, projection: &str) -> Option<(&str, u64)> {
        self.flips.get(projection).map(|(to, requested)| (to.as_str(), *requested))
    }

    /// Returns the replay in place of a version that has not ended.
    pub fn replay(&self, view: &Version) -> Option<Replay> {
        self.replays.get(view).copied()
    }

    /// Returns the faults of the catalog.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    pub fn phase(&self, projection: &str, version: &str) -> &'static str {
        self.phases.get(&(projection.to_owned(), version.to_owned())).copied().unwrap_or("none")
    }

    /// Returns the versions of a projection that are in this phase, the newest first.
    pub fn in_phase(&self, projection: &str, phase: &str) -> Vec<String> {
        let of = self.phases.iter().filter(|((of, _), found)| of == projection && **found == phase);
        let mut versions: Vec<String> = of.map(|((_, version), _)| version.clone()).collect();
        versions.sort_by_key(|version| std::cmp::Reverse(number(version)));
        versions
    }

    /// Returns the versions that are paused.
    pub fn paused(&self) -> &BTreeSet<Version> {
        &self.paused
    }

    /// Returns the replay in place that was asked for at this position.
    pub fn asked_replay(&self, requested: u64) -> Option<Replay> {
        self.asked_replays.get(&requested).copied()
    }

    /// Returns the projections that nothing serves although a version is being built that flips on command.
    pub fn waiting_for_a_flip(&self) -> Vec<String> {
        let built = self.phases.iter().filter(|(_, phase)| **phase == "Initializing");
        let on_command = built.filter(|(view, _)| self.policies.get(*view).is_some_and(|flip| flip == "on-command"));
        let nobody = on_command.filter(|((projection, _), _)| {
            !self.serving.contains_key(projection) && !self.flips.contains_key(projection)
        });
        nobody.map(|((projection, _), _)| projection.clone()).collect()
    }

    /// Returns the changes that still have to happen by themselves. A replay of a version of another history cannot
    /// end.
    pub fn unfinished(&self, world: &World) -> Vec<String> {
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
        let can_end = |(projection, version): &(String, String)| world.disk.parted_at(projection, version).is_none();
        let replays = self.replays.iter().filter(|(view, _)| can_end(view)).map(|((projection, version), replay)| {
            format!("the replay of {projection} {version} that {} asked for has not ended", replay.requested)
        });
        flips.chain(versions).chain(replays).collect()
    }
}

/// The catalog as it was at each moment of what landed.
pub struct Following<'a> {
    pub fold: Fold,
    records: &'a [Record],
    known: usize,
}

impl<'a> Following<'a> {
    pub fn new(records: &'a [Record]) -> Self {
        Self { fold: Fold::default(), records, known: 0 }
    }

    /// Returns the next change of the catalog through this position, which the fold does not have yet: add it.
    pub fn next(&mut self, through: u64) -> Option<&'a Record> {
        while self.known < self.records.len().min(through as usize) {
            let record = &self.records[self.known];
            self.known += 1;
            if record.stream == "$catalog" {
                return Some(record);
            }
        }
        None
    }
}
