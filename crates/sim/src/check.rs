//! The checkers: they read what lies on the disk, what landed there in order and what clients saw, and share no code
//! with what they check. Events are decoded, streams are hashed and the catalog is folded here once more.

mod catalog;
mod effects;
mod journal;
mod views;

use std::sync::Arc;

use crate::world::World;
use catalog::Fold;
use journal::records;

pub use catalog::is_below;
pub use views::views;

/// Everything that can be checked once all has come right.
pub fn all(world: &Arc<World>) {
    let records = records(world);
    world.note(format!("the journal ends at {}", records.len()));
    journal::check(world, &records);
    journal::check_appends(world, &records);
    catalog::check(world, &records);
    effects::check(world, &records);
    views::views(world);
    views::check_seen(world, &records);
}

/// What has not come right yet.
pub fn missing(world: &World) -> Vec<String> {
    let records = records(world);
    let fold = Fold::of(&records);
    let mut missing = fold.unfinished();
    missing.extend(views::behind(world, &fold, records.len() as u64));
    missing.extend(effects::missing(world, &fold, &records));
    missing
}

/// The versions of a projection that stand by, the newest first.
pub fn standing_by(world: &World, projection: &str) -> Vec<String> {
    Fold::of(&records(world)).in_phase(projection, "StandingBy")
}

/// The versions that are paused.
pub fn paused(world: &World) -> Vec<(String, String)> {
    Fold::of(&records(world)).paused()
}

/// The version of a projection that serves.
pub fn serving(world: &World, projection: &str) -> Option<String> {
    Fold::of(&records(world)).in_phase(projection, "Serving").into_iter().next()
}
