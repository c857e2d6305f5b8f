//! Checks of appending.

use super::*;
use crate::journal::OnKnown;
use dacapo_model::limits;
use futures::future::join_all;

/// A journal without events is at the start.
pub async fn an_empty_journal_is_at_the_start(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    assert_eq!(*journal.head().borrow(), Position::START);
    let batch = journal.read(Position::START, &Filter::default(), Limit::events(10)).await.unwrap();
    assert!(batch.is_empty() && batch.through == Position::START);
    assert_eq!(journal.stream_revision(&name("a-1")).await.unwrap(), Revision::START);
    assert!(journal.read_stream(&name("a-1"), Revision::START, Limit::events(10)).await.unwrap().is_empty());
    assert!(journal.streams(None, None, 10).await.unwrap().is_empty());
}

/// Every part of an event is read back as it was appended.
pub async fn what_is_appended_is_read_back(home: &mut dyn JournalHome) {
    let clock = Arc::new(SetClock::default());
    clock.set(77);
    let journal = home.open(clock).await;
    let mut rich = event(3);
    rich.metadata.actor = Some("somebody".into());
    rich.metadata.correlation = Some(EventId::from_bytes([9; 16]));
    rich.metadata.fields.insert("from".into(), "straße".into());
    rich.tags = vec!["course:17".into(), "ñ".into()];
    assert_eq!(appended(&*journal, any("a-1", [1, 2])).await, at(2, 2, 2));
    let append = Append::to_stream(name("b-1"), ExpectedRevision::NoStream, vec![rich.clone()]);
    assert_eq!(appended(&*journal, append).await, at(3, 1, 1));
    assert_eq!(*journal.head().borrow(), Position::new(3));
    let of = |position, revision, stream: &str, event, last_of_append| Recorded {
        position,
        revision,
        stream: stream.into(),
        event,
        recorded: 77,
        last_of_append,
    };
    let expected = [of(1, 1, "a-1", event(1), false), of(2, 2, "a-1", event(2), true), of(3, 1, "b-1", rich, true)];
    assert_eq!(everything(&*journal).await, expected);
}

/// Recorded times never decrease, even if the clock goes back or the journal is opened again.
pub async fn recorded_times_never_decrease(home: &mut dyn JournalHome) {
    let clock = Arc::new(SetClock::default());
    let mut journal = home.open(clock.clone()).await;
    for (number, time) in [(1, 100), (2, 50), (3, 200)] {
        clock.set(time);
        appended(&*journal, any("a-1", [number])).await;
    }
    clock.set(10);
    if home.lasts() {
        journal.close().await;
        drop(journal);
        journal = home.open(clock.clone()).await;
    }
    appended(&*journal, any("a-1", [4])).await;
    let times: Vec<_> = everything(&*journal).await.iter().map(|event| event.recorded).collect();
    assert_eq!(times, [100, 100, 200, 200]);
}

/// An expected revision of each kind is accepted if the stream has it, and refused otherwise.
pub async fn each_expected_revision_is_held(home: &mut dyn JournalHome) {
    use ExpectedRevision::{Any, Exact, Exists, NoStream};
    let journal = open(home).await;
    let wrong = |expected, actual| AppendRefused::WrongRevision {
        stream: name("a-1"),
        expected,
        actual: Revision::new(actual),
    };
    assert_eq!(refused(&*journal, to("a-1", Exists, [1])).await, wrong(Exists, 0));
    assert_eq!(refused(&*journal, to("a-1", Exact(Revision::new(1)), [1])).await, wrong(Exact(Revision::new(1)), 0));
    assert_eq!(appended(&*journal, to("a-1", NoStream, [1])).await, at(1, 1, 1));
    assert_eq!(refused(&*journal, to("a-1", NoStream, [2])).await, wrong(NoStream, 1));
    assert_eq!(refused(&*journal, to("a-1", Exact(Revision::START), [2])).await, wrong(Exact(Revision::START), 1));
    assert_eq!(appended(&*journal, to("a-1", Exact(Revision::new(1)), [2, 3])).await, at(3, 3, 2));
    assert_eq!(appended(&*journal, to("a-1", Exists, [4])).await, at(4, 4, 1));
    assert_eq!(appended(&*journal, to("a-1", Any, [5])).await, at(5, 5, 1));
    assert_eq!(appended(&*journal, to("a-2", Exact(Revision::START), [6])).await, at(6, 1, 1));
}

