//! The names under which SQL from outside finds what serves.

use std::sync::Arc;

use dacapo_model::{Position, ProjectionName, SegmentCount, VersionId, ViewId};
use dacapo_postgres::testbed::{OWNER, Server, name_of};
use dacapo_postgres::{Database, Options, PostgresViews};
use dacapo_store::contract::views::claim_all;
use dacapo_store::{Column, ColumnKind, Commit, Index, StoreError, Table, Value, View, Views, of_none};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

const fn column(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind, optional: false }
}

const fn table(name: &'static str, columns: &'static [Column]) -> Table {
    const NONE: &[Index] = &[];
    Table { name, columns, key: &[0], indexes: NONE }
}

const NOTES: Table = table("notes", &[column("id", ColumnKind::Integer), column("text", ColumnKind::Text)]);
const LONGER: Table = table(
    "notes",
    &[column("id", ColumnKind::Integer), column("text", ColumnKind::Text), column("size", ColumnKind::Integer)],
);
const OTHER: Table = table("notes", &[column("id", ColumnKind::Integer), column("title", ColumnKind::Text)]);
const TAGS: Table = table("tags", &[column("tag", ColumnKind::Text)]);

fn id(code: u32) -> ViewId {
    ViewId { projection: ProjectionName::new("notes").unwrap(), version: VersionId { code, build: 1 } }
}

fn at(position: u64) -> Position {
    Position::new(position)
}

struct World {
    server: Arc<Server>,
    url: String,
    views: PostgresViews,
}

impl World {
    async fn new() -> Self {
        let server = Server::shared();
        let url = server.database().await;
        let views = PostgresViews::new(Arc::new(Database::connect(&url, Options::default()).await.unwrap()));
        Self { server, url, views }
    }

    /// A view with these tables, in one segment, that has come to a position.
    async fn view(&self, code: u32, tables: &[Table], covers: u64) -> Arc<dyn View> {
        let view = self.views.open(&id(code), tables, SegmentCount::ONE).await.unwrap();
        come_to(&*view, covers).await;
        view
    }

