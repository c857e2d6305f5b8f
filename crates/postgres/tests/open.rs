//! Opening a database: many at once, users with few rights, forms of tables that are not known.

use dacapo_postgres::testbed::{Server, name_of};
use dacapo_postgres::{Database, Options};
use dacapo_store::StoreError;
use futures::future::join_all;
use sqlx::{Connection, PgConnection};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_start_at_once_on_an_empty_database() {
    let server = Server::shared();
    let url = server.database().await;
    let nodes = join_all((0..10).map(|seed| {
        let url = url.clone();
        tokio::spawn(async move { Database::connect(&url, Options { seed, ..Options::default() }).await })
    }));
    for node in nodes.await {
        node.unwrap().unwrap().close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_newer_form_are_refused() {
    let server = Server::shared();
    let url = server.database().await;
    Database::connect(&url, Options::default()).await.unwrap().close().await;
    let newer = "INSERT INTO dacapo.migrations SELECT version + 1000, description, installed_on, success, checksum, \
                 execution_time FROM dacapo.migrations LIMIT 1";
    server.run(name_of(&url), newer).await;
    let error = Database::connect(&url, Options::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("are of form 1001, this program knows forms up to "), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_will_do() {
    let server = Server::shared();
    let url = server.database().await;
    let name = name_of(&url);
    server.run("postgres", "CREATE ROLE guest LOGIN").await;
    let url = server.url_of("guest", name);
    let error = Database::connect(&url, Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("permission denied for database"), "{error}");
    server.run("postgres", &format!("GRANT CREATE ON DATABASE {name} TO guest")).await;
    Database::connect(&url, Options::default()).await.unwrap().close().await;
    // Once the schema is there, the right to make one is not needed any more.
    server.run("postgres", &format!("REVOKE CREATE ON DATABASE {name} FROM guest")).await;
    Database::connect(&url, Options::default()).await.unwrap().close().await;
    let other = Options { schema: "other".into(), ..Options::default() };
    Database::connect(&url, other).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_that_takes_writes_is_found_among_several() {
    let server = Server::shared();
    let url = server.database().await;
    let (user, rest) = url.split_once('@').unwrap();
    let url = format!("{user}@%2Fnowhere,{rest}");
    let database = Database::connect(&url, Options::default()).await.unwrap();
    drop(database.acquire("test").await.unwrap());
    assert!(!database.description().contains('@'), "{}", database.description());
    let error = Database::connect("postgres://nobody@%2Fnowhere,%2Fnever/db", Options::default()).await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains("/nowhere") && message.contains("/never"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_something_else_is_refused_and_left_as_it_is() {
    let server = Server::shared();
    let url = server.database().await;
    let made = "CREATE TABLE public.migrations (id bigint, name text); CREATE TABLE public.events (id bigint);
                CREATE SCHEMA half; CREATE TABLE half.events (id bigint);
                CREATE SCHEMA dacapo_notes_v1_1; CREATE TABLE dacapo_notes_v1_1._dacapo_view (view text);
                CREATE SCHEMA dacapo_notes; CREATE VIEW dacapo_notes._dacapo_serving AS SELECT 1";
    server.run(name_of(&url), made).await;
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let tables = "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                  WHERE nspname IN ('public', 'half', 'dacapo_notes_v1_1', 'dacapo_notes')";
    let before: i64 = sqlx::query_scalar(tables).fetch_one(&mut raw).await.unwrap();
    for (schema, why) in [
        ("public", "it has a table events of something else"),
        ("half", "it has a table events of something else"),
        ("dacapo_notes_v1_1", "it is the view of a version"),
        ("dacapo_notes", "it has the names under which SQL from outside finds"),
        ("information_schema", "cannot be the schema's name"),
    ] {
        let options = Options { schema: schema.into(), ..Options::default() };
        let error = Database::connect(&url, options).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)) && error.to_string().contains(why), "{schema}: {error}");
    }
    let after: i64 = sqlx::query_scalar(tables).fetch_one(&mut raw).await.unwrap();
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_may_be_called_as_a_word_of_sql() {
    let server = Server::shared();
    let url = server.database().await;
    for _ in 0..2 {
        let options = Options { schema: "select".into(), ..Options::default() };
        let store = dacapo_postgres::connect(&url, options).await.unwrap();
        assert_eq!(store.journal.head().borrow().get(), 0);
    }
}
