//! What the embedded journal does when its disk is full, fails or loses power at an awkward moment.

#[path = "disk_faults/notes.rs"]
mod notes;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use dacapo_model::{EventId, EventType, ExpectedRevision, Metadata, NewEvent, Position, Revision, StreamName};
use dacapo_store::contract::Chance;
use dacapo_store::embedded::{DataDir, Disk, DiskFile, EmbeddedJournal, FileDisk, JournalOptions, SimDisk};
use dacapo_store::{Append, AppendError, Appended, Filter, Health, Journal, Limit, StoreError};

fn append(number: u64) -> Append {
    let event = NewEvent {
        id: EventId::from_bytes(u128::from(number).to_be_bytes()),
        event_type: EventType::new("happened").unwrap(),
        payload: vec![b'x'; 300],
        metadata: Metadata::default(),
        tags: vec![],
    };
    Append::to_stream(StreamName::new("s-1").unwrap(), ExpectedRevision::Any, vec![event])
}

fn open(dir: &Path, disk: &SimDisk, chunk_bytes: u64) -> Result<EmbeddedJournal, StoreError> {
    let options = JournalOptions {
        disk: Arc::new(disk.clone()),
        chunk_bytes,
        commits_flushed_every: Duration::MAX,
        ..JournalOptions::default()
    };
    EmbeddedJournal::open(&DataDir::open(dir).unwrap(), options)
}

fn unavailable(result: Result<Appended, AppendError>) -> String {
    match result {
        Err(AppendError::Store(error @ StoreError::Unavailable { .. })) => error.to_string(),
        other => panic!("the append must fail, but: {other:?}"),
    }
}

/// Waits until the journal says that it works.
async fn becomes_well(journal: &EmbeddedJournal) {
    let well = async {
        while journal.health() != Health::Well {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), well).await.is_err() {
        panic!("it never works again: {:?}", journal.health());
    }
}

async fn count(journal: &EmbeddedJournal) -> u64 {
    let (mut after, mut count) = (Position::START, 0);
    while after < *journal.head().borrow() {
        let batch = journal.read(after, &Filter::default(), Limit::events(100)).await.unwrap();
        count += batch.len() as u64;
        after = batch.through;
    }
    count
}

#[tokio::test]
async fn a_full_disk_refuses_appends_until_there_is_room() {
    // The second chunk size lets the disk be full when the next chunk is begun.
    for chunk_bytes in [1 << 20, 400] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
        let journal = open(dir.path(), &disk, chunk_bytes).unwrap();
        journal.append(append(1)).await.unwrap();
        for room in [0, 7, 20, 100, 383] {
            disk.set_room(Some(room));
            let error = unavailable(journal.append(append(2)).await);
            assert!(error.contains("chunk-") && error.contains("make room"), "{error}");
            assert_eq!(count(&journal).await, 1);
        }
        disk.set_room(None);
        for number in 2..5 {
            assert_eq!(journal.append(append(number)).await.unwrap().position.get(), number);
        }
        drop(journal);
        assert_eq!(count(&open(dir.path(), &disk, chunk_bytes).unwrap()).await, 4);
    }
}

/// Nobody appends to a node that is not ready, so asking how it is has it tried again.
#[tokio::test]
async fn health_follows_appends_and_is_looked_for_again() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
    let journal = open(dir.path(), &disk, 1 << 20).unwrap();
    journal.append(append(1)).await.unwrap();
    assert_eq!(journal.health(), Health::Well);
    disk.set_room(Some(0));
    unavailable(journal.append(append(2)).await);
    // The probes find no room either.
    for _ in 0..3 {
        let Health::Failing(found) = journal.health() else { panic!("appends fail") };
        assert!(found.contains("make room"), "{found}");
        unavailable(journal.append(append(2)).await);
    }
    disk.set_room(None);
    becomes_well(&journal).await;
    assert_eq!(journal.append(append(2)).await.unwrap().position.get(), 2);
    drop(journal);
    assert_eq!(count(&open(dir.path(), &disk, 1 << 20).unwrap()).await, 2);
}

