//! Whose fault a failure is, and what a node says of itself meanwhile.

use std::time::Duration;

use dacapo_model::{ExpectedRevision, Position};
use dacapo_postgres::testbed::{Server, name_of};
use dacapo_store::{AppendError, Filter, Health, Journal, Limit, StoreError, Streams};

use sqlx::Connection as _;

use super::support::{append, node};

/// How long a journal is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Waits until the journal says that it works.
pub(super) async fn well(journal: &dyn Journal) {
    let well = async {
        while journal.health() != Health::Well {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(WAIT_MAX, well).await.is_err() {
        panic!("it never works again: {:?}", journal.health());
    }
}

/// Waits until the journal says that it fails, for a reason that is told so.
pub(super) async fn failing(journal: &dyn Journal, told: &str) {
    let failing = async {
        loop {
            match journal.health() {
                Health::Failing(why) | Health::Damaged(why) if why.contains(told) => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    if tokio::time::timeout(WAIT_MAX, failing).await.is_err() {
        panic!("it never says {told:?}: {:?}", journal.health());
    }
}

/// Rights that are taken away and given again, and the row that appends lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_broke_is_not_the_fault_of_who_appends() {
    let server = Server::shared();
    let url = server.database().await;
    let name = name_of(&url);
    let grants = "GRANT CREATE, USAGE ON SCHEMA dacapo TO app; GRANT INSERT ON dacapo.events TO app";
    server.run("postgres", &format!("CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE {name} TO app")).await;
    let journal = node(&server.url_of("app", name), 1).await;
    journal.append(append("a-1", ExpectedRevision::Any, [1])).await.unwrap();
    assert_eq!(journal.health(), Health::Well);
    let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
    for (number, (broken, mended, code)) in (2..).zip([
        ("REVOKE INSERT ON dacapo.events FROM app", grants, "[SQLSTATE 42501]"),
        ("REVOKE USAGE ON SCHEMA dacapo FROM app", grants, "GRANT USAGE ON SCHEMA"),
        (
            "CREATE TABLE dacapo.kept AS SELECT * FROM dacapo.sequencer; DELETE FROM dacapo.sequencer",
            "INSERT INTO dacapo.sequencer SELECT * FROM dacapo.kept",
            "the one row of the table sequencer is gone",
        ),
    ]) {
        server.run(name, broken).await;
        server.run("postgres", cut).await;
        // Long before the append is given up.
        let refused = async {
            match journal.append(append("a-1", ExpectedRevision::Any, [number])).await {
                Err(AppendError::Store(StoreError::Unavailable { .. } | StoreError::Corrupt { .. })) => {}
                other => panic!("{broken}: {other:?}"),
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = refused => {}
            () = failing(&journal, code) => {}
        }
        // It finds out by itself that it works again.
        server.run(name, mended).await;
        well(&journal).await;
        journal.append(append("a-1", ExpectedRevision::Any, [number])).await.unwrap();
    }
}

// I-11
/// A disk that is full as the server tells it: rows are refused, and everything else works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_cannot_write_says_so_without_a_break() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    journal.append(append("a-1", ExpectedRevision::Any, [1])).await.unwrap();
    // What is counted with a sequence is not rolled back.
    let full = "CREATE SEQUENCE dacapo.tried; CREATE FUNCTION dacapo.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                PERFORM nextval('dacapo.tried'); RAISE disk_full USING MESSAGE = 'could not extend file'; END $$";
    let refuses = |table| {
        format!("CREATE TRIGGER refuses BEFORE INSERT ON dacapo.{table} FOR EACH ROW EXECUTE FUNCTION dacapo.refuse()")
    };
    server.run(name_of(&url), &format!("{full}; {}; {}", refuses("events"), refuses("probe"))).await;
    let refused = journal.append(append("a-1", ExpectedRevision::Any, [2])).await.unwrap_err();
    assert!(refused.to_string().contains("could not extend file"), "{refused}");

    let tried = async || -> i64 {
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        sqlx::query_scalar("SELECT last_value FROM dacapo.tried").fetch_one(&mut connection).await.unwrap()
    };
    let until = tried().await + 3;
    // Nobody appends any more, so the journal alone tries.
    let holds = async {
        while tried().await < until {
            assert!(matches!(journal.health(), Health::Failing(_)), "{:?}", journal.health());
            // What needs no room works.
            let batch = journal.read(Position::START, &Filter::default(), Limit::events(10)).await.unwrap();
            assert_eq!(batch.iter().count(), 1);
            let conflict = journal.append(append("a-1", ExpectedRevision::NoStream, [3])).await.unwrap_err();
            assert!(matches!(conflict, AppendError::Refused(_)), "{conflict}");
            let again = journal.append(append("a-1", ExpectedRevision::Any, [1])).await.unwrap();
            assert_eq!(again.written, 0);
        }
    };
    tokio::time::timeout(WAIT_MAX, holds).await.expect("the journal tries again by itself");
    let cured = |table| format!("DROP TRIGGER refuses ON dacapo.{table}");
    server.run(name_of(&url), &format!("{}; {}", cured("events"), cured("probe"))).await;
    well(&journal).await;
    journal.append(append("a-1", ExpectedRevision::Any, [2])).await.unwrap();

    // The tries have left nothing.
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let bytes = "SELECT pg_relation_size('dacapo.probe')";
    let bytes: i64 = sqlx::query_scalar(bytes).fetch_one(&mut connection).await.unwrap();
    assert_eq!(bytes, 0);
}

// I-1
/// A stream whose last event is gone, which no read of the stream can notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_gone_are_found_in_the_course_of_time() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    journal.append(append("a-1", ExpectedRevision::Any, [1, 2])).await.unwrap();
    journal.append(append("b-1", ExpectedRevision::Any, [3])).await.unwrap();
    let taken = "CREATE TABLE dacapo.kept AS SELECT * FROM dacapo.events WHERE position = 2; \
                 DELETE FROM dacapo.events WHERE position = 2";
    server.run(name_of(&url), taken).await;
    failing(&journal, "events between 0 and 3 are missing").await;
    assert!(matches!(journal.health(), Health::Damaged(_)), "{:?}", journal.health());
    server.run(name_of(&url), "INSERT INTO dacapo.events SELECT * FROM dacapo.kept").await;
    well(&journal).await;
}

/// PostgreSQL has no text with a NUL, so nothing that it has is called so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_nothing_can_have_are_answered_at_once() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    journal.append(append("a-1", ExpectedRevision::Any, 1..=2_000)).await.unwrap();
    let odd = || vec!["\0".to_owned(), "hap\0pened".to_owned()];
    for most in [1, 2_000] {
        for filter in [
            Filter { types: Some(odd()), ..Filter::default() },
            Filter { streams: Streams::Categories(odd()), types: None },
            Filter { streams: Streams::Categories(odd()), types: Some(odd()) },
        ] {
            let batch = journal.read(Position::START, &filter, Limit::events(most)).await.unwrap();
            assert!(batch.is_empty() && batch.through == Position::new(2_000), "{filter:?}");
        }
    }
    assert_eq!(journal.streams(Some("a\0"), None, 10).await.unwrap(), []);
    assert_eq!(journal.health(), Health::Well);
}
