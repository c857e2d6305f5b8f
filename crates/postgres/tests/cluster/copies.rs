//! Versions that begin as a copy of another one's rows in the database, compared with a fold of the past in memory.

use std::sync::Arc;

use dacapo::options::Seed;
use dacapo::store::Store;
use dacapo::verify::{FindingKind, Outcome, Verdict};
use dacapo_postgres::Options;
use dacapo_postgres::testbed::Server;

use crate::sums::{fold_of, right};

/// The server ends with the last one that has it.
async fn store() -> (Arc<Server>, Store) {
    let server = Server::shared();
    let url = server.database().await;
    let store = dacapo_postgres::connect(&url, Options { connections_max: 6, ..Options::default() }).await.unwrap();
    (server, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_the_database_whose_new_column_stays_empty_is_found_wrong() {
    let (_server, store) = store().await;
    let (node, verified, part) = fold_of(store, Seed::Columns, false, 1_000).await;
    assert_eq!((verified.verdict, &part.outcome), (Verdict::Fail, &Outcome::Failed), "{verified:?}");
    assert_eq!((&part.wrong[..], part.looked_at), (&[(FindingKind::Differs, 7)][..], 7));
    let found = &part.findings[0];
    assert_eq!((&*found.place, found.key.as_deref()), ("totals", Some("ledger-0")));
    assert_eq!((found.old.as_deref(), found.new.as_deref()), (Some("first 1"), Some("first none")));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_copy_in_the_database_is_compared_with_a_fold_of_the_past_and_passes() {
    let (_server, store) = store().await;
    let (node, verified, part) = fold_of(store, right(), true, 1_000).await;
    assert_eq!((verified.verdict, &part.outcome), (Verdict::Pass, &Outcome::Passed), "{verified:?}");
    assert_eq!(part.looked_at, 8, "seven ledgers, and all of them");
    assert_eq!(part.notes, ["compared with 30 events from the start"]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_more_events_than_are_folded_some_streams_of_a_copy_in_the_database_are() {
    for (seed, verdict) in [(Seed::Columns, Verdict::Fail), (right(), Verdict::Pass)] {
        let (_server, store) = store().await;
        let (node, verified, part) = fold_of(store, seed, false, 9).await;
        assert_eq!(verified.verdict, verdict, "{verified:?}");
        assert!((1..7).contains(&part.looked_at), "{part:?}");
        let told = "a sample of 9 events of 2 streams was folded";
        assert!(part.notes.iter().any(|note| note.contains(told)), "{part:?}");
        node.shutdown().await;
    }
}