/// Nobody may come to the place again, so asking how it is has it read again.
#[tokio::test]
async fn health_follows_reads_and_is_looked_for_again() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
    let journal = open(dir.path(), &disk, 1 << 20).unwrap();
    journal.append(append(1)).await.unwrap();
    disk.fail_reads(true);
    let read = journal.read(Position::START, &Filter::default(), Limit::events(1)).await;
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    for _ in 0..3 {
        let Health::Failing(found) = journal.health() else { panic!("reads fail") };
        assert!(found.contains("the disk cannot read it") && found.contains("chunk-"), "{found}");
    }
    disk.fail_reads(false);
    becomes_well(&journal).await;
    assert_eq!(count(&journal).await, 1);
}

#[tokio::test]
async fn a_write_that_fails_midway_leaves_nothing() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
    let journal = open(dir.path(), &disk, 1 << 20).unwrap();
    journal.append(append(1)).await.unwrap();
    for after in [0, 10, 200, 384] {
        disk.fail_next_write_after(after);
        unavailable(journal.append(append(2)).await);
        assert_eq!(count(&journal).await, 1);
    }
    assert_eq!(journal.append(append(2)).await.unwrap().written, 1);
    drop(journal);
    assert_eq!(count(&open(dir.path(), &disk, 1 << 20).unwrap()).await, 2);
}

#[tokio::test]
async fn after_a_failed_flush_the_end_is_written_again() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
    let journal = open(dir.path(), &disk, 1 << 20).unwrap();
    journal.append(append(1)).await.unwrap();
    disk.fail_next_sync();
    let error = unavailable(journal.append(append(2)).await);
    assert!(error.contains("is unknown") && error.contains("same ids"), "{error}");
    assert_eq!((count(&journal).await, *journal.head().borrow()), (1, Position::new(1)));
    // It goes on without being opened again, and the same with a flush that fails again.
    disk.fail_next_sync();
    unavailable(journal.append(append(3)).await);
    for number in 2..4 {
        assert_eq!(journal.append(append(number)).await.unwrap().position.get(), number);
    }
    // What is acknowledged now is on the disk, not only where the failed flush left it.
    drop(journal);
    disk.power_cycle(&mut Chance::new(1));
    assert_eq!(count(&open(dir.path(), &disk, 1 << 20).unwrap()).await, 3);
}

/// The directory is moved between the look before the write and the one after the flush.
#[tokio::test]
async fn an_append_that_is_refused_after_it_was_written_is_not_kept() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
    let journal = open(dir.path(), &disk, 1 << 20).unwrap();
    journal.append(append(1)).await.unwrap();
    let size = || {
        let (path, mut size) = (dir.path().join("journal/chunk-00000000000000000001.log"), 0);
        disk.tamper(&path, |bytes| size = bytes.len());
        size
    };
    let before = size();
    for looks in [0, 1, 2, 3] {
        disk.named_for(Some(looks));
        let error = unavailable(journal.append(append(2)).await);
        assert!(error.contains("removed or replaced") && !error.contains("unknown"), "{error}");
        assert_eq!(size(), before, "after {looks} looks");
        assert!(matches!(journal.health(), Health::Failing(_)));
        disk.named_for(None);
        assert_eq!(journal.append(append(1)).await.unwrap().written, 0, "it goes on");
    }
    assert_eq!(journal.append(append(3)).await.unwrap().position.get(), 2);
    drop(journal);
    assert_eq!(count(&open(dir.path(), &disk, 1 << 20).unwrap()).await, 2);
}

#[tokio::test]
async fn losing_power_at_any_step_of_sealing_loses_nothing() {
    for changes in 0..24 {
        for seed in 0..20 {
            let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
            let journal = open(dir.path(), &disk, 400).unwrap();
            journal.append(append(1)).await.unwrap();
            disk.power_for(Some(changes));
            let mut acknowledged = 1;
            while acknowledged < 6 && journal.append(append(acknowledged + 1)).await.is_ok() {
                acknowledged += 1;
            }
            drop(journal);
            disk.power_cycle(&mut Chance::new(seed));
            let journal = open(dir.path(), &disk, 400).unwrap();
            let found = count(&journal).await;
            assert!(found >= acknowledged && found <= acknowledged + 1, "power for {changes}, seed {seed}");
            for number in 1..10 {
                assert_eq!(journal.append(append(number)).await.unwrap().position.get(), number);
            }
        }
    }
}

