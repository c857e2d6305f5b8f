//! Views beside a journal that they do not belong to, and a journal whose history is lost under running nodes.

use std::time::Duration;

use dacapo::journal::{Append, EventId};
use dacapo::status::WaitingOn;
use dacapo::store::StoreError;
use dacapo::{Error, ExpectedRevision, Node, Position};
use dacapo_model::{EventType, Metadata, NewEvent, Parted, StreamName};
use dacapo_postgres::testbed::{Server, name_of};

use crate::common::{TotalOf, WAIT_MAX, add, ask, carry_v1, check_serving, ready_and_flip, rows, totals, until, v1};
use crate::{node, node_in};

async fn started(url: &str, name: &str) -> Node {
    node(url, name).await.projection(carry_v1(v1())).start().await.unwrap()
}

/// Appends so many events, and waits until they are applied.
async fn fill(node: &Node, events: i64) -> Position {
    let mut last = Position::START;
    for number in 0..events {
        last = add(node, &format!("ledger-{}", number % 3), 1).await;
    }
    rows(node, last).await.unwrap();
    last
}

fn parted(reasons: impl IntoIterator<Item = WaitingOn>) -> Option<Parted> {
    reasons.into_iter().find_map(|reason| match reason {
        WaitingOn::Parted { parted } | WaitingOn::JournalParted { parted } => Some(parted),
        _ => None,
    })
}

/// Every node keeps the view closed and says why, where one looks first.
async fn is_told(nodes: &[Node], wanted: impl Fn(&Parted) -> bool) {
    for node in nodes {
        let says = |reasons: &[WaitingOn]| parted(reasons.to_vec()).is_some_and(|found| wanted(&found));
        until(node, "the status says so", |status| says(&status.projections[0].versions[0].waiting_on)).await;
        let not_ready: Vec<_> = node.not_ready().into_iter().map(|found| found.reason).collect();
        assert!(says(&not_ready), "{not_ready:?}");
        let asked = node.ask(TotalOf("ledger-0".into())).within(Duration::from_millis(20)).await;
        let Err(Error::TimedOut { waiting_on, .. }) = asked else { panic!("{asked:?}") };
        assert!(says(&waiting_on), "{waiting_on:?}");
    }
}

