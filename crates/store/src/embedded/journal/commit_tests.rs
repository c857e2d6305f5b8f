//! Notes alone, on a simulated disk on which much more of them fails than of a journal's.

use std::path::Path;

use dacapo_model::{JournalId, Position};
use proptest::prelude::*;

use super::commit::{self, Commit, CommitFile};
use crate::contract::Chance;
use crate::embedded::disk::Disk;
use crate::embedded::{Refuses, SimDisk};

const DIR: &str = "/dir/journal";

#[derive(Clone, Debug)]
enum Step {
    Note,
    Keep,
    Flush,
    /// Writes fail after so many bytes, or flushes do: those of the next few whose bit is set.
    Fail(Option<u16>, u8),
    Heal,
    /// The process ends and reads the file again.
    Restart,
    /// The power goes after so many more changes of the disk.
    Power(u8),
    PowerCycle,
}

fn step() -> impl Strategy<Value = Step> {
    let torn = prop_oneof![Just(0), 1..80_u16, Just(80), 4_097..4_176_u16, Just(4_176)];
    prop_oneof![
        6 => Just(Step::Note),
        3 => Just(Step::Keep),
        3 => Just(Step::Flush),
        5 => (prop::option::weighted(0.7, torn), any::<u8>()).prop_map(|(torn, which)| Step::Fail(torn, which)),
        1 => Just(Step::Heal),
        2 => Just(Step::Restart),
        2 => (0..8_u8).prop_map(Step::Power),
        2 => Just(Step::PowerCycle),
    ]
}

struct Notes {
    disk: SimDisk,
    file: CommitFile,
    /// What was tried last, what was noted last, and what is on the disk for certain.
    tried: u64,
    noted: u64,
    durable: u64,
    /// True if both slots were written since the file was read, which is done before the first note.
    is_settled: bool,
}

fn commit(head: u64) -> Commit {
    let id = JournalId::from_bytes([7; 16]);
    Commit { id, chunk: Position::new(1), end: head * 100, head: Position::new(head), digest: head, closed: false }
}

impl Notes {
    fn begin(chance: &Chance) -> Self {
        let disk = SimDisk::default();
        let file = CommitFile::create(&disk, Path::new(DIR)).unwrap();
        file.keep(&commit(1)).unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        disk.write_back(chance.clone());
        Self { disk, file, tried: 1, noted: 1, durable: 1, is_settled: true }
    }

    fn write(&mut self, write: impl Fn(&CommitFile, &Commit) -> bool, is_durable: bool) {
        self.tried += 1;
        if write(&self.file, &commit(self.tried)) {
            self.noted = self.tried;
            if is_durable {
                (self.durable, self.is_settled) = (self.noted, true);
            }
        }
    }

    /// What is read tells of all that must have lasted, and of no more than was to be noted.
    fn read_again(&mut self, lasted: u64) {
        let kept = CommitFile::read(&self.disk, Path::new(DIR)).unwrap().unwrap();
        assert!(kept.proves(), "one slot is sound");
        let head = kept.commit.unwrap().head.get();
        assert_eq!(kept.commit, Some(commit(head)));
        assert!((lasted..=self.tried).contains(&head), "it tells of {head}, {lasted} must have lasted");
        (self.file, self.noted, self.is_settled) = (kept.file, head, false);
    }

    fn take(&mut self, step: &Step, chance: &mut Chance) {
        match step {
            Step::Note | Step::Flush if !self.is_settled => {}
            Step::Note => self.write(|file, commit| file.note(commit).is_ok(), false),
            Step::Keep => self.write(|file, commit| file.keep(commit).is_ok(), true),
            Step::Flush => {
                self.file.flush();
                if self.file.broken().is_none() {
                    self.durable = self.noted;
                }
            }
            Step::Fail(torn, which) => {
                let refuses = torn.map_or(Refuses::Flushes, |bytes| Refuses::WritesAfter(bytes.into()));
                self.disk.refuse(&commit::path(Path::new(DIR)), refuses, (*which).into());
            }
            Step::Heal => self.disk.refuse_nothing(),
            Step::Power(changes) => self.disk.power_for(Some((*changes).into())),
            Step::Restart => {
                self.disk.power_for(None);
                // A flush that failed may have lost what was noted since the last good one.
                let lasted = if self.file.broken().is_none() { self.noted } else { self.durable };
                self.read_again(lasted);
            }
            Step::PowerCycle => {
                self.disk.power_cycle(chance);
                self.read_again(self.durable);
                self.durable = self.noted;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1_000), ..ProptestConfig::default() })]

    #[test]
    fn one_slot_is_sound_and_tells_of_all_that_was_noted(
        steps in prop::collection::vec(step(), 1..60), seed in any::<u64>(),
    ) {
        let mut chance = Chance::new(seed);
        let mut notes = Notes::begin(&chance);
        for step in &steps {
            notes.take(step, &mut chance);
        }
        notes.take(&Step::PowerCycle, &mut chance);
        notes.disk.refuse_nothing();
        notes.take(&Step::Keep, &mut chance);
        assert_eq!(notes.noted, notes.tried, "it heals by itself");
    }
}

/// A slot that a failed write left torn is written again, and the flush of that fails: it reads well, and is torn on the
/// disk. Then a write of the other one fails.
#[test]
fn a_slot_that_reads_well_is_not_relied_on_after_a_failed_flush() {
    for (seed, which) in (0..100).flat_map(|seed| [(seed, 0b1), (seed, 0b10)]) {
        let mut chance = Chance::new(seed);
        let mut notes = Notes::begin(&chance);
        let failures = [Step::Fail(Some(4_130), 0b11), Step::Fail(None, 0b1), Step::Fail(Some(40), which)];
        for (failure, write) in failures.iter().zip([Step::Note, Step::Keep, Step::Keep]) {
            notes.take(failure, &mut chance);
            notes.take(&write, &mut chance);
            assert!(notes.file.broken().is_some());
        }
        notes.take(&Step::PowerCycle, &mut chance);
    }
}
