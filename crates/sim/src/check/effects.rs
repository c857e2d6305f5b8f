//! I-9: of each event the effects were made of one emission, by the version that served at its position, and each version
//! made those of a stream in the order in which it applied its events. The order across versions is looked at apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dacapo::ViewId;
use dacapo_store::Views;
use futures::FutureExt;

use super::catalog::Fold;
use super::held::Holdings;
use super::journal::Record;
use crate::disk::Landed;
use crate::effects::{Made, Told, effects_of};
use crate::ledger::{PROJECTIONS, makes_past_effects};
use crate::world::World;

/// The versions that have served a projection, each with its first position.
#[derive(Default)]
pub struct Served {
    /// The position at which its first version was scheduled.
    first: u64,
    versions: Vec<(u64, String)>,
}

impl Served {
    pub fn of(records: &[Record], projection: &str) -> Self {
        let mut served = Self::default();
        for record in
            records.iter().filter(|record| record.stream == "$catalog" && record.data["projection"] == projection)
        {
            match record.event_type.as_str() {
                "version-scheduled" if served.first == 0 => served.first = record.position,
                "flipped" => {
                    let version = record.data["version"].as_str().unwrap_or_default();
                    served.versions.push((record.position, version.to_owned()));
                }
                _ => {}
            }
        }
        served
    }

    /// Whose effects of the event at `position` are to be made; none if nobody's, or nobody knows yet.
    pub fn voice(&self, position: u64, past: bool) -> Option<&str> {
        if self.first == 0 || (position < self.first && !past) {
            return None;
        }
        let before = self.versions.iter().take_while(|(since, _)| *since <= position).last();
        before.or(self.versions.first()).map(|(_, version)| version.as_str())
    }

    /// Returns the flip by which readers left the version that speaks at `position`; none if they are with it still.
    pub fn left(&self, position: u64) -> Option<u64> {
        let next = self.versions.iter().position(|(since, _)| *since > position).unwrap_or(self.versions.len());
        // What came before the first flip is of the version that it went to.
        self.versions.get(next.max(1)).map(|(since, _)| *since)
    }
}

/// What a commit has kept of a run of a handler.
pub struct Kept {
    pub view: ViewId,
    pub at: Duration,
    /// Which commit of all, in the order in which they landed.
    commit: usize,
    told: Told,
}

/// Returns the effects that were kept of each run of a handler.
pub fn kept(world: &World) -> BTreeMap<u64, Kept> {
    let mut kept = BTreeMap::new();
    for (number, (at, landed)) in world.disk.landed_at().into_iter().enumerate() {
        let Landed::Committed { view, commit, .. } = &*landed else { continue };
        for effect in &commit.effects {
            if let Ok(told) = serde_json::from_slice::<Told>(&effect.payload) {
                kept.insert(told.run, Kept { view: view.clone(), at, commit: number, told });
            }
        }
    }
    kept
}

/// Effects of views, each by the position of its event, and which of that it is.
pub type Effects = BTreeSet<(ViewId, u64, u32)>;

/// Returns the effects that were ever set aside, and those that somebody gave up.
pub fn aside_and_dropped(world: &World) -> (Effects, Effects) {
    let (mut aside, mut dropped) = (Effects::new(), Effects::new());
    for landed in world.disk.landed() {
        let (all, view, effects) = match &*landed {
            Landed::EffectsAside { view, effects } => (&mut aside, view, effects),
            Landed::EffectsDropped { view, effects } => (&mut dropped, view, effects),
            _ => continue,
        };
        all.extend(effects.iter().map(|(position, nth)| (view.clone(), *position, *nth)));
    }
    (aside, dropped)
}

/// Returns the views in which effects are set aside now.
pub fn set_aside(world: &World) -> Vec<ViewId> {
    let mut views = world.disk.views.list().now_or_never().into_iter().flatten().flatten().collect::<Vec<_>>();
    views.retain(|id| {
        let Some(Ok(Some(view))) = world.disk.views.find(id).now_or_never() else { return false };
        let letters = view.effect_letters(0, usize::MAX, false).now_or_never();
        letters.into_iter().flatten().flatten().any(|letter| letter.aside.is_some())
    });
    views
}

