//! A view as a whole: its tables and indexes, its copy, its end.

use super::*;

/// Opening reports exactly what differs. Opening with the same tables succeeds.
pub async fn another_schema_is_refused_by_name(views: &dyn Views) {
    made(views).await;
    made(views).await;
    let open = async |tables: &[Table], segments| invalid(views.open(&id(), tables, segments).await.map(|_| ()));
    let why = open(TABLES, SegmentCount::ONE).await;
    assert!(why.contains("2 segments") && why.contains("version"), "{why}");
    const CHANGED: &[Column] = &[column("id", ColumnKind::Text), column("sum", ColumnKind::Float)];
    let changed = Table { columns: CHANGED, indexes: &[], ..ACCOUNTS };
    let why = open(&[changed, ENTRIES, KINDS, MARKS], two_segments()).await;
    for part in ["column accounts.balance: Integer", "column accounts.sum: Float", "index accounts.owner"] {
        assert!(why.contains(part), "{why}");
    }
    let no_key = Table { key: &[], ..ACCOUNTS };
    let reserved = Table { name: "_dacapo_tokens", ..ACCOUNTS };
    let other = ViewId { version: VersionId { code: 3, build: 1 }, ..id() };
    for table in [no_key, reserved] {
        invalid(views.open(&other, &[table], two_segments()).await.map(|_| ()));
    }
    assert!(views.find(&other).await.expect("looked for").is_none(), "a refused view was not made");
}

/// Only unique indexes exist from the beginning. The others exist after the commit of the writer that builds them, and
/// rows are the same before and after.
pub async fn indexes_are_built_when_they_are_asked_for(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let missing = async || view.missing_indexes(TABLES).await.expect("looked for");
    assert_eq!(missing().await, [(0, 0)], "the index of accounts; the unique one is there");
    let mut writer = view.writer().await.expect("a writer");
    for balance in [1, 2] {
        put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", balance), account("b", "bob", balance)]).await;
    }
    writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built");
    writer.rollback().await.expect("rolled back");
    assert_eq!(missing().await, [(0, 0)], "it goes with its transaction");

    put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", 1), account("b", "bob", 1)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built");
    let fenced = TokenMove { epoch: first.epoch.next(), from: first.to, ..first };
    refused(writer.commit(&Commit::of([fenced])).await);
    assert_eq!(missing().await, [(0, 0)], "I-4");
    for _ in 0..2 {
        writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built, or there already");
        let here = TokenMove { from: first.to, ..first };
        writer.commit(&Commit::of([here])).await.expect("committed");
        assert_eq!(missing().await, []);
    }
    put(&mut *writer, &ACCOUNTS, vec![account("b", "ann", 3), account("c", "cid", 1)]).await;
    writer.commit(&Commit::of([TokenMove { from: first.to, ..first }])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    let of_ann = reader.select(&ACCOUNTS, &[(1, text("ann"))], 10).await.expect("read");
    assert_eq!(of_ann, [account("a", "ann", 1), account("b", "ann", 3)]);
}

/// SQL fills a new view from one state of another one, which continues meanwhile. Rows and tokens land together.
pub async fn a_view_is_filled_from_another_as_it_was_at_one_moment(views: &dyn Views) {
    let (source, first) = claimed(views).await;
    let mut old = source.writer().await.expect("a writer");
    put(&mut *old, &ACCOUNTS, vec![account("a", "ann", 1), account("b", "bob", 2)]).await;
    old.commit(&Commit::of([first])).await.expect("committed");

    let id = ViewId { version: VersionId { code: 3, build: 1 }, ..id() };
    let view = views.open(&id, TABLES, two_segments()).await.expect("a new view");
    let tokens = claim_all(&*view).await;
    let fill = "INSERT INTO accounts SELECT id, owner, balance * 10 FROM {source}.accounts";
    let mut writer = view.writer().await.expect("a writer");
    for lands in [false, true] {
        let copy = source.copy().await.expect("the source");
        let found = writer.attach(&copy).await.expect("attached");
        let in_source = |sql: &str| sql.replace("{source}", &found.schema);
        let (at, epoch) = (found.tokens[0].position, found.tokens[0].epoch);
        assert_eq!(found.letters, 0);
        // The source continues, unseen.
        let goes_on = TokenMove { epoch, from: at, to: at.next(), ..first };
        put(&mut *old, &ACCOUNTS, vec![account("c", "cid", 3)]).await;
        put(&mut *old, &ACCOUNTS, vec![account("a", "eve", 9)]).await;
        old.commit(&Commit::of([goes_on])).await.expect("the source is not kept from going on");
        if !lands {
            writer.rollback().await.expect("rolled back");
            put(&mut *old, &ACCOUNTS, vec![account("a", "ann", 1)]).await;
            old.delete(&ACCOUNTS, &mut of_none([vec![text("c")]])).await.expect("deleted");
            old.commit(&Commit::of([TokenMove { from: goes_on.to, ..goes_on }])).await.expect("committed");
            assert_eq!(get(&*view, &ACCOUNTS, &[text("a")]).await, None);
            continue;
        }
        assert_eq!(writer.execute(&in_source(fill), &[]).await.expect("filled"), 2);
        // It is refused, or changes a copy that nobody sees.
        drop(writer.execute(&in_source("DELETE FROM {source}.accounts"), &[]).await);
        writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built");
        let counted = Applied { after: at, events: 0 };
        let jump = TokenMove { to: at, applied: counted, ..tokens[0].step(at, 0) };
        writer.commit(&Commit::of([jump])).await.expect("committed");
        assert_eq!(view.tokens().await.expect("tokens")[0].position, at);
    }
    let mut reader = view.reader().await.expect("a reader");
    let rows = [account("a", "ann", 10), account("b", "bob", 20)];
    assert_eq!(reader.select(&ACCOUNTS, &[], 10).await.expect("read"), rows);
    assert_eq!(view.missing_indexes(TABLES).await.expect("looked for"), []);
    assert_eq!(get(&*source, &ACCOUNTS, &[text("a")]).await, Some(account("a", "eve", 9)));
}

/// I-12: a dropped view is gone, and a new view of the same name begins at the start.
pub async fn views_are_found_listed_dropped_and_made_anew(views: &dyn Views) {
    assert!(views.find(&id()).await.expect("looked for").is_none());
    assert!(views.list().await.expect("listed").is_empty());
    let (view, first) = claimed(views).await;
    let other = ViewId { version: VersionId { code: 10, build: 1 }, ..id() };
    views.open(&other, &[], SegmentCount::ONE).await.expect("a view without tables");
    assert_eq!(views.list().await.expect("listed"), [id(), other.clone()]);
    let found = views.find(&id()).await.expect("looked for").expect("found");
    assert_eq!(found.tokens().await.expect("tokens"), view.tokens().await.expect("tokens"));

    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", 1)]).await;
    for _ in 0..2 {
        views.drop_view(&id()).await.expect("dropped");
    }
    assert_eq!(views.list().await.expect("listed"), [other]);
    assert!(views.find(&id()).await.expect("looked for").is_none());
    let anew = made(views).await;
    // The writer of the dropped view may still work, but the new view shows nothing of it.
    drop(writer.commit(&Commit::of([first])).await);
    assert_eq!(get(&*anew, &ACCOUNTS, &[text("a")]).await, None);
    let unclaimed = |token: &Token| token.epoch == Epoch::UNCLAIMED && token.position == Position::START;
    assert!(anew.tokens().await.expect("tokens").iter().all(unclaimed));
}
