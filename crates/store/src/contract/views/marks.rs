//! The marks of the history that a view was made from.

use super::*;

// I-4
/// A mark at a position that has one already changes nothing, so that a later history hides no earlier one.
pub async fn marks_of_the_history_are_kept_with_the_rows_or_not_at_all(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let journal = JournalId::from_bytes([7; 16]);
    let mark = |position, digest| Mark { position: Position::new(position), digest };
    let with = |asked: TokenMove, mark, forget: &[u64]| {
        let forget = forget.iter().copied().map(Position::new).collect();
        Commit { history: Some(NewMark { journal, mark, forget }), ..Commit::of([asked]) }
    };
    assert_eq!(view.history().await.expect("read"), None);
    let mut writer = view.writer().await.expect("a writer");
    writer.commit(&with(first, mark(3, u64::MAX), &[])).await.expect("committed");
    let token = view.tokens().await.expect("tokens")[0];
    writer.commit(&with(step(&token, 2), mark(5, 1), &[])).await.expect("committed");
    let token = view.tokens().await.expect("tokens")[0];
    writer.commit(&with(step(&token, 0), mark(5, 2), &[])).await.expect("committed");
    let kept = ViewHistory { journals: vec![journal], marks: vec![mark(3, u64::MAX), mark(5, 1)] };
    assert_eq!(view.history().await.expect("read"), Some(kept.clone()));
    let token = view.tokens().await.expect("tokens")[0];
    claim_all(&*view).await;
    refused(writer.commit(&with(step(&token, 1), mark(6, 3), &[3])).await);
    assert_eq!(view.history().await.expect("read"), Some(kept));
    let token = view.tokens().await.expect("tokens")[0];
    writer.commit(&with(step(&token, 2), mark(7, 1 << 63), &[3, 4])).await.expect("committed");
    let mut kept = ViewHistory { journals: vec![journal], marks: vec![mark(5, 1), mark(7, 1 << 63)] };
    assert_eq!(view.history().await.expect("read"), Some(kept.clone()));
    // Somebody has put another view in the place of this one.
    let token = view.tokens().await.expect("tokens")[0];
    let other = JournalId::from_bytes([8; 16]);
    let history = Some(NewMark { journal: other, mark: mark(9, 4), forget: vec![] });
    writer.commit(&Commit { history, ..Commit::of([step(&token, 2)]) }).await.expect("committed");
    kept.journals.push(other);
    kept.marks.push(mark(9, 4));
    assert_eq!(view.history().await.expect("read"), Some(kept));
}
