//! Which journal it is, and whether its history is still the one that a node knows.

use std::sync::Arc;

use std::time::Duration;

use dacapo_model::{EventType, ExpectedRevision, Mark, Parted, Position, Revision};
use dacapo_postgres::testbed::{Server, name_of};
use dacapo_postgres::{Database, Options, PostgresJournal, PostgresMembers};
use dacapo_store::contract::journal::appended;
use dacapo_store::{
    Append, AppendError, Filter, Health, Journal, Limit, Members, OnKnown, StoreError, StreamEvent, Streams,
};

use super::support::{append, event, name, node};

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
    let StoreError::BeyondHead { after, head } = error else { panic!("{error:?}") };
    assert_eq!((after, head), (Position::new(16), Position::new(15)));
    let mut digests: Vec<_> = marks.iter().map(|mark| mark.digest).collect();
    digests.dedup();
    assert_eq!(digests.len(), 5);

    // Another journal with the same first events, and others after them.
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

fn parted<T: std::fmt::Debug>(result: Result<T, impl Into<AppendError>>) -> Parted {
    match result.map_err(Into::into) {
        Err(AppendError::Store(StoreError::JournalParted(parted))) => parted,
        other => panic!("it must be told that they have parted, but: {other:?}"),
    }
}

fn damage<T: std::fmt::Debug>(result: Result<T, impl Into<AppendError>>) -> String {
    match result.map_err(Into::into) {
        Err(AppendError::Store(error @ StoreError::Corrupt { .. })) => error.to_string(),
        other => panic!("damage must be told, but: {other:?}"),
    }
}

// I-2
/// A stand-by takes over that had not received the last events; then nobody appends, or somebody does who never saw them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_notice_that_a_server_took_over_without_the_last_events() {
    let server = Server::shared();
    for others in [0, 2, 4, 9] {
        let url = server.database().await;
        let before = node(&url, 0).await;
        before.append(append("a-1", ExpectedRevision::Any, 1..=3)).await.unwrap();
        before.append(append("a-1", ExpectedRevision::Any, 4..=5)).await.unwrap();
        before.close().await;
        drop(before);
        let copy = server.copy(&url).await;
        if others > 0 {
            let restarted = node(&server.url(&copy), 3).await;
            restarted.append(append("b-1", ExpectedRevision::Any, 11..11 + others)).await.unwrap();
            restarted.close().await;
        }

        let database = Database::connect(&url, Options::default()).await.unwrap();
        let (one, other) = (PostgresJournal::open(&database, None).await.unwrap(), node(&url, 2).await);
        one.append(append("a-1", ExpectedRevision::Any, [6])).await.unwrap();
        one.append(append("a-1", ExpectedRevision::Any, 7..=9)).await.unwrap();
        other.head().wait_for(|head| *head == Position::new(9)).await.unwrap();
        server.replace(&url, &copy).await;

        let found = Parted::History { same_through: Position::new(5), differs_at: Position::new(6) };
        assert_eq!(parted(one.append(append("c-1", ExpectedRevision::Any, [30])).await), found);
        assert_eq!(one.health(), Health::Parted(found));
        // Nobody appends here, so it finds out by itself.
        let told = until_told(&other).await;
        assert_eq!(other.health(), Health::Parted(told));
        // It may have heard of the last group only.
        let Parted::History { same_through, differs_at } = told else { panic!("{told}") };
        assert!(same_through == Position::new(5) && (6..=9).contains(&differs_at.get()), "{told}");
        // Views of that database are not shown any more either.
        parted(database.acquire("show a view").await.map(drop));
        parted(PostgresMembers::new(Arc::new(database)).live().await);
        // A node that begins again continues from what is there.
        let anew = node(&url, 4).await;
        assert_eq!(anew.append(append("c-1", ExpectedRevision::Any, [30])).await.unwrap().position.get(), 6 + others);
    }
}

/// Reads again until that is refused. No read ever shows or misses anything of the other history.
async fn until_told(journal: &dyn Journal) -> Parted {
    let told = async {
        loop {
            match journal.read(Position::START, &Filter::everything(), Limit::events(10)).await {
                Err(StoreError::JournalParted(found)) => return found,
                Ok(batch) => assert_eq!(batch.len(), 9),
                Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("it must be told that they have parted, but: {error:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("somebody was told")
}

// I-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_gone_is_missed_by_every_read_that_goes_over_it() {
    let server = Server::shared();
    let url = server.database().await;
    let journal = node(&url, 1).await;
    for from in (1..=24_000).step_by(8_000) {
        let of = |number: u64| {
            let mut event = event(number);
            event.event_type = EventType::new(if number % 6_000 == 5 { "rare" } else { "happened" }).unwrap();
            StreamEvent { stream: name(["a-1", "b-1"][number as usize % 2]), event }
        };
        let events = (from..from + 8_000).map(of).collect();
        appended(&journal, Append { events, expected: vec![], on_known: OnKnown::Recognise }).await;
    }
    let types = |wanted: &str| Some(vec![wanted.to_owned()]);
    let filters = [
        Filter::default(),
        Filter { types: types("happened"), ..Filter::default() },
        Filter { types: types("rare"), ..Filter::default() },
        Filter { types: types("none"), ..Filter::default() },
        Filter { streams: Streams::Categories(vec!["b".into()]), types: None },
        Filter { streams: Streams::Categories(vec!["none".into()]), types: None },
        Filter { streams: Streams::Categories(vec!["a".into()]), types: types("rare") },
    ];
    let all = async |filter: &Filter, events: usize, after: u64| {
        let mut after = Position::new(after);
        while after < Position::new(24_000) {
            after = journal.read(after, filter, Limit::events(events)).await?.through;
        }
        Ok::<_, StoreError>(())
    };
    let each = || filters.iter().flat_map(|filter| [(filter, 3), (filter, 700), (filter, 8_000)]);
    for (filter, events) in each() {
        all(filter, events, 23_900).await.unwrap();
    }
    journal.read_stream(&name("b-1"), Revision::START, Limit::events(10_000)).await.unwrap();

    server.run(name_of(&url), "DELETE FROM dacapo.events WHERE position = 10011").await;
    for (filter, events) in each() {
        // What does not go over it is not held up.
        all(filter, events, if events > 3 { 10_011 } else { 23_900 }).await.unwrap();
        let error = all(filter, events, 10_000).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{filter:?} by {events}: {error:?}");
        assert!(error.to_string().contains("are missing though they were there"), "{filter:?} by {events}: {error}");
    }
    let told = damage(journal.read_stream(&name("b-1"), Revision::START, Limit::events(10_000)).await);
    assert!(told.contains("the event of b-1 with the revision 5006"), "{told}");
    let mut after = Position::START;
    let told = loop {
        match journal.read_places(after, Limit::events(8_000)).await {
            Ok(batch) => after = batch.through,
            Err(error) => break error.to_string(),
        }
    };
    assert!(told.contains("events between 8000 and 16000 are missing"), "{told}");
}
