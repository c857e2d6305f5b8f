//! Servers that are stopped and connections that are cut while a journal is in use.

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo_model::{ExpectedRevision, Position, Revision};
use dacapo_postgres::testbed::{Durability, OWNER, Server, Stop, name_of};
use dacapo_store::{AppendError, AppendRefused, Health, Journal, StoreError};
use futures::future::join_all;
use support::{Told, append, check, node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const TASKS: u64 = 16;
/// How many appends are acknowledged between two stops.
const BETWEEN: u64 = 300;

/// Appends to its own stream until it is told to end, and again whatever fails.
async fn load(
    journal: Arc<dyn Journal>,
    task: u64,
    acknowledged: Arc<watch::Sender<u64>>,
    end: Arc<AtomicBool>,
) -> Told {
    let (stream, mut told) = (format!("task-{task}"), Vec::new());
    while !end.load(Ordering::SeqCst) {
        let revision = told.len() as u64;
        let number = task << 32 | revision;
        let this = append(&stream, ExpectedRevision::Exact(Revision::new(revision)), [number]);
        let answer = loop {
            match journal.append(this.clone()).await {
                Ok(answer) => break answer,
                Err(AppendError::Store(StoreError::Unavailable { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        };
        told.push((number, answer));
        acknowledged.send_modify(|count| *count += 1);
    }
    told
}

/// Tasks that append at two nodes all the time.
struct Load {
    nodes: Vec<Arc<dyn Journal>>,
    acknowledged: watch::Receiver<u64>,
    end: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Told>>,
}

impl Load {
    async fn start(url: &str) -> Self {
        let nodes: Vec<Arc<dyn Journal>> = vec![Arc::new(node(url, 1).await), Arc::new(node(url, 2).await)];
        let end = Arc::new(AtomicBool::new(false));
        let (acknowledged, count) = watch::channel(0);
        let acknowledged = Arc::new(acknowledged);
        let tasks = (0..TASKS).map(|task| {
            let journal = Arc::clone(&nodes[task as usize % 2]);
            tokio::spawn(load(journal, task, Arc::clone(&acknowledged), Arc::clone(&end)))
        });
        Self { tasks: tasks.collect(), nodes, acknowledged: count, end }
    }

    /// Waits until more was acknowledged since now.
    async fn goes_on(&mut self) {
        self.goes_on_by(BETWEEN).await;
    }

    async fn goes_on_by(&mut self, more: u64) {
        let so_far = *self.acknowledged.borrow();
        self.acknowledged.wait_for(|count| *count >= so_far + more).await.unwrap();
    }

    /// Holds what was acknowledged against what both nodes read.
    async fn end(self) {
        self.end.store(true, Ordering::SeqCst);
        let told: Told = join_all(self.tasks).await.into_iter().flat_map(Result::unwrap).collect();
        for node in &self.nodes {
            node.head().wait_for(|head| head.get() >= told.len() as u64).await.unwrap();
            assert_eq!(check(&**node, &told).await.len(), told.len(), "nothing is there that was not acknowledged");
        }
    }
}

// I-1, I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlasts_every_stop_of_the_server() {
    let server = Arc::new(Server::start(Durability::Full));
    let url = server.database().await;
    let mut load = Load::start(&url).await;
    for how in [Stop::Kill, Stop::Immediate, Stop::Fast] {
        load.goes_on().await;
        let server = Arc::clone(&server);
        let restarted = tokio::task::spawn_blocking(move || {
            server.stop(how);
            server.go_on();
        });
        restarted.await.unwrap();
    }
    load.goes_on().await;
    load.end().await;
}

// I-1, I-2
/// Again and again, in whatever a node is just doing: between its statements, while it waits for a commit, while it
/// connects again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlasts_an_operator_who_ends_every_connection() {
    const TIMES: usize = 12;
    const WELL_MAX: Duration = Duration::from_secs(60);
    let server = Server::shared();
    let url = server.database().await;
    let mut load = Load::start(&url).await;
    for time in 0..TIMES {
        // Sometimes before anybody is back.
        if time % 3 > 0 {
            load.goes_on_by(BETWEEN / 10).await;
        }
        server.cut_off(&url).await;
    }
    load.goes_on().await;
    for node in &load.nodes {
        let well = async {
            while node.health() != Health::Well {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WELL_MAX, well).await.expect("it works again");
    }
    load.end().await;
}

// I-1, I-2
/// The nodes know both servers and find the one that takes writes. The primary ends at once with all its processes: if
/// only its first process is killed, the others show commits that the standby lacks before they end, and a node that has
/// read one of these rightly stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_at_the_standby_that_takes_over() {
    let (server, standby) = Server::pair();
    let url = server.database().await;
    let mut load = Load::start(&standby.url_beside(&url)).await;
    load.goes_on().await;
    tokio::task::spawn_blocking(move || drop(server.stop(Stop::Immediate))).await.unwrap();
    standby.promote().await;
    load.goes_on().await;
    load.end().await;
}

/// What becomes of the next append on its way through a [`Proxy`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    /// It does not reach the server.
    Request,
    /// The server commits it, the answer is lost with the connection.
    Answer,
    /// The server commits it, the connection stays and says nothing.
    Silence,
}

/// Stands between a node and the server.
struct Proxy {
    dir: tempfile::TempDir,
    state: Arc<State>,
}

struct State {
    server: PathBuf,
    next: Mutex<Option<Cut>>,
    silent: AtomicBool,
    cuts: AtomicUsize,
}

impl Proxy {
    fn start(server: &Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let state = Arc::new(State {
            server: server.socket(),
            next: Mutex::new(None),
            silent: AtomicBool::new(false),
            cuts: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(through(client, Arc::clone(&accepting)));
            }
        });
        Self { dir, state }
    }

    fn url(&self, database: &str) -> String {
        let dir = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{OWNER}@{dir}/{database}?sslmode=disable")
    }

    fn cut(&self, how: Cut) {
        *self.state.next.lock().unwrap() = Some(how);
    }
}

/// Passes on what comes from either side. Only a connection that appends is ever cut.
async fn through(mut client: UnixStream, state: Arc<State>) {
    let Ok(mut server) = UnixStream::connect(&state.server).await else { return };
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut appends, mut lost) = (false, None);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                // Its statement is prepared once on a connection.
                appends |= from_client[..count].windows(12).any(|bytes| bytes == b"FROM append(");
                if appends && lost.is_none() {
                    lost = state.next.lock().unwrap().take();
                }
                if lost == Some(Cut::Request) {
                    state.cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if server.write_all(&from_client[..count]).await.is_err() { return }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                match lost {
                    Some(Cut::Answer) => {
                        state.cuts.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    Some(Cut::Silence) => {
                        state.silent.store(true, Ordering::SeqCst);
                        state.cuts.fetch_add(1, Ordering::SeqCst);
                        // Until the client gives up.
                        while let Ok(1..) = client.read(&mut from_client).await {}
                        return;
                    }
                    _ => if client.write_all(&from_server[..count]).await.is_err() { return },
                }
            }
        }
    }
}

