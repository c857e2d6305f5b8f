//! Rows: what they hold, how they are written, found and paged.

use super::*;

/// Values are read back as they were written, including extreme ones and NULL.
pub async fn every_kind_of_value_comes_back(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let time = |micros| Value::Time(Timestamp::from_micros(micros));
    let columns: [Vec<Value>; 8] = [
        vec![text(""), text("straße ✓ 🦀"), text("a\u{1}b\n'\"")],
        vec![Value::Integer(i64::MIN), Value::Integer(-1), Value::Integer(i64::MAX)],
        vec![Value::Float(f64::MIN), Value::Float(1.0), Value::Float(f64::INFINITY)],
        vec![Value::Boolean(true), Value::Boolean(false), Value::Boolean(true)],
        vec![Value::Bytes(vec![]), Value::Bytes(vec![0, 255]), Value::Bytes(b"{}".to_vec())],
        vec![time(-1), time(0), time(1_700_000_000_123_456)],
        vec![Value::Uuid([0; 16]), Value::Uuid([255; 16]), Value::Uuid(*b"0123456789abcdef")],
        vec![Value::Json("null".into()), Value::Json(r#"{"a": [1, "ü"]}"#.into()), Value::Json("\"\"".into())],
    ];
    let row = |at: i64, value: &dyn Fn(usize) -> Value| -> Vec<Value> {
        [Value::Integer(at)].into_iter().chain((0..columns.len()).map(value)).collect()
    };
    let mut rows: Vec<Vec<Value>> =
        (0..3).map(|at| row(at as i64 - 1, &|column| columns[column][at].clone())).collect();
    rows.push(row(i64::MAX, &|_| Value::Null));
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &KINDS, rows.clone()).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    assert_eq!(reader.select(&KINDS, &[], 10).await.expect("read"), rows);
    for row in rows {
        assert_eq!(writer.load(&KINDS, &row[..1]).await.expect("read").as_ref(), Some(&row));
        let wanted: Vec<(usize, Value)> = row.iter().cloned().enumerate().collect();
        assert_eq!(reader.select(&KINDS, &wanted, 10).await.expect("read"), [row]);
    }
}

/// A value that does not fit its column is refused with the column's name, and so is a value that no store keeps.
pub async fn a_value_of_another_kind_is_refused(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    let mut refuse = async |table: &Table, row: Vec<Value>, name: &str| {
        let why = invalid(writer.put(table, &mut of_none(vec![row])).await);
        assert!(why.contains(name), "{why}");
        writer.rollback().await.expect("rolled back");
    };
    refuse(&ACCOUNTS, vec![text("a"), text("ann"), text("5")], "accounts.balance").await;
    refuse(&ACCOUNTS, vec![text("a"), Value::Null, Value::Integer(1)], "accounts.owner").await;
    let mut row = vec![Value::Null; 9];
    row[0] = Value::Integer(1);
    row[3] = Value::Float(f64::NAN);
    refuse(&KINDS, row.clone(), "NaN").await;
    row[3] = Value::Null;
    row[6] = Value::Time(Timestamp::from_micros(i64::MAX));
    refuse(&KINDS, row, "9999").await;
}

/// Upserts replace every column, for any number of rows. Deletes remove the rows that exist.
pub async fn rows_are_written_whole_and_in_bulk(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    for count in [0, 1, 2, 63, 64, 65, 1_000] {
        let rows = |owner: &str| (0..count).map(|at| account(&format!("{at:04}"), owner, at)).collect::<Vec<_>>();
        put(&mut *writer, &ACCOUNTS, rows("ann")).await;
        put(&mut *writer, &ACCOUNTS, rows("bob")).await;
        let bobs = writer.query("SELECT id, owner, balance FROM accounts ORDER BY id", &[]).await.expect("read");
        assert_eq!(bobs, rows("bob"));
    }
    // Twice in one call: the later row is kept.
    put(&mut *writer, &ACCOUNTS, vec![account("0000", "x", 1), account("0000", "y", 2)]).await;
    let keys = (1..2_000).map(|at| vec![text(&format!("{at:04}"))]).collect::<Vec<_>>();
    writer.delete(&ACCOUNTS, &mut of_none(keys)).await.expect("deleted");
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    assert_eq!(reader.select(&ACCOUNTS, &[], 10).await.expect("read"), [account("0000", "y", 2)]);
}

/// Keys may have several columns, in the order of the key. A unique index refuses a second row with its value.
pub async fn rows_have_composite_keys(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let entry = |number: i64, book: &str, note: Value| vec![Value::Integer(number), text(book), note];
    let mut writer = view.writer().await.expect("a writer");
    for _ in 0..2 {
        put(&mut *writer, &MARKS, vec![vec![Value::Uuid([7; 16])]]).await;
    }
    let rows = vec![entry(1, "b", Value::Null), entry(2, "a", text("x")), entry(1, "a", Value::Null)];
    put(&mut *writer, &ENTRIES, rows.clone()).await;
    let key = [text("a"), Value::Integer(2)];
    assert_eq!(writer.load(&ENTRIES, &key).await.expect("read").as_ref(), Some(&rows[1]));
    writer.delete(&ENTRIES, &mut of_none([key.to_vec()])).await.expect("deleted");
    assert_eq!(writer.load(&ENTRIES, &key).await.expect("read"), None);
    put(&mut *writer, &ENTRIES, rows.clone()).await;
    writer.commit(&Commit::of([first])).await.expect("committed");

    let mut reader = view.reader().await.expect("a reader");
    let by_key = [&rows[2], &rows[1], &rows[0]].map(Clone::clone);
    assert_eq!(reader.select(&ENTRIES, &[], 10).await.expect("read"), by_key);
    let why = invalid(writer.put(&ENTRIES, &mut of_none([entry(9, "z", text("x"))])).await);
    assert!(why.contains("where"), "{why}");
}

/// A writer finds the row that has a unique value. A value that moves from row to row is deleted first.
pub async fn rows_are_found_by_what_only_one_may_have(views: &dyn Views) {
    const INDEXES: &[Index] = &[
        Index { name: "text", columns: &[1], unique: true },
        Index { name: "rest", columns: &[8, 2, 3, 4, 5, 6, 7], unique: true },
    ];
    const UNIQUE: Table = Table { indexes: INDEXES, ..KINDS };
    let view = views.open(&id(), &[UNIQUE], SegmentCount::ONE).await.expect("made");
    let token = claim_all(&*view).await[0];
    let row = |id: i64, own: &str, float: f64| {
        vec![
            Value::Integer(id),
            text(own),
            Value::Integer(i64::MIN),
            Value::Float(float),
            Value::Boolean(true),
            Value::Bytes(vec![0, 255]),
            Value::Time(Timestamp::from_micros(-1)),
            Value::Uuid([7; 16]),
            Value::Json("{}".into()),
        ]
    };
    let of = |row: &[Value]| INDEXES[1].columns.iter().map(|place| row[*place].clone()).collect::<Vec<_>>();
    let mut writer = view.writer().await.expect("a writer");
    let (first, second) = (row(1, "a", 0.0), row(2, "B", 2.5));
    put(&mut *writer, &UNIQUE, vec![first.clone(), second.clone()]).await;
    for committed in [false, true] {
        let asked = ["b", "B", "A", "a", "a "].map(|own| vec![text(own)]);
        let mut found = writer.rows_with(&UNIQUE, &INDEXES[0], &asked).await.expect("read");
        found.sort_by_key(|(at, _)| *at);
        assert_eq!(found, [(1, second.clone()), (3, first.clone())], "text is equal by its bytes");
        // The two zeros are equal.
        let asked = [of(&row(9, "", 2.4)), of(&row(9, "", -0.0))];
        let found = writer.rows_with(&UNIQUE, &INDEXES[1], &asked).await.expect("read");
        assert_eq!(found, [(1, first.clone())]);
        if !committed {
            let step = token.step(Position::new(1), 1);
            writer.commit(&Commit::of([step])).await.expect("committed");
        }
    }
    assert!(writer.rows_with(&UNIQUE, &INDEXES[0], &[]).await.expect("read").is_empty());
    let why = invalid(writer.put(&UNIQUE, &mut of_none([row(0, "a", 9.0)])).await);
    assert!(why.contains("text"), "{why}");
    writer.rollback().await.expect("rolled back");
    writer.delete(&UNIQUE, &mut of_none([vec![Value::Integer(1)]])).await.expect("deleted");
    put(&mut *writer, &UNIQUE, vec![row(0, "a", 0.0), row(1, "c", 9.0)]).await;
    let token = token.moved(token.step(Position::new(1), 1)).expect("it was carried out");
    writer.commit(&Commit::of([token.step(Position::new(2), 1)])).await.expect("committed");
    assert_eq!(get(&*view, &UNIQUE, &[Value::Integer(0)]).await.expect("there")[1], text("a"));
}

/// Selects by one column or several, including NULL, and returns at most the requested number.
pub async fn select_finds_by_column_in_the_order_of_keys(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    let rows = [account("c", "ann", 1), account("a", "ann", 2), account("b", "bob", 1), account("d", "ann", 1)];
    put(&mut *writer, &ACCOUNTS, rows.to_vec()).await;
    put(&mut *writer, &ENTRIES, vec![vec![Value::Integer(1), text("b"), Value::Null]]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");

    let mut reader = view.reader().await.expect("a reader");
    let mut ids = async |columns: &[(usize, Value)], most: usize| -> Vec<Value> {
        let rows = reader.select(&ACCOUNTS, columns, most).await.expect("read");
        rows.into_iter().map(|mut row| row.swap_remove(0)).collect()
    };
    assert_eq!(ids(&[(1, text("ann"))], 10).await, ["a", "c", "d"].map(text));
    assert_eq!(ids(&[(1, text("ann"))], 2).await, ["a", "c"].map(text));
    assert_eq!(ids(&[(1, text("ann")), (2, Value::Integer(1))], 10).await, ["c", "d"].map(text));
    assert_eq!(ids(&[], usize::MAX).await, ["a", "b", "c", "d"].map(text));
    assert!(ids(&[(1, text("eve"))], 10).await.is_empty());
    // A value from outside may be text that no store can keep. Then no row has it.
    assert!(ids(&[(1, text("an\0n"))], 10).await.is_empty());
    assert_eq!(writer.load(&ACCOUNTS, &[text("a\0")]).await.expect("read"), None);
    writer.delete(&ACCOUNTS, &mut of_none([vec![text("a\0")]])).await.expect("nothing to delete");
    assert_eq!(reader.select(&ENTRIES, &[(2, Value::Null)], 10).await.expect("read").len(), 1);
}

/// Each row is read once, after the key before it, for every kind of key, in the order of [`key_order`].
pub async fn pages_go_through_a_table_in_the_order_of_keys(views: &dyn Views) {
    const IN_ALL: &[Column] = &[
        column("flag", ColumnKind::Boolean),
        column("number", ColumnKind::Integer),
        column("float", ColumnKind::Float),
        column("time", ColumnKind::Time),
        column("uuid", ColumnKind::Uuid),
        column("bytes", ColumnKind::Bytes),
        column("text", ColumnKind::Text),
        column("json", ColumnKind::Json),
    ];
    const KEYED: Table = Table { name: "keyed", columns: IN_ALL, key: &[6, 0, 1, 2, 3, 4, 5, 7], indexes: &[] };
    let tables = [KEYED, ACCOUNTS, ENTRIES, KINDS];
    let view = views.open(&id(), &tables, two_segments()).await.expect("a new view");
    let first = step(&claim_all(&*view).await[0], 5);
    let mut keyed = Vec::new();
    for word in ["", "B", "a", "a\u{1}", "é", "z\u{10000}", "\u{ffff}"] {
        for flag in [false, true] {
            for number in [i64::MIN, -1, 0, i64::MAX] {
                let float = if number < 0 { -0.5 } else { 1e300 };
                let time = Timestamp::from_micros(number.clamp(-1_000_000, 1_000_000));
                let byte = if flag { 0xff } else { 0x0a };
                keyed.push(vec![
                    Value::Boolean(flag),
                    Value::Integer(number),
                    Value::Float(float),
                    Value::Time(time),
                    Value::Uuid([byte; 16]),
                    Value::Bytes(vec![byte, 0]),
                    text(word),
                    Value::Json(format!("{{\"a\":{number}}}")),
                ]);
            }
        }
    }
    let entries: Vec<_> = [(3, "b"), (1, "b"), (2, "a"), (2, "c")]
        .map(|(number, name)| vec![Value::Integer(number), text(name), Value::Null])
        .into();
    let kinds: Vec<_> = [5, -3, 0, 12]
        .map(|number| [vec![Value::Integer(number)], vec![Value::Null; KINDS.columns.len() - 1]].concat())
        .into();
    let large = "x".repeat(limits::PAGE_BYTES_MAX / 3);
    let accounts: Vec<_> = ["c", "a", "d", "b", "e"].map(|name| account(name, &large, 1)).into();
    let mut writer = view.writer().await.expect("a writer");
    let all = [(KEYED, keyed), (ENTRIES, entries), (KINDS, kinds), (ACCOUNTS, accounts)];
    for (table, rows) in &all {
        put(&mut *writer, table, rows.clone()).await;
    }
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    for (table, mut rows) in all {
        rows.sort_by(|a, b| key_order(&table.key_of(a), &table.key_of(b)));
        for most in [1, 3, 1_000] {
            let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let page = reader.page(&table, after.as_deref(), most).await.expect("read");
                assert!(page.len() <= most, "{}", table.name);
                let Some(last) = page.last() else { break };
                (after, pages) = (Some(table.key_of(last)), pages + 1);
                seen.extend(page);
            }
            assert_eq!(seen, rows, "{} by {most}", table.name);
            let by_bytes = table.name == ACCOUNTS.name && most == 1_000;
            assert!(!by_bytes || pages == 2, "the bytes of a page are bounded: {pages} pages");
        }
    }
}
