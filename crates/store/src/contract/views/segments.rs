//! Checks of rows that keep their segments.

use dacapo_model::Segment;

use super::*;
use crate::OfSegment;

fn of(segment: u16) -> Option<Segment> {
    Some(two_segments().segment(segment).expect("one of two"))
}

async fn put_for(writer: &mut dyn ViewWriter, table: &Table, rows: Vec<OfSegment>) {
    writer.put(table, &mut rows.into_iter()).await.expect("written");
}

async fn of_row(writer: &mut dyn ViewWriter, key: &str) -> Option<OfSegment> {
    writer.load_of(&ACCOUNTS, &[text(key)]).await.expect("read")
}

/// Commits the rows of a writer.
async fn land(view: &dyn View, writer: &mut dyn ViewWriter) {
    let tokens = view.tokens().await.expect("tokens");
    let moves: Vec<TokenMove> = tokens.iter().map(|token| step(token, 1)).collect();
    writer.commit(&Commit::of(moves)).await.expect("committed");
}

/// A row keeps the segment for which it was put, for every reader and permanently.
pub async fn a_row_keeps_the_segment_that_it_is_put_for(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    assert_eq!(of_row(&mut *writer, "a").await, None);
    assert_eq!(writer.segments_of(&ACCOUNTS, &[vec![text("a")]]).await.expect("read"), []);
    // Both ways to write a row: with an index beside the key and without.
    for again in [false, true] {
        let rows = (0..200).map(|number| (of(number % 2), account(&format!("n-{number}"), "ann", again.into())));
        put_for(&mut *writer, &ACCOUNTS, rows.collect()).await;
        put_for(&mut *writer, &ACCOUNTS, vec![(None, account("nobody", "ann", 1))]).await;
        let entry = |number, from: &str| vec![Value::Integer(number), text(from), Value::Null];
        put_for(&mut *writer, &ENTRIES, vec![(of(1), entry(7, "x")), (of(0), entry(7, "y"))]).await;
        assert_eq!(of_row(&mut *writer, "n-3").await, Some((of(1), account("n-3", "ann", again.into()))));
        land(&*view, &mut *writer).await;
        writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built");
        land(&*view, &mut *writer).await;
    }
    drop(writer);
    // Without any memory of the writes.
    let view = made(views).await;
    let mut writer = view.writer().await.expect("a writer");
    assert_eq!(of_row(&mut *writer, "n-198").await, Some((of(0), account("n-198", "ann", 1))));
    assert_eq!(of_row(&mut *writer, "nobody").await, Some((None, account("nobody", "ann", 1))));
    let asked = ["n-1", "gone", "n-0", "nobody", "n-1"].map(|key| vec![text(key)]);
    let found = writer.segments_of(&ACCOUNTS, &asked).await.expect("read");
    let segment = |number| of(number).expect("one of two");
    assert_eq!(found, [(0, segment(1)), (2, segment(0)), (4, segment(1))]);
    let asked = ["y", "x"].map(|from| vec![text(from), Value::Integer(7)]);
    assert_eq!(writer.segments_of(&ENTRIES, &asked).await.expect("read"), [(0, segment(0)), (1, segment(1))]);

    // A reader that selects the columns of the table does not see it.
    let mut reader = view.reader().await.expect("a reader");
    let row = account("n-1", "ann", 1);
    assert_eq!(reader.get(&ACCOUNTS, &[text("n-1")]).await.expect("read"), Some(row.clone()));
    assert_eq!(reader.select(&ACCOUNTS, &[(0, text("n-1"))], 2).await.expect("read"), std::slice::from_ref(&row));
    assert_eq!(reader.page(&ACCOUNTS, Some(&[text("n-0")]), 1).await.expect("read"), [row]);
    assert_eq!(writer.load(&ACCOUNTS, &[text("nobody")]).await.expect("read"), Some(account("nobody", "ann", 1)));
}

