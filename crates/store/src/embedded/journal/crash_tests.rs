//! Random histories of appends, faults and losses of power on a simulated disk, each reproducible.
//!
//! The writer is driven without its threads, so that groups and the order of changes are those of the case.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use dacapo_model::{EventId, EventType, JournalId, Metadata, NewEvent, Position, Revision, StreamName};
use proptest::prelude::*;

use super::chunk::{Chunk, Index};
use super::log::Log;
use super::open::{self, Believe};
use super::read::Reader;
use super::sequencer::seal;
use super::writer::Writer;
use crate::clock::SystemClock;
use crate::contract::Chance;
use crate::embedded::{Refuses, SimDisk};
use crate::error::{AppendError, StoreError};
use crate::journal::{Append, Appended, Filter, Health, Limit, OnKnown, StreamEvent};

#[derive(Clone, Debug)]
enum Step {
    /// Groups of appends of events: (stream, payload bytes).
    Group(Vec<Vec<(u8, u16)>>),
    /// The group that failed last once more, with the same ids.
    Retry,
    /// The same as a group; then the process is killed, and so many bytes of the end of the chunk are lost.
    GroupAndLoss(Vec<Vec<(u8, u16)>>, u16),
    FailWrite(u16),
    FailSync,
    /// Writes of notes fail after so many bytes, or flushes of them do: those of the next whose bit is set, or all.
    FailNotes(Option<u16>, i8),
    TakeNotes,
    /// What another thread does now and then.
    FlushNotes,
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
    let group = prop::collection::vec(append, 1..5);
    // In the first slot, between the two, in the second one, and after both.
    let torn = prop_oneof![Just(0), 1..80_u16, Just(80), 4_097..4_176_u16, Just(4_176)];
    let which = prop_oneof![2 => Just(1), 2 => any::<i8>(), 1 => Just(-1)];
    prop_oneof![
        12 => group.clone().prop_map(Step::Group),
        2 => Just(Step::Retry),
        1 => (group, any::<u16>()).prop_map(|(group, lost)| Step::GroupAndLoss(group, lost)),
        1 => (0..3000_u16).prop_map(Step::FailWrite),
        1 => Just(Step::FailSync),
        3 => (prop::option::weighted(0.7, torn), which).prop_map(|(torn, which)| Step::FailNotes(torn, which)),
        2 => Just(Step::TakeNotes),
        2 => Just(Step::FlushNotes),
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
    /// The group that failed last.
    failed: Vec<Append>,
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

    fn appends(&mut self, group: &[Vec<(u8, u16)>]) -> Vec<Append> {
        group.iter().map(|append| self.append(append)).collect()
    }

    /// Returns true if the group was acknowledged.
    fn group(&mut self, journal: &mut Open, appends: Vec<Append>) -> bool {
        let answers = journal.writer.commit(&appends);
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        assert!(failed == 0 || failed == answers.len(), "a group fails as a whole");
        assert_eq!(journal.log.health() == Health::Well, failed == 0, "health is what appends are told");
        let written = answers.iter().flatten().map(|answer| answer.written).sum();
        self.see_what_was_noted(&journal.log, written);
        if failed > 0 {
            let unavailable = |answer| matches!(answer, Err(AppendError::Store(StoreError::Unavailable { .. })));
            assert!(answers.into_iter().all(unavailable));
            let new: Vec<_> = appends.iter().filter(|append| self.place(append).is_none()).cloned().collect();
            self.maybe.push(new);
            self.failed = appends;
        } else {
            // What failed before was cut off permanently before this could be written.
            self.maybe.clear();
            for (append, answer) in appends.into_iter().zip(answers) {
                self.answered(append, &answer.unwrap());
            }
        }
        for chunk in journal.sealed.try_iter() {
            seal(&journal.log, &chunk);
        }
        assert_eq!(journal.log.head().get(), self.events.len() as u64);
        failed == 0
    }

    fn answered(&mut self, append: Append, answer: &Appended) {
        let (known, events) = (self.place(&append), append.events.len());
        if known.is_none() {
            self.events.extend(append.events);
        }
        assert_eq!(answer.position.get(), known.unwrap_or(self.events.len() as u64));
        assert_eq!(answer.written, if known.is_none() { events } else { 0 });
    }

    /// Returns the position of the last event of an append, if its events are there.
    fn place(&self, append: &Append) -> Option<u64> {
        let last = append.events.last()?.event.id;
        self.events.iter().position(|event| event.event.id == last).map(|at| at as u64 + 1)
    }

    /// A group that could not be noted, and so failed, is there once it can be, before the events that were written after
    /// it. The power may be gone meanwhile, so nothing is read.
    fn see_what_was_noted(&mut self, log: &Log, written: usize) {
        let end = log.head().get() - written as u64;
        if end > self.events.len() as u64 {
            let ends_there = |group: &Vec<StreamEvent>| {
                let last = group.last().map(|event| event.event.id);
                self.events.len() + group.len() == end as usize && last.and_then(|id| position(log, id)) == Some(end)
            };
            let group = self.maybe.drain(..).map(|group| events_of(&group)).find(ends_there);
            self.events.extend(group.expect("what is there beside is one group that failed"));
        }
    }

    /// Everything acknowledged is there, and of what failed only whole appends of one group.
    fn check(&mut self, log: &Arc<Log>) {
        let (found, expected) = (read(log), known(&self.events));
        assert!(found.len() >= expected.len(), "{} of {} acknowledged events", found.len(), expected.len()); // I-2
        assert_eq!(found[..expected.len()], expected);
        let more = &found[expected.len()..];
        if !more.is_empty() {
            let begins_with_more = |group: &Vec<Append>| {
                (1..=group.len()).map(|appends| events_of(&group[..appends])).find(|events| known(events) == more)
            };
            let events = self.maybe.iter().find_map(begins_with_more);
            self.events.extend(events.expect("what is there beside is the beginning of one group, in whole appends"));
        }
        self.maybe.clear();
        self.check_streams(log, &Reader::new(Arc::clone(log)));
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

type Known = (String, EventId, Vec<u8>);

fn known(events: &[StreamEvent]) -> Vec<Known> {
    events.iter().map(|event| (event.stream.to_string(), event.event.id, event.event.payload.clone())).collect()
}

fn events_of(group: &[Append]) -> Vec<StreamEvent> {
    group.iter().flat_map(|append| append.events.clone()).collect()
}

/// Where an event is of which the index is in memory.
fn position(log: &Log, id: EventId) -> Option<u64> {
    log.chunks().iter().find_map(|chunk| match &*chunk.index() {
        Index::Memory(index) => Some(index.position_of(chunk.first, index.id(id)?)?.get()),
        Index::File(_) => None,
    })
}

/// What readers find.
fn read(log: &Arc<Log>) -> Vec<Known> {
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
    found
}

fn fail_notes(disk: &SimDisk, torn: Option<u16>, which: i8) {
    let refuses = torn.map_or(Refuses::Flushes, |bytes| Refuses::WritesAfter(bytes.into()));
    disk.refuse(&dir().join("commit"), refuses, which.into());
}

/// Whatever part of the group that was acknowledged last is lost, it is told, and nothing is taken for torn.
fn lose_the_end(disk: &SimDisk, journal: Open, chunk_bytes: u64, lost: u16) {
    let chunks = journal.log.chunks();
    let newest = chunks.last().unwrap();
    let last = match &*newest.index() {
        Index::Memory(index) => *index.offsets().last().unwrap(),
        Index::File(_) => unreachable!("the chunk that is written to has its index in memory"),
    };
    let path = journal.log.log_path(newest.first);
    drop((journal, chunks));
    disk.power_for(None);
    let mut whole = Vec::new();
    disk.tamper(&path, |bytes| {
        whole.clone_from(bytes);
        let of_last = bytes.len() - last as usize;
        bytes.truncate(bytes.len() - 1 - usize::from(lost) % of_last);
    });
    let opened = open_journal(disk, chunk_bytes).err();
    assert!(matches!(opened, Some(StoreError::Corrupt { .. })), "what was acknowledged is missing: {opened:?}");
    disk.tamper(&path, |bytes| *bytes = whole);
}

fn open_after_power_cycles(disk: &SimDisk, chunk_bytes: u64, chance: &mut Chance) -> Open {
    loop {
        match open_journal(disk, chunk_bytes) {
            Ok(journal) => return journal,
            Err(StoreError::Unavailable { .. }) => {
                disk.power_cycle(chance);
                disk.set_room(None);
                disk.refuse_nothing();
            }
            Err(error) => panic!("losing power damages nothing: {error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]

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
                Step::Group(group) => {
                    let appends = truth.appends(group);
                    truth.group(&mut journal, appends);
                }
                Step::Retry if truth.failed.is_empty() => {}
                Step::Retry => {
                    let appends = truth.failed.clone();
                    truth.group(&mut journal, appends);
                }
                Step::FailWrite(after) => disk.fail_next_write_after((*after).into()),
                Step::FailSync => disk.fail_next_sync(),
                Step::FailNotes(torn, which) => fail_notes(&disk, *torn, *which),
                Step::TakeNotes => disk.refuse_nothing(),
                Step::FlushNotes => journal.log.flush_commits(),
                Step::Fill(room) => disk.set_room(Some((*room).into())),
                Step::Free => disk.set_room(None),
                Step::Power(changes) => disk.power_for(Some((*changes).into())),
                Step::GroupAndLoss(group, lost) => {
                    let appends = truth.appends(group);
                    if truth.group(&mut journal, appends) {
                        lose_the_end(&disk, journal, chunk_bytes, *lost);
                        journal = open_after_power_cycles(&disk, chunk_bytes, &mut chance);
                        truth.check(&journal.log);
                    }
                }
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

fn one_group() -> (SimDisk, Open, Truth) {
    let (disk, mut truth) = (SimDisk::default(), Truth::default());
    let mut journal = open_journal(&disk, 6_000).unwrap();
    let appends = truth.appends(&[vec![(1, 100)]]);
    assert!(truth.group(&mut journal, appends));
    (disk, journal, truth)
}

/// Nobody appends meanwhile, and nobody asks how the journal is.
#[test]
fn notes_whose_flush_failed_are_written_anew_with_the_next_flush() {
    let (disk, journal, _) = one_group();
    fail_notes(&disk, None, 0b11);
    for is_well in [false, false, true] {
        journal.log.flush_commits();
        assert_eq!(journal.log.health() == Health::Well, is_well);
    }
    disk.power_cycle(&mut Chance::new(1));
    lose_the_end(&disk, journal, 6_000, 0);
}

/// The directory may have another owner by then, who writes to the same file.
#[test]
fn a_journal_that_was_closed_writes_no_note() {
    let (disk, mut journal, _) = one_group();
    fail_notes(&disk, None, -1);
    journal.log.flush_commits();
    journal.writer.close();
    disk.refuse_nothing();
    let mut before = Vec::new();
    disk.tamper(&dir().join("commit"), |bytes| before.clone_from(bytes));
    journal.log.flush_commits();
    disk.tamper(&dir().join("commit"), |bytes| assert_eq!(*bytes, before));
}
