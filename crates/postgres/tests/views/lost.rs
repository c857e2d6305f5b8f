//! Connections and answers that are lost, a server that restarts, statements that nobody waits for.

use std::sync::Arc;

use dacapo_model::{Position, SegmentCount};
use dacapo_postgres::testbed::{Durability, Server, Stop};
use dacapo_store::contract::views::claim_all;
use dacapo_store::{Commit, Views};

use crate::setup::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_connection_is_lost_leaves_nothing() {
    let world = World::new().await;
    let view = world.view().await;
    let token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    put(&mut *writer, &[note(1, "lost")]).await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE state = 'idle in transaction' AND datname = current_database()";
    run(&mut world.raw().await, kill).await;
    assert!(is_unavailable(writer.commit(&Commit::of([step(&token)])).await));
    let again = claim_all(&*view).await[0];
    assert_eq!((again.position, texts(&*view).await), (Position::START, vec![]));
    put(&mut *writer, &[note(1, "kept")]).await.unwrap();
    writer.commit(&Commit::of([step(&again)])).await.unwrap();
    assert_eq!(texts(&*view).await, [text("kept")]);
}

// I-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_by_claiming() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let proxy = proxy(dir.path(), world.server.socket());
    let through = dir.path().to_str().unwrap().replace('/', "%2F");
    let (host, rest) = world.url.split_once("/test").unwrap();
    let user = host.rsplit_once('@').unwrap().0;
    let view = node(&format!("{user}@{through}/test{rest}"), "dacapo").await;
    let view = view.open(&id(1), &[NOTES], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    put(&mut *writer, &[note(1, "kept")]).await.unwrap();
    proxy.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(is_unavailable(writer.commit(&Commit::of([step(&token)])).await));
    let again = claim_all(&*world.view().await).await[0];
    assert_eq!((again.position, again.epoch), (step(&token).to, token.epoch.next()));
    assert_eq!(texts(&*world.view().await).await, [text("kept")]);
}

/// A way to the server that, once the answer is true, gives no answer to COMMIT, though the server gets it.
fn proxy(dir: &std::path::Path, server: std::path::PathBuf) -> Arc<std::sync::atomic::AtomicBool> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::UnixListener::bind(dir.join(".s.PGSQL.5432")).unwrap();
    let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let cuts = Arc::clone(&armed);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (server, cuts) = (server.clone(), Arc::clone(&cuts));
            tokio::spawn(async move {
                let mut server = tokio::net::UnixStream::connect(server).await.unwrap();
                let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
                let mut commits = false;
                loop {
                    tokio::select! {
                        read = client.read(&mut asked) => {
                            let Ok(1..) = read else { return };
                            let asked = &asked[..read.unwrap()];
                            let commit = asked.windows(6).any(|word| word == b"COMMIT");
                            commits |= commit && cuts.load(std::sync::atomic::Ordering::SeqCst);
                            server.write_all(asked).await.unwrap();
                        }
                        read = server.read(&mut answered) => {
                            let Ok(1..) = read else { return };
                            if commits {
                                return;
                            }
                            drop(client.write_all(&answered[..read.unwrap()]).await);
                        }
                    }
                }
            });
        }
    });
    armed
}

/// Though the pool has connections from before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_fails_nothing_that_begins_after_it() {
    let world = World::on(Arc::new(Server::start(Durability::None))).await;
    let view = world.view().await;
    let mut token = claim_all(&*view).await[0];
    for stop in [Stop::Fast, Stop::Immediate] {
        futures::future::try_join_all((0..6).map(|_| view.reader())).await.unwrap();
        futures::future::try_join_all((0..6).map(|_| view.tokens())).await.unwrap();
        world.server.stop(stop);
        world.server.go_on();
        assert_eq!(view.tokens().await.unwrap(), [token]);
        let mut writer = view.writer().await.unwrap();
        put(&mut *writer, &[note(1, "x")]).await.unwrap();
        let asked = step(&token);
        writer.commit(&Commit::of([asked])).await.unwrap();
        assert_eq!(texts(&*view).await, [text("x")]);
        token = claim_all(&*view).await[0];
        assert_eq!(token.position, asked.to);
    }
}

/// Anyone who stops in the middle of a transaction keeps others waiting only for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_stops_is_ended_by_the_server() {
    let world = World::new().await;
    let (one, other) = (world.view().await, world.view().await);
    let first = claim_all(&*one).await[0];
    let mut stopped = one.writer().await.unwrap();
    put(&mut *stopped, &[note(1, "stopped")]).await.unwrap();
    let second = claim_all(&*other).await[0];
    let mut writer = other.writer().await.unwrap();
    put(&mut *writer, &[note(1, "owner")]).await.unwrap();
    writer.commit(&Commit::of([step(&second)])).await.unwrap();
    assert!(is_unavailable(stopped.commit(&Commit::of([step(&first)])).await));
    assert_eq!(texts(&*one).await, [text("owner")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_ends_on_the_server_too() {
    let world = World::new().await;
    let view = world.view().await;
    let mut writer = view.writer().await.unwrap();
    let long = "INSERT INTO notes SELECT i, '' FROM generate_series(1, 1000000000) AS i";
    given_up(&world, "%generate_series%", false, writer.execute(long, &[])).await;
    assert!(is_unavailable(put(&mut *writer, &[note(1, "x")]).await), "its transaction is gone");
    writer.rollback().await.unwrap();

    // One that waits for a lock.
    let mut raw = world.raw().await;
    let lock = "BEGIN; LOCK TABLE dacapo_notes_v1_1.notes, dacapo_notes_v1_1._dacapo_tokens IN ROW EXCLUSIVE MODE";
    run(&mut raw, lock).await;
    given_up(&world, "CREATE INDEX%", true, writer.index(&NOTES, &NOTES.indexes[0])).await;
    given_up(&world, "SET LOCAL%LOCK TABLE%", true, view.hold(Position::new(1))).await;
    run(&mut raw, "COMMIT").await;
    writer.rollback().await.unwrap();
    put(&mut *writer, &[note(1, "x")]).await.unwrap();
    assert_eq!(view.missing_indexes(&[NOTES]).await.unwrap(), [(0, 0)]);
    assert_eq!(view.tokens().await.unwrap()[0].held_for, None);
}

/// Gives a statement up once it is under way, and waits until it is no more.
async fn given_up<T>(world: &World, pattern: &str, waits: bool, statement: impl Future<Output = T>) {
    tokio::select! {
        _ = statement => panic!("it takes very long"),
        () = world.until_under_way(pattern, waits, 1) => {}
    }
    world.until_under_way(pattern, false, 0).await;
}
