//! Copies of a directory that is in use, as docs/operating/embedded.md tells operators to make them.

use std::path::{Path, PathBuf};

use dacapo_model::Position;
use dacapo_store::embedded::EmbeddedJournal;
use dacapo_store::{Filter, Journal, Limit, StoreError};

use crate::setup::*;

/// What an operator has copied so far.
struct Backup {
    from: PathBuf,
    to: tempfile::TempDir,
}

impl Backup {
    fn of(from: &Path) -> Self {
        let to = tempfile::tempdir().unwrap();
        std::fs::create_dir(to.path().join("journal")).unwrap();
        Self { from: from.to_owned(), to }
    }

    fn take(&self, name: &str) {
        std::fs::copy(self.from.join(name), self.to.path().join(name)).unwrap();
    }

    fn take_first(&self) {
        self.take("format");
        self.take("journal/commit");
    }

    /// The chunks that are there now, in ascending order of their names.
    fn chunks(&self) -> Vec<String> {
        files(&self.from)
            .into_keys()
            .filter(|name| name.ends_with(".log"))
            .map(|name| format!("journal/{name}"))
            .collect()
    }

    fn open(&self) -> Result<EmbeddedJournal, StoreError> {
        open(self.to.path())
    }
}

/// Waits until so many events more were acknowledged than now.
async fn grown(journal: &EmbeddedJournal, by: u64) {
    let mut head = journal.head();
    let until = head.borrow().plus(by);
    head.wait_for(|head| *head >= until).await.unwrap();
}

/// That the journal has the events 1 through its head, each where it was written; returns the head.
async fn assert_dense(journal: &EmbeddedJournal) -> u64 {
    let head = *journal.head().borrow();
    let (mut after, mut next) = (Position::START, 1);
    while after < head {
        let batch = journal.read(after, &Filter::default(), Limit::events(50)).await.unwrap();
        for found in batch.iter() {
            assert_eq!((found.position.get(), found.id), (next, event(next).id));
            next += 1;
        }
        after = batch.through;
    }
    assert_eq!(next, head.get() + 1);
    head.get()
}

/// Format and commit first, then the chunks that are there in ascending order, while appends continue between any two files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_directory_in_use_has_all_that_was_acknowledged_before_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let journal = std::sync::Arc::new(open(dir.path()).unwrap());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writing = std::sync::Arc::clone(&journal);
    let writer = tokio::spawn(async move {
        let mut number = 1;
        while !*stopped.borrow() {
            assert_eq!(writing.append(append(number)).await.unwrap().position.get(), number);
            number += 1;
        }
    });
    for _ in 0..4 {
        grown(&journal, 7).await;
        let before = journal.head().borrow().get();
        let backup = Backup::of(dir.path());
        backup.take_first();
        grown(&journal, 12).await;
        for chunk in backup.chunks() {
            backup.take(&chunk);
            grown(&journal, 3).await;
        }
        let copy = backup.open().unwrap();
        assert_eq!(copy.id(), journal.id());
        let head = assert_dense(&copy).await;
        assert!(head >= before, "the copy ends with {head}, {before} was acknowledged before it began");
        let mark = copy.mark(Position::new(before)).await.unwrap();
        assert_eq!(mark, journal.mark(Position::new(before)).await.unwrap());
        // It is a journal like any other: a retry is recognised, and new events continue.
        assert_eq!(copy.append(append(before)).await.unwrap().written, 0);
        assert_eq!(copy.append(append(head + 1)).await.unwrap().position.get(), head + 1);
    }
    stop.send_replace(true);
    writer.await.unwrap();
}

/// Never is it opened with fewer events than it tells of.
#[tokio::test]
async fn a_copy_in_another_order_is_refused_or_right() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let mut numbers = 1..;
    let mut write = async |events| {
        for number in numbers.by_ref().take(events) {
            journal.append(append(number)).await.unwrap();
        }
    };
    write(25).await;

    // The commit last: refused if somebody appended meanwhile, in the same chunk or after another one.
    let (backup, in_next) = (Backup::of(dir.path()), Backup::of(dir.path()));
    for backup in [&backup, &in_next] {
        backup.chunks().iter().for_each(|chunk| backup.take(chunk));
        backup.take_first();
        assert_eq!(assert_dense(&backup.open().unwrap()).await, 25, "nobody appended meanwhile");
    }
    write(1).await;
    backup.take_first();
    let newest = backup.chunks().pop().unwrap();
    assert_corrupt(backup.open(), &[&newest, "events through position 26 were acknowledged", "dacapo repair"]);
    backup.take(&newest);
    assert_eq!(assert_dense(&backup.open().unwrap()).await, 26);
    write(20).await;
    in_next.take_first();
    assert_corrupt(in_next.open(), &["missing", "events through position 46 were acknowledged"]);

    // Chunks that are looked for while others are copied: the one before them was not whole yet.
    let backup = Backup::of(dir.path());
    backup.take_first();
    backup.chunks().iter().for_each(|chunk| backup.take(chunk));
    write(20).await;
    backup.take(&backup.chunks().pop().unwrap());
    assert_corrupt(backup.open(), &["missing, with positions "]);

    journal.close().await;
}

/// A commit that says that the journal was closed, and chunks from after it was opened again.
#[tokio::test]
async fn a_copy_that_begins_before_the_first_append_is_refused_or_right() {
    let (dir, _) = filled().await;
    let journal = open(dir.path()).unwrap();
    let backup = Backup::of(dir.path());
    backup.take_first();
    let mut behind_another_chunk = 0;
    for number in EVENTS + 1..EVENTS + 15 {
        journal.append(append(number)).await.unwrap();
        let chunks = backup.chunks();
        chunks.iter().for_each(|chunk| backup.take(chunk));
        match backup.open() {
            Ok(copy) => assert_eq!(assert_dense(&copy).await, number),
            refused => {
                behind_another_chunk += 1;
                assert_corrupt(refused, &["closed in order with an earlier chunk"]);
            }
        }
    }
    assert!(behind_another_chunk > 0);
    backup.take_first();
    assert_eq!(assert_dense(&backup.open().unwrap()).await, EVENTS + 14, "copied once more");
}
