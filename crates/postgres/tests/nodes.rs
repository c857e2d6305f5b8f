//! Several nodes on one database.

#[path = "nodes/health.rs"]
mod health;
#[path = "nodes/history.rs"]
mod history;
#[path = "nodes/locks.rs"]
mod locks;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{EventType, ExpectedRevision, NewEvent, Parted, Position, Revision};
use dacapo_postgres::testbed::{Server, name_of};
use dacapo_postgres::{Database, Options};
use dacapo_store::contract::Chance;
use dacapo_store::contract::journal::{appended, everything};
use dacapo_store::{
    Append, AppendError, AppendRefused, Filter, Journal, Limit, OnKnown, StoreError, StreamEvent, Streams,
};
use futures::future::join_all;
use support::{Told, append, check, event, name, node};

const TASKS: u64 = 64;
const ROUNDS: u64 = 5;
const STREAMS: u64 = 12;

/// Appends to streams that everybody writes to, deciding again when somebody was faster, and retries at either node.
async fn contend(nodes: [Arc<dyn Journal>; 2], task: u64) -> Told {
    let mut chance = Chance::new(task);
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let number = (task * ROUNDS + round) * 2 + 1;
        let stream = format!("common-{}", chance.below(STREAMS));
        let here = &nodes[task as usize % 2];
        let (written, answer) = loop {
            let revision = here.stream_revision(&name(&stream)).await.unwrap();
            let expected = if chance.below(4) == 0 { ExpectedRevision::Any } else { ExpectedRevision::Exact(revision) };
            let try_this = append(&stream, expected, [number, number + 1]);
            match here.append(try_this.clone()).await {
                Ok(answer) => break (try_this, answer),
                Err(AppendError::Refused(AppendRefused::WrongRevision { actual, .. })) => {
                    assert_ne!(actual, revision, "a refusal tells another revision than the one expected");
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(answer.written, 2);
        let again = nodes[chance.below(2) as usize].append(written).await.unwrap();
        assert_eq!((again.position, again.revision, again.written), (answer.position, answer.revision, 0));
        told.push((number + 1, answer));
    }
    told
}

// I-1, I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_append_at_once() {
    let server = Server::shared();
    let url = server.database().await;
    let nodes: [Arc<dyn Journal>; 2] = [Arc::new(node(&url, 1).await), Arc::new(node(&url, 2).await)];
    let tasks = (0..2 * TASKS).map(|task| tokio::spawn(contend(nodes.clone(), task)));
    let told: Told = join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
    for node in &nodes {
        // The other node's last events are told by it, or found by asking.
        node.head().wait_for(|head| head.get() == 4 * TASKS * ROUNDS).await.unwrap();
        assert_eq!(check(&**node, &told).await.len() as u64, 4 * TASKS * ROUNDS);
    }
}

// I-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_knows_of_streams_holds_until_another_appends() {
    let server = Server::shared();
    let url = server.database().await;
    let nodes = [node(&url, 1).await, node(&url, 2).await];
    // Each node continues where it was, or where the other one was, in the same stream or in another one.
    let turns = [(0, "a-1"), (0, "a-1"), (1, "a-1"), (0, "a-1"), (1, "b-1"), (0, "a-1"), (0, "b-1"), (1, "b-1")];
    let (mut told, mut revisions) = (Vec::new(), HashMap::new());
    for ((at, stream), number) in turns.into_iter().zip(1..) {
        let answer = nodes[at].append(append(stream, ExpectedRevision::Any, [number])).await.unwrap();
        let revision: &mut u64 = revisions.entry(stream).or_default();
        *revision += 1;
        assert_eq!((answer.position.get(), answer.revision.get()), (number, *revision), "{number}");
        told.push((number, answer));
    }
    assert_eq!(check(&nodes[1], &told).await.len(), turns.len());
}

