//! Several nodes that share a database in PostgreSQL. They are in one process, with a pool of connections each.
//!
//! Needs the programs of a PostgreSQL server; without them the rows are left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dacapo::catalog::Stage;
use dacapo::journal::{Append, OnKnown};
use dacapo::options::{FlipPolicy, SegmentCount};
use dacapo::status::{Member, MemberId};
use dacapo::store::{Journal, StoreError};
use dacapo::{
    HandlerError, Node, Options, Projection, ProjectionName, Recorded, Table, VersionCode, VersionId, View, limits,
};
use dacapo_example_bank::{Account, AccountEvent, BalanceOf, BalancesV1};
use dacapo_postgres::testbed::{Server, Stop, is_installed, name_of};
use dacapo_postgres::{Database, PostgresJournal};
use dacapo_store::{AppendError, Members};
use futures::future::{join_all, try_join_all};
use sqlx::Connection;
use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use tokio::time::Instant;

use crate::appends::{APPENDERS, append_for};
use crate::bench::{Bench, Done};
use crate::ledger::{Maker, fill};
use crate::pair::{a_second, in_turns, median, percentile};
use crate::postgres::Place;
use crate::rebuild::REBUILD_TIME_MAX;
use crate::report::Row;

const NAMES: &[&str] =
    &["cluster-append", "cluster-slow", "cluster-follow", "cluster-flip", "cluster-fail-over", "cluster-database"];
/// How many segments each version has.
const SEGMENTS: u16 = 8;
/// How long the slow handler waits for each event.
const HANDLER_TIME: Duration = Duration::from_millis(1);
/// The pause between two looks for an outcome that nothing announces.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) async fn rows(bench: &Bench) -> Done<Vec<Row>> {
    let mut rows = Vec::new();
    if !bench.wants_any(&[NAMES]) || !is_installed() {
        return Ok(rows);
    }
    if bench.begins("cluster-append") {
        rows.push(appends(bench).await?);
    }
    if bench.begins("cluster-slow") {
        rows.push(slow(bench).await?);
    }
    if bench.begins("cluster-follow") {
        rows.extend(follow(bench).await?);
    }
    if bench.begins("cluster-flip") {
        rows.extend(flips(bench).await?);
    }
    if bench.begins("cluster-fail-over") {
        rows.push(fail_over(bench).await?);
    }
    if bench.begins("cluster-database") {
        rows.push(database(bench).await?);
    }
    Ok(rows)
}

async fn appends(bench: &Bench) -> Done<Row> {
    let place = Place::new().await?;
    let nodes: Vec<Arc<dyn Journal>> = try_join_all((0..3).map(|_| place.another())).await?;
    let (streams, time) = (bench.sizes.streams, bench.sizes.loop_time);
    let measured = async || {
        let all = join_all(nodes.iter().map(|node| append_for(node, APPENDERS, streams, time))).await;
        all.into_iter().sum::<Done<f64>>()
    };
    let one = async || append_for(&nodes[0], APPENDERS, streams, time).await;
    let pair = in_turns(bench.sizes.repeats, measured, one).await?;
    join_all(nodes.iter().map(|node| node.close())).await;
    place.end().await;
    let says = "The loss of nodes that alternate at one lock.";
    Ok(Row {
        name: "cluster-append",
        what: "PostgreSQL: durable append, three nodes of 64 appenders each",
        unit: "events/s",
        floor: "one of them alone",
        ..Row::of(pair, 1.0, says)
    })
}

/// A view whose handler waits for something else.
struct Slow;

impl Projection for Slow {
    const NAME: &'static str = "slow";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[<Account as dacapo::Row>::TABLE];
    type Event = AccountEvent;

    fn options(&self) -> Options {
        options()
    }

    async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
        tokio::time::sleep(HANDLER_TIME).await;
        BalancesV1::default().apply(event, view).await
    }
}

fn options() -> Options {
    Options { segments: SegmentCount::new(SEGMENTS).expect("it is above zero"), ..Options::default() }
}

