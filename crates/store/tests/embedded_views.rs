//! The embedded store's views: the contract, and what only files can show.
#![cfg(feature = "contract")]

use std::time::Duration;

use dacapo_model::{Position, ProjectionName, SegmentCount, TokenRefused, VersionId, ViewId};
use dacapo_store::contract::views::claim_all;
use dacapo_store::embedded::SqliteViews;
use dacapo_store::{
    Column, ColumnKind, Commit, CommitError, Index, StoreError, Table, Value, ViewWriter, Views, of_none,
};

const NOTES: Table = Table {
    name: "notes",
    columns: &[
        Column { name: "id", kind: ColumnKind::Integer, optional: false },
        Column { name: "text", kind: ColumnKind::Text, optional: false },
    ],
    key: &[0],
    indexes: &[],
};

mod contract {
    use super::SqliteViews;

    dacapo_store::views_contract!({
        let dir = tempfile::tempdir().unwrap();
        (SqliteViews::open(dir.path()).unwrap(), dir)
    });
}

fn id() -> ViewId {
    ViewId { projection: ProjectionName::new("notes").unwrap(), version: VersionId { code: 1, build: 1 } }
}

async fn write_one(views: &SqliteViews) {
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    writer.put(&NOTES, &mut of_none([vec![Value::Integer(1), Value::Text("kept".into())]])).await.unwrap();
    let asked = token.step(token.position.plus(1), 1);
    writer.commit(&Commit::of([asked])).await.unwrap();
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    write_one(&SqliteViews::open(dir.path()).unwrap()).await;
    let views = SqliteViews::open(dir.path()).unwrap();
    assert_eq!(views.list().await.unwrap(), [id()]);
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let mut reader = view.reader().await.unwrap();
    assert_eq!(reader.covers().get(), 1);
    assert!(reader.get(&NOTES, &[Value::Integer(1)]).await.unwrap().is_some());
}

/// How often another task of the runtime must have its turn while something is waited for.
const BEATS: usize = 100;

#[tokio::test(flavor = "current_thread")]
async fn a_write_lock_of_another_process_holds_up_neither_workers_nor_readers() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    write_one(&views).await;
    let view = views.find(&id()).await.unwrap().unwrap();
    let tokens = view.tokens().await.unwrap();
    let other = rusqlite::Connection::open(dir.path().join("notes/v1.1.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (claiming, seen) = (std::sync::Arc::clone(&view), tokens.clone());
    let claimed = tokio::spawn(async move { claiming.claim(None, &seen).await });
    for _ in 0..BEATS {
        tokio::task::yield_now().await;
    }
    // What reads does not wait for it, nor for the one here that does.
    assert_eq!(view.tokens().await.unwrap(), tokens);
    assert!(view.letters(Position::START, 10).await.unwrap().is_empty());
    assert!(view.refusals().await.unwrap().is_empty());
    assert_eq!(view.outbox(10).await.unwrap().pending, 0);
    assert_eq!(view.missing_indexes(&[NOTES]).await.unwrap(), []);
    assert_eq!(views.list().await.unwrap(), [id()]);
    assert!(views.find(&id()).await.unwrap().is_some());
    let mut reader = view.reader().await.unwrap();
    assert!(reader.get(&NOTES, &[Value::Integer(1)]).await.unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(claimed.await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn an_empty_file_is_no_view_and_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("notes");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("v1.1.db"), b"").unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    assert!(views.find(&id()).await.unwrap().is_none());
    assert!(views.list().await.unwrap().is_empty());
    write_one(&views).await;
    assert_eq!(views.list().await.unwrap(), [id()]);
}

#[tokio::test]
async fn a_damaged_file_is_reported_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write_one(&SqliteViews::open(dir.path()).unwrap()).await;
    let file = dir.path().join("notes/v1.1.db");
    std::fs::write(&file, b"this is not a database, and it is long enough to be looked at").unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    assert_eq!(views.list().await.unwrap(), [id()], "it is there, whatever is wrong with it");
    let Err(StoreError::Corrupt { place, found }) = views.find(&id()).await.map(drop) else { panic!("not noticed") };
    assert!(place.contains("notes/v1.1.db"), "{place}");
    assert!(found.contains("rebuild"), "{found}");
    views.drop_view(&id()).await.unwrap();
    write_one(&views).await;
}

/// A pipe that is opened waits for somebody who writes, without end.
#[tokio::test]
async fn what_is_no_file_is_told_by_name_and_not_opened() {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let dir = tempfile::tempdir().unwrap();
        write_one(&SqliteViews::open(dir.path()).unwrap()).await;
        let path = dir.path().join(format!("notes/v1.1.db{suffix}"));
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for views in [SqliteViews::look(dir.path()), SqliteViews::open(dir.path()).unwrap()] {
            let Err(StoreError::Corrupt { place, found }) = views.find(&id()).await.map(drop) else {
                panic!("not told")
            };
            assert!(place.ends_with(&format!("notes/v1.1.db{suffix}")) && found.contains("a pipe"), "{place}: {found}");
            assert_eq!(views.list().await.unwrap(), [id()], "it is there, whatever is wrong with it");
        }
        let views = SqliteViews::open(dir.path()).unwrap();
        views.drop_view(&id()).await.unwrap();
        write_one(&views).await;
    }
}

