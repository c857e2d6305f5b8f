//! Chunks that are damaged, torn, cut short, missing, or of another journal.

use dacapo_model::{Position, Revision};
use dacapo_store::embedded::{DataDir, JournalOptions, repair};
use dacapo_store::{Filter, Journal, Limit};

use crate::setup::*;

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
