//! The checks of a [`Journal`], which [`journal_contract!`](crate::journal_contract) turns into tests.

mod append;
mod history;
mod model;
mod read;

pub use append::*;
pub use history::*;
pub use model::*;
pub use read::*;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use dacapo_model::{
    EventId, EventType, ExpectedRevision, Metadata, NewEvent, Position, Revision, StreamName, Timestamp,
};

use crate::clock::Clock;
use crate::error::{AppendError, AppendRefused, StoreError};
use crate::journal::{Append, Appended, Filter, Journal, Limit, StreamEvent};
use crate::record::EventRef;

/// The place of the journal of one check.
#[async_trait]
pub trait JournalHome: Send {
    /// Returns true if the appended events are there when the journal is opened again.
    fn lasts(&self) -> bool;

    /// Opens the journal, which is empty the first time. It is called again only after the journal was closed and
    /// dropped.
    async fn open(&mut self, clock: Arc<dyn Clock>) -> Arc<dyn Journal>;
}

/// Makes one test of each check. The argument is an expression that returns a new
/// [`JournalHome`](crate::contract::journal::JournalHome).
#[macro_export]
macro_rules! journal_contract {
    ($home:expr) => {
        $crate::journal_contract!(@checks @each $home);
    };
    // One test that runs all of them at once, for a home that is expensive to make.
    (@together $name:ident $home:expr) => {
        $crate::journal_contract!(@checks @one $name $home);
    };
    (@checks $($how:tt)*) => {
        $crate::journal_contract!($($how)* =>
            an_empty_journal_is_at_the_start
            what_is_appended_is_read_back
            recorded_times_never_decrease
            each_expected_revision_is_held
            an_append_of_many_streams_is_all_or_nothing
            a_retry_is_recognised
            concurrent_tries_of_one_append_write_it_once
            a_taken_id_is_refused
            a_partly_known_append_is_refused_or_skipped
            an_id_named_twice_is_refused_or_skipped
            limits_are_held
            concurrent_appends_are_dense_and_whole
            a_closed_journal_refuses_appends
            reads_are_limited_and_go_on
            filters_choose_and_cover
            times_are_found
            ids_are_found
            a_stream_is_read_by_pages
            beyond_the_end_is_refused
            streams_are_listed_by_pages
            the_head_wakes_who_follows
            large_events_are_read_back
            it_does_what_the_model_does
            what_was_acknowledged_is_there_again
        );
    };
    (@history $home:expr) => {
        $crate::journal_contract!(@each $home =>
            marks_are_stable
            a_mark_beyond_the_head_is_an_error
        );

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn journals_that_are_made_apart_differ() {
            let (mut one, mut other) = ($home, $home);
            $crate::contract::journal::journals_that_are_made_apart_differ(&mut one, &mut other).await;
        }
    };
    (@one $name:ident $home:expr => $($check:ident)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::contract::a_few_at_a_time(vec![$(Box::pin(async {
                let mut home = $home;
                $crate::contract::journal::$check(&mut home).await;
            })),*])
            .await;
        }
    };
    (@each $home:expr => $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let mut home = $home;
                $crate::contract::journal::$check(&mut home).await;
            }
        )*
    };
}

/// Makes one test of each check of the journal's identity and of the marks of its history, as
/// [`journal_contract!`](crate::journal_contract) does of the others.
#[macro_export]
macro_rules! journal_history_contract {
    ($home:expr) => {
        $crate::journal_contract!(@history $home);
    };
}

/// A clock that shows the time to which it is set.
#[derive(Debug, Default)]
pub struct SetClock(AtomicI64);

