//! Effects that are made once more, and what is told of that.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dacapo::Node;
use dacapo::catalog::Phase;
use dacapo::effects::PastEffects;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::office::*;
use crate::common::*;

/// The lines of the log of this process, of whichever test.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lines() -> MutexGuard<'static, Vec<String>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what is logged.
struct Log;

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        lines().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

/// Keeps what is logged from here on. The log is of the whole process, so whichever test comes first sets it.
fn listen() {
    static LISTENS: std::sync::Once = std::sync::Once::new();
    LISTENS.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

fn told() -> Vec<String> {
    lines().iter().filter(|line| line.contains("made again, under the same keys")).cloned().collect()
}

// I-11
/// Whoever receives them is to know that it gets them twice, and from where on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_that_are_made_again_with_a_view_that_was_gone_are_told_in_the_log() {
    listen();
    let (directory, office) = (tempfile::tempdir().unwrap(), Arc::<Office>::default());
    let start =
        || async { Node::builder().data(directory.path()).projection(carry(notices::<1>(&office))).start().await };
    let node = start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 5).await;
    add(&node, "ledger-2", 6).await;
    office.made_at_least(2).await;
    node.shutdown().await;
    drop(node);

    // A start with the view in place tells nothing.
    let node = start().await.unwrap();
    let last = add(&node, "ledger-1", 7).await;
    office.made_at_least(3).await;
    let silent = PastEffects::Silent;
    let from = node.catalog().borrow().projections[&totals()].speaks_from(version("v1.1"), silent).unwrap();
    node.shutdown().await;
    drop(node);
    assert_eq!(told(), Vec::<String>::new());

    for file in std::fs::read_dir(directory.path().join("views/totals")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let node = start().await.unwrap();
    office.made_at_least(6).await;
    let told = told();
    assert_eq!(told.len(), 1, "{told:?}");
    let parts =
        ["WARN", "view=totals v1.1", &format!("from={from}"), &format!("of events from position {from} on"), "dropped"];
    assert!(parts.iter().all(|part| told[0].contains(part)), "{told:?}");
    assert!(from <= last, "{from} {last}");
    let mut keys: Vec<_> = office.made().into_iter().map(|(_, key, mail)| (key, mail.amount)).collect();
    let mut again = keys.split_off(3);
    keys.sort_by_key(|(_, amount)| *amount);
    again.sort_by_key(|(_, amount)| *amount);
    assert_eq!(again, keys, "under the same keys");
    node.shutdown().await;
}

// I-11
/// A view that had served and has nothing in it any more is made anew from the journal, and somebody is to look why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_was_emptied_is_told_in_the_log() {
    listen();
    let told = || lines().iter().filter(|line| line.contains("though it had served")).cloned().collect::<Vec<_>>();
    let directory = tempfile::tempdir().unwrap();
    let start = || async { Node::builder().data(directory.path()).projection(carry_v1(v1())).start().await.unwrap() };
    for times in 0..2 {
        let node = start().await;
        let last = add(&node, "ledger-1", 5).await;
        assert_eq!(ask(&node, "ledger-1", last).await, (5 * (times + 1), times + 1));
        node.shutdown().await;
        assert_eq!(told(), Vec::<String>::new(), "a view that is in place");
    }
    std::fs::write(directory.path().join("views/totals/v1.1.db"), b"").unwrap();
    let node = start().await;
    assert_eq!(ask(&node, "ledger-1", node.head()).await, (10, 2));
    let told = told();
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains("view=totals v1.1"), "{told:?}");
    node.shutdown().await;
}
