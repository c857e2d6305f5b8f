//! Several nodes that share a store: who has which segment, and what happens when they come, go and lose their leases.

mod common;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "cluster/reads.rs"]
mod reads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use dacapo::verify::{Outcome, Part};
use dacapo::{
    Append, Appended, Asked, Carried, EventBatch, ExpectedRevision, Filter, FlipPolicy, HandlerError, Journal, Limit,
    Member, MemberId, Node, NodeBuilder, OnFailure, Options, Phase, Policy, Position, Projection, Recorded, Retry,
    Revision, Row, Rows, SegmentCount, Store, StoreError, StreamName, SystemClock, Table, VersionId, View, WaitingOn,
    WhichLetters,
};
use dacapo_model::{JournalId, Mark};
use dacapo_store::{AppendError, Members, StreamInfo};
use faulty::{Call, Fault, Faults};
use tokio::sync::watch;

/// A store as one of several nodes has it: closing it closes it for nobody else, and its lease can be cut off.
#[derive(Clone)]
struct Shared {
    store: Store,
    cut: Arc<AtomicBool>,
    /// While this is false, nothing is heard of the catalog.
    hears: watch::Sender<bool>,
    /// What somebody else appends just before this node announces that its code reads more.
    early: Arc<Mutex<Option<Append>>>,
}

impl Shared {
    fn new() -> Self {
        let (store, hears) = (Store::memory(Arc::new(SystemClock)), watch::Sender::new(true));
        Self { store, cut: Arc::default(), hears, early: Arc::default() }
    }

    /// The same store as another node has it.
    fn another(&self) -> Self {
        Self { cut: Arc::default(), hears: watch::Sender::new(true), ..self.clone() }
    }

    fn node(&self, name: &str) -> NodeBuilder {
        self.node_with(&Faults::default(), name)
    }

    /// One whose store goes wrong like this.
    fn node_with(&self, faults: &Faults, name: &str) -> NodeBuilder {
        let early = Arc::clone(&self.early);
        let journal = Arc::new(Apart(Arc::clone(&self.store.journal), self.hears.subscribe(), early));
        let members = Arc::new(Cut { inner: Arc::clone(&self.store.members), cut: Arc::clone(&self.cut) });
        Node::builder().store(faults.over(&Store { journal, members, ..self.store.clone() })).name(name)
    }
}

struct Apart(Arc<dyn Journal>, watch::Receiver<bool>, Arc<Mutex<Option<Append>>>);

#[async_trait]
impl Journal for Apart {
    fn id(&self) -> JournalId {
        self.0.id()
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        self.0.mark(through).await
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        if append.events[0].event.event_type.as_str() == "reads-announced" {
            let early = self.2.lock().unwrap().take();
            if let Some(early) = early {
                self.0.append(early).await?;
            }
        }
        self.0.append(append).await
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        self.0.read(after, filter, limit).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        self.0.read_stream(stream, after, limit).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        let mut hears = self.1.clone();
        // An error means that the test is over.
        hears.wait_for(|hears| *hears).await.ok();
        self.0.stream_revision(stream).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        self.0.streams(category, after, most).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.0.head()
    }

    async fn close(&self) {}
}

struct Cut {
    inner: Arc<dyn Members>,
    cut: Arc<AtomicBool>,
}

