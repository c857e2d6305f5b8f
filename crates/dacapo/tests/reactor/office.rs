//! A reactor that sends notices, and the office that makes them and can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::effects::{Acts, Effect, EffectKey, EffectOptions, EffectTry};
use dacapo::options::{FlipPolicy, InPlace, SegmentCount};
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{HandlerError, Node, Options, Projection, Recorded, Table, VersionCode, View};
use dacapo_testkit::Faults;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::common::*;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mail {
    pub(super) ledger: String,
    pub(super) amount: i64,
}

impl Effect for Mail {
    const NAME: &'static str = "mail";
}

/// What was mailed, and what goes wrong.
#[derive(Default)]
pub(super) struct Office {
    /// Each try: by which version, under which key, and what.
    pub(super) tried: Mutex<Vec<(u32, EffectKey, Mail)>>,
    pub(super) made: Mutex<Vec<(u32, EffectKey, Mail)>>,
    /// Mails of these ledgers fail, hang or panic.
    pub(super) fail: Mutex<BTreeSet<String>>,
    pub(super) hang: Mutex<BTreeSet<String>>,
    pub(super) panic: Mutex<BTreeSet<String>>,
    /// The handler refuses events that are doubted.
    pub(super) refuses: AtomicBool,
    /// While this is so, the handler of the first version waits before each event.
    pub(super) lags: watch::Sender<bool>,
}

impl Office {
    pub(super) fn made(&self) -> Vec<(u32, EffectKey, Mail)> {
        self.made.lock().unwrap().clone()
    }

    pub(super) fn tried(&self) -> Vec<(u32, EffectKey, Mail)> {
        self.tried.lock().unwrap().clone()
    }

    /// The positions of what was made, per ledger, in the order in which it was.
    pub(super) fn by_ledger(&self) -> BTreeMap<String, Vec<u64>> {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (_, key, mail) in self.made() {
            found.entry(mail.ledger).or_default().push(key.position.get());
        }
        found
    }

    pub(super) async fn made_at_least(&self, count: usize) {
        let waiting = async {
            while self.made.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        };
        let what = || format!("{count} effects, there are {:?}", self.made());
        tokio::time::timeout(WAIT_MAX, waiting).await.unwrap_or_else(|_| panic!("never: {}", what()));
    }

    pub(super) fn holds(set: &Mutex<BTreeSet<String>>, ledger: &str) -> bool {
        set.lock().unwrap().contains(ledger)
    }
}

#[derive(Clone)]
pub(super) struct Notices<const CODE: u32> {
    pub(super) office: Arc<Office>,
    pub(super) options: Options,
}

impl<const CODE: u32> Projection for Notices<CODE> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = &[];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        if CODE == 1 {
            self.office.lags.subscribe().wait_for(|lags| !lags).await?;
        }
        if matches!(event.data, LedgerEvent::Doubted { .. }) && self.office.refuses.load(Ordering::SeqCst) {
            // Before it refuses: what it emits must not outlive that.
            view.emit(&Mail { ledger: event.stream.to_owned(), amount: 0 })?;
            return Err("doubtful".into());
        }
        let mail = |amount| Mail { ledger: event.stream.to_owned(), amount };
        match event.data {
            LedgerEvent::Added { amount } => view.emit(&mail(amount))?,
            LedgerEvent::Doubted { amount } => {
                view.emit(&mail(amount))?;
                view.emit(&mail(-amount))?;
            }
        }
        Ok(())
    }
}

impl<const CODE: u32> Acts<Mail> for Notices<CODE> {
    async fn act(&self, mail: &Mail, attempt: &EffectTry) -> Result<(), HandlerError> {
        let tried = (CODE, attempt.key.clone(), mail.clone());
        self.office.tried.lock().unwrap().push(tried.clone());
        if Office::holds(&self.office.hang, &mail.ledger) {
            std::future::pending::<()>().await;
        }
        assert!(!Office::holds(&self.office.panic, &mail.ledger), "the printer is on fire");
        if Office::holds(&self.office.fail, &mail.ledger) {
            return Err("no stamps".into());
        }
        self.office.made.lock().unwrap().push(tried);
        Ok(())
    }
}

pub(super) fn notices<const CODE: u32>(office: &Arc<Office>) -> Notices<CODE> {
    let effects = EffectOptions { retry_first: Duration::from_millis(5), ..EffectOptions::default() };
    let segments = SegmentCount::new(2).unwrap();
    let options =
        Options { segments, flip: FlipPolicy::OnCommand, in_place: InPlace::KeepsRows, effects, ..Options::default() };
    Notices { office: Arc::clone(office), options }
}

pub(super) fn carry<const CODE: u32>(notices: Notices<CODE>) -> VersionCode {
    notices.acting::<Mail>().into()
}

pub(super) async fn start(office: &Arc<Office>) -> Node {
    let node = Node::builder().projection(carry(notices::<1>(office))).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node
}

/// Waits until a version has nothing more in its outbox, which the status tells when it looks.
pub(super) async fn nothing_owed(node: &Node, office: &Office, expected: usize) {
    office.made_at_least(expected).await;
    node.read("totals", node.head()).await.unwrap();
}

/// A node over a store that fails as it is told.
pub(super) async fn over(directory: &Path, faults: &Faults, office: &Arc<Office>) -> Node {
    let store = faults.over(&Store::embedded(directory, Arc::new(SystemClock)).unwrap());
    Node::builder().store(store).projection(carry(notices::<1>(office))).start().await.unwrap()
}