/// Each node looks before it waits for its turn, and what the other one writes meanwhile counts.
// I-1, I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_between_the_look_and_the_turn_is_seen() {
    use ExpectedRevision::{Any, Exact, NoStream};
    let server = Server::shared();
    let url = server.database().await;
    let nodes = [node(&url, 1).await, node(&url, 2).await];
    let database = Database::connect(&url, Options { seed: 3, ..Options::default() }).await.unwrap();
    let mut holder = database.acquire("test").await.unwrap();
    let mut told = Vec::new();
    let mut number = 0;
    for (expected, is_same, becomes) in [
        (Any, false, Ok(2)),
        // Wrong when it looked, and right when it has its turn.
        (Exact(Revision::new(1)), false, Ok(2)),
        (NoStream, false, Err(1)),
        (NoStream, true, Ok(1)),
    ] {
        let stream = format!("a-{number}");
        sqlx::raw_sql("BEGIN; SELECT FROM sequencer FOR UPDATE").execute(&mut *holder).await.unwrap();
        let (first, second) = (number + 1, if is_same { number + 1 } else { number + 2 });
        number += 2;
        let waits = |count: i64| {
            let database = &database;
            async move {
                let waiting = "SELECT count(*) FROM pg_stat_activity \
                               WHERE datname = current_database() AND wait_event_type = 'Lock'";
                let mut connection = database.acquire("test").await.unwrap();
                while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *connection).await.unwrap() < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        let in_turn = async {
            waits(1).await;
            let second = nodes[1].append(append(&stream, expected, [second]));
            let release = async {
                waits(2).await;
                sqlx::raw_sql("COMMIT").execute(&mut *holder).await.unwrap();
            };
            tokio::join!(second, release).0
        };
        let (one, other) = tokio::join!(nodes[0].append(append(&stream, Any, [first])), in_turn);
        told.push((first, one.unwrap()));
        match (other, becomes) {
            (Ok(answer), Ok(revision)) => {
                assert_eq!((answer.revision.get(), answer.written), (revision, usize::from(!is_same)));
                told.push((second, answer));
            }
            (Err(AppendError::Refused(AppendRefused::WrongRevision { actual, .. })), Err(revision)) => {
                assert_eq!(actual.get(), revision);
            }
            (other, _) => panic!("{expected:?}: {other:?}"),
        }
    }
    assert_eq!(check(&nodes[1], &told).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_append_at_two_nodes_is_written_once() {
    let server = Server::shared();
    let url = server.database().await;
    let nodes = [node(&url, 1).await, node(&url, 2).await];
    for round in 0..20 {
        let this = append(&format!("a-{round}"), ExpectedRevision::NoStream, [round * 2 + 1, round * 2 + 2]);
        let answers = join_all((0..8).map(|n| nodes[n % 2].append(this.clone()))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().map(|answer| answer.written).sum::<usize>(), 2);
        assert!(
            answers
                .iter()
                .all(|answer| (answer.position, answer.revision) == (answers[0].position, answers[0].revision))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_follows_another_node_also_after_a_connection_is_lost() {
    let server = Server::shared();
    let url = server.database().await;
    let (one, other) = (node(&url, 1).await, node(&url, 2).await);
    for number in 1..=30 {
        if number % 10 == 0 {
            // Those that append and read are lost too.
            let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE application_name = 'dacapo' AND datname = current_database()";
            server.run(name_of(&url), all).await;
        }
        one.append(append("a-1", ExpectedRevision::Any, [number])).await.unwrap();
        other.head().wait_for(|head| head.get() == number).await.unwrap();
        let batch = other.read(Position::new(number - 1), &Filter::everything(), Limit::events(10)).await.unwrap();
        assert_eq!(batch.len(), 1);
    }
}

// I-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_elsewhere_stalls_nobody() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    let database = Database::connect(&url, Options { schema: "elsewhere".into(), ..Options::default() }).await.unwrap();
    let mut connection = database.acquire("test").await.unwrap();
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL idle_in_transaction_session_timeout = 0; \
                 CREATE TABLE somebodys (n int); INSERT INTO somebodys VALUES (1)";
    sqlx::raw_sql(begin).execute(&mut *connection).await.unwrap();
    for number in 1..=50 {
        journal.append(append("a-1", ExpectedRevision::Exact(Revision::new(number - 1)), [number])).await.unwrap();
        let batch = journal.read(Position::new(number - 1), &Filter::default(), Limit::events(10)).await.unwrap();
        assert_eq!((batch.len(), batch.through.get()), (1, number));
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await.unwrap();
    assert_eq!(everything(&journal).await.len(), 50);
}

/// Anyone who keeps the lock without continuing loses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stops_with_the_lock_is_waited_for_only_so_long() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    let database = Database::connect(&url, Options::default()).await.unwrap();
    let mut connection = database.acquire("test").await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM sequencer FOR UPDATE").execute(&mut *connection).await.unwrap();
    // It is written only because the transaction above, which never ends by itself, is ended.
    let answer = loop {
        match journal.append(append("a-1", ExpectedRevision::NoStream, [1])).await {
            Ok(answer) => break answer,
            Err(AppendError::Store(StoreError::Unavailable { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(answer.position, Position::new(1));
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await.unwrap_err();
}

// I-1, I-2
/// As after a fail-over to a server that had not received everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_went_back_takes_nothing_more() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    journal.append(append("a-1", ExpectedRevision::NoStream, 1..=5)).await.unwrap();
    server.run(name_of(&url), "DELETE FROM dacapo.events WHERE position > 3").await;
    let error = journal.append(append("b-1", ExpectedRevision::Any, [6])).await.unwrap_err();
    let parted = Parted::History { same_through: Position::START, differs_at: Position::new(4) };
    assert!(matches!(error, AppendError::Store(StoreError::JournalParted(found)) if found == parted), "{error:?}");
    // Nor gives it anything: a view would take the events that come in their place for known.
    let error = journal.read(Position::new(1), &Filter::everything(), Limit::events(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::JournalParted(found) if found == parted), "{error:?}");
    // A node that never saw them continues from there.
    let journal = node(&url, 2).await;
    assert_eq!(journal.append(append("b-1", ExpectedRevision::Any, [6])).await.unwrap().position, Position::new(4));
}

/// More than a read looks at in order, so that the index of types has to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_few_are_found_among_many() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    let of = |number: u64| {
        let mut event = event(number);
        if number % 4_000 == 77 {
            event.event_type = EventType::new(["rare", "odd"][number as usize / 4_000 % 2]).unwrap();
        }
        StreamEvent { stream: name(["a-1", "b-1", "$own"][number as usize % 3]), event }
    };
    for from in (0..60_000).step_by(10_000) {
        let events = (from..from + 10_000).map(of).collect();
        appended(&journal, Append { events, expected: vec![], on_known: OnKnown::Recognise }).await;
    }
    let types = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    for (streams, types, most) in [
        (Streams::All, types(&["rare"]), 1),
        (Streams::All, types(&["rare", "odd"]), 4),
        (Streams::User, types(&["rare", "odd", "none"]), 1_000),
        (Streams::Categories(vec!["b".into()]), types(&["odd", "rare"]), 2),
        (Streams::Categories(vec!["b".into()]), types(&["happened"]), 7_000),
        (Streams::All, types(&["none"]), 10),
        (Streams::User, types(&["happened", "rare", "isn't \\ $3"]), 30_000),
        (Streams::Categories(vec!["b".into(), "isn't \\ $3".into()]), types(&["happened", "odd"]), 30_000),
        (Streams::User, types(&[]), 30_000),
    ] {
        let filter = Filter { streams, types };
        let (mut after, mut found) = (Position::START, Vec::new());
        while after.get() < 60_000 {
            let batch = journal.read(after, &filter, Limit::events(most)).await.unwrap();
            assert!(batch.through > after && batch.len() <= most);
            found.extend(batch.iter().map(|event| event.position.get()));
            after = batch.through;
        }
        let wanted = |number: &u64| {
            let StreamEvent { stream, event } = of(*number);
            let types = filter.types.as_ref().unwrap();
            let stream = match &filter.streams {
                Streams::All => true,
                Streams::User => stream.as_str() != "$own",
                Streams::Categories(_) => stream.as_str() == "b-1",
            };
            stream && types.iter().any(|name| name == event.event_type.as_str())
        };
        let expected: Vec<_> = (0..60_000).filter(wanted).map(|number| number + 1).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

// I-1
/// What a node knows of the size of events is that of those before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_pages_are_bounded_and_whole_however_sizes_change() {
    const BYTES: usize = 1 << 20;
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    let payload = |number: u64| if (number / 3_000).is_multiple_of(2) { vec![b'1'; 20] } else { vec![b'2'; 2_000] };
    for from in (0..15_000).step_by(3_000) {
        let events = (from..from + 3_000).map(|number| NewEvent { payload: payload(number), ..event(number) });
        journal.append(Append::to_stream(name("many"), ExpectedRevision::Any, events.collect())).await.unwrap();
    }
    let limit = Limit { events: 10_000, bytes: BYTES };
    let (mut after, mut longest) = (Position::START, 0);
    while after.get() < 15_000 {
        let batch = journal.read(after, &Filter::everything(), limit).await.unwrap();
        for (at, event) in (after.get()..).zip(batch.iter()) {
            assert_eq!((event.position, event.revision), (Position::new(at + 1), Revision::new(at + 1)));
            assert_eq!((event.id, event.payload), (self::event(at).id, &*payload(at)));
        }
        assert_eq!(batch.through, after.plus(batch.len() as u64));
        assert!(!batch.is_empty() && batch.iter().map(|event| event.payload.len()).sum::<usize>() <= BYTES);
        (after, longest) = (batch.through, longest.max(batch.len()));
    }
    assert!(longest >= 2_000, "{longest} events were the most that a page had");

    server.run(name_of(&url), "DELETE FROM dacapo.events WHERE position = 2000").await;
    let error = journal.read(Position::START, &Filter::everything(), limit).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

/// A long page is read by two connections at once, and there are four.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_readers_than_connections_never_wait_for_each_other() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    journal.append(append("a-1", ExpectedRevision::Any, 1..=1_000)).await.unwrap();
    journal.append(append("a-1", ExpectedRevision::Any, 1_001..=2_000)).await.unwrap();
    let (everything, limit) = (Filter::everything(), Limit { events: 2_000, bytes: 1 << 22 });
    for _ in 0..5 {
        let reads = (0..16).map(|_| journal.read(Position::START, &everything, limit));
        for batch in join_all(reads).await {
            let batch = batch.unwrap();
            assert!(batch.iter().map(|event| event.position.get()).eq(1..=2_000));
        }
    }
}

// I-3: anyone who continues reads with the connections that were used.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_that_is_given_up_leaves_nothing_behind_for_the_next_one() {
    const EVENTS: u64 = 20_000;
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    for first in (0..EVENTS).step_by(5_000) {
        appended(&journal, append("many", ExpectedRevision::Any, first..first + 5_000)).await;
    }
    let all = Limit { events: EVENTS as usize, bytes: 32 << 20 };
    let everything = Filter::everything();
    let filter = Filter { types: Some(vec!["happened".into()]), ..Filter::everything() };
    // The first reads tell how many bytes an event has, and so how many may be asked for.
    journal.read(Position::START, &everything, all).await.unwrap();
    for micros in (0..40_000).step_by(400) {
        let read = journal.read(Position::START, &everything, all);
        drop(tokio::time::timeout(Duration::from_micros(micros), read).await);
        for after in [0, 5_000] {
            let page = journal.read(Position::new(after), &filter, Limit::events(1_000)).await.unwrap();
            let first = page.iter().next().map(|event| event.position);
            assert_eq!((page.len(), first), (1_000, Some(Position::new(after + 1))), "given up after {micros} µs");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_from_another_node_is_not_refused_for_what_this_one_has_not_heard_of() {
    let server = Server::shared();
    let url = server.database().await;
    let (one, other) = (node(&url, 1).await, node(&url, 2).await);
    for number in 1..=50 {
        let seen = one.append(append("a-1", ExpectedRevision::Any, [number])).await.unwrap();
        // Long before it is told of.
        let batch = other.read(seen.position, &Filter::default(), Limit::events(9)).await.unwrap();
        assert!(batch.is_empty() && batch.through >= seen.position);
        let batch = other.read_stream(&name("a-1"), seen.revision, Limit::events(9)).await.unwrap();
        assert!(batch.is_empty());
    }
    let beyond = other.read(Position::new(51), &Filter::default(), Limit::events(9)).await;
    assert!(
        matches!(beyond, Err(StoreError::BeyondHead { after, head }) if (after.get(), head.get()) == (51, 50)),
        "{beyond:?}"
    );
}
