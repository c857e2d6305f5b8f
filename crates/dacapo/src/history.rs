//! The check that a view still belongs to the journal.
//!
//! ```text
//!   a commit ──takes along──▶ marks in the view ─ compared ─▶ the same: go on
//!                                                          └▶ not: stop, and say where they part
//! ```
//!
//! A mark is a digest of all events through a position. Two journals, or two histories of one, that have the same mark
//! have the same events through it. So a few marks show whether a view was made from this journal, even if another
//! journal is longer, or if a backup was restored and then extended. Positions alone show nothing of that. This module
//! does not check what the node itself knows of the journal: a store that can be replaced under a node checks that
//! itself (`dacapo_store::Journal`).

use dacapo_model::{Mark, Parted, Position, WaitingOn, forgotten};
use dacapo_store::{Journal, NewMark, StoreError, View, ViewHistory};

/// Compares an open view with the journal, and returns the history that it keeps; `None` for a new view.
///
/// # Errors
/// [`StoreError::Parted`] if it does not belong to the journal; another [`StoreError`] if either cannot be read.
pub(crate) async fn check(journal: &dyn Journal, view: &dyn View) -> Result<Option<ViewHistory>, StoreError> {
    compared(journal, view, Which::Last).await
}

/// Compares a view that is being opened with the journal. Every mark is compared: the last one may have been made after
/// somebody put another view in the place of this one.
///
/// # Errors
/// As [`check`].
pub(crate) async fn check_opened(journal: &dyn Journal, view: &dyn View) -> Result<(), StoreError> {
    compared(journal, view, Which::All).await.map(drop)
}

async fn compared(journal: &dyn Journal, view: &dyn View, which: Which) -> Result<Option<ViewHistory>, StoreError> {
    let Some(history) = view.history().await? else { return Ok(None) };
    let found = journal.id();
    if let Some(made_from) = history.journals.iter().copied().find(|made_from| *made_from != found) {
        return Err(StoreError::Parted(Parted::Journal { made_from, found }));
    }
    compare(journal, &history.marks, which).await?;
    Ok(Some(history))
}

/// Returns the difference between the histories of a view whose tokens are beyond the end of the journal and the
/// journal; `None` if the journal reaches as far as the view. The journal itself is asked, not only the head that is
/// known here: the known head of a shared journal may lag what another node has appended and a third one has applied.
///
/// # Errors
/// [`StoreError`] if either cannot be read.
pub(crate) async fn beyond(journal: &dyn Journal, view: &dyn View) -> Result<Option<Beyond>, StoreError> {
    let tokens = view.tokens().await?;
    let marks = tokens.iter().flat_map(|token| token.held_for.into_iter().chain([token.position]));
    let furthest = marks.max().unwrap_or_default();
    if furthest <= *journal.head().borrow() {
        return Ok(None);
    }
    let head = match journal.mark(furthest).await {
        Err(StoreError::BeyondHead { head, .. }) => head,
        reached => return reached.map(|_| None),
    };
    match check(journal, view).await {
        Ok(history) => {
            let last = history.and_then(|history| history.marks.last().map(|mark| mark.position));
            Ok(Some(Beyond { same_through: last.unwrap_or_default(), differs_at: head.next() }))
        }
        // The marks show more.
        Err(StoreError::Parted(Parted::History { same_through, differs_at })) => {
            Ok(Some(Beyond { same_through, differs_at }))
        }
        Err(error) => Err(error),
    }
}

/// The tokens of a view are beyond the end of its journal, so it was made from a history that does not exist any more.
/// The events that get those positions later would be missing in it (I-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beyond {
    /// The last position up to which the histories agree, as far as marks show it.
    pub(crate) same_through: Position,
    /// The position after the end of the journal.
    pub(crate) differs_at: Position,
}

impl Beyond {
    pub(crate) fn parted(self) -> StoreError {
        let Self { same_through, differs_at } = self;
        StoreError::Parted(Parted::History { same_through, differs_at })
    }
}

/// Returns the mark for a commit whose tokens reach `through`.
///
/// # Errors
/// As [`check`]. [`StoreError::Parted`] also if the view is beyond the end of the journal.
pub(crate) async fn next_mark(
    journal: &dyn Journal,
    view: &dyn View,
    through: Position,
) -> Result<Option<NewMark>, StoreError> {
    // The mark is read first. Then the check shows whether it belongs to the known history.
    let mark = match journal.mark(through).await {
        Err(error @ StoreError::BeyondHead { .. }) => {
            // If its marks show more, that is reported.
            check(journal, view).await?;
            return Err(beyond(journal, view).await?.map_or(error, Beyond::parted));
        }
        mark => mark?,
    };
    let kept = check(journal, view).await?.map(|history| history.marks).unwrap_or_default();
    if mark.position == Position::START || kept.iter().any(|kept| kept.position == mark.position) {
        return Ok(None);
    }
    let kept: Vec<Position> = kept.iter().map(|mark| mark.position).collect();
    Ok(Some(NewMark { journal: journal.id(), mark, forget: forgotten(&kept, mark.position) }))
}

/// The marks that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The last one, which covers all before it if one process after the other has kept them.
    Last,
    All,
}

/// Compares marks, in the order of their positions, with those of the journal. Returns the first one that differs. They
/// are few.
async fn compare(journal: &dyn Journal, marks: &[Mark], which: Which) -> Result<(), StoreError> {
    let Some(last) = marks.last() else { return Ok(()) };
    if which == Which::Last && is_same(journal, last).await? {
        return Ok(());
    }
    let mut same_through = Position::START;
    for mark in marks {
        if !is_same(journal, mark).await? {
            let differs_at = mark.position;
            return Err(StoreError::Parted(Parted::History { same_through, differs_at }));
        }
        same_through = mark.position;
    }
    Ok(())
}

