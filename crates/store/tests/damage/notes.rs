//! The notes of how far the journal was acknowledged.

use std::path::Path;

use dacapo_store::embedded::{DataDir, JournalOptions, repair};

use crate::setup::*;

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