async fn slow(bench: &Bench) -> Done<Row> {
    let events = bench.sizes.followed * 8;
    let measured = async || caught_up(events, 4).await;
    let one = async || caught_up(events, 1).await;
    let pair = in_turns(bench.sizes.repeats.min(3), measured, one).await?;
    let says = "The gain of more nodes for a view with a slow handler.";
    Ok(Row {
        name: "cluster-slow",
        what: "PostgreSQL: a view whose handler waits 1 ms, four nodes",
        unit: "events/s",
        floor: "one node",
        ..Row::of(pair, 3.5, says)
    })
}

/// How many events a second so many nodes take into the slow view.
async fn caught_up(events: usize, count: usize) -> Done<f64> {
    let place = Place::new().await?;
    let nodes = Cluster::start(&place, count, || Slow.code().into()).await?;
    nodes.share("slow", count).await?;
    let begun = Instant::now();
    fill(&place.journal, events, Maker::new(23, 10_000)).await?;
    let head = *place.journal.head().borrow();
    let covers = async |node: &Node| {
        let status = node.status().await?;
        let tokens = status.projections.iter().flat_map(|found| &found.versions).flat_map(|found| &found.tokens);
        Done::Ok(tokens.clone().count() > 0 && tokens.into_iter().all(|token| token.position >= head))
    };
    while !covers(&nodes.nodes[0]).await? {
        tokio::time::sleep(LOOK).await;
    }
    let elapsed = begun.elapsed();
    nodes.end().await;
    place.end().await;
    Ok(a_second(events, elapsed))
}

