//! Who makes the effects of a version while nodes come and go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::effects::{Acts, Effect, EffectTry};
use dacapo::journal::StreamName;
use dacapo::{HandlerError, Options, Position, Projection, Recorded, Table, View, limits};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::setup::*;
use crate::common::*;

/// So many nodes join: the turn is one of theirs then, but for once in so many times and one.
const NEWCOMERS: usize = 9;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mail {
    amount: i64,
}

impl Effect for Mail {
    const NAME: &'static str = "mail";
}

/// Sends mails, each of which takes until the gate is open.
#[derive(Clone)]
struct Sends {
    tries: Arc<Mutex<Vec<EffectTry>>>,
    under_way: Arc<AtomicUsize>,
    /// How many tries were under way at most.
    most: Arc<AtomicUsize>,
    gate: watch::Receiver<bool>,
}

impl Sends {
    /// With what opens the gate.
    fn new() -> (Self, watch::Sender<bool>) {
        let (open, gate) = watch::channel(false);
        (Self { tries: Arc::default(), under_way: Arc::default(), most: Arc::default(), gate }, open)
    }

    fn tries(&self) -> Vec<EffectTry> {
        self.tries.lock().unwrap().clone()
    }
}

/// A try that ends, whatever ends it.
struct Ends(Arc<AtomicUsize>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Projection for Sends {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options::default()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let (LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount }) = event.data;
        Ok(view.emit(&Mail { amount })?)
    }
}

impl Acts<Mail> for Sends {
    async fn act(&self, _: &Mail, attempt: &EffectTry) -> Result<(), HandlerError> {
        self.most.fetch_max(self.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _ends = Ends(Arc::clone(&self.under_way));
        self.tries.lock().unwrap().push(attempt.clone());
        self.gate.clone().wait_for(|open| *open).await?;
        Ok(())
    }
}

/// Until nothing of the stream is in the outbox.
async fn until_made(store: &Shared) {
    let kept = store.store.views.find(&view("v1.1")).await.unwrap().unwrap();
    let stream = StreamName::new("ledger-1").unwrap();
    let made = async {
        while kept.first_effect(&stream, Position::START).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, made).await.expect("everything is made");
}

/// One node begins an effect, more nodes join, and it ends after `time`.
async fn nodes_join_while_an_effect_takes(time: Duration) {
    let (sends, open) = Sends::new();
    let carried = || sends.clone().acting::<Mail>();
    let store = Shared::new();
    let one = store.node("one").projection(carried()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    add(&one, "ledger-1", 5).await;
    until(&one, "it is begun", |_| sends.tries().len() == 1).await;
    let mut nodes = vec![one];
    for number in 0..NEWCOMERS {
        nodes.push(store.another().node(&format!("new-{number}")).projection(carried()).start().await.unwrap());
    }
    for node in &nodes {
        until(node, "all are there", |status| status.members.len() == nodes.len()).await;
    }
    // Time enough for whoever's turn it is to look.
    tokio::time::sleep(time).await;
    open.send_replace(true);
    until_made(&store).await;
    let tries = sends.tries();
    assert_eq!((tries.len(), tries[0].is_uncertain), (1, false), "{tries:?}");
    for node in nodes {
        node.shutdown().await;
    }
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_has_begun_is_not_made_again_by_one_that_joins() {
    nodes_join_while_an_effect_takes(Duration::from_secs(1)).await;
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_takes_longer_than_a_lease_is_not_made_by_a_second_node_too() {
    nodes_join_while_an_effect_takes(2 * limits::LEASE_TIME + Duration::from_secs(1)).await;
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_lease_ends_its_effects_before_another_node_begins_them() {
    let (sends, open) = Sends::new();
    let carried = || sends.clone().acting::<Mail>();
    let cut_off = Shared::new();
    let one = cut_off.node("one").projection(carried()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    add(&one, "ledger-1", 5).await;
    until(&one, "it is begun", |_| sends.tries().len() == 1).await;
    let two = cut_off.another().node("two").projection(carried()).start().await.unwrap();
    until(&two, "both are there", |status| status.members.len() == 2).await;
    cut_off.cut.store(true, Ordering::SeqCst);
    until(&two, "the other node has begun it", |_| sends.tries().len() == 2).await;
    // Time enough for the first node to see that it has no lease any more.
    tokio::time::sleep(2 * limits::LEASE_TIME).await;
    open.send_replace(true);
    until_made(&cut_off).await;
    let (tries, most) = (sends.tries(), sends.most.load(Ordering::SeqCst));
    assert_eq!((tries.len(), most), (2, 1), "{tries:?}");
    assert!(tries[0].key == tries[1].key && tries[0].epoch < tries[1].epoch, "{tries:?}");
    for node in [one, two] {
        node.shutdown().await;
    }
}
