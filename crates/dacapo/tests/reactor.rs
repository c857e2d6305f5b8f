//! Reactors: effects are made at least once, in order, and by one voice. // I-9

#[path = "reactor/again.rs"]
mod again;
#[path = "reactor/cancel.rs"]
mod cancel;
mod common;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "reactor/letters.rs"]
mod letters;
#[path = "reactor/unacted.rs"]
mod unacted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use dacapo::{
    Acts, Asked, Carried, Effect, EffectKey, EffectOptions, ExpectedRevision, FlipPolicy, HandlerError, InPlace, Node,
    NodeBuilder, OnFailure, Options, PastEffects, Phase, Policy, Position, Projection, Recorded, ReplayFrom, Retry,
    SegmentCount, Store, SystemClock, Table, View, WaitingOn, WhichLetters,
};
use faulty::{Call, Fault, Faults};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mail {
    ledger: String,
    amount: i64,
}

impl Effect for Mail {
    const NAME: &'static str = "mail";
}

/// What was mailed, and what goes wrong.
#[derive(Default)]
struct Office {
    /// Each try: by which version, under which key, and what.
    tried: Mutex<Vec<(u32, EffectKey, Mail)>>,
    made: Mutex<Vec<(u32, EffectKey, Mail)>>,
    /// Mails of these ledgers fail, hang or panic.
    fail: Mutex<BTreeSet<String>>,
    hang: Mutex<BTreeSet<String>>,
    panic: Mutex<BTreeSet<String>>,
    /// The handler refuses events that are doubted.
    refuses: AtomicBool,
    /// While this is so, the handler of the first version waits before each event.
    lags: watch::Sender<bool>,
}

impl Office {
    fn made(&self) -> Vec<(u32, EffectKey, Mail)> {
        self.made.lock().unwrap().clone()
    }

    fn tried(&self) -> Vec<(u32, EffectKey, Mail)> {
        self.tried.lock().unwrap().clone()
    }

    /// The positions of what was made, per ledger, in the order in which it was.
    fn by_ledger(&self) -> BTreeMap<String, Vec<u64>> {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (_, key, mail) in self.made() {
            found.entry(mail.ledger).or_default().push(key.position.get());
        }
        found
    }

    async fn made_at_least(&self, count: usize) {
        let waiting = async {
            while self.made.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        };
        let what = || format!("{count} effects, there are {:?}", self.made());
        tokio::time::timeout(WAIT_MAX, waiting).await.unwrap_or_else(|_| panic!("never: {}", what()));
    }

    fn holds(set: &Mutex<BTreeSet<String>>, ledger: &str) -> bool {
        set.lock().unwrap().contains(ledger)
    }
}

