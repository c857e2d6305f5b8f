//! A request outlasts the node that took it: a process that is killed as soon as it has answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use dacapo_api::{
    Api, CleanUpRequest, FlipRequest, HttpClient, PauseRequest, RebuildRequest, ReplayRequest, SettleRequest,
    VerifyRequest,
};
use dacapo_postgres::testbed::Server;
use futures::future::join_all;

use crate::code::{Behaviour, Trouble, code};
use crate::nodes::{Seen, Served, client, taken};

/// What the child is told: the address of the database.
const CHILD: &str = "DACAPO_CLUSTER_CHILD";
/// What the child says before its own address.
const AT: &str = "the child listens at ";
/// The operations, and `status`, whose projection shows that the survivor goes on.
const ASKED: [&str; 8] = ["rebuild", "flip", "clean_up", "replay", "verify", "pause", "retry_letters", "status"];

/// Not a test: what the child does, if this process is one. It is a node with the code until its standard input ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(database) = std::env::var(CHILD) else { return };
    let name = format!("child {}", std::process::id());
    let served = Served::start(&database, &name, code(&Arc::default(), &ASKED)).await;
    writeln!(std::io::stdout(), "\n{AT}{}", served.url).unwrap();
    let ends = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ends.await.unwrap().unwrap();
}

/// A node in a process of its own.
struct Process {
    api: HttpClient,
    child: Child,
}

impl Process {
    async fn start(database: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child", "--nocapture"])
            .env(CHILD, database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listens = tokio::task::spawn_blocking(move || {
            lines.find_map(|line| line.unwrap().strip_prefix(AT).map(str::to_owned)).expect("the child listens")
        });
        Self { api: client(&listens.await.unwrap()), child }
    }

    /// kill -9.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The node that survives, and those that do not: one for each request.
struct Cluster {
    database: String,
    survivor: Served,
    behaviour: Arc<Behaviour>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_of_a_node_that_is_killed_right_after_its_answer_is_carried_out() {
    let server = Server::shared();
    let database = server.database().await;
    let behaviour = Arc::<Behaviour>::default();
    let survivor = Served::start(&database, "survivor", code(&behaviour, &ASKED)).await;
    let cluster = Cluster { database, survivor, behaviour };
    join_all(ASKED.map(|operation| cluster.prepare(cluster.survivor.projection(operation)))).await;
    join_all(ASKED.map(|operation| cluster.outlasts(cluster.survivor.projection(operation)))).await;
    cluster.survivor.node.shutdown().await;
}

impl Cluster {
    /// Brings the projection to where the request is about something, while the survivor is alone.
    async fn prepare(&self, seen: Seen<'_>) {
        seen.serves("v1.1").await;
        seen.add(10).await;
        seen.until_sum(10).await;
        match seen.name {
            "flip" | "clean_up" | "verify" => {
                self.survivor.api.rebuild(seen.name, RebuildRequest::default()).await.unwrap();
                seen.ready("v1.2").await;
            }
            "retry_letters" => {
                self.behaviour.begin(seen.name, Trouble::Refuses);
                seen.add(20).await;
                seen.until_version("v1.1", "has a letter", |found| (found.letters == 1).then_some(())).await;
                self.behaviour.end(seen.name, Trouble::Refuses);
            }
            _ => {}
        }
    }

    /// Asks another node, which has the code as well, kills it once it has answered, and waits for what was asked for.
    async fn outlasts(&self, seen: Seen<'_>) {
        if seen.name == "status" {
            return;
        }
        let process = Process::start(&self.database).await;
        let (api, of) = (&process.api, seen.name);
        match of {
            "rebuild" => {
                taken(of, async || api.rebuild(of, RebuildRequest::default()).await).await;
                process.kill();
                seen.ready("v1.2").await;
            }
            "flip" => {
                taken(of, async || api.flip(of, FlipRequest::default()).await).await;
                process.kill();
                seen.serves("v1.2").await;
            }
            "clean_up" => {
                taken(of, async || api.clean_up(of, "v1.2", CleanUpRequest::default()).await).await;
                process.kill();
                seen.gone("v1.2").await;
            }
            "replay" => {
                let request = ReplayRequest { from_start: true, ..ReplayRequest::default() };
                taken(of, async || api.replay(of, request.clone()).await).await;
                process.kill();
                seen.happened("v1.1", "replay_ended").await;
                seen.until_sum(10).await;
            }
            "verify" => {
                let requested = taken(of, async || api.verify(of, VerifyRequest::default()).await).await.requested;
                process.kill();
                seen.verified("v1.2", |found| found.position > requested).await;
            }
            "pause" => {
                taken(of, async || api.pause(of, PauseRequest::default()).await).await;
                process.kill();
                seen.stands_still("v1.1", &self.survivor.projection("status")).await;
            }
            "retry_letters" => {
                let request = SettleRequest { all: true, ..SettleRequest::default() };
                let retried = taken(of, async || api.retry_letters(of, request.clone()).await).await;
                process.kill();
                assert_eq!(retried.letters, Some(1));
                seen.until_sum(30).await;
            }
            other => panic!("what does {other} do?"),
        }
    }
}
