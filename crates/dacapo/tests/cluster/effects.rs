//! Who makes the effects of a version while nodes come and go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::effects::{Acts, Effect, EffectKey};
use dacapo::journal::StreamName;
use dacapo::{HandlerError, Options, Position, Projection, Recorded, Table, View, limits};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

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
    /// The node that carries it.
    node: usize,
    /// By which node, and when.
    tried: Arc<Mutex<Vec<(usize, Instant)>>>,
    gate: watch::Receiver<bool>,
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
    async fn act(&self, _: &Mail, _: &EffectKey) -> Result<(), HandlerError> {
        self.tried.lock().unwrap().push((self.node, Instant::now()));
        self.gate.clone().wait_for(|open| *open).await?;
        Ok(())
    }
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_joins_leaves_time_to_the_one_that_makes_the_effects() {
    let (gate, is_open) = watch::channel(false);
    let tried = Arc::new(Mutex::new(vec![]));
    let sends = |node| Sends { node, tried: Arc::clone(&tried), gate: is_open.clone() };
    let carried = |node| sends(node).acting::<Mail>();
    let store = Shared::new();
    let mut begun = vec![Instant::now()];
    let one = store.node("one").projection(carried(0)).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    add(&one, "ledger-1", 5).await;
    until(&one, "it is begun", |_| !tried.lock().unwrap().is_empty()).await;
    let mut nodes = vec![one];
    for number in 1..=NEWCOMERS {
        begun.push(Instant::now());
        nodes.push(store.another().node(&format!("new-{number}")).projection(carried(number)).start().await.unwrap());
    }
    for node in &nodes {
        until(node, "all are there", |status| status.members.len() == nodes.len()).await;
    }
    // Time enough for whoever's turn it is to look.
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.send_replace(true);
    let kept = store.store.views.find(&view("v1.1")).await.unwrap().unwrap();
    let stream = StreamName::new("ledger-1").unwrap();
    let recorded = async {
        while kept.first_effect(&stream, Position::START).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, recorded).await.expect("it is recorded by the node that has begun it, or made anew");
    // The one before may have seen by then that it is not its turn any more, and have recorded what it had begun.
    for (node, at) in tried.lock().unwrap().iter().filter(|(node, _)| *node > 0) {
        assert!(at.duration_since(begun[*node]) >= limits::LEASE_TIME, "node {node} has not waited for the one before");
    }
    for node in nodes {
        node.shutdown().await;
    }
}