/// The first event ends where a sector does, so that a part of one write and a part of the next could
/// make an append that never was.
#[tokio::test]
async fn a_failed_write_never_mixes_with_the_next_one() {
    let pair = |number: u64| {
        let mut append = append(number);
        append.events.extend(self::append(number + 1).events);
        append.events[0].event.payload = vec![b'x'; 448 - 64 - 8 - "s-1happened".len()];
        append
    };
    for seed in 0..200 {
        let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
        let journal = open(dir.path(), &disk, 1 << 20).unwrap();
        disk.write_back(Chance::new(seed));
        disk.fail_next_write_after(800);
        unavailable(journal.append(pair(1)).await);
        // The cut and its flush; then the write, and the power goes at its flush.
        disk.power_for(Some(2));
        unavailable(journal.append(pair(11)).await);
        drop(journal);
        disk.power_cycle(&mut Chance::new(seed));
        let journal = open(dir.path(), &disk, 1 << 20).unwrap();
        let batch = journal.read(Position::START, &Filter::default(), Limit::events(9)).await.unwrap();
        let ids: Vec<_> = batch.iter().map(|event| event.id).collect();
        let of = |append: Append| append.events.iter().map(|event| event.event.id).collect::<Vec<_>>();
        assert!([vec![], of(pair(11))].contains(&ids), "seed {seed}: {ids:?}");
    }
}

/// Nothing of the journal needs a runtime.
#[test]
fn it_works_without_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), &SimDisk::default(), 1_000).unwrap();
    futures::executor::block_on(async {
        for number in 1..20 {
            journal.append(append(number)).await.unwrap();
        }
        assert_eq!(count(&journal).await, 19);
        let stream = StreamName::new("s-1").unwrap();
        assert_eq!(journal.read_stream(&stream, Revision::START, Limit::events(100)).await.unwrap().len(), 19);
        assert_eq!(journal.streams(None, None, 10).await.unwrap().len(), 1);
        journal.close().await;
    });
}

/// A disk of the system on which the next read waits until another task of the runtime has had its turn often enough.
#[derive(Clone, Default)]
struct SlowDisk {
    beats: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

struct SlowFile {
    file: Arc<dyn DiskFile>,
    disk: SlowDisk,
}

const BEATS: usize = 100;

impl SlowDisk {
    fn slow(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SlowFile { file, disk: self.clone() })
    }
}

impl Disk for SlowDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        FileDisk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        FileDisk.list(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        FileDisk.open(path).map(|file| self.slow(file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        FileDisk.create(path).map(|file| self.slow(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FileDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileDisk.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        FileDisk.sync_dir(path)
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(beats) = self.disk.beats.lock().unwrap().take() {
            for _ in 0..BEATS {
                let beat = beats.recv_timeout(Duration::from_secs(20));
                beat.map_err(|_| io::Error::other("the runtime stands still while the disk is waited for"))?;
            }
        }
        self.file.read_at(offset, len, out)
    }

    fn read_now(&self, _: u64, _: usize, _: &mut Vec<u8>) -> io::Result<bool> {
        Ok(false)
    }

    fn will_need(&self, offset: u64, len: usize) {
        self.file.will_need(offset, len);
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_disk_that_is_slow_holds_up_no_worker() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SlowDisk::default());
    let options = JournalOptions { disk: Arc::new(disk.clone()), ..JournalOptions::default() };
    let journal = EmbeddedJournal::open(&DataDir::open(dir.path()).unwrap(), options).unwrap();
    for number in 1..=100 {
        journal.append(append(number)).await.unwrap();
    }
    let (beat, beats) = mpsc::channel();
    *disk.beats.lock().unwrap() = Some(beats);
    let heart = tokio::spawn(async move {
        while beat.send(()).is_ok() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(count(&journal).await, 100);
    heart.await.unwrap();
    assert_eq!(journal.stream_revision(&StreamName::new("s-1").unwrap()).await.unwrap(), Revision::new(100));
}
