//! Which journal it is, and whether its history is still the one that a node knows.

use dacapo_model::{ExpectedRevision, Mark, Position};
use dacapo_postgres::testbed::Server;
use dacapo_postgres::{Database, Options, PostgresJournal};
use dacapo_store::{Journal, StoreError};

use super::support::{append, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_journal_have_its_identity_and_its_marks() {
    let server = Server::shared();
    let url = server.database().await;
    let (one, other) = (node(&url, 1).await, node(&url, 2).await);
    assert_eq!(one.id(), other.id());
    assert_eq!(one.mark(Position::START).await.unwrap(), Mark::START);
    let mut marks = Vec::new();
    for (number, node) in [(1, &one), (11, &other), (21, &one), (31, &one), (41, &other)] {
        let appended = node.append(append("a-1", ExpectedRevision::Any, number..number + 3)).await.unwrap();
        marks.push(node.mark(appended.position).await.unwrap());
        assert_eq!(marks.last().unwrap().position, appended.position);
    }
    for node in [&one, &other] {
        for mark in &marks {
            assert_eq!(node.mark(mark.position).await.unwrap(), *mark);
            // Within the next group the mark is that of the one before.
            let within = mark.position.plus(2);
            if within <= Position::new(15) {
                assert_eq!(node.mark(within).await.unwrap(), *mark);
            }
        }
    }
    let error = one.mark(Position::new(16)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("position 16 lies beyond the head, 15"), "{error}");
    let mut digests: Vec<_> = marks.iter().map(|mark| mark.digest).collect();
    digests.dedup();
    assert_eq!(digests.len(), 5);

    // Another journal with the same first events, and others behind them.
    let options = Options { schema: "beside".into(), ..Options::default() };
    let database = Database::connect(&url, options).await.unwrap();
    let beside = PostgresJournal::open(&database, None).await.unwrap();
    assert_ne!(beside.id(), one.id());
    for numbers in [1..4, 11..14, 22..25, 31..34] {
        beside.append(append("a-1", ExpectedRevision::Any, numbers)).await.unwrap();
    }
    for (mark, same) in marks.iter().zip([true, true, false, false]) {
        assert_eq!(beside.mark(mark.position).await.unwrap() == *mark, same, "at {}", mark.position);
    }
}