// I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_around_the_commit_is_answered_right() {
    let server = Server::shared();
    let url = server.database().await;
    let proxy = Proxy::start(&server);
    let journal = node(&proxy.url(name_of(&url)), 1).await;
    journal.append(append("a-1", ExpectedRevision::NoStream, [1])).await.unwrap();
    let mut told = Vec::new();
    for number in 2..=41 {
        let how = if number % 2 == 0 { Cut::Answer } else { Cut::Request };
        proxy.cut(how);
        // Exactly this revision: had the lost append been tried as a new one, it would be refused.
        let this = append("a-1", ExpectedRevision::Exact(Revision::new(number - 1)), [number]);
        let answer = journal.append(this).await.unwrap();
        assert_eq!((answer.position.get(), answer.revision.get(), answer.written), (number, number, 1), "{how:?}");
        told.push((number, answer));
    }
    assert_eq!(proxy.state.cuts.load(Ordering::SeqCst), 40, "every connection was cut");
    assert_eq!(check(&journal, &told).await.len(), 41);
}

/// Several wait, one of them for something that is not so: each has its own answer, whatever was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_append_of_a_group_has_its_own_answer_when_one_is_lost() {
    let server = Server::shared();
    let url = server.database().await;
    let proxy = Proxy::start(&server);
    let journal = node(&proxy.url(name_of(&url)), 1).await;
    journal.append(append("a-0", ExpectedRevision::NoStream, [1_000])).await.unwrap();
    let numbers = AtomicU64::new(0);
    for round in 1..=10 {
        proxy.cut(if round % 2 == 0 { Cut::Answer } else { Cut::Request });
        let answers = join_all((0..8).map(|task| {
            let expected = if task == 5 { Revision::new(77) } else { Revision::new(round - 1) };
            let number = numbers.fetch_add(1, Ordering::SeqCst) + 1;
            journal.append(append(&format!("a-{}", task + 1), ExpectedRevision::Exact(expected), [number]))
        }))
        .await;
        for (task, answer) in answers.into_iter().enumerate() {
            match (task, answer) {
                (5, Err(AppendError::Refused(AppendRefused::WrongRevision { actual, .. }))) => {
                    assert_eq!(actual, Revision::START);
                }
                (5, other) => panic!("it must be refused, but: {other:?}"),
                (_, answer) => assert_eq!(answer.unwrap().revision.get(), round),
            }
        }
    }
    assert_eq!(check(&journal, &Vec::new()).await.len(), 71);
}

// I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_said_to_be_unknown() {
    let server = Server::shared();
    let url = server.database().await;
    let proxy = Proxy::start(&server);
    let journal = node(&proxy.url(name_of(&url)), 1).await;
    journal.append(append("a-1", ExpectedRevision::NoStream, [1])).await.unwrap();
    proxy.cut(Cut::Silence);
    let this = append("a-1", ExpectedRevision::Exact(Revision::new(1)), [2]);
    let error = journal.append(this.clone()).await.unwrap_err().to_string();
    assert!(proxy.state.silent.load(Ordering::SeqCst));
    assert!(error.contains("whether the events are in the journal is unknown"), "{error}");
    // It is, as anyone who follows the advice of the message learns.
    let answer = journal.append(this).await.unwrap();
    assert_eq!((answer.position, answer.written), (Position::new(2), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_a_server_is_said_not_to_be_written() {
    let server = Arc::new(Server::start(Durability::None));
    let url = server.database().await;
    let journal = node(&url, 1).await;
    server.stop(Stop::Fast);
    let this = append("a-1", ExpectedRevision::NoStream, [1]);
    let error = journal.append(this.clone()).await.unwrap_err().to_string();
    assert!(error.contains("cannot append: not within"), "{error}");
    let read = journal.stream_revision(&support::name("a-1")).await.unwrap_err();
    assert!(matches!(read, StoreError::Unavailable { .. }), "{read:?}");
    server.go_on();
    assert_eq!(journal.append(this).await.unwrap().position, Position::new(1));
}
