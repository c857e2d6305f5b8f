//! SQL of readers and handlers, and its bounds.

use super::*;

/// A table with fewer columns reads from the stored one, and SQL returns the names.
pub async fn queries_name_their_columns(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", 1)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    let sql = "SELECT owner, sum(balance) AS total, NULL AS none FROM accounts WHERE balance >= $1 GROUP BY owner";
    let (names, rows) = reader.query(sql, &[Value::Integer(1)]).await.expect("read");
    assert_eq!(names, ["owner", "total", "none"]);
    assert_eq!(rows, [[text("ann"), Value::Integer(1), Value::Null]]);
    const FEWER: &[Column] = &[ACCOUNTS.columns[0], ACCOUNTS.columns[2]];
    let fewer = Table { columns: FEWER, indexes: &[], ..ACCOUNTS };
    let row = reader.get(&fewer, &[text("a")]).await.expect("read");
    assert_eq!(row, Some(vec![text("a"), Value::Integer(1)]));
}

/// The statement is used as it is, with any ending.
pub async fn the_first_rows_of_a_query_are_taken_and_all_are_counted(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, ["a", "b", "c"].map(|id| account(id, "ann", 1)).into()).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    for end in ["", ";", " ; ;", " -- by key", "; -- by key\n", " /* by key; */"] {
        let sql = format!("SELECT id FROM accounts ORDER BY id{end}");
        let found = reader.first_rows(&sql, 2).await.expect("read");
        let expected = FirstRows { columns: vec!["id".into()], rows: vec![vec![text("a")], vec![text("b")]], all: 3 };
        assert_eq!(found, expected, "{sql}");
    }
    for sql in ["DELETE FROM accounts", "SELECT 1; SELECT 2", "-- nothing", "SELECT ?"] {
        invalid(reader.first_rows(sql, 2).await);
    }
}

/// Readers do not write. Handlers neither end the transaction nor use the tables of dacapo.
pub async fn readers_and_handlers_stay_in_their_bounds(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut reader = view.reader().await.expect("a reader");
    let writes = "INSERT INTO accounts VALUES ('a', 'ann', 1) RETURNING id";
    for sql in [writes, "DELETE FROM accounts", "COMMIT", "SELECT 1; SELECT 2", "SELECT nothing FROM nowhere"] {
        invalid(reader.query(sql, &[]).await);
    }
    let why = invalid(reader.query("SELECT $1", &[]).await);
    assert!(why.contains("1 parameters"), "{why}");
    assert_eq!(reader.query("SELECT 1", &[]).await.expect("the reader still works").1, [[Value::Integer(1)]]);

    let mut writer = view.writer().await.expect("a writer");
    for sql in ["COMMIT", "ROLLBACK", "SELECT 1", "UPDATE _dacapo_tokens SET position = 9", "no SQL"] {
        invalid(writer.execute(sql, &[]).await);
        writer.rollback().await.expect("rolled back");
    }
    for sql in ["COMMIT", "DELETE FROM accounts RETURNING id", "SELECT 1; SELECT 2"] {
        invalid(writer.query(sql, &[]).await);
    }
    assert_eq!(writer.execute(writes, &[]).await.expect("written"), 1);
    writer.commit(&Commit::of([first])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a")]).await, Some(account("a", "ann", 1)));
}