impl SetClock {
    /// Sets the time.
    pub fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// The most tries of an append that takes longer than it may.
const APPEND_TRIES: usize = 8;

async fn open(home: &mut dyn JournalHome) -> Arc<dyn Journal> {
    home.open(Arc::new(SetClock::default())).await
}

fn name(stream: &str) -> StreamName {
    StreamName::new(stream).expect("checks use valid names")
}

/// Returns an event whose id and content follow from `number`.
pub fn event(number: u64) -> NewEvent {
    NewEvent {
        id: EventId::from_bytes(u128::from(number).to_be_bytes()),
        event_type: EventType::new(if number.is_multiple_of(2) { "deposited" } else { "withdrawn" }).expect("valid"),
        payload: format!("{{\"number\":{number}}}").into_bytes(),
        metadata: Metadata::default(),
        tags: vec![],
    }
}

fn to(stream: &str, expected: ExpectedRevision, numbers: impl IntoIterator<Item = u64>) -> Append {
    Append::to_stream(name(stream), expected, numbers.into_iter().map(event).collect())
}

fn any(stream: &str, numbers: impl IntoIterator<Item = u64>) -> Append {
    to(stream, ExpectedRevision::Any, numbers)
}

fn in_stream(stream: &str, number: u64) -> StreamEvent {
    StreamEvent { stream: name(stream), event: event(number) }
}

/// Appends, and retries with the same ids if the result is unknown. On a busy machine an append may take longer than it
/// waits.
///
/// # Panics
/// If no try succeeds.
pub async fn appended(journal: &dyn Journal, append: Append) -> Appended {
    let mut answer = journal.append(append.clone()).await;
    for _ in 1..APPEND_TRIES {
        if !matches!(&answer, Err(AppendError::Store(StoreError::Unavailable { .. }))) {
            break;
        }
        answer = journal.append(append.clone()).await.map(|again| match again.written {
            // An earlier try had written it.
            0 => Appended { written: append.events.len(), ..again },
            _ => again,
        });
    }
    answer.expect("nothing speaks against the append")
}

async fn refused(journal: &dyn Journal, append: Append) -> AppendRefused {
    let head = *journal.head().borrow();
    let refused = match journal.append(append).await {
        Err(AppendError::Refused(refused)) => refused,
        other => panic!("the append must be refused, but: {other:?}"),
    };
    assert_eq!(*journal.head().borrow(), head, "a refused append writes nothing");
    refused
}

fn at(position: u64, revision: u64, written: usize) -> Appended {
    Appended { position: Position::new(position), revision: Revision::new(revision), written }
}

/// An event as it was read, in parts that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its position.
    pub position: u64,
    /// Its revision.
    pub revision: u64,
    /// Its stream.
    pub stream: String,
    /// The event.
    pub event: NewEvent,
    /// The time at which it was appended, in microseconds since 1970.
    pub recorded: i64,
    /// True if it is the last of its append.
    pub last_of_append: bool,
}

impl From<EventRef<'_>> for Recorded {
    fn from(event: EventRef<'_>) -> Self {
        let (metadata, tags) = event.extra().expect("metadata are readable");
        Self {
            position: event.position.get(),
            revision: event.revision.get(),
            stream: event.stream.to_owned(),
            event: NewEvent {
                id: event.id,
                event_type: EventType::new(event.event_type).expect("a valid type"),
                payload: event.payload.to_vec(),
                metadata,
                tags,
            },
            recorded: event.recorded.micros(),
            last_of_append: event.is_last_of_append(),
        }
    }
}

/// Returns all events through the head, of all streams. Asserts that positions are dense (I-1).
pub async fn everything(journal: &dyn Journal) -> Vec<Recorded> {
    let head = *journal.head().borrow();
    let mut all: Vec<Recorded> = Vec::new();
    let mut after = Position::START;
    while after < head {
        let batch = journal.read(after, &Filter::everything(), Limit::events(1000)).await.expect("it can be read");
        assert!(!batch.is_empty() && batch.through > after, "a read before the head returns an event");
        all.extend(batch.iter().map(Recorded::from));
        after = batch.through;
        assert_eq!(all.last().map(|event| event.position), Some(after.get()), "without filter all is covered");
    }
    assert!(all.iter().zip(1..).all(|(event, position)| event.position == position), "positions are dense");
    let (mut places, mut after) = (all.iter(), Position::START);
    while after < head {
        let batch = journal.read_places(after, Limit::events(700)).await.expect("it can be read");
        assert!((1..=700).contains(&batch.len()), "so many places at most");
        for (found, event) in batch.iter().zip(places.by_ref()) {
            assert_eq!((found.position.get(), found.stream), (event.position, event.stream.as_str()));
            assert_eq!(found.event_type, event.event.event_type.as_str());
        }
        after = after.plus(batch.len() as u64);
        assert_eq!(batch.through, after, "all is covered");
    }
    // Another node may have appended meanwhile.
    let more = journal.read_places(head, Limit::events(700)).await.expect("it can be read");
    assert!(more.iter().all(|event| event.position > head), "nothing is read twice");
    all
}
