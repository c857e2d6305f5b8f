//! What moves a token, and what keeps it where it is.

use super::*;

/// I-3: readers see nothing before the commit, and rows and token together after it.
pub async fn rows_and_tokens_commit_together(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
    assert_eq!(view.tokens().await.expect("tokens")[0].position, Position::START);

    writer.commit(&Commit::of([first])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 5)));
    let tokens = view.tokens().await.expect("tokens");
    assert_eq!((tokens[0].position, tokens[1].position), (Position::new(5), Position::START));
    assert_eq!(view.reader().await.expect("a reader").covers(), Position::START);

    // The writer continues with another transaction, and a rollback leaves nothing.
    put(&mut *writer, &ACCOUNTS, vec![account("a-2", "bob", 1)]).await;
    writer.rollback().await.expect("rolled back");
    writer.commit(&Commit::of([step(&tokens[0], 1)])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-2")]).await, None);
    assert_eq!(view.tokens().await.expect("tokens")[0].position, Position::new(6));
}

/// I-4: the statement that moves the token demands epoch and start.
pub async fn a_move_of_another_start_or_epoch_lands_nothing(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let wrong = [
        TokenMove { epoch: Epoch::new(0), ..first },
        TokenMove { epoch: first.epoch.next(), ..first },
        TokenMove { from: Position::new(1), ..first },
    ];
    let mut writer = view.writer().await.expect("a writer");
    for asked in wrong {
        put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
        let stored = view.tokens().await.expect("tokens")[0];
        let expected = TokenRefused::Fenced { segment: asked.segment, asked: asked.into(), stored: stored.into() };
        assert_eq!(refused(writer.commit(&Commit::of([asked])).await), expected);
        assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
    }
    writer.commit(&Commit::of([first])).await.expect("the right move lands");
    let backwards = TokenMove { from: first.to, to: first.from, ..first };
    assert!(matches!(refused(writer.commit(&Commit::of([backwards])).await), TokenRefused::Fenced { .. }));
}

/// I-4: a writer that lost its claim while it worked is refused, and the new one is not disturbed.
pub async fn a_claim_between_begin_and_commit_fences(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut zombie = view.writer().await.expect("a writer");
    assert_eq!(zombie.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), None);

    let tokens = claim_all(&*view).await;
    assert_eq!(tokens[0].epoch, first.epoch.next());
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 7)]).await;
    writer.commit(&Commit::of([step(&tokens[0], 5)])).await.expect("committed");

    put(&mut *zombie, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    assert!(matches!(refused(zombie.commit(&Commit::of([first])).await), TokenRefused::Fenced { .. }));
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 7)));
}

/// I-4: a claim names the epoch that was seen, so of two members that saw the same one, one gets the segment.
pub async fn segments_are_claimed_one_by_one_and_by_one_of_two(views: &dyn Views) {
    let view = made(views).await;
    let (one, two) = (MemberId::from_bytes([1; 16]), MemberId::from_bytes([2; 16]));
    let seen = view.tokens().await.expect("tokens");
    assert_eq!(seen[0].claimed_by, None);
    let first = view.claim(Some(one), &seen[..1]).await.expect("claimed");
    assert_eq!(first, [Token { epoch: seen[0].epoch.next(), claimed_by: Some(one), ..seen[0] }]);
    let second = view.claim(Some(two), &seen).await.expect("claimed");
    assert_eq!(second, [Token { epoch: seen[1].epoch.next(), claimed_by: Some(two), ..seen[1] }], "the first is taken");
    assert_eq!(view.tokens().await.expect("tokens"), [first[0], second[0]]);

    // Each writes under its own claim.
    let mut writer = view.writer().await.expect("a writer");
    writer.commit(&Commit::of([step(&first[0], 5)])).await.expect("committed");
    writer.commit(&Commit::of([step(&second[0], 4)])).await.expect("committed");

    // A released segment has no member, and is fenced.
    let moved = view.tokens().await.expect("tokens");
    let free = view.claim(None, &moved[..1]).await.expect("released");
    assert_eq!((free.len(), free[0].claimed_by), (1, None));
    assert!(matches!(refused(writer.commit(&Commit::of([step(&moved[0], 1)])).await), TokenRefused::Fenced { .. }));
    writer.commit(&Commit::of([step(&moved[1], 1)])).await.expect("the other one's is not touched");
    assert_eq!(view.claim(Some(one), &moved[..1]).await.expect("tried"), [], "that was seen before it was released");
}

