//! What the tests of several nodes share.

use std::collections::{HashMap, HashSet};

use dacapo_model::{EventId, EventType, ExpectedRevision, Metadata, NewEvent, StreamName};
use dacapo_postgres::{Database, Options, PostgresJournal};
use dacapo_store::contract::journal::{Recorded, everything};
use dacapo_store::{Append, Appended, Journal};

/// A node's journal in the database at `url`, on the database's clock.
pub async fn node(url: &str, seed: u64) -> PostgresJournal {
    let database = Database::connect(url, Options { seed, ..Options::default() }).await.unwrap();
    PostgresJournal::open(&database, None).await.unwrap()
}

pub fn name(stream: &str) -> StreamName {
    StreamName::new(stream).unwrap()
}

/// An event whose id follows from `number`.
pub fn event(number: u64) -> NewEvent {
    NewEvent {
        id: EventId::from_bytes(u128::from(number).to_be_bytes()),
        event_type: EventType::new("happened").unwrap(),
        payload: format!("{{\"number\":{number}}}").into_bytes(),
        metadata: Metadata::default(),
        tags: vec![],
    }
}

pub fn append(stream: &str, expected: ExpectedRevision, numbers: impl IntoIterator<Item = u64>) -> Append {
    Append::to_stream(name(stream), expected, numbers.into_iter().map(event).collect())
}

/// What a node was told about the event with this number.
pub type Told = Vec<(u64, Appended)>;

// I-1, I-2
/// Holds the journal against what was told: positions are dense, the events of each stream are numbered without a
/// hole, times never decrease, every id is there once, and everything that was acknowledged is where it was said to be.
pub async fn check(journal: &dyn Journal, told: &Told) -> Vec<Recorded> {
    // What another node was told may be on its way to this one.
    let last = told.iter().map(|(_, appended)| appended.position).max().unwrap_or_default();
    journal.head().wait_for(|head| *head >= last).await.unwrap();
    let all = everything(journal).await;
    let mut revisions: HashMap<&str, u64> = HashMap::new();
    let mut ids = HashSet::new();
    for event in &all {
        let revision = revisions.entry(&event.stream).or_default();
        *revision += 1;
        assert_eq!(event.revision, *revision, "the events of {} are numbered without a hole", event.stream);
        assert!(ids.insert(event.event.id), "the event {} is there once", event.event.id);
    }
    assert!(all.is_sorted_by_key(|event| event.recorded), "times never decrease");
    for (number, appended) in told {
        let there = &all[appended.position.get() as usize - 1];
        let id = EventId::from_bytes(u128::from(*number).to_be_bytes());
        assert_eq!((there.event.id, there.revision), (id, appended.revision.get()), "what was told about {number}");
    }
    all
}
