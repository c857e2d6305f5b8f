//! A view that is of another history than the journal is neither written to nor shown. Where it serves, a rebuild takes its
//! place.

use std::collections::BTreeSet;
use std::time::Duration;

use dacapo::ViewId;

use super::catalog::{Fold, Version};
use super::landed::text;
use crate::disk::Landed;
use crate::limits;
use crate::world::{World, locked};

/// What was committed to such views, and what was answered from them.
pub fn check(world: &World) {
    let mut parted = BTreeSet::<ViewId>::new();
    let mut ways: Vec<(Duration, Option<usize>, bool)> = vec![];
    for (at, landed) in world.disk.landed_at() {
        match &*landed {
            Landed::Parted { view } => drop(parted.insert(view.clone())),
            Landed::Committed { slot, view, commit, .. } if parted.contains(view) => {
                world.violated(format!(
                    "parted: the node in slot {slot} has committed {:?} to {view} at {:.3} s, which is of another history",
                    commit.moves,
                    at.as_secs_f64()
                ));
            }
            Landed::Way { slot, good } => ways.push((at, *slot, *good)),
            _ => {}
        }
    }
    for seen in &locked(&world.books).seen {
        let Some(since) = world.disk.parted_at(seen.projection, &seen.version) else { continue };
        if seen.at > since + limits::NOTICED_TIME_MAX
            && is_good(&ways, seen.at.saturating_sub(limits::NOTICED_TIME_MAX), seen.at)
        {
            world.violated(format!(
                "parted: {} of {} is of another history since {:.3} s, and was shown: {seen:?}",
                seen.version,
                seen.projection,
                since.as_secs_f64()
            ));
        }
    }
}

/// Returns true if all ways to the disk were good from one time to another.
fn is_good(ways: &[(Duration, Option<usize>, bool)], from: Duration, until: Duration) -> bool {
    let mut bad = BTreeSet::new();
    for (at, slot, good) in ways.iter().take_while(|(at, ..)| *at <= until) {
        if *at > from && !bad.is_empty() {
            return false;
        }
        match good {
            true => bad.remove(slot),
            false => bad.insert(*slot),
        };
    }
    bad.is_empty()
}

/// Returns the projections whose version that serves is of another history.
pub fn serving(world: &World, fold: &Fold) -> Vec<Version> {
    let views = world.disk.parted();
    let parted = views.keys().map(text).filter(|(projection, version)| fold.serving(projection) == Some(version));
    parted.collect()
}

/// Returns those for which nobody has finished that yet.
pub fn missing(world: &World, fold: &Fold) -> Vec<String> {
    let serving = serving(world, fold).into_iter();
    serving.map(|(projection, version)| format!("{projection} {version} serves and is of another history")).collect()
}