/// Everything that was made, held against the journal, the catalog and what was committed.
pub fn check(world: &World, records: &[Record]) {
    let served: BTreeMap<&str, Served> =
        PROJECTIONS.map(|projection| (projection, Served::of(records, projection))).into();
    let (kept, (aside, dropped)) = (kept(world), aside_and_dropped(world));
    let mut runs: BTreeMap<(String, u64, u32), u64> = BTreeMap::new();
    let mut last: BTreeMap<(ViewId, String), (usize, u64, u32)> = BTreeMap::new();
    for Made { code, key, told, .. } in world.receiver.made() {
        let (projection, position) = (key.projection.as_str(), key.position.get());
        let record = usize::try_from(position).ok().and_then(|position| records.get(position.wrapping_sub(1)));
        let same = |record: &Record| record.stream == told.stream && record.change() == Some(told.change);
        if (position, key.ordinal) != (told.position, told.nth) || !record.is_some_and(same) {
            world.violated(format!("I-9: the effect {key} is {told:?}, the event is {record:?}"));
        }
        let Some(Kept { view, commit, .. }) = kept.get(&told.run) else {
            world.violated(format!("I-9: the effect {key} was made, and no commit has kept it: {told:?}"));
            continue;
        };
        let version = view.version.to_string();
        let voice =
            served.get(projection).and_then(|served| served.voice(position, makes_past_effects(world, projection)));
        if voice != Some(version.as_str()) || view.version.code != code || view.projection != key.projection {
            world.violated(format!("I-9: {view} made the effect {key} (code v{code}), the voice there is {voice:?}"));
        }
        let name = (projection.to_owned(), position, key.ordinal);
        let again = runs.contains_key(&name);
        let run = *runs.entry(name).or_insert(told.run);
        if run != told.run {
            let first = kept.get(&run).map(|kept| kept.view.to_string());
            world.violated(format!("I-9: the effect {key} was emitted and made by {first:?} and again by {view}"));
        }
        // Its stream has gone on without it: until somebody wanted it tried again, or while a try was under way.
        let name = (view.clone(), position, key.ordinal);
        if aside.contains(&name) || dropped.contains(&name) {
            continue;
        }
        // A version makes the effects of a stream one after the other, as its events were applied; tries of one that was
        // made come again.
        let last = last.entry((view.clone(), told.stream.clone())).or_default();
        let place = (*commit, position, key.ordinal);
        if place > *last {
            *last = place;
        } else if !again {
            world.violated(format!("I-9: {view} made the effect {key} of {} after {last:?}", told.stream));
        }
    }
}

/// Effects that were not made yet.
pub fn missing(world: &World, fold: &Fold, records: &[Record], holdings: &Holdings<'_>) -> Vec<String> {
    let made: BTreeSet<(String, u64, u32)> = world
        .receiver
        .made()
        .into_iter()
        .map(|made| (made.key.projection.to_string(), made.key.position.get(), made.key.ordinal))
        .collect();
    let (mut missing, parted) = (vec![], world.disk.parted());
    let (kept, (aside, dropped)) = (kept(world), aside_and_dropped(world));
    let is_dropped = |projection: &str, version: &str, position: u64, nth: u32| {
        let is = |(view, at, of): &(ViewId, u64, u32)| {
            view.projection.as_str() == projection
                && view.version.to_string() == version
                && (*at, *of) == (position, nth)
        };
        // With a version goes what is set aside in it.
        dropped.iter().any(is)
            || (matches!(fold.phase(projection, version), "CleaningUp" | "Obsolete") && aside.iter().any(is))
    };
    for projection in PROJECTIONS {
        let (served, past) = (Served::of(records, projection), makes_past_effects(world, projection));
        let is_made = |position: u64, nth: u32| made.contains(&(projection.to_owned(), position, nth));
        // Whatever a version that is still there has come past and not set aside.
        for record in records.iter().filter(|record| record.change().is_some()) {
            let Some(version) = served.voice(record.position, past) else { continue };
            // What it owes is of another history.
            if world.disk.parted_at(projection, version).is_some() {
                continue;
            }
            let there = matches!(fold.phase(projection, version), "Serving" | "StandingBy")
                && !holdings.is_unspoken(projection, version, record.position);
            let owed = |nth: &u32| {
                there && !is_made(record.position, *nth) && !is_dropped(projection, version, record.position, *nth)
            };
            for nth in (0..effects_of(record.position)).filter(owed) {
                missing.push(format!("the effect {projection}-{}-{nth} was not made by {version}", record.position));
            }
        }
        // Whatever one has kept, also when it has gone since: a clean-up waits for it.
        for Kept { view, told, .. } in kept.values().filter(|kept| kept.view.projection.as_str() == projection) {
            let speaks = served.voice(told.position, past) == Some(view.version.to_string().as_str());
            let version = view.version.to_string();
            let speaks = speaks && !parted.contains_key(view);
            if speaks && !is_made(told.position, told.nth) && !is_dropped(projection, &version, told.position, told.nth)
            {
                missing.push(format!(
                    "the effect {projection}-{}-{}, kept by {view}, was not made",
                    told.position, told.nth
                ));
            }
        }
    }
    missing
}
