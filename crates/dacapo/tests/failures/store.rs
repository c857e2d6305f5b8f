//! The store fails while a failure of a handler is dealt with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dacapo::operate::{LetterKind, WhichLetters};
use dacapo::options::{Policy, Retry};
use dacapo::store::StoreError;
use dacapo::{HandlerError, Node, Options, Position, Projection, Recorded, Table, View};
use dacapo_testkit::{Call, Fault, Faults};

use super::told::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_while_a_refusal_or_a_letter_is_recorded_loses_neither_and_doubles_nothing() {
    for fault in [Fault::Fails, Fault::LosesAnswer] {
        let directory = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let version_1 = told::<1>(Policy::DeadLetter);
        let builder = Node::builder().store(faults.over(&store(directory.path())));
        let node = serving(builder, &version_1).await;
        version_1.doubt(Act::RefuseLate);
        // Every second commit goes wrong from here on: one that records the first try, one that records the letter…
        let commits = AtomicU64::new(0);
        faults.plan(move |call| match call {
            Call::Commit(_) if commits.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => Some(fault),
            _ => None,
        });
        round(&node).await;
        let doubted = doubt(&node, "ledger-3", 5).await;
        let behind = add(&node, "ledger-3", 10).await;
        let last = round(&node).await;
        until_version(&node, "v1.1", "it goes on", |found| found.covers >= last && found.letters == 3).await;
        let all = letters(&node, "v1.1").await;
        assert_eq!(all[0].0, doubted.get());
        assert_eq!((all[1].0, all[1].1), (behind.get(), LetterKind::Blocked { first: doubted }));
        check_counts_now(&node, "v1.1").await;
        version_1.heal();
        node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
        until_letters(&node, "v1.1", 0).await;
        faults.heal();
        check_serving(&node).await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_event_cannot_be_read_any_more_holds_up_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let version_1 = told::<1>(Policy::DeadLetter);
    let builder = Node::builder().store(faults.over(&store(directory.path())));
    let node = serving(builder, &version_1).await;
    version_1.doubt(Act::Refuse);
    doubt(&node, "ledger-3", 5).await;
    until_letters(&node, "v1.1", 1).await;
    until_version(&node, "v1.1", "it follows", |found| found.lag == 0).await;
    version_1.heal();
    let attempts = node.version(view("v1.1")).letters().limit(1).await.unwrap()[0].letter.attempts;
    faults.always(Fault::Damaged, |call| matches!(call, Call::Read));
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    // The list of letters reads their events as well, so the view is asked.
    let tried = async || {
        let mut reading = node.read("totals", Position::START).await.unwrap();
        let (_, rows) = reading.view.query("SELECT attempts FROM _dacapo_letters", &[]).await.unwrap();
        rows == [[dacapo::rows::Value::Integer(i64::from(attempts) + 1)]]
    };
    while !tried().await {
        tokio::task::yield_now().await;
    }
    faults.heal();
    // Its own stream waits behind it, the others do not.
    let last = round(&node).await;
    until_version(&node, "v1.1", "it goes on", |found| found.covers >= last && found.letters == 2).await;
    let letter = node.version(view("v1.1")).letters().limit(1).await.unwrap().remove(0).letter;
    assert_eq!((letter.attempts, letter.wish), (attempts + 1, None), "{}", letter.error);
    assert!(letter.error.contains("damaged") || letter.error.contains("corrupt"), "{}", letter.error);
    node.version(view("v1.1")).retry_letters(WhichLetters::All).requested_by(by_test()).await.unwrap();
    until_letters(&node, "v1.1", 0).await;
    check_serving(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumption_outlives_a_failure_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let hour = Duration::from_secs(3_600);
    let retry = Retry { attempts: 2, first: Duration::from_millis(1), longest: hour };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::Halt) });
    let builder = Node::builder().store(faults.over(&store(directory.path())));
    let node = serving(builder, &version_1).await;
    version_1.doubt(Act::Refuse);
    let doubted = doubt(&node, "ledger-3", 5).await;
    halts(&node, "v1.1", doubted).await;
    version_1.heal();
    // The try itself is right, and cannot be committed.
    let (tried, before) = (version_1.clone(), version_1.handed(doubted));
    let fails = AtomicBool::new(true);
    faults.plan(move |call| match call {
        Call::Commit(_) if tried.handed(doubted) > before && fails.swap(false, Ordering::SeqCst) => Some(Fault::Fails),
        _ => None,
    });
    node.version(view("v1.1")).resume().requested_by(by_test()).await.unwrap();
    assert_eq!(ask(&node, "ledger-3", doubted).await, (5, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_store_in_a_handler_is_not_the_handlers() {
    // What the store could not do is tried again as a whole, and no event is blamed for it.
    let directory = tempfile::tempdir().unwrap();
    let retry = Retry { attempts: 1, ..with(Policy::DeadLetter).retry };
    let version_1 = Told::<1>::new(Options { retry, ..with(Policy::DeadLetter) });
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    struct Blaming(Told<1>, Arc<AtomicU64>);
    #[derive(Debug, thiserror::Error)]
    #[error("the total cannot be told")]
    struct Wrapped(#[from] dacapo::rows::ViewError);
    impl Projection for Blaming {
        const NAME: &'static str = "totals";
        const VERSION: u32 = 1;
        const TABLES: &'static [Table] = Told::<1>::TABLES;
        type Event = LedgerEvent;
        fn options(&self) -> Options {
            self.0.options()
        }
        async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
            let error: dacapo::rows::ViewError = StoreError::unavailable("read the view", "a fault of the test").into();
            match self.1.fetch_add(1, Ordering::SeqCst) {
                0 => Err(error.into()),
                1 => Err(Wrapped(error).into()),
                _ => self.0.apply(event, view).await,
            }
        }
    }
    let node =
        Node::builder().data(directory.path()).projection(Blaming(version_1.clone(), counted)).start().await.unwrap();
    let last = round(&node).await;
    let found = until_version(&node, "v1.1", "it goes on", |found| found.covers >= last).await;
    assert_eq!((found.letters, calls.load(Ordering::SeqCst)), (0, 22));
    check_counts(&node, &found).await;
    node.shutdown().await;
}
