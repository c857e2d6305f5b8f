//! Throw-away servers from the PostgreSQL programs that are installed, for tests.
//!
//! A server lives in a temporary directory and listens on a socket there, so that it meets nobody else's. It ends with
//! its value, also when a test panics, and with the process, also when that is killed where `setpriv` can arrange it.

mod pooler;

pub use pooler::Pooler;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The user that owns everything in a server.
pub const OWNER: &str = "owner";
/// The user of the operating system that a server runs as when a test runs as root, which PostgreSQL refuses.
const RUN_AS: &str = "postgres";
/// The setting that names the stand-bys that commits wait for.
const WAITS_FOR: &str = "synchronous_standby_names";
/// The line of its log that a server writes once it can be used.
const READY: &str = "database system is ready to accept";
/// Number of starts of a server before the test fails: a killed server has processes that end later than it does.
const START_TRIES: usize = 200;

/// The durability of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As in production.
    Full,
    /// Nothing outlasts the machine; for tests that only look at what is answered.
    None,
}

/// The way in which a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Connections are ended, transactions rolled back, everything is written.
    Fast,
    /// As after a crash of the server.
    Immediate,
    /// Its first process is killed, the others see that.
    Kill,
}

/// A server.
pub struct Server {
    programs: PathBuf,
    dir: tempfile::TempDir,
    settings: Vec<String>,
    running: Mutex<Option<Running>>,
    databases: AtomicU32,
}

/// A server's first process, watched by a thread.
struct Running {
    pid: Pid,
    watcher: JoinHandle<Vec<String>>,
}

impl Server {
    /// Makes a server and starts it.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start. The message says what to do.
    pub fn start(durability: Durability) -> Self {
        Self::start_with(durability, &[])
    }

    /// The same with settings as in `postgresql.conf`.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(durability: Durability, settings: &[(&str, &str)]) -> Self {
        let programs = programs().expect(
            "the programs of PostgreSQL, initdb and postgres, are neither in PATH nor where pg_config says nor in \
             /usr/lib/postgresql: install a server (on Debian the package postgresql, on Fedora postgresql-server)",
        );
        let dir = own_folder();
        let mut initdb = as_user(&programs.join("initdb"));
        initdb.arg("-D").arg(dir.path().join("data"));
        initdb.args(["-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]);
        succeed(initdb);
        let on = if durability == Durability::Full { "on" } else { "off" };
        let mut all = vec![("max_connections", "500"), ("fsync", on), ("synchronous_commit", on)];
        all.extend([("full_page_writes", on), ("log_min_messages", "log"), ("logging_collector", "off")]);
        all.extend(settings);
        let settings = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Self::of(programs, dir, settings)
    }

    /// Returns a server, and a stand-by that each of its commits waits for.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn pair() -> (Self, Self) {
        let server = Self::start_with(Durability::Full, &[(WAITS_FOR, "*")]);
        let dir = own_folder();
        let mut copy = as_user(&server.programs.join("pg_basebackup"));
        copy.arg("-D").arg(dir.path().join("data")).arg("-h").arg(server.dir.path());
        copy.args(["-U", OWNER, "--checkpoint=fast", "--write-recovery-conf", "--no-sync"]);
        succeed(copy);
        // Nobody stands by for it in turn.
        let settings = server.settings.iter().filter(|setting| !setting.starts_with(WAITS_FOR)).cloned().collect();
        let standby = Self::of(server.programs.clone(), dir, settings);
        (server, standby)
    }

    /// Makes a stand-by the one that takes writes.
    pub async fn promote(&self) {
        self.run("postgres", "SELECT pg_promote()").await;
    }

    fn of(programs: PathBuf, dir: tempfile::TempDir, settings: Vec<String>) -> Self {
        let server = Self { programs, dir, settings, running: Mutex::new(None), databases: AtomicU32::new(0) };
        server.go_on();
        server
    }