async fn follow(bench: &Bench) -> Done<Vec<Row>> {
    let place = Place::new().await?;
    let nodes = Cluster::start(&place, 2, || balances(FlipPolicy::WhenReady)).await?;
    nodes.share("balances", 2).await?;
    let (mut from, mut to) = (PgConnection::connect(&place.url).await?, PgListener::connect(&place.url).await?);
    to.listen("bare").await?;
    let mut maker = Maker::new(3, bench.sizes.accounts);
    let (mut seen, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.followed {
        let event = maker.event()?;
        let account = event.stream.as_str().to_owned();
        let append = Append { events: vec![event], expected: vec![], on_known: OnKnown::Recognise };
        let appended = nodes.nodes[0].append_batch(append).await?;
        let begun = Instant::now();
        let answered = nodes.nodes[1].ask(BalanceOf { account }).after(appended.position).await?;
        seen.push(begun.elapsed().as_secs_f64() * 1e6);
        if answered.value.is_none() {
            return Err("an answer that covers an append lacks its account".into());
        }
        let begun = Instant::now();
        sqlx::query("SELECT pg_notify('bare', '')").execute(&mut from).await?;
        to.recv().await?;
        bare.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    nodes.end().await;
    place.end().await;
    let row = |name, what, floor, percent| {
        let says = "The time from the acknowledgement on one node to the answer of the other, which applies half of the events.";
        latency(name, what, percentile(seen.clone(), percent), floor, percentile(bare.clone(), percent), says)
    };
    Ok(vec![
        row(
            "cluster-follow-p50",
            "PostgreSQL: from append on one node to visible on another, p50",
            "NOTIFY to LISTEN, p50",
            50,
        ),
        row(
            "cluster-follow-p99",
            "PostgreSQL: from append on one node to visible on another, p99",
            "NOTIFY to LISTEN, p99",
            99,
        ),
    ])
}

/// Back and forth between two versions on three nodes.
async fn flips(bench: &Bench) -> Done<Vec<Row>> {
    let place = Place::new().await?;
    fill(&place.journal, bench.sizes.accounts, Maker::new(5, bench.sizes.accounts)).await?;
    let nodes = Cluster::start(&place, 3, || balances(FlipPolicy::WhenReady)).await?;
    nodes.share("balances", 3).await?;
    let projection = ProjectionName::new("balances")?;
    let node = &nodes.nodes[0];
    let old = nodes.serving("balances").ok_or("a version serves")?;
    for node in &nodes.nodes {
        node.add_projection(balances(FlipPolicy::OnCommand))?;
    }
    let new = node.projection(&projection)?.rebuild().await?.view().version;
    ready(node, new).await?;
    let (mut pauses, mut back) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.repeats * 4 {
        let requested = node.projection(&projection)?.version(new).flip().await?;
        // One of them carries it out, and knows for how long the old version was held.
        for node in &nodes.nodes {
            serves(node, &projection, new).await?;
            let report = requested.done().within(REBUILD_TIME_MAX).await?;
            pauses.extend(report.pause.map(|pause| pause.as_secs_f64() * 1e6));
        }
        let begun = Instant::now();
        node.projection(&projection)?.version(old).rollback().await?;
        serves(node, &projection, old).await?;
        back.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let mut connection = PgConnection::connect(&place.url).await?;
    sqlx::raw_sql("CREATE TABLE bare (n bigint)").execute(&mut connection).await?;
    let mut commits = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        sqlx::query("INSERT INTO bare VALUES (1)").execute(&mut connection).await?;
        commits.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    nodes.end().await;
    place.end().await;
    let commit = median(commits.into_iter());
    let says = "The time for which the processors of the old version stand still at a flip, with three nodes. Nobody else stands still.";
    let back_says = "The time from the rollback command until the old version serves, with three nodes.";
    let (pause, rollback) = ("PostgreSQL: pause of a flip, three nodes, p50", "PostgreSQL: rollback, three nodes, p50");
    let (twice, thrice) = ("two commits of a row", "three commits of a row");
    Ok(vec![
        latency("cluster-flip-pause", pause, percentile(pauses, 50), twice, commit * 2.0, says),
        latency("cluster-flip-rollback", rollback, percentile(back, 50), thrice, commit * 3.0, back_says),
    ])
}

/// Waits until the version can be flipped to.
async fn ready(node: &Node, version: VersionId) -> Done {
    let begun = Instant::now();
    while begun.elapsed() < REBUILD_TIME_MAX {
        let status = node.status().await?;
        let mut versions = status.projections.iter().flat_map(|found| &found.versions);
        if versions.any(|found| found.version == version && found.stage == Some(Stage::Ready)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("{version} does not get ready").into())
}

/// Waits until readers of the node are answered by the version.
async fn serves(node: &Node, projection: &ProjectionName, version: VersionId) -> Done {
    let mut catalog = node.catalog();
    let served = catalog.wait_for(|catalog| catalog.serving(projection) == Some(version));
    drop(tokio::time::timeout(REBUILD_TIME_MAX, served).await??);
    Ok(())
}

/// How long the segments of a node that is gone are nobody's.
async fn fail_over(bench: &Bench) -> Done<Row> {
    let place = Place::new().await?;
    let nodes = Cluster::start(&place, 3, || balances(FlipPolicy::WhenReady)).await?;
    let mut times = Vec::new();
    for _ in 0..bench.sizes.repeats.min(3) {
        nodes.share("balances", 3).await?;
        nodes.cuts[2].store(true, Ordering::SeqCst);
        let begun = Instant::now();
        nodes.share("balances", 2).await?;
        times.push(begun.elapsed().as_secs_f64());
        nodes.cuts[2].store(false, Ordering::SeqCst);
    }
    nodes.end().await;
    place.end().await;
    let (measured, lease) = (median(times.into_iter()), limits::LEASE_TIME.as_secs_f64());
    Ok(Row {
        name: "cluster-fail-over",
        what: "PostgreSQL: two nodes take over the segments of a node that stopped renewing",
        unit: "s",
        measured,
        floor: "the time of a lease",
        floor_measured: Some(lease),
        ratio: Some(lease / measured),
        says: "The time from the last renewal until live nodes have all segments.",
        ..Row::default()
    })
}

/// How long three nodes need to append again once a stand-by takes the place of a server that was killed.
async fn database(bench: &Bench) -> Done<Row> {
    let (mut times, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..bench.sizes.repeats.min(3) {
        let (primary, standby) = tokio::task::block_in_place(Server::pair);
        let url = primary.database().await;
        let url = primary.url_beside(&standby.url(name_of(&url)));
        let open = async |seed| {
            let options = dacapo_postgres::Options { seed, ..Default::default() };
            Done::Ok(PostgresJournal::open(&Database::connect(&url, options).await?, None).await?)
        };
        let journals = try_join_all((0..3).map(open)).await?;
        let mut maker = Maker::new(turn as u64, 10);
        let mut appends = || {
            let events: Done<Vec<_>> = (0..3).map(|_| maker.event()).collect();
            let append = |event| Append { events: vec![event], expected: vec![], on_known: OnKnown::Recognise };
            Done::Ok(events?.into_iter().map(append).collect::<Vec<_>>())
        };
        try_join_all(journals.iter().zip(appends()?).map(|(journal, append)| journal.append(append))).await?;
        let appends = appends()?;
        tokio::task::block_in_place(|| primary.stop(Stop::Kill));
        let again = journals.iter().zip(appends).map(|(journal, append)| appended(journal, append));
        let begun = Instant::now();
        let promotion = async {
            standby.promote().await;
            Done::Ok(begun.elapsed().as_secs_f64())
        };
        let (promoted, again) = tokio::join!(promotion, try_join_all(again));
        again?;
        times.push(begun.elapsed().as_secs_f64());
        bare.push(promoted?);
        join_all(journals.iter().map(|journal| journal.close())).await;
    }
    let (measured, promotion) = (median(times.into_iter()), median(bare.into_iter()));
    Ok(Row {
        name: "cluster-database",
        what: "PostgreSQL: server killed, stand-by promoted, three nodes append again",
        unit: "s",
        measured,
        floor: "the promotion alone",
        floor_measured: Some(promotion),
        ratio: Some(promotion / measured),
        says: "The time from the promotion command until the last of three nodes has appended. No request is lost.",
        ..Row::default()
    })
}

/// Appends however often that must be tried: the same event is not appended twice.
async fn appended(journal: &PostgresJournal, append: Append) -> Done {
    loop {
        match journal.append(append.clone()).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Store(StoreError::Unavailable { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn latency(
    name: &'static str,
    what: &'static str,
    measured: f64,
    floor: &'static str,
    bare: f64,
    says: &'static str,
) -> Row {
    let (floor_measured, ratio) = (Some(bare), Some(bare / measured));
    Row { name, what, unit: "µs", measured, floor, floor_measured, ratio, target: None, says }
}

fn balances(flip: FlipPolicy) -> VersionCode {
    let options = Options { flip, stand_by: Duration::from_secs(3_600), ..options() };
    BalancesV1 { options }.answering::<BalanceOf>().into()
}

/// Nodes with one database, each of which can be kept from renewing its lease.
struct Cluster {
    nodes: Vec<Node>,
    cuts: Vec<Arc<AtomicBool>>,
}

impl Cluster {
    async fn start(place: &Place, count: usize, code: impl Fn() -> VersionCode) -> Done<Self> {
        let (mut nodes, mut cuts) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let mut store = dacapo_postgres::connect(&place.url, dacapo_postgres::Options::default()).await?;
            let cut = Arc::new(AtomicBool::new(false));
            store.members = Arc::new(Cut { inner: store.members, cut: Arc::clone(&cut) });
            nodes.push(Node::builder().store(store).projection(code()).start().await?);
            cuts.push(cut);
        }
        Ok(Self { nodes, cuts })
    }

    fn serving(&self, projection: &str) -> Option<VersionId> {
        let projection = ProjectionName::new(projection).ok()?;
        self.nodes[0].catalog().borrow().serving(&projection)
    }

    /// Waits until so many nodes have all segments of the version that serves, about as many each.
    async fn share(&self, projection: &str, count: usize) -> Done {
        let begun = Instant::now();
        loop {
            let status = self.nodes[0].status().await?;
            let serving = self.serving(projection);
            let versions = status.projections.iter().flat_map(|found| &found.versions);
            let serving = versions.filter(|found| Some(found.version) == serving);
            let mut shares: BTreeMap<_, usize> = BTreeMap::new();
            serving.flat_map(|found| &found.tokens).for_each(|token| *shares.entry(token.claimed_by).or_default() += 1);
            let even = usize::from(SEGMENTS) / count;
            let live = |owner: &Option<MemberId>| status.members.iter().any(|member| Some(member.id) == *owner);
            if shares.len() == count && shares.iter().all(|(owner, share)| live(owner) && *share >= even) {
                return Ok(());
            }
            if begun.elapsed() > REBUILD_TIME_MAX {
                return Err(format!("{projection} is not shared by {count} nodes but {shares:?}").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn end(self) {
        join_all(self.nodes.iter().map(|node| node.shutdown())).await;
    }
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
