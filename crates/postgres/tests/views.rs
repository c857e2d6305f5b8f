//! The views: the contract, and what only a database that several nodes share can show.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{
    Applied, EffectOutcome, MemberId, NewEffect, Position, ProjectionName, SegmentCount, StreamName, Timestamp, Token,
    TokenMove, TokenRefused, VersionId, ViewId,
};
use dacapo_postgres::testbed::{Durability, Server, Stop};
use dacapo_postgres::{Database, Options, PostgresViews};
use dacapo_store::contract::views::claim_all;
use dacapo_store::{
    Column, ColumnKind, Commit, CommitError, Index, StoreError, Table, Value, View, ViewWriter, Views, of_none,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

#[path = "../../dacapo/tests/common/seats.rs"]
mod seats;

mod contract {
    dacapo_store::views_contract!(super::World::new().await.views_alone().await);
}

const fn column(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind, optional: false }
}

const NOTES: Table = Table {
    name: "notes",
    columns: &[column("id", ColumnKind::Integer), column("text", ColumnKind::Text)],
    key: &[0],
    indexes: &[Index { name: "text", columns: &[1], unique: false }],
};

fn id(code: u32) -> ViewId {
    ViewId { projection: ProjectionName::new("notes").unwrap(), version: VersionId { code, build: 1 } }
}

fn note(id: i64, text: &str) -> Vec<Value> {
    vec![Value::Integer(id), Value::Text(text.into())]
}

/// A database that nodes share.
struct World {
    server: Arc<Server>,
    url: String,
}

impl World {
    async fn new() -> Self {
        Self::on(Server::shared()).await
    }

    async fn on(server: Arc<Server>) -> Self {
        let url = server.database().await;
        Self { server, url }
    }

    async fn views_alone(self) -> (PostgresViews, Arc<Server>) {
        (self.node().await, self.server)
    }

    /// The views as a node has them.
    async fn node(&self) -> PostgresViews {
        node(&self.url, "dacapo").await
    }

    /// The view of the notes as a node has it.
    async fn view(&self) -> Arc<dyn View> {
        self.node().await.open(&id(1), &[NOTES], SegmentCount::ONE).await.unwrap()
    }

    async fn raw(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Waits until as many statements as that, of those like `pattern`, wait for a lock, or run if `waits` is not set.
    async fn until_under_way(&self, pattern: &str, waits: bool, count: i64) {
        let mut raw = self.raw().await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1
                   AND pid <> pg_backend_pid() AND datname = current_database() AND ($2 = (wait_event_type IS NOT DISTINCT FROM 'Lock') OR NOT $2)";
        loop {
            let query = sqlx::query_scalar::<_, i64>(sql).bind(pattern).bind(waits);
            if query.fetch_one(&mut raw).await.unwrap() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn node(url: &str, schema: &str) -> PostgresViews {
    let options = Options { schema: schema.into(), ..Options::default() };
    PostgresViews::new(Arc::new(Database::connect(url, options).await.unwrap()))
}

async fn run(raw: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(raw).await.unwrap();
}

async fn put(writer: &mut dyn ViewWriter, rows: &[Vec<Value>]) -> Result<(), StoreError> {
    writer.put(&NOTES, &mut of_none(rows.iter().cloned())).await
}

async fn texts(view: &dyn View) -> Vec<Value> {
    let rows = view.reader().await.unwrap().select(&NOTES, &[], 100).await.unwrap();
    rows.into_iter().map(|mut row| row.remove(1)).collect()
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn step(token: &Token) -> TokenMove {
    token.step(token.position.next(), 1)
}

fn is_fenced(result: &Result<(), CommitError>) -> bool {
    matches!(result, Err(CommitError::Refused(TokenRefused::Fenced { .. })))
}

fn is_unavailable<T, E: Into<CommitError>>(result: Result<T, E>) -> bool {
    matches!(result.map_err(Into::into), Err(CommitError::Store(StoreError::Unavailable { .. })))
}

fn invalid<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Invalid(why)) => why,
        Err(other) => panic!("expected to be told what is invalid, got {other}"),
        Ok(_) => panic!("expected to be told what is invalid"),
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end() {
    let server = Server::shared();
    seats::same_wherever_batches_end(6..8, async || {
        dacapo_postgres::connect(&server.database().await, Options::default()).await.unwrap()
    })
    .await;
}
