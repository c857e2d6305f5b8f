//! What clients did and saw, kept by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::World;

/// An event as a client appended it.
#[derive(Clone, Debug)]
pub struct Written {
    pub id: [u8; 16],
    pub stream: String,
    pub event_type: &'static str,
    pub amount: i64,
}

/// A client's knowledge of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged, at this position and revision of its last event.
    Acknowledged { position: u64, revision: u64 },
    /// It was declined permanently.
    Refused,
    /// The client gave up without an answer.
    Unknown,
}

/// An answer that a client got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Duration,
    pub client: usize,
    pub projection: &'static str,
    /// The stream that the row is about; none for all.
    pub ledger: Option<String>,
    pub version: String,
    pub covers: u64,
    pub sum: i64,
    pub events: i64,
    pub digest: i64,
}

/// Which versions a node said to have segments that nobody has, or a view that it cannot reach.
#[derive(Clone, Debug)]
pub struct Alarms {
    pub at: Duration,
    pub slot: usize,
    /// Each version that it told of, and whether it said so.
    pub versions: BTreeMap<(String, String), bool>,
}

#[derive(Default)]
pub struct Books {
    pub appends: Vec<(Vec<Written>, Outcome)>,
    pub seen: Vec<Seen>,
    /// What nodes that had run for long enough told, in order.
    pub alarms: Vec<Alarms>,
}

/// What one client has seen of a projection, and must see from then on.
#[derive(Default)]
pub struct Memory {
    covers: BTreeMap<&'static str, u64>,
    events: BTreeMap<(&'static str, Option<String>), i64>,
}

impl Memory {
    /// Returns the position that the client's answers covered.
    pub fn covers(&self, projection: &'static str) -> u64 {
        self.covers.get(projection).copied().unwrap_or_default()
    }

    /// Holds an answer that was asked for `after` against everything that was seen before (I-7).
    pub fn check(&mut self, world: &World, seen: &Seen, after: u64) {
        let Seen { client, projection, covers, events, version, .. } = seen;
        if *covers < after {
            world.violated(format!("I-7: client {client} asked {projection} for {after}, {version} covers {covers}"));
        }
        let before = self.covers.entry(projection).or_default();
        if covers < before {
            world
                .violated(format!("I-7: client {client} was shown {projection} at {before}, {version} is at {covers}"));
        }
        *before = (*before).max(*covers);
        let before = self.events.entry((projection, seen.ledger.clone())).or_default();
        // Versions that set events aside need not have the same ones.
        if events < before && world.disk.set_aside(projection).is_empty() {
            let row = seen.ledger.as_deref().unwrap_or("all");
            world.violated(format!(
                "I-7: client {client} was shown {before} events of {projection} {row}, {version} shows {events}"
            ));
        }
        *before = (*before).max(*events);
    }
}
