//! The hold of a flip.

use super::*;

/// A hold returns the tokens at which everything stops, and the same commit is valid once the hold is lifted.
pub async fn a_hold_blocks_commits_until_it_is_lifted(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    let requested = Position::new(40);
    for _ in 0..2 {
        let tokens = view.hold(requested).await.expect("held");
        assert!(tokens.iter().all(|token| token.held_for == Some(requested) && token.position == Position::START));
    }
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    let held = refused(writer.commit(&Commit::of([first])).await);
    assert_eq!(held, TokenRefused::Held { segment: first.segment, held_for: requested });
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);

    view.lift(requested).await.expect("lifted");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let tokens = view.tokens().await.expect("tokens");
    assert_eq!((tokens[0].position, tokens[0].held_for), (first.to, None));
}

/// Two controllers of one flip: the one that lifts late, or marks late, does not undo the other's hold.
pub async fn a_later_hold_outlives_the_lifting_of_an_earlier_one(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let (earlier, later) = (Position::new(40), Position::new(44));
    let marks = |tokens: Vec<Token>| tokens.into_iter().map(|token| token.held_for).collect::<Vec<_>>();
    view.hold(earlier).await.expect("held");
    assert!(marks(view.hold(later).await.expect("held")).iter().all(|mark| *mark == Some(later)));
    assert!(marks(view.hold(earlier).await.expect("held")).iter().all(|mark| *mark == Some(later)));
    view.lift(earlier).await.expect("lifted");
    assert!(marks(view.tokens().await.expect("tokens")).iter().all(|mark| *mark == Some(later)));
    view.lift(later).await.expect("lifted");
    assert!(marks(view.tokens().await.expect("tokens")).iter().all(Option::is_none));
}

/// Only a write takes the write lock.
pub async fn a_hold_does_not_wait_for_a_reading_writer(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    writer.load(&ACCOUNTS, &[text("a-1")]).await.expect("read");
    writer.query("SELECT count(*) FROM accounts", &[]).await.expect("read");
    view.hold(Position::new(9)).await.expect("held");
    view.lift(Position::new(9)).await.expect("lifted");
    // A rollback releases the lock that the writer takes next, as a commit does.
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    writer.rollback().await.expect("rolled back");
    view.hold(Position::new(9)).await.expect("held");
    view.lift(Position::new(9)).await.expect("lifted");
    writer.commit(&Commit::of([first])).await.expect("committed");
}