    async fn raw(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Somebody who may only query, and what lets them.
    async fn reader(&self) -> (String, PgConnection) {
        let role = format!("reader_{}", name_of(&self.url));
        self.run(&format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA dacapo_notes TO {role}")).await;
        let connection = PgConnection::connect(&self.server.url_of(&role, name_of(&self.url))).await.unwrap();
        (role, connection)
    }

    async fn run(&self, sql: &str) {
        self.server.run(name_of(&self.url), sql).await;
    }

    /// Which version the names show, and what it covers.
    async fn shown(&self) -> (String, i64) {
        let sql = "SELECT version, covers FROM dacapo_notes._dacapo_serving";
        let row = sqlx::query(sql).fetch_one(&mut self.raw().await).await.unwrap();
        (row.get(0), row.get(1))
    }

    /// The names that are there.
    async fn names(&self) -> Vec<String> {
        let sql = "SELECT relname::text FROM pg_class WHERE relnamespace = 'dacapo_notes'::regnamespace ORDER BY 1";
        sqlx::query_scalar(sql).fetch_all(&mut self.raw().await).await.unwrap()
    }
}

/// Writes nothing and comes to a position.
async fn come_to(view: &dyn View, covers: u64) {
    let token = claim_all(view).await[0];
    let mut writer = view.writer().await.unwrap();
    let moves = vec![token.step(at(covers), 0)];
    writer.commit(&Commit { moves, ..Commit::default() }).await.unwrap();
}

async fn put(view: &dyn View, table: &Table, row: Vec<Value>) {
    let token = claim_all(view).await[0];
    let mut writer = view.writer().await.unwrap();
    writer.put(table, &mut of_none([row])).await.unwrap();
    let moves = vec![token.step(token.position.next(), 1)];
    writer.commit(&Commit { moves, ..Commit::default() }).await.unwrap();
}

async fn count(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap()
}

/// Why it cannot be done now.
fn unavailable<T: std::fmt::Debug>(done: Result<T, StoreError>) -> String {
    match done {
        Err(error @ StoreError::Unavailable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn names_follow_what_serves_with_whatever_tables_it_has() {
    let world = World::new().await;
    let first = world.view(1, &[NOTES, TAGS], 3).await;
    put(&*first, &NOTES, vec![Value::Integer(1), Value::Text("one".into())]).await;
    world.views.publish(&id(1), at(2)).await.unwrap();
    assert_eq!(world.shown().await, ("v1.1".into(), 4));
    assert_eq!(world.names().await, ["_dacapo_serving", "notes", "tags"]);
    let mut raw = world.raw().await;
    assert_eq!(count(&mut raw, "SELECT count(*) FROM dacapo_notes.notes WHERE text = 'one'").await, 1);

    let second = world.view(2, &[OTHER], 4).await;
    put(&*second, &OTHER, vec![Value::Integer(1), Value::Text("uno".into())]).await;
    world.views.publish(&id(2), at(9)).await.unwrap();
    assert_eq!(world.shown().await, ("v2.1".into(), 5));
    assert_eq!(world.names().await, ["_dacapo_serving", "notes"]);
    assert_eq!(count(&mut raw, "SELECT count(*) FROM dacapo_notes.notes WHERE title = 'uno'").await, 1);

    // And back.
    come_to(&*first, 7).await;
    world.views.publish(&id(1), at(12)).await.unwrap();
    assert_eq!((world.shown().await, world.names().await.len()), (("v1.1".into(), 7), 3));
}

#[tokio::test]
async fn whoever_may_query_the_names_may_do_so_after_a_flip_and_needs_no_right_to_any_version() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    let (role, mut reader) = world.reader().await;
    world.run(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA dacapo_notes TO {role}")).await;
    let notes = "SELECT count(*) FROM dacapo_notes.notes";
    assert_eq!(count(&mut reader, notes).await, 0);
    // Columns that stay keep the name, and the rights with it.
    world.view(2, &[LONGER], 1).await;
    world.views.publish(&id(2), at(2)).await.unwrap();
    assert_eq!(count(&mut reader, "SELECT count(size) FROM dacapo_notes.notes").await, 0);
    // Others take the rights that names of this schema get.
    let defaults =
        format!("ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA dacapo_notes GRANT SELECT ON TABLES TO {role}");
    world.run(&defaults).await;
    world.view(3, &[OTHER], 1).await;
    world.views.publish(&id(3), at(3)).await.unwrap();
    assert_eq!(count(&mut reader, "SELECT count(title) FROM dacapo_notes.notes").await, 0);
    sqlx::query("SELECT FROM dacapo_notes_v3_1.notes").fetch_all(&mut reader).await.unwrap_err();
}

// I-7
#[tokio::test]
async fn names_do_not_move_to_what_covers_less_than_they_have_shown() {
    let world = World::new().await;
    world.view(1, &[NOTES], 10).await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    let second = world.view(2, &[NOTES], 9).await;
    let why = unavailable(world.views.publish(&id(2), at(11)).await);
    assert!(why.contains("covers position 10 by now") && why.contains("covers 9"), "{why}");
    assert_eq!(world.shown().await, ("v1.1".into(), 10));
    come_to(&*second, 10).await;
    // A replay in place has taken the old one back to before what it has shown.
    let tokens = "dacapo_notes_v1_1._dacapo_tokens";
    world.run(&format!("UPDATE {tokens} SET position = 2, replay_request = 11, replay_through = 11")).await;
    let why = unavailable(world.views.publish(&id(2), at(11)).await);
    assert!(why.contains("covers position 11 by now") && why.contains("covers 10"), "{why}");
    come_to(&*second, 11).await;
    world.views.publish(&id(2), at(11)).await.unwrap();
    assert_eq!(world.shown().await, ("v2.1".into(), 11));
}

// I-7: two nodes that know of different flips, whichever comes last.
#[tokio::test]
async fn a_node_that_slept_through_a_flip_does_not_move_names_back() {
    let world = World::new().await;
    let first = world.view(1, &[NOTES], 1).await;
    world.view(2, &[NOTES], 1).await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    world.views.publish(&id(2), at(5)).await.unwrap();
    world.views.publish(&id(1), at(1)).await.unwrap();
    assert_eq!(world.shown().await.0, "v2.1");
    // Back and forth again, which changes nothing but which flip it is.
    world.views.publish(&id(2), at(9)).await.unwrap();
    come_to(&*first, 2).await;
    world.views.publish(&id(1), at(7)).await.unwrap();
    assert_eq!(world.shown().await.0, "v2.1");
}

#[tokio::test]
async fn a_query_that_runs_is_not_disturbed_and_others_wait_for_no_longer_than_the_limit() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    world.view(2, &[OTHER], 1).await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    let mut long = world.raw().await;
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM dacapo_notes.notes").execute(&mut long).await.unwrap();
    let (mut other, to) = (world.raw().await, id(2));
    for _ in 0..3 {
        // Anyone who comes while it is tried waits until it is given up, not until the long query ends.
        let (moved, counted) =
            tokio::join!(world.views.publish(&to, at(2)), count(&mut other, "SELECT count(*) FROM dacapo_notes.notes"));
        let why = unavailable(moved);
        assert!(why.contains("a query of its names"), "{why}");
        assert_eq!(counted, 0);
    }
    assert_eq!(count(&mut long, "SELECT count(text) FROM dacapo_notes.notes").await, 0, "it reads what it read before");
    sqlx::raw_sql("COMMIT").execute(&mut long).await.unwrap();
    world.views.publish(&id(2), at(2)).await.unwrap();
    assert_eq!(world.shown().await.0, "v2.1");
}

#[tokio::test]
async fn a_view_that_the_names_show_is_not_dropped() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    world.view(2, &[NOTES], 1).await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    let why = unavailable(world.views.drop_view(&id(1)).await);
    assert!(why.contains("the schema dacapo_notes shows it"), "{why}");
    world.views.publish(&id(2), at(2)).await.unwrap();
    world.views.drop_view(&id(1)).await.unwrap();
    assert_eq!(world.shown().await.0, "v2.1");
    // Where somebody has dropped it by hand there is nothing to wait for.
    world.run("DROP SCHEMA dacapo_notes_v2_1 CASCADE").await;
    world.view(3, &[NOTES], 0).await;
    world.views.publish(&id(3), at(3)).await.unwrap();
    assert_eq!(world.shown().await, ("v3.1".into(), 0));
}

#[tokio::test]
async fn what_people_built_on_a_name_stays_or_is_told_to_be_in_the_way() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    world.run("CREATE VIEW public.mine AS SELECT id, text FROM dacapo_notes.notes").await;
    world.view(2, &[LONGER], 1).await;
    world.views.publish(&id(2), at(2)).await.unwrap();
    assert_eq!(count(&mut world.raw().await, "SELECT count(*) FROM public.mine").await, 0);
    world.view(3, &[OTHER], 1).await;
    let why = unavailable(world.views.publish(&id(3), at(3)).await);
    assert!(why.contains("an object of yours depends on a column"), "{why}");
    assert_eq!(world.shown().await.0, "v2.1");
    world.run("DROP VIEW public.mine").await;
    world.views.publish(&id(3), at(3)).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_that_name_that_is_not_for_this_is_told() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    world.run("CREATE SCHEMA dacapo_notes; CREATE TABLE dacapo_notes.notes (id bigint)").await;
    let error = world.views.publish(&id(1), at(1)).await.unwrap_err().to_string();
    assert!(error.contains("dacapo_notes.notes is there and is not a view"), "{error}");
    // Somebody may make it beforehand, to give rights in it.
    world.run("DROP TABLE dacapo_notes.notes").await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    assert_eq!(world.shown().await.0, "v1.1");
}

#[tokio::test]
async fn the_schema_of_a_version_is_not_taken_for_the_names_of_another_projection() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    let version = VersionId { code: 1, build: 1 };
    let odd = ViewId { projection: ProjectionName::new("notes_v1_1").unwrap(), version };
    world.views.open(&odd, &[NOTES], SegmentCount::ONE).await.unwrap();
    let error = world.views.publish(&odd, at(1)).await.unwrap_err().to_string();
    assert!(error.contains("give the projection another name"), "{error}");
}

#[tokio::test]
async fn a_name_of_another_journal_or_of_somebody_else_is_not_taken() {
    let world = World::new().await;
    let other = Options { schema: "dacapo_x".into(), ..Options::default() };
    let other = PostgresViews::new(Arc::new(Database::connect(&world.url, other).await.unwrap()));
    let of = |projection: &str| ViewId { projection: ProjectionName::new(projection).unwrap(), ..id(1) };
    world.views.open(&of("x_y"), &[NOTES], SegmentCount::ONE).await.unwrap();
    other
        .open(&ViewId { version: VersionId { code: 2, build: 1 }, ..of("y") }, &[NOTES], SegmentCount::ONE)
        .await
        .unwrap();
    world.views.publish(&of("x_y"), at(1)).await.unwrap();
    let of_other = ViewId { version: VersionId { code: 2, build: 1 }, ..of("y") };
    let shown = "SELECT count(*) FROM dacapo_x_y._dacapo_serving WHERE version = 'v1.1'";
    for _ in 0..2 {
        let why = unavailable(other.publish(&of_other, at(5)).await);
        assert!(why.contains("dacapo_x_y._dacapo_serving is there and is not a view that"), "{why}");
        assert_eq!(count(&mut world.raw().await, shown).await, 1);
    }
    world.run("CREATE SCHEMA dacapo_notes; CREATE VIEW dacapo_notes.notes AS SELECT 7 AS mine").await;
    world.view(1, &[NOTES], 1).await;
    let why = unavailable(world.views.publish(&id(1), at(1)).await);
    assert!(why.contains("dacapo_notes.notes is there and is not a view that"), "{why}");
    assert_eq!(count(&mut world.raw().await, "SELECT count(*) FROM dacapo_notes.notes WHERE mine = 7").await, 1);
}

#[tokio::test]
async fn nothing_but_the_view_goes_with_its_schema() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    world.run("CREATE VIEW public.mine AS SELECT id FROM dacapo_notes_v1_1.notes").await;
    let why = unavailable(world.views.drop_view(&id(1)).await);
    assert!(why.contains("the view mine would go with") || why.contains("public.mine would go with"), "{why}");
    world.run("DROP VIEW public.mine; CREATE TABLE dacapo_notes_v1_1.sequencer (); CREATE TABLE dacapo_notes_v1_1.published ()").await;
    let why = unavailable(world.views.drop_view(&id(1)).await);
    assert!(why.contains("a journal would go with"), "{why}");
    world.run("DROP TABLE dacapo_notes_v1_1.published").await;
    world.views.drop_view(&id(1)).await.unwrap();
}

