//! Real processes on a throw-away server: how they are started, looked at, and treated badly.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo_api::{Api, ApiError, ClientLimits, HttpClient, Status, VersionStatus};
use dacapo_postgres::testbed::{Server, name_of};
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

/// The longest that a test waits for something that must happen.
pub const WAIT_MAX: Duration = Duration::from_secs(120);
/// How long to rest between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(25);

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} has not happened within {} s", WAIT_MAX.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}

/// A database and the nodes on it.
pub struct World {
    pub server: Arc<Server>,
    pub url: String,
    dir: tempfile::TempDir,
    /// Where clients find the nodes that run.
    pub addresses: Arc<Mutex<Vec<String>>>,
}

/// A node: a process.
pub struct Process {
    pub name: String,
    pub url: String,
    pub api: HttpClient,
    child: Child,
    log: PathBuf,
    addresses: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// A new database on a server that tests share.
    pub async fn new() -> Self {
        Self::on(Server::shared()).await
    }

    pub async fn on(server: Arc<Server>) -> Self {
        let url = server.database().await;
        Self::at(server, url)
    }

    /// A new database on a server that a stand-by keeps up with. The nodes know of both.
    pub async fn on_pair(server: Arc<Server>, standby: &Server) -> Self {
        let url = server.database().await;
        let url = server.url_beside(&standby.url(name_of(&url)));
        Self::at(server, url)
    }

    fn at(server: Arc<Server>, url: String) -> Self {
        Self { server, url, dir: tempfile::tempdir().unwrap(), addresses: Arc::default() }
    }

    /// A file that is not there yet.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a node, and does not wait for it. With arguments that only a node with trouble knows it is one.
    pub fn begin(&self, name: &str, arguments: &[&str]) -> Starting {
        let troubles = ["--off", "--wait", "--ends"];
        let program = match arguments.iter().any(|argument| troubles.contains(argument)) {
            true => env!("CARGO_BIN_EXE_bank-node"),
            false => env!("CARGO_BIN_EXE_bank"),
        };
        let log = self.file(&format!("{name}.log"));
        let written = std::fs::File::create(&log).unwrap();
        let child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--name", name])
            .args(arguments)
            .env("DACAPO_STORE", &self.url)
            .stderr(written)
            .spawn()
            .unwrap();
        Starting { name: name.to_owned(), child, log, addresses: Arc::clone(&self.addresses) }
    }

    /// Starts a node and waits until it listens.
    pub async fn start(&self, name: &str, arguments: &[&str]) -> Process {
        self.begin(name, arguments).listening().await
    }

    /// Pays in through one of the nodes, for handlers to wait at.
    pub async fn deposit(&self, node: &Process, account: &str, note: &str) {
        let at = format!("{}/accounts/{account}", node.url);
        let opened = serde_json::json!({ "owner": "bob" });
        let http = reqwest::Client::new();
        let opened = http.put(&at).json(&opened).send().await.unwrap();
        assert!(matches!(opened.status().as_u16(), 201 | 409));
        let deposit = serde_json::json!({ "amount": 5, "note": note });
        let deposited = http.post(format!("{at}/deposits")).json(&deposit).send().await.unwrap();
        assert_eq!(deposited.status().as_u16(), 200);
    }

    /// A connection to its database, in the schema of the journal.
    pub async fn connection(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query("SET search_path = dacapo").execute(&mut connection).await.unwrap();
        connection
    }

    /// Starts nodes one after the other.
    pub async fn start_all(&self, names: &[&str], arguments: &[&str]) -> Vec<Process> {
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(self.start(name, arguments).await);
        }
        nodes
    }
}

/// A process that may not listen yet.
pub struct Starting {
    name: String,
    child: Child,
    log: PathBuf,
    addresses: Arc<Mutex<Vec<String>>>,
}

impl Starting {
    pub async fn listening(mut self) -> Process {
        let url = until(&format!("{} listens", self.name), async || {
            let text = std::fs::read_to_string(&self.log).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "{} did not start: {text}", self.name);
            let (_, rest) = text.split_once("listening on ")?;
            Some(rest.split_once('\n')?.0.to_owned())
        })
        .await;
        let Self { name, child, log, addresses } = self;
        addresses.lock().unwrap().push(url.clone());
        let api = HttpClient::new(&url, ClientLimits::default()).unwrap();
        Process { name, url, api, child, log, addresses }
    }
}

impl Process {
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn forget(&self) {
        self.addresses.lock().unwrap().retain(|url| *url != self.url);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Freezes it; a load balancer would see that as well.
    pub fn stop(&self) {
        self.signal("-STOP");
        self.forget();
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
        self.addresses.lock().unwrap().push(self.url.clone());
    }

    /// What `/readyz` says: the status of the answer, and its text.
    pub async fn readyz(&self) -> (u16, String) {
        let answer = reqwest::get(format!("{}/readyz", self.url)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.try_wait().unwrap().is_some();
        if ended {
            self.forget();
        }
        ended
    }

    pub async fn status(&self) -> Result<Status, ApiError> {
        self.api.status().await
    }

    /// Waits until its status is like that.
    pub async fn until<T>(&self, what: &str, mut is: impl FnMut(&Status) -> Option<T>) -> T {
        let what = format!("{} sees {what}", self.name);
        let mut last = None;
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            if let Ok(status) = self.status().await {
                if let Some(found) = is(&status) {
                    return found;
                }
                last = Some(status);
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not within {} s, but {last:#?}\n{}",
                WAIT_MAX.as_secs(),
                self.log()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    pub async fn serves(&self, version: &str) {
        self.until(&format!("{version} serving"), |status| (serving(status) == Some(version)).then_some(())).await;
    }

    /// Waits until each of the named members, and nobody else, has its share of a version.
    pub async fn shared(&self, version: &str, names: &[&str]) {
        let what = format!("{version} shared by {names:?}");
        self.until(&what, |status| is_shared(status, version, names).then_some(())).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.forget();
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn serving(status: &Status) -> Option<&str> {
    status.projections.first()?.serving.as_deref()
}

pub fn version<'a>(status: &'a Status, name: &str) -> Option<&'a VersionStatus> {
    status.projections.first()?.versions.iter().find(|version| version.version == name)
}

/// How many segments of a version each of the named members has; `None` while others have some, or nobody.
pub fn shares(status: &Status, of: &str, names: &[&str]) -> Option<Vec<usize>> {
    let segments = &version(status, of)?.segments;
    let mut shares = vec![0; names.len()];
    for segment in segments {
        let owner = status.members.iter().find(|member| Some(&member.id) == segment.claimed_by.as_ref())?;
        shares[names.iter().position(|name| *name == owner.name)?] += 1;
    }
    (!segments.is_empty()).then_some(shares)
}

pub fn is_shared(status: &Status, version: &str, names: &[&str]) -> bool {
    shares(status, version, names).is_some_and(|shares| {
        let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
        least.zip(most).is_some_and(|(least, most)| least > 0 && most - least <= 1)
    })
}
