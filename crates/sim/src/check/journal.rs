//! I-1 and I-2: the journal is dense, and what was acknowledged is in it once.

use std::collections::{BTreeMap, BTreeSet};

use dacapo::Position;
use dacapo::journal::{Filter, Limit};
use dacapo::store::Journal;
use dacapo_store::EventRef;
use serde_json::Value;

use crate::books::Outcome;
use crate::disk::Landed;
use crate::world::{World, locked};

/// An event as it lies in the journal.
#[derive(Clone, Debug)]
pub struct Record {
    pub position: u64,
    pub revision: u64,
    pub id: [u8; 16],
    pub stream: String,
    pub event_type: String,
    pub data: Value,
    pub time: i64,
    /// The key under which a change of the catalog was asked for.
    pub key: Option<String>,
}

impl Record {
    /// How the event changes a sum; none for one that no projection wants.
    pub fn change(&self) -> Option<i64> {
        let amount = || self.data["amount"].as_i64();
        match self.event_type.as_str() {
            "added" | "given" => amount(),
            "taken" => amount().map(|amount| -amount),
            _ => None,
        }
    }
}

/// Returns the whole journal.
pub fn records(world: &World) -> Vec<Record> {
    let mut records = vec![];
    let mut after = Position::START;
    loop {
        let everything = Filter::everything();
        let read = world.disk.journal.read(after, &everything, Limit::events(10_000));
        let Some(Ok(batch)) = futures::FutureExt::now_or_never(read) else {
            world.violated("I-1: the journal cannot be read");
            return records;
        };
        if batch.through <= after {
            return records;
        }
        after = batch.through;
        records.extend(batch.iter().map(|event| record(&event)));
    }
}

fn record(event: &EventRef<'_>) -> Record {
    let key = event.extra().ok().and_then(|(metadata, _)| metadata.fields.get("idempotency-key").cloned());
    Record {
        position: event.position.get(),
        revision: event.revision.get(),
        id: event.id.bytes(),
        stream: event.stream.to_owned(),
        event_type: event.event_type.to_owned(),
        data: serde_json::from_slice(event.payload).unwrap_or_default(),
        time: event.recorded.micros(),
        key,
    }
}

/// I-1: positions and revisions are dense, times do not go back, ids are there once, and heads only grew.
pub fn check(world: &World, records: &[Record]) {
    let mut revisions: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut time = i64::MIN;
    for (at, record) in records.iter().enumerate() {
        let Record { position, revision, stream, .. } = record;
        if *position != at as u64 + 1 {
            world.violated(format!("I-1: the event at place {} of the journal has position {position}", at + 1));
            break;
        }
        let last = revisions.entry(stream).or_default();
        if *revision != *last + 1 {
            world.violated(format!("I-1: {stream} has revision {revision} at {position}, after {last}"));
        }
        *last = *revision;
        if !ids.insert(record.id) {
            world.violated(format!("I-2: the event at {position} is in the journal twice"));
        }
        if record.time < time {
            world.violated(format!("I-1: the event at {position} is older than the one before it"));
        }
        time = record.time;
    }
    let mut head = 0;
    for landed in world.disk.landed() {
        if let Landed::Appended { through } = *landed {
            if through <= head {
                world.violated(format!("I-1: an append ended at {through} when the head was {head}"));
            }
            head = through;
        }
    }
    if head != records.len() as u64 {
        world.violated(format!("I-1: the last append ended at {head}, the journal at {}", records.len()));
    }
}

/// I-2: what was acknowledged is there once, in one place; what was refused is not; the rest is there or not.
pub fn check_appends(world: &World, records: &[Record]) {
    let places: BTreeMap<[u8; 16], &Record> = records.iter().map(|record| (record.id, record)).collect();
    let books = locked(&world.books);
    for (events, outcome) in &books.appends {
        let found: Vec<&Record> = events.iter().filter_map(|event| places.get(&event.id).copied()).collect();
        let dense = found.windows(2).all(|two| two[1].position == two[0].position + 1);
        let whole = found.len() == events.len() && dense;
        match outcome {
            Outcome::Acknowledged { position, revision } => {
                let last = found.last().map(|last| (last.position, last.revision));
                if !whole || last != Some((*position, *revision)) {
                    let positions: Vec<u64> = found.iter().map(|found| found.position).collect();
                    world.violated(format!(
                        "I-2: {} events were acknowledged through {position}, in the journal they are at {positions:?}",
                        events.len()
                    ));
                }
            }
            Outcome::Refused if !found.is_empty() => {
                world.violated(format!("I-2: an append was refused and is in the journal at {}", found[0].position));
            }
            Outcome::Unknown if !found.is_empty() && !whole => {
                world.violated(format!("I-2: {} of {} events of an append are there", found.len(), events.len()));
            }
            _ => {}
        }
        for (event, record) in events.iter().zip(&found).filter(|_| whole) {
            let same = record.stream == event.stream
                && record.event_type == event.event_type
                && record.data["amount"] == event.amount;
            if !same {
                world.violated(format!("I-2: the event at {} is not as it was appended", record.position));
            }
        }
    }
}