impl Cut {
    fn is_cut(&self) -> Result<(), StoreError> {
        match self.cut.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable("reach the members", "the line is cut")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Members for Cut {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        self.is_cut()?;
        self.inner.renew(member, lease).await
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        self.is_cut()?;
        self.inner.leave(id).await
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        self.is_cut()?;
        self.inner.live().await
    }
}

fn eight() -> Options {
    Options { segments: SegmentCount::new(8).unwrap(), ..options() }
}

fn first() -> Carried {
    carry_v1(TotalsV1 { options: eight(), ..v1() })
}

fn second() -> Carried {
    carry_v2(TotalsV2 { options: eight(), ..v2() })
}

/// How many segments of a version each member has, by its name.
fn shares(status: &dacapo::Status, version: VersionId) -> BTreeMap<String, usize> {
    let versions = status.projections.iter().flat_map(|projection| &projection.versions);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for token in versions.filter(|found| found.version == version).flat_map(|found| &found.tokens) {
        let owner = status.members.iter().find(|member| Some(member.id) == token.owner);
        *shares.entry(owner.map_or("nobody", |owner| &owner.name).to_owned()).or_default() += 1;
    }
    shares
}

async fn shared(node: &Node, text: &str, wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<String, usize> = wanted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    until(node, &format!("{text} is shared like {wanted:?}"), |status| shares(status, version(text)) == wanted).await;
}

/// Appends through one node and reads through any, and checks every answer against its own books.
async fn client(nodes: Vec<Node>, number: usize, stop: Arc<AtomicBool>) -> usize {
    let (mut sum, mut events, mut requests) = (0, 0, number);
    let mut covers = Position::START;
    let mut shown: HashMap<usize, i64> = HashMap::new();
    let own = format!("ledger-{number}");
    while !stop.load(Ordering::SeqCst) {
        let node = |at: usize| &nodes[at % nodes.len()];
        let expected = ExpectedRevision::Exact(Revision::new(events as u64));
        let appended = node(requests).append(&own, expected, [added(events + 1)]).await.unwrap();
        (events, sum) = (events + 1, sum + events + 1);
        let answered = node(requests + 1).ask(TotalOf(own.clone())).after(appended.position).await.unwrap();
        assert_eq!(answered.value, (sum, events), "nothing is lost or applied twice, in {}", answered.version);
        assert!(answered.covers >= covers, "I-7");
        covers = answered.covers;
        let other = (number + requests) % 4;
        let answered = node(requests).ask(TotalOf(format!("ledger-{other}"))).after(covers).await.unwrap();
        assert!(answered.covers >= covers, "I-7: {} after {covers}", answered.covers);
        covers = answered.covers;
        let before = shown.insert(other, answered.value.1).unwrap_or_default();
        assert!(answered.value.1 >= before, "I-7");
        requests += 1;
    }
    requests - number
}

fn clients(nodes: &[Node], stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<usize>> {
    (0..4).map(|number| tokio::spawn(client(nodes.to_vec(), number, Arc::clone(stop)))).collect()
}

async fn stopped(clients: Vec<tokio::task::JoinHandle<usize>>, stop: &AtomicBool) {
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_and_go_share_the_segments_evenly() {
    let store = Shared::new();
    let one = store.node("one").carry(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    shared(&one, "v1.1", &[("one", 8)]).await;
    let two = store.another().node("two").carry(first()).start().await.unwrap();
    let three = store.another().node("three").carry(first()).start().await.unwrap();
    for node in [&one, &two, &three] {
        until(node, "each has its share", |status| {
            let shares = shares(status, version("v1.1"));
            shares.len() == 3 && shares.values().all(|share| (2..=3).contains(share))
        })
        .await;
    }
    let position = add(&two, "ledger-1", 5).await;
    for node in [&one, &two, &three] {
        assert_eq!(ask(node, "ledger-1", position).await, (5, 1), "whoever applied it");
    }
    // One that leaves in order hands over before its lease would end.
    three.shutdown().await;
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    one.shutdown().await;
    shared(&two, "v1.1", &[("two", 8)]).await;
    check_serving(&two).await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rebuild_is_shared_and_readers_of_any_node_never_go_back() {
    let store = Shared::new();
    let one = store.node("one").carry(first()).start().await.unwrap();
    let two = store.another().node("two").carry(first()).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(&[one.clone(), two.clone()], &stop);
    one.carry(second()).unwrap();
    two.carry(second()).unwrap();
    shared(&two, "v2.1", &[("one", 4), ("two", 4)]).await;
    ready(&two, "v2.1").await;
    for round in 0..5 {
        let (a, b) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        assert_eq!(flip(a).await.to, version("v2.1"), "round {round}");
        assert_eq!(roll_back(b).await.to, version("v1.1"), "round {round}");
    }
    flip(&one).await;
    stopped(clients, &stop).await;
    check_serving(&one).await;
    check_serving(&two).await;
    one.shutdown().await;
    two.shutdown().await;
}

// I-4, I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_lease_ends_is_taken_over_and_nothing_of_it_lands_afterwards() {
    let store = Shared::new();
    let one = store.node("one").carry(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    let cut_off = store.another();
    let behaviour = Arc::new(Behaviour::default());
    let slow = TotalsV1 { options: eight(), behaviour: Arc::clone(&behaviour) };
    let two = cut_off.node("two").carry(carry_v1(slow)).start().await.unwrap();
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    // It stops in the middle of a batch, and loses its lease there.
    behaviour.gate.send_replace(false);
    let mut last = Position::START;
    for ledger in 0..32 {
        last = add(&one, &format!("ledger-{ledger}"), 1).await;
    }
    cut_off.cut.store(true, Ordering::SeqCst);
    shared(&one, "v1.1", &[("one", 8)]).await;
    for ledger in 0..32 {
        assert_eq!(ask(&one, &format!("ledger-{ledger}"), last).await, (1, 1));
    }
    let before = rows(&one, last).await.unwrap();
    behaviour.gate.send_replace(true);
    for ledger in 0..32 {
        last = add(&one, &format!("ledger-{ledger}"), 1).await;
    }
    assert_eq!(rows(&one, last).await.unwrap().2, fold(&one, last).await, "I-3");
    assert!(before.2.values().all(|row| *row == (1, 1)));
    // It is back, as the same member, and gets its share again.
    cut_off.cut.store(false, Ordering::SeqCst);
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    check_serving(&two).await;
    two.shutdown().await;
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_of_old_and_new_code_live_side_by_side() {
    let store = Shared::new();
    let old = store.node("old").carry(first()).start().await.unwrap();
    phase(&old, "v1.1", Phase::Serving).await;
    let stop = Arc::new(AtomicBool::new(false));
    let new = store.another().node("new").carry(first()).carry(second()).start().await.unwrap();
    let clients = clients(&[old.clone(), new.clone()], &stop);
    ready(&new, "v2.1").await;
    shared(&old, "v2.1", &[("new", 8)]).await;
    shared(&old, "v1.1", &[("new", 4), ("old", 4)]).await;
    stopped(clients, &stop).await;
    // Any node takes the request; whoever carries the version carries it out.
    let requested = old.flip(&totals(), Some(version("v2.1")), Asked::by("test")).await.unwrap();
    assert_eq!(old.flipped(&requested, WAIT_MAX).await.unwrap().to, version("v2.1"));
    let position = add(&old, "ledger-1", 7).await;
    check_serving(&new).await;
    assert!(ask(&new, "ledger-1", position).await.1 > 0);
    let refused = old.ask(TotalOf("ledger-1".into())).await.unwrap_err();
    assert!(refused.to_string().contains("v2.1"), "{refused}");
    // The old code keeps its version warm, together with the new node.
    let rolled_back = old.rollback(&totals(), None, Asked::by("test")).await.unwrap();
    old.flipped(&rolled_back, WAIT_MAX).await.unwrap();
    check_serving(&old).await;
    new.shutdown().await;
    old.shutdown().await;
}

/// Only a cap brings versions together whose segments two members move, also if it was one when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_meet_when_another_node_takes_segments_while_they_are_brought_together() {
    let store = Shared::new();
    let (of_one, of_two) = (Faults::default(), Faults::default());
    let one = store.node_with(&of_one, "one").carry(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    let (looks, mut looked) = watch::channel(false);
    of_one.plan(move |call| match call {
        Call::Reader(id) if **id == view("v1.1") => {
            looks.send_replace(true);
            Some(Fault::Waits)
        }
        _ => None,
    });
    one.carry(second()).unwrap();
    tokio::time::timeout(WAIT_MAX, looked.wait_for(|looks| *looks)).await.unwrap().unwrap();
    let two = store.another().node_with(&of_two, "two").carry(first()).start().await.unwrap();
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    // From here on the other one gets on only once it is told where to wait.
    of_two.plan(|call| matches!(call, Call::Commit(_)).then_some(Fault::Fails));
    for ledger in 0..40 {
        add(&one, &format!("ledger-{ledger}"), 1).await;
    }
    until(&one, "one node is ahead of the other", |status| {
        let tokens = &status.projections[0].versions[0].tokens;
        tokens.iter().any(|token| token.position == status.head)
            && tokens.iter().any(|token| token.position < status.head)
    })
    .await;
    let capped = of_two.clone();
    of_one.plan(move |call| {
        if matches!(call, Call::Cap(id, Some(_)) if **id == view("v1.1")) {
            capped.stop();
        }
        None
    });
    ready(&one, "v2.1").await;
    let report = one.verification(&totals(), Some(version("v2.1"))).unwrap().verified.unwrap().report;
    let rows = report.parts.iter().find(|found| found.part == Part::Rows).unwrap();
    assert_eq!((&rows.outcome, rows.looked_at), (&Outcome::Passed, 40), "{report:?}");
    two.shutdown().await;
    one.shutdown().await;
}

/// Two nodes may verify one version for a moment, when members come or go, and each lifts what the other has capped.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_that_went_past_where_it_was_to_be_compared_is_compared_further_on() {
    let (store, faults) = (Shared::new(), Faults::default());
    let node = store.node_with(&faults, "one").carry(first()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 1).await;
    let (caps, mut capped) = watch::channel(0);
    // First it is capped near the head, then where the serving version is.
    faults.plan(move |call| match call {
        Call::Cap(id, Some(_)) if **id == view("v2.1") => {
            caps.send_modify(|caps| *caps += 1);
            (*caps.borrow() > 1).then_some(Fault::Waits)
        }
        _ => None,
    });
    node.carry(second()).unwrap();
    tokio::time::timeout(WAIT_MAX, capped.wait_for(|caps| *caps > 1)).await.unwrap().unwrap();
    store.store.views.find(&view("v2.1")).await.unwrap().unwrap().cap(None).await.unwrap();
    let last = add(&node, "ledger-2", 1).await;
    until(&node, "it goes on", |status| status.projections[0].versions[1].covers >= last).await;
    faults.stop();
    ready(&node, "v2.1").await;
    let report = node.verification(&totals(), Some(version("v2.1"))).unwrap().verified.unwrap().report;
    let rows = report.parts.iter().find(|found| found.part == Part::Rows).unwrap();
    assert_eq!((&rows.outcome, rows.looked_at), (&Outcome::Passed, 2), "{report:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_added_takes_its_share_of_a_rebuild_and_one_that_goes_leaves_it_to_the_others() {
    let store = Shared::new();
    let one = store.node("one").carry(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    for ledger in 0..200 {
        add(&one, &format!("ledger-{ledger}"), 1).await;
    }
    // Each node has a handler of its own, which waits until it is let go on.
    let waiting = || {
        let behaviour = Arc::new(Behaviour::default());
        behaviour.gate.send_replace(false);
        let options = Options { flip: FlipPolicy::WhenReady, batch_events_max: 5, ..eight() };
        (Arc::clone(&behaviour), carry_v2(TotalsV2 { options, behaviour }))
    };
    let (first_gate, code) = waiting();
    one.carry(code).unwrap();
    shared(&one, "v2.1", &[("one", 8)]).await;
    let (second_gate, code) = waiting();
    let two = store.another().node("two").carry(first()).carry(code).start().await.unwrap();
    // What is in the middle of a batch is handed over after it.
    first_gate.gate.send_replace(true);
    shared(&one, "v2.1", &[("one", 4), ("two", 4)]).await;
    let owned = one.status().await.unwrap().projections[0].versions[1].tokens.clone();
    let of_one = owned.iter().filter(|token| token.owner == owned[0].owner);
    let of_one: BTreeSet<_> = of_one.map(|token| token.segment).collect();
    assert_eq!(of_one.len(), 4);
    second_gate.gate.send_replace(true);
    until(&two, "both get on", |status| status.projections[0].versions[1].lag < 50).await;
    two.shutdown().await;
    phase(&one, "v2.1", Phase::Serving).await;
    check_serving(&one).await;
    one.shutdown().await;
}

fn refusing(policy: Policy, behaviour: &Arc<Behaviour>) -> Carried {
    let on_failure = OnFailure { serving: policy, initializing: policy };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let options = Options { on_failure, retry, ..eight() };
    carry_v1(TotalsV1 { options, behaviour: Arc::clone(behaviour) })
}

async fn doubt(node: &Node, ledger: &str) -> Position {
    let doubted = [LedgerEvent::Doubted { amount: 1 }];
    node.append(ledger, ExpectedRevision::Any, doubted).await.unwrap().position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_that_are_set_aside_are_retried_by_whoever_has_their_segment_whichever_node_is_asked() {
    let store = Shared::new();
    let behaviour = Arc::new(Behaviour::default());
    behaviour.refuse.store(true, Ordering::SeqCst);
    let one = store.node("one").carry(refusing(Policy::DeadLetter, &behaviour)).start().await.unwrap();
    let two = store.another().node("two").carry(refusing(Policy::DeadLetter, &behaviour)).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    let mut last = Position::START;
    for ledger in 0..32 {
        last = doubt(&one, &format!("ledger-{ledger}")).await;
    }
    assert_eq!(ask(&two, "ledger-1", last).await, (0, 0));
    behaviour.refuse.store(false, Ordering::SeqCst);
    assert_eq!(one.retry_letters(&view("v1.1"), &WhichLetters::All, &Asked::by("test")).await.unwrap(), 32);
    let applied = async {
        while rows(&one, last).await.unwrap().2.len() < 32 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, applied).await.expect("all are applied");
    assert!(one.letters(&view("v1.1"), Position::START, 100).await.unwrap().is_empty());
    check_serving(&two).await;
    two.shutdown().await;
    one.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_node_tells_why_a_segment_halts_whoever_has_it() {
    let store = Shared::new();
    let behaviour = Arc::new(Behaviour::default());
    behaviour.refuse.store(true, Ordering::SeqCst);
    let one = store.node("one").carry(refusing(Policy::Halt, &behaviour)).start().await.unwrap();
    let two = store.another().node("two").carry(refusing(Policy::Halt, &behaviour)).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    let doubted = doubt(&one, "ledger-1").await;
    for node in [&one, &two] {
        let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { position, .. } if *position == doubted);
        until(node, "the refused event", |status| status.projections[0].versions[0].waiting_on.iter().any(told)).await;
    }
    behaviour.refuse.store(false, Ordering::SeqCst);
    two.resume(&view("v1.1"), Asked::by("test")).await.unwrap();
    assert_eq!(ask(&one, "ledger-1", doubted).await, (1, 1));
    two.shutdown().await;
    one.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_cannot_read_why_a_segment_halts_says_so() {
    let (store, behaviour, faults) =
        (Shared::new(), Arc::new(Behaviour::default()), [(); 2].map(|()| Faults::default()));
    behaviour.refuse.store(true, Ordering::SeqCst);
    let [one, two] = ["one", "two"].map(|name| store.another().node_with(&faults[usize::from(name == "two")], name));
    let one = one.carry(refusing(Policy::Halt, &behaviour)).start().await.unwrap();
    let two = two.carry(refusing(Policy::Halt, &behaviour)).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    shared(&one, "v1.1", &[("one", 4), ("two", 4)]).await;
    // Whoever has the segment knows; the other one has to look.
    faults.iter().for_each(|of| of.plan(|call| matches!(call, Call::Refusals(_)).then_some(Fault::Fails)));
    let doubted = doubt(&one, "ledger-1").await;
    let handler = |reason: &WaitingOn| matches!(reason, WaitingOn::Handler { position, .. } if *position == doubted);
    let store = |reason: &WaitingOn| matches!(reason, WaitingOn::Store { .. });
    for node in [&one, &two] {
        let told = |reason: &WaitingOn| handler(reason) || store(reason);
        until(node, "a reason", |status| status.projections[0].versions[0].waiting_on.iter().any(told)).await;
    }
    two.shutdown().await;
    one.shutdown().await;
}

// I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_cannot_drive_a_flip_says_that_it_waits_for_one_that_can() {
    let store = Shared::new();
    let old = store.node("old").carry(first()).start().await.unwrap();
    phase(&old, "v1.1", Phase::Serving).await;
    add(&old, "ledger-1", 1).await;
    let behaviour = Arc::new(Behaviour { gate: watch::Sender::new(false), ..Behaviour::default() });
    let code = carry_v2(TotalsV2 { options: eight(), behaviour: Arc::clone(&behaviour) });
    let new = store.another().node("new").carry(first()).carry(code).start().await.unwrap();
    phase(&old, "v2.1", Phase::Initializing).await;
    let requested = old.flip(&totals(), Some(version("v2.1")), Asked::by("test")).await.unwrap();
    let status = old.status().await.unwrap();
    let (_, waiting_on) = status.projections[0].flip.clone().unwrap();
    assert_eq!(waiting_on, [WaitingOn::Code { version: version("v2.1") }]);
    behaviour.gate.send_replace(true);
    old.flipped(&requested, WAIT_MAX).await.unwrap();
    new.shutdown().await;
    old.shutdown().await;
}

/// All events together: one row that every segment changes.
#[derive(Clone, Row)]
#[row(table = "together")]
struct Together {
    #[row(key)]
    what: String,
    events: i64,
}

struct Tally;

impl Projection for Tally {
    const NAME: &'static str = "tally";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Together::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { rows: Rows::AcrossSegments, ..eight() }
    }

    async fn apply(&self, _: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let new = || Together { what: "all".into(), events: 0 };
        view.upsert("all", new, |row: &mut Together| row.events += 1).await?;
        Ok(())
    }
}

// I-3
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_every_segment_changes_loses_nothing_when_nodes_come_and_go() {
    let store = Shared::new();
    let one = store.node("one").carry(Tally).start().await.unwrap();
    let mut appended = 0;
    let mut last = Position::START;
    let mut nodes = vec![one];
    for name in ["two", "three", "four"] {
        // Whoever has all of it goes each time, while events come.
        let joining = store.another();
        nodes.push(joining.node(name).carry(Tally).start().await.unwrap());
        for node in &nodes {
            until(node, "all know each other, and one has all", |status| {
                let shares = shares(status, version("v1.1"));
                status.members.len() == 2 && shares.len() == 1 && !shares.contains_key("nobody")
            })
            .await;
        }
        for ledger in 0..40 {
            last = add(&nodes[appended % 2], &format!("ledger-{ledger}"), 1).await;
            appended += 1;
        }
        let gone = nodes.remove(0);
        let going = tokio::spawn(async move { gone.shutdown().await });
        for ledger in 0..40 {
            last = add(&nodes[0], &format!("ledger-{ledger}"), 1).await;
            appended += 1;
        }
        going.await.unwrap();
    }
    let mut reading = nodes[0].read("tally", last).await.unwrap();
    let counted = reading.view.get::<Together>("all").await.unwrap().unwrap().events;
    assert_eq!(usize::try_from(counted).unwrap(), appended, "I-3");
    nodes[0].shutdown().await;
}

/// Members of whom a renewal tells only the one that renews: the others have joined just after it.
struct Behind {
    inner: Arc<dyn Members>,
    renewed: watch::Sender<u32>,
}

#[async_trait]
impl Members for Behind {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        self.inner.renew(member, lease).await?;
        self.renewed.send_modify(|times| *times += 1);
        Ok(vec![member.clone()])
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        self.inner.leave(id).await
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        self.inner.live().await
    }
}

// I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_taken_from_a_node_that_has_joined_since_another_one_looked() {
    let store = Shared::new();
    let two = store.node("two").carry(first()).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    shared(&two, "v1.1", &[("two", 8)]).await;
    let behind = Arc::new(Behind { inner: Arc::clone(&store.store.members), renewed: watch::Sender::new(0) });
    let journal = Arc::new(Apart(Arc::clone(&store.store.journal), store.hears.subscribe(), Arc::default()));
    let apart = Store { journal, members: Arc::clone(&behind) as Arc<dyn Members>, ..store.store.clone() };
    let one = Node::builder().store(apart).name("one").carry(first()).start().await.unwrap();
    shared(&two, "v1.1", &[("one", 4), ("two", 4)]).await;
    // Of the one that is known to all, by its name.
    let of_two = async || {
        let status = two.status().await.unwrap();
        let me = status.members.iter().find(|member| member.name == "two").map(|member| member.id);
        let tokens = status.projections[0].versions[0].tokens.clone();
        tokens
            .into_iter()
            .filter(|token| token.owner == me)
            .map(|token| (token.segment, token.epoch))
            .collect::<Vec<_>>()
    };
    let before = of_two().await;
    assert_eq!(before.len(), 4);
    let mut renewed = behind.renewed.subscribe();
    let three_more = *renewed.borrow() + 3;
    tokio::time::timeout(WAIT_MAX, renewed.wait_for(|times| *times >= three_more)).await.unwrap().unwrap();
    let position = add(&one, "ledger-1", 5).await;
    assert_eq!(ask(&one, "ledger-1", position).await, (5, 1));
    assert_eq!(of_two().await, before);
    one.shutdown().await;
    two.shutdown().await;
}

// I-12
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_hears_of_a_clean_up_only_once_it_is_over_lets_go_of_the_view_as_well() {
    let store = Shared::new();
    let one = store.node("one").carry(first()).start().await.unwrap();
    let late = store.another();
    let two = late.node("two").carry(first()).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    one.carry(second()).unwrap();
    ready_and_flip(&one, "v2.1").await;
    phase(&one, "v1.1", Phase::StandingBy).await;
    let held = Arc::downgrade(&store.store.views.find(&view("v1.1")).await.unwrap().unwrap());
    late.hears.send_replace(false);
    one.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
    phase(&one, "v1.1", Phase::Obsolete).await;
    late.hears.send_replace(true);
    until(&two, "the view is let go of", |_| held.upgrade().is_none()).await;
    two.shutdown().await;
    one.shutdown().await;
}

// I-12
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_view_that_a_late_node_makes_again_goes_however_often_the_store_fails() {
    let store = Shared::new();
    let one = store.node("one").carry(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    one.carry(second()).unwrap();
    ready_and_flip(&one, "v2.1").await;
    phase(&one, "v1.1", Phase::StandingBy).await;
    // A node that is about to open the first version while another one cleans that up.
    let faults = Faults::default();
    let mut opened = faults.hold_up_opening(view("v1.1"));
    let two = tokio::spawn(store.another().node_with(&faults, "two").carry(first()).carry(second()).start());
    tokio::time::timeout(WAIT_MAX, opened.wait_for(|opens| *opens)).await.unwrap().unwrap();
    one.clean_up(&view("v1.1"), Asked::by("test")).await.unwrap();
    phase(&one, "v1.1", Phase::Obsolete).await;
    // From here on it makes the view again, and cannot drop it for a while.
    let (drops, mut dropped) = watch::channel(0);
    faults.plan(move |call| match call {
        Call::Drop(id) if **id == view("v1.1") => {
            drops.send_modify(|times| *times += 1);
            (*drops.borrow() < 4).then_some(Fault::Fails)
        }
        _ => None,
    });
    let two = two.await.unwrap().unwrap();
    tokio::time::timeout(WAIT_MAX, dropped.wait_for(|times| *times == 4)).await.unwrap().unwrap();
    let goes = async {
        while store.store.views.find(&view("v1.1")).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, goes).await.expect("I-12");
    check_serving(&two).await;
    two.shutdown().await;
    one.shutdown().await;
}

// I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_node_raises_the_alarm_when_nobody_takes_over() {
    let store = Shared::new();
    let one = store.node("one").carry(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    let observer = store.another().node("observer").start().await.unwrap();
    // A member that is alive, carries the code, and does nothing.
    let mut idle = one.status().await.unwrap().members.into_iter().find(|member| member.name == "one").unwrap();
    idle.id = MemberId::from_bytes([7; 16]);
    store.store.members.renew(&idle, WAIT_MAX).await.unwrap();
    one.shutdown().await;
    until(&observer, "the alarm", |status| {
        let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Unowned { segments: 8 | 4, .. });
        status.projections[0].versions[0].waiting_on.iter().any(told)
    })
    .await;
    store.store.members.leave(idle.id).await.unwrap();
    let another = store.another().node("another").carry(first()).start().await.unwrap();
    shared(&another, "v1.1", &[("another", 8)]).await;
    until(&observer, "the end of it", |status| {
        let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Unowned { .. });
        !status.projections[0].versions[0].waiting_on.iter().any(told)
    })
    .await;
    another.shutdown().await;
    observer.shutdown().await;
}