    /// Returns the server that the tests of this process share, without durability. It ends with the last who has it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(Durability::None));
        *shared = Arc::downgrade(&server);
        server
    }

    /// Returns a new database; the answer is its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// Copies the database at `url`, which nobody uses; the answer is the name of the copy.
    pub async fn copy(&self, url: &str) -> String {
        let copy = format!("{}_copy", name_of(url));
        // Some may be about to be closed still.
        self.cut_off(url).await;
        self.run("postgres", &format!("CREATE DATABASE {copy} TEMPLATE {}", name_of(url))).await;
        copy
    }

    /// Puts the database `copy` in the place of that at `url`, as a fail-over does: connections end, and new ones lead
    /// there.
    pub async fn replace(&self, url: &str, copy: &str) {
        let name = name_of(url);
        self.run("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
        self.cut_off(url).await;
        self.run("postgres", &format!("ALTER DATABASE {name} RENAME TO {name}_lost")).await;
        self.run("postgres", &format!("ALTER DATABASE {copy} RENAME TO {name}")).await;
    }

    /// Ends every connection to the database at `url`.
    pub async fn cut_off(&self, url: &str) {
        let end = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = ";
        self.run("postgres", &format!("{end}'{}'", name_of(url))).await;
    }

    /// Returns the URL of a database.
    pub fn url(&self, database: &str) -> String {
        self.url_of(OWNER, database)
    }

    /// Returns the URL of a database for a user.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        let dir = self.dir.path().to_str().expect("a path of text").replace('/', "%2F");
        format!("postgres://{user}@{dir}/{database}?sslmode=disable")
    }

    /// Returns the URL of a database at this server and at that of `url`, this one first.
    pub fn url_beside(&self, url: &str) -> String {
        let own = self.url(name_of(url));
        let host = |url: &str| {
            let (_, rest) = url.split_once('@').expect("a URL of a server here names a user");
            rest.split_once('/').expect("and a database").0.to_owned()
        };
        own.replacen(&host(&own), &format!("{},{}", host(&own), host(url)), 1)
    }

    /// Returns the directory of its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(".s.PGSQL.5432")
    }

    /// Runs SQL in a database, as the owner.
    ///
    /// # Panics
    /// If it fails.
    pub async fn run(&self, database: &str, sql: &str) {
        let mut connection = PgConnection::connect(&self.url(database)).await.expect("the server takes connections");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("the SQL is right");
        connection.close().await.expect("the connection is closed");
    }

    /// Stops it. The answer is its log since it was started.
    pub fn stop(&self, how: Stop) -> Vec<String> {
        let Some(Running { pid, watcher }) = self.running().take() else { return Vec::new() };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        if let Err(error) = kill_process(pid, signal) {
            tracing::warn!(%error, "the server ended by itself");
        }
        watcher.join().expect("the watcher does not panic")
    }

    /// Starts it again after it was stopped.
    ///
    /// # Panics
    /// If it does not start.
    pub fn go_on(&self) {
        let mut running = self.running();
        assert!(running.is_none(), "the server runs already");
        let mut log = Vec::new();
        for _ in 0..START_TRIES {
            match self.try_start() {
                Ok(started) => {
                    *running = Some(started);
                    return;
                }
                Err(lines) => log = lines,
            }
        }
        panic!("the server does not start:\n{}", log.join("\n"));
    }

    fn try_start(&self) -> Result<Running, Vec<String>> {
        let mut command = as_user(&self.programs.join("postgres"));
        command.arg("-D").arg(self.dir.path().join("data"));
        let folder = self.dir.path().to_str().expect("a path of text");
        let own = [format!("unix_socket_directories={folder}"), "listen_addresses=".to_owned()];
        for setting in own.iter().chain(&self.settings) {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // The kernel counts the thread that started a process as its parent: this one stays as long as the server.
        let (started, ready) = channel();
        let watcher = std::thread::spawn(move || {
            let child = command.spawn().expect("the server can be started");
            // Anyone who started it waits for this, or for the end.
            watch(child, READY, |pid| started.send(pid).expect("it is waited for"))
        });
        match ready.recv() {
            Ok(pid) => Ok(Running { pid, watcher }),
            Err(_) => Err(watcher.join().expect("the watcher does not panic")),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
    }
}

/// Returns a folder for one server.
fn own_folder() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("dacapo-pg-").tempdir().expect("a temporary directory can be made");
    if let Some((user, group)) = other_user() {
        chown(dir.path(), Some(user), Some(group)).expect("root may give a directory away");
    }
    dir
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// Reads the log of a program until it ends, and tells when it is ready, which a line with `mark` says.
fn watch(mut child: Child, mark: &str, ready: impl FnOnce(Pid)) -> Vec<String> {
    let pid = Pid::from_child(&child);
    let mut ready = Some(ready);
    let mut log = Vec::new();
    let stderr = child.stderr.take().expect("it is piped");
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { break };
        if line.contains(mark)
            && let Some(ready) = ready.take()
        {
            ready(pid);
        }
        log.push(line);
    }
    child.wait().expect("a child can be waited for");
    log
}

/// Returns the name of the database at a URL that a [`Server`] gave.
pub fn name_of(url: &str) -> &str {
    let (_, path) = url.rsplit_once('/').expect("a URL names a database");
    path.split_once('?').map_or(path, |(name, _)| name)
}

/// Returns true if there are programs to make a server with.
pub fn is_installed() -> bool {
    programs().is_some()
}

/// Returns the directory of the programs of the server.
fn programs() -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&in_path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    places.extend(versions.into_iter().rev().map(|(_, path)| path));
    // A link in PATH may lead to one of them only; the others are beside the program itself.
    let real = |place: &PathBuf| Some(place.join("postgres").canonicalize().ok()?.parent()?.to_owned());
    let all = |place: &PathBuf| ["initdb", "postgres", "pg_basebackup"].iter().all(|name| place.join(name).exists());
    places.iter().filter_map(real).find(all)
}

/// User and group to run a server as, if not as the user who runs the test.
fn other_user() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let id = |what: &str| {
        let output = Command::new("id").args([what, RUN_AS]).output().expect("id can be run");
        let text = String::from_utf8_lossy(&output.stdout).trim().parse();
        text.unwrap_or_else(|_| {
            panic!("PostgreSQL does not run as root, and there is no user {RUN_AS} to run it as: make one")
        })
    };
    Some((id("-u"), id("-g")))
}

/// Returns a command as a user that PostgreSQL accepts, which ends with this process where `setpriv` can arrange
/// that.
fn as_user(program: &Path) -> Command {
    let mut arguments: Vec<OsString> = Vec::new();
    if other_user().is_some() {
        arguments.extend(["--reuid", RUN_AS, "--regid", RUN_AS, "--init-groups"].map(OsString::from));
    } else if Command::new("setpriv").arg("--version").output().is_err() {
        return Command::new(program);
    }
    arguments.push("--pdeathsig=QUIT".into());
    arguments.push(program.into());
    let mut command = Command::new("setpriv");
    // The folder a test runs in may be closed to that user.
    command.args(arguments).current_dir("/").env("LC_ALL", "C");
    command
}
