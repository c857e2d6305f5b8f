//! What the embedded journal does about files that are damaged, missing or torn: it never reads them as
//! truth, and it says which place is wrong.

#[path = "damage/copies.rs"]
mod copies;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dacapo_model::{EventId, EventType, ExpectedRevision, Metadata, NewEvent, Position, Revision, StreamName};
use dacapo_store::embedded::{DataDir, EmbeddedJournal, JournalOptions, repair};
use dacapo_store::{Append, AppendError, Filter, Health, Journal, Limit, StoreError};

const EVENTS: u64 = 60;
const RECORD_BYTES: usize = 384;

fn event(number: u64) -> NewEvent {
    NewEvent {
        id: EventId::from_bytes(u128::from(number).to_be_bytes()),
        event_type: EventType::new("happened").unwrap(),
        payload: vec![b'x'; 300],
        metadata: Metadata::default(),
        tags: vec![],
    }
}

fn stream(number: u64) -> StreamName {
    StreamName::new(format!("s-{}", number % 3)).unwrap()
}

fn append(number: u64) -> Append {
    Append::to_stream(stream(number), ExpectedRevision::Any, vec![event(number)])
}

fn open(dir: &Path) -> Result<EmbeddedJournal, StoreError> {
    let options = JournalOptions { chunk_bytes: 4_000, ..JournalOptions::default() };
    EmbeddedJournal::open(&DataDir::open(dir).unwrap(), options)
}

