//! What readers and writers see of each other.

use super::*;

/// Dropping a writer rolls back, and lets the next one begin.
pub async fn a_dropped_writer_leaves_nothing(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut dropped = view.writer().await.expect("a writer");
    put(&mut *dropped, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    drop(dropped);
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-2", "ann", 5)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
}

/// A reader sees one state as long as it lives, whatever is written meanwhile, even by the task that holds it.
pub async fn a_reader_sees_one_state(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    let mut during = view.reader().await.expect("a reader");
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut after = view.reader().await.expect("a reader");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 6)]).await;
    let next = TokenMove { from: first.to, to: Position::new(9), ..first };
    writer.commit(&Commit::of([next])).await.expect("committed");

    for (reader, row, at) in [(&mut during, None, 0), (&mut after, Some(account("a-1", "ann", 5)), 5)] {
        assert_eq!(reader.get(&ACCOUNTS, &[text("a-1")]).await.expect("read"), row);
        assert_eq!(reader.tokens()[0].position, Position::new(at));
    }
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 6)));
}

/// Loads and queries of a writer see its rows before the commit, and not the rows that it rolled back.
pub async fn a_writer_sees_its_own_transaction(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5), account("a-2", "bob", 2)]).await;
    let changed = writer
        .execute("UPDATE accounts SET balance = balance + $1 WHERE owner = $2", &[Value::Integer(1), text("ann")])
        .await
        .expect("updated");
    assert_eq!(changed, 1);
    assert_eq!(writer.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), Some(account("a-1", "ann", 6)));
    let sum = writer.query("SELECT sum(balance) FROM accounts", &[]).await.expect("read");
    assert_eq!(sum, [[Value::Integer(8)]]);

    // Another writer sees none of it.
    let mut other = view.writer().await.expect("a writer");
    assert_eq!(other.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), None);
    writer.rollback().await.expect("rolled back");
    assert_eq!(writer.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), None);
    writer.commit(&Commit::of([first])).await.expect("committed");
}
