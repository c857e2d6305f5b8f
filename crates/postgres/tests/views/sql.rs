//! SQL of readers and handlers: what it may do, and the names and values that it takes.

use dacapo_model::{Position, SegmentCount, Timestamp};
use dacapo_store::contract::views::claim_all;
use dacapo_store::{ColumnKind, Commit, Index, Table, Value, Views, of_none};

use crate::setup::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_its_state_after_a_wrong_statement_too() {
    let world = World::new().await;
    let view = world.view().await;
    let mut token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    put(&mut *writer, &[note(0, "first")]).await.unwrap();
    writer.commit(&Commit::of([step(&token)])).await.unwrap();
    let mut reader = view.reader().await.unwrap();
    for round in 1..10 {
        token.position = token.position.next();
        put(&mut *writer, &[note(0, "later"), note(round, "later")]).await.unwrap();
        writer.commit(&Commit::of([step(&token)])).await.unwrap();
        let rows = reader.query("SELECT text FROM notes", &[]).await.unwrap().1;
        assert_eq!(rows, [[text("first")]]);
        invalid(reader.query("SELECT * FROM nowhere", &[]).await);
        invalid(reader.query("SELECT 1 / (id - id) FROM notes", &[]).await);
    }
    assert_eq!(reader.covers(), Position::new(1));
    assert_eq!(texts(&*view).await.len(), 10);
}

#[tokio::test]
async fn a_query_writes_nothing_whatever_it_calls() {
    let world = World::new().await;
    let view = world.view().await;
    let token = claim_all(&*view).await[0];
    run(
        &mut world.raw().await,
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS
         $$ INSERT INTO dacapo_notes_v1_1.notes VALUES (7, 'f') RETURNING 1 $$",
    )
    .await;
    let mut writer = view.writer().await.unwrap();
    let mut reader = view.reader().await.unwrap();
    let with = "WITH gone AS (DELETE FROM notes RETURNING id) SELECT * FROM gone";
    for sql in ["SELECT public.f()", with, "SELECT set_config('transaction_read_only', 'off', true)"] {
        invalid(writer.query(sql, &[]).await);
        invalid(reader.query(sql, &[]).await);
    }
    put(&mut *writer, &[note(1, "x")]).await.unwrap();
    invalid(writer.query("SELECT public.f()", &[]).await);
    // The transaction continues, and can write.
    invalid(writer.execute("INSERT INTO notes VALUES (1, 'twice')", &[]).await);
    assert_eq!(writer.execute("INSERT INTO notes VALUES (2, $1)", &[text("y")]).await.unwrap(), 1);
    writer.commit(&Commit::of([step(&token)])).await.unwrap();
    assert_eq!(texts(&*view).await, [text("x"), text("y")]);
    assert_eq!(reader.query("SELECT id FROM notes", &[]).await.unwrap(), (vec!["id".into()], vec![]));
}

/// The same text with parameters of other types is another statement.
#[tokio::test]
async fn parameters_are_read_as_what_they_are() {
    let world = World::new().await;
    let mut reader = world.view().await.reader().await.unwrap();
    let time = Value::Time(Timestamp::from_micros(1_700_000_000_123_456));
    for value in [Value::Null, Value::Integer(1), Value::Float(1.5), text("1"), Value::Boolean(true), time] {
        for _ in 0..2 {
            let rows = reader.query("SELECT $1", std::slice::from_ref(&value)).await.unwrap().1;
            assert_eq!(rows, [[value.clone()]]);
        }
    }
    let sql =
        "SELECT sum(i), avg(i), sum(i * 9223372036854775807) FILTER (WHERE i < 2) FROM generate_series(1, 2) AS i";
    let row = [Value::Integer(3), Value::Float(1.5), Value::Integer(i64::MAX)];
    assert_eq!(reader.query(sql, &[]).await.unwrap().1, [row]);
    assert!(invalid(reader.query("SELECT '1 day'::interval AS long", &[]).await).contains("cast it"));
    let asked = reader.query("SELECT id FROM notes WHERE id = ?", &[Value::Integer(1)]).await;
    assert!(invalid(asked).contains("parameters are $1, $2"));
}