/// A row that SQL writes has no segment. A row that is deleted may be made again by another segment.
pub async fn a_row_may_be_nobodys_and_another_segments_once_it_was_deleted(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    // The first rows that were put for a segment are rolled back.
    put_for(&mut *writer, &ACCOUNTS, vec![(of(0), account("a", "ann", 1))]).await;
    writer.rollback().await.expect("rolled back");
    assert_eq!(of_row(&mut *writer, "a").await, None);
    put_for(&mut *writer, &ACCOUNTS, vec![(of(0), account("a", "ann", 1)), (of(1), account("b", "bob", 1))]).await;
    let sql = "INSERT INTO accounts (id, owner, balance) VALUES ('s', 'sue', 1)";
    assert_eq!(writer.execute(sql, &[]).await.expect("written"), 1);
    assert_eq!(of_row(&mut *writer, "s").await, Some((None, account("s", "sue", 1))));
    land(&*view, &mut *writer).await;

    // Within one transaction, and across transactions.
    writer.delete(&ACCOUNTS, &mut [(of(0), vec![text("a")])].into_iter()).await.expect("deleted");
    put_for(&mut *writer, &ACCOUNTS, vec![(of(1), account("a", "ann", 2)), (of(1), account("s", "sue", 2))]).await;
    land(&*view, &mut *writer).await;
    assert_eq!(of_row(&mut *writer, "a").await, Some((of(1), account("a", "ann", 2))));
    assert_eq!(of_row(&mut *writer, "s").await, Some((of(1), account("s", "sue", 2))));
    writer.delete(&ACCOUNTS, &mut [(of(1), vec![text("a")])].into_iter()).await.expect("deleted");
    land(&*view, &mut *writer).await;
    assert_eq!(of_row(&mut *writer, "a").await, None);
    put_for(&mut *writer, &ACCOUNTS, vec![(of(0), account("a", "ann", 3))]).await;
    land(&*view, &mut *writer).await;
    assert_eq!(of_row(&mut *writer, "a").await, Some((of(0), account("a", "ann", 3))));
}

/// A copy gets the segments of the rows if it asks for them.
pub async fn a_copy_takes_over_of_which_segments_its_rows_are(views: &dyn Views) {
    let (source, _) = claimed(views).await;
    let mut old = source.writer().await.expect("a writer");
    let rows = vec![(of(0), account("a", "ann", 1)), (of(1), account("b", "bob", 2)), (None, account("c", "cid", 3))];
    put_for(&mut *old, &ACCOUNTS, rows).await;
    land(&*source, &mut *old).await;

    let id = ViewId { version: VersionId { code: 3, build: 1 }, ..id() };
    let view = views.open(&id, TABLES, two_segments()).await.expect("a new view");
    claim_all(&*view).await;
    let mut writer = view.writer().await.expect("a writer");
    let attached = writer.attach(&source.copy().await.expect("the source")).await.expect("attached");
    let columns = "id, owner, balance";
    let fill = format!("INSERT INTO accounts ({columns}) SELECT {columns} FROM {}.accounts", attached.schema);
    assert_eq!(writer.execute(&fill, &[]).await.expect("filled"), 3);
    let marks = "INSERT INTO accounts (id, owner, balance) VALUES ('own', 'ann', 1)";
    writer.execute(marks, &[]).await.expect("written");
    assert_eq!(of_row(&mut *writer, "a").await, Some((None, account("a", "ann", 1))), "until it is asked for");
    for table in TABLES {
        writer.take_over_segments(table, &attached).await.expect("taken over");
    }
    land(&*view, &mut *writer).await;
    assert_eq!(of_row(&mut *writer, "a").await, Some((of(0), account("a", "ann", 1))));
    assert_eq!(of_row(&mut *writer, "b").await, Some((of(1), account("b", "bob", 2))));
    assert_eq!(of_row(&mut *writer, "c").await, Some((None, account("c", "cid", 3))));
    assert_eq!(of_row(&mut *writer, "own").await, Some((None, account("own", "ann", 1))));
    assert_eq!(of_row(&mut *old, "b").await, Some((of(1), account("b", "bob", 2))));
}
