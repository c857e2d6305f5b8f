//! The events that are read: a journal of them, and the same payloads in memory.

use std::path::PathBuf;
use std::sync::Arc;

use dacapo::journal::{Append, EventType, Filter, Limit, NewEvent, OnKnown, StreamEvent, StreamName};
use dacapo::store::{Journal, Store};
use dacapo::world::{Ids, SystemClock, SystemIds};
use dacapo::{Event, Metadata, Position, limits};
use dacapo_example_bank::AccountEvent;
use tempfile::TempDir;

use crate::bench::{Bench, Done};
use crate::say;

/// What a payload has, in bytes.
const PAYLOAD_BYTES: usize = 200;
/// Events in one append while a journal is filled.
const FILL_EVENTS: usize = 5_000;

/// Makes events of accounts, always the same ones for the same seed.
pub(crate) struct Maker {
    random: fastrand::Rng,
    accounts: usize,
    /// Every so many events one is of the first account, which is not drawn otherwise.
    scatter: Option<usize>,
    made: usize,
}

impl Maker {
    pub(crate) fn new(seed: u64, accounts: usize) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), accounts, scatter: None, made: 0 }
    }

    pub(crate) fn scattering(self, every: usize) -> Self {
        Self { scatter: Some(every), ..self }
    }

    /// The next event, with a fresh id.
    pub(crate) fn event(&mut self) -> Done<StreamEvent> {
        self.made += 1;
        let account = match self.scatter {
            Some(every) if self.made.is_multiple_of(every) => 1,
            _ => self.random.usize(2..=self.accounts.max(2)),
        };
        let amount = self.random.i64(1..1_000_000);
        let data = if self.made.is_multiple_of(3) {
            AccountEvent::Withdrawn { amount, note: note(amount) }
        } else {
            AccountEvent::Deposited { amount, note: note(amount) }
        };
        let event = NewEvent {
            id: SystemIds.next(),
            event_type: EventType::new(data.event_type())?,
            payload: data.encode()?,
            metadata: Metadata::default(),
            tags: vec![],
        };
        Ok(StreamEvent { stream: account_name(account)?, event })
    }
}

pub(crate) fn account_name(account: usize) -> Done<StreamName> {
    Ok(StreamName::new(format!("account-{account}"))?)
}

/// A text that brings a payload to its size.
fn note(amount: i64) -> String {
    let frame = r#"{"amount":,"note":""}"#.len() + amount.to_string().len();
    let mut text = format!("standing order no. {amount:012}, monthly, reference 7F3A-{amount:08X}; ");
    while text.len() + frame < PAYLOAD_BYTES {
        text.push_str("as agreed ");
    }
    text.truncate(PAYLOAD_BYTES - frame);
    text
}

/// A filled journal, and its events in memory for the floors.
pub(crate) struct Ledger {
    _place: TempDir,
    pub(crate) data: PathBuf,
    pub(crate) store: Store,
    pub(crate) memory: Memory,
}

/// Events as a program would have them that reads no journal.
#[derive(Default)]
pub(crate) struct Memory {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

struct Place {
    deposited: bool,
    stream: std::ops::Range<u32>,
    payload: std::ops::Range<u32>,
}

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) deposited: bool,
    pub(crate) stream: &'a str,
    pub(crate) payload: &'a [u8],
}

impl Memory {
    fn push(&mut self, event_type: &str, stream: &str, payload: &[u8]) -> Done {
        let mut put = |bytes: &[u8]| -> Done<std::ops::Range<u32>> {
            let start = u32::try_from(self.bytes.len())?;
            self.bytes.extend_from_slice(bytes);
            Ok(start..u32::try_from(self.bytes.len())?)
        };
        let (stream, payload) = (put(stream.as_bytes())?, put(payload)?);
        self.places.push(Place { deposited: event_type == "deposited", stream, payload });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let part = |range: &std::ops::Range<u32>| &self.bytes[range.start as usize..range.end as usize];
        self.places.iter().map(move |place| Entry {
            deposited: place.deposited,
            stream: std::str::from_utf8(part(&place.stream)).expect("names are text"),
            payload: part(&place.payload),
        })
    }

    /// Those of one stream.
    pub(crate) fn of_stream(&self, stream: &str) -> Done<Self> {
        let mut memory = Self::default();
        for entry in self.iter().filter(|entry| entry.stream == stream) {
            memory.push(if entry.deposited { "deposited" } else { "withdrawn" }, stream, entry.payload)?;
        }
        Ok(memory)
    }
}

impl Ledger {
    pub(crate) async fn fill(bench: &Bench) -> Done<Self> {
        say(&format!("filling a journal with {} events", bench.sizes.events));
        let place = bench.place()?;
        let data = place.path().join("data");
        let store = Store::embedded(&data, Arc::new(SystemClock))?;
        let maker = Maker::new(17, bench.sizes.accounts).scattering(bench.sizes.events / bench.sizes.scattered);
        fill(&store.journal, bench.sizes.events, maker).await?;
        let head = *store.journal.head().borrow();
        let mut memory = Memory::default();
        let mut after = Position::START;
        while after < head {
            let batch = store.journal.read(after, &Filter::everything(), whole_reads()).await?;
            for event in batch.iter() {
                memory.push(event.event_type, event.stream, event.payload)?;
            }
            after = batch.through;
        }
        Ok(Self { _place: place, data, store, memory })
    }

    /// The directory of the journal's files.
    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.data.join("journal")
    }
}

/// As much at once as the journal gives.
pub(crate) fn whole_reads() -> Limit {
    Limit::events(limits::READ_EVENTS_MAX)
}

/// Appends what `maker` makes.
pub(crate) async fn fill(journal: &Arc<dyn Journal>, events: usize, mut maker: Maker) -> Done {
    let mut left = events;
    while left > 0 {
        let batch = left.min(FILL_EVENTS);
        let events = (0..batch).map(|_| maker.event()).collect::<Done<_>>()?;
        journal.append(Append { events, expected: vec![], on_known: OnKnown::Recognise }).await?;
        left -= batch;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_the_size_they_should() {
        let mut maker = Maker::new(1, 1_000).scattering(10);
        let events: Vec<_> = (0..100).map(|_| maker.event().unwrap()).collect();
        assert!(events.iter().all(|event| event.event.payload.len() == PAYLOAD_BYTES));
        assert_eq!(events.iter().filter(|event| event.stream.as_str() == "account-1").count(), 10);
    }
}
