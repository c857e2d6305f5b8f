//! How far the journal was acknowledged is noted in a file of its own. What is done when that file cannot be written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::Position;
use dacapo_store::contract::Chance;
use dacapo_store::embedded::{DataDir, EmbeddedJournal, JournalOptions, Refuses, SimDisk};
use dacapo_store::{Health, Journal, StoreError};

use super::{append, becomes_well, count, open, unavailable};

/// A write fails before the first note, within it, between the two, within the second, and once all of it is written.
const TORN: [usize; 6] = [0, 40, 80, 4_096, 4_130, 4_176];

fn notes(dir: &Path) -> PathBuf {
    dir.join("journal/commit")
}

/// As when a process is killed: what it wrote is there, and it did not close the journal.
async fn killed(dir: &Path, disk: &SimDisk, journal: EmbeddedJournal) -> Result<EmbeddedJournal, StoreError> {
    let (mut chunk, mut kept) = (vec![], vec![]);
    let paths = [dir.join("journal/chunk-00000000000000000001.log"), notes(dir)];
    disk.tamper(&paths[0], |bytes| chunk.clone_from(bytes));
    disk.tamper(&paths[1], |bytes| kept.clone_from(bytes));
    journal.close().await;
    drop(journal);
    disk.refuse_nothing();
    disk.tamper(&paths[0], |bytes| *bytes = chunk);
    disk.tamper(&paths[1], |bytes| *bytes = kept);
    open(dir, disk, 1 << 20)
}

/// What was acknowledged is known apart from the records, always: while that cannot be noted, nothing is acknowledged. What
/// was written by then is found by anyone who tries again.
#[tokio::test]
async fn nothing_is_acknowledged_that_cannot_be_noted() {
    for torn in TORN {
        let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
        let journal = open(dir.path(), &disk, 1 << 20).unwrap();
        journal.append(append(1)).await.unwrap();
        disk.refuse(&notes(dir.path()), Refuses::WritesAfter(torn), -1);
        for tried in [2, 2, 3] {
            let error = unavailable(journal.append(append(tried)).await);
            assert!(error.contains("commit") && error.contains("note the durable end"), "{error}");
            let Health::Failing(found) = journal.health() else { panic!("appends fail") };
            assert!(found.contains("commit"), "{found}");
            assert_eq!((count(&journal).await, *journal.head().borrow()), (1, Position::new(1)));
        }
        disk.refuse_nothing();
        becomes_well(&journal).await;
        let again = journal.append(append(2)).await.unwrap();
        assert_eq!((again.position.get(), again.written), (2, 0), "it was written, and is recognised");
        assert_eq!(journal.append(append(3)).await.unwrap().position.get(), 3);
        let journal = killed(dir.path(), &disk, journal).await.unwrap();
        assert_eq!(count(&journal).await, 3);
    }
}

/// A process that ends while nothing can be noted leaves a journal that opens. The group that could not be noted is there:
/// anyone who tries it again is told so.
#[tokio::test]
async fn a_process_may_end_while_nothing_can_be_noted() {
    for torn in TORN {
        for is_killed in [true, false] {
            let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
            let journal = open(dir.path(), &disk, 1 << 20).unwrap();
            journal.append(append(1)).await.unwrap();
            disk.refuse(&notes(dir.path()), Refuses::WritesAfter(torn), -1);
            unavailable(journal.append(append(2)).await);
            let journal = if is_killed {
                killed(dir.path(), &disk, journal).await
            } else {
                journal.close().await;
                disk.refuse_nothing();
                open(dir.path(), &disk, 1 << 20)
            };
            let journal = journal.unwrap();
            for (number, written) in [(1, 0), (2, 0), (3, 1)] {
                let appended = journal.append(append(number)).await.unwrap();
                assert_eq!((appended.position.get(), appended.written), (number, written), "torn after {torn}");
            }
        }
    }
}

#[tokio::test]
async fn a_note_that_fails_once_is_written_again_at_once() {
    for torn in TORN {
        let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
        let journal = open(dir.path(), &disk, 1 << 20).unwrap();
        journal.append(append(1)).await.unwrap();
        disk.refuse(&notes(dir.path()), Refuses::WritesAfter(torn), 1);
        assert_eq!(journal.append(append(2)).await.unwrap().position.get(), 2);
        assert_eq!(journal.health(), Health::Well);
        disk.power_cycle(&mut Chance::new(1));
        drop(journal);
        assert_eq!(count(&open(dir.path(), &disk, 1 << 20).unwrap()).await, 2);
    }
}

/// The system may show what a failed flush has lost, so the notes are written again before anything is acknowledged.
#[tokio::test]
async fn after_a_failed_flush_of_notes_nothing_is_acknowledged_until_they_last() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
    let options = JournalOptions {
        disk: Arc::new(disk.clone()),
        commits_flushed_every: Duration::from_millis(1),
        ..JournalOptions::default()
    };
    let journal = EmbeddedJournal::open(&DataDir::open(dir.path()).unwrap(), options).unwrap();
    journal.append(append(1)).await.unwrap();
    disk.refuse(&notes(dir.path()), Refuses::Flushes, -1);
    // Until the flush has failed, which another thread does a moment later, appends are acknowledged.
    let mut next = 2;
    while journal.append(append(next)).await.is_ok() {
        next += 1;
        assert!(next < 100_000, "it goes on acknowledging");
    }
    let error = unavailable(journal.append(append(next)).await);
    assert!(error.contains("commit"), "{error}");
    assert!(matches!(journal.health(), Health::Failing(_)));
    disk.refuse_nothing();
    becomes_well(&journal).await;
    assert_eq!(journal.append(append(next)).await.unwrap().position.get(), next);
    drop(journal);
    disk.power_cycle(&mut Chance::new(1));
    assert_eq!(count(&open(dir.path(), &disk, 1 << 20).unwrap()).await, next);
}

#[tokio::test]
async fn losing_power_at_any_step_of_writing_notes_anew_loses_nothing() {
    for torn in TORN {
        for (which, changes) in
            [1, 0b11, 0b1001].into_iter().flat_map(|which| (1..14).map(move |changes| (which, changes)))
        {
            for seed in 0..2 {
                let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
                disk.write_back(Chance::new(seed));
                let journal = open(dir.path(), &disk, 1 << 20).unwrap();
                journal.append(append(1)).await.unwrap();
                disk.refuse(&notes(dir.path()), Refuses::WritesAfter(torn), which);
                disk.power_for(Some(changes));
                let (mut acknowledged, mut tries) = (1, 0);
                while acknowledged < 4 && tries < 10 {
                    tries += 1;
                    acknowledged += u64::from(journal.append(append(acknowledged + 1)).await.is_ok());
                }
                drop(journal);
                disk.power_cycle(&mut Chance::new(seed));
                disk.refuse_nothing();
                let case = format!("torn after {torn}, {which:b} refused, power for {changes}, seed {seed}");
                let journal = open(dir.path(), &disk, 1 << 20).unwrap_or_else(|error| panic!("{case}: {error}"));
                let found = count(&journal).await;
                assert!(found == acknowledged || found == acknowledged + 1, "{case}: {found} of {acknowledged}");
                for number in 1..6 {
                    assert_eq!(journal.append(append(number)).await.unwrap().position.get(), number, "{case}");
                }
            }
        }
    }
}