#[tokio::test]
async fn a_dropped_view_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let reader = view.reader().await.unwrap();
    views.drop_view(&id()).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("notes")).unwrap().count(), 0);
    drop(reader);
    let Err(StoreError::Unavailable { tried, .. }) = view.writer().await.map(drop) else { panic!("it is gone") };
    assert!(tried.contains("notes/v1.1.db"), "{tried}");
}

#[tokio::test]
async fn closing_a_dropped_view_does_not_touch_one_that_was_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    write_one(&views).await;
    let old = views.find(&id()).await.unwrap().unwrap();
    let (reader, writer) = (old.reader().await.unwrap(), old.writer().await.unwrap());
    // What was opened of it outlives it, in whatever order it goes.
    drop(old);
    views.drop_view(&id()).await.unwrap();
    write_one(&views).await;
    let anew = views.find(&id()).await.unwrap().unwrap();
    drop((reader, writer));
    assert!(dir.path().join("notes/v1.1.db-wal").exists(), "the new view's");
    assert_eq!(anew.reader().await.unwrap().covers().get(), 1);
}

#[tokio::test]
async fn a_transaction_that_sql_rolled_back_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    write_one(&views).await;
    let view = views.find(&id()).await.unwrap().unwrap();
    let token = view.tokens().await.unwrap()[0];
    let asked = token.step(token.position, 0);
    let row = |id| vec![Value::Integer(id), Value::Text("new".into())];
    let mut writer = view.writer().await.unwrap();
    writer.put(&NOTES, &mut of_none([row(2)])).await.unwrap();
    let twice = "INSERT OR ROLLBACK INTO notes VALUES (1, 'again')";
    assert!(matches!(writer.execute(twice, &[]).await, Err(StoreError::Invalid(_))));
    let after = writer.put(&NOTES, &mut of_none([row(3)])).await;
    assert!(matches!(after, Err(StoreError::Unavailable { .. })), "it would be committed on its own");
    assert!(matches!(
        writer.commit(&Commit::of([asked])).await,
        Err(CommitError::Store(StoreError::Unavailable { .. }))
    ));

    writer.put(&NOTES, &mut of_none([row(4)])).await.unwrap();
    writer.commit(&Commit::of([asked])).await.unwrap();
    let (_, rows) = view.reader().await.unwrap().query("SELECT id FROM notes ORDER BY id", &[]).await.unwrap();
    assert_eq!(rows, [[Value::Integer(1)], [Value::Integer(4)]]);
}