#[tokio::test]
async fn projections_whose_schemas_would_have_one_name_are_refused() {
    let world = World::new().await;
    let names = ["notes", "notes_v1_1", "notes_v1", "notes_vx_1"].map(|name| ProjectionName::new(name).unwrap());
    let [notes, odd, one, other] = &names;
    let refused = |known: &[&ProjectionName], new: &[&ProjectionName]| match world.views.check_names(known, new) {
        Ok(()) => false,
        Err(error) => error.to_string().contains("notes_v1_1 and notes would have a schema of one name"),
    };
    assert!(refused(&[notes], &[odd]) && refused(&[odd], &[notes]) && refused(&[], &[odd, notes]));
    assert!(!refused(&[notes, odd], &[]), "they are there already");
    world.views.check_names(&[notes], &[one, other]).unwrap();
}

#[tokio::test]
async fn names_that_somebody_dropped_or_replaced_are_made_again() {
    let world = World::new().await;
    world.view(1, &[NOTES, TAGS], 3).await;
    world.views.publish(&id(1), at(2)).await.unwrap();
    let all = ["_dacapo_serving", "notes", "tags"];
    let others = "DROP VIEW dacapo_notes.tags; CREATE VIEW dacapo_notes.tags AS SELECT 'x' AS tag;
                  COMMENT ON VIEW dacapo_notes.tags IS ";
    let mark = "SELECT obj_description('dacapo_notes.notes'::regclass, 'pg_class')";
    let mark: String = sqlx::query_scalar(mark).fetch_one(&mut world.raw().await).await.unwrap();
    let others = format!("{others} '{mark}'");
    for gone in ["DROP VIEW dacapo_notes.notes", "DROP SCHEMA dacapo_notes CASCADE", &others] {
        world.run(gone).await;
        world.views.publish(&id(1), at(2)).await.unwrap();
        assert_eq!(world.shown().await, ("v1.1".into(), 3), "{gone}");
        assert_eq!(world.names().await, all, "{gone}");
        assert_eq!(count(&mut world.raw().await, "SELECT count(*) FROM dacapo_notes.tags").await, 0, "{gone}");
    }
    // Names of somebody else are left alone, and that is told.
    world.run("DROP VIEW dacapo_notes.notes; CREATE TABLE dacapo_notes.notes (mine bigint)").await;
    let why = unavailable(world.views.publish(&id(1), at(2)).await);
    assert!(why.contains("dacapo_notes.notes is there and is not a view that"), "{why}");
    // They do not go back to a version that serves no more.
    world.view(2, &[TAGS], 3).await;
    world.views.publish(&id(2), at(5)).await.unwrap();
    world.run("DROP VIEW dacapo_notes.tags").await;
    world.views.publish(&id(1), at(2)).await.unwrap();
    assert_eq!(world.names().await, ["_dacapo_serving", "notes"], "nobody but the driver of version 2 makes them");
    world.views.publish(&id(2), at(5)).await.unwrap();
    assert_eq!(world.names().await, all, "the table of somebody else stays");
}

// What stands is only looked at.
#[tokio::test]
async fn names_that_are_there_are_looked_at_without_a_lock() {
    let world = World::new().await;
    world.view(1, &[NOTES], 1).await;
    world.views.publish(&id(1), at(1)).await.unwrap();
    let mut other = world.raw().await;
    let lock = "BEGIN; SELECT FROM dacapo.published FOR UPDATE; LOCK TABLE dacapo_notes_v1_1._dacapo_tokens";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    world.views.publish(&id(1), at(1)).await.unwrap();
}
