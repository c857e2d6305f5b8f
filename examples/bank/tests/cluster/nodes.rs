//! Nodes that come, go, stop and come back.

use std::collections::BTreeMap;
use std::time::Duration;

use dacapo::limits;
use dacapo_api::{Api, FlipRequest, RebuildRequest, Status};
use tokio::time::Instant;

use crate::books::{Clients, check};
use crate::is_long;
use crate::world::{Process, World, shares, until, version};

/// I-10
const TAKEN_OVER_MAX: Duration = limits::LEASE_TIME.saturating_mul(2);
const EIGHT: [&str; 4] = ["--versions", "1", "--segments", "8"];

/// Waits until every segment of a version has one of these members, and tells since when that is.
async fn owned(node: &Process, of: &str, names: &[&str], since: Instant) -> Duration {
    node.until(&format!("{of} owned"), |status| shares(status, of, names)).await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_start_at_once_on_an_empty_database() {
    let world = World::new().await;
    let names: Vec<String> = (0..10).map(|number| format!("node-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let starting: Vec<_> =
        names.iter().map(|name| world.begin(name, &["--versions", "1", "--segments", "20"])).collect();
    let mut nodes = Vec::new();
    for node in starting {
        nodes.push(node.listening().await);
    }
    for node in &nodes {
        node.serves("v1.1").await;
        node.shared("v1.1", &names).await;
    }
    let clients = Clients::start(&world, 2);
    clients.get_on(20).await;
    check(&world, clients.stop().await).await;
}

// I-2, I-3, I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_under_traffic_is_taken_over_within_two_lease_times() {
    let world = World::new().await;
    let mut nodes = world.start_all(&["one", "two", "three"], &EIGHT).await;
    nodes[0].shared("v1.1", &["one", "two", "three"]).await;
    let clients = Clients::start(&world, 4);
    for round in 0..if is_long() { 10 } else { 2 } {
        clients.get_on(20).await;
        let killed = nodes.remove(1);
        let name = killed.name.clone();
        let left: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
        let since = Instant::now();
        killed.kill();
        let time = owned(&nodes[0], "v1.1", &left, since).await;
        assert!(time <= TAKEN_OVER_MAX, "I-10: round {round}: taken over after {time:?}");
        clients.get_on(20).await;
        let again = world.start(&name, &EIGHT).await;
        nodes.push(again);
        nodes[0].shared("v1.1", &["one", "two", "three"]).await;
    }
    check(&world, clients.stop().await).await;
}

// I-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_node_that_stops_in_a_batch_past_its_lease_nothing_lands_and_it_comes_back() {
    let world = World::new().await;
    let one = world.start("one", &EIGHT).await;
    let two = world.start("two", &[&EIGHT[..], &["--wait", "8000"]].concat()).await;
    one.shared("v1.1", &["one", "two"]).await;
    let clients = Clients::start(&world, 2);
    clients.get_on(10).await;
    // One event that its handler waits at is enough, and whose an account is shows when it is applied.
    for account in 0.. {
        world.deposit(&one, &format!("slow-{account}"), "wait").await;
        let head = one.status().await.unwrap().node.head;
        let waits =
            until("the event applied, or two waiting at it", async || match two.log().contains("waits at event") {
                true => Some(true),
                false => {
                    version(&one.status().await.ok()?, "v1.1")?.covers.filter(|covers| *covers >= head).map(|_| false)
                }
            });
        if waits.await {
            break;
        }
    }
    two.stop();
    one.shared("v1.1", &["one"]).await;
    // Those that were asked of the other one wait until they are told that it does not answer.
    clients.get_on(10).await;
    two.go_on();
    one.shared("v1.1", &["one", "two"]).await;
    two.shared("v1.1", &["one", "two"]).await;
    clients.get_on(10).await;
    check(&world, clients.stop().await).await;
    assert!(two.readyz().await.0 == 200, "{:?}", two.readyz().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_by_an_hour_has_no_effect() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for (name, off) in [("ahead", "3600"), ("behind", "-3600"), ("right", "0")] {
        nodes.push(world.start(name, &["--segments", "6", "--off", off]).await);
    }
    let names = ["ahead", "behind", "right"];
    for node in &nodes {
        node.shared("v2.1", &names).await;
    }
    let clients = Clients::start(&world, 2);
    clients.get_on(20).await;
    // The first version of all serves by itself.
    let first = nodes[0].until("a version serving", |status| status.projections[0].serving.clone()).await;
    let built = nodes[1].api.rebuild("balances", RebuildRequest::default()).await.unwrap().version;
    for node in &nodes {
        node.until("the new build ready", |status| {
            (version(status, &built)?.stage.as_deref() == Some("Ready")).then_some(())
        })
        .await;
    }
    nodes[0].api.flip("balances", FlipRequest { to: Some(built.clone()), ..FlipRequest::default() }).await.unwrap();
    for node in &nodes {
        node.serves(&built).await;
    }
    clients.get_on(20).await;
    // By each of them the old one has just begun to stand by, for a day.
    for node in &nodes {
        let remaining = node
            .until("the old version standing by", |status| {
                let reasons = &version(status, &first)?.waiting_on;
                reasons.iter().find(|reason| reason.kind == "stand_by").map(|reason| reason.text.clone())
            })
            .await;
        assert!(remaining.contains("23 h 5"), "{}: {remaining}", node.name);
    }
    check(&world, clients.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_carry_the_serving_version_is_not_ready_and_says_why() {
    let world = World::new().await;
    let old = world.start("old", &EIGHT).await;
    old.serves("v1.1").await;
    assert_eq!(old.readyz().await.0, 200);
    let new = world.start("new", &["--versions", "1,2", "--segments", "8"]).await;
    new.until("v2.1 ready", |status| (version(status, "v2.1")?.stage.as_deref() == Some("Ready")).then_some(())).await;
    // It takes the request all the same.
    old.api.flip("balances", FlipRequest { to: Some("v2.1".into()), ..FlipRequest::default() }).await.unwrap();
    old.serves("v2.1").await;
    new.serves("v2.1").await;
    let (status, text) = old.readyz().await;
    assert!(status == 503 && text.contains("a node that carries the code of v2.1"), "{status} {text}");
    assert_eq!(new.readyz().await.0, 200);
    let both = old.until("both members", |status| (status.members.len() == 2).then(|| status.members.clone())).await;
    let member = |name: &str| both.iter().find(|member| member.name == name).unwrap();
    assert_eq!(member("old").carries, ["balances v1"]);
    assert_eq!(member("new").carries, ["balances v1", "balances v2"]);
    assert_eq!(member("new").address.as_ref(), Some(&new.url));
}

/// The owners and epochs of the segments of a version.
fn claims(status: &Status, of: &str) -> Option<BTreeMap<u16, (String, u64)>> {
    let segments = &version(status, of)?.segments;
    Some(segments.iter().filter_map(|found| Some((found.segment, (found.claimed_by.clone()?, found.epoch)))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_claim_is_lost_while_a_batch_takes_longer_than_many_leases() {
    let world = World::new().await;
    let wait = if is_long() { "55000" } else { "12000" };
    let sixteen = ["--versions", "1", "--segments", "16", "--wait", wait];
    let names = ["one", "two", "three", "four"];
    let nodes = world.start_all(&names, &sixteen).await;
    for node in &nodes {
        node.shared("v1.1", &names).await;
    }
    let before = nodes[0].until("claims", |status| claims(status, "v1.1").filter(|claims| claims.len() == 16)).await;
    world.deposit(&nodes[0], "slow", "wait").await;
    let head = nodes[0].status().await.unwrap().node.head;
    nodes[1]
        .until("the event applied", |status| {
            assert_eq!(claims(status, "v1.1").as_ref(), Some(&before), "no claim is lost");
            version(status, "v1.1")?.covers.filter(|covers| *covers >= head)
        })
        .await;
    let waited = nodes.iter().filter(|node| node.log().contains("waits at event")).count();
    assert_eq!(waited, 1, "one handler has waited, once");
    check(&world, Default::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_writing_transaction_elsewhere_stalls_no_reader() {
    let world = World::new().await;
    let nodes = world.start_all(&["one", "two"], &EIGHT).await;
    nodes[0].shared("v1.1", &["one", "two"]).await;
    let mut elsewhere = world.connection().await;
    let begin = "BEGIN; CREATE TABLE public.somebodys (n int); INSERT INTO public.somebodys VALUES (1)";
    sqlx::raw_sql(begin).execute(&mut elsewhere).await.unwrap();
    let clients = Clients::start(&world, 4);
    clients.get_on(100).await;
    sqlx::raw_sql("COMMIT").execute(&mut elsewhere).await.unwrap();
    check(&world, clients.stop().await).await;
}

/// How soon all of many segments are somebody's again.
const MANY_OWNED_MAX: Duration = Duration::from_secs(10);

// I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_segments_are_owned_again_within_ten_seconds() {
    let world = World::new().await;
    let thousand = ["--versions", "1", "--segments", "1000"];
    let names = ["one", "two", "three", "four", "five"];
    let mut nodes = world.start_all(&names, &thousand).await;
    nodes[0].shared("v1.1", &names).await;
    let killed = nodes.remove(2);
    let left = ["one", "two", "four", "five"];
    let since = Instant::now();
    killed.kill();
    let time = owned(&nodes[0], "v1.1", &left, since).await;
    assert!(time <= MANY_OWNED_MAX, "after a kill: {time:?}");
    let since = Instant::now();
    let built = nodes[0].api.rebuild("balances", RebuildRequest::default()).await.unwrap().version;
    let time = owned(&nodes[0], &built, &left, since).await;
    assert!(time <= MANY_OWNED_MAX, "of a new version: {time:?}");
    let clients = Clients::start(&world, 2);
    clients.get_on(5).await;
    check(&world, clients.stop().await).await;
}