/// Names that would be statements if they were not quoted, and values at their limits.
#[tokio::test]
async fn odd_names_and_extreme_values_come_back() {
    const ODD: Table = Table {
        name: "a\"; DROP SCHEMA dacapo CASCADE; --",
        columns: &[
            column("k') --", ColumnKind::Text),
            column("\"\"", ColumnKind::Integer),
            column("$1", ColumnKind::Float),
            column("E'\\'", ColumnKind::Bytes),
            column("{source}", ColumnKind::Time),
        ],
        key: &[0, 2],
        indexes: &[Index { name: "'; \" /*", columns: &[1], unique: false }],
    };
    let world = World::new().await;
    let views = world.node().await;
    let view = views.open(&id(1), &[ODD], SegmentCount::ONE).await.unwrap();
    let token = claim_all(&*view).await[0];
    let row = |key: &str, number, float, time| {
        let bytes = Value::Bytes(key.as_bytes().to_vec());
        vec![text(key), Value::Integer(number), Value::Float(float), bytes, Value::Time(Timestamp::from_micros(time))]
    };
    let times = Value::TIME_MICROS;
    let rows = vec![
        row("", i64::MIN, f64::NEG_INFINITY, *times.start()),
        row("", i64::MAX, f64::INFINITY, *times.end()),
        row(&"ü".repeat(1 << 9), -1, f64::MIN_POSITIVE, -1),
        row("'; --", 0, -1e308, 0),
    ];
    let mut sorted = rows.clone();
    sorted.sort_by(|a, b| ODD.row_order(a, b));
    let mut writer = view.writer().await.unwrap();
    writer.put(&ODD, &mut of_none(rows.clone())).await.unwrap();
    writer.index(&ODD, &ODD.indexes[0]).await.unwrap();
    assert_eq!(writer.load(&ODD, &ODD.key_of(&rows[1])).await.unwrap().as_ref(), Some(&rows[1]));
    writer.commit(&Commit::of([step(&token)])).await.unwrap();
    assert_eq!(view.missing_indexes(&[ODD]).await.unwrap(), []);
    let mut reader = view.reader().await.unwrap();
    assert_eq!(reader.select(&ODD, &[], 10).await.unwrap(), sorted);
    assert_eq!(reader.page(&ODD, Some(&ODD.key_of(&sorted[0])), 2).await.unwrap(), sorted[1..3]);
    let by_number = reader.select(&ODD, &[(1, Value::Integer(i64::MAX))], 10).await.unwrap();
    assert_eq!(by_number, rows[1..2]);
    let keys = rows.iter().map(|row| ODD.key_of(row));
    writer.delete(&ODD, &mut of_none(keys)).await.unwrap();
    assert_eq!(writer.load(&ODD, &ODD.key_of(&rows[1])).await.unwrap(), None);
    writer.rollback().await.unwrap();

    const LONG: &str = "a_name_of_more_than_the_63_bytes_that_the_database_keeps_of_one_";
    let long = Table { name: LONG, ..NOTES };
    assert!(invalid(views.open(&id(2), &[long], SegmentCount::ONE).await).contains("63"));
}

#[tokio::test]
async fn a_text_is_refused_only_for_the_character_that_no_text_has() {
    let world = World::new().await;
    let view = world.view().await;
    let token = claim_all(&*view).await[0];
    let mut writer = view.writer().await.unwrap();
    let large = "x".repeat(1 << 20);
    put(&mut *writer, &[note(1, &large)]).await.unwrap();
    writer.commit(&Commit::of([step(&token)])).await.unwrap();
    assert_eq!(texts(&*view).await, [Value::Text(large)]);
    let why = invalid(put(&mut *writer, &[note(1, "a\0")]).await);
    assert!(why.contains("notes.text") && why.contains("U+0000"), "{why}");
    let why = invalid(writer.execute("UPDATE notes SET text = $1", &[text("\0")]).await);
    assert!(why.contains("parameter $1") && why.contains("U+0000"), "{why}");
}
