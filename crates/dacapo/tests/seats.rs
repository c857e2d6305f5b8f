//! Values that one row may have: what counts is the state after each event, in memory and on disk.

#[path = "common/seats.rs"]
mod seats;

use std::sync::Arc;

use dacapo::options::{CarryRefused, SegmentCount};
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{Error, Node, Options, StartError, VersionCode};
use seats::SeatEvent::{self, Moved, Noted, Released, Swapped, Taken};
use seats::{Outcome, Seats, run, skipping};

fn memory() -> Store {
    Store::memory(Arc::new(SystemClock))
}

fn taken(user: &str, seat: i64) -> SeatEvent {
    Taken { user: user.into(), seat }
}

fn released(user: &str) -> SeatEvent {
    Released { user: user.into() }
}

fn moved(from: &str, to: &str) -> SeatEvent {
    Moved { from: from.into(), to: to.into() }
}

/// Who sits where, and which events were refused, the first being 0.
async fn after(events: &[SeatEvent]) -> (Vec<(String, i64)>, Vec<u64>) {
    let mut all: Option<Outcome> = None;
    for (past, batch) in [(0, 1), (events.len(), 1_000), (events.len(), 1)] {
        let (found, _) = run(memory(), events, past, skipping(batch, 64 << 20)).await;
        if let Some(first) = &all {
            assert_eq!(&found, first, "{past} of the past, batches of {batch}");
        }
        all = Some(found);
    }
    let Outcome { rows, refused } = all.expect("it ran");
    let seats = rows.into_iter().filter_map(|(user, row)| Some((user, row.0?)));
    (seats.collect(), refused.into_keys().collect())
}

fn at(user: &str, seat: i64) -> (String, i64) {
    (user.into(), seat)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_may_move_a_value_to_a_row_that_sorts_before_or_behind() {
    assert_eq!(after(&[taken("zoe", 7), moved("zoe", "ada")]).await, (vec![at("ada", 7)], vec![]));
    assert_eq!(after(&[taken("ada", 7), moved("ada", "zoe")]).await, (vec![at("zoe", 7)], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_may_swap_the_values_of_two_rows() {
    let swapped = Swapped { a: "ada".into(), b: "zoe".into() };
    let events = [taken("ada", 7), taken("zoe", 8), swapped];
    assert_eq!(after(&events).await, (vec![at("ada", 8), at("zoe", 7)], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_two_rows_share_after_an_event_is_refused_at_that_event() {
    // In one batch the first would have let go of it before its end.
    let events = [taken("zoe", 7), taken("ada", 7), released("zoe"), taken("bob", 7)];
    assert_eq!(after(&events).await, (vec![at("bob", 7)], vec![1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_an_index_is_refused_at_that_event_even_if_a_later_one_shortens_it() {
    let noted = |bytes: usize| Noted { user: "ada".into(), note: "n".repeat(bytes) };
    let max = dacapo::limits::INDEX_BYTES_MAX;
    let events = [taken("ada", 7), noted(max), noted(max + 1), noted(3)];
    assert_eq!(after(&events).await, (vec![at("ada", 7)], vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_in_memory() {
    seats::same_wherever_batches_end(0..4, async || memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_on_disk() {
    let mut directories = vec![];
    seats::same_wherever_batches_end(4..6, async || {
        directories.push(tempfile::tempdir().unwrap());
        Store::embedded(directories.last().unwrap().path(), Arc::new(SystemClock)).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_needs_one_segment() {
    let several = || {
        let options = Options { segments: SegmentCount::new(2).unwrap(), ..Options::default() };
        VersionCode::new(Seats { options })
    };
    let refused = Node::builder().projection(several()).start().await.err().expect("it is refused");
    assert!(matches!(refused, StartError::Carry(CarryRefused::Unique { .. })), "{refused}");
    let node = Node::builder().start().await.unwrap();
    let refused = node.add_projection(several()).unwrap_err();
    assert!(matches!(&refused, Error::Carry(CarryRefused::Unique { .. })), "{refused}");
    assert!(refused.to_string().contains("seats v1 has a unique index on table holders and 2 segments"), "{refused}");
    node.shutdown().await;
}
