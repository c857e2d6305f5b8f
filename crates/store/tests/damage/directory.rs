//! What stands in the directory instead of the files that belong there, and what opening changes of them.

use std::collections::BTreeMap;

use dacapo_model::Revision;
use dacapo_store::embedded::{DataDir, EmbeddedJournal, JournalOptions, repair};
use dacapo_store::{Journal, Limit};

use crate::setup::*;

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