#[tokio::test]
async fn a_copied_file_is_not_taken_for_another_view() {
    let dir = tempfile::tempdir().unwrap();
    write_one(&SqliteViews::open(dir.path()).unwrap()).await;
    std::fs::copy(dir.path().join("notes/v1.1.db"), dir.path().join("notes/v1.2.db")).unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    let other = ViewId { version: VersionId { code: 1, build: 2 }, ..id() };
    let Err(StoreError::Invalid(why)) = views.find(&other).await.map(drop) else { panic!("not noticed") };
    assert!(why.contains("notes v1.1"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_a_writer_work_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let mut token = claim_all(&*view).await[0];
    let reading = tokio::spawn({
        let view = std::sync::Arc::clone(&view);
        async move {
            loop {
                let mut reader = view.reader().await.unwrap();
                let (_, rows) = reader.query("SELECT count(*) FROM notes", &[]).await.unwrap();
                // I-3: as many rows as the token says, in every state.
                let covers = i64::try_from(reader.covers().get()).unwrap();
                assert_eq!(rows, [[Value::Integer(covers)]]);
                if covers == 200 {
                    break;
                }
            }
        }
    });
    let mut writer = view.writer().await.unwrap();
    for number in 0..200 {
        writer.put(&NOTES, &mut of_none([vec![Value::Integer(number), Value::Text("n".into())]])).await.unwrap();
        let to = token.position.next();
        let asked = token.step(to, 1);
        writer.commit(&Commit::of([asked])).await.unwrap();
        token.position = to;
    }
    reading.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_that_open_one_view_share_it() {
    let dir = tempfile::tempdir().unwrap();
    let views = std::sync::Arc::new(SqliteViews::open(dir.path()).unwrap());
    let opened = (0..16).map(|_| {
        let views = std::sync::Arc::clone(&views);
        tokio::spawn(async move {
            let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
            loop {
                // Of those that saw the same token one gets it.
                let claimed = view.claim(None, &view.tokens().await.unwrap()).await.unwrap();
                if let Some(token) = claimed.first() {
                    return token.epoch.get();
                }
            }
        })
    });
    let mut epochs = Vec::new();
    for task in opened.collect::<Vec<_>>() {
        epochs.push(task.await.unwrap());
    }
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=16).collect::<Vec<_>>());
}

/// The tokens that a hold gives are where everything stops, though a writer commits all the while (I-6).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_past_what_a_hold_returned() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let mut token = claim_all(&*view).await[0];
    let (moved, mut moves) = tokio::sync::watch::channel(0_u64);
    let writing = tokio::spawn({
        let view = std::sync::Arc::clone(&view);
        async move {
            let mut writer = view.writer().await.unwrap();
            loop {
                let row = vec![Value::Integer(1), Value::Text(token.position.to_string())];
                writer.put(&NOTES, &mut of_none([row])).await.unwrap();
                let to = token.position.next();
                let asked = token.step(to, 1);
                match writer.commit(&Commit::of([asked])).await {
                    Ok(()) => token.position = to,
                    Err(CommitError::Refused(refused)) => return (token, refused),
                    Err(error) => panic!("{error}"),
                }
                moved.send_replace(to.get());
            }
        }
    });
    moves.wait_for(|moves| *moves > 20).await.unwrap();
    let held_for = Position::new(7);
    let held = view.hold(held_for).await.unwrap()[0];
    let (token, refused) = writing.await.unwrap();
    assert_eq!(refused, TokenRefused::Held { segment: token.segment, held_for });
    assert_eq!(held.position, token.position);
    assert_eq!(view.tokens().await.unwrap(), [held]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_nobody_waits_for_is_given_up() {
    const INDEXES: &[Index] = &[Index { name: "text", columns: &[1], unique: false }];
    const INDEXED: Table = Table { indexes: INDEXES, ..NOTES };
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[INDEXED], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    let rows = (0..50_000).map(|at| vec![Value::Integer(at), Value::Text(format!("{:05}", at * 7_919 % 50_000))]);
    writer.put(&INDEXED, &mut of_none(rows)).await.unwrap();
    let asked = token.step(token.position.plus(1), 1);
    writer.commit(&Commit::of([asked])).await.unwrap();

    let given_up = tokio::time::timeout(Duration::ZERO, writer.index(&INDEXED, &INDEXES[0])).await;
    assert!(given_up.is_err(), "it takes longer than no time");
    // Its transaction ends, and with it the right to write.
    let token = claim_all(&*view).await[0];
    assert_eq!(view.missing_indexes(&[INDEXED]).await.unwrap(), [(0, 0)]);
    let error = writer.index(&INDEXED, &INDEXES[0]).await.unwrap_err().to_string();
    assert!(error.contains("open another writer"), "{error}");
    let mut writer = view.writer().await.unwrap();
    writer.index(&INDEXED, &INDEXES[0]).await.unwrap();
    writer.commit(&Commit::of([token.step(token.position, 0)])).await.unwrap();
    assert_eq!(view.missing_indexes(&[INDEXED]).await.unwrap(), []);
}

/// What PostgreSQL keeps no text with.
#[tokio::test]
async fn a_text_may_have_any_character() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    let row = vec![Value::Integer(1), Value::Text("a\0b".into())];
    let mut writer = view.writer().await.unwrap();
    writer.put(&NOTES, &mut of_none([row.clone()])).await.unwrap();
    writer.commit(&Commit::of([token.step(Position::new(1), 1)])).await.unwrap();
    assert_eq!(view.reader().await.unwrap().get(&NOTES, &row[..1]).await.unwrap(), Some(row));
}

#[tokio::test]
async fn parameters_go_by_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await.unwrap();
    let mut reader = view.reader().await.unwrap();
    let values = [Value::Integer(1), Value::Integer(2)];
    for (sql, row) in [("SELECT $2, $1, $2", [2, 1, 2]), ("SELECT ?, ?, ?1", [1, 2, 1])] {
        let rows = reader.query(sql, &values).await.unwrap().1;
        assert_eq!(rows, [row.map(Value::Integer)], "{sql}");
    }
    for sql in ["SELECT $1, $3", "SELECT $1, $name", "SELECT $0, $1"] {
        let error = reader.query(sql, &values).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{sql}: {error}");
    }
}

