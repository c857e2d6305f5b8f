//! Who has which segment when nodes come, go and lose their leases.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use dacapo::catalog::Phase;
use dacapo::options::FlipPolicy;
use dacapo::status::{Member, MemberId, WaitingOn};
use dacapo::store::{Store, StoreError};
use dacapo::{Node, Options, Position};
use dacapo_store::Members;
use tokio::sync::watch;

use super::setup::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_and_go_share_the_segments_evenly() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    shared(&one, "v1.1", &[("one", 8)]).await;
    let two = store.another().node("two").projection(first()).start().await.unwrap();
    let three = store.another().node("three").projection(first()).start().await.unwrap();
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

// I-4, I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_lease_ends_is_taken_over_and_nothing_of_it_lands_afterwards() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    let cut_off = store.another();
    let behaviour = Arc::new(Behaviour::default());
    let slow = TotalsV1 { options: eight(), behaviour: Arc::clone(&behaviour) };
    let two = cut_off.node("two").projection(carry_v1(slow)).start().await.unwrap();
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
async fn a_node_that_is_added_takes_its_share_of_a_rebuild_and_one_that_goes_leaves_it_to_the_others() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
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
    one.add_projection(code).unwrap();
    shared(&one, "v2.1", &[("one", 8)]).await;
    let (second_gate, code) = waiting();
    let two = store.another().node("two").projection(first()).projection(code).start().await.unwrap();
    // What is in the middle of a batch is handed over after it.
    first_gate.gate.send_replace(true);
    shared(&one, "v2.1", &[("one", 4), ("two", 4)]).await;
    let owned = one.status().await.unwrap().projections[0].versions[1].tokens.clone();
    let of_one = owned.iter().filter(|token| token.claimed_by == owned[0].claimed_by);
    let of_one: BTreeSet<_> = of_one.map(|token| token.segment).collect();
    assert_eq!(of_one.len(), 4);
    second_gate.gate.send_replace(true);
    until(&two, "both get on", |status| status.projections[0].versions[1].lag < 50).await;
    two.shutdown().await;
    phase(&one, "v2.1", Phase::Serving).await;
    check_serving(&one).await;
    one.shutdown().await;
}

// I-3
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_every_segment_changes_loses_nothing_when_nodes_come_and_go() {
    let store = Shared::new();
    let one = store.node("one").projection(Tally).start().await.unwrap();
    let mut appended = 0;
    let mut last = Position::START;
    let mut nodes = vec![one];
    for name in ["two", "three", "four"] {
        // Whoever has all of it goes each time, while events come.
        let joining = store.another();
        nodes.push(joining.node(name).projection(Tally).start().await.unwrap());
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
    let two = store.node("two").projection(first()).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    shared(&two, "v1.1", &[("two", 8)]).await;
    let behind = Arc::new(Behind { inner: Arc::clone(&store.store.members), renewed: watch::Sender::new(0) });
    let journal = Arc::new(Apart {
        inner: Arc::clone(&store.store.journal),
        hears: store.hears.subscribe(),
        early: Arc::default(),
    });
    let apart = Store { journal, members: Arc::clone(&behind) as Arc<dyn Members>, ..store.store.clone() };
    let one = Node::builder().store(apart).name("one").projection(first()).start().await.unwrap();
    shared(&two, "v1.1", &[("one", 4), ("two", 4)]).await;
    // Of the one that is known to all, by its name.
    let of_two = async || {
        let status = two.status().await.unwrap();
        let me = status.members.iter().find(|member| member.name == "two").map(|member| member.id);
        let tokens = status.projections[0].versions[0].tokens.clone();
        tokens
            .into_iter()
            .filter(|token| token.claimed_by == me)
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

// I-11
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_segments_of_a_version_that_stalls_names_the_member_that_has_them() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    add(&one, "ledger-1", 5).await;
    let held = v2().held();
    let gate = Arc::clone(&held.behaviour);
    let two = store.another().node("two").projection(carry_v2(TotalsV2 { options: eight(), ..held }));
    let two = two.start().await.unwrap();
    let status = until(&one, "the stall is told", |status| {
        status.projections[0].versions.iter().any(|found| found.version == version("v2.1") && found.stall.is_some())
    })
    .await;
    let stall = status.projections[0].versions[1].stall.clone().unwrap();
    assert_eq!(stall.on, [WaitingOn::Member { member: "two".into() }], "{stall}");
    gate.gate.send_replace(true);
    ready(&one, "v2.1").await;
    two.shutdown().await;
    one.shutdown().await;
}
