//! The checkers: they read what lies on the disk, what landed there in order and what clients saw, and share no code
//! with what they check. Events are decoded, streams are hashed and the catalog is folded here once more.

mod catalog;
mod claims;
mod effects;
mod held;
mod journal;
mod landed;
mod order;
mod parted;
mod stands;
mod views;

use std::sync::Arc;

use crate::ledger::PROJECTIONS;
use crate::world::World;
use catalog::Fold;
use dacapo::ViewId;
use dacapo_store::Views as _;
use futures::FutureExt;
use held::Holdings;
use journal::records;

pub use catalog::is_below;
pub use views::views;

/// Everything that can be checked once all has come right.
pub fn all(world: &Arc<World>) {
    let records = records(world);
    world.note(format!("the journal ends at {}", records.len()));
    journal::check(world, &records);
    journal::check_appends(world, &records);
    landed::check(world, &records);
    claims::check(world, &records);
    effects::check(world, &records);
    order::check(world, &records);
    parted::check(world);
    stands::check(world, &records);
    let holdings = Holdings::of(world, &records);
    for fault in &holdings.faults {
        world.violated(fault);
    }
    views::check(world, &records, &holdings);
    views::check_seen(world, &records, &holdings);
}

/// Returns the faults that are still there.
pub fn missing(world: &World) -> Vec<String> {
    let records = records(world);
    let fold = Fold::of(&records);
    let mut missing = fold.unfinished(world);
    missing.extend(claims::missing(world, &fold));
    missing.extend(parted::missing(world, &fold));
    missing.extend(views::behind(world, &fold, records.len() as u64));
    missing.extend(effects::missing(world, &fold, &records, &Holdings::of(world, &records)));
    missing
}

/// Returns the versions of a projection that stand by, the newest first.
pub fn standing_by(world: &World, projection: &str) -> Vec<String> {
    let mut standing_by = Fold::of(&records(world)).in_phase(projection, "StandingBy");
    standing_by.retain(|version| world.disk.parted_at(projection, version).is_none());
    standing_by
}

/// What somebody has to do where the view that serves is of another history: the projections that are to be rebuilt, and
/// those in which what was rebuilt waits for a flip.
pub fn to_replace(world: &World) -> (Vec<String>, Vec<String>) {
    let fold = Fold::of(&records(world));
    let parted = parted::serving(world, &fold).into_iter().map(|(projection, _)| projection);
    let is_built = |projection: &String| {
        ["Scheduled", "Initializing"].iter().any(|phase| !fold.in_phase(projection, phase).is_empty())
    };
    let (built, not): (Vec<_>, Vec<_>) = parted.partition(is_built);
    (not, built.into_iter().filter(|projection| fold.pending_flip(projection).is_none()).collect())
}

/// Returns the versions that are paused.
pub fn paused(world: &World) -> Vec<(String, String)> {
    Fold::of(&records(world)).paused().iter().cloned().collect()
}

/// Returns the projections whose first version flips on command only.
pub fn waiting_for_a_flip(world: &World) -> Vec<String> {
    Fold::of(&records(world)).waiting_for_a_flip()
}

/// Returns the versions in which effects are set aside.
pub fn with_effects(world: &World) -> Vec<(String, String)> {
    effects::set_aside(world).iter().map(landed::text).collect()
}

/// Returns the projections of which a flip is under way to a version whose view is of another history: it never will
/// be flipped to.
pub fn in_vain(world: &World) -> Vec<&'static str> {
    let fold = Fold::of(&records(world));
    PROJECTIONS
        .into_iter()
        .filter(|of| fold.pending_flip(of).is_some_and(|(to, _)| world.disk.parted_at(of, to).is_some()))
        .collect()
}

/// Returns the views of versions that serve, and then of those that stand by.
pub fn serving_views(world: &World) -> Vec<ViewId> {
    let fold = Fold::of(&records(world));
    let views: Vec<ViewId> = world.disk.views.list().now_or_never().into_iter().flatten().flatten().collect();
    let is = |phase: &'static str| {
        let fold = &fold;
        move |view: &&ViewId| fold.phase(view.projection.as_str(), &view.version.to_string()) == phase
    };
    views.iter().filter(is("Serving")).chain(views.iter().filter(is("StandingBy"))).cloned().collect()
}

/// Returns the version of a projection that serves.
pub fn serving(world: &World, projection: &str) -> Option<String> {
    Fold::of(&records(world)).serving(projection).map(str::to_owned)
}

/// Returns the versions that are being built and were not found right, where that may be: events were set aside.
pub fn to_waive(world: &World) -> Vec<(String, String)> {
    let mut versions = Fold::of(&records(world)).not_found_right();
    let parted = world.disk.parted();
    versions.retain(|(projection, _)| {
        !world.disk.set_aside(projection).is_empty() || parted.keys().any(|view| view.projection.as_str() == projection)
    });
    versions
}

/// Returns the versions with dead letters for which nothing is wished: all, or those of which a copy is wanted, which
/// must not have any.
pub fn with_letters(world: &World, all: bool) -> Vec<(String, String)> {
    let records = records(world);
    let (holdings, fold) = (Holdings::of(world, &records), Fold::of(&records));
    let left = |held: &held::Held| held.letters.values().any(|letter| letter.wish.is_none());
    let with = holdings.views.iter().filter(|(_, held)| left(held)).map(|(view, _)| landed::text(view));
    with.filter(|view| all || fold.is_copied(view)).collect()
}
