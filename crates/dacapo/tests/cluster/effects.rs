//! Who makes the effects of a version while nodes come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dacapo::{
    Acts, Carried, Effect, EffectKey, HandlerError, Options, Phase, Position, Projection, Recorded, StreamName, Table,
    View,
};
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
    tried: Arc<AtomicUsize>,
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
        self.tried.fetch_add(1, Ordering::SeqCst);
        self.gate.clone().wait_for(|open| *open).await?;
        Ok(())
    }
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_has_begun_is_not_made_again_by_one_that_joins() {
    let (gate, is_open) = watch::channel(false);
    let sends = Sends { tried: Arc::default(), gate: is_open };
    let carried = || Carried::version(sends.clone()).acts::<Mail>();
    let store = Shared::new();
    let one = store.node("one").carry(carried()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    add(&one, "ledger-1", 5).await;
    until(&one, "it is begun", |_| sends.tried.load(Ordering::SeqCst) == 1).await;
    let mut nodes = vec![one];
    for number in 0..NEWCOMERS {
        nodes.push(store.another().node(&format!("new-{number}")).carry(carried()).start().await.unwrap());
    }
    for node in &nodes {
        until(node, "all are there", |status| status.members.len() == nodes.len()).await;
    }
    // Time enough for whoever's turn it is to look.
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.send_replace(true);
    let kept = store.store.views.find(&view("v1.1")).await.unwrap().unwrap();
    let stream = StreamName::new("ledger-1").unwrap();
    while kept.first_effect(&stream, Position::START).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sends.tried.load(Ordering::SeqCst), 1);
    for node in nodes {
        node.shutdown().await;
    }
}
