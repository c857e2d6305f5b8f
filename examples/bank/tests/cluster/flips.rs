//! Rebuilds, flips, rollbacks and clean-ups over several nodes, one of which is killed at each stage.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::limits;
use dacapo::world::Step;
use dacapo_api::{Api, ApiError, CleanUpRequest, FlipRequest, RebuildRequest, Status};
use sqlx::Row;
use tokio::time::Instant;

use crate::books::{Books, Clients, check};
use crate::is_long;
use crate::outside::Outside;
use crate::world::{Process, WAIT_MAX, World, serving, until, version};

/// I-10
const TAKEN_OVER_MAX: Duration = limits::LEASE_TIME.saturating_mul(2);

/// Three nodes of which some die, and an operator who asks whichever lives.
struct Fleet {
    world: Arc<World>,
    nodes: Vec<Process>,
    ends: PathBuf,
    wait: &'static str,
    dead: Vec<Dead>,
}

/// A node that has ended.
struct Dead {
    name: String,
    since: Instant,
    /// How long it took until the others had all that was its own.
    taken_over: Option<Duration>,
}

impl Fleet {
    async fn start(wait: &'static str) -> Self {
        let world = Arc::new(World::new().await);
        let ends = world.file("ends");
        let mut fleet = Self { world, nodes: vec![], ends, wait, dead: vec![] };
        for name in ["one", "two", "three"] {
            fleet.add(name).await;
        }
        fleet.until("v1.1 serves", |status| serving(status).map(drop)).await;
        fleet
    }

    async fn add(&mut self, name: &str) {
        let ends = self.ends.to_str().unwrap();
        let arguments = ["--segments", "6", "--wait", self.wait, "--ends", ends];
        self.nodes.push(self.world.start(name, &arguments).await);
    }

    /// Lets the node end that completes this step next.
    fn end_at(&self, step: Step) {
        let beside = self.ends.with_extension("new");
        std::fs::write(&beside, format!("{step:?}")).unwrap();
        std::fs::rename(beside, &self.ends).unwrap();
    }

    fn bury(&mut self) {
        let (dead, now) = (&mut self.dead, Instant::now());
        self.nodes.retain_mut(|node| {
            let ended = node.has_ended();
            dead.extend(ended.then(|| Dead { name: node.name.clone(), since: now, taken_over: None }));
            !ended
        });
    }

