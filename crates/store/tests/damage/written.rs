//! Files that change while the journal is open and takes events.

use std::collections::BTreeMap;

use dacapo_model::{Position, Revision};
use dacapo_store::embedded::{DataDir, EmbeddedJournal, JournalOptions};
use dacapo_store::{AppendError, Filter, Health, Journal, Limit};

use crate::setup::*;

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
