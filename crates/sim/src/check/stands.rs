//! I-8: no stand-by ends by itself before its time, by the clock of the disk, whatever the clocks of nodes say.

use std::collections::BTreeMap;

use super::journal::Record;
use crate::ledger::shortest_stand_by;
use crate::world::World;

pub fn check(world: &World, records: &[Record]) {
    // For each version that served, when it last stepped back.
    let mut stands: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for record in records.iter().filter(|record| record.stream == "$catalog") {
        let field = |name: &str| record.data[name].as_str().unwrap_or_default();
        let (projection, version) = (field("projection"), field("version"));
        match record.event_type.as_str() {
            "flipped" => drop(stands.insert((projection, field("from")), record.time)),
            // It stands by again, for all of its time.
            "clean-up-cancelled" => drop(stands.insert((projection, version), record.time)),
            "version-cleaning-up" if field("reason") == "stand-by-over" => {
                let stood = stands.get(&(projection, version)).map_or(0, |since| record.time - since);
                let wanted = shortest_stand_by(world, projection).as_micros();
                if u128::try_from(stood).is_ok_and(|stood| stood < wanted) {
                    let position = record.position;
                    world.violated(format!(
                        "I-8: the stand-by of {projection} {version} is over at {position}, after {stood} µs of at \
                         least {wanted}"
                    ));
                }
            }
            _ => {}
        }
    }
}