#[derive(Clone)]
struct Notices<const CODE: u32> {
    office: Arc<Office>,
    options: Options,
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
    async fn act(&self, mail: &Mail, key: &EffectKey) -> Result<(), HandlerError> {
        let tried = (CODE, key.clone(), mail.clone());
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

fn notices<const CODE: u32>(office: &Arc<Office>) -> Notices<CODE> {
    let effects = EffectOptions { retry_first: Duration::from_millis(5), ..EffectOptions::default() };
    let segments = SegmentCount::new(2).unwrap();
    let options =
        Options { segments, flip: FlipPolicy::OnCommand, in_place: InPlace::KeepsRows, effects, ..Options::default() };
    Notices { office: Arc::clone(office), options }
}

fn carry<const CODE: u32>(notices: Notices<CODE>) -> Carried {
    Carried::version(notices).acts::<Mail>().into()
}

async fn start(office: &Arc<Office>) -> Node {
    let node = Node::builder().carry(carry(notices::<1>(office))).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node
}

/// Waits until a version has nothing more in its outbox, which the status tells when it looks.
async fn nothing_owed(node: &Node, office: &Office, expected: usize) {
    office.made_at_least(expected).await;
    node.read("totals", node.head()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_effect_is_made_under_its_key_and_in_the_order_of_its_stream() {
    let office = Arc::default();
    let node = start(&office).await;
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for number in 0..60 {
        let ledger = format!("ledger-{}", number % 5);
        expected.entry(ledger.clone()).or_default().push(add(&node, &ledger, number).await.get());
    }
    let doubted = node.append("ledger-9", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 7 }]).await.unwrap();
    expected.insert("ledger-9".into(), vec![doubted.position.get(); 2]);
    office.made_at_least(62).await;
    assert_eq!(office.by_ledger(), expected);
    let keys: BTreeSet<_> = office.made().into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys.len(), 62, "each has a key of its own");
    let last = office.made().into_iter().filter(|(_, _, mail)| mail.ledger == "ledger-9");
    let last: Vec<_> = last.map(|(_, key, mail)| (key.to_string(), mail.amount)).collect();
    let key = |ordinal| format!("totals-{}-{ordinal}", doubted.position);
    assert_eq!(last, [(key(0), 7), (key(1), -7)]);
    assert_eq!(office.tried().len(), 62, "nothing was tried twice");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_holds_back_only_its_stream_and_is_seen() {
    let office: Arc<Office> = Arc::default();
    let node = start(&office).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    office.panic.lock().unwrap().insert("ledger-2".into());
    let first = add(&node, "ledger-1", 1).await;
    add(&node, "ledger-2", 1).await;
    for number in 0..20 {
        add(&node, &format!("ledger-{}", number % 4), number).await;
    }
    office.made_at_least(10).await;
    let status = until(&node, "it is told", |status| {
        let failing = |reason: &&WaitingOn| matches!(reason, WaitingOn::Effect { attempts: 2.., .. });
        status.projections[0].versions[0].waiting_on.iter().filter(failing).count() == 2
    })
    .await;
    let told: Vec<String> = status.projections[0].versions[0].waiting_on.iter().map(ToString::to_string).collect();
    assert!(told[0].contains(&format!("an effect of event {first} in ledger-1")), "I-11: {told:?}");
    assert!(told[0].contains("no stamps") && told[1].contains("it panicked: the printer is on fire"), "{told:?}");
    assert_eq!(office.by_ledger().keys().collect::<Vec<_>>(), ["ledger-0", "ledger-3"]);
    office.fail.lock().unwrap().clear();
    office.panic.lock().unwrap().clear();
    office.made_at_least(22).await;
    for (ledger, made) in office.by_ledger() {
        assert!(made.is_sorted(), "{ledger}: {made:?}");
    }
    let keys: BTreeSet<_> = office.made().into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys.len(), 22);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_has_failed_after_its_time() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    version.options.effects.time_max = Duration::from_millis(20);
    let node = Node::builder().carry(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.hang.lock().unwrap().insert("ledger-1".into());
    add(&node, "ledger-1", 1).await;
    add(&node, "ledger-2", 1).await;
    office.made_at_least(1).await;
    until(&node, "it is told", |status| {
        status.projections[0].versions[0].waiting_on.iter().any(|it| it.to_string().contains("longer than 20 ms"))
    })
    .await;
    office.hang.lock().unwrap().clear();
    office.made_at_least(2).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voice_through_flips_rollbacks_an_aborted_flip_and_a_replay() {
    let office: Arc<Office> = Arc::default();
    let node = start(&office).await;
    let mut count = 0;
    let mut appended = vec![];
    let mut some = async |node: &Node| {
        for number in 0..20 {
            appended.push(add(node, &format!("ledger-{}", number % 3), number).await);
            count += 1;
        }
        (count, appended.clone())
    };
    some(&node).await;
    node.carry(carry(notices::<2>(&office))).unwrap();
    ready(&node, "v2.1").await;
    some(&node).await;
    flip(&node).await;
    some(&node).await;
    roll_back(&node).await;
    some(&node).await;
    flip(&node).await;
    // A flip that comes to nothing.
    let rebuilt = node.rebuild(&totals(), None, Asked::by("test")).await.unwrap();
    ready(&node, "v2.2").await;
    let requested = node.flip(&totals(), Some(rebuilt.view.version), Asked::by("test")).await.unwrap();
    // It may have come to something all the same: then that version serves, and is not cleaned up.
    let aborted = node.clean_up(&rebuilt.view, Asked::by("test")).await.is_ok();
    assert!(aborted || node.flipped(&requested, WAIT_MAX).await.is_ok());
    some(&node).await;
    let replay = node.replay(&totals(), None, ReplayFrom::Start, Asked::by("test")).await.unwrap();
    let replayed = node.replayed(&replay, WAIT_MAX).await;
    let (count, appended) = some(&node).await;
    nothing_owed(&node, &office, count).await;
    node.shutdown().await;

    let state = node.catalog().borrow().projections[&totals()].clone();
    let made = office.made();
    assert_eq!(made.len(), count, "I-9: each once, since nothing failed");
    for position in appended {
        let by: Vec<u32> = made.iter().filter(|(_, key, _)| key.position == position).map(|(code, ..)| *code).collect();
        let voice = state.voice(position, PastEffects::Silent);
        let dacapo_model::Voice::Of(speaks) = voice else { panic!("{voice:?}") };
        assert_eq!(by, [speaks.code], "I-9: at {position}, {:?}", state.served);
    }
    assert!(replayed.is_ok(), "{replayed:?}");
    let codes: BTreeSet<u32> = made.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, BTreeSet::from([1, 2]), "both spoke");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_the_projection_is_silent_unless_asked_for() {
    for (past, expected) in [(PastEffects::Silent, 1), (PastEffects::Made, 21)] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::builder().data(directory.path()).start().await.unwrap();
        for number in 0..20 {
            add(&node, "ledger-1", number).await;
        }
        node.shutdown().await;
        drop(node);
        let office = Arc::default();
        let mut version = notices::<1>(&office);
        version.options.effects.past = past;
        let node = Node::builder().data(directory.path()).carry(carry(version)).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        let new = add(&node, "ledger-1", 99).await;
        office.made_at_least(expected).await;
        let made = office.made();
        assert_eq!((made.len(), made.last().unwrap().1.position), (expected, new), "{past:?}");
        node.shutdown().await;
    }
}

/// A node over a store that fails as it is told.
async fn over(directory: &Path, faults: &Faults, office: &Arc<Office>) -> Node {
    let store = faults.over(&Store::embedded(directory, Arc::new(SystemClock)).unwrap());
    Node::builder().store(store).carry(carry(notices::<1>(office))).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_made_and_not_recorded_is_made_again_under_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    let node = over(directory.path(), &faults, &office).await;
    phase(&node, "v1.1", Phase::Serving).await;
    faults.plan(|call| matches!(call, Call::SettleEffects(_)).then_some(Fault::Fails));
    let position = add(&node, "ledger-1", 5).await;
    office.made_at_least(1).await;
    node.shutdown().await;
    drop(node);
    assert_eq!(office.made().len(), 1, "while the process lives it knows that it was made");

    faults.stop();
    let node = over(directory.path(), &faults, &office).await;
    office.made_at_least(2).await;
    let made = office.made();
    assert_eq!(made[0], made[1], "the same effect under the same key");
    assert_eq!(made[0].1.position, position);
    let next = add(&node, "ledger-1", 6).await;
    office.made_at_least(3).await;
    assert_eq!(office.made()[2].1.position, next);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_and_their_back_off_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    office.fail.lock().unwrap().insert("ledger-1".into());
    let node = over(directory.path(), &faults, &office).await;
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 5).await;
    let attempts = |status: &dacapo::Status| {
        let told = status.projections[0].versions[0].waiting_on.iter().find_map(|reason| match reason {
            WaitingOn::Effect { attempts, .. } => Some(*attempts),
            _ => None,
        });
        told.unwrap_or(0)
    };
    let before = attempts(&until(&node, "some tries", |status| attempts(status) >= 3).await);
    node.shutdown().await;
    drop(node);
    let node = over(directory.path(), &faults, &office).await;
    let after = attempts(&until(&node, "it is told", |status| attempts(status) > 0).await);
    assert!(after >= before, "{after} after {before}");
    office.fail.lock().unwrap().clear();
    office.made_at_least(1).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_waits_for_the_effects_that_are_owed_and_says_so() {
    let office: Arc<Office> = Arc::default();
    let node = start(&office).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let owed = add(&node, "ledger-1", 5).await;
    node.carry(carry(notices::<2>(&office))).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    let later = add(&node, "ledger-1", 6).await;
    node.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
    until(&node, "it waits", |status| {
        let found = &status.projections[0].versions[0];
        // The later effect may wait behind it, since the old version came past that event, too.
        let owes = found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Effects { pending: 1.. }));
        let says_why = found.waiting_on.iter().any(|reason| reason.to_string().contains("no stamps"));
        found.phase == Phase::CleaningUp && owes && says_why
    })
    .await;
    office.fail.lock().unwrap().clear();
    phase(&node, "v1.1", Phase::Obsolete).await;
    office.made_at_least(2).await;
    let made: Vec<_> = office.made().into_iter().map(|(code, key, _)| (code, key.position)).collect();
    assert_eq!(made, [(1, owed), (2, later)], "in the order of the stream, each by its voice");
    node.shutdown().await;
}