    /// Asks one node after the other until one answers with what is waited for.
    async fn until<T>(&mut self, what: &str, mut is: impl FnMut(&Status) -> Option<T>) -> T {
        let (deadline, mut last) = (Instant::now() + WAIT_MAX, None);
        loop {
            self.bury();
            for node in &self.nodes {
                let Ok(status) = node.status().await else { continue };
                if is_owned(&status, &self.dead) {
                    self.dead.iter_mut().for_each(|dead| _ = dead.taken_over.get_or_insert(dead.since.elapsed()));
                }
                if let Some(found) = is(&status) {
                    return found;
                }
                last = Some(status);
            }
            assert!(Instant::now() < deadline, "{what}: not within {} s, but {last:#?}", WAIT_MAX.as_secs());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Asks for a change under one key, of one node after the other, until one answers that it is made.
    async fn ask<T>(&mut self, what: &str, mut ask: impl AsyncFnMut(&Process) -> Result<T, ApiError>) -> T {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            self.bury();
            for node in &self.nodes {
                match ask(node).await {
                    Ok(answer) => return answer,
                    Err(error) => assert!(error.is_transient(), "{what}: {error}"),
                }
            }
            assert!(Instant::now() < deadline, "{what} is not answered");
        }
    }

    async fn rebuild(&mut self, key: &str) -> String {
        let mut request = RebuildRequest { code: Some(2), ..RebuildRequest::default() };
        request.asked.idempotency_key = Some(key.to_owned());
        self.ask("rebuild", async |node| node.api.rebuild("balances", request.clone()).await).await.version
    }

    async fn ready(&mut self, built: &str) {
        let is_ready =
            |status: &Status| version(status, built)?.stage.as_deref().filter(|stage| *stage == "Ready").map(drop);
        self.until(&format!("{built} is ready"), is_ready).await;
    }

    async fn move_to(&mut self, key: &str, to: &str, back: bool) {
        let mut request = FlipRequest { to: Some(to.to_owned()), ..FlipRequest::default() };
        request.asked.idempotency_key = Some(key.to_owned());
        self.ask("flip", async |node| match back {
            true => node.api.rollback("balances", request.clone()).await,
            false => node.api.flip("balances", request.clone()).await,
        })
        .await;
        self.until(&format!("{to} serves"), |status| (serving(status)? == to).then_some(())).await;
    }

    async fn clean_up(&mut self, key: &str, old: &str) {
        let mut request = CleanUpRequest::default();
        request.asked.idempotency_key = Some(key.to_owned());
        self.ask("clean up", async |node| node.api.clean_up("balances", old, request.clone()).await).await;
        self.until(&format!("{old} is gone"), |status| version(status, old).is_none().then_some(())).await;
    }

    /// I-10: what the dead had was taken over in time. Then they are started again. Tells how many there were.
    async fn replace_the_dead(&mut self, at: &str) -> usize {
        let dead: Vec<String> = self.dead.iter().map(|dead| dead.name.clone()).collect();
        let gone = |status: &Status| status.members.iter().all(|member| !dead.contains(&member.name)).then_some(());
        self.until(&format!("the others have all after {at}"), gone).await;
        while self.dead.iter().any(|dead| dead.taken_over.is_none()) {
            self.until("a look", |_| Some(())).await;
        }
        for dead in std::mem::take(&mut self.dead) {
            let time = dead.taken_over.expect("it was waited for");
            assert!(time <= TAKEN_OVER_MAX, "I-10: {at}: taken over after {time:?}");
            self.add(&dead.name).await;
        }
        dead.len()
    }

    /// From `old` to a new build and to the clean-up of the old version, by way of a rollback if `back`. One node
    /// ends at `step`.
    async fn cycle(&mut self, step: Step, old: &str, back: bool) -> String {
        let at = format!("{step:?}{}", if back { " of a rollback" } else { "" });
        if !back {
            self.end_at(step);
        }
        let built = self.rebuild(&format!("rebuild {at}")).await;
        self.ready(&built).await;
        self.move_to(&format!("flip {at}"), &built, false).await;
        if back {
            self.end_at(step);
            self.move_to(&format!("back {at}"), old, true).await;
            self.move_to(&format!("flip again {at}"), &built, false).await;
        }
        self.clean_up(&format!("clean up {at}"), old).await;
        // The others may be done before the end of that one is seen.
        let deadline = Instant::now() + WAIT_MAX;
        while self.dead.is_empty() {
            assert!(Instant::now() < deadline, "one node ends at {at}");
            tokio::time::sleep(Duration::from_millis(25)).await;
            self.bury();
        }
        assert_eq!(self.replace_the_dead(&at).await, 1, "one node has ended at {at}");
        built
    }
}

/// Whether every segment of every version that is kept up to date has a member that lives.
fn is_owned(status: &Status, dead: &[Dead]) -> bool {
    let lives = |name: &String| dead.iter().all(|dead| dead.name != *name);
    let live: HashSet<&String> =
        status.members.iter().filter(|member| lives(&member.name)).map(|member| &member.id).collect();
    let applies = |phase: &str| matches!(phase, "Initializing" | "Serving" | "StandingBy");
    let versions = status.projections.iter().flat_map(|projection| &projection.versions);
    let mut segments = versions.filter(|version| applies(&version.phase)).flat_map(|version| &version.segments);
    segments.all(|segment| segment.claimed_by.as_ref().is_some_and(|owner| live.contains(owner)))
}

/// The steps at which a node is killed: a few from each stage, or all.
fn steps() -> Vec<(Step, bool)> {
    let of_flip =
        [Step::FlipRequested, Step::FlipCovered, Step::FlipHeld, Step::FlipMeasured, Step::Flipped, Step::FlipLifted];
    if is_long() {
        return Step::FLIP.map(|step| (step, false)).into_iter().chain(of_flip.map(|step| (step, true))).collect();
    }
    vec![(Step::VersionExamined, false), (Step::FlipHeld, false), (Step::Flipped, true), (Step::Dropped, false)]
}

// I-3, I-5, I-7, I-10, I-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_at_a_step_of_a_rebuild_flip_rollback_or_clean_up_is_taken_over() {
    let mut fleet = Fleet::start("0").await;
    let mut serves = fleet.until("a version serves", |status| serving(status).map(str::to_owned)).await;
    let clients = Clients::start(&fleet.world, 3);
    let outside = Outside::start(&fleet.world).await;
    for (step, back) in steps() {
        clients.get_on(5).await;
        serves = fleet.cycle(step, &serves, back).await;
    }
    clients.get_on(10).await;
    outside.sees(&fleet.world, &serves).await;
    let shown = outside.stop().await;
    assert!(shown.len() > steps().len(), "each cycle was seen with SQL from outside: {shown:?}");
    check(&fleet.world, clients.stop().await).await;
}

