//! A journal of several chunks, and what tests do to its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dacapo_model::{EventId, EventType, ExpectedRevision, Metadata, NewEvent, Position, Revision, StreamName};
use dacapo_store::embedded::{DataDir, EmbeddedJournal, JournalOptions};
use dacapo_store::{Append, Filter, Journal, Limit, StoreError};

pub(super) const EVENTS: u64 = 60;
pub(super) const RECORD_BYTES: usize = 384;

pub(super) fn event(number: u64) -> NewEvent {
    NewEvent {
        id: EventId::from_bytes(u128::from(number).to_be_bytes()),
        event_type: EventType::new("happened").unwrap(),
        payload: vec![b'x'; 300],
        metadata: Metadata::default(),
        tags: vec![],
    }
}

pub(super) fn stream(number: u64) -> StreamName {
    StreamName::new(format!("s-{}", number % 3)).unwrap()
}

pub(super) fn append(number: u64) -> Append {
    Append::to_stream(stream(number), ExpectedRevision::Any, vec![event(number)])
}

pub(super) fn open(dir: &Path) -> Result<EmbeddedJournal, StoreError> {
    let options = JournalOptions { chunk_bytes: 4_000, ..JournalOptions::default() };
    EmbeddedJournal::open(&DataDir::open(dir).unwrap(), options)
}

/// A journal of several sealed chunks and one that is written to.
pub(super) async fn filled() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    for number in 1..=EVENTS {
        journal.append(append(number)).await.unwrap();
    }
    journal.close().await;
    drop(journal);
    let mut logs: Vec<_> =
        std::fs::read_dir(dir.path().join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    assert!(logs.len() > 4);
    (dir, logs)
}

/// The same, as a process leaves it that is killed: copied while it is open.
pub(super) async fn killed() -> (tempfile::TempDir, Vec<PathBuf>) {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = open(dir.path()).unwrap();
    for number in 1..=EVENTS {
        journal.append(append(number)).await.unwrap();
    }
    std::fs::create_dir(copy.path().join("journal")).unwrap();
    std::fs::copy(dir.path().join("format"), copy.path().join("format")).unwrap();
    // Of a sealed chunk the index may not be there yet; it is made again.
    for (name, bytes) in files(dir.path()).into_iter().filter(|(name, _)| !name.ends_with(".tmp")) {
        std::fs::write(copy.path().join("journal").join(name), bytes).unwrap();
    }
    drop(journal);
    let logs = files(copy.path()).into_keys().filter(|name| name.ends_with(".log"));
    let logs = logs.map(|name| copy.path().join("journal").join(name)).collect();
    (copy, logs)
}

/// Every file of the journal, byte for byte.
pub(super) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| Some((file_name(&path).to_owned(), std::fs::read(&path).ok()?));
    entries.filter_map(read).collect()
}

/// Asserts that no byte of any file was changed.
pub(super) fn assert_same(now: &BTreeMap<String, Vec<u8>>, before: &BTreeMap<String, Vec<u8>>) {
    let changed = now.iter().filter(|(name, bytes)| before.get(*name) != Some(bytes)).map(|(name, _)| name);
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    assert_eq!(changed.chain(gone).collect::<Vec<_>>(), Vec::<&String>::new());
}

pub(super) fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Asserts that it is damage and that each of `parts` is named.
pub(super) fn assert_corrupt<T>(result: Result<T, StoreError>, parts: &[&str]) {
    match result.err() {
        Some(error @ StoreError::Corrupt { .. }) => {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text} must name {parts:?}");
        }
        other => panic!("it must be found damaged, but: {other:?}"),
    }
}

pub(super) fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

pub(super) async fn all(journal: &EmbeddedJournal) -> Result<u64, StoreError> {
    let (mut after, mut count) = (Position::START, 0);
    while after < *journal.head().borrow() {
        let batch = journal.read(after, &Filter::default(), Limit::events(5)).await?;
        count += batch.len() as u64;
        after = batch.through;
    }
    Ok(count)
}

pub(super) async fn assert_whole(dir: &Path, events: u64) {
    let journal = open(dir).unwrap();
    assert_eq!(all(&journal).await.unwrap(), events);
    for number in 0..3 {
        let revision = journal.stream_revision(&stream(number)).await.unwrap();
        let read = journal.read_stream(&stream(number), Revision::START, Limit::events(100)).await.unwrap();
        assert_eq!(read.len() as u64, revision.get());
    }
    // Ids are known, so retries are recognised; new events continue.
    for number in [1, 20, events] {
        assert_eq!(journal.append(append(number)).await.unwrap().written, 0);
    }
    assert_eq!(journal.append(append(1000)).await.unwrap().position.get(), events + 1);
}
