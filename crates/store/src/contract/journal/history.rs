//! Checks of a journal's identity and of the marks of its history.

use std::collections::BTreeSet;

use super::*;
use crate::error::StoreError;
use dacapo_model::{JournalId, Mark};

/// Returns the mark at the last position through each position.
async fn marks(journal: &dyn Journal, through: u64) -> Vec<Mark> {
    let mut marks = Vec::new();
    for position in (0..=through).map(Position::new) {
        let mark = journal.mark(position).await.expect("the position is in the journal");
        assert!(mark.position <= position, "it lies at or before the position that was asked for");
        assert_eq!(journal.mark(mark.position).await.expect("it was there"), mark, "asked for itself it is the same");
        marks.push(mark);
    }
    marks
}

/// Marks stay the same over later appends and restarts, and no two are equal. The identity stays, too.
pub async fn marks_are_stable(home: &mut dyn JournalHome) {
    let mut journal = open(home).await;
    let id = journal.id();
    assert_ne!(id, JournalId::from_bytes([0; 16]), "a journal has an identity");
    assert_eq!(marks(&*journal, 0).await, [Mark::START], "before the first event all histories are the same");
    let (mut known, mut number) = (vec![Mark::START], 0);
    for round in 0..6 {
        for events in [1, 3, 12 - round] {
            let stream = format!("a-{}", number % 4);
            number += events;
            appended(&*journal, any(&stream, number * 100..number * 100 + events)).await;
            let head = Position::new(number);
            let mark = journal.mark(head).await.unwrap();
            assert_eq!(mark.position, head, "there is one where appends were made durable");
        }
        let now = marks(&*journal, number).await;
        for mark in &known {
            assert_eq!(journal.mark(mark.position).await.unwrap(), *mark, "marks that were told once stay");
        }
        let at: BTreeSet<_> = now.iter().map(|mark| mark.position).collect();
        let digests: BTreeSet<_> = now.iter().map(|mark| mark.digest).collect();
        assert_eq!(at.len(), digests.len(), "another history has another digest");
        known = now;
        if home.lasts() && round % 2 == 1 {
            journal.close().await;
            drop(journal);
            journal = open(home).await;
        }
        assert_eq!(journal.id(), id, "the identity stays");
        assert_eq!(marks(&*journal, number).await, known);
    }
}

/// A mark beyond the head is an error, since there is no history yet.
pub async fn a_mark_beyond_the_head_is_an_error(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let beyond = async |through| match journal.mark(Position::new(through)).await {
        Err(StoreError::BeyondHead { after, head }) => Some((after.get(), head.get())),
        other => panic!("{other:?}"),
    };
    assert_eq!(beyond(1).await, Some((1, 0)));
    appended(&*journal, any("a-1", [1, 2])).await;
    assert_eq!(beyond(3).await, Some((3, 2)));
    assert_eq!(journal.mark(Position::new(2)).await.unwrap().position, Position::new(2));
}

/// Two journals differ in their identity always, and in their digests if their events differ.
pub async fn journals_that_are_made_apart_differ(one: &mut dyn JournalHome, other: &mut dyn JournalHome) {
    let (one, other) = (open(one).await, open(other).await);
    assert_ne!(one.id(), other.id());
    for (journal, last) in [(&one, 3), (&other, 4)] {
        appended(&**journal, any("a-1", [1, 2])).await;
        appended(&**journal, any("a-1", [last])).await;
        appended(&**journal, any("a-1", [5])).await;
    }
    for position in [3, 4].map(Position::new) {
        let marks = [one.mark(position).await.unwrap(), other.mark(position).await.unwrap()];
        assert_eq!(marks.map(|mark| mark.position), [position; 2]);
        assert_ne!(marks[0].digest, marks[1].digest, "what differs once differs from there on");
    }
}
