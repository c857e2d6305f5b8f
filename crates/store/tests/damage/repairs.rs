//! What a repair shows, does, and leaves.

use dacapo_store::Journal;
use dacapo_store::embedded::{DataDir, JournalOptions, repair};

use crate::setup::*;

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
