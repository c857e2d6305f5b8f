//! Checks of reading.

use super::*;
use crate::error::StoreError;
use crate::journal::Streams;

/// Reads are limited by events and by bytes, return at least one event, and continue after it.
pub async fn reads_are_limited_and_go_on(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    // Numbers of two digits, so that all records are of one length.
    for number in 10..60 {
        appended(&*journal, any("a-1", [number])).await;
    }
    let filter = Filter::default();
    let read = |after, limit| journal.read(Position::new(after), &filter, limit);
    let batch = read(0, Limit::events(7)).await.unwrap();
    assert_eq!((batch.len(), batch.through.get()), (7, 7));
    let batch = read(7, Limit { events: 7, bytes: 1 }).await.unwrap();
    assert_eq!((batch.len(), batch.through.get(), batch.get(0).position.get()), (1, 8, 8));
    let record = batch.bytes();
    let batch = read(8, Limit { events: 7, bytes: record * 3 }).await.unwrap();
    assert_eq!((batch.len(), batch.through.get()), (3, 11));
    let batch = read(48, Limit::events(7)).await.unwrap();
    assert_eq!((batch.len(), batch.through.get()), (2, 50));
    let batch = read(50, Limit::events(7)).await.unwrap();
    assert!(batch.is_empty() && batch.through.get() == 50);
}

/// A filter leaves events out, and the batch covers them nevertheless.
pub async fn filters_choose_and_cover(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    for number in 0..40 {
        let stream = ["a-1", "b-1", "$own", "a"][number as usize % 4];
        appended(&*journal, any(stream, [number])).await;
    }
    let categories = |names: &[&str]| Streams::Categories(names.iter().map(|name| (*name).to_owned()).collect());
    for (streams, types, expected) in [
        (Streams::User, None, 30),
        (Streams::All, None, 40),
        (categories(&["a"]), None, 20),
        (categories(&["a", "$own"]), None, 30),
        (categories(&["nobody"]), None, 0),
        (Streams::All, Some(vec!["withdrawn".to_owned()]), 20),
        (categories(&["a"]), Some(vec!["deposited".to_owned()]), 10),
    ] {
        let filter = Filter { streams, types };
        let (mut after, mut found) = (Position::START, Vec::new());
        while after < Position::new(40) {
            let batch = journal.read(after, &filter, Limit::events(3)).await.unwrap();
            assert!(batch.through > after && batch.len() <= 3);
            assert!(batch.iter().all(|event| filter.wants(&event) && event.position > after));
            assert!(batch.iter().all(|event| event.position <= batch.through));
            found.extend(batch.iter().map(|event| event.position));
            after = batch.through;
        }
        assert_eq!((found.len(), after.get()), (expected, 40), "{filter:?}");
        assert!(found.is_sorted_by(|a, b| a < b));
    }
}

/// The last position before a time is found, even if several events have the same time.
pub async fn times_are_found(home: &mut dyn JournalHome) {
    let clock = Arc::new(SetClock::default());
    let journal = home.open(Arc::clone(&clock) as Arc<dyn crate::clock::Clock>).await;
    let before = async |time| journal.position_before(Timestamp::from_micros(time)).await.unwrap().get();
    assert_eq!(before(0).await, 0, "an empty journal");
    for number in 0..30 {
        clock.set(100 * (number / 3) as i64);
        appended(&*journal, any("a-1", [number])).await;
    }
    for (time, position) in [(-1, 0), (0, 0), (1, 3), (100, 3), (101, 6), (850, 27), (900, 27), (901, 30), (9_999, 30)]
    {
        assert_eq!(before(time).await, position, "{time}");
    }
}

/// Every id that exists is found, and no other.
pub async fn ids_are_found(home: &mut dyn JournalHome) {
    let mut journal = open(home).await;
    for number in 0..50 {
        appended(&*journal, any(["a-1", "$own"][number as usize % 2], [number])).await;
    }
    for again in [false, true] {
        if again && home.lasts() {
            journal.close().await;
            drop(journal);
            journal = open(home).await;
        }
        for number in 0..50 {
            let found = journal.position_of(event(number).id).await.unwrap();
            assert_eq!(found, Some(Position::new(number + 1)));
        }
        assert_eq!(journal.position_of(event(50).id).await.unwrap(), None);
    }
}

/// A stream is read forward from any revision.
pub async fn a_stream_is_read_by_pages(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    for number in 0..60 {
        appended(&*journal, any(["a-1", "a-2", "b-1"][number as usize % 3], [number])).await;
    }
    let stream = name("a-2");
    let (mut after, mut found) = (Revision::START, Vec::new());
    while after < Revision::new(20) {
        let batch = journal.read_stream(&stream, after, Limit::events(6)).await.unwrap();
        assert!(!batch.is_empty() && batch.len() <= 6 && batch.iter().all(|event| event.stream == "a-2"));
        let last = batch.get(batch.len() - 1);
        assert_eq!(batch.through, last.position);
        after = last.revision;
        found.extend(batch.iter().map(|event| (event.revision.get(), event.position.get())));
    }
    assert_eq!(found, (0..20).map(|n| (n + 1, n * 3 + 2)).collect::<Vec<_>>());
    let one = journal.read_stream(&stream, Revision::new(4), Limit { events: 9, bytes: 1 }).await.unwrap();
    assert_eq!((one.len(), one.get(0).revision.get()), (1, 5));
    assert!(journal.read_stream(&stream, Revision::new(20), Limit::events(6)).await.unwrap().is_empty());
    assert_eq!(journal.stream_revision(&stream).await.unwrap(), Revision::new(20));
}

