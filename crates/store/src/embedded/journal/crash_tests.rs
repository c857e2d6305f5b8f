//! Random histories of appends, faults and losses of power on a simulated disk, each reproducible.
//!
//! The writer is driven without its threads, so that groups and the order of changes are those of the case.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use dacapo_model::{EventId, EventType, JournalId, Metadata, NewEvent, Position, Revision, StreamName};
use proptest::prelude::*;

use super::chunk::Chunk;
use super::log::Log;
use super::open::{self, Believe};
use super::read::Reader;
use super::sequencer::seal;
use super::writer::Writer;
use crate::clock::SystemClock;
use crate::contract::Chance;
use crate::embedded::SimDisk;
use crate::error::{AppendError, StoreError};
use crate::journal::{Append, Filter, Limit, OnKnown, StreamEvent};

#[derive(Clone, Debug)]
enum Step {
    /// Groups of appends of events: (stream, payload bytes).
    Group(Vec<Vec<(u8, u16)>>),
    FailWrite(u16),
    FailSync,
    Fill(u16),
    Free,
    Reopen,
    Close,
    /// The power goes after so many more changes of the disk.
    Power(u8),
    PowerCycle,
}

fn step() -> impl Strategy<Value = Step> {
    let append = prop::collection::vec((0..5_u8, 0..900_u16), 1..5);
    prop_oneof![
        12 => prop::collection::vec(append, 1..5).prop_map(Step::Group),
        1 => (0..3000_u16).prop_map(Step::FailWrite),
        1 => Just(Step::FailSync),
        1 => (0..4000_u16).prop_map(Step::Fill),
        2 => Just(Step::Free),
        1 => Just(Step::Reopen),
        1 => Just(Step::Close),
        2 => (0..12_u8).prop_map(Step::Power),
        2 => Just(Step::PowerCycle),
    ]
}

/// What must be in the journal.
#[derive(Default)]
struct Truth {
    /// Acknowledged, or found after opening and so made durable.
    events: Vec<StreamEvent>,
    /// Groups that failed since: of one of them the first few appends may be there.
    maybe: Vec<Vec<Append>>,
    next_id: u64,
}

/// A journal without threads.
struct Open {
    log: Arc<Log>,
    writer: Writer,
    sealed: Receiver<Arc<Chunk>>,
}

fn dir() -> PathBuf {
    Path::new("/dir/journal").to_owned()
}

fn open_journal(disk: &SimDisk, chunk_bytes: u64) -> Result<Open, StoreError> {
    let (found, start) = open::open(disk, &dir(), JournalId::from_bytes([7; 16]), Believe::Evidence)?;
    let log = Arc::new(Log::new(Arc::new(disk.clone()), dir(), found, 2_000));
    let (sender, sealed) = sync_channel(100);
    let writer = Writer::new(Arc::clone(&log), Arc::new(SystemClock), chunk_bytes, start, sender);
    Ok(Open { log, writer, sealed })
}

impl Truth {
    fn append(&mut self, events: &[(u8, u16)]) -> Append {
        let events = events.iter().map(|(stream, bytes)| {
            self.next_id += 1;
            let event = NewEvent {
                id: EventId::from_bytes(u128::from(self.next_id).to_be_bytes()),
                event_type: EventType::new("happened").unwrap(),
                payload: vec![self.next_id as u8; (*bytes).into()],
                metadata: Metadata::default(),
                tags: vec![],
            };
            StreamEvent { stream: StreamName::new(format!("s-{stream}")).unwrap(), event }
        });
        Append { events: events.collect(), expected: vec![], on_known: OnKnown::Recognise }
    }

    fn group(&mut self, journal: &mut Open, group: &[Vec<(u8, u16)>]) {
        let appends: Vec<_> = group.iter().map(|append| self.append(append)).collect();
        let answers = journal.writer.commit(&appends);
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        assert!(failed == 0 || failed == answers.len(), "a group fails as a whole");
        if failed > 0 {
            let unavailable = |answer| matches!(answer, Err(AppendError::Store(StoreError::Unavailable { .. })));
            assert!(answers.into_iter().all(unavailable));
            self.maybe.push(appends);
        } else {
            // What failed before was cut off for good before this could be written.
            self.maybe.clear();
            for (append, answer) in appends.into_iter().zip(answers) {
                self.events.extend(append.events);
                assert_eq!(answer.unwrap().position.get(), self.events.len() as u64);
            }
        }
        for chunk in journal.sealed.try_iter() {
            seal(&journal.log, &chunk);
        }
        assert_eq!(journal.log.head().get(), self.events.len() as u64);
    }