/// A node on which version 2 serves and version 1 owes an effect of an event that it speaks for, which fails.
async fn owing(builder: NodeBuilder, office: &Arc<Office>) -> (Node, Position) {
    let node = builder.carry(carry(notices::<1>(office))).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.fail.lock().unwrap().insert("ledger-1".into());
    let owed = add(&node, "ledger-1", 5).await;
    node.carry(carry(notices::<2>(office))).unwrap();
    ready(&node, "v2.1").await;
    flip(&node).await;
    (node, owed)
}

/// The effect is made, by version 1, before its view goes.
async fn check_paid(node: &Node, office: &Office, owed: Position) {
    office.fail.lock().unwrap().clear();
    phase(node, "v1.1", Phase::Obsolete).await;
    let made: Vec<_> = office.made().into_iter().map(|(code, key, _)| (code, key.position)).collect();
    assert_eq!(made, [(1, owed)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_cleaned_up_while_it_is_opened_again_makes_what_it_owes() {
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    let store = faults.over(&Store::memory(Arc::new(SystemClock)));
    let (node, owed) = owing(Node::builder().store(store), &office).await;
    let mut opened = faults.hold_up_opening(view("v1.1"));
    // Other code of the same version: it is opened again, by the catalog as it was before the clean-up.
    node.carry(carry(notices::<1>(&office))).unwrap();
    tokio::time::timeout(WAIT_MAX, opened.wait_for(|opened| *opened)).await.unwrap().unwrap();
    node.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
    faults.stop();
    check_paid(&node, &office, owed).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_waits_for_the_code_and_is_made_once_that_is_carried() {
    let (directory, office) = (tempfile::tempdir().unwrap(), Arc::default());
    let (node, owed) = owing(Node::builder().data(directory.path()), &office).await;
    node.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
    node.shutdown().await;
    drop(node);
    let node = Node::builder().data(directory.path()).carry(carry(notices::<2>(&office))).start().await.unwrap();
    until(&node, "it waits for the code", |status| {
        let found = &status.projections[0].versions[0];
        let owes = found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Effects { pending: 1 }));
        owes && found.waiting_on.contains(&WaitingOn::Code { version: version("v1.1") })
    })
    .await;
    node.carry(carry(notices::<1>(&office))).unwrap();
    check_paid(&node, &office, owed).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_set_aside_speaks_once_when_a_replay_applies_it_at_last() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    // Apart from the phase, which the processor may hear of later than the test.
    version.options.on_failure = OnFailure { serving: Policy::DeadLetter, initializing: Policy::DeadLetter };
    version.options.retry = Retry { attempts: 1, ..Retry::default() };
    let node = Node::builder().carry(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    office.refuses.store(true, Ordering::SeqCst);
    add(&node, "ledger-1", 1).await;
    let doubted = node.append("ledger-1", ExpectedRevision::Any, [LedgerEvent::Doubted { amount: 7 }]).await.unwrap();
    // It waits behind the other, since the order of a stream matters.
    let behind = add(&node, "ledger-1", 2).await;
    add(&node, "ledger-2", 3).await;
    until(&node, "both are set aside", |status| status.projections[0].versions[0].letters == 2).await;
    office.made_at_least(2).await;
    for round in 0..2 {
        let replay = node.replay(&totals(), None, ReplayFrom::Start, Asked::by("test")).await.unwrap();
        node.replayed(&replay, WAIT_MAX).await.unwrap();
        // The end is seen in the view, maybe before the processor tells of its letters.
        let expected = if round == 0 { 2 } else { 0 };
        until(&node, "it was tried again", |status| status.projections[0].versions[0].letters == expected).await;
        office.refuses.store(false, Ordering::SeqCst);
    }
    // The second replay applied both; the next one comes past them again.
    office.made_at_least(5).await;
    let replay = node.replay(&totals(), None, ReplayFrom::Start, Asked::by("test")).await.unwrap();
    node.replayed(&replay, WAIT_MAX).await.unwrap();
    let last = add(&node, "ledger-1", 4).await;
    office.made_at_least(6).await;
    let first = office.made()[0].1.position.get();
    let expected = [first, doubted.position.get(), doubted.position.get(), behind.get(), last.get()];
    assert_eq!(office.by_ledger()["ledger-1"], expected, "I-9: each once, in order");
    assert_eq!(office.made().len(), 6);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_has_spoken_and_is_set_aside_by_a_replay_does_not_speak_again() {
    let office: Arc<Office> = Arc::default();
    let mut version = notices::<1>(&office);
    // Apart from the phase, which the processor may hear of later than the test.
    version.options.on_failure = OnFailure { serving: Policy::DeadLetter, initializing: Policy::DeadLetter };
    version.options.retry = Retry { attempts: 1, ..Retry::default() };
    let node = Node::builder().carry(carry(version)).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let doubt = async |ledger: &str| {
        let doubted = [LedgerEvent::Doubted { amount: 7 }];
        node.append(ledger, ExpectedRevision::Any, doubted).await.unwrap().position
    };
    let letters = async |expected| {
        until(&node, "so many are set aside", |status| status.projections[0].versions[0].letters == expected).await;
    };
    let replay = async || {
        let replay = node.replay(&totals(), None, ReplayFrom::Start, Asked::by("test")).await.unwrap();
        node.replayed(&replay, WAIT_MAX).await.unwrap();
    };
    let retry = async || {
        node.retry_letters(&view("v1.1"), &WhichLetters::All, &Asked::by("test")).await.unwrap();
    };
    let spoken = [doubt("ledger-1").await, doubt("ledger-2").await];
    office.made_at_least(4).await;
    office.refuses.store(true, Ordering::SeqCst);
    let mute = doubt("ledger-3").await;
    letters(1).await;
    replay().await;
    letters(3).await;
    // One that goes by a retry, and one by a further replay.
    office.refuses.store(false, Ordering::SeqCst);
    let one = WhichLetters::One(spoken[0]);
    node.retry_letters(&view("v1.1"), &one, &Asked::by("test")).await.unwrap();
    letters(2).await;
    office.refuses.store(true, Ordering::SeqCst);
    replay().await;
    letters(3).await;
    office.refuses.store(false, Ordering::SeqCst);
    replay().await;
    letters(0).await;
    office.made_at_least(6).await;
    // And one that never spoke, by a retry after a replay.
    office.refuses.store(true, Ordering::SeqCst);
    let late = doubt("ledger-4").await;
    replay().await;
    letters(4).await;
    office.refuses.store(false, Ordering::SeqCst);
    retry().await;
    letters(0).await;
    // Nor does a replay that begins behind one keep it from speaking.
    office.refuses.store(true, Ordering::SeqCst);
    let stays = doubt("ledger-5").await;
    letters(1).await;
    let from = ReplayFrom::Position(add(&node, "ledger-6", 1).await);
    let replay = node.replay(&totals(), None, from, Asked::by("test")).await.unwrap();
    node.replayed(&replay, WAIT_MAX).await.unwrap();
    office.refuses.store(false, Ordering::SeqCst);
    retry().await;
    letters(0).await;
    let mut last = vec![];
    for ledger in 1..=5 {
        last.push(add(&node, &format!("ledger-{ledger}"), 1).await);
    }
    office.made_at_least(16).await;
    let by_ledger = office.by_ledger();
    for (ledger, (doubted, last)) in [spoken[0], spoken[1], mute, late, stays].into_iter().zip(last).enumerate() {
        let expected = [doubted.get(), doubted.get(), last.get()];
        assert_eq!(by_ledger[&format!("ledger-{}", ledger + 1)], expected, "I-9: each once");
    }
    node.shutdown().await;
}

/// Emits what nobody makes.
struct Mute;

impl Projection for Mute {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[];
    type Event = LedgerEvent;

    async fn apply(&self, _event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        Ok(view.emit(&Mail { ledger: String::new(), amount: 0 })?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_nobody_makes_is_the_handlers_mistake() {
    let node = Node::builder().carry(Mute).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    until(&node, "it is told", |status| {
        let versions = status.projections.iter().flat_map(|projection| &projection.versions);
        versions.into_iter().any(|found| found.waiting_on.iter().any(|it| it.to_string().contains("carry it with")))
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_effects_under_way_only_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, office): (Faults, Arc<Office>) = Default::default();
    office.hang.lock().unwrap().insert("ledger-1".into());
    let node = over(directory.path(), &faults, &office).await;
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 5).await;
    let tried = async {
        while office.tried().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, tried).await.unwrap();
    // The effect hangs for good.
    tokio::time::timeout(WAIT_MAX, node.shutdown()).await.expect("it does not wait for that");
    drop(node);
    office.hang.lock().unwrap().clear();
    let node = over(directory.path(), &faults, &office).await;
    office.made_at_least(1).await;
    assert_eq!(office.made()[0].1, office.tried()[0].1);
    node.shutdown().await;
}

/// Notices of both versions, of which the one that steps back goes after `stand_by`.
fn going(office: &Arc<Office>, stand_by: Duration) -> (Carried, Carried) {
    let (mut one, mut two) = (notices::<1>(office), notices::<2>(office));
    (one.options.stand_by, two.options.stand_by) = (stand_by, stand_by);
    (carry(one), carry(two))
}

/// Flips to version 2 while an event is appended, which is of version 1: it serves until the flip lands, and is held
/// meanwhile. Behind the flip the view of version 1 takes no commit, and does not tell how far it is, for as long as
/// `fails` says so.
async fn flip_beside_an_event(
    node: &Node,
    faults: &Faults,
    mut fails: impl FnMut() -> bool + Send + 'static,
) -> Position {
    let (lands, mut landing) = watch::channel(false);
    faults.plan(move |call| {
        let flips = call.appends("flipped");
        lands.send_if_modified(|landing| flips && !std::mem::replace(landing, true));
        flips.then_some(Fault::Waits)
    });
    let flipping = node.clone();
    let flipped = tokio::spawn(async move { flip(&flipping).await });
    tokio::time::timeout(WAIT_MAX, landing.wait_for(|lands| *lands)).await.unwrap().unwrap();
    let during = add(node, "ledger-1", 5).await;
    faults.plan(move |call| {
        let is_asked = matches!(call, Call::Commit(id) | Call::Tokens(id) if **id == view("v1.1"));
        (is_asked && fails()).then_some(Fault::Fails)
    });
    flipped.await.unwrap();
    during
}

/// Version 1 goes, and has made the effect of what came `during` the flip; what comes now is of version 2.
async fn check_both_spoke(node: &Node, office: &Office, during: Position) {
    phase(node, "v1.1", Phase::Obsolete).await;
    let later = add(node, "ledger-1", 6).await;
    office.made_at_least(2).await;
    let made: Vec<_> = office.made().into_iter().map(|(code, key, _)| (code, key.position)).collect();
    assert_eq!(made, [(1, during), (2, later)]);
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_makes_the_effects_of_what_came_during_the_flip_before_it_goes_by_itself_or_when_asked() {
    for stand_by in [Duration::ZERO, Duration::from_secs(60)] {
        let (faults, office): (Faults, Arc<Office>) = Default::default();
        let (one, two) = going(&office, stand_by);
        let store = faults.over(&Store::memory(Arc::new(SystemClock)));
        let node = Node::builder().store(store).carry(one).start().await.unwrap();
        phase(&node, "v1.1", Phase::Serving).await;
        node.carry(two).unwrap();
        ready(&node, "v2.1").await;
        let mut tries = 0;
        let during = flip_beside_an_event(&node, &faults, move || {
            tries += 1;
            tries < 4
        })
        .await;
        if !stand_by.is_zero() {
            node.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
        }
        check_both_spoke(&node, &office, during).await;
        node.shutdown().await;
    }
}

// I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_during_the_flip_has_its_effects_also_if_the_node_ends_before_its_version_comes_to_it() {
    let (faults, office, directory): (Faults, Arc<Office>, _) =
        (Faults::default(), Arc::default(), tempfile::tempdir().unwrap());
    let (one, two) = going(&office, Duration::ZERO);
    let store = faults.over(&Store::embedded(directory.path(), Arc::new(SystemClock)).unwrap());
    let node = Node::builder().store(store).carry(one).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.carry(two).unwrap();
    ready(&node, "v2.1").await;
    let during = flip_beside_an_event(&node, &faults, || true).await;
    node.shutdown().await;
    drop(node);
    let (one, two) = going(&office, Duration::ZERO);
    let node = Node::builder().data(directory.path()).carry(one).carry(two).start().await.unwrap();
    check_both_spoke(&node, &office, during).await;
    node.shutdown().await;
}
