//! What nodes share on one database: views, schemas and the outbox.

use std::time::Duration;

use dacapo_model::{EffectOutcome, MemberId, NewEffect, ProjectionName, SegmentCount, StreamName, Timestamp, ViewId};
use dacapo_store::contract::views::claim_all;
use dacapo_store::{Commit, Views};

use crate::setup::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_open_one_view_at_once_make_one() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for _ in 0..8 {
        nodes.push(world.node().await);
    }
    let (id, tables) = (id(1), [NOTES]);
    let opened = nodes.iter().map(|views| views.open(&id, &tables, SegmentCount::ONE));
    let opened = futures::future::join_all(opened).await;
    for (at, view) in opened.into_iter().enumerate() {
        let epoch = claim_all(&*view.unwrap()).await[0].epoch.get();
        assert_eq!(epoch, at as u64 + 1, "they share its tokens");
    }
    let dropped = futures::future::join_all(nodes.iter().map(|views| views.drop_view(&id))).await;
    dropped.into_iter().for_each(|dropped| dropped.unwrap());
    assert_eq!(nodes[0].list().await.unwrap(), []);
}

/// Though the names of their schemas begin alike.
#[tokio::test]
async fn a_journal_has_its_own_views_only() {
    let world = World::new().await;
    let (one, other) = (world.node().await, node(&world.url, "dacapo_x").await);
    let of = |projection: &str| ViewId { projection: ProjectionName::new(projection).unwrap(), ..id(1) };
    other.open(&of("y"), &[NOTES], SegmentCount::ONE).await.unwrap();
    assert_eq!((one.list().await.unwrap(), other.list().await.unwrap()), (vec![], vec![of("y")]));
    assert!(invalid(one.find(&of("x_y")).await).contains("y v1.1"));
    one.drop_view(&of("x_y")).await.unwrap();
    assert_eq!(other.list().await.unwrap(), [of("y")]);
}

#[tokio::test]
async fn a_user_needs_no_more_than_to_make_schemas() {
    let world = World::new().await;
    let name = world.url.rsplit('/').next().unwrap().split('?').next().unwrap();
    let mut raw = world.raw().await;
    run(&mut raw, &format!("CREATE ROLE guest LOGIN; GRANT CREATE ON DATABASE {name} TO guest")).await;
    let views = node(&world.server.url_of("guest", name), "dacapo").await;
    let view = views.open(&id(1), &[NOTES], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    put(&mut *writer, &[note(1, "x")]).await.unwrap();
    writer.commit(&Commit::of([step(&token)])).await.unwrap();
    // Its own connections are cut off where one keeps a lock.
    put(&mut *writer, &[note(1, "y")]).await.unwrap();
    views.drop_view(&id(1)).await.unwrap();
    run(&mut raw, &format!("REVOKE CREATE ON DATABASE {name} FROM guest")).await;
    let Err(error) = views.open(&id(1), &[NOTES], SegmentCount::ONE).await else { panic!("it may not") };
    assert!(error.to_string().contains("GRANT CREATE ON DATABASE"), "{error}");
}

/// One that is emitted while the one before it is settled does not stay there without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_effect_is_due_some_time() {
    const EFFECTS: u64 = 60;
    let world = World::new().await;
    let (view, reactor) = (world.view().await, world.view().await);
    let mut token = claim_all(&*view).await[0];
    let emitting = tokio::spawn(async move {
        let mut writer = view.writer().await.unwrap();
        for _ in 0..EFFECTS {
            let asked = step(&token);
            let effect = NewEffect {
                position: asked.to,
                ordinal: 0,
                segment: token.segment,
                stream: StreamName::new("a-1").unwrap(),
                name: "mail".into(),
                payload: vec![],
            };
            let commit = Commit { effects: vec![effect], ..Commit::of([asked]) };
            writer.commit(&commit).await.unwrap();
            token.position = asked.to;
        }
    });
    let mut made = 0;
    let seen = reactor.effects_claim().await.unwrap();
    let claim = seen.taken(MemberId::from_bytes([1; 16]), Timestamp::from_micros(1));
    assert!(reactor.claim_effects(seen, claim).await.unwrap());
    loop {
        let all_emitted = emitting.is_finished();
        let due = reactor.effects_due(Timestamp::from_micros(0), Duration::from_secs(60), 10).await.unwrap();
        if all_emitted && due.is_empty() {
            break;
        }
        for due in due {
            made += 1;
            assert_eq!(due.effect.position.get(), made, "in the order of their events");
            reactor.settle_effects(claim, &[(due.number, EffectOutcome::Done)]).await.unwrap();
        }
    }
    emitting.await.unwrap();
    assert_eq!((made, reactor.outbox(1).await.unwrap().pending), (EFFECTS, 0));
}