    /// Everything acknowledged is there, and of what failed only whole appends of one group.
    fn check(&mut self, log: &Arc<Log>) {
        let reader = Reader::new(Arc::clone(log));
        let (mut found, mut after) = (Vec::new(), Position::START);
        while after < log.head() {
            let batch = reader.read(after, &Filter::everything(), Limit::events(7)).unwrap();
            for event in batch.iter() {
                assert_eq!(event.position.get(), found.len() as u64 + 1); // I-1
                found.push((event.stream.to_owned(), event.id, event.payload.to_vec()));
            }
            after = batch.through;
        }
        let known = |event: &StreamEvent| (event.stream.to_string(), event.event.id, event.event.payload.clone());
        let expected: Vec<_> = self.events.iter().map(known).collect();
        assert!(found.len() >= expected.len(), "{} of {} acknowledged events", found.len(), expected.len()); // I-2
        assert_eq!(found[..expected.len()], expected);
        let more = &found[expected.len()..];
        if !more.is_empty() {
            let begins_with_more = |group: &Vec<Append>| {
                (1..=group.len()).find_map(|appends| {
                    let events: Vec<_> = group[..appends].iter().flat_map(|append| append.events.clone()).collect();
                    (events.iter().map(known).collect::<Vec<_>>() == more).then_some(events)
                })
            };
            let events = self.maybe.iter().find_map(begins_with_more);
            self.events.extend(events.expect("what is there beside is the beginning of one group, in whole appends"));
        }
        self.maybe.clear();
        self.check_streams(log, &reader);
    }

    fn check_streams(&self, log: &Log, reader: &Reader) {
        for stream in (0..5).map(|stream| StreamName::new(format!("s-{stream}")).unwrap()) {
            let expected: Vec<_> = self.events.iter().filter(|event| event.stream == stream).collect();
            assert_eq!(log.revision(&stream).unwrap(), Revision::new(expected.len() as u64));
            let batch = reader.read_stream(&stream, Revision::START, Limit::events(10_000)).unwrap();
            assert!(batch.iter().map(|event| event.id).eq(expected.iter().map(|event| event.event.id)));
        }
    }
}

fn open_after_power_cycles(disk: &SimDisk, chunk_bytes: u64, chance: &mut Chance) -> Open {
    loop {
        match open_journal(disk, chunk_bytes) {
            Ok(journal) => return journal,
            Err(StoreError::Unavailable { .. }) => {
                disk.power_cycle(chance);
                disk.set_room(None);
            }
            Err(error) => panic!("losing power damages nothing: {error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    // I-1, I-2
    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_is_torn(
        steps in prop::collection::vec(step(), 1..40), chunk_bytes in 200..6_000_u64, seed in any::<u64>(),
    ) {
        let (disk, mut chance, mut truth) = (SimDisk::default(), Chance::new(seed), Truth::default());
        disk.write_back(chance.clone());
        let mut journal = open_after_power_cycles(&disk, chunk_bytes, &mut chance);
        for step in &steps {
            match step {
                Step::Group(group) => truth.group(&mut journal, group),
                Step::FailWrite(after) => disk.fail_next_write_after((*after).into()),
                Step::FailSync => disk.fail_next_sync(),
                Step::Fill(room) => disk.set_room(Some((*room).into())),
                Step::Free => disk.set_room(None),
                Step::Power(changes) => disk.power_for(Some((*changes).into())),
                Step::Reopen | Step::Close | Step::PowerCycle => {
                    if matches!(step, Step::Close) {
                        journal.writer.close();
                    }
                    drop(journal);
                    if matches!(step, Step::PowerCycle) {
                        disk.power_cycle(&mut chance);
                    }
                    journal = open_after_power_cycles(&disk, chunk_bytes, &mut chance);
                    disk.power_for(None);
                    truth.check(&journal.log);
                }
            }
        }
        drop(journal);
        disk.power_cycle(&mut chance);
        disk.set_room(None);
        let journal = open_after_power_cycles(&disk, chunk_bytes, &mut chance);
        truth.check(&journal.log);
    }
}