/// A journal of several sealed chunks and one that is written to.
async fn filled() -> (tempfile::TempDir, Vec<PathBuf>) {
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
async fn killed() -> (tempfile::TempDir, Vec<PathBuf>) {
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
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| Some((file_name(&path).to_owned(), std::fs::read(&path).ok()?));
    entries.filter_map(read).collect()
}

/// Asserts that no byte of any file was changed.
fn assert_same(now: &BTreeMap<String, Vec<u8>>, before: &BTreeMap<String, Vec<u8>>) {
    let changed = now.iter().filter(|(name, bytes)| before.get(*name) != Some(bytes)).map(|(name, _)| name);
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    assert_eq!(changed.chain(gone).collect::<Vec<_>>(), Vec::<&String>::new());
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Asserts that it is damage and that each of `parts` is named.
fn assert_corrupt<T>(result: Result<T, StoreError>, parts: &[&str]) {
    match result.err() {
        Some(error @ StoreError::Corrupt { .. }) => {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text} must name {parts:?}");
        }
        other => panic!("it must be found damaged, but: {other:?}"),
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

async fn all(journal: &EmbeddedJournal) -> Result<u64, StoreError> {
    let (mut after, mut count) = (Position::START, 0);
    while after < *journal.head().borrow() {
        let batch = journal.read(after, &Filter::default(), Limit::events(5)).await?;
        count += batch.len() as u64;
        after = batch.through;
    }
    Ok(count)
}

async fn assert_whole(dir: &Path, events: u64) {
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

#[tokio::test]
async fn a_damaged_record_of_a_sealed_chunk_is_found_when_it_is_read() {
    for at in [72, 96, 132, 232, 440] {
        let (dir, logs) = filled().await;
        flip(&logs[1], at);
        let journal = open(dir.path()).unwrap();
        assert_corrupt(all(&journal).await, &[file_name(&logs[1]), "at byte 64"]);
        let number: u64 = file_name(&logs[1])[6..26].parse().unwrap();
        let read = journal.read_stream(&stream(number), Revision::START, Limit::events(100)).await;
        assert_corrupt(read, &[file_name(&logs[1]), "at byte 64"]);
        let later = journal.read(Position::new(number + 20), &Filter::default(), Limit::events(5)).await;
        assert!(!later.unwrap().is_empty());
    }
}

#[tokio::test]
async fn damage_in_the_newest_chunk_before_later_groups_refuses_to_open() {
    let (dir, logs) = filled().await;
    let newest = logs.last().unwrap();
    assert!(std::fs::metadata(newest).unwrap().len() > 1_500, "it has several records");
    flip(newest, 500);
    assert_corrupt(open(dir.path()), &[file_name(newest), "at byte 448"]);
    flip(newest, 500);
    flip(newest, 3);
    assert_corrupt(open(dir.path()), &[file_name(newest), "at byte 0"]);
    flip(newest, 3);
    assert_whole(dir.path(), EVENTS).await;
}

/// Not before something is appended: until then nothing is changed.
#[tokio::test]
async fn a_torn_tail_is_kept_beside_and_cut_off() {
    for torn in [0, 1, 2, 3] {
        let (dir, logs) = killed().await;
        let newest = logs.last().unwrap();
        let bytes = std::fs::read(newest).unwrap();
        let torn = [&bytes[..100], &[0_u8; 700][..], &[0xff; 31][..], &bytes[64..448][..383]][torn];
        std::fs::write(newest, [&bytes[..], torn].concat()).unwrap();
        let before = files(dir.path());
        let journal = open(dir.path()).unwrap();
        assert_eq!(all(&journal).await.unwrap(), EVENTS);
        drop(journal);
        assert_same(&files(dir.path()), &before);
        assert_whole(dir.path(), EVENTS).await;
        assert_eq!(std::fs::read(newest).unwrap()[..bytes.len()], bytes);
        let stem = file_name(newest).replace(".log", ".cut-");
        let kept: Vec<_> = files(dir.path()).into_iter().filter(|(name, _)| name.starts_with(&stem)).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].1, torn);
    }
}

/// An event that somebody was told of is never taken for a torn one.
#[tokio::test]
async fn a_damaged_last_group_refuses_to_open_and_nothing_is_changed() {
    for closed in [true, false] {
        let (dir, logs) = if closed { filled().await } else { killed().await };
        let newest = logs.last().unwrap();
        let whole = std::fs::read(newest).unwrap();
        let last = whole.len() - RECORD_BYTES;
        let flipped = [0, 3, 4, 20, 24, 64, 200, RECORD_BYTES - 1].map(|at| {
            let mut bytes = whole.clone();
            bytes[last + at] ^= 0x10;
            bytes
        });
        let cut = [last, last + 100, whole.len() - 1, 64, 40, 0].map(|len| whole[..len].to_vec());
        let mut zeroed = whole.clone();
        zeroed[last..].fill(0);
        for damaged in flipped.into_iter().chain(cut).chain([zeroed]) {
            std::fs::write(newest, &damaged).unwrap();
            let before = files(dir.path());
            assert_corrupt(open(dir.path()), &[file_name(newest), "at byte ", "dacapo repair"]);
            assert_same(&files(dir.path()), &before);
        }
        std::fs::remove_file(newest).unwrap();
        let before = files(dir.path());
        assert_corrupt(open(dir.path()), &["missing"]);
        assert_same(&files(dir.path()), &before);
        std::fs::write(newest, &whole).unwrap();
        assert_whole(dir.path(), EVENTS).await;
    }
}

#[tokio::test]
async fn a_journal_that_was_closed_has_nothing_behind_its_end() {
    let (dir, logs) = filled().await;
    let newest = logs.last().unwrap();
    let whole = std::fs::read(newest).unwrap();
    std::fs::write(newest, [&whole[..], &[0; 40]].concat()).unwrap();
    let before = files(dir.path());
    assert_corrupt(open(dir.path()), &[file_name(newest), "closed in order"]);
    assert_same(&files(dir.path()), &before);
}

/// Without what was acknowledged, nothing is taken for torn.
#[tokio::test]
async fn a_damaged_commit_is_refused() {
    for closed in [true, false] {
        let (dir, _) = if closed { filled().await } else { killed().await };
        let commit = dir.path().join("journal/commit");
        let whole = std::fs::read(&commit).unwrap();
        for wrong in [vec![], vec![0; whole.len()], whole[..30].to_vec()] {
            std::fs::write(&commit, wrong).unwrap();
            let before = files(dir.path());
            assert_corrupt(open(dir.path()), &["commit", "dacapo repair"]);
            assert_same(&files(dir.path()), &before);
        }
        std::fs::remove_file(&commit).unwrap();
        assert_corrupt(open(dir.path()), &["commit", "missing"]);
        std::fs::write(&commit, &whole).unwrap();
        assert_whole(dir.path(), EVENTS).await;
    }
}

/// Both say the same, so the other one tells of all that was acknowledged.
#[tokio::test]
async fn one_damaged_note_of_two_leaves_what_was_acknowledged() {
    for (closed, slot) in [(true, 0), (true, 4096), (false, 0), (false, 4096)] {
        let (dir, logs) = if closed { filled().await } else { killed().await };
        let (commit, newest) = (dir.path().join("journal/commit"), logs.last().unwrap());
        let whole = std::fs::read(newest).unwrap();
        let last = whole.len() - RECORD_BYTES;
        flip(&commit, slot + 50);
        assert_eq!(all(&open(dir.path()).unwrap()).await.unwrap(), EVENTS);
        for end in [last, last + 100, whole.len() - 1] {
            std::fs::write(newest, &whole[..end]).unwrap();
            assert_corrupt(open(dir.path()), &[file_name(newest), "dacapo repair"]);
        }
        std::fs::write(newest, &whole).unwrap();
        assert_whole(dir.path(), EVENTS).await;
        assert_eq!(all(&open(dir.path()).unwrap()).await.unwrap(), EVENTS + 1);
    }
}

/// Notes as builds wrote them that wrote the two in turns.
fn in_turns(commit: &Path) {
    let mut bytes = std::fs::read(commit).unwrap();
    for slot in [0, 4096] {
        bytes[slot + 12] = 0;
        let checksum = crc32c::crc32c(&bytes[slot..slot + 72]);
        bytes[slot + 72..slot + 76].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(commit, bytes).unwrap();
}

#[tokio::test]
async fn notes_that_were_written_in_turns_are_read_and_written_together_from_then_on() {
    let (dir, _) = killed().await;
    let commit = dir.path().join("journal/commit");
    in_turns(&commit);
    assert_whole(dir.path(), EVENTS).await;
    flip(&commit, 50);
    assert_eq!(all(&open(dir.path()).unwrap()).await.unwrap(), EVENTS + 1);
}

/// The note that is lost may be the later one, which told of the event at the end.
#[tokio::test]
async fn one_damaged_note_of_two_that_were_written_in_turns_proves_nothing() {
    for slot in [0, 4096] {
        let (dir, logs) = killed().await;
        let (commit, newest) = (dir.path().join("journal/commit"), logs.last().unwrap());
        let whole = std::fs::read(newest).unwrap();
        let last = whole.len() - RECORD_BYTES;
        in_turns(&commit);
        flip(&commit, slot + 50);
        for end in [whole.len(), whole.len() - 1, last + 100, last] {
            std::fs::write(newest, &whole[..end]).unwrap();
            let before = files(dir.path());
            assert_corrupt(open(dir.path()), &["commit", "one of its two notes", "dacapo repair"]);
            assert_same(&files(dir.path()), &before);
        }
        std::fs::write(newest, &whole[..last + 100]).unwrap();
        let run = |apply| repair(&DataDir::open(dir.path()).unwrap(), JournalOptions::default(), apply).unwrap();
        let shown = run(false);
        let text = format!("{:?}", shown.steps);
        assert!(text.contains("GIVE UP") && text.contains(".cut-TIME") && text.contains("note in "), "{text}");
        assert!(shown.problem.as_ref().is_some_and(|problem| problem.contains("commit")), "{shown:?}");
        assert_eq!(run(true), shown);
        assert_eq!(run(false).problem, None);
        let kept = files(dir.path()).into_iter().find(|(name, _)| name.contains(".cut-")).unwrap();
        assert_eq!(kept.1, whole[last..last + 100]);
        assert_whole(dir.path(), EVENTS - 1).await;
    }
}

/// Also where no other chunk tells which journal it belongs to.
#[tokio::test]
async fn the_only_chunk_emptied_is_named_and_not_taken_for_another_journal() {
    for closed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path()).unwrap();
        journal.append(append(1)).await.unwrap();
        if closed {
            journal.close().await;
        }
        let (chunk, commit) = ("journal/chunk-00000000000000000001.log", "journal/commit");
        let [chunk, commit] = [chunk, commit].map(|name| dir.path().join(name));
        let kept = std::fs::read(&commit).unwrap();
        drop(journal);
        std::fs::write(&commit, kept).unwrap();
        for len in [0, 40, 64] {
            std::fs::OpenOptions::new().write(true).open(&chunk).unwrap().set_len(len).unwrap();
            assert_corrupt(open(dir.path()), &[file_name(&chunk), "events through position 1 were acknowledged"]);
            std::fs::write(&chunk, "").unwrap();
        }
        let repaired = repair(&DataDir::open(dir.path()).unwrap(), JournalOptions::default(), false).unwrap();
        let steps = format!("{:?}", repaired.steps);
        assert!(steps.contains("GIVE UP the events at positions 1 through 1"), "{steps}");
    }
}

/// They would be waited for without end, or be read without end.
#[tokio::test]
async fn what_is_no_file_is_refused_by_name() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (dir, logs) = filled().await;
    let journal = dir.path().join("journal");
    let [format, lock, commit] = [dir.path().join("format"), dir.path().join("lock"), journal.join("commit")];
    for path in [&format, &lock, &commit, &logs[1], logs.last().unwrap()] {
        let whole = std::fs::read(path).unwrap();
        for (what, directory) in [("a pipe", false), ("a directory", true)] {
            std::fs::remove_file(path).unwrap();
            match directory {
                true => std::fs::create_dir(path).unwrap(),
                false => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
            }
            let opened =
                DataDir::open(dir.path()).and_then(|dir| EmbeddedJournal::open(&dir, JournalOptions::default()));
            assert_corrupt(opened, &[file_name(path), what]);
            let repaired = DataDir::open(dir.path()).and_then(|dir| repair(&dir, JournalOptions::default(), true));
            assert_corrupt(repaired, &[file_name(path), what]);
            match directory {
                true => std::fs::remove_dir(path).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
            std::fs::write(path, &whole).unwrap();
        }
    }
    // What only speeds things up, or is to be made, is no matter.
    let index = logs[1].with_extension("idx");
    std::fs::remove_file(&index).unwrap();
    mknodat(CWD, &index, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert_whole(dir.path(), EVENTS).await;
}

#[tokio::test]
async fn opening_to_look_changes_no_byte() {
    for closed in [true, false] {
        let (dir, logs) = if closed { filled().await } else { killed().await };
        std::fs::remove_file(logs[1].with_extension("idx")).ok();
        let before = files(dir.path());
        let journal = open(dir.path()).unwrap();
        assert_eq!(all(&journal).await.unwrap(), EVENTS);
        let read = journal.read_stream(&stream(1), Revision::START, Limit::events(100)).await.unwrap();
        assert_eq!(read.len() as u64, EVENTS / 3);
        journal.close().await;
        drop(journal);
        assert_same(&files(dir.path()), &before);
    }
}

/// Also when it fits as well as one of its own.
#[tokio::test]
async fn a_chunk_of_another_journal_or_another_history_is_refused() {
    let (dir, logs) = filled().await;
    let (_other, others) = filled().await;
    let own = std::fs::read(&logs[2]).unwrap();
    std::fs::copy(&others[2], &logs[2]).unwrap();
    assert_corrupt(open(dir.path()), &[file_name(&logs[2]), "belongs to the journal"]);
    // A copy goes another way from the last chunk on.
    std::fs::write(&logs[2], own).unwrap();
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("journal")).unwrap();
    std::fs::copy(dir.path().join("format"), copy.path().join("format")).unwrap();
    for (name, bytes) in files(dir.path()) {
        std::fs::write(copy.path().join("journal").join(name), bytes).unwrap();
    }
    for (dir, numbers) in [(dir.path(), 61..90), (copy.path(), 91..120)] {
        let journal = open(dir).unwrap();
        for number in numbers {
            journal.append(append(number)).await.unwrap();
        }
        journal.close().await;
    }
    let last = files(dir.path()).into_keys().rfind(|name| name.ends_with(".log")).unwrap();
    std::fs::copy(copy.path().join("journal").join(&last), dir.path().join("journal").join(&last)).unwrap();
    assert_corrupt(open(dir.path()), &[&last, "another history"]);
}

#[tokio::test]
async fn a_chunk_that_was_just_begun_is_recovered() {
    let (dir, _) = killed().await;
    let next = dir.path().join("journal").join(format!("chunk-{:020}.log", EVENTS + 1));
    for torn in [&b""[..], b"dacapo", &[0; 64]] {
        std::fs::write(&next, torn).unwrap();
        let journal = open(dir.path()).unwrap();
        assert_eq!(all(&journal).await.unwrap(), EVENTS);
    }
    assert_whole(dir.path(), EVENTS).await;
}

#[tokio::test]
async fn a_truncated_sealed_chunk_is_named_at_opening() {
    for with_index in [true, false] {
        let (dir, logs) = filled().await;
        let bytes = std::fs::read(&logs[2]).unwrap();
        for len in [bytes.len() - 1, bytes.len() - RECORD_BYTES, 40, 0] {
            std::fs::write(&logs[2], &bytes[..len]).unwrap();
            if !with_index {
                std::fs::remove_file(logs[2].with_extension("idx")).ok();
            }
            // Without the index and cut at a record's end, it shows by the positions that are missing.
            let named = if with_index || len % RECORD_BYTES != 64 { file_name(&logs[2]) } else { "missing" };
            assert_corrupt(open(dir.path()), &[named]);
        }
    }
}

#[tokio::test]
async fn a_missing_chunk_is_named_at_opening() {
    let (dir, logs) = filled().await;
    let aside = dir.path().join("aside");
    for missing in [0, 2, logs.len() - 1] {
        for with_index in [true, false] {
            let (log, index) = (&logs[missing], logs[missing].with_extension("idx"));
            let kept = std::fs::read(&index).ok();
            std::fs::rename(log, &aside).unwrap();
            if !with_index && kept.is_some() {
                std::fs::remove_file(&index).unwrap();
            }
            // Of the newest only the sealed one before it is known.
            let named = if missing == logs.len() - 1 { &logs[missing - 1] } else { log };
            assert_corrupt(open(dir.path()), &[file_name(named), "missing"]);
            std::fs::rename(&aside, log).unwrap();
            if let Some(kept) = kept {
                std::fs::write(&index, kept).unwrap();
            }
        }
    }
    assert_whole(dir.path(), EVENTS).await;
}

#[tokio::test]
async fn an_index_that_is_not_right_is_made_again() {
    let (dir, logs) = filled().await;
    let index = logs[1].with_extension("idx");
    let right = std::fs::read(&index).unwrap();
    let other = std::fs::read(logs[0].with_extension("idx")).unwrap();
    let flipped = (0..right.len()).step_by(13).map(|at| {
        let mut bytes = right.clone();
        bytes[at] ^= 1;
        bytes
    });
    let cut = right[..right.len() / 2].to_vec();
    for wrong in flipped.chain([cut, vec![], other]) {
        std::fs::write(&index, wrong).unwrap();
        let journal = open(dir.path()).unwrap();
        for number in 0..3 {
            let read = journal.read_stream(&stream(number), Revision::START, Limit::events(100)).await.unwrap();
            assert_eq!(read.len() as u64, EVENTS / 3);
        }
        assert_eq!(journal.append(append(9)).await.unwrap().written, 0);
        assert_eq!(all(&journal).await.unwrap(), EVENTS);
    }
    std::fs::remove_file(&index).unwrap();
    assert_whole(dir.path(), EVENTS).await;
    assert_eq!(std::fs::read(&index).unwrap(), right);
}

/// The chunk that is written to, or the note of how far it was acknowledged, or all of them.
#[tokio::test]
async fn an_append_to_a_file_that_the_directory_does_not_name_is_refused() {
    for moved in ["chunk", "commit", "journal"] {
        let (dir, _) = filled().await;
        let journal = open(dir.path()).unwrap();
        journal.append(append(EVENTS + 1)).await.unwrap();
        let newest = files(dir.path()).into_keys().rfind(|name| name.ends_with(".log")).unwrap();
        let files = dir.path().join("journal");
        let moved =
            if moved == "journal" { files.clone() } else { files.join(if moved == "chunk" { &newest } else { moved }) };
        let aside = dir.path().join("aside");
        let size = std::fs::metadata(files.join(&newest)).unwrap().len();
        std::fs::rename(&moved, &aside).unwrap();
        for number in [EVENTS + 2, EVENTS + 3] {
            let error = journal.append(append(number)).await.unwrap_err().to_string();
            assert!(error.contains("removed or replaced"), "{error}");
        }
        assert!(matches!(journal.health(), Health::Failing(_)));
        assert_eq!(journal.head().borrow().get(), EVENTS + 1);
        // Put back, it continues, and nothing of what was refused is there.
        std::fs::rename(&aside, &moved).unwrap();
        assert_eq!(std::fs::metadata(files.join(&newest)).unwrap().len(), size, "nothing of what was refused is kept");
        assert_eq!(journal.append(append(EVENTS + 2)).await.unwrap().position.get(), EVENTS + 2);
        drop(journal);
        assert_whole(dir.path(), EVENTS + 2).await;
    }
}

/// Written on, it would have a hole where acknowledged events were.
#[tokio::test]
async fn a_chunk_that_another_program_changes_takes_no_more_events() {
    for change in [-1, -384, 1, 384] {
        let (dir, _) = filled().await;
        let journal = open(dir.path()).unwrap();
        journal.append(append(EVENTS + 1)).await.unwrap();
        let newest = files(dir.path()).into_keys().rfind(|name| name.ends_with(".log")).unwrap();
        let newest = std::fs::OpenOptions::new().write(true).open(dir.path().join("journal").join(newest)).unwrap();
        let size = newest.metadata().unwrap().len();
        newest.set_len(size.saturating_add_signed(change)).unwrap();
        for number in [EVENTS + 2, EVENTS + 3] {
            let error = journal.append(append(number)).await.unwrap_err().to_string();
            assert!(error.contains("is damaged") && error.contains(&size.to_string()), "{error}");
        }
        let Health::Damaged(found) = journal.health() else { panic!("it takes no events") };
        assert!(found.contains("another program changed it"), "{found}");
        assert_eq!(newest.metadata().unwrap().len(), size.saturating_add_signed(change), "it is left as it is");
        journal.close().await;
        drop(journal);
        if change < 0 {
            assert_corrupt(open(dir.path()), &["were acknowledged"]);
        }
    }
}

/// What is appended after it would be acknowledged, and refused with it when the journal is opened again.
#[tokio::test]
async fn damage_in_the_open_chunk_stops_appends_once_it_is_known() {
    const EVENT: u64 = 5;
    for door in ["read", "stream", "position_of", "retry"] {
        let (dir, _) = filled().await;
        let journal = {
            let options = JournalOptions { chunk_bytes: 1 << 20, ..JournalOptions::default() };
            EmbeddedJournal::open(&DataDir::open(dir.path()).unwrap(), options).unwrap()
        };
        for number in EVENTS + 1..=EVENTS + 9 {
            journal.append(append(number)).await.unwrap();
        }
        let newest = files(dir.path()).into_keys().rfind(|name| name.ends_with(".log")).unwrap();
        let path = dir.path().join("journal").join(&newest);
        let end = std::fs::metadata(&path).unwrap().len() as usize;
        flip(&path, end - (9 - EVENT as usize) * RECORD_BYTES - 200);
        let before = files(dir.path());
        let number = EVENTS + EVENT;
        assert_eq!(journal.health(), Health::Well);
        // Nobody can know of it before it was read.
        let read = match door {
            "read" => journal.read(Position::new(number - 1), &Filter::default(), Limit::events(1)).await.map(|_| ()),
            "stream" => journal.read_stream(&stream(number), Revision::START, Limit::events(100)).await.map(|_| ()),
            "position_of" => journal.position_of(event(number).id).await.map(|_| ()),
            _ => journal.append(append(number)).await.map(|_| ()).map_err(|error| match error {
                AppendError::Store(error) => error,
                AppendError::Refused(refused) => panic!("{refused}"),
            }),
        };
        let parts = [&*newest, "nothing more is appended", "stop this process", "dacapo repair --data"];
        assert_corrupt(read, &parts);
        for number in [EVENTS + 10, EVENTS + 11] {
            let Err(AppendError::Store(error)) = journal.append(append(number)).await else { panic!("{door}: taken") };
            assert_corrupt::<()>(Err(error), &parts);
        }
        let Health::Damaged(found) = journal.health() else { panic!("{door}: {:?}", journal.health()) };
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
        assert_eq!(*journal.head().borrow(), Position::new(EVENTS + 9));
        // What is not damaged can be read all the same.
        assert_eq!(journal.read(Position::new(number), &Filter::default(), Limit::events(9)).await.unwrap().len(), 4);
        journal.close().await;
        drop(journal);
        let chunks = |mut files: BTreeMap<String, Vec<u8>>| {
            files.retain(|name, _| name.ends_with(".log"));
            files
        };
        assert_same(&chunks(files(dir.path())), &chunks(before));
        assert_corrupt(open(dir.path()), &[&newest, "were acknowledged"]);
    }
}

/// It never changes again: put back from any copy it is whole, and nothing that was appended meanwhile is lost.
#[tokio::test]
async fn damage_in_a_sealed_chunk_is_told_and_appends_go_on_behind_it() {
    let (dir, logs) = filled().await;
    let journal = open(dir.path()).unwrap();
    let whole = std::fs::read(&logs[1]).unwrap();
    flip(&logs[1], whole.len() - 200);
    assert_eq!(journal.warnings(), Vec::<String>::new());
    assert_corrupt(all(&journal).await, &[file_name(&logs[1])]);
    let warnings = journal.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(file_name(&logs[1])), "{warnings:?}");
    assert_eq!(journal.health(), Health::Well);
    for number in EVENTS + 1..=EVENTS + 9 {
        journal.append(append(number)).await.unwrap();
    }
    drop(journal);
    // Also to a node that is started while it is damaged.
    let journal = open(dir.path()).unwrap();
    assert_eq!(journal.append(append(EVENTS + 10)).await.unwrap().position.get(), EVENTS + 10);
    drop(journal);
    std::fs::write(&logs[1], whole).unwrap();
    assert_whole(dir.path(), EVENTS + 10).await;
}