/// A rebuild by one of the nodes makes it right on all of them.
async fn is_rebuilt(nodes: &[Node]) {
    for node in nodes {
        until(node, "they know each other", |status| status.members.len() == nodes.len()).await;
    }
    nodes[0].projection(totals()).unwrap().rebuild().by("test").await.unwrap();
    ready_and_flip(&nodes[1], "v1.2").await;
    for node in nodes {
        check_serving(node).await;
        until(node, "it is ready", |_| node.not_ready().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_another_journal_is_shown_by_no_node_and_can_be_rebuilt() {
    let server = Server::shared();
    let url = server.database().await;
    for (schema, events) in [("one", 5), ("other", 40)] {
        let node = node_in(&url, schema, "maker").await.projection(carry_v1(v1())).start().await.unwrap();
        fill(&node, events).await;
        node.shutdown().await;
    }
    let exchanged = "DROP SCHEMA other_totals_v1_1 CASCADE; ALTER SCHEMA one_totals_v1_1 RENAME TO other_totals_v1_1";
    server.run(name_of(&url), exchanged).await;
    let mut nodes = vec![];
    for name in ["one", "two"] {
        nodes.push(node_in(&url, "other", name).await.projection(carry_v1(v1())).start().await.unwrap());
    }
    is_told(&nodes, |parted| matches!(parted, Parted::Journal { .. })).await;
    is_rebuilt(&nodes).await;
    for node in nodes {
        node.shutdown().await;
    }
}

/// Events that a program without a projection appends.
async fn append_beside(url: &str, numbers: std::ops::Range<u128>) {
    let store = dacapo_postgres::connect(url, dacapo_postgres::Options::default()).await.unwrap();
    let event = |number: u128| NewEvent {
        id: EventId::from_bytes(number.to_be_bytes()),
        event_type: EventType::new("added").unwrap(),
        payload: br#"{"amount":2}"#.to_vec(),
        metadata: Metadata::default(),
        tags: vec![],
    };
    let stream = StreamName::new("ledger-0").unwrap();
    store.journal.append(Append::to_stream(stream, ExpectedRevision::Any, numbers.map(event).collect())).await.unwrap();
    store.journal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_of_the_journal_below_newer_views_is_noticed_however_long_it_gets() {
    let server = Server::shared();
    let url = server.database().await;
    let first = started(&url, "first").await;
    fill(&first, 10).await;
    first.shutdown().await;
    // The catalog may have gone on after what was filled in.
    let backed_up = first.head();
    server.run(name_of(&url), "CREATE SCHEMA backup; CREATE TABLE backup.events AS TABLE dacapo.events").await;
    let second = started(&url, "second").await;
    fill(&second, 20).await;
    second.shutdown().await;
    let restored = "TRUNCATE dacapo.events; INSERT INTO dacapo.events SELECT * FROM backup.events";
    server.run(name_of(&url), restored).await;

    let differs = backed_up.next();
    let parted = |parted: &Parted| match parted {
        Parted::History { same_through, differs_at } => {
            *same_through > Position::START && *same_through < differs && *differs_at >= differs
        }
        Parted::Journal { .. } => false,
    };
    // While the view is ahead of the journal.
    let third = [started(&url, "third").await];
    is_told(&third, parted).await;
    third[0].shutdown().await;
    // And once the journal is ahead of the view.
    append_beside(&url, 1..61).await;
    let nodes = [started(&url, "one").await, started(&url, "two").await];
    is_told(&nodes, parted).await;
    is_rebuilt(&nodes).await;
    for node in nodes {
        node.shutdown().await;
    }
}

/// Reads until that is refused because the history is lost. No answer is older than the one before it.
async fn read_on(node: Node) {
    let mut seen = Position::START;
    loop {
        match node.read("totals", Position::START).await {
            Ok(reading) => {
                let covers = reading.view.covers();
                assert!(covers >= seen, "I-7: a reader is sent back from {seen} to {covers}");
                seen = covers;
            }
            Err(Error::Store(StoreError::JournalParted(_))) => return,
            Err(Error::Store(StoreError::Unavailable { .. }) | Error::TimedOut { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Appends until that is answered permanently.
async fn append(node: &Node) -> Result<Position, Error> {
    let appending = async {
        loop {
            match node.append("ledger-0", ExpectedRevision::Any, [crate::common::added(1)]).await {
                Err(Error::Store(StoreError::Unavailable { .. })) => {}
                Err(error) => return Err(error),
                Ok(appended) => return Ok(appended.position),
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, appending).await.expect("it is answered for good")
}

// I-2, I-7
/// Nobody has appended where it took over, or nodes that never saw the last events have: fewer than there were, or more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_running_node_notices_that_a_standby_without_the_tail_took_over_and_shows_nothing_of_it() {
    let server = Server::shared();
    for others in [0, 2, 30] {
        let url = server.database().await;
        let before = started(&url, "before").await;
        fill(&before, 5).await;
        before.shutdown().await;
        let common = before.head();
        let copy = server.copy(&url).await;
        if others > 0 {
            let other = started(&server.url(&copy), "other").await;
            fill(&other, others).await;
            other.shutdown().await;
        }

        let nodes = [started(&url, "one").await, started(&url, "two").await];
        let last = fill(&nodes[0], 6).await;
        for node in &nodes {
            ask(node, "ledger-0", last).await;
        }
        let readers: Vec<_> = nodes.iter().map(|node| tokio::spawn(read_on(node.clone()))).collect();
        server.replace(&url, &copy).await;

        let appended = append(&nodes[0]).await;
        assert!(matches!(appended, Err(Error::Store(StoreError::JournalParted(_)))), "{appended:?}");
        // The other one finds out though it appends nothing.
        for node in &nodes {
            let says = |found: Option<Parted>| {
                matches!(found, Some(Parted::History { same_through, differs_at })
                    if same_through <= common && differs_at > common)
            };
            until(node, "readiness says so", |_| says(parted(node.not_ready().into_iter().map(|found| found.reason))))
                .await;
            let told = node.not_ready().first().expect("it is not ready").to_string();
            assert!(told.contains("a restart of every node") && !told.contains("rebuild"), "{told}");
            until(node, "the status says so", |status| {
                says(parted(status.projections[0].versions[0].waiting_on.clone()))
            })
            .await;
            let refused = append(node).await.unwrap_err().to_string();
            assert!(refused.contains("restart every node") && !refused.contains("rebuild"), "{refused}");
        }
        for reader in readers {
            tokio::time::timeout(WAIT_MAX, reader).await.expect("it is refused").unwrap();
        }
        for node in nodes {
            node.shutdown().await;
        }
        // Nodes that begin again continue with what is there.
        let anew = started(&url, "anew").await;
        append(&anew).await.unwrap();
        check_serving(&anew).await;
        anew.shutdown().await;
    }
}