/// I-4, I-12: after a revocation nothing of an earlier claim lands.
pub async fn a_revoked_claim_lands_nothing(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    view.revoke().await.expect("revoked");
    assert!(view.tokens().await.expect("tokens").iter().all(|token| token.claimed_by.is_none()));
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    assert!(matches!(refused(writer.commit(&Commit::of([first])).await), TokenRefused::Fenced { .. }));
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
}

/// A token moves up to its cap, and stays there, but never past it.
pub async fn a_token_stops_at_its_cap(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let cap = Position::new(4);
    let capped = view.cap(Some(cap)).await.expect("capped");
    assert!(capped.iter().all(|token| token.cap == Some(cap)));
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    let expected = TokenRefused::Capped { segment: first.segment, cap };
    assert_eq!(refused(writer.commit(&Commit::of([first])).await), expected);
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
    writer.commit(&Commit::of([TokenMove { to: cap, ..first }])).await.expect("it moves up to the cap");
    let token = view.cap(Some(Position::new(2))).await.expect("capped")[0];
    writer.commit(&Commit::of([token.step(token.position, 0)])).await.expect("what is only recorded moves nothing");
    let token = view.cap(None).await.expect("no cap")[0];
    assert_eq!((token.cap, token.position), (None, cap));
    writer.commit(&Commit::of([step(&token, 1)])).await.expect("it goes on");
}

/// I-4, I-7: the position that was shown stays marked, and one request moves a segment back only once.
pub async fn a_token_goes_back_only_for_a_new_replay(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    writer.commit(&Commit::of([first])).await.expect("committed");
    let token = view.tokens().await.expect("tokens")[0];
    assert_eq!(token.applied, Applied { after: Position::START, events: 5 });

    let mark = |request, through| Some(ReplayMark { request: Position::new(request), through: Position::new(through) });
    let back = TokenMove {
        to: Position::new(1),
        applied: Applied::default(),
        replay: mark(9, 5),
        ..token.step(token.position, 0)
    };
    let hidden = TokenMove { replay: mark(9, 4), ..back };
    assert!(matches!(refused(writer.commit(&Commit::of([hidden])).await), TokenRefused::Fenced { .. }));
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 0)]).await;
    writer.commit(&Commit::of([back])).await.expect("it goes back, with what its reset wrote");
    let token = view.tokens().await.expect("tokens")[0];
    assert_eq!((token.position, token.replay, token.applied), (back.to, back.replay, back.applied));
    assert!(token.replays());
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 0)));

    writer.commit(&Commit::of([token.step(Position::new(3), 2)])).await.expect("it goes on");
    let token = view.tokens().await.expect("tokens")[0];
    let again = TokenMove { to: Position::START, replay: mark(9, 5), ..token.step(token.position, 0) };
    assert!(matches!(refused(writer.commit(&Commit::of([again])).await), TokenRefused::Fenced { .. }));
    let lost = TokenMove { replay: None, ..token.step(Position::new(4), 1) };
    assert!(matches!(refused(writer.commit(&Commit::of([lost])).await), TokenRefused::Fenced { .. }));
    let newer = TokenMove { to: Position::START, replay: mark(12, 5), ..token.step(token.position, 0) };
    writer.commit(&Commit::of([newer])).await.expect("a newer request sends it back again");
}

/// I-4: either all moves of a commit land, or none.
pub async fn a_refused_move_of_one_segment_refuses_all(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let tokens = view.tokens().await.expect("tokens");
    let wrong = TokenMove { epoch: Epoch::UNCLAIMED, ..step(&tokens[1], 5) };
    let mut writer = view.writer().await.expect("a writer");
    refused(writer.commit(&Commit::of([first, wrong])).await);
    assert_eq!(view.tokens().await.expect("tokens"), tokens);
    writer.commit(&Commit::of([first, step(&tokens[1], 5)])).await.expect("committed");
    assert_eq!(view.reader().await.expect("a reader").covers(), Position::new(5));
}