// I-3, I-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_replays_is_taken_over() {
    // Those that are left claim after their batch, which must not be long.
    let mut fleet = Fleet::start("200").await;
    let serves = fleet.until("a version serves", |status| serving(status).map(str::to_owned)).await;
    for account in 0..12 {
        fleet.world.deposit(&fleet.nodes[0], &format!("slow-{account}"), "wait").await;
    }
    let head = fleet.nodes[0].status().await.unwrap().node.head;
    let is_there = |status: &Status| version(status, &serves)?.covers.filter(|covers| *covers >= head);
    fleet.until("the serving version is there", is_there).await;
    // Whoever waits at more events than until now does so in the replay.
    let waits = |node: &Process| node.log().matches("waits at event").count();
    let before: Vec<usize> = fleet.nodes.iter().map(waits).collect();
    let clients = Clients::start(&fleet.world, 3);
    let built = fleet.rebuild("rebuild").await;
    let replays = until("a node is in a batch of the new build", async || {
        fleet.nodes.iter().zip(&before).position(|(node, before)| waits(node) > *before)
    });
    let victim = replays.await;
    let victim = fleet.nodes.remove(victim);
    let dead = Dead { name: victim.name.clone(), since: Instant::now(), taken_over: None };
    victim.kill();
    fleet.dead.push(dead);
    fleet.ready(&built).await;
    fleet.replace_the_dead("a replay").await;
    fleet.move_to("flip", &built, false).await;
    fleet.clean_up("clean up", &serves).await;
    clients.get_on(5).await;
    check(&fleet.world, clients.stop().await).await;
}

/// What another node does when it appends, with its transaction held open: the function of the store, called by hand.
const APPEND: &str = "SELECT written, head FROM append(0, ARRAY['account-held'], ARRAY[NULL]::bigint[], \
    ARRAY[NULL]::bigint[], 0, ARRAY[gen_random_uuid()], ARRAY[1], ARRAY[1], ARRAY['account-held'], ARRAY['deposited'], \
    ARRAY[256], ARRAY[256]::bigint[], ARRAY[3]::smallint[], ARRAY['']::bytea[], ARRAY[convert_to($1, 'UTF8')], \
    sha256(convert_to($1, 'UTF8')), NULL)";

/// Appends, and keeps each transaction open until somebody else waits to append. Tells at which positions.
async fn held_appends(world: &World, books: &Books, stop: &AtomicBool) -> Vec<u64> {
    let (mut appends, mut watches) = (world.connection().await, world.connection().await);
    let mut positions = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let note = format!("held-{}", positions.len());
        books.tries(&note);
        sqlx::query("BEGIN").execute(&mut appends).await.unwrap();
        let payload = serde_json::json!({ "amount": 3, "note": note }).to_string();
        let row = sqlx::query(APPEND).bind(payload).fetch_one(&mut appends).await.unwrap();
        assert!(row.get::<bool, _>(0));
        let position = row.get::<i64, _>(1).unsigned_abs() + 1;
        until("somebody waits to append", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity \
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut watches).await.unwrap();
            (waiting > 0 || stop.load(Ordering::SeqCst)).then_some(())
        })
        .await;
        sqlx::query("COMMIT").execute(&mut appends).await.unwrap();
        books.was_told(&note, position);
        positions.push(position);
    }
    positions
}

// I-1, I-3, I-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_appends_around_a_flip_in_a_transaction_that_is_held_open_is_never_lost() {
    let mut fleet = Fleet::start("0").await;
    let serves = fleet.until("a version serves", |status| serving(status).map(str::to_owned)).await;
    let built = fleet.rebuild("rebuild").await;
    fleet.ready(&built).await;
    let clients = Clients::start(&fleet.world, 2);
    let (stop, books) = (AtomicBool::new(false), Arc::clone(&clients.books));
    let world = Arc::clone(&fleet.world);
    let flips = async {
        for round in 0..if is_long() { 20 } else { 3 } {
            clients.get_on(5).await;
            fleet.move_to(&format!("flip {round}"), &built, false).await;
            clients.get_on(5).await;
            fleet.move_to(&format!("back {round}"), &serves, true).await;
        }
        fleet.move_to("flip", &built, false).await;
        stop.store(true, Ordering::SeqCst);
    };
    let (positions, ()) = tokio::join!(held_appends(&world, &books, &stop), flips);
    let books = clients.stop().await;
    let history = fleet.nodes[0].api.phases(dacapo_api::PhasesRequest::default()).await.unwrap().history;
    let at = |kind: &'static str| history.iter().filter(move |entry| entry.event == kind).map(|entry| entry.position);
    let flips: Vec<(u64, u64)> = at("flip_requested").zip(at("flipped").skip(1)).collect();
    let is_between = |position: &&u64| flips.iter().any(|(asked, flipped)| (asked..flipped).contains(position));
    assert!(positions.iter().filter(is_between).count() > 0, "some fell between a request and its flip: {flips:?}");
    check(&fleet.world, books).await;
}