/// Views of which nobody asks it, and of earlier builds, do without; what an earlier build continues to write is nobody's.
#[tokio::test]
async fn a_table_gets_the_column_of_segments_with_the_first_row_that_is_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let two = SegmentCount::new(2).unwrap();
    let note = |id: i64, text: &str| vec![Value::Integer(id), Value::Text(text.into())];
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[NOTES], two).await.unwrap();
    claim_all(&*view).await;
    let names = async |sql: &str| view.reader().await.unwrap().query(sql, &[]).await.unwrap().0;
    let land = async |mut writer: Box<dyn ViewWriter>| {
        let tokens = view.tokens().await.unwrap();
        let moves: Vec<_> = tokens.iter().map(|token| token.step(token.position.next(), 1)).collect();
        writer.commit(&Commit::of(moves)).await.unwrap();
    };
    let mut writer = view.writer().await.unwrap();
    writer.put(&NOTES, &mut of_none([note(1, "a"), note(2, "b")])).await.unwrap();
    assert_eq!(writer.execute("INSERT INTO notes VALUES (3, 'c')", &[]).await.unwrap(), 1);
    land(writer).await;
    assert_eq!(names("SELECT * FROM notes").await, ["id", "text"]);

    let of_one = Some(two.segment(1).unwrap());
    let mut writer = view.writer().await.unwrap();
    assert_eq!(writer.load_of(&NOTES, &[Value::Integer(1)]).await.unwrap(), Some((None, note(1, "a"))));
    // Taken back with the rows, and asked for again by the same writer.
    writer.put(&NOTES, &mut [(of_one, note(1, "x"))].into_iter()).await.unwrap();
    writer.rollback().await.unwrap();
    assert_eq!(names("SELECT * FROM notes").await, ["id", "text"]);
    assert_eq!(writer.load_of(&NOTES, &[Value::Integer(1)]).await.unwrap(), Some((None, note(1, "a"))));
    writer.put(&NOTES, &mut [(of_one, note(1, "x")), (of_one, note(2, "y"))].into_iter()).await.unwrap();
    land(writer).await;
    assert_eq!(names("SELECT * FROM notes").await, ["id", "text", "_dacapo_segment"]);
    let mut writer = view.writer().await.unwrap();
    let error = writer.execute("INSERT INTO notes VALUES (4, 'd')", &[]).await.unwrap_err().to_string();
    assert!(error.contains("name the columns"), "{error}");
    // As an earlier build writes it.
    let earlier = "INSERT OR REPLACE INTO notes (id, text) VALUES (2, 'z')";
    assert_eq!(writer.execute(earlier, &[]).await.unwrap(), 1);
    land(writer).await;

    drop((view, views));
    let views = SqliteViews::open(dir.path()).unwrap();
    let view = views.open(&id(), &[NOTES], two).await.unwrap();
    let mut writer = view.writer().await.unwrap();
    assert_eq!(writer.load_of(&NOTES, &[Value::Integer(1)]).await.unwrap(), Some((of_one, note(1, "x"))));
    assert_eq!(writer.load_of(&NOTES, &[Value::Integer(2)]).await.unwrap(), Some((None, note(2, "z"))));
    assert_eq!(writer.load_of(&NOTES, &[Value::Integer(3)]).await.unwrap(), Some((None, note(3, "c"))));
}