/// A reader that has seen an event beyond the end is refused: a later event with that place is another one.
pub async fn beyond_the_end_is_refused(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let beyond = async |after: u64| {
        let after = Position::new(after);
        let refused = [
            journal.read(after, &Filter::everything(), Limit::events(9)).await.map(drop),
            journal.read(after, &Filter { types: Some(vec![]), ..Filter::default() }, Limit::events(9)).await.map(drop),
            journal.read_places(after, Limit::events(9)).await.map(drop),
        ];
        refused.map(|found| match found {
            Err(StoreError::BeyondHead { after, head }) => Some((after.get(), head.get())),
            Ok(()) => None,
            Err(error) => panic!("{error}"),
        })
    };
    let of_stream = async |stream: &str, after: u64| match journal
        .read_stream(&name(stream), Revision::new(after), Limit::events(9))
        .await
    {
        Err(StoreError::BeyondStream { stream, after, last }) => Err((stream.to_string(), after.get(), last.get())),
        Ok(batch) => Ok(batch.len()),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(beyond(0).await, [None; 3]);
    assert_eq!(beyond(1).await, [Some((1, 0)); 3]);
    assert_eq!(of_stream("a-1", 0).await, Ok(0));
    assert_eq!(of_stream("a-1", 1).await, Err(("a-1".to_owned(), 1, 0)));
    for number in 0..29 {
        appended(&*journal, any(if number % 2 == 0 { "a-1" } else { "a-2" }, [number])).await;
    }
    assert_eq!(beyond(28).await, [None; 3]);
    assert_eq!(beyond(29).await, [None; 3]);
    assert_eq!(beyond(30).await, [Some((30, 29)); 3]);
    assert_eq!(beyond(u64::MAX).await.map(|found| found.map(|(_, head)| head)), [Some(29); 3]);
    assert_eq!(of_stream("a-1", 14).await, Ok(1));
    assert_eq!(of_stream("a-1", 15).await, Ok(0));
    assert_eq!(of_stream("a-1", 16).await, Err(("a-1".to_owned(), 16, 15)));
    assert_eq!(of_stream("a-3", 1).await, Err(("a-3".to_owned(), 1, 0)));
    // The refused reads have lost and skipped nothing.
    appended(&*journal, any("a-1", [29])).await;
    assert_eq!(beyond(30).await, [None; 3]);
    assert_eq!(everything(&*journal).await.len(), 30);
}

/// Streams are listed in the order of bytes, all or those of one category.
pub async fn streams_are_listed_by_pages(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let names = ["b-2", "a", "a-10", "a-2", "ab-1", "a!-1", "$own", "b", "é-1", "a-1"];
    for (stream, number) in names.iter().cycle().take(25).zip(1..) {
        appended(&*journal, any(stream, [number])).await;
    }
    let list = async |category: Option<&str>, page| {
        let mut found: Vec<crate::journal::StreamInfo> = Vec::new();
        loop {
            let after = found.last().map(|info| info.name.clone());
            let next = journal.streams(category, after.as_ref(), page).await.unwrap();
            assert!(next.len() <= page);
            if next.is_empty() {
                return found;
            }
            found.extend(next);
        }
    };
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    for page in [1, 3, 100] {
        let all = list(None, page).await;
        assert_eq!(all.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), sorted);
        for info in &all {
            let first = names.iter().position(|name| *name == info.name.as_str()).unwrap() as u64;
            let count = if first < 5 { 3 } else { 2 };
            assert_eq!((info.revision.get(), info.last.get()), (count, first + 1 + 10 * (count - 1)), "{}", info.name);
        }
        let of_a = list(Some("a"), page).await;
        assert_eq!(of_a.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["a", "a-1", "a-10", "a-2"]);
    }
    assert!(journal.streams(None, None, 0).await.unwrap().is_empty());
}

/// The head wakes its followers at once, and never before the events can be read.
pub async fn the_head_wakes_who_follows(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let follower = tokio::spawn({
        let journal = Arc::clone(&journal);
        async move {
            let (mut head, mut after) = (journal.head(), Position::START);
            while after < Position::new(100) {
                let seen = *head.wait_for(|head| *head > after).await.unwrap();
                while after < seen {
                    let batch = journal.read(after, &Filter::everything(), Limit::events(1000)).await.unwrap();
                    assert!(!batch.is_empty(), "everything through the head can be read");
                    assert_eq!(batch.len() as u64, batch.through.since(after));
                    after = batch.through;
                }
            }
        }
    });
    for number in 0..100 {
        appended(&*journal, any("a-1", [number])).await;
    }
    follower.await.unwrap();
}

/// Events that are larger than one read are read back.
pub async fn large_events_are_read_back(home: &mut dyn JournalHome) {
    let journal = open(home).await;
    let mut sizes = vec![];
    for (number, size) in (0..).zip([10, 5_000, 1 << 20, 100, (3 << 20) + 7, 0, 70_000, 8 << 20, 1]) {
        let mut append = any("a-1", [number]);
        append.events[0].event.payload = vec![b'a' + number as u8; size];
        appended(&*journal, append).await;
        sizes.push(size);
    }
    let of = |events: &[Recorded]| events.iter().map(|event| event.event.payload.len()).collect::<Vec<_>>();
    let all = everything(&*journal).await;
    assert_eq!(of(&all), sizes);
    assert!(all.iter().all(|event| event.event.payload.iter().all(|byte| *byte == b'a' + event.position as u8 - 1)));
    let (mut after, mut found) = (Revision::START, Vec::new());
    while found.len() < sizes.len() {
        let batch = journal.read_stream(&name("a-1"), after, Limit::events(100)).await.unwrap();
        after = batch.get(batch.len() - 1).revision;
        found.extend(batch.iter().map(Recorded::from));
    }
    assert_eq!(found, all);
}