#[tokio::test]
async fn a_repair_is_shown_first_and_keeps_what_it_cuts_off() {
    let (dir, logs) = filled().await;
    let newest = logs.last().unwrap();
    let whole = std::fs::read(newest).unwrap();
    let last = whole.len() - RECORD_BYTES;
    flip(newest, last + 100);
    let before = files(dir.path());
    let run = |apply| repair(&DataDir::open(dir.path()).unwrap(), JournalOptions::default(), apply).unwrap();
    let shown = run(false);
    assert_same(&files(dir.path()), &before);
    let text = format!("{:?}", shown.steps);
    assert!(text.contains("GIVE UP the events at positions 60 through 60") && text.contains(".cut-TIME"), "{text}");
    assert!(shown.problem.as_ref().is_some_and(|problem| problem.contains(file_name(newest))));
    assert_eq!(run(true), shown);
    let kept = files(dir.path()).into_iter().find(|(name, _)| name.contains(".cut-")).unwrap();
    assert_eq!(kept.1, before[file_name(newest)][last..]);
    assert_eq!(run(false).problem, None);
    let journal = open(dir.path()).unwrap();
    assert_eq!(all(&journal).await.unwrap(), EVENTS - 1);
    assert_eq!(journal.append(append(1000)).await.unwrap().position.get(), EVENTS);
}