/// An append of many streams is written whole or not at all. Streams that are only expected count too.
pub async fn an_append_of_many_streams_is_all_or_nothing(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    appended(&*journal, any("a-1", [1])).await;
    let both = |expected| Append {
        events: vec![in_stream("a-1", 2), in_stream("b-1", 3), in_stream("a-1", 4)],
        expected: vec![(name("b-1"), ExpectedRevision::NoStream), (name("c-1"), expected)],
        on_known: OnKnown::Recognise,
    };
    let why = refused(&*journal, both(ExpectedRevision::Exists)).await;
    assert!(matches!(why, AppendRefused::WrongRevision { stream, .. } if stream == name("c-1")));
    assert_eq!(journal.stream_revision(&name("b-1")).await.unwrap(), Revision::START);
    assert_eq!(appended(&*journal, both(ExpectedRevision::NoStream)).await, at(4, 3, 3));
    let places: Vec<_> = everything(&*journal).await.iter().map(|e| (e.stream.clone(), e.revision)).collect();
    let places: Vec<_> = places.iter().map(|(stream, revision)| (stream.as_str(), *revision)).collect();
    assert_eq!(places, [("a-1", 1), ("a-1", 2), ("b-1", 1), ("a-1", 3)]);
}

// I-2
/// A retry gets the first answer, with any expectation, even after a restart.
pub async fn a_retry_is_recognised(home: &mut dyn JournalHome) {
    let mut journal = open(home).await;
    let append = to("a-1", ExpectedRevision::NoStream, [1, 2]);
    assert_eq!(appended(&*journal, append.clone()).await, at(2, 2, 2));
    appended(&*journal, any("a-1", [3])).await;
    assert_eq!(appended(&*journal, append.clone()).await, at(2, 2, 0));
    if home.lasts() {
        journal.close().await;
        drop(journal);
        journal = open(home).await;
        assert_eq!(appended(&*journal, append).await, at(2, 2, 0));
    }
    assert_eq!(everything(&*journal).await.len(), 3);
}

// I-2
/// Overlapping tries of one append, as after a time-out, write it once.
pub async fn concurrent_tries_of_one_append_write_it_once(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    for round in 0..20 {
        let append = to(&format!("a-{round}"), ExpectedRevision::NoStream, [round * 2 + 1, round * 2 + 2]);
        let answers = join_all((0..8).map(|_| appended(&*journal, append.clone()))).await;
        assert_eq!(answers.iter().map(|answer| answer.written).sum::<usize>(), 2);
        assert!(answers.iter().all(|answer| (answer.position, answer.revision.get()) == (answers[0].position, 2)));
    }
    assert_eq!(everything(&*journal).await.len(), 40);
}

/// An id that another event has is refused, in the same stream or another one.
pub async fn a_taken_id_is_refused(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    appended(&*journal, any("a-1", [1, 2])).await;
    let taken = AppendRefused::IdTaken { id: event(2).id, position: Position::new(2) };
    for on_known in [OnKnown::Recognise, OnKnown::Skip] {
        let elsewhere = Append { on_known, ..to("b-1", ExpectedRevision::NoStream, [3, 2]) };
        assert_eq!(refused(&*journal, elsewhere).await, taken);
        let mut other = Append { on_known, ..any("a-1", [2]) };
        other.events[0].event.payload = b"{}".to_vec();
        assert_eq!(refused(&*journal, other).await, taken);
        let mut other = Append { on_known, ..any("a-1", [2]) };
        other.events[0].event.event_type = EventType::new("closed").unwrap();
        assert_eq!(refused(&*journal, other).await, taken);
    }
    assert_eq!(appended(&*journal, any("b-1", [3])).await, at(3, 1, 1));
}

/// An append of which some events are known is refused or written in part, as the append demands.
pub async fn a_partly_known_append_is_refused_or_skipped(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    appended(&*journal, any("a-1", [1, 2])).await;
    let why = refused(&*journal, any("a-1", [3, 2])).await;
    assert_eq!(
        why,
        AppendRefused::PartlyKnown { known: event(2).id, position: Position::new(2), unknown: event(3).id }
    );
    let skip = |expected, numbers: [u64; 3]| Append { on_known: OnKnown::Skip, ..to("a-1", expected, numbers) };
    assert_eq!(appended(&*journal, skip(ExpectedRevision::Any, [1, 2, 3])).await, at(3, 3, 1));
    assert_eq!(appended(&*journal, skip(ExpectedRevision::Any, [4, 5, 1])).await, at(1, 1, 2));
    let why = refused(&*journal, skip(ExpectedRevision::NoStream, [5, 6, 7])).await;
    assert!(matches!(why, AppendRefused::WrongRevision { .. }));
    assert_eq!(appended(&*journal, skip(ExpectedRevision::NoStream, [3, 4, 5])).await, at(5, 5, 0));
    let all: Vec<_> = everything(&*journal).await.into_iter().map(|recorded| recorded.event).collect();
    assert_eq!(all, (1..=5).map(event).collect::<Vec<_>>());
}