async fn is_same(journal: &dyn Journal, mark: &Mark) -> Result<bool, StoreError> {
    match journal.mark(mark.position).await {
        Ok(found) => Ok(found == *mark),
        Err(StoreError::BeyondHead { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the wait reason of a version whose view had an error.
pub(crate) fn waiting_on(error: &StoreError) -> WaitingOn {
    match error {
        StoreError::Parted(parted) => WaitingOn::Parted { parted: *parted },
        StoreError::JournalParted(parted) => WaitingOn::JournalParted { parted: *parted },
        error @ StoreError::Corrupt { .. } => WaitingOn::Damaged { error: error.to_string() },
        error => WaitingOn::Store { error: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dacapo_model::{
        EventId, EventType, ExpectedRevision, JournalId, Metadata, NewEvent, SegmentCount, StreamName, Timestamp,
        VersionId, ViewId,
    };
    use dacapo_store::memory::{MemoryJournal, MemoryViews};
    use dacapo_store::{Append, Clock, Commit, Views};

    use super::*;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(0)
        }
    }

    async fn write(journal: &dyn Journal, numbers: impl IntoIterator<Item = u128>) {
        for number in numbers {
            let event = NewEvent {
                id: EventId::from_bytes(number.to_be_bytes()),
                event_type: EventType::new("written").unwrap(),
                payload: b"1".to_vec(),
                metadata: Metadata::default(),
                tags: vec![],
            };
            let append = Append::to_stream(StreamName::new("a-1").unwrap(), ExpectedRevision::Any, vec![event]);
            journal.append(append).await.unwrap();
        }
    }

    async fn marks(journal: &dyn Journal, at: impl IntoIterator<Item = u64>) -> Vec<Mark> {
        let mut marks = vec![];
        for position in at {
            marks.push(journal.mark(Position::new(position)).await.unwrap());
        }
        marks
    }

    fn parted(compared: Result<(), StoreError>) -> Option<(u64, u64)> {
        match compared {
            Ok(()) => None,
            Err(StoreError::Parted(Parted::History { same_through, differs_at })) => {
                Some((same_through.get(), differs_at.get()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn where_histories_part_is_told_as_closely_as_the_marks_let() {
        let [one, other] = [(); 2].map(|()| MemoryJournal::new(Arc::new(Still)));
        write(&one, 1..=40).await;
        write(&other, (1..=17).chain(100..=130)).await;
        let of_one = marks(&one, (2..=40).step_by(2)).await;
        assert_eq!(parted(compare(&one, &of_one, Which::Last).await), None);
        assert_eq!(parted(compare(&other, &of_one, Which::Last).await), Some((16, 18)));
        assert_eq!(parted(compare(&other, &of_one[..8], Which::Last).await), None, "through 16 they are the same");
        assert_eq!(
            parted(compare(&other, &of_one[8..9], Which::Last).await),
            Some((0, 18)),
            "one mark says only so much"
        );
        let each = marks(&one, 1..=40).await;
        assert_eq!(parted(compare(&other, &each, Which::Last).await), Some((17, 18)));
        let short = MemoryJournal::new(Arc::new(Still));
        write(&short, 1..=9).await;
        assert_eq!(parted(compare(&short, &each, Which::Last).await), Some((9, 10)), "what is lost differs too");
    }

    #[tokio::test]
    async fn marks_of_another_history_below_right_ones_are_found_when_a_view_is_opened() {
        let [one, other] = [(); 2].map(|()| MemoryJournal::new(Arc::new(Still)));
        write(&one, 1..=40).await;
        write(&other, (1..=17).chain(100..=130)).await;
        let mut mixed = marks(&one, [10, 20, 24]).await;
        mixed.extend(marks(&other, [30, 40]).await);
        assert_eq!(parted(compare(&other, &mixed, Which::Last).await), None, "the last one is right");
        assert_eq!(parted(compare(&other, &mixed, Which::All).await), Some((10, 20)));
        let right = marks(&other, [10, 20, 30, 40]).await;
        assert_eq!(parted(compare(&other, &right, Which::All).await), None);
    }

    /// What was committed on another view that somebody put in the place of this one.
    #[tokio::test]
    async fn a_view_whose_marks_name_two_journals_has_parted_from_both() {
        let journal = MemoryJournal::new(Arc::new(Still));
        write(&journal, 1..=9).await;
        let id = ViewId { projection: "totals".try_into().unwrap(), version: VersionId { code: 1, build: 1 } };
        let view = MemoryViews::new().open(&id, &[], SegmentCount::ONE).await.unwrap();
        let (mine, other) = (journal.id(), JournalId::from_bytes([7; 16]));
        for (at, of) in [(2, other), (5, mine)] {
            let seen = view.tokens().await.unwrap();
            let token = view.claim(None, &seen).await.unwrap()[0];
            let mark = journal.mark(Position::new(at)).await.unwrap();
            let history = Some(NewMark { journal: of, mark, forget: vec![] });
            let commit = Commit { history, ..Commit::of([token.step(Position::new(at), 1)]) };
            view.writer().await.unwrap().commit(&commit).await.unwrap();
        }
        for checked in [check(&journal, &*view).await.map(drop), check_opened(&journal, &*view).await] {
            let Err(StoreError::Parted(Parted::Journal { made_from, found })) = checked else { panic!("{checked:?}") };
            assert_eq!((made_from, found), (other, mine));
        }
    }
}