#[tokio::test]
async fn a_lost_commit_is_made_again_and_a_damaged_sealed_chunk_is_not_repaired() {
    let (dir, logs) = filled().await;
    std::fs::remove_file(dir.path().join("journal/commit")).unwrap();
    let run = |apply| repair(&DataDir::open(dir.path()).unwrap(), JournalOptions::default(), apply);
    assert_eq!(run(true).unwrap().steps.len(), 1);
    assert_whole(dir.path(), EVENTS).await;
    flip(&logs[1], 3);
    assert_corrupt(run(true), &[file_name(&logs[1])]);
}

/// A disk that is not mounted, or a restore of half a directory, is not a new journal.
#[tokio::test]
async fn a_journal_that_is_gone_is_not_begun_again() {
    for (all, empties) in [(true, false), (false, false), (false, true)] {
        let (dir, _) = filled().await;
        let journal = dir.path().join("journal");
        for name in files(dir.path()).into_keys() {
            if empties {
                std::fs::write(journal.join(name), "").unwrap();
            } else {
                std::fs::remove_file(journal.join(name)).unwrap();
            }
        }
        if all {
            std::fs::remove_dir(&journal).unwrap();
        }
        let before = if all { BTreeMap::new() } else { files(dir.path()) };
        assert_corrupt(open(dir.path()), &["journal"]);
        let repaired = repair(&DataDir::open(dir.path()).unwrap(), JournalOptions::default(), true);
        assert_corrupt(repaired, &["journal"]);
        let after = if journal.exists() { files(dir.path()) } else { BTreeMap::new() };
        assert_same(&after, &before);
    }
}

#[tokio::test]
async fn a_repair_reads_what_opening_leaves_to_the_first_read() {
    let (dir, logs) = filled().await;
    let sealed = std::fs::metadata(&logs[0]).unwrap().len();
    flip(&logs[0], usize::try_from(sealed / 2).unwrap());
    let run = |apply| repair(&DataDir::open(dir.path()).unwrap(), JournalOptions::default(), apply);
    assert_corrupt(run(false), &[file_name(&logs[0])]);
}

#[tokio::test]
async fn a_repair_without_a_commit_says_that_acknowledged_events_may_go() {
    let (dir, logs) = filled().await;
    std::fs::remove_file(dir.path().join("journal/commit")).unwrap();
    flip(logs.last().unwrap(), 100);
    let run = |apply| repair(&DataDir::open(dir.path()).unwrap(), JournalOptions::default(), apply).unwrap();
    let steps = run(false).steps;
    let steps = format!("{steps:?}");
    assert!(steps.contains("GIVE UP whatever events after position "), "{steps}");
}