/// An append that has an id twice is refused or written once, as the append demands.
pub async fn an_id_named_twice_is_refused_or_skipped(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let why = refused(&*journal, any("a-1", [1, 2, 1])).await;
    assert_eq!(why, AppendRefused::IdTwice { id: event(1).id, first: 0, second: 2 });
    // The same if the id is known already.
    appended(&*journal, any("k-1", [9])).await;
    let why = refused(&*journal, any("k-1", [9, 9])).await;
    assert_eq!(why, AppendRefused::IdTwice { id: event(9).id, first: 0, second: 1 });
    let mut twice = Append { on_known: OnKnown::Skip, ..any("a-1", [1, 2, 1]) };
    assert_eq!(appended(&*journal, twice.clone()).await, at(2, 1, 2));
    assert_eq!(appended(&*journal, twice.clone()).await, at(2, 1, 0));
    twice.events.push(in_stream("b-1", 1));
    let why = refused(&*journal, twice).await;
    assert_eq!(why, AppendRefused::IdTwice { id: event(1).id, first: 0, second: 3 });
    assert_eq!(everything(&*journal).await.len(), 3);
}

/// Each limit refuses one more than it allows.
pub async fn limits_are_held(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    assert_eq!(refused(&*journal, any("a-1", [])).await, AppendRefused::Empty);
    let max = limits::APPEND_EVENTS_MAX;
    let why = refused(&*journal, any("a-1", 0..=max as u64)).await;
    assert!(matches!(why, AppendRefused::Limit { actual, max: found, .. } if (actual, found) == (max + 1, max)));
    let mut append = any("a-1", [1]);
    append.events[0].event.payload = vec![b' '; limits::PAYLOAD_BYTES_MAX + 1];
    assert!(matches!(refused(&*journal, append).await, AppendRefused::Limit { .. }));
    let mut append = any("a-1", [1]);
    append.expected = vec![(name("b-1"), ExpectedRevision::NoStream); limits::APPEND_EXPECTED_MAX + 1];
    let why = refused(&*journal, append.clone()).await;
    assert!(matches!(why, AppendRefused::Limit { actual, .. } if actual == limits::APPEND_EXPECTED_MAX + 1), "{why}");
    assert_eq!(everything(&*journal).await.len(), 0);
    assert_eq!(appended(&*journal, any("a-1", 0..max as u64)).await, at(max as u64, max as u64, max));
    assert_eq!(everything(&*journal).await.len(), max);
}

// I-1, I-2
/// Many concurrent appends, to separate streams and to a common one, are dense and whole.
pub async fn concurrent_appends_are_dense_and_whole(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let tasks = (0..16_u64).map(|task| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for round in 0..20 {
                let from = (task * 20 + round) * 3;
                let events = vec![
                    in_stream(&format!("own-{task}"), from),
                    in_stream("common", from + 1),
                    in_stream("common", from + 2),
                ];
                let expected = vec![(name(&format!("own-{task}")), ExpectedRevision::Exact(Revision::new(round)))];
                let append = Append { events, expected, on_known: OnKnown::Recognise };
                let answer = appended(&*journal, append).await;
                assert!(*journal.head().borrow() >= answer.position, "what is acknowledged is before the head");
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    let all = everything(&*journal).await;
    assert_eq!(all.len(), 16 * 20 * 3);
    for (append, common) in all.chunks(3).zip(0..) {
        let numbers: Vec<_> = append.iter().map(|event| u128::from_be_bytes(event.event.id.bytes())).collect();
        assert_eq!(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2], "appends are not mixed");
        assert_eq!([append[1].revision, append[2].revision], [common * 2 + 1, common * 2 + 2]);
        assert_eq!(append.iter().map(|event| event.last_of_append).collect::<Vec<_>>(), [false, false, true]);
    }
}

/// A closed journal refuses appends and can still be read. A follower of the head learns that there will be no more
/// events.
pub async fn a_closed_journal_refuses_appends(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let mut follower = journal.head();
    appended(&*journal, any("a-1", [1])).await;
    journal.close().await;
    follower.changed().await.expect("what came before the end is seen");
    assert_eq!(*follower.borrow_and_update(), Position::new(1));
    follower.changed().await.expect_err("the head ends with the journal");
    let mut late = journal.head();
    assert_eq!(*late.borrow(), Position::new(1));
    late.changed().await.expect_err("the head has ended");
    let error = journal.append(any("a-1", [2])).await.unwrap_err();
    assert!(matches!(error, AppendError::Store(crate::StoreError::Unavailable { .. })), "{error}");
    journal.close().await;
}
