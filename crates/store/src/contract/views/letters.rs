//! Refused events: the tries of them, and their letters.

use super::*;

pub(super) fn refusal(token: &Token, position: u64, attempts: u32) -> Refusal {
    Refusal {
        segment: token.segment,
        position: Position::new(position),
        attempts,
        error: "no such account".into(),
        since: Timestamp::from_micros(1_000),
        due: Timestamp::from_micros(2_000),
    }
}

pub(super) fn letter(token: &Token, position: u64, kind: LetterKind) -> Letter {
    Letter {
        position: Position::new(position),
        segment: token.segment,
        stream: StreamName::new("account-1").expect("a valid name"),
        event_type: EventType::new("deposited").expect("a valid name"),
        kind,
        error: "no such account".into(),
        attempts: 3,
        recorded: Timestamp::from_micros(5_000),
        wish: None,
    }
}

/// The tries of an event are kept with its segment, for every member that claims it, until the token covers the event.
pub async fn a_refusal_stays_until_its_event_is_covered(views: &dyn Views) {
    let view = made(views).await;
    let tokens = claim_all(&*view).await;
    let mut writer = view.writer().await.expect("a writer");
    let stops = |attempts| Commit {
        moves: vec![tokens[0].step(Position::START, 0)],
        refused: vec![refusal(&tokens[0], 4, attempts)],
        ..Commit::default()
    };
    for attempts in 1..=2 {
        writer.commit(&stops(attempts)).await.expect("kept");
        assert_eq!(view.refusals().await.expect("read"), [refusal(&tokens[0], 4, attempts)]);
    }
    // Another segment moves, and this one moves up to the event.
    let both = [tokens[0].step(Position::new(3), 3), tokens[1].step(Position::new(9), 6)];
    writer.commit(&Commit::of(both)).await.expect("committed");
    assert_eq!(view.refusals().await.expect("read").len(), 1);
    let token = claim_all(&*view).await[0];
    assert_eq!(view.refusals().await.expect("read").len(), 1);
    writer.commit(&Commit::of([token.step(Position::new(4), 1)])).await.expect("committed");
    assert_eq!(view.refusals().await.expect("read"), []);
}

/// Letters are returned in order. A wish is recorded on the requested letters. A letter that is written again replaces
/// the earlier one, and is dropped even so if that was given up meanwhile. A reader has the letters of its state.
pub async fn letters_are_kept_wished_for_and_settled(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    let behind = LetterKind::Blocked { first: Position::new(2) };
    let other = Letter {
        stream: StreamName::new("account-2").expect("a valid name"),
        ..letter(&token, 4, LetterKind::Skipped)
    };
    let letters = vec![letter(&token, 2, LetterKind::Refused), letter(&token, 3, behind), other];
    let mut writer = view.writer().await.expect("a writer");
    let commit = Commit { moves: vec![first], letters: letters.clone(), ..Commit::default() };
    writer.commit(&commit).await.expect("committed");
    assert_eq!(view.letters(Position::START, 10).await.expect("read"), letters);
    let mut before = view.reader().await.expect("a reader");
    assert_eq!(view.letters(Position::new(2), 1).await.expect("read"), letters[1..2]);
    // No store has numbers that large.
    for beyond in [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX].map(Position::new) {
        assert_eq!(view.letters(beyond, 10).await.expect("read"), []);
        assert_eq!(view.wish(&WhichLetters::One(beyond), Some(Wish::Retry)).await.expect("recorded"), 0);
    }

    let stream = WhichLetters::Stream(letters[0].stream.clone());
    assert_eq!(view.wish(&stream, Some(Wish::Retry)).await.expect("recorded"), 2);
    assert_eq!(view.wish(&WhichLetters::One(Position::new(4)), Some(Wish::Drop)).await.expect("recorded"), 1);
    assert_eq!(view.wish(&WhichLetters::One(Position::new(7)), Some(Wish::Drop)).await.expect("recorded"), 0);
    let wishes = |letters: Vec<Letter>| letters.into_iter().map(|letter| letter.wish).collect::<Vec<_>>();
    let recorded = wishes(view.letters(Position::START, 10).await.expect("read"));
    assert_eq!(recorded, [Some(Wish::Retry), Some(Wish::Retry), Some(Wish::Drop)]);
    assert_eq!(view.wish(&WhichLetters::All, None).await.expect("taken back"), 3);
    assert_eq!(view.wish(&WhichLetters::One(Position::new(2)), Some(Wish::Drop)).await.expect("recorded"), 1);

    let again = Letter { attempts: 4, ..letters[0].clone() };
    let token = view.tokens().await.expect("tokens")[0];
    let commit = Commit {
        moves: vec![token.step(token.position, 0)],
        letters: vec![again.clone()],
        settled: vec![Position::new(3), Position::new(4)],
        ..Commit::default()
    };
    writer.commit(&commit).await.expect("committed");
    let given_up = Letter { wish: Some(Wish::Drop), ..again };
    assert_eq!(view.letters(Position::START, 10).await.expect("read"), [given_up]);
    assert_eq!(before.letters(Position::START, 10).await.expect("read"), letters, "a reader sees those of its state");
    assert_eq!(before.letters(Position::new(2), 1).await.expect("read"), letters[1..2]);
}

/// I-4: a commit that does not land stores nothing.
pub async fn what_is_kept_of_refused_events_is_fenced_as_rows_are(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    claim_all(&*view).await;
    let mut zombie = view.writer().await.expect("a writer");
    let commit = Commit {
        moves: vec![first],
        refused: vec![refusal(&token, 4, 1)],
        letters: vec![letter(&token, 2, LetterKind::Refused)],
        ..Commit::default()
    };
    assert!(matches!(refused(zombie.commit(&commit).await), TokenRefused::Fenced { .. }));
    assert_eq!(view.refusals().await.expect("read"), []);
    assert_eq!(view.letters(Position::START, 10).await.expect("read"), []);
}
