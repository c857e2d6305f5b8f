//! Claims, holds and commits of several nodes at once.

use dacapo_model::{Applied, Position, SegmentCount, TokenMove, TokenRefused};
use dacapo_store::contract::views::claim_all;
use dacapo_store::{Commit, CommitError, Value, Views};

use crate::setup::*;

// I-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_epoch_never_lands_though_it_wrote_before_the_claim() {
    let world = World::new().await;
    let (one, other) = (world.view().await, world.view().await);
    let first = claim_all(&*one).await[0];
    let mut zombie = one.writer().await.unwrap();
    put(&mut *zombie, &[note(1, "zombie"), note(2, "zombie")]).await.unwrap();

    let second = claim_all(&*other).await[0];
    assert_eq!(second.epoch, first.epoch.next(), "a claim does not wait for rows");
    let mut writer = other.writer().await.unwrap();
    let rows = [note(1, "owner")];
    let (written, landed) = tokio::join!(put(&mut *writer, &rows), async {
        world.until_under_way("INSERT INTO%", true, 1).await;
        zombie.commit(&Commit::of([step(&first)])).await
    });
    assert!(is_fenced(&landed), "{landed:?}");
    written.unwrap();
    writer.commit(&Commit::of([step(&second)])).await.unwrap();
    assert_eq!(texts(&*one).await, [text("owner")]);
}

// I-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waited_for_its_token_judges_it_as_it_is_then() {
    let world = World::new().await;
    let view = world.view().await;
    let mut raw = world.raw().await;
    for (change, lands) in [("owner = NULL", true), ("epoch = epoch + 1", false), ("held_for = 7", false)] {
        let token = claim_all(&*view).await[0];
        run(&mut raw, &format!("BEGIN; UPDATE dacapo_notes_v1_1._dacapo_tokens SET {change}")).await;
        let mut writer = view.writer().await.unwrap();
        put(&mut *writer, &[note(1, change)]).await.unwrap();
        let commit = Commit::of([step(&token)]);
        let (landed, ()) = tokio::join!(writer.commit(&commit), async {
            world.until_under_way("WITH asked AS%", true, 1).await;
            run(&mut raw, "COMMIT").await;
        });
        assert_eq!(landed.is_ok(), lands, "{change}: {landed:?}");
        assert_eq!(texts(&*view).await, [text("owner = NULL")]);
        let refused = matches!(landed, Err(CommitError::Refused(_)));
        assert!(lands || refused, "{landed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_waits_for_a_commit_under_way() {
    let world = World::new().await;
    let view = world.view().await;
    let token = claim_all(&*view).await[0];
    let mut raw = world.raw().await;
    run(&mut raw, "BEGIN; UPDATE dacapo_notes_v1_1._dacapo_tokens SET position = 5").await;
    let (held, ()) = tokio::join!(view.hold(Position::new(9)), async {
        world.until_under_way("SET LOCAL%LOCK TABLE%", true, 1).await;
        run(&mut raw, "COMMIT").await;
    });
    assert_eq!(held.unwrap()[0].position, Position::new(5));
    let token = TokenMove { from: Position::new(5), to: Position::new(6), ..step(&token) };
    let landed = view.writer().await.unwrap().commit(&Commit::of([token])).await;
    assert!(matches!(landed, Err(CommitError::Refused(TokenRefused::Held { .. }))), "{landed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_past_what_a_hold_returned() {
    let world = World::new().await;
    let (view, control) = (world.view().await, world.view().await);
    let token = claim_all(&*view).await[0];
    let writing = tokio::spawn(async move {
        let (mut token, mut writer) = (token, view.writer().await.unwrap());
        while token.position < Position::new(200) {
            put(&mut *writer, &[note(1, "x")]).await.unwrap();
            match writer.commit(&Commit::of([step(&token)])).await {
                Ok(()) => token.position = token.position.next(),
                Err(CommitError::Refused(TokenRefused::Held { .. })) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    });
    for mark in 1..20 {
        let held = control.hold(Position::new(mark)).await.unwrap();
        for _ in 0..5 {
            assert_eq!(control.tokens().await.unwrap(), held);
        }
        control.lift(Position::new(mark)).await.unwrap();
    }
    writing.await.unwrap();
}

/// A copy sees one state, so it cannot lock what changed meanwhile; what that means is told all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_overtaken_by_a_claim_is_refused() {
    let world = World::new().await;
    let (source, views) = (world.view().await, world.node().await);
    let view = views.open(&id(2), &[NOTES], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    let commit = Commit::of([TokenMove { applied: Applied::default(), ..step(&token) }]);

    writer.attach(&source.copy().await.unwrap()).await.unwrap();
    view.hold(Position::new(3)).await.unwrap();
    view.lift(Position::new(3)).await.unwrap();
    assert!(is_unavailable(writer.commit(&commit).await));

    let attached = writer.attach(&source.copy().await.unwrap()).await.unwrap();
    for sql in
        ["DELETE FROM {source}.notes", "WITH a AS (SELECT FROM {source}.notes FOR UPDATE) UPDATE notes SET id = 1"]
    {
        let why = invalid(writer.execute(&sql.replace("{source}", &attached.schema), &[]).await);
        assert!(why.contains("only to be read"), "{why}");
    }
    claim_all(&*view).await;
    let landed = writer.commit(&commit).await;
    assert!(is_fenced(&landed), "{landed:?}");
}

/// I-3: two nodes have rows of their own in memory, so one would undo what the other did.
#[tokio::test]
async fn a_row_of_one_segment_is_not_written_or_deleted_for_another() {
    let world = World::new().await;
    let count = SegmentCount::new(3).unwrap();
    let (one, other) = (world.node().await, world.node().await);
    let (one, other) = (one.open(&id(1), &[NOTES], count).await, other.open(&id(1), &[NOTES], count).await);
    let (one, other) = (one.unwrap(), other.unwrap());
    let tokens = claim_all(&*one).await;
    let of = |segment: u16, row: Vec<Value>| (Some(count.segment(segment).unwrap()), row);
    let mut writer = one.writer().await.unwrap();
    let rows = [of(0, note(1, "of 0")), of(1, note(2, "of 1")), (None, note(3, "nobody's"))];
    writer.put(&NOTES, &mut rows.into_iter()).await.unwrap();
    writer.commit(&Commit::of(tokens.iter().map(step).collect::<Vec<_>>())).await.unwrap();

    let mut writer = other.writer().await.unwrap();
    let rows = [of(1, note(3, "of 1 now")), of(0, note(1, "of 0 still"))];
    writer.put(&NOTES, &mut rows.into_iter()).await.unwrap();
    let why = invalid(writer.put(&NOTES, &mut [of(2, note(2, "of 2"))].into_iter()).await);
    assert!(why.contains("row Integer(2) of table notes is written by events of segments 1 and 2"), "{why}");
    writer.rollback().await.unwrap();
    let why = invalid(writer.delete(&NOTES, &mut [of(0, vec![Value::Integer(2)])].into_iter()).await);
    assert!(why.contains("segments 1 and 0"), "{why}");
    writer.rollback().await.unwrap();
    writer
        .delete(&NOTES, &mut [of(1, vec![Value::Integer(2)]), of(0, vec![Value::Integer(9)])].into_iter())
        .await
        .unwrap();
    writer.rollback().await.unwrap();
    assert_eq!(texts(&*one).await, [text("of 0"), text("of 1"), text("nobody's")]);
}
