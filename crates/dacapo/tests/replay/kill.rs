//! A replay and its end, told once, whatever becomes of the process or of the view.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dacapo::catalog::Phase;
use dacapo::operate::ReplayFrom;
use dacapo::options::InPlace;
use dacapo::store::Store;
use dacapo::world::{Probe, Step, SystemClock};
use dacapo::{HandlerError, Node, Options, Position, Projection, Recorded, Row, Table, View};

use super::setup::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_told_once_though_two_nodes_see_it() {
    let store = Store::memory(Arc::new(SystemClock));
    let node = Node::builder().store(store.clone()).projection(entries(InPlace::KeepsRows)).start().await.unwrap();
    serving(&node).await;
    fill(&node, 10).await;
    // It does not carry the code, so it claims nothing; it sees the tokens and plans as every node does.
    let other = Node::builder().store(store).start().await.unwrap();
    for _ in 0..10 {
        replay(&node, ReplayFrom::Start).await;
    }
    let told = ends(&node).await;
    assert_eq!(told, ["asked", "ended"].repeat(10));
    other.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_lost_its_last_commits_takes_the_replay_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let begin = async || {
        let sums = sums::<1>();
        let node = Node::builder().data(directory.path()).projection(sums.clone()).start().await.unwrap();
        (node, sums)
    };
    let file = directory.path().join("views/totals/v1.1.db");
    let (node, _) = begin().await;
    serving(&node).await;
    let last = fill(&node, 30).await;
    node.read("totals", last).await.unwrap();
    node.shutdown().await;
    drop(node);
    let before = std::fs::read(&file).unwrap();

    let (node, _) = begin().await;
    replay(&node, ReplayFrom::Start).await;
    node.shutdown().await;
    drop(node);
    // What a power cut may do: the journal has the end of the replay, and the view does not have its beginning.
    for suffix in ["-wal", "-shm"] {
        let beside = directory.path().join(format!("views/totals/v1.1.db{suffix}"));
        std::fs::remove_file(beside).ok();
    }
    std::fs::write(&file, before).unwrap();
    let (node, sums) = begin().await;
    until(&node, "it was replayed again", |_| {
        sums.watched.applied().iter().filter(|(_, replay)| *replay).count() == 30
    })
    .await;
    check_serving(&node).await;
    assert_eq!(ends(&node).await, ["asked", "ended"], "its end is told once");
    node.shutdown().await;
}

const CHILD: &str = "DACAPO_REPLAY_CHILD";

/// Ends the process at a step, as kill -9 would.
struct DieAt(Option<Step>);

impl Probe for DieAt {
    fn completed(&self, step: Step) {
        if self.0 == Some(step) {
            std::process::abort();
        }
    }
}

/// Ends the process after so many events of the replay.
#[derive(Clone)]
struct Dies {
    inner: Sums<1>,
    after: u64,
}

impl Projection for Dies {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { batch_events_max: 7, ..self.inner.options.clone() }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        self.inner.apply(event, view).await?;
        let replays = self.inner.watched.applied().iter().filter(|(_, replay)| *replay).count() as u64;
        if self.after > 0 && replays == self.after {
            std::process::abort();
        }
        Ok(())
    }

    async fn reset(&self, view: &mut View, after: Position) -> Result<(), HandlerError> {
        self.inner.reset(view, after).await
    }
}

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (dies, directory) = told.split_once(':').unwrap();
    let step = Step::REPLAY.into_iter().find(|known| format!("{known:?}") == dies);
    let after = dies.parse().unwrap_or(0);
    let builder = Node::builder().data(directory).probe(Arc::new(DieAt(step)));
    let node = builder.projection(Dies { inner: sums::<1>(), after }).start().await.unwrap();
    serving(&node).await;
    fill(&node, 100).await;
    node.read("totals", node.head()).await.unwrap();
    let requested = ask_replay(&node, ReplayFrom::Start).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap();
    // A child that was to die at the end dies a moment after it was told.
    std::future::pending::<()>().await;
}

fn run_child(directory: &Path, dies: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--nocapture"])
        .env(CHILD, format!("{dies}:{}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its output ends when it does.
    BufReader::new(child.stdout.take().unwrap()).lines().for_each(drop);
    assert!(!child.wait().unwrap().success(), "{dies}: it was to die");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_may_die_anywhere_in_a_replay_and_exactly_at_its_end() {
    let steps = Step::REPLAY.map(|step| format!("{step:?}"));
    for dies in steps.into_iter().chain(["1", "50", "99", "100"].map(str::to_owned)) {
        let directory = tempfile::tempdir().unwrap();
        run_child(directory.path(), &dies);
        let sums = sums::<1>();
        let node = Node::builder().data(directory.path()).projection(sums.clone()).start().await.unwrap();
        let mut catalog = node.catalog();
        let over = catalog.wait_for(|catalog| catalog.version(&view("v1.1")).unwrap().replay.is_none());
        tokio::time::timeout(WAIT_MAX, over).await.unwrap_or_else(|_| panic!("{dies}: it ends")).unwrap();
        node.read("totals", node.head()).await.unwrap();
        check_serving(&node).await;
        assert_eq!(ends(&node).await, ["asked", "ended"], "{dies}");
        let resets = sums.watched.resets.load(Ordering::SeqCst);
        assert_eq!(resets, 0, "{dies}: a replay that has begun is gone on with");
        phase(&node, "v1.1", Phase::Serving).await;
        node.shutdown().await;
    }
}
